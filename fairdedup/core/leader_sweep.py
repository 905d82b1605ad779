"""The leader sweep: visiting order and neighbourhoods of one cluster, for up to 64 values of eps in one pass.

SemDeDup (Abbas et al. 2023) section 3 and FairDeDup (Slyman et al. 2024) Algorithm 1 group each cluster in the same
way. This module finds the neighbourhoods and never decides which member is kept: choice.py does or, with `cover`, where
both are one step, cover.py. Work is leaders x rows still unvisited, in tiles; memory is O(n) beyond the embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.approximate import ApproximateVectors, approximate, approximate_in_float32
from fairdedup.core.device_products import COLUMNS
from fairdedup.core.similarity import MAX_EPS, Vectors, quantised
from fairdedup.core.visits import MAX_WINDOW, Pass

BLOCK = 384  # candidates resolved together: large enough for a fast matrix product, small compared with a cluster
TILE_COLUMNS = 16_384
COMPACT_BELOW = 0.9  # move the unvisited rows together once they are less than this share of the rows
MOST_SETTLED = 0.04  # share of products that may need settling before 8 bits cost more than they save


def visiting_order(centroid_similarity: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return positions by quantised centroid similarity ascending (farthest first), then row.

    Parameters
    ----------
    centroid_similarity : ndarray of shape (n,), float64
        Cosine of each row to the centroid.
    rows : ndarray of shape (n,), int64
        Positions in the input.

    Returns
    -------
    order : ndarray of shape (n,), int64
        Entry k is the position of the row that is visited as number k.
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
        Where the members of each step begin in `members`.
    members : ndarray of shape (m,), int32
        Members of each step: its leader first, then the others in visiting order. m is n minus the number of rows that
        were visited before the sweep.
    """

    leaders: NDArray[np.int32]
    starts: NDArray[np.int64]
    members: NDArray[np.int32]

    def step_of_member(self) -> NDArray[np.int64]:
        """Return the number of the step (m,) that each entry of `members` belongs to."""
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
        """Return the number of rows that the sweep keeps at each eps: one of every neighbourhood."""
        return np.array([np.count_nonzero(self.leads & np.uint64(1 << k)) for k in range(len(self.eps))], np.int64)

    def neighbourhoods(self, eps: int) -> Neighbourhoods:
        """Return the neighbourhoods at one eps of the pass.

        Parameters
        ----------
        eps : int
            Ten-thousandths; one of `self.eps`.
        """
        bit = np.uint64(1 << self.eps.index(eps))
        leaders = np.flatnonzero(self.leads & bit).astype(np.int32)
        visited = (self.bits & bit) != 0
        owner = np.concatenate((leaders, self.leader[visited]))
        member = np.concatenate((leaders, self.member[visited]))
        order = np.lexsort((member, owner))  # a leader comes before all that it visits
        starts = np.searchsorted(owner[order], leaders)
        return Neighbourhoods(leaders, np.append(starts, len(member)), member[order])


def sweep(
    vectors: Vectors,
    eps: Sequence[int],
    needed: NDArray[np.int64] | None = None,
    within: NDArray[np.int64] | None = None,
) -> Sweep:
    """Sweep one cluster at several values of eps in one pass.

    Parameters
    ----------
    vectors : Vectors of n rows
        Vectors in visiting order.
    eps : sequence of 1 to 64 int
        Ten-thousandths, strictly ascending, 0 to 20001.
    needed : ndarray of shape (n,), int64, optional
        Least eps at which each row is visited before the sweep. From there on it neither leads nor is visited.
    within : ndarray of shape (n,), int64, optional
        A row visits only rows of the same number.

    Returns
    -------
    Sweep
        Leaders and visits at every eps.

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
        raise ValueError(f"eps must be 1 to {MAX_WINDOW} strictly ascending values; got {values}")
    if values[0] < 0 or values[-1] > MAX_EPS:
        raise ValueError(f"eps must be 0 to {MAX_EPS} ten-thousandths; got {values[0]} to {values[-1]}")
    sweep_pass = Pass(vectors, values, needed, within)
    if values == (0,):  # no cosine is above 1: no row visits another
        return Sweep(values, sweep_pass.state.unvisited, *sweep_pass.visits())
    _sweep_blocks(sweep_pass, vectors)
    return Sweep(values, sweep_pass.state.leads, *sweep_pass.visits())


def _sweep_blocks(sweep_pass: Pass, vectors: Vectors) -> None:
    """Resolve one block of candidates after the other: against itself, then against all later rows."""
    unvisited = sweep_pass.state.unvisited
    live = np.arange(len(vectors), dtype=np.int32)  # places of the rows in `found`
    found = approximate(vectors)
    wide = TILE_COLUMNS if isinstance(found, ApproximateVectors) else COLUMNS
    begin = 0
    while begin < len(live):
        ahead = begin + np.flatnonzero(unvisited[live[begin : begin + 2 * BLOCK]])[:BLOCK]
        if len(ahead) == 0:
            begin += 2 * BLOCK
            continue
        if found.rounded and sweep_pass.settled > MOST_SETTLED * sweep_pass.multiplied:
            # Too many pairs are near a threshold for 8 bits. Two steps, so that the old arrays are freed in between.
            found = approximate_in_float32(vectors)
            found = found.take(live)
            sweep_pass.settled = sweep_pass.multiplied = 0
        block, rows = found.take(ahead), live[ahead]
        sweep_pass.resolve(block, rows, block, rows, triangle=True)
        lead = np.flatnonzero(sweep_pass.state.leads[rows])
        block, rows = block.take(lead), rows[lead]
        begin = int(ahead[-1]) + 1
        still_open = unvisited[live[begin:]] != 0
        if np.count_nonzero(still_open) < COMPACT_BELOW * len(still_open):
            keep = begin + np.flatnonzero(still_open)
            # In place: a second copy of a giant cluster would be the largest allocation of the process.
            found = found.take(keep) if found.values is vectors.x else found.move_up(keep)
            live, begin = live[keep], 0
        for start in range(begin, len(live), wide):
            columns = slice(start, start + wide)
            sweep_pass.resolve(block, rows, found.take(columns), live[columns], triangle=False)
