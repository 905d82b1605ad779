"""Which row visits which in the leader sweep: one pass over a cluster, and the record of its visits.

Rows are numbered by their place in the visiting order, so "first" is a comparison of integers. Each row has a bit for
every eps of the pass, which is set while the row is unvisited at that eps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.approximate import ApproximateVectors, no_marks
from fairdedup.core.device_products import DeviceProducts, DeviceVectors, grow
from fairdedup.core.similarity import EPS_UNIT, MAX_EPS, Vectors
from fairdedup.core.visit_loops import (
    LeaderTile,
    Output,
    PassState,
    Progress,
    Visits,
    bound_tile,
    lowest_floors,
    visit_all,
    visit_candidates,
)
from fairdedup.core.within import codes_or_zeros

MAX_WINDOW = 64  # bits of a mask
BUFFER = 1 << 20  # visits recorded at a time


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
        self.state = PassState(
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
        lead: ApproximateVectors | DeviceVectors,
        leaders: NDArray[np.int32],
        column: ApproximateVectors | DeviceVectors,
        columns: NDArray[np.int32],
        *,
        triangle: bool,
    ) -> None:
        """Compute one tile of products, and let its leaders visit its columns.

        Parameters
        ----------
        lead : ApproximateVectors or DeviceVectors of r rows
            Vectors of the leaders.
        leaders : ndarray of shape (r,), int32
            Their places in the visiting order, ascending.
        column : ApproximateVectors or DeviceVectors of c rows
            Vectors of the columns, as those of the leaders.
        columns : ndarray of shape (c,), int32
            Their places in the visiting order, ascending.
        triangle : bool
            Whether leaders and columns are the same rows.
        """
        tile = LeaderTile(leaders, columns, lead.terms, column.terms, triangle)
        bounds = bound_tile(tile, self.state)
        out = Output(bounds.first, self._buffer)
        products: Any = lead.multiply(column)  # type: ignore[arg-type]
        self.multiplied += products.size
        if isinstance(products, DeviceProducts):
            self._visit_found(products, tile, out)
            return
        marks = no_marks(len(columns))
        done = Progress(0, 0, 0, 0)
        while done.row < len(leaders):
            done = visit_all(products, tile, self.state, done, bounds, marks, out)
            self._record(done)

    def _visit_found(self, products: DeviceProducts, tile: LeaderTile, out: Output) -> None:
        """Let the leaders of a tile visit what a device finds, a few leaders at first and then more at a time."""
        for rows in grow(len(tile.leaders)):
            lead = (self.state.unvisited if tile.triangle else self.state.leads)[tile.leaders]
            for some, found in products.iterate_reaching(out.first, rows, lowest_floors(lead, self.state.thresholds)):
                done = Progress(some.start, 0, 0, 0)
                while done.row < some.stop:
                    bounds = (some.start, some.stop)
                    done = visit_candidates(found, found.starts(some), bounds, tile, self.state, done, out)
                    self._record(done)

    def _record(self, done: Progress) -> None:
        self.settled += done.settled
        if done.written:
            self._visits.append(self._buffer.copy_first(done.written))

    def visits(self) -> Visits:
        """Return all visits so far."""
        if not self._visits:
            return Visits.make(0)
        leader, member, bits = zip(*self._visits, strict=True)
        return Visits(np.concatenate(leader), np.concatenate(member), np.concatenate(bits))
