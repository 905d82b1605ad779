"""Which row visits which in the leader sweep: the compiled tiles, and the record of their visits.

Rows are numbered by their place in the visiting order, so "first" is a comparison of integers. Each row has a bit for
every eps of the pass, which is set while the row is unvisited at that eps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.approximate import (
    ApproximateVectors,
    ErrorTerms,
    bound_columns,
    bound_row,
    mark_reaching,
    no_marks,
    read_cosine,
    take_terms,
)
from fairdedup.core.compiled import njit
from fairdedup.core.similarity import EPS_UNIT, MAX_EPS, Vectors, cosine, eps_needed
from fairdedup.core.within import codes_or_zeros

MAX_WINDOW = 64  # bits of a mask
BUFFER = 1 << 20  # visits recorded at a time


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


class _Tile(NamedTuple):
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


class _State(NamedTuple):
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


class _Progress(NamedTuple):
    """Progress in a tile: the next row and column, and how many visits were written and pairs settled in float64."""

    row: int
    column: int
    written: int
    settled: int


@njit
def _visit(products, tile, state, start, marks, out):  # type: ignore[no-untyped-def]
    """Let each leader of a tile visit its neighbours, until the output is full.

    Returns the _Progress from which the next call resumes; its row is the number of leaders when the tile is done.
    """
    written = settled = 0
    words = marks.view(np.uint64)
    leaders, columns, triangle = tile.leaders, tile.columns, tile.triangle
    length, scale, base, error = tile.column
    x, squares, within, thresholds, first_bit_at, unvisited, leads = state
    out_leader, out_member, out_bits = out
    width = columns.shape[0]
    floor = np.empty(width, np.float64)
    for c in range(width):
        floor[c] = thresholds[_highest_bit(unvisited[columns[c]]) + 1]
    bounds = bound_columns(floor, tile.column)
    first = bounds.first
    for r in range(start.row, leaders.shape[0]):
        i = leaders[r]
        begin = start.column if r == start.row else 0
        if triangle and begin <= r:
            begin = r + 1
            leads[i] = unvisited[i]
            unvisited[i] = 0
        active = leads[i]
        if active == 0:
            continue
        row_floor = thresholds[_highest_bit(active) + 1]
        row = take_terms(tile.row, r)
        mark_reaching(products[r], bounds, bound_row(row), marks[:width])
        for word in range(begin // 8, words.shape[0]):
            if words[word] == 0:
                continue
            for c in range(max(begin, 8 * word), min(width, 8 * word + 8)):
                if marks[c] == 0:
                    continue
                j = columns[c]
                if within[i] != within[j]:
                    continue
                open_bits = active & unvisited[j]
                column = ErrorTerms(length[c], scale[c], base[c], error[c])
                similarity, slack = read_cosine(products[r, c], row, column)
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
                    return _Progress(r, c, written, settled)
                unvisited[j] &= ~reached
                first[c] = (thresholds[_highest_bit(unvisited[j]) + 1] - error[c]) * length[c] / scale[c]
                out_leader[written] = i
                out_member[written] = j
                out_bits[written] = reached
                written += 1
    return _Progress(leaders.shape[0], 0, written, settled)


class Pass:
    """One pass over a cluster at up to 64 values of eps. It records every visit."""

    def __init__(
        self,
        vectors: Vectors,
        eps: tuple[int, ...],
        needed: NDArray[np.int64] | None,
        within: NDArray[np.int64] | None = None,
    ) -> None:
        values = np.array(eps)
        every = ~np.uint64(0) >> np.uint64(MAX_WINDOW - len(eps))
        unvisited = np.full(len(vectors), every, np.uint64)
        if needed is not None:  # a row is open at the values below the one at which it is visited before the sweep
            below = np.array([(1 << k) - 1 for k in range(len(eps) + 1)], np.uint64)
            unvisited &= below[np.searchsorted(values, needed)]
        self.state = _State(
            vectors.x,
            vectors.squares,
            codes_or_zeros(within, len(vectors)),
            # A similarity that cannot reach a row's highest open bit cannot visit it; 4.0 is out of reach.
            thresholds=np.concatenate(([4.0], 1.0 - values.astype(np.float64) / EPS_UNIT)),
            first_bit_at=np.searchsorted(values, np.arange(MAX_EPS + 1)).astype(np.int64),
            unvisited=unvisited,
            leads=np.zeros(len(vectors), np.uint64),
        )
        self._buffer = Visits.make(min(BUFFER, 2 * len(vectors) + 16))
        self._visits: list[Visits] = []
        self.multiplied = self.settled = 0

    def resolve(
        self,
        lead: ApproximateVectors,
        leaders: NDArray[np.int32],
        column: ApproximateVectors,
        columns: NDArray[np.int32],
        *,
        triangle: bool,
    ) -> None:
        """Compute one tile of products, and let its leaders visit its columns.

        Parameters
        ----------
        lead : ApproximateVectors of r rows
            Vectors of the leaders.
        leaders : ndarray of shape (r,), int32
            Their places in the visiting order, ascending.
        column : ApproximateVectors of c rows
            Vectors of the columns.
        columns : ndarray of shape (c,), int32
            Their places in the visiting order, ascending.
        triangle : bool
            Whether leaders and columns are the same rows.
        """
        products = lead.multiply(column)
        self.multiplied += products.size
        tile = _Tile(leaders, columns, lead.terms, column.terms, triangle)
        marks = no_marks(len(columns))
        done = _Progress(0, 0, 0, 0)
        while done.row < len(leaders):
            done = _visit(products, tile, self.state, done, marks, self._buffer)
            self.settled += done.settled
            if done.written:
                self._visits.append(self._buffer.copy_first(done.written))

    def visits(self) -> Visits:
        """Return all visits so far."""
        if not self._visits:
            return Visits.make(0)
        leader, member, bits = zip(*self._visits, strict=True)
        return Visits(np.concatenate(leader), np.concatenate(member), np.concatenate(bits))
