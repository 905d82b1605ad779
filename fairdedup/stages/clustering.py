"""The second stage: train spherical k-means on a seeded sample, assign every row exactly, sort by cluster.

Consecutive shards share a sorted file of up to about GROUP_ROWS rows, so a prune task reads its range of clusters as
slices of a few files, even if there are many tiny shards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairdedup.core import kmeans
from fairdedup.core.reach import assign_and_find_nearby
from fairdedup.storage.contents import Clustered, Embedded, read_sizes, write_sizes
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.made_of import is_up_to_date, mark_up_to_date
from fairdedup.storage.nearby_clusters import write_nearby
from fairdedup.storage.records import (
    ShardRecord,
    SortedRecord,
    read_sorted_record,
    remove_sorted_from,
    seal_files,
    write_sorted_record,
)
from fairdedup.storage.remedies import cluster_again
from fairdedup.storage.run_files import write_array
from fairdedup.storage.sealed_files import Seal, Unsealed, load_array, open_array
from fairdedup.storage.seals import seal
from fairdedup.storage.shard_files import open_shard_vectors, open_sorted
from fairdedup.storage.shard_groups import Group, fingerprint_sorted, first_rows, hash_of
from fairdedup.tasks import Submit, Task, map_groups

VERIFIED = "tasks of the same command have verified or written all shards; this one reads a sample of them"


@dataclass(frozen=True)
class ClusterOptions:
    """Options of clustering.

    Attributes
    ----------
    clusters : int or "auto"
        Number of clusters.
    seed : int
    threads : int
        Number of threads of FAISS while it trains.
    """

    clusters: int | str = "auto"
    seed: int = 0
    threads: int = 1


def train_centroids(root: Path, records: Sequence[ShardRecord], clusters: int, options: ClusterOptions) -> str:
    """Train on the seeded sample of all shards, unless that is done, and return the seal of the centroids."""
    run = RunDirectory(root)
    made_of = hash_of([r.content() for r in records], clusters, asdict(options))
    if is_up_to_date(run.centroids, made_of):
        return seal(run.centroids)
    starts = first_rows(records)
    shards = (shard_rows(r, int(s)) for r, s in zip(records, starts, strict=False))
    chosen = kmeans.training_rows(shards, clusters, options.seed)
    sample = np.empty(
        (len(chosen), _dimension(run, records)), np.float32
    )  # the type that FAISS takes, so it makes no copy
    for record, start in zip(records, starts, strict=False):
        low, high = np.searchsorted(chosen, [start, start + record.input])
        if high > low:
            places = np.searchsorted(shard_rows(record, int(start)), chosen[low:high])
            sample[low:high] = open_array(Unsealed(run.vectors(record.number), VERIFIED))[places]
    write_array(run.centroids, kmeans.train(sample, clusters, options.seed, options.threads))
    mark_up_to_date(run.centroids, made_of)
    return seal(run.centroids)


def take_centroids(run: RunDirectory, frozen: Seal) -> str:
    """Copy the centroids of an earlier run, and return their seal."""
    made_of = hash_of("frozen", frozen.expected)
    if not is_up_to_date(run.centroids, made_of):
        write_array(run.centroids, load_array(frozen))
        mark_up_to_date(run.centroids, made_of)
    return seal(run.centroids)


def shard_rows(record: ShardRecord, first: int) -> NDArray[np.int64]:
    """Return the rows of an embedding shard's vectors."""
    return first + record.positions()


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
    unit = np.empty((sum(r.valid for r in filled), _dimension(run, filled)), np.float16)
    start = 0
    for record in filled:
        unit[start : start + record.valid] = open_shard_vectors(run, record)
        start += record.valid
    return unit


def _dimension(run: RunDirectory, records: Sequence[ShardRecord]) -> int:
    """Return the length of a vector; at least one of the shards must have one."""
    return int(open_shard_vectors(run, next(r for r in records if r.valid)).shape[1])


def cluster_embeddings(
    embedded: Embedded, options: ClusterOptions, submit: Submit, frozen: Seal | None = None
) -> Clustered:
    """Cluster the embeddings of a run; files that are complete and undamaged are used again.

    Parameters
    ----------
    embedded : Embedded
    options : ClusterOptions
    submit : Submit
    frozen : Seal, optional
        Centroids of an earlier run. With them nothing is trained, and the run may have no rows.

    Returns
    -------
    Clustered

    Raises
    ------
    UserError
        If there are fewer vectors than clusters.
    """
    run, records, valid = embedded.directory, embedded.records, embedded.valid
    if frozen is not None:
        centroids = take_centroids(run, frozen)
    else:
        number = kmeans.check_clusters(options.clusters, valid)
        trained_on = min(valid, kmeans.POINTS_PER_CENTROID * number)
        sample = 4 * trained_on * _dimension(run, records)  # bytes in float32
        (centroids,) = submit(
            "train k-means", train_centroids, [Task((run.root, records, number, options), trained_on, memory=sample)]
        )
    counts = map_groups(submit, "assign", sort_group, embedded.groups, run.root, centroids)
    remove_sorted_from(run, len(embedded.groups))
    sizes = np.sum(counts, axis=0)
    known = read_sizes(run)
    if known is None or not np.array_equal(known, sizes):
        write_sizes(run, sizes)
    return Clustered(embedded, sizes)
