"""The arguments of `deduplicate()` that have an entry for each row, checked and converted."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.arrays import as_codes, as_numbers
from fairdedup.core.ordered_integers import to_ordered_integers
from fairdedup.core.similarity import unit_float16
from fairdedup.core.within import Codes, take_codes
from fairdedup.id_arrays import as_ids, as_mask


@dataclass(frozen=True)
class RowInputs:
    """Arguments of the caller, checked and converted: n rows, of which v are valid.

    Attributes
    ----------
    names : ndarray of shape (n,)
        IDs of the rows.
    reasons : ndarray of shape (n,), int8
        Code of the reason why a row is rejected; 0 where it is valid.
    rows : ndarray of shape (v,), int64
        Positions of the valid rows.
    unit : ndarray of shape (v, d), float16
        Unit vectors of the valid rows.
    protected : ndarray of shape (n,), bool, or None
        Mask of the rows that are always kept.
    values : ndarray of shape (n,), int64, or None
        Values that the rule `prefer` compares.
    within : ndarray of shape (n,), int64, or None
        Codes of the values within which rows are compared.
    """

    names: NDArray[Any]
    reasons: NDArray[np.int8]
    rows: NDArray[np.int64]
    unit: NDArray[np.float16]
    protected: NDArray[np.bool_] | None
    values: NDArray[np.int64] | None
    within: Codes = None

    def codes(self, rows: NDArray[np.int64]) -> Codes:
        """Return the codes of the values of some rows; None if rows are compared whatever their values."""
        return take_codes(self.within, rows)


def read_inputs(
    vectors: NDArray[np.floating], ids: Any, always_keep: Any, prefer: Any, within: Any = None
) -> RowInputs:
    """Check and convert the arguments that have an entry for each row.

    Parameters
    ----------
    vectors : ndarray of shape (n, d), float
        Vectors of any length.
    ids : array-like of shape (n,), or None
        Unique ids; the row numbers if None.
    always_keep : array-like or None
        IDs, or a mask of shape (n,).
    prefer : array-like of shape (n,), or None
        Numbers.
    within : array-like of shape (n,), or None
        Any hashable values.

    Raises
    ------
    UserError
        If an argument does not fit the rows.
    """
    n = len(vectors)
    names = as_ids(ids, n)
    values = None if prefer is None else to_ordered_integers(*as_numbers(prefer, n))
    protected = None if always_keep is None else as_mask(always_keep, names)
    codes = None if within is None else as_codes(within, n)
    unit, reasons = _scale_in_threads(vectors)
    rows = np.flatnonzero(reasons == 0)
    return RowInputs(names, reasons, rows, unit[rows] if len(rows) < n else unit, protected, values, codes)


def count_protected(given: RowInputs) -> int:
    """Return the number of valid rows that are always kept.

    Parameters
    ----------
    given : RowInputs
        The rows.
    """
    return 0 if given.protected is None else int(np.count_nonzero(given.protected & (given.reasons == 0)))


def _scale_in_threads(vectors: NDArray[np.floating]) -> tuple[NDArray[np.float16], NDArray[np.int8]]:
    step = 8192
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        done = list(pool.map(lambda k: unit_float16(vectors[k : k + step]), range(0, len(vectors), step)))
    return np.concatenate([unit for unit, _ in done]), np.concatenate([reasons for _, reasons in done])
