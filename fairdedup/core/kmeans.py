"""Spherical k-means: FAISS trains the centroids, and each row is assigned to its centroid exactly.

The floats of the training may differ between machines and thread counts, so its result is saved. The assignment never
depends on either. SemDeDup (Abbas et al. 2023) section 3 clusters in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.row_hash import row_hash
from fairdedup.core.similarity import Vectors, most_similar, unit_float16
from fairdedup.errors import UserError, format_count

POINTS_PER_CENTROID = 256
ITERATIONS = 20
ROWS_PER_CLUSTER = 1000
NEARBY = 16  # most similar clusters that are remembered of each row at least, its own included


def auto_clusters(valid: int) -> int:
    """Return the automatic number of clusters: about one per 1,000 rows, at most the square root of the rows.

    Parameters
    ----------
    valid : int
        Number of valid rows.
    """
    return max(1, min(valid // ROWS_PER_CLUSTER, math.isqrt(valid)))


def check_clusters(clusters: Any, valid: int, kept: int | None = None) -> int:
    """Return the number of clusters for `valid` rows.

    Parameters
    ----------
    clusters : int or "auto"
        Number of clusters, 1 to `valid`.
    valid : int
        Number of valid rows.
    kept : int, optional
        Number of rows to keep, if it is known: more clusters cannot be decided, since each keeps a row.

    Raises
    ------
    UserError
        If `clusters` is neither a whole number from 1 to `valid` nor "auto".
    """
    if clusters == "auto":
        return auto_clusters(valid)
    if isinstance(clusters, bool) or not isinstance(clusters, (int, np.integer)) or clusters < 1:
        raise UserError(f"`clusters` must be a whole number above 0, or auto; got {clusters!r}")
    if clusters > valid:
        most = valid if kept is None else max(1, min(valid, kept))
        why = f" (one for each of the {format_count(most, 'row')} to keep)" if most < valid else ""
        raise UserError(
            f"`clusters={clusters}` is more than the {format_count(valid, 'valid row')}: "
            f"give at most {most}{why}, or auto"
        )
    return int(clusters)


def training_rows(shards: Iterable[NDArray[np.int64]], clusters: int, seed: int) -> NDArray[np.int64]:
    """Return the seeded sample of rows to train on: those with the lowest hashes, up to 256 for each centroid.

    At most twice as many rows, and one shard, are in memory at a time.

    Parameters
    ----------
    shards : iterable of ndarray of shape (n,), int64
        All rows, ascending within a shard and from shard to shard.
    clusters : int
        Number of centroids.
    seed : int
        Seed of the hash. Where shards end changes nothing.

    Returns
    -------
    rows : ndarray of shape (m,), int64, ascending
        Rows to train on. Ties between hashes go to the lower row.
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
    """Return the `most` of some ascending rows that have the lowest hashes, ascending; ties go to the lower row."""
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
        Vectors to train on. A float16 sample is copied to float32.
    clusters : int
        Number of centroids, k, at most m.
    seed : int
        Seed of the first centroids.
    threads : int
        Number of FAISS threads; the result may depend on it.
    device : {"cpu", "auto", "cuda"}
        Device to train on; "auto" takes a GPU if FAISS sees one.

    Returns
    -------
    centroids : ndarray of shape (k, d), float32, unit rows
        Trained centroids.

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
    """Return the number of each row's most similar centroid, exactly; ties go to the lower number.

    Parameters
    ----------
    unit : ndarray of shape (n, d), float16
        Unit vectors of the rows.
    centroids : ndarray of shape (k, d), float16
        Unit vectors; a centroid may be zero.

    Returns
    -------
    ndarray of shape (n,), int64, 0 to k - 1
    """
    return most_similar(Vectors.of(unit), Vectors.of(centroids))[0]


def unit_centroids(centroids: NDArray[np.floating]) -> NDArray[np.float16]:
    """Scale centroids to unit length. A zero centroid stays zero: its cosine to every row is 0.

    Parameters
    ----------
    centroids : ndarray of shape (k, d), float
        Centroids of any length.

    Returns
    -------
    ndarray of shape (k, d), float16
    """
    return unit_float16(np.asarray(centroids, np.float64))[0]


def centroids_of_labels(
    unit: NDArray[np.float16], labels: NDArray[np.int64], numbers: NDArray[np.int64]
) -> NDArray[np.float16]:
    """Return the centroid of each labelled cluster: the exact sum of its vectors, scaled to unit length.

    Parameters
    ----------
    unit : ndarray of shape (n, d), float16
        Unit vectors.
    labels : ndarray of shape (n,), int64
        Cluster of each row.
    numbers : ndarray of shape (k,), int64
        The distinct labels, ascending.

    Returns
    -------
    ndarray of shape (k, d), float16
    """
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], numbers)
    sums = np.empty((len(numbers), unit.shape[1]))
    for k, (start, stop) in enumerate(zip(bounds, np.append(bounds[1:], len(labels)), strict=True)):
        sums[k] = np.sum(unit[order[start:stop]], axis=0, dtype=np.float64)
    return unit_centroids(sums)
