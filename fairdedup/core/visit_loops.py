"""The compiled loops over a tile of the leader sweep: which leader visits which column at which eps.

The products of a tile are all there, or those that a device has found near a threshold. Both ways lead to the same
visits. Rows are numbered by their place in the visiting order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.approximate import (
    ErrorTerms,
    bound_columns,
    bound_row,
    mark_reaching,
    read_cosine,
    take_terms,
)
from fairdedup.core.compiled import njit
from fairdedup.core.similarity import MAX_EPS, cosine, eps_needed


@njit
def _first_bit(similarity, first_bit_at):  # type: ignore[no-untyped-def]
    """Return the lowest bit at whose eps a pair of this similarity are duplicates; the number of bits if none."""
    return first_bit_at[min(eps_needed(similarity), MAX_EPS)]


@njit
def _from_bit(bit):  # type: ignore[no-untyped-def]
    """Return the mask of this bit and of all higher ones."""
    return ~np.uint64(0) << np.uint64(bit) if bit < 64 else np.uint64(0)


@njit
def _highest_bit(mask):  # type: ignore[no-untyped-def]
    """Return the number of the highest bit that is set, -1 if none is."""
    bit = -1
    while mask != 0:
        mask >>= np.uint64(1)
        bit += 1
    return bit


@njit
def lowest_floors(masks, thresholds):  # type: ignore[no-untyped-def]
    """Return for each mask the similarity that its highest bit needs: float64, of the shape of the masks."""
    floors = np.empty(masks.shape[0], np.float64)
    for k in range(masks.shape[0]):
        floors[k] = thresholds[_highest_bit(masks[k]) + 1]
    return floors


class LeaderTile(NamedTuple):
    """Leaders of one tile and the columns that they may visit.

    Attributes
    ----------
    leaders, columns : ndarrays of shape (r,) and (c,), int32
        Places in the visiting order.
    row, column : ErrorTerms
        Terms that turn a product of a leader with a column into a cosine.
    triangle : bool
        Whether leaders and columns are the same rows. Then a row leads once all rows before it are resolved, and it
        visits only rows after it.
    """

    leaders: NDArray[np.int32]
    columns: NDArray[np.int32]
    row: ErrorTerms
    column: ErrorTerms
    triangle: bool


class PassState(NamedTuple):
    """State of a pass over the n rows of a cluster.

    Attributes
    ----------
    x, squares : ndarrays of shape (n, d) and (n,)
        Vectors and squared lengths.
    within : ndarray of shape (n,), int64
        A row visits only rows of the same number.
    thresholds : ndarray of shape (bits + 1,), float64
        Entry k is the similarity above which a row is visited whose highest open bit is k - 1.
    first_bit_at : ndarray of shape (MAX_EPS + 1,), int64
        Entry e is the lowest bit whose eps is at least e.
    unvisited, leads : ndarrays of shape (n,), uint64
        Bits at which the row is unvisited, and at which it leads; updated.
    """

    x: NDArray[np.float32]
    squares: NDArray[np.float64]
    within: NDArray[np.int64]
    thresholds: NDArray[np.float64]
    first_bit_at: NDArray[np.int64]
    unvisited: NDArray[np.uint64]
    leads: NDArray[np.uint64]


class Visits(NamedTuple):
    """Record of m visits: leader[k] visited member[k] at the values of eps whose bits are set in bits[k]."""

    leader: NDArray[np.int32]
    member: NDArray[np.int32]
    bits: NDArray[np.uint64]

    @classmethod
    def make(cls, size: int) -> Visits:
        """Return an uninitialised record of `size` visits."""
        return cls(np.empty(size, np.int32), np.empty(size, np.int32), np.empty(size, np.uint64))

    def copy_first(self, number: int) -> Visits:
        """Return a copy of the first `number` visits."""
        return Visits(self.leader[:number].copy(), self.member[:number].copy(), self.bits[:number].copy())


class Progress(NamedTuple):
    """Progress in a tile: the next row and column, and how many visits were written and pairs settled in float64."""

    row: int
    column: int
    written: int
    settled: int


class Output(NamedTuple):
    """What the loops over a tile write.

    Attributes
    ----------
    first : ndarray of shape (c,), float32
        `ColumnBounds.first` of each column; raised as its bits are visited.
    visits : Visits
        Room for the record.
    """

    first: NDArray[np.float32]
    visits: Visits


@njit
def _visit_columns(r, columns, products, tile, state, written, out):  # type: ignore[no-untyped-def]
    """Let leader r of a tile visit those of some columns that are its neighbours.

    Returns the column at which the output was full (-1: it was not), how many visits are written, and how many pairs
    were settled in float64.
    """
    x, squares, within, thresholds, first_bit_at, unvisited, leads = state
    length, scale, base, error = tile.column
    out_leader, out_member, out_bits = out.visits
    i, row, settled = tile.leaders[r], take_terms(tile.row, r), 0
    active = leads[i]
    row_floor = thresholds[_highest_bit(active) + 1]
    for k in range(columns.shape[0]):
        c = np.int64(columns[k])
        j = tile.columns[c]
        if within[i] != within[j]:
            continue
        open_bits = active & unvisited[j]
        column = ErrorTerms(length[c], scale[c], base[c], error[c])
        similarity, slack = read_cosine(products[k], row, column)
        if open_bits == 0 or similarity + slack < row_floor:
            continue
        sure = _first_bit(similarity - slack, first_bit_at)
        hopeful = _first_bit(similarity + slack, first_bit_at)
        if sure != hopeful and (_from_bit(hopeful) & ~_from_bit(sure) & open_bits) != 0:
            sure = _first_bit(cosine(x[i], x[j], squares[i], squares[j]), first_bit_at)
            settled += 1
        reached = _from_bit(sure) & open_bits
        if reached == 0:
            continue
        if written == out_leader.shape[0]:
            return c, written, settled
        unvisited[j] &= ~reached
        out.first[c] = (thresholds[_highest_bit(unvisited[j]) + 1] - error[c]) * length[c] / scale[c]
        out_leader[written] = i
        out_member[written] = j
        out_bits[written] = reached
        written += 1
    return -1, written, settled


@njit
def _begin_row(r, start, tile, state):  # type: ignore[no-untyped-def]
    """Return the first column that row r may visit; in a triangle, let it lead first."""
    begin = start.column if r == start.row else 0
    if tile.triangle and begin <= r:
        begin = r + 1
        i = tile.leaders[r]
        state.leads[i] = state.unvisited[i]
        state.unvisited[i] = 0
    return begin


@njit
def bound_tile(tile, state):  # type: ignore[no-untyped-def]
    """Return the ColumnBounds of a tile's columns: of each one the similarity that its highest open bit needs."""
    return bound_columns(lowest_floors(state.unvisited[tile.columns], state.thresholds), tile.column)


@njit
def visit_all(products, tile, state, start, bounds, marks, out):  # type: ignore[no-untyped-def]
    """Let each leader of a tile visit its neighbours, until the output is full.

    Returns the Progress from which the next call resumes; its row is the number of leaders when the tile is done.
    """
    written = settled = 0
    words = marks.view(np.uint64)
    width = tile.columns.shape[0]
    columns, values = np.empty(width, np.int32), np.empty(width, products.dtype)
    for r in range(start.row, tile.leaders.shape[0]):
        begin = _begin_row(r, start, tile, state)
        if state.leads[tile.leaders[r]] == 0:
            continue
        mark_reaching(products[r], bounds, bound_row(take_terms(tile.row, r)), marks[:width])
        near = 0
        for word in range(begin // 8, words.shape[0]):
            if words[word] == 0:
                continue
            for c in range(max(begin, 8 * word), min(width, 8 * word + 8)):
                if marks[c] != 0:
                    columns[near] = c
                    values[near] = products[r, c]
                    near += 1
        full, written, more = _visit_columns(r, columns[:near], values[:near], tile, state, written, out)
        settled += more
        if full >= 0:
            return Progress(r, full, written, settled)
    return Progress(tile.leaders.shape[0], 0, written, settled)


@njit
def visit_candidates(found, starts, rows, tile, state, start, out):  # type: ignore[no-untyped-def]
    """Do what `visit_all` does, for some rows of a tile whose near columns a device has found."""
    written = settled = 0
    for r in range(start.row, rows[1]):
        begin = _begin_row(r, start, tile, state)
        if state.leads[tile.leaders[r]] == 0:
            continue
        low, high = starts[r - rows[0]], starts[r - rows[0] + 1]
        while low < high and found.columns[low] < begin:
            low += 1
        columns, products = found.columns[low:high], found.products[low:high]
        full, written, more = _visit_columns(r, columns, products, tile, state, written, out)
        settled += more
        if full >= 0:
            return Progress(r, full, written, settled)
    return Progress(rows[1], 0, written, settled)
