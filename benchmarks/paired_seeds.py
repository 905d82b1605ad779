"""Paired differences of measures over seeds: the mean, its t interval, and the p-value of a paired t-test.

The same seeds must stand in the same order on both sides. Nothing here reads a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from fairdedup.errors import UserError

BY_CHANCE = "by chance"  # the name of values of random rankings, which are no measures of a model


def paired_difference(own: ArrayLike, base: ArrayLike, level: float = 0.95) -> dict[str, float | None]:
    """Return the mean of own - base with its t interval, and the p-value of a paired t-test.

    Parameters
    ----------
    own, base : array_like of shape (n,), float
        Values of the same seeds in the same order.
    level : float
        Level of the interval.

    Returns
    -------
    dict
        `mean`, `low`, `high` and `p`; the last three are None for one seed, or where all differences are equal.
    """
    gain = np.asarray(own, dtype=np.float64) - np.asarray(base, dtype=np.float64)
    mean = float(gain.mean())
    out: dict[str, float | None] = {"mean": mean, "low": None, "high": None, "p": None}
    if len(gain) > 1 and gain.std() > 0:
        half = float(stats.t.ppf(0.5 + level / 2, len(gain) - 1) * stats.sem(gain))
        out |= {"low": mean - half, "high": mean + half, "p": float(stats.ttest_1samp(gain, 0).pvalue)}
    return out


def list_measures(result: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    """Yield the path and value of every measure (float) of a nested result; values by chance are no measures."""
    for name, value in result.items():
        if isinstance(value, Mapping) and name != BY_CHANCE:
            yield from list_measures(value, (*path, name))
        elif isinstance(value, float):
            yield (*path, name), value


def compare_over_seeds(own: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the paired difference of every measure over seeds, by its path joined with " / ".

    Parameters
    ----------
    own, base : sequence of n mappings
        Results of the same n seeds in the same order, as `evaluate_faces.evaluate_vectors` returns them.

    Raises
    ------
    UserError
        If the numbers of seeds differ or are 0.
    """
    if len(own) != len(base) or not own:
        raise UserError(f"{len(own)} results cannot be paired with {len(base)}: give both of the same seeds")
    left, right = ([dict(list_measures(one)) for one in side] for side in (own, base))
    shared = [path for path in left[0] if all(path in one for one in (*left, *right))]
    return {
        " / ".join(path): paired_difference([one[path] for one in left], [one[path] for one in right])
        for path in shared
    }
