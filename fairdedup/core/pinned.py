"""Rows that are kept beforehand: each takes its duplicates with it before the sweep of its cluster begins.

So the rows that a user protects are kept by every rule that sweeps, and what earlier runs kept stays kept. This module
never decides between two of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.similarity import MAX_EPS, Vectors, eps_needed_by, most_similar

NEVER = MAX_EPS + 1
AT_ONCE = 1 << 14  # samples of earlier runs that are widened at a time


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
        n + j is the j-th sample that earlier runs kept of the cluster; ties go to these first.
    """

    needed: NDArray[np.int64]
    keeper: NDArray[np.int64]

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Which rows are kept beforehand."""
        return self.needed == 0


def beforehand(
    vectors: Vectors, rows: NDArray[np.int64], kept: NDArray[np.bool_], earlier: NDArray[np.float16] | None = None
) -> Beforehand:
    """Find which row that is kept beforehand takes each of the others, and from which eps on.

    Parameters
    ----------
    vectors : Vectors of n rows
    rows : ndarray of shape (n,), int64
    kept : ndarray of shape (n,), bool
        Those that are kept beforehand.
    earlier : ndarray of shape (m, d), float16, optional
        What earlier runs kept of the cluster.
    """
    keeper = np.arange(len(rows))
    needed = np.where(kept, 0, NEVER)
    earlier = np.zeros((0, 0), np.float16) if earlier is None else earlier
    first, rest = np.flatnonzero(kept), np.flatnonzero(~kept)
    first = first[np.argsort(rows[first])]  # ties go to the lower position
    best = np.full(len(rest), -2.0)  # below every cosine
    queries = vectors.take(rest)

    def take(places: NDArray[np.int64], others: Vectors) -> None:
        nearest, similarity = most_similar(queries, others)
        more = similarity > best
        keeper[rest[more]], best[more] = places[nearest[more]], similarity[more]

    if len(rest):
        for start, stop in spans(earlier):
            take(len(rows) + np.arange(start, stop), Vectors.of(earlier[start:stop]))
        if len(first):
            take(first, vectors.take(first))
        if len(first) or len(earlier):
            needed[rest] = eps_needed_by(best)
    return Beforehand(needed, keeper)


def spans(earlier: NDArray[np.float16]) -> list[tuple[int, int]]:
    """Return where samples of earlier runs begin and end that are looked at together."""
    return [(start, min(start + AT_ONCE, len(earlier))) for start in range(0, len(earlier), AT_ONCE)]
