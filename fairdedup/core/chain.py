"""`semdedup-chain`: what SemDeDup's published code does, to reproduce old runs.

In visiting order, a row is removed when its similarity to any earlier row, removed ones included, exceeds 1 - eps. Its
representative is the most similar earlier row and may itself be removed. The paper's rule is `semdedup`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.arranged import ArrangedCluster, arrange
from fairdedup.core.compiled import njit
from fairdedup.core.model import Plan
from fairdedup.core.nearest import open_search, split_rows
from fairdedup.core.part import Part
from fairdedup.core.rules.base import Representatives
from fairdedup.core.similarity import MAX_EPS, Vectors, cosine, eps_needed_by, margin
from fairdedup.core.within import codes_or_zeros

TILE_ROWS, TILE_COLUMNS = 512, 8192


class _Rows(NamedTuple):
    """The n rows of a cluster in visiting order, and the largest error of a float32 product as a cosine (slack).

    Rows whose numbers in `within` differ are not compared.
    """

    x: NDArray[np.float32]
    squares: NDArray[np.float64]
    rows: NDArray[np.int64]
    within: NDArray[np.int64]
    slack: float


@njit
def _improve(i, j, own, best, best_similarity):  # type: ignore[no-untyped-def]
    """Make j the most similar earlier row of i if it is, exactly; ties go to the lowest row."""
    exact = cosine(own.x[i], own.x[j], own.squares[i], own.squares[j])
    if exact > best_similarity[i] or (exact == best_similarity[i] and own.rows[j] < own.rows[best[i]]):
        best[i], best_similarity[i] = j, exact


@njit
def _improve_by_candidates(candidates, first, own, best, best_similarity):  # type: ignore[no-untyped-def]
    """Update the most similar earlier rows, from the place `first` on, with what a device has found."""
    for k in range(candidates.rows.shape[0]):
        _improve(first + candidates.rows[k], candidates.columns[k], own, best, best_similarity)


@njit
def _improve_best(products, first, second, own, best, best_similarity):  # type: ignore[no-untyped-def]
    """Update each row's most similar earlier row with the columns of one tile; ties go to the lowest row."""
    squares, within = own.squares, own.within
    for r in range(products.shape[0]):
        i = first + r
        for c in range(min(products.shape[1], i - second)):
            j = second + c
            if within[i] != within[j]:
                continue
            similarity = np.float64(products[r, c]) / np.sqrt(squares[i] * squares[j])
            if similarity + own.slack < best_similarity[i]:
                continue
            _improve(i, j, own, best, best_similarity)


def most_similar_earlier(
    vectors: Vectors, rows: NDArray[np.int64], within: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Find for each row the most similar row before it in the visiting order, exactly.

    Parameters
    ----------
    vectors : Vectors of n rows
        Vectors in visiting order.
    rows : ndarray of shape (n,), int64
        Rows in visiting order.
    within : ndarray of shape (n,), int64, optional
        Only rows of the same number are compared.

    Returns
    -------
    earlier : ndarray of shape (n,), int32
        Place of that row in the visiting order; -1 for a row that has none to be compared with.
    similarity : ndarray of shape (n,), float64
        Cosine to that row; -2 where there is none.
    """
    n = len(vectors)
    best = np.full(n, -1, np.int32)
    similarity = np.full(n, -2.0)
    slack = margin(vectors.x.shape[1])
    own = _Rows(vectors.x, vectors.squares, rows, codes_or_zeros(within, n), slack)
    search = open_search(vectors, n)
    if search is not None:
        for some in split_rows(n, search.step):
            codes = None if within is None else (within[some], within)
            found = search.find_near_best(vectors.x[some], vectors.squares[some], 1, 4 * slack, codes, some.start)
            _improve_by_candidates(found, some.start, own, best, similarity)
        return best, similarity
    for first in range(0, n, TILE_ROWS):
        block = vectors.x[first : first + TILE_ROWS]
        for second in range(0, first + len(block), TILE_COLUMNS):
            products = block @ vectors.x[second : min(second + TILE_COLUMNS, first + len(block))].T
            _improve_best(products, first, second, own, best, similarity)
    return best, similarity


def _chain(cluster: ArrangedCluster) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return each row's most similar earlier row, and the least eps at which the row is removed."""
    earlier, similarity = most_similar_earlier(cluster.vectors, cluster.rows, cluster.within)
    needed, some = np.full(len(earlier), MAX_EPS + 1), earlier >= 0
    needed[some] = eps_needed_by(similarity[some])
    return earlier, needed


def count_chain(part: Part, eps: list[int], plan: Plan) -> NDArray[np.int64]:
    """Return how many rows of a part `semdedup-chain` keeps at each eps.

    Parameters
    ----------
    part : Part
        At least one cluster. The counts are left in its memo.
    eps : list of int
        Ten-thousandths.
    plan : Plan
        Not read: the chain depends on the vectors alone.

    Returns
    -------
    ndarray of shape (len(eps),), int64
    """
    needed = part.memo.get("chain")
    if needed is None:
        found = [_chain(arrange(part, cluster))[1] for cluster in part.clusters()]
        needed = part.memo["chain"] = np.sort(np.concatenate(found))
    return len(needed) - np.searchsorted(needed, eps, side="right")


def represent_chain(cluster: ArrangedCluster, eps: int, plan: Plan) -> Representatives:
    """Return the first row of each row's chain, and each row's representative (itself if it is kept).

    Parameters
    ----------
    cluster : ArrangedCluster
        The rows in visiting order.
    eps : int
        Ten-thousandths.
    plan : Plan
        Not read.
    """
    earlier, needed = _chain(cluster)
    keeper = np.where(needed <= eps, earlier, np.arange(len(earlier)))
    leader = keeper
    while not np.array_equal(
        leader[leader], leader
    ):  # every representative is an earlier row, so this ends at the first of the chain
        leader = leader[leader]
    return Representatives(leader, keeper)
