"""The tasks that check, after a replacement, whether two kept rows are duplicates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.similarity import Vectors, cosines, most_similar
from fairdedup.stages.replacement.group_rewriting import WRITTEN, DecidedGroup, GatheredVectors, Rows, get_column
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.sealed_files import Unsealed, load_table

BLOCK = 1 << 14  # rows that are widened to float32 at a time


def find_clusters(group: DecidedGroup, rows: Rows) -> Rows:
    """Return the clusters of those of some ascending rows that are in a group, in order."""
    table = group.read_decisions()
    return get_column(table, "cluster")[np.isin(get_column(table, "row"), rows)]


def find_largest_cosine(
    group: DecidedGroup, aside: Path, clusters: Rows, promoted: GatheredVectors, *, across: bool
) -> float:
    """Return the largest cosine of a promoted row with a kept row of a group; -2 without a pair.

    Re-admitted rows and the cosine of a row with itself are not counted.

    Parameters
    ----------
    group : DecidedGroup
    aside : Path
        Folder of the new parts.
    clusters : ndarray of shape (p,), int64
        Clusters of the promoted rows.
    promoted : GatheredVectors
        Vectors of the promoted rows.
    across : bool
        Whether rows of all clusters are compared, or only those of one cluster.
    """
    part = RunDirectory(aside).part("decisions", group.number)
    table = load_table(Unsealed(part, WRITTEN)) if part.is_file() else group.read_decisions()
    cluster = get_column(table, "cluster")
    if across:
        cluster, clusters = np.zeros_like(cluster), np.zeros_like(clusters)
    judged = get_column(table, "kept") & ~get_column(table, "readmitted") & np.isin(cluster, clusters)
    rows, cluster = get_column(table, "row")[judged], cluster[judged]
    order, by_cluster = np.argsort(cluster, kind="stable"), np.argsort(clusters, kind="stable")
    rows, cluster = rows[order], cluster[order]
    unit, promoted_unit = group.read_vectors(rows), promoted.load()
    largest = -2.0
    for number in np.unique(cluster):
        first, last = np.searchsorted(cluster, [number, number + 1]).tolist()
        theirs = by_cluster[slice(*np.searchsorted(clusters[by_cluster], [number, number + 1]))]
        for start in range(first, last, BLOCK):
            own = slice(start, min(last, start + BLOCK))
            found = _find_largest(rows[own], unit[own], promoted.rows[theirs], promoted_unit[theirs])
            largest = max(largest, found)
    return largest


def _find_largest(
    rows: Rows, unit: NDArray[np.float16], promoted_rows: Rows, promoted_unit: NDArray[np.float16]
) -> float:
    """Return the largest cosine of a row with a promoted one that is not itself; -2 without a pair."""
    largest, same = -2.0, np.isin(rows, promoted_rows)
    others, themselves, against = Vectors.of(unit[~same]), Vectors.of(unit[same]), Vectors.of(promoted_unit)
    if len(others):
        largest = float(most_similar(others, against)[1].max())
    if len(themselves):
        pairs = cosines(themselves, against)
        pairs[rows[same][:, None] == promoted_rows] = -2.0
        largest = max(largest, float(pairs.max()))
    return largest
