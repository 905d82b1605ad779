"""Suggests an eps from the data: where the histogram of nearest-neighbour cosines bends.

Near-duplicates lie close to 1, and other samples at smaller cosines. Where the two parts are separated by a valley, its
lowest point is a threshold that the data themselves have. Where there is no valley, nothing is suggested.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BINS = 201  # hundredths from -1 to 1
FEWEST = 30  # cosines, below which a histogram says nothing
LEAST_ABOVE, LEAST_BELOW = 0.01, 0.1  # shares of the cosines above and below the valley: a few outliers are no part
DEPTH = 2.0  # a peak on either side is so many times as high as the valley
LOWEST, HIGHEST = 0.6, 0.98  # where a valley may be


def count_cosines(cosines: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the number of cosines in each hundredth, rounded down.

    Parameters
    ----------
    cosines : ndarray of shape (n,)
        Cosines; NaN is none.

    Returns
    -------
    ndarray of shape (201,), int64
        Counts from -1 to 1.
    """
    known = cosines[~np.isnan(cosines)].astype(np.float64)
    return np.bincount(np.floor(known.clip(-1, 1) * 100).astype(np.int64) + 100, minlength=BINS)


def suggest_eps(counts: NDArray[np.int64]) -> float | None:
    """Return the eps at the lowest point of the valley under the near-duplicates, None if there is no valley.

    Parameters
    ----------
    counts : ndarray of shape (201,), int64
        Number of samples by the cosine to their nearest neighbour, as `count_cosines` returns it.

    Returns
    -------
    float or None
        Eps in whole hundredths.
    """
    total = int(counts.sum())
    if total < FEWEST:
        return None
    smooth = np.convolve(counts, [0.25, 0.5, 0.25], "same")
    lowest, highest = round(100 * LOWEST) + 100, round(100 * HIGHEST) + 100
    valleys = [
        bin_
        for bin_ in range(lowest, highest + 1)
        if counts[bin_:].sum() >= LEAST_ABOVE * total
        and counts[:bin_].sum() >= LEAST_BELOW * total
        and min(smooth[:bin_].max(), smooth[bin_ + 1 :].max()) >= max(DEPTH * smooth[bin_], 1.0)
    ]
    if not valleys:
        return None
    least = min(smooth[bin_] for bin_ in valleys)
    level = [bin_ for bin_ in valleys if smooth[bin_] == least]
    return (200 - level[len(level) // 2]) / 100
