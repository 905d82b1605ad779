"""The leader sweep: visiting order and neighbourhoods of one cluster, for up to 64 values of eps in one pass.

SemDeDup (Abbas et al. 2023) section 3 and FairDeDup (Slyman et al. 2024) Algorithm 1 group each cluster in the same
way; this module decides who stands together, never who of them is kept (rules.py) unless `cover` ties the two.
Work is leaders x rows still unvisited, in tiles; memory is O(n) beyond the embeddings.

Rows are numbered here by their place in the visiting order, so "first" is a comparison of integers. A row carries a
bit for every eps of the pass: the bit is set while the row is unvisited at that eps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.approximate import (
    Finder,
    column_bounds,
    finder,
    float32_finder,
    mark_reaching,
    no_marks,
    row_bounds,
)
from fairdedup.core.compiled import njit
from fairdedup.core.similarity import EPS_UNIT, MAX_EPS, Vectors, cosine, eps_needed, quantised

BLOCK = 384  # candidates resolved together: large enough for a good matrix product, small beside a cluster
TILE_COLUMNS = 16_384
COMPACT_BELOW = 0.9  # copy the unvisited rows together once fewer than this share of them is
MAX_WINDOW = 64  # bits of a mask
BUFFER = 1 << 20  # visits recorded at a time
MOST_SETTLED = 0.04  # share of products that may need settling before 8 bits cost more than they save


def visiting_order(centroid_similarity: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return positions by quantised centroid similarity ascending (farthest first), then row.

    Parameters
    ----------
    centroid_similarity : ndarray of shape (n,), float64
    rows : ndarray of shape (n,), int64

    Returns
    -------
    order : ndarray of shape (n,), int64
    """
    return np.lexsort((rows, quantised(centroid_similarity)))


@dataclass(frozen=True)
class Neighbourhoods:
    """The steps of a sweep at one eps, in the order in which they were taken.

    Attributes
    ----------
    leaders : ndarray of shape (s,), int32
        First unvisited row of each step, as a place in the visiting order.
    starts : ndarray of shape (s + 1,), int64
        Where each step's members begin in `members`.
    members : ndarray of shape (m,), int32
        The members of each step, its leader first, the others in visiting order. m is n less the rows that were
        visited beforehand.
    """

    leaders: NDArray[np.int32]
    starts: NDArray[np.int64]
    members: NDArray[np.int32]

    def step_of_member(self) -> NDArray[np.int64]:
        """Return the step of each entry of `members`."""
        return np.repeat(np.arange(len(self.leaders)), np.diff(self.starts))


@dataclass(frozen=True)
class Sweep:
    """One pass over a cluster at several values of eps.

    Attributes
    ----------
    eps : tuple of int
        Ten-thousandths, ascending.
    leads : ndarray of shape (n,), uint64
        Bit k is set where the row is a leader at eps[k].
    leader, member, bits : ndarrays of shape (m,)
        `member` was visited by `leader` at the values of eps whose bits are set.
    """

    eps: tuple[int, ...]
    leads: NDArray[np.uint64]
    leader: NDArray[np.int32]
    member: NDArray[np.int32]
    bits: NDArray[np.uint64]

    def counts(self) -> NDArray[np.int64]:
        """Return how many samples the sweep keeps at each eps: one of every neighbourhood."""
        return np.array([np.count_nonzero(self.leads & np.uint64(1 << k)) for k in range(len(self.eps))], np.int64)

    def neighbourhoods(self, eps: int) -> Neighbourhoods:
        """Return the neighbourhoods at one eps of the pass."""
        bit = np.uint64(1 << self.eps.index(eps))
        leaders = np.flatnonzero(self.leads & bit).astype(np.int32)
        visited = (self.bits & bit) != 0
        owner = np.concatenate((leaders, self.leader[visited]))
        member = np.concatenate((leaders, self.member[visited]))
        order = np.lexsort((member, owner))  # a leader comes before all that it visits
        starts = np.searchsorted(owner[order], leaders)
        return Neighbourhoods(leaders, np.append(starts, len(member)), member[order])


@njit
def _first_bit(similarity, first_bit_at):  # type: ignore[no-untyped-def]
    """Return the lowest bit whose eps makes a pair of this similarity duplicates; the number of bits if none."""
    return first_bit_at[min(eps_needed(similarity), MAX_EPS)]


@njit
def _from_bit(bit):  # type: ignore[no-untyped-def]
    """Return the mask of this bit and all above it."""
    return ~np.uint64(0) << np.uint64(bit) if bit < 64 else np.uint64(0)


@njit
def _highest_bit(mask):  # type: ignore[no-untyped-def]
    bit = -1
    while mask != 0:
        mask >>= np.uint64(1)
        bit += 1
    return bit


@njit
def _visit(  # type: ignore[no-untyped-def]
    products, leaders, columns, lead, column, first_row, first_column, triangle, x, squares, thresholds, unvisited,
    leads, first_bit_at, marks, out_leader, out_member, out_bits,
):  # fmt: skip
    """Let each leader of a tile visit its neighbours; resumable where the output is full.

    products (r, c) are those of the finder rows `lead` with `column`, each (length, scale, base, error). With
    `triangle`, leaders and columns are the same rows: a row leads once all before it have been resolved, and visits
    only rows after it. thresholds (bits + 1,) holds at k the similarity that visits a row whose highest open bit is
    k - 1. Returns (row, column, written, settled); row == r means done.
    """
    written = settled = 0
    words = marks.view(np.uint64)
    width = columns.shape[0]
    length, scale, base, error = column
    floor = np.empty(width, np.float64)
    first, second, third = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    for c in range(width):
        floor[c] = thresholds[_highest_bit(unvisited[columns[c]]) + 1]
    column_bounds(floor, length, scale, base, error, first, second, third)
    for r in range(first_row, leaders.shape[0]):
        i = leaders[r]
        begin = first_column if r == first_row else 0
        if triangle and begin <= r:
            begin = r + 1
            leads[i] = unvisited[i]
            unvisited[i] = 0
        active = leads[i]
        if active == 0:
            continue
        row_floor = thresholds[_highest_bit(active) + 1]
        row_a, row_b, row_c = row_bounds(lead[0][r], lead[1][r], lead[2][r], lead[3][r])
        mark_reaching(products[r], first, second, third, row_a, row_b, row_c, marks[:width])
        for word in range(begin // 8, words.shape[0]):
            if words[word] == 0:
                continue
            for c in range(max(begin, 8 * word), min(width, 8 * word + 8)):
                if marks[c] == 0:
                    continue
                j = columns[c]
                product = products[r, c]
                similarity = (product * lead[1][r] * scale[c] + lead[2][r] + base[c]) / (lead[0][r] * length[c])
                slack = lead[3][r] + error[c]
                open_bits = active & unvisited[j]
                if open_bits == 0 or similarity + slack < row_floor:
                    continue
                sure = _first_bit(similarity - slack, first_bit_at)
                hopeful = _first_bit(similarity + slack, first_bit_at)
                if sure != hopeful and (_from_bit(hopeful) & ~_from_bit(sure) & open_bits) != 0:
                    sure = _first_bit(cosine(x[i], x[j], squares[i], squares[j]), first_bit_at)
                    settled += 1
                reached = _from_bit(sure) & open_bits
                if reached != 0:
                    if written == out_leader.shape[0]:
                        return r, c, written, settled
                    unvisited[j] &= ~reached
                    floor[c] = thresholds[_highest_bit(unvisited[j]) + 1]
                    first[c] = (floor[c] - error[c]) * length[c] / scale[c]
                    out_leader[written] = i
                    out_member[written] = j
                    out_bits[written] = reached
                    written += 1
    return leaders.shape[0], 0, written, settled


class _Visits:
    """Grows the record of who visited whom, a buffer at a time."""

    def __init__(self, vectors: Vectors, eps: tuple[int, ...], needed: NDArray[np.int64] | None) -> None:
        self.vectors = vectors
        self.first_bit_at = np.searchsorted(np.array(eps), np.arange(MAX_EPS + 1)).astype(np.int64)
        every = ~np.uint64(0) >> np.uint64(MAX_WINDOW - len(eps))
        self.unvisited = np.full(len(vectors), every, np.uint64)
        if needed is not None:  # a row stands open at the values below the one at which it is visited beforehand
            below = np.array([(1 << k) - 1 for k in range(len(eps) + 1)], np.uint64)
            self.unvisited &= below[np.searchsorted(np.array(eps), needed)]
        self.leads = np.zeros(len(vectors), np.uint64)
        # What cannot reach a row's highest open bit cannot visit it; a row with none is out of reach.
        self.thresholds = np.concatenate(([4.0], 1.0 - np.array(eps, np.float64) / EPS_UNIT))
        size = min(BUFFER, 2 * len(vectors) + 16)
        self._buffer = (np.empty(size, np.int32), np.empty(size, np.int32), np.empty(size, np.uint64))
        self._parts: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.uint64]]] = []
        self.looked_at = self.settled = 0

    def tile(
        self, lead: Finder, leaders: NDArray[np.int32], column: Finder, columns: NDArray[np.int32], triangle: bool
    ) -> None:
        """Compute and apply one tile of products."""
        products = lead.products(column)
        self.looked_at += products.size
        row = place = 0
        marks = no_marks(len(columns))
        while row < len(leaders):
            row, place, written, settled = _visit(
                products, leaders, columns, lead.terms(), column.terms(), row, place, triangle, self.vectors.x,
                self.vectors.squares, self.thresholds, self.unvisited, self.leads, self.first_bit_at, marks,
                *self._buffer,
            )  # fmt: skip
            self.settled += settled
            if written:
                leader, member, bits = self._buffer
                self._parts.append((leader[:written].copy(), member[:written].copy(), bits[:written].copy()))

    def record(self) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.uint64]]:
        """Return all visits so far."""
        if not self._parts:
            return np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.uint64)
        leader, member, bits = zip(*self._parts, strict=True)
        return np.concatenate(leader), np.concatenate(member), np.concatenate(bits)


def sweep(vectors: Vectors, eps: Sequence[int], needed: NDArray[np.int64] | None = None) -> Sweep:
    """Sweep one cluster at several values of eps in one pass.

    Parameters
    ----------
    vectors : Vectors of n rows
        In visiting order.
    eps : sequence of 1 to 64 int
        Ten-thousandths, strictly ascending, 0 to 20001.
    needed : ndarray of shape (n,), int64, optional
        The least eps at which each row is visited beforehand: from there on it neither leads nor is visited.

    Returns
    -------
    Sweep

    Raises
    ------
    ValueError
        If `eps` is not strictly ascending, out of range, empty or longer than 64.

    References
    ----------
    Abbas et al. 2023, SemDeDup, section 3; Slyman et al. 2024, FairDeDup, Algorithm 1, line 3.
    """
    values = tuple(int(e) for e in eps)
    if not 1 <= len(values) <= MAX_WINDOW or any(a >= b for a, b in zip(values, values[1:], strict=False)):
        raise ValueError(f"eps must be 1 to {MAX_WINDOW} strictly ascending values, got {values}")
    if values[0] < 0 or values[-1] > MAX_EPS:
        raise ValueError(f"eps must lie in 0 to {MAX_EPS} ten-thousandths, got {values[0]} to {values[-1]}")
    visits = _Visits(vectors, values, needed)
    if values == (0,):  # no cosine is above 1: nobody visits anybody
        return Sweep(values, visits.unvisited, *visits.record())
    unvisited = visits.unvisited
    live = np.arange(len(vectors), dtype=np.int32)  # places of the rows that `found` holds
    found = finder(vectors)
    begin = 0
    while begin < len(live):
        ahead = begin + np.flatnonzero(unvisited[live[begin : begin + 2 * BLOCK]])[:BLOCK]
        if len(ahead) == 0:
            begin += 2 * BLOCK
            continue
        if found.rounded and visits.settled > MOST_SETTLED * visits.looked_at:
            found = float32_finder(vectors)  # too much lies near the thresholds for 8 bits, which are let go first
            found = found.take(live)
            visits.settled = visits.looked_at = 0
        block, rows = found.take(ahead), live[ahead]
        visits.tile(block, rows, block, rows, triangle=True)
        lead = np.flatnonzero(visits.leads[rows])
        block, rows = block.take(lead), rows[lead]
        begin = int(ahead[-1]) + 1
        still_open = unvisited[live[begin:]] != 0
        if np.count_nonzero(still_open) < COMPACT_BELOW * len(still_open):
            keep = begin + np.flatnonzero(still_open)
            # In place, since a second copy of a giant cluster would be the most that this process ever holds.
            found = found.take(keep) if found.values is vectors.x else found.move_up(keep)
            live, begin = live[keep], 0
        for start in range(begin, len(live), TILE_COLUMNS):
            columns = slice(start, start + TILE_COLUMNS)
            visits.tile(block, rows, found.take(columns), live[columns], triangle=False)
    return Sweep(values, visits.leads, *visits.record())
