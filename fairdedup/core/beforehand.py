"""Rows that are kept beforehand: each takes its duplicates with it before the sweep of its cluster begins.

So the rows that a user protects are kept by every rule that sweeps. This module never decides between two of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.similarity import MAX_EPS, Vectors, eps_needed_by, most_similar

NEVER = MAX_EPS + 1


@dataclass(frozen=True)
class Beforehand:
    """What the rows that are kept beforehand do to the rows of one cluster, in visiting order.

    Attributes
    ----------
    needed : ndarray of shape (n,), int64
        The least eps at which the row is visited before the sweep: 0 for a row that is kept beforehand, `NEVER` where
        the cluster has none.
    keeper : ndarray of shape (n,), int64
        The place of the row kept beforehand that is most similar to it, ties to the lowest row; its own without one.
    """

    needed: NDArray[np.int64]
    keeper: NDArray[np.int64]

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Which rows are kept beforehand."""
        return self.needed == 0


def beforehand(vectors: Vectors, rows: NDArray[np.int64], kept: NDArray[np.bool_]) -> Beforehand:
    """Find which row that is kept beforehand takes each of the others, and from which eps on.

    Parameters
    ----------
    vectors : Vectors of n rows
    rows : ndarray of shape (n,), int64
    kept : ndarray of shape (n,), bool
        Those that are kept beforehand.
    """
    keeper = np.arange(len(rows))
    needed = np.where(kept, 0, NEVER)
    first, rest = np.flatnonzero(kept), np.flatnonzero(~kept)
    if len(first) and len(rest):
        first = first[np.argsort(rows[first])]  # ties go to the lower position
        nearest, similarity = most_similar(vectors.take(rest), vectors.take(first))
        keeper[rest], needed[rest] = first[nearest], eps_needed_by(similarity)
    return Beforehand(needed, keeper)
