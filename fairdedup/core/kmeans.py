"""Spherical k-means: FAISS trains the centroids, the assignment to them is exact.

Training computes in floats that may differ between machines, so its result is saved and its thread count is fixed;
what follows does not depend on either. SemDeDup (Abbas et al. 2023) section 3 clusters in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.row_hash import row_hash
from fairdedup.core.similarity import Vectors, most_similar, unit_float16
from fairdedup.errors import UserError

POINTS_PER_CENTROID = 256
ITERATIONS = 20
ROWS_PER_CLUSTER = 1000


def auto_clusters(valid: int) -> int:
    """Return how many clusters suit a number of rows: about one per 1,000 rows, at most the square root."""
    return max(1, min(valid // ROWS_PER_CLUSTER, math.isqrt(valid)))


def check_clusters(clusters: Any, valid: int) -> int:
    """Return the number of clusters for `valid` rows.

    Parameters
    ----------
    clusters : int or "auto"
        Number of clusters, 1 to `valid`.
    valid : int
        Number of valid rows.

    Raises
    ------
    UserError
        If it is neither a whole number from 1 to the number of valid rows nor "auto".
    """
    if clusters == "auto":
        return auto_clusters(valid)
    if isinstance(clusters, bool) or not isinstance(clusters, (int, np.integer)) or clusters < 1:
        raise UserError(f"`clusters` must be a whole number above 0, or auto; got {clusters!r}")
    if clusters > valid:
        raise UserError(f"`clusters={clusters}` is more than the {valid} valid rows: give at most {valid}, or auto")
    return int(clusters)


def training_rows(shards: Iterable[NDArray[np.int64]], clusters: int, seed: int) -> NDArray[np.int64]:
    """Return the seeded sample of rows to train on: up to 256 for each centroid, those of the lowest hashes.

    Besides one shard, no more than twice as many rows are in memory.

    Parameters
    ----------
    shards : iterable of ndarray of shape (n,), int64
        All rows, ascending from shard to shard too.
    clusters : int
        Number of centroids.
    seed : int
        Seed of the hash, which does not depend on where a shard ends.

    Returns
    -------
    rows : ndarray of shape (m,), int64, ascending
        Ties between hashes go to the lower row.
    """
    most = POINTS_PER_CENTROID * clusters
    chosen, number = [np.empty(0, np.int64)], 0
    highest = np.iinfo(np.int64).max  # largest hash of a row that can still be chosen
    for rows in shards:
        chosen.append(rows[row_hash(rows, seed) <= highest])
        number += len(chosen[-1])
        if number > 2 * most:
            chosen = [_take_lowest_hashes(np.concatenate(chosen), most, seed)]
            number, highest = most, row_hash(chosen[0], seed).max()
    return _take_lowest_hashes(np.concatenate(chosen), most, seed)


def _take_lowest_hashes(rows: NDArray[np.int64], most: int, seed: int) -> NDArray[np.int64]:
    """Return up to `most` of ascending rows, ascending: those of the lowest hashes, ties to the lower row."""
    if len(rows) <= most:
        return rows
    return np.sort(rows[np.argsort(row_hash(rows, seed), kind="stable")[:most]])


def train(
    sample: NDArray[np.floating], clusters: int, seed: int, threads: int = 1, device: str = "cpu"
) -> NDArray[np.float32]:
    """Train spherical k-means on a sample.

    Parameters
    ----------
    sample : ndarray of shape (m, d), float16 or float32, unit rows
        It is widened to float32; a float32 sample is not copied.
    clusters : int
        Number of centroids, k, at most m.
    seed : int
        Seed of the first centroids.
    threads : int
        Number of FAISS threads; the result may depend on it.
    device : {"cpu", "auto", "cuda"}
        Device; "auto" takes a GPU that FAISS sees.

    Returns
    -------
    centroids : ndarray of shape (k, d), float32, unit rows

    Raises
    ------
    UserError
        If `device` is "cuda" and FAISS sees no GPU.
    """
    import faiss

    gpus = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") and device != "cpu" else 0
    if device == "cuda" and not gpus:
        raise UserError("`device=cuda`: FAISS sees no GPU here; use `device=cpu` or auto")
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        trainer = faiss.Kmeans(
            sample.shape[1],
            clusters,
            niter=ITERATIONS,
            spherical=True,
            seed=seed % 2**31,
            gpu=gpus > 0,
            min_points_per_centroid=1,
            max_points_per_centroid=POINTS_PER_CENTROID,
        )
        trainer.train(np.ascontiguousarray(sample, dtype=np.float32))
    finally:
        faiss.omp_set_num_threads(before)
    return np.asarray(trainer.centroids, np.float32).reshape(clusters, -1)


def assign(unit: NDArray[np.float16], centroids: NDArray[np.float16]) -> NDArray[np.int64]:
    """Return each row's most similar centroid, exactly; ties go to the lower number.

    Parameters
    ----------
    unit : ndarray of shape (n, d), float16
        Unit vectors.
    centroids : ndarray of shape (k, d), float16
        Unit vectors, or zero.
    """
    return most_similar(Vectors.of(unit), Vectors.of(centroids))[0]


def unit_centroids(centroids: NDArray[np.floating]) -> NDArray[np.float16]:
    """Scale centroids (k, d) to unit float16 vectors; a zero one stays zero and is similar to nothing."""
    return unit_float16(np.asarray(centroids, np.float64))[0]


def centroids_of_labels(
    unit: NDArray[np.float16], labels: NDArray[np.int64], numbers: NDArray[np.int64]
) -> NDArray[np.float16]:
    """Return the centroid of each labelled cluster: the sum of its vectors, exact, scaled to unit float16.

    Parameters
    ----------
    unit : ndarray of shape (n, d), float16
        Unit vectors.
    labels : ndarray of shape (n,), int64
        Cluster of each row.
    numbers : ndarray of shape (k,), int64
        The labels, ascending.
    """
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], numbers)
    sums = np.empty((len(numbers), unit.shape[1]))
    for k, (start, stop) in enumerate(zip(bounds, np.append(bounds[1:], len(labels)), strict=True)):
        sums[k] = np.sum(unit[order[start:stop]], axis=0, dtype=np.float64)
    return unit_centroids(sums)
