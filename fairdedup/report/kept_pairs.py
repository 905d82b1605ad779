"""Finds kept samples that are just not duplicates of each other: what a larger eps would remove.

They come from a seeded sample of whole clusters among the points of the map.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.core.row_hash import row_hash
from fairdedup.report.decision_scan import PAIRS, UNITS, band_edges
from fairdedup.report.embedding_points import Points, read_vectors_at
from fairdedup.report.report_figures import Pair
from fairdedup.storage.layout import RunDirectory

BELOW = 3  # bands under the threshold
MOST_ROWS, MOST_OF_CLUSTER = 12_000, 2_000  # kept samples that are compared, in all and in one cluster


def find_kept_pairs(run: RunDirectory, points: Points, table: pa.Table, eps: float) -> list[Pair]:
    """Return pairs of kept samples of one cluster in the bands under the threshold, `PAIRS` of each at most.

    Parameters
    ----------
    run : RunDirectory
    points : Points
    table : Table
        Decisions of the points.
    eps : float
    """
    edges = band_edges(eps)
    step = (edges[1] - edges[0] if len(edges) > 1 else 5) / UNITS
    threshold = 1 - eps
    kept = table.column("kept").to_numpy() & ~table.column("readmitted").to_numpy()
    row, cluster = table.column("row").to_numpy()[kept], table.column("cluster").to_numpy()[kept]
    found: list[tuple[float, int, int]] = []
    compared = 0
    numbers = np.unique(cluster)
    for number in numbers[np.argsort(row_hash(numbers, 0), kind="stable")].tolist():
        own = np.sort(row[cluster == number])[:MOST_OF_CLUSTER]
        if compared + len(own) > MOST_ROWS and compared:
            break
        compared += len(own)
        if len(own) > 1:
            vectors = read_vectors_at(run, points, np.searchsorted(points.rows, own))
            found += _find_nearest(own, vectors, threshold - BELOW * step, threshold)
    chosen = []
    for below in range(BELOW):
        low, high = threshold - (below + 1) * step, threshold - below * step
        band = [pair for pair in found if low < pair[0] <= high]
        order = row_hash(np.array([pair[1] for pair in band], np.int64), 1)
        for k in np.argsort(order, kind="stable")[:PAIRS].tolist():
            chosen.append(Pair(band[k][1], band[k][2], band[k][0], removed=False))
    return sorted(chosen, key=lambda pair: (pair.cosine, pair.first))


def _find_nearest(
    rows: NDArray[np.int64], vectors: NDArray[np.float16], low: float, high: float
) -> list[tuple[float, int, int]]:
    """Return the cosine of each row and its nearest one, where that is in a range; a pair occurs once."""
    x = vectors.astype(np.float32)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    cosines = x @ x.T
    np.fill_diagonal(cosines, -2)
    nearest = cosines.argmax(axis=1)
    best = cosines[np.arange(len(rows)), nearest]
    pairs = set()
    for k in np.flatnonzero((best > low) & (best <= high + 1e-6)).tolist():
        a, b = sorted((k, int(nearest[k])))
        exact = vectors[a].astype(np.float64), vectors[b].astype(np.float64)
        cosine = float(exact[0] @ exact[1] / np.sqrt((exact[0] @ exact[0]) * (exact[1] @ exact[1])))
        if low < cosine <= high:
            pairs.add((cosine, int(rows[a]), int(rows[b])))
    return sorted(pairs)
