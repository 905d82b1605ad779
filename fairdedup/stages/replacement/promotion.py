"""Which rows take the place of vanished samples; it sees arrays only. docs/run-directory.md has the rule."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


class Promotion(NamedTuple):
    """New representatives.

    Attributes
    ----------
    representative : ndarray of shape (n,), int64
        New representative of each orphan: its own row where it is promoted, or where no row is left to promote.
    promoted : ndarray of shape (p,), int64, ascending
        For each vanished row, the most similar of the rows that had been removed for it; ties go to the lowest row.
    """

    representative: Rows
    promoted: Rows


def trace_back(gone: Rows, kept: NDArray[np.bool_], representative: Rows) -> Rows:
    """Return where the orphans of each vanished row go back to: a row that stays, or a vanished row that was kept.

    In `semdedup-chain` a removed row can be a representative, so a vanished row may lead to another vanished row.

    Parameters
    ----------
    gone : ndarray of shape (g,), int64, ascending
    kept : ndarray of shape (g,), bool
        Whether each vanished row was kept.
    representative : ndarray of shape (g,), int64
        Representative of each vanished row.
    """
    back = np.where(kept, gone, representative)
    while True:
        place = np.searchsorted(gone, back).clip(max=len(gone) - 1)
        again = (gone[place] == back) & ~kept[place]
        if not again.any():
            return back
        back = np.where(again, representative[place], back)


def promote(
    rows: Rows, back: Rows, similarity: NDArray[np.float64], kept: NDArray[np.bool_], vanished: Rows
) -> Promotion:
    """Give every orphan its new representative.

    Parameters
    ----------
    rows : ndarray of shape (n,), int64
        Orphans: rows whose representative has vanished.
    back : ndarray of shape (n,), int64
        Row that each goes back to: a row that stays, or one of `vanished`.
    similarity : ndarray of shape (n,), float64
        Cosine of each orphan with that row.
    kept : ndarray of shape (n,), bool
        Whether each orphan is kept already, which re-admitted rows are.
    vanished : ndarray of shape (v,), int64, ascending
        Rows that were kept and have vanished.
    """
    lost = np.isin(back, vanished)
    heirs = np.flatnonzero(lost & ~kept)
    heirs = heirs[np.lexsort((rows[heirs], -similarity[heirs], back[heirs]))]
    owners, first = np.unique(back[heirs], return_index=True)
    promoted = rows[heirs[first]]
    place = np.searchsorted(owners, back).clip(max=max(len(owners) - 1, 0))
    representative = np.where(lost, rows, back)
    if len(owners):
        has_heir = lost & (owners[place] == back)
        representative[has_heir] = promoted[place[has_heir]]
    return Promotion(representative, np.sort(promoted))
