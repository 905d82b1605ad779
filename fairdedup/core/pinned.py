"""Pinned rows are kept before the sweep of their cluster begins, and their duplicates are removed.

They are the rows that a user protects, and the samples that earlier runs kept. This module never decides between two
pinned rows: both are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.similarity import MAX_EPS, Vectors, eps_needed_by, most_similar

NEVER = MAX_EPS + 1
BLOCK = 1 << 14  # samples of earlier runs that are widened to float32 at a time


@dataclass(frozen=True)
class PinnedRows:
    """Effect of the pinned rows of one cluster on its n rows, in visiting order.

    Attributes
    ----------
    needed : ndarray of shape (n,), int64
        Least eps at which the row is visited before the sweep: 0 for a pinned row, `NEVER` if the cluster has no
        pinned row.
    keeper : ndarray of shape (n,), int64
        Place of the pinned row that is most similar to the row, or its own place without one. n + j is the j-th sample
        that earlier runs kept of the cluster. Ties go to these samples first, then to the lowest row.
    """

    needed: NDArray[np.int64]
    keeper: NDArray[np.int64]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Mask of the pinned rows (n,)."""
        return self.needed == 0


def pin_rows(
    vectors: Vectors, rows: NDArray[np.int64], kept: NDArray[np.bool_], earlier: NDArray[np.float16] | None = None
) -> PinnedRows:
    """Find the pinned row that would remove each of the other rows, and the least eps at which it does.

    Parameters
    ----------
    vectors : Vectors of n rows
        Vectors of the cluster, in visiting order.
    rows : ndarray of shape (n,), int64
        Positions in the input; ties go to the lowest.
    kept : ndarray of shape (n,), bool
        Mask of the pinned rows.
    earlier : ndarray of shape (m, d), float16, optional
        Samples of the cluster that earlier runs kept.
    """
    keeper = np.arange(len(rows))
    needed = np.where(kept, 0, NEVER)
    earlier = np.zeros((0, 0), np.float16) if earlier is None else earlier
    first, rest = np.flatnonzero(kept), np.flatnonzero(~kept)
    first = first[np.argsort(rows[first])]
    best = np.full(len(rest), -2.0)  # below every cosine
    queries = vectors.take(rest)

    def improve(places: NDArray[np.int64], others: Vectors) -> None:
        nearest, similarity = most_similar(queries, others)
        more = similarity > best
        keeper[rest[more]], best[more] = places[nearest[more]], similarity[more]

    if len(rest):
        for start, stop in split_blocks(earlier):
            improve(len(rows) + np.arange(start, stop), Vectors.of(earlier[start:stop]))
        if len(first):
            improve(first, vectors.take(first))
        if len(first) or len(earlier):
            needed[rest] = eps_needed_by(best)
    return PinnedRows(needed, keeper)


def split_blocks(earlier: NDArray[np.float16]) -> list[tuple[int, int]]:
    """Return the bounds of the blocks of earlier samples (m, d) that are widened to float32 together."""
    return [(start, min(start + BLOCK, len(earlier))) for start in range(0, len(earlier), BLOCK)]
