"""Every pair of duplicates in a cluster, as a sparse graph, and the check that no two kept rows are duplicates.

Pairs are found once, at the largest eps of interest; those of a smaller eps are a subset. This module never stores all
cosines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.approximate import (
    ErrorTerms,
    approximate,
    bound_columns,
    bound_row,
    mark_reaching,
    no_marks,
    read_cosine,
    take_terms,
)
from fairdedup.core.compiled import njit
from fairdedup.core.similarity import Vectors, cosine, eps_needed
from fairdedup.core.within import codes_or_zeros

TILE = 512
MAX_PAIRS = 1 << 25  # per cluster; up to 22 bytes each while the graph is built, 12 once it is walked


class Pairs(NamedTuple):
    """Every pair of a cluster that are duplicates at some eps, in both directions, by row.

    Attributes
    ----------
    starts : ndarray of shape (n + 1,), int64
        Where the neighbours of each row begin.
    neighbours : ndarray of shape (m,), int32
        The other row of each pair.
    needed : ndarray of shape (m,), int16
        The least eps at which the pair are duplicates, in ten-thousandths.
    """

    starts: NDArray[np.int64]
    neighbours: NDArray[np.int32]
    needed: NDArray[np.int16]


@dataclass(frozen=True)
class PairGraph:
    """The duplicates of a cluster at `eps` and below.

    Attributes
    ----------
    eps : int
        Ten-thousandths.
    pairs : Pairs
        All pairs that are duplicates at `eps`.
    """

    eps: int
    pairs: Pairs


class Tile(NamedTuple):
    """Some rows of a cluster against some of its columns, and the terms that turn their products into cosines."""

    first_row: int
    first_column: int
    row: ErrorTerms
    column: ErrorTerms


class Found(NamedTuple):
    """Arrays for the pairs of a tile: both rows of each pair, and the least eps at which they are duplicates."""

    a: NDArray[np.int32]
    b: NDArray[np.int32]
    needed: NDArray[np.int16]

    @classmethod
    def make(cls, size: int) -> Found:
        """Return arrays for some number of pairs."""
        return cls(np.empty(size, np.int32), np.empty(size, np.int32), np.empty(size, np.int16))


@njit
def collect_pairs(products, tile, x, squares, within, eps, marks, out):  # type: ignore[no-untyped-def]
    """Write the pairs of a tile that are duplicates at eps; return how many there are, written or not.

    Rows whose numbers in `within` differ are no pairs.

    A tile on the diagonal, whose rows are its columns, contains each pair once.
    """
    found = 0
    width = products.shape[1]
    words = marks.view(np.uint64)
    length, scale, base, error = tile.column
    out_a, out_b, out_needed = out
    diagonal = tile.first_row == tile.first_column
    bounds = bound_columns(np.full(width, 1.0 - eps / 10000.0), tile.column)
    for r in range(products.shape[0]):
        i = tile.first_row + r
        begin = max(0, i + 1 - tile.first_column) if diagonal else 0
        row = take_terms(tile.row, r)
        mark_reaching(products[r], bounds, bound_row(row), marks[:width])
        for word in range(begin // 8, words.shape[0]):
            if words[word] == 0:
                continue
            for k in range(max(begin, 8 * word), min(width, 8 * word + 8)):
                if marks[k] == 0:
                    continue
                j = tile.first_column + k
                if within[i] != within[j]:
                    continue
                column = ErrorTerms(length[k], scale[k], base[k], error[k])
                similarity, slack = read_cosine(products[r, k], row, column)
                needed = eps_needed(similarity - slack)
                if needed != eps_needed(similarity + slack):
                    needed = eps_needed(cosine(x[i], x[j], squares[i], squares[j]))
                if needed <= eps:
                    if found < out_a.shape[0]:
                        out_a[found] = i
                        out_b[found] = j
                        out_needed[found] = needed
                    found += 1
    return found


@njit
def list_both_directions(n, found):  # type: ignore[no-untyped-def]
    """Return the pairs in both directions, by row."""
    a, b, needed = found.a, found.b, found.needed
    starts = np.zeros(n + 1, np.int64)
    for k in range(a.shape[0]):
        starts[a[k] + 1] += 1
        starts[b[k] + 1] += 1
    for i in range(n):
        starts[i + 1] += starts[i]
    fill = starts[:-1].copy()
    neighbours = np.empty(2 * a.shape[0], np.int32)
    eps = np.empty(2 * a.shape[0], np.int16)
    for k in range(a.shape[0]):
        i, j = a[k], b[k]
        neighbours[fill[i]], eps[fill[i]] = j, needed[k]
        neighbours[fill[j]], eps[fill[j]] = i, needed[k]
        fill[i] += 1
        fill[j] += 1
    return Pairs(starts, neighbours, eps)


def find_pairs(
    vectors: Vectors, eps: int, max_pairs: int | None = None, within: NDArray[np.int64] | None = None
) -> PairGraph | None:
    """Find every pair of a cluster that are duplicates at an eps.

    Parameters
    ----------
    vectors : Vectors of n rows
        Vectors in visiting order.
    eps : int
        Ten-thousandths.
    max_pairs : int, optional
        Largest number of pairs; `MAX_PAIRS` if not given.
    within : ndarray of shape (n,), int64, optional
        Only rows of the same number are compared.

    Returns
    -------
    PairGraph or None
        None if there are more pairs.
    """
    n, most = len(vectors), MAX_PAIRS if max_pairs is None else max_pairs
    out = Found.make(TILE * TILE)
    room: tuple[NDArray[Any], ...] = out
    columns: list[list[NDArray[Any]]] = [[], [], []]
    pairs = 0
    codes = codes_or_zeros(within, n)
    known = approximate(vectors)
    for first in range(0, n, TILE):
        block = known.take(slice(first, first + TILE))
        for second in range(first, n, TILE):
            other = known.take(slice(second, second + TILE))
            tile = Tile(first, second, block.terms, other.terms)
            marks = no_marks(len(other))
            found = collect_pairs(block.multiply(other), tile, vectors.x, vectors.squares, codes, eps, marks, out)
            pairs += found
            if pairs > most:
                return None
            for column, values in zip(columns, room, strict=True):
                column.append(values[:found].copy())
    joined = []
    for column in columns:
        joined.append(np.concatenate(column))
        column.clear()  # 10 bytes a pair here, and 12 for both directions
    return PairGraph(eps, list_both_directions(n, Found(*joined)))


def are_distinct(
    vectors: Vectors, eps: int, unpinned: int | None = None, within: NDArray[np.int64] | None = None
) -> bool:
    """Tell whether no two of these rows are duplicates at an eps.

    Parameters
    ----------
    vectors : Vectors of k rows
        The kept rows of one cluster, the pinned ones last.
    eps : int
        Ten-thousandths.
    unpinned : int, optional
        Number of rows, from the front, that are not pinned. Pairs of two pinned rows are not compared.
    within : ndarray of shape (k,), int64, optional
        Only rows of the same number are compared.
    """
    unpinned = len(vectors) if unpinned is None else unpinned
    if eps == 0:
        return True
    nothing, codes = Found.make(0), codes_or_zeros(within, len(vectors))
    known = approximate(vectors)
    for first in range(0, unpinned, TILE):
        block = known.take(slice(first, min(first + TILE, unpinned)))
        for second in range(first, len(vectors), 8 * TILE):
            other = known.take(slice(second, second + 8 * TILE))
            tile = Tile(first, second, block.terms, other.terms)
            marks = no_marks(len(other))
            if collect_pairs(block.multiply(other), tile, vectors.x, vectors.squares, codes, eps, marks, nothing):
                return False
    return True
