"""Cosines of samples to their nearest neighbour, in a seeded sample of clusters: an eps is suggested from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.eps_suggestion import BINS, count_cosines, suggest_eps
from fairdedup.core.row_hash import row_hash
from fairdedup.storage.contents import Clustered
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.object_stores import RemotePath
from fairdedup.storage.remedies import cluster_again
from fairdedup.storage.run_files import release_pages
from fairdedup.storage.sealed_files import Unsealed, open_array
from fairdedup.storage.shard_files import open_sorted

MOST_ROWS = 24_000  # vectors that are read and held; with 512 values each they take 25 MB, and 50 MB as float32
MOST_QUERIES, QUERIES_OF_CLUSTER, QUERIES_AT_ONCE = 6_000, 2_000, 256  # vectors whose nearest neighbour is looked for
MOST_GROUPS = 512  # sorted groups whose files are opened; so many hold some 134 million rows
MOST_VERIFIED = 4  # groups up to which whole files are read, and verified
REQUESTS = 16  # that an object store answers at the same time
NOT_VERIFIED = "ranges of many files are read, for a suggestion that decides nothing"


def suggest_run_eps(clustered: Clustered) -> float | None:
    """Return the eps where the cosines to nearest neighbours bend, None if they do not.

    Parameters
    ----------
    clustered : Clustered
        Clusters of the run.
    """
    return suggest_eps(count_nearest_cosines(clustered))


def describe_suggestion(eps: float | None) -> str:
    """Return the suggestion as a sentence, empty if there is none.

    Parameters
    ----------
    eps : float or None
        As `suggest_run_eps` returns it.
    """
    if eps is None:
        return ""
    return (
        f"Near-duplicates stand out: the cosines of samples to their nearest neighbour have a gap near {1 - eps:.2f}. "
        f"To remove only near-duplicates: --eps {eps:.2f}"
    )


def count_nearest_cosines(clustered: Clustered) -> NDArray[np.int64]:
    """Return the number of samples by the cosine to their nearest neighbour in their cluster.

    They are a seeded sample: some rows of some clusters, each compared with all rows of its cluster. Of a cluster
    larger than `MOST_ROWS`, and of a data set of more than `MOST_GROUPS` groups, only a part is read, in which some
    rows have lost their nearest neighbour.

    Parameters
    ----------
    clustered : Clustered
        Clusters of the run.

    Returns
    -------
    ndarray of shape (201,), int64
        As `count_cosines` returns it.
    """
    groups = np.array([group.number for group in clustered.groups if group.valid], np.int64)
    share = max(1.0, len(groups) / MOST_GROUPS)
    groups = np.sort(groups[np.argsort(row_hash(groups, 0), kind="stable")[:MOST_GROUPS]])
    chosen = _choose_clusters(np.ceil(clustered.sizes / share).astype(np.int64))
    read = partial(_read_slices, clustered.directory, chosen, is_whole=len(groups) <= MOST_VERIFIED)
    threads = REQUESTS if isinstance(clustered.directory.root, RemotePath) else 1
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(read, groups.tolist()))
    counts = np.zeros(BINS, np.int64)
    for own in zip(*parts, strict=True):
        counts += count_cosines(_find_nearest(np.concatenate(own)))
    return counts


def _choose_clusters(sizes: NDArray[np.int64]) -> list[tuple[int, float]]:
    """Return the numbers of some clusters, and the share of each that is read."""
    chosen: list[tuple[int, float]] = []
    rows = queries = 0
    numbers = np.flatnonzero(sizes > 1)
    for number in numbers[np.argsort(row_hash(numbers, 0), kind="stable")].tolist():
        size = int(sizes[number])
        if queries >= MOST_QUERIES or (rows and rows + size > MOST_ROWS):
            break
        chosen.append((number, min(1.0, MOST_ROWS / size)))
        rows += min(size, MOST_ROWS)
        queries += min(size, QUERIES_OF_CLUSTER)
    return chosen


def _read_slices(
    run: RunDirectory, chosen: Sequence[tuple[int, float]], number: int, *, is_whole: bool
) -> list[NDArray[np.float16]]:
    """Return what a sorted group has of each chosen cluster."""
    (at,) = open_sorted(run, number, "offsets")
    if is_whole:
        (vectors,) = open_sorted(run, number, "vectors")
    else:
        source = Unsealed(run.sorted("vectors", number), NOT_VERIFIED, cluster_again(run.root))
        vectors = open_array(source)
        if vectors.ndim != 2 or vectors.dtype != np.float16 or len(vectors) != int(at[-1]):
            raise source.error()
    found = []
    for cluster, share in chosen:
        start, stop = int(at[cluster]), int(at[cluster + 1])
        found.append(np.array(vectors[start : start + math.ceil((stop - start) * share)]))
    release_pages(vectors)
    return found


def _find_nearest(unit: NDArray[np.float16]) -> NDArray[np.float32]:
    """Return the cosine of some rows of a cluster (n, d) to the nearest other row of it."""
    x = unit.astype(np.float32)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    queries = np.argsort(row_hash(np.arange(len(x)), 0), kind="stable")[:QUERIES_OF_CLUSTER]
    nearest = np.full(len(queries) if len(x) > 1 else 0, -1, np.float32)
    for start in range(0, len(nearest), QUERIES_AT_ONCE):
        own = queries[start : start + QUERIES_AT_ONCE]
        cosines = x[own] @ x.T
        cosines[np.arange(len(own)), own] = -2
        nearest[start : start + len(own)] = cosines.max(axis=1)
    return nearest
