"""Pinned rows are kept before the sweep of their cluster begins, and their duplicates are removed.

They are the rows that a user protects, and the samples that earlier runs kept. This module never decides between two
pinned rows: both are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.model import EarlierKept
from fairdedup.core.nearest import most_similar
from fairdedup.core.similarity import MAX_EPS, Vectors, eps_needed_by

NEVER = MAX_EPS + 1
BLOCK = 1 << 14  # samples of earlier runs that are widened to float32 at a time


@dataclass(frozen=True)
class PinnedRows:
    """Effect of the pinned rows of one cluster on its n rows, in visiting order.

    Attributes
    ----------
    needed : ndarray of shape (n,), int64
        Least eps at which the row is visited before the sweep: 0 for a pinned row, `NEVER` if no pinned row can
        remove it.
    keeper : ndarray of shape (n,), int64
        Place of the pinned row that is most similar to the row, or its own place without one. n + j is the j-th sample
        that earlier runs kept of the cluster. Ties go to these samples first, then to the lowest row.
    """

    needed: NDArray[np.int64]
    keeper: NDArray[np.int64]

    @classmethod
    def none(cls, n: int) -> PinnedRows:
        """Return the effect on n rows where no row is pinned."""
        return cls(np.full(n, NEVER), np.arange(n))

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Mask of the pinned rows (n,)."""
        return self.needed == 0


def pin_rows(
    vectors: Vectors,
    rows: NDArray[np.int64],
    kept: NDArray[np.bool_],
    earlier: EarlierKept | None = None,
    within: NDArray[np.int64] | None = None,
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
    earlier : EarlierKept of m samples, optional
        Samples of the cluster that earlier runs kept.
    within : ndarray of shape (n,), int64, optional
        Codes of the values within which rows are compared; then `earlier` has them too.
    """
    keeper = np.arange(len(rows))
    needed = np.where(kept, 0, NEVER)
    old = np.zeros((0, 0), np.float16) if earlier is None else earlier.unit
    first, rest = np.flatnonzero(kept), np.flatnonzero(~kept)
    first = first[np.argsort(rows[first])]
    best = np.full(len(rest), -2.0)  # below every cosine
    queries = vectors.take(rest)

    def improve(places: NDArray[np.int64], others: Vectors, theirs: NDArray[np.int64] | None) -> None:
        codes = None if within is None or theirs is None else (within[rest], theirs)
        nearest, similarity = most_similar(queries, others, codes)
        more = similarity > best
        keeper[rest[more]], best[more] = places[nearest[more]], similarity[more]

    if len(rest):
        for start, stop in split_blocks(old):
            theirs = None if earlier is None or earlier.within is None else earlier.within[start:stop]
            improve(len(rows) + np.arange(start, stop), Vectors.of(old[start:stop]), theirs)
        if len(first):
            improve(first, vectors.take(first), None if within is None else within[first])
        found = best > -2.0
        needed[rest[found]] = eps_needed_by(best[found])
    return PinnedRows(needed, keeper)


def split_blocks(earlier: NDArray[np.float16]) -> list[tuple[int, int]]:
    """Return the bounds of the blocks that are widened to float32 together.

    Parameters
    ----------
    earlier : ndarray of shape (m, d), float16
        Samples that earlier runs kept.

    Returns
    -------
    list of (int, int)
        Start and stop of each block.
    """
    return [(start, min(start + BLOCK, len(earlier))) for start in range(0, len(earlier), BLOCK)]
