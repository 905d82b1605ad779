"""Spherical k-means: centroids are trained on a sample in integers, and each row is assigned to its centroid exactly.

Neither depends on the machine or on the number of threads. SemDeDup (Abbas et al. 2023) section 3 clusters in the same
way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.devices import choose_device
from fairdedup.core.fast_arithmetic import limit_product_threads
from fairdedup.core.lloyd import ITERATIONS, Start, draw_first, round_rows, training_work, update
from fairdedup.core.lloyd_on_torch import assign_and_add_on
from fairdedup.core.nearest import most_similar
from fairdedup.core.row_hash import row_hash
from fairdedup.core.similarity import Vectors, unit_float16
from fairdedup.errors import UserError, format_count

POINTS_PER_CENTROID = 256
PIECE = 1 << 16  # rows of the sample that are trained on as one piece
LEAST_PIECE = 1 << 12  # rows for which another thread pays
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
    sample: NDArray[np.float16], clusters: int, seed: int, threads: int = 1, device: str = "cpu"
) -> NDArray[np.float32]:
    """Train spherical k-means on a sample that is in memory.

    Parameters
    ----------
    sample : ndarray of shape (m, d), float16, unit rows
        Vectors to train on.
    clusters : int
        Number of centroids, k, at most m.
    seed : int
        Seed of the first centroids.
    threads : int
        Number of threads. The result does not depend on it, nor on the machine.
    device : {"cpu", "auto", "cuda"}
        Device to train on, with the same result; "auto" takes a GPU if torch sees one and the work is much.

    Returns
    -------
    centroids : ndarray of shape (k, d), float32, unit rows
        Trained centroids.

    Raises
    ------
    UserError
        If `device` is "cuda" and torch sees no GPU.
    """
    m, d = sample.shape
    work = training_work(m, clusters, d)
    device = choose_device(device, work)
    start = Start.of(sample[draw_first(m, clusters, seed)])
    step = max(1, min(PIECE, math.ceil(m / threads)))
    with limit_product_threads() if threads > 1 else nullcontext(), ThreadPoolExecutor(threads) as pool:
        pieces = list(pool.map(lambda k: round_rows(sample[k : k + step], start.mean), range(0, m, step)))
        add_piece = partial(assign_and_add_on, device, mean=start.mean, work=work)
        centroids, used = start.first[:clusters], clusters
        for _ in range(ITERATIONS):
            before = centroids
            centroids, used = update(pool.map(add_piece, pieces, repeat(before)), before, start, used)
            if np.array_equal(centroids, before):
                break
    return centroids.astype(np.float32)


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
