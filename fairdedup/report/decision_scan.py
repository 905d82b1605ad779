"""The first pass over the decisions of a finished run: counts, and which rows are worth showing.

One part is in memory at a time. What is remembered does not grow with the run, but for the sizes of the clusters.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.core.row_hash import row_hash

UNITS = 10_000  # a cosine of 1
BANDS = 6  # of removed samples above the threshold
LARGEST, CLOSEST, DRAWN = 12, 8, 400  # neighbourhoods: with most samples, closest to the threshold, drawn for groups
OUTLIERS = 12
PAIRS = 6  # of each band
COLUMNS = ("row", "cluster", "kept", "representative", "similarity", "centroid_similarity")
NO_ROWS = np.zeros(0, np.int64)


@dataclass
class Lowest:
    """The rows with the lowest keys so far, at most `most`; ties go to the lower row.

    Attributes
    ----------
    most : int
    rows, others : ndarray of shape (m,), int64
        Rows, and a second row of each.
    keys : ndarray of shape (m,), float64
    """

    most: int
    rows: NDArray[np.int64] = field(default_factory=lambda: NO_ROWS)
    others: NDArray[np.int64] = field(default_factory=lambda: NO_ROWS)
    keys: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def add(self, rows: NDArray[np.int64], keys: NDArray[np.float64], others: NDArray[np.int64] | None = None) -> None:
        """Consider more rows (n,) with their keys (n,)."""
        if len(rows) > 4 * self.most:  # all ties at the border stay
            few = keys <= np.partition(keys, self.most - 1)[self.most - 1]
            rows, keys, others = rows[few], keys[few], None if others is None else others[few]
        rows, keys = np.concatenate((self.rows, rows)), np.concatenate((self.keys, keys))
        others = np.concatenate((self.others, NO_ROWS if others is None else others))
        order = np.lexsort((rows, keys))[: self.most]
        self.rows, self.keys = rows[order], keys[order]
        self.others = others[order] if len(others) else others


def band_edges(eps: float) -> NDArray[np.int64]:
    """Return the edges of the bands of cosines above the threshold, in ten-thousandths, ascending: (b + 1,)."""
    threshold = round((1 - eps) * UNITS)
    step = max(5, min(round(eps * UNITS / BANDS), 200))
    edges = np.minimum(threshold + step * np.arange(BANDS + 1), UNITS)
    return np.unique(edges)


@dataclass
class DecisionScan:
    """What one pass over the decisions finds.

    Attributes
    ----------
    clusters : int
        Number of clusters.
    eps : float or None
        Eps of the decision; None for a rule without eps.
    similarities : ndarray of shape (20001,), int64
        Number of removed rows by cosine to their representative, in ten-thousandths from -1.
    sizes : ndarray of shape (k, 2), int64
        Valid and kept rows of each cluster.
    neighbourhoods : int
        Number of kept rows that stand for a removed one.
    largest, closest, drawn : Lowest
        Kept rows that stand for the most removed rows, representatives of the removed rows nearest to the threshold,
        and a seeded sample of kept rows that stand for some.
    bands : list of Lowest
        Removed rows of each band, and their representatives; a seeded sample.
    outliers : Lowest
        Rows with the least cosine to their centroid.
    """

    clusters: int
    eps: float | None
    similarities: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2 * UNITS + 1, np.int64))
    neighbourhoods: int = 0
    largest: Lowest = field(default_factory=lambda: Lowest(LARGEST))
    closest: Lowest = field(default_factory=lambda: Lowest(4 * CLOSEST))
    drawn: Lowest = field(default_factory=lambda: Lowest(DRAWN))
    outliers: Lowest = field(default_factory=lambda: Lowest(OUTLIERS))

    def __post_init__(self) -> None:
        self.sizes = np.zeros((self.clusters, 2), np.int64)
        self.edges = NO_ROWS if self.eps is None else band_edges(self.eps)
        self.bands = [Lowest(PAIRS) for _ in self.edges[1:]]

    def add(self, table: pa.Table, stands_for: NDArray[np.int64] | None) -> None:
        """Add a part of the decisions.

        Parameters
        ----------
        table : Table
            `COLUMNS` of the part.
        stands_for : ndarray or None
            How many removed rows each kept row of the part represents, in its order; None where kept/ does not say.
        """
        row, cluster, kept = (table.column(name).to_numpy() for name in COLUMNS[:3])
        self.sizes[:, 0] += np.bincount(cluster, minlength=self.clusters)
        self.sizes[:, 1] += np.bincount(cluster[kept], minlength=self.clusters)
        self.outliers.add(row, table.column("centroid_similarity").to_numpy())
        representative, similarity = (table.column(name).to_numpy() for name in ("representative", "similarity"))
        removed = ~kept & ~np.isnan(similarity)
        self._add_removed(row[removed], representative[removed], similarity[removed])
        if stands_for is not None:
            some = np.flatnonzero(stands_for > 0)
            leaders, sizes = row[kept][some], stands_for[some]
            self.neighbourhoods += len(some)
            self.largest.add(leaders, -sizes.astype(np.float64))
            several = leaders[sizes > 1]
            self.drawn.add(several, row_hash(several, 0).astype(np.float64))

    def _add_removed(
        self, row: NDArray[np.int64], representative: NDArray[np.int64], similarity: NDArray[np.float64]
    ) -> None:
        units = np.rint(similarity * UNITS).astype(np.int64)
        self.similarities += np.bincount(units.clip(-UNITS, UNITS) + UNITS, minlength=2 * UNITS + 1)
        known = representative >= 0
        row, representative, similarity, units = row[known], representative[known], similarity[known], units[known]
        self.closest.add(row, similarity, representative)
        band = np.searchsorted(self.edges, units, side="left") - 1  # over the low edge, up to the high one
        for number, found in enumerate(self.bands):
            own = (band == number) | ((band < 0) & (number == 0))  # rounded down to the threshold
            found.add(row[own], row_hash(row[own], 1).astype(np.float64), representative[own])

    def chosen(self) -> NDArray[np.int64]:
        """Return the kept rows whose neighbourhoods are candidates for the gallery, ascending."""
        return np.unique(np.concatenate((self.largest.rows, self.closest.others, self.drawn.rows)))
