"""`semdedup-chain`: what SemDeDup's published code does, for reproducing old runs.

In visiting order a row goes when its similarity to any earlier row, removed ones included, exceeds 1 - eps; its
representative is the most similar earlier row and may itself be removed. The paper's rule is `semdedup`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.compiled import njit
from fairdedup.core.similarity import Vectors, cosine, margin

TILE_ROWS, TILE_COLUMNS = 512, 8192


@njit
def _best_earlier(products, first, second, x, squares, rows, slack, best, best_similarity):  # type: ignore[no-untyped-def]
    """Improve each row's most similar earlier row by the columns of one tile; equal ones go to the lowest row."""
    for r in range(products.shape[0]):
        i = first + r
        for c in range(min(products.shape[1], i - second)):
            j = second + c
            similarity = np.float64(products[r, c]) / np.sqrt(squares[i] * squares[j])
            if similarity + slack < best_similarity[i]:
                continue
            exact = cosine(x[i], x[j], squares[i], squares[j])
            if exact > best_similarity[i] or (exact == best_similarity[i] and rows[j] < rows[best[i]]):
                best[i], best_similarity[i] = j, exact


def most_similar_earlier(vectors: Vectors, rows: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Find for each row the most similar row before it in the visiting order, exactly.

    Parameters
    ----------
    vectors : Vectors of n rows, in visiting order
    rows : ndarray of shape (n,), int64, in visiting order

    Returns
    -------
    earlier : ndarray of shape (n,), int32
        Places in the visiting order; -1 for the first.
    similarity : ndarray of shape (n,), float64
        -2 for the first.
    """
    n = len(vectors)
    best = np.full(n, -1, np.int32)
    similarity = np.full(n, -2.0)
    slack = margin(vectors.x.shape[1])
    for first in range(0, n, TILE_ROWS):
        block = vectors.x[first : first + TILE_ROWS]
        for second in range(0, first + len(block), TILE_COLUMNS):
            products = block @ vectors.x[second : min(second + TILE_COLUMNS, first + len(block))].T
            _best_earlier(
                products, first, second, vectors.x, vectors.squares, rows, slack, best, similarity
            )  # fmt: skip
    return best, similarity
