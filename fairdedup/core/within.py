"""Rows that are compared only where the values of a column are equal: the codes that stand for these values.

Rows whose codes differ are never compared. Without the option there are no codes, and compiled code sees zeros. The
published methods have nothing like it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.compiled import njit

Codes = NDArray[np.int64] | None


def codes_or_zeros(within: Codes, n: int) -> NDArray[np.int64]:
    """Return the codes of n rows, all 0 if there are none."""
    return np.zeros(n, np.int64) if within is None else within


def take_codes(within: Codes, places: NDArray[np.integer] | slice) -> Codes:
    """Return the codes of the rows at some places; None if there are none."""
    return None if within is None else within[places]


@njit
def hide_other_values(products, mine, theirs):  # type: ignore[no-untyped-def]
    """Make the products (n, m) of rows whose codes (n,) and (m,) differ smaller than all others."""
    for i in range(products.shape[0]):
        for k in range(products.shape[1]):
            if mine[i] != theirs[k]:
                products[i, k] = -np.inf
