"""The second stage: train spherical k-means on a seeded sample, assign every row exactly, sort each shard by cluster.

After it, a prune task reads its range of clusters as one slice of every sorted file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.core import kmeans
from fairdedup.errors import UserError
from fairdedup.storage.files import read_array, write_array, write_json
from fairdedup.storage.run import RunDirectory, ShardRecord, offsets


@dataclass(frozen=True)
class ClusterOptions:
    """How to cluster.

    Attributes
    ----------
    clusters : int or "auto"
    seed : int
    threads : int
        Of FAISS while it trains.
    device : str
    """

    clusters: int | str = "auto"
    seed: int = 0
    threads: int = 1
    device: str = "cpu"


def shard_rows(record: ShardRecord, first: int) -> NDArray[np.int64]:
    """Return the rows of an embedding shard's vectors."""
    return first + record.positions()


def train_centroids(root: Path, records: list[ShardRecord], clusters: int, options: ClusterOptions) -> int:
    """Gather the seeded sample from all shards, train, write the centroids, and return their number."""
    run = RunDirectory(root)
    starts = offsets(records)
    rows = [shard_rows(r, int(s)) for r, s in zip(records, starts, strict=False)]
    chosen = kmeans.training_rows(np.concatenate(rows), clusters, options.seed)
    sample = []
    for record, own in zip(records, rows, strict=True):
        wanted = np.flatnonzero(np.isin(own, chosen, assume_unique=True))
        if len(wanted):
            sample.append(np.asarray(read_array(run.vectors(record.number))[wanted]))
    centroids = kmeans.train(np.concatenate(sample), clusters, options.seed, options.threads, options.device)
    write_array(run.centroids, centroids)
    return len(centroids)


def sort_shard(root: Path, record: ShardRecord, first: int) -> NDArray[np.int64]:
    """Assign one shard's rows, write them sorted by cluster, and return how many fell into each cluster."""
    run = RunDirectory(root)
    centroids = kmeans.unit_centroids(np.load(run.centroids, allow_pickle=False))
    unit = np.asarray(read_array(run.vectors(record.number)))
    rows = shard_rows(record, first)
    labels = kmeans.assign(unit, centroids) if len(unit) else np.zeros(0, np.int64)
    order = np.argsort(labels, kind="stable")
    write_array(run.sorted("vectors", record.number), unit[order])
    write_array(run.sorted("rows", record.number), rows[order])
    counts = np.bincount(labels, minlength=len(centroids)).astype(np.int64)
    write_array(run.sorted("offsets", record.number), np.concatenate(([0], np.cumsum(counts))).astype(np.int64))
    return counts


def cluster(run: RunDirectory, options: ClusterOptions, submit: Callable[..., list[Any]]) -> NDArray[np.int64]:
    """Cluster the embeddings of a run.

    Returns
    -------
    sizes : ndarray of shape (k,), int64
        Rows of each cluster.

    Raises
    ------
    UserError
        If there are no finished embeddings, or fewer rows than clusters.
    """
    records = run.records()
    valid = sum(r.valid for r in records)
    if not valid:
        raise UserError(f"{run.root} holds no valid embedding: see {run.root / 'rejected'} for the reasons")
    number = kmeans.check_clusters(options.clusters, valid)
    trained_on = min(valid, kmeans.POINTS_PER_CENTROID * number)
    submit("train k-means", train_centroids, [(run.root, records, number, options)], [trained_on])
    arguments = [(run.root, r, int(first)) for r, first in zip(records, offsets(records), strict=False)]
    counts = submit("assign", sort_shard, arguments, [r.input for r in records])
    sizes = np.sum(counts, axis=0)
    write_json(run.root / "clusters" / "sizes.json", sizes.tolist())
    return sizes
