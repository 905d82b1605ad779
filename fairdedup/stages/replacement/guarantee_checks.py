"""The tasks that check, after a replacement, whether two kept rows are duplicates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.nearest import most_similar
from fairdedup.core.similarity import Vectors, cosines
from fairdedup.stages.replacement.group_rewriting import WRITTEN, DecidedGroup, GatheredVectors, Rows, get_column
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.sealed_files import Unsealed, load_table
from fairdedup.storage.within_values import read_group_codes

BLOCK = 1 << 14  # rows that are widened to float32 at a time


def find_clusters(group: DecidedGroup, rows: Rows, within: str | None) -> Rows:
    """Return the cluster and the code of those of some ascending rows that are in a group, in order: (p, 2).

    Rows are compared where both are equal. The code is that of the value of the column `within`; 0 without one.
    """
    table = group.read_decisions()
    own = np.isin(get_column(table, "row"), rows)
    return _read_clusters(group, get_column(table, "row")[own], get_column(table, "cluster")[own], within)


def _read_clusters(group: DecidedGroup, rows: Rows, cluster: Rows, within: str | None) -> Rows:
    codes = np.zeros(len(rows), np.int64)
    if within is not None and len(rows):
        codes = read_group_codes(group.run, group.group, within)[np.searchsorted(group.group.rows(), rows)]
    return np.stack((cluster, codes), axis=1)


def find_largest_cosine(
    group: DecidedGroup, aside: Path, clusters: Rows, promoted: GatheredVectors, *, within: str | None, across: bool
) -> float:
    """Return the largest cosine of a promoted row with a kept row of a group; -2 without a pair.

    Re-admitted rows, rows with another value of the column `within`, and a row itself are not counted.

    Parameters
    ----------
    group : DecidedGroup
    aside : Path
        Folder of the new parts.
    clusters : ndarray of shape (p, 2), int64
        Clusters and codes of the promoted rows, as `find_clusters` returns them.
    promoted : GatheredVectors
        Vectors of the promoted rows.
    within : str or None
        Column within whose values rows are compared.
    across : bool
        Whether rows of all clusters are compared, or only those of one cluster.
    """
    part = RunDirectory(aside).part("decisions", group.number)
    table = load_table(Unsealed(part, WRITTEN)) if part.is_file() else group.read_decisions()
    judged = get_column(table, "kept") & ~get_column(table, "readmitted")
    if not across:
        judged &= np.isin(get_column(table, "cluster"), clusters[:, 0])
    rows, cluster = get_column(table, "row")[judged], get_column(table, "cluster")[judged]
    both = np.concatenate((clusters, _read_clusters(group, rows, cluster, within)))
    if across:
        both[:, 0] = 0
    numbers = np.unique(both, axis=0, return_inverse=True)[1].reshape(-1)  # one for each cluster and value
    clusters, cluster = np.split(numbers, [len(clusters)])
    alike = np.isin(cluster, clusters)
    rows, cluster = rows[alike], cluster[alike]
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
