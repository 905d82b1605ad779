"""Numbers of any type as int64 in the same order, so that the rule `prefer` only compares integers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_ordered_integers(values: NDArray[Any], missing: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """Return integers that sort like the values: equal for equal values, and lowest for missing ones.

    Parameters
    ----------
    values : ndarray of shape (n,), of integers or floats
        Values to sort by; NaN is missing. Integers above 2**63 - 1 count as that, those below -(2**63 - 1) as this.
    missing : ndarray of shape (n,), bool, optional
        Mask of further missing values.

    Returns
    -------
    order : ndarray of shape (n,), int64
        -2**63 for a missing value.
    """
    most = np.iinfo(np.int64).max
    if values.dtype.kind == "u":
        order = np.minimum(values.astype(np.uint64), np.uint64(most)).astype(np.int64)
    elif values.dtype.kind == "i":
        order = np.maximum(values.astype(np.int64), -most)
    else:
        floats = values.astype(np.float64) + 0.0  # -0 becomes 0
        bits = floats.view(np.int64)
        order = np.where(np.isnan(floats), -most - 1, np.where(bits < 0, bits ^ most, bits))
    if missing is not None:
        order[missing] = -most - 1
    return order
