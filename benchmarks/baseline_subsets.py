"""Three ways to choose samples that train_on_subsets.py compares the rules with, written anew from their papers.

Class densities by recall as in DRoP (arXiv 2404.05579, Algorithm 1), quotas of clusters by complexity as in DBP (arXiv
2401.04578, section 3), and equal shares of groups by their true labels, which no rule can know.
"""

from __future__ import annotations

import math

import numpy as np
from faces import scale_to_unit
from numpy.typing import NDArray

from fairdedup import deduplicate
from fairdedup.core.uncertainty import apportion

Integers = NDArray[np.integer]
NEAREST = 20  # centroids that a cluster's distance to others is averaged over (DBP)
TEMPERATURE = 0.1  # of the softmax over complexities (DBP)
DEDUPLICATED = 277 / 440  # what is left of DBP's data when its quotas apply: 277 of 440 million
ROUNDING = 1_000_000  # masses become whole numbers with six decimals


def count_by_recall(sizes: Integers, recalls: NDArray[np.floating], kept: int) -> NDArray[np.int64]:
    """Return how many samples of each class are kept: in proportion to its size times its error.

    What does not fit into a class is shared among the others in the same proportions. A class without an error counts
    as one whose error is a millionth, so that `kept` is always reached.

    Parameters
    ----------
    sizes : ndarray of shape (c,), int
        Samples of each class.
    recalls : ndarray of shape (c,), float
        Recall of each class on other samples, 0 to 1.
    kept : int
        Samples to keep.

    References
    ----------
    Vysogorets, Ahuja and Kempe 2025 (arXiv 2404.05579), Algorithm 1.
    """
    errors = np.maximum(np.rint((1 - np.asarray(recalls)) * ROUNDING).astype(np.int64), 1)
    return apportion(sizes.astype(np.int64) * errors, sizes.astype(np.int64), kept)


def draw_from_groups(groups: Integers, counts: Integers, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return a mask with a number of random samples of each group.

    Parameters
    ----------
    groups : ndarray of shape (n,), int
        Group of each sample, 0 to g - 1.
    counts : ndarray of shape (g,), int
        Samples to draw of each group.
    rng : numpy.random.Generator
        Source of randomness.
    """
    kept = np.zeros(len(groups), bool)
    for group, count in enumerate(counts.tolist()):
        kept[rng.permutation(np.flatnonzero(groups == group))[:count]] = True
    return kept


def draw_equal_shares(groups: Integers, subgroups: Integers, kept: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return a mask with as equal numbers of each group as there are samples, and the same of subgroups inside each.

    Parameters
    ----------
    groups, subgroups : ndarray of shape (n,), int
        Group of each sample, and its group by another attribute; both from 0.
    kept : int
        Samples to keep.
    rng : numpy.random.Generator
        Source of randomness.
    """
    sizes = np.bincount(groups)
    counts = apportion(np.ones(len(sizes), np.int64), sizes, kept)
    mask = np.zeros(len(groups), bool)
    for group, count in enumerate(counts.tolist()):
        rows = np.flatnonzero(groups == group)
        inner = np.bincount(subgroups[rows])
        mask[rows] = draw_from_groups(subgroups[rows], apportion(np.ones(len(inner), np.int64), inner, count), rng)
    return mask


def measure_complexity(
    x: NDArray[np.floating], clusters: Integers, nearest: int = NEAREST
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the complexity of each cluster, and the cosine distance of each sample to its centroid.

    The complexity is the mean cosine distance of the cluster's samples to its centroid, times the mean cosine distance
    of its centroid to the `nearest` other centroids.

    Parameters
    ----------
    x : ndarray of shape (n, d), unit rows
        Samples.
    clusters : ndarray of shape (n,), int
        Cluster of each sample, 0 to k - 1; none is empty.
    nearest : int
        Number of other centroids; fewer if there are not so many.
    """
    wide = x.astype(np.float64)
    sums = np.zeros((int(clusters.max()) + 1, wide.shape[1]))
    np.add.at(sums, clusters, wide)
    centroids = scale_to_unit(sums)
    distances = 1 - (wide * centroids[clusters]).sum(axis=1)
    within = np.bincount(clusters, distances) / np.bincount(clusters)
    between = 1 - centroids @ centroids.T
    np.fill_diagonal(between, np.inf)
    among = min(nearest, len(centroids) - 1)
    others = np.sort(between, axis=1)[:, :among].mean(axis=1) if among else np.ones(1)
    return within * others, distances


def quotas_by_complexity(
    sizes: Integers, complexity: NDArray[np.floating], kept: int, temperature: float = TEMPERATURE
) -> NDArray[np.int64]:
    """Return how many samples of each cluster are kept: nearest to a softmax of complexities, 1 to all samples of each.

    The quotas x minimise the squared distance to kept * softmax(complexity / temperature) where their sum is `kept`
    and 1 <= x <= size. That is a shift of all by one number, clipped, which bisection finds. Largest remainders round
    it.

    Parameters
    ----------
    sizes : ndarray of shape (k,), int
        Samples of each cluster, 1 or more.
    complexity : ndarray of shape (k,), float
        Complexity of each cluster.
    kept : int
        Samples to keep, from k to all.
    temperature : float
        Temperature of the softmax.

    References
    ----------
    Abbas et al. 2024 (arXiv 2401.04578), section 3.
    """
    if not len(sizes) <= kept <= sizes.sum():
        raise ValueError(f"kept is {kept}: it must be {len(sizes)} (one of each cluster) to {sizes.sum()} (all)")
    shares = np.exp((complexity - complexity.max()) / temperature)
    wanted = kept * shares / shares.sum()
    low, high = -float(wanted.max()) - 1, float(sizes.max()) + 1
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if np.clip(wanted + middle, 1, sizes).sum() > kept else (middle, high)
    exact = np.clip(wanted + low, 1, sizes)
    quotas = np.floor(exact + 1e-9).astype(np.int64)
    order = np.lexsort((np.arange(len(sizes)), -(exact - quotas)))
    room = [k for k in order.tolist() if quotas[k] < sizes[k]]
    quotas[room[: kept - int(quotas.sum())]] += 1
    return quotas


def prune_by_complexity(vectors: NDArray[np.floating], kept: int, seed: int) -> NDArray[np.bool_]:
    """Return what DBP keeps: SemDeDup first, then of each cluster its quota of the samples farthest from the centroid.

    Parameters
    ----------
    vectors : ndarray of shape (n, d)
        Samples.
    kept : int
        Samples to keep.
    seed : int
        Seed of the clusterings.
    """
    first = deduplicate(
        vectors, keep=max(DEDUPLICATED, kept / len(vectors)), rule="semdedup", published=True, seed=seed, leftover=0
    )
    rows = np.flatnonzero(first.decisions["kept"].to_numpy())
    number = math.isqrt(len(rows))
    again = deduplicate(vectors[rows], keep=1.0, rule="random", clusters=number, seed=seed, leftover=0)
    clusters = np.unique(again.decisions["cluster"].to_numpy(), return_inverse=True)[1]
    complexity, distances = measure_complexity(scale_to_unit(vectors[rows]), clusters)
    quotas = quotas_by_complexity(np.bincount(clusters), complexity, kept)
    mask = np.zeros(len(vectors), bool)
    for cluster, quota in enumerate(quotas.tolist()):
        own = np.flatnonzero(clusters == cluster)
        farthest = own[np.lexsort((own, -distances[own]))]
        mask[rows[farthest[:quota]]] = True
    return mask
