"""The tasks that check, after a replacement, whether two kept rows are duplicates."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fairdedup.core.similarity import Vectors, cosines, most_similar
from fairdedup.stages.replacement.group_rewriting import WRITTEN, DecidedGroup, GatheredVectors, Rows, get_column
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.sealed_files import Unsealed, load_table


def find_clusters(group: DecidedGroup, rows: Rows) -> Rows:
    """Return the clusters of those of some ascending rows that are in a group, in order."""
    table = group.read_decisions()
    return get_column(table, "cluster")[np.isin(get_column(table, "row"), rows)]


def find_largest_cosine(group: DecidedGroup, aside: Path, clusters: Rows, promoted: GatheredVectors) -> float:
    """Return the largest cosine of a promoted row with a kept row of its cluster in a group; -2 without a pair.

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
    """
    part = RunDirectory(aside).part("decisions", group.number)
    table = load_table(Unsealed(part, WRITTEN)) if part.is_file() else group.read_decisions()
    judged = (
        get_column(table, "kept") & ~get_column(table, "readmitted") & np.isin(get_column(table, "cluster"), clusters)
    )
    rows, cluster = get_column(table, "row")[judged], get_column(table, "cluster")[judged]
    order, by_cluster = np.argsort(cluster, kind="stable"), np.argsort(clusters, kind="stable")
    rows, cluster = rows[order], cluster[order]
    unit, promoted_unit = group.read_vectors(rows), promoted.load()
    largest = -2.0
    for number in np.unique(cluster):
        own = slice(*np.searchsorted(cluster, [number, number + 1]))
        theirs = by_cluster[slice(*np.searchsorted(clusters[by_cluster], [number, number + 1]))]
        same = np.isin(rows[own], promoted.rows[theirs])
        others, themselves = Vectors.of(unit[own][~same]), Vectors.of(unit[own][same])
        against = Vectors.of(promoted_unit[theirs])
        if len(others):
            largest = max(largest, float(most_similar(others, against)[1].max()))
        if len(themselves):
            pairs = cosines(themselves, against)
            pairs[rows[own][same][:, None] == promoted.rows[theirs]] = -2.0
            largest = max(largest, float(pairs.max()))
    return largest
