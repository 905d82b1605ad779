"""Assign every row to its centroid, exactly, and sort consecutive shards by cluster.

Consecutive shards share a sorted file of up to about GROUP_ROWS rows, so a prune task reads its range of clusters as
slices of a few files, even if there are many tiny shards.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairdedup.core import kmeans
from fairdedup.core.reach import assign_and_find_nearby
from fairdedup.stages.clustering.centroid_training import find_dimension
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.nearby_clusters import write_nearby
from fairdedup.storage.records import SortedRecord, read_sorted_record, seal_files, write_sorted_record
from fairdedup.storage.remedies import cluster_again
from fairdedup.storage.run_files import write_array
from fairdedup.storage.sealed_files import Seal, load_array
from fairdedup.storage.shard_files import open_shard_vectors, open_sorted
from fairdedup.storage.shard_groups import Group, fingerprint_sorted


def sort_group(group: Group, root: Path, centroids: str) -> NDArray[np.int64]:
    """Assign the rows of consecutive shards and write them sorted by cluster, unless that is done.

    Parameters
    ----------
    group : Group
    root : Path
    centroids : str
        Seal of the centroids.

    Returns
    -------
    counts : ndarray of shape (k,), int64
        Number of rows in each cluster.
    """
    run, number = RunDirectory(root), group.number
    made_of = fingerprint_sorted(group, centroids)
    known = read_sorted_record(run, number)
    if known is not None and known.fingerprint == made_of:
        return np.diff(open_sorted(run, number, "offsets")[0])
    unit_centroids = kmeans.unit_centroids(load_array(Seal(run.centroids, centroids, cluster_again(root))))
    unit, rows = _vectors(run, group), group.rows()
    labels, nearby = assign_and_find_nearby(unit, unit_centroids, kmeans.NEARBY)
    order = np.argsort(labels, kind="stable")
    write_array(run.sorted("vectors", number), unit[order])
    write_array(run.sorted("rows", number), rows[order])
    counts = np.bincount(labels, minlength=len(unit_centroids)).astype(np.int64)
    write_array(run.sorted("offsets", number), np.concatenate(([0], np.cumsum(counts))).astype(np.int64))
    write_nearby(run, group, centroids, nearby.clusters[order], nearby.gaps[order], kmeans.NEARBY)
    write_sorted_record(
        run, SortedRecord(number=number, fingerprint=made_of, seals=seal_files(run.sorted_files(number)))
    )
    return counts


def _vectors(run: RunDirectory, group: Group) -> NDArray[np.float16]:
    """Return the vectors of consecutive shards (n, d); an array without rows has d = 0."""
    filled = [r for r in group.records if r.valid]
    if not filled:
        return np.zeros((0, 0), np.float16)
    unit = np.empty((sum(r.valid for r in filled), find_dimension(run, filled)), np.float16)
    start = 0
    for record in filled:
        unit[start : start + record.valid] = open_shard_vectors(run, record)
        start += record.valid
    return unit
