"""Every pair of duplicates in a cluster, as a sparse graph, and the check that no two kept rows are duplicates.

Pairs are found once, at the largest eps of interest; those of a smaller eps are a subset. This module never stores all
cosines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core import device_products
from fairdedup.core.approximate import (
    ApproximateVectors,
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
from fairdedup.core.device_products import FILTERED, DeviceVectors
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

    @classmethod
    def for_tile(cls) -> Found:
        """Return arrays for all pairs of a tile."""
        return cls.make(TILE * TILE)


@njit
def find_needed(product, row, column, i, j, x, squares):  # type: ignore[no-untyped-def]
    """Return the least eps at which rows i and j are duplicates, exactly, given their product and its terms."""
    similarity, slack = read_cosine(product, row, column)
    needed = eps_needed(similarity - slack)
    if needed != eps_needed(similarity + slack):
        needed = eps_needed(cosine(x[i], x[j], squares[i], squares[j]))
    return needed


@njit
def add_pair(out, found, i, j, needed):  # type: ignore[no-untyped-def]
    """Write a pair after those that were found, if there is room for it; return how many there are with it."""
    if found < out.a.shape[0]:
        out.a[found] = i
        out.b[found] = j
        out.needed[found] = needed
    return found + 1


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
                needed = find_needed(products[r, k], row, column, i, j, x, squares)
                if needed <= eps:
                    found = add_pair(out, found, i, j, needed)
    return found


@njit
def collect_candidates(candidates, tile, x, squares, within, eps, out):  # type: ignore[no-untyped-def]
    """Do what `collect_pairs` does, for the pairs of a tile that a device has found."""
    found = 0
    length, scale, base, error = tile.column
    diagonal = tile.first_row == tile.first_column
    for k in range(candidates.rows.shape[0]):
        r, c = candidates.rows[k], candidates.columns[k]
        i, j = tile.first_row + r, tile.first_column + c
        if (diagonal and j <= i) or within[i] != within[j]:
            continue
        column = ErrorTerms(length[c], scale[c], base[c], error[c])
        needed = find_needed(candidates.products[k], take_terms(tile.row, r), column, i, j, x, squares)
        if needed <= eps:
            found = add_pair(out, found, i, j, needed)
    return found


class Compared(NamedTuple):
    """Rows that are compared, and how.

    Attributes
    ----------
    vectors : Vectors of n rows
    within : ndarray of shape (n,), int64
        Rows whose numbers differ are no pairs.
    eps : int
        Ten-thousandths.
    """

    vectors: Vectors
    within: NDArray[np.int64]
    eps: int


def collect_tile(
    known: ApproximateVectors | DeviceVectors, rows: slice, columns: slice, compared: Compared, out: Found
) -> Iterator[int]:
    """Write the pairs of a tile to `out`, and yield how many there are; on a device some of them at a time.

    Parameters
    ----------
    known : ApproximateVectors or DeviceVectors of n rows
        The compared rows in low precision.
    rows, columns : slice
        The tile. Where they begin alike, it is on the diagonal and contains each pair once.
    compared : Compared
    out : Found
        Arrays for the pairs; what they have no room for is counted only.
    """
    block = known.take(rows)
    other: Any = known.take(columns)  # as the block
    tile = Tile(rows.start, columns.start, block.terms, other.terms)
    x, squares, (_, within, eps) = compared.vectors.x, compared.vectors.squares, compared
    if isinstance(block, ApproximateVectors):
        marks = no_marks(len(other))
        yield collect_pairs(block.multiply(other), tile, x, squares, within, eps, marks, out)
        return
    first = bound_columns(np.full(len(other), 1.0 - eps / 10000.0), other.terms).first
    for _, found in block.multiply(other).iterate_reaching(first):
        for some in found.split(len(out.a) or FILTERED):
            yield collect_candidates(some, tile, x, squares, within, eps, out)


def tile_size(known: ApproximateVectors | DeviceVectors) -> int:
    """Return the number of rows, and of columns, of a tile."""
    return TILE if isinstance(known, ApproximateVectors) else device_products.TILE


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
    out = Found.for_tile()
    room: tuple[NDArray[Any], ...] = out
    columns: list[list[NDArray[Any]]] = [[], [], []]
    pairs = 0
    compared, known = Compared(vectors, codes_or_zeros(within, n), eps), approximate(vectors)
    step = tile_size(known)
    for first in range(0, n, step):
        for second in range(first, n, step):
            for found in collect_tile(known, slice(first, first + step), slice(second, second + step), compared, out):
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
    compared, known = Compared(vectors, codes_or_zeros(within, len(vectors)), eps), approximate(vectors)
    nothing, step = Found.make(0), tile_size(known)
    wide = 8 * step if isinstance(known, ApproximateVectors) else step
    for first in range(0, unpinned, step):
        rows = slice(first, min(first + step, unpinned))
        for second in range(first, len(vectors), wide):
            if any(collect_tile(known, rows, slice(second, second + wide), compared, nothing)):
                return False
    return True
