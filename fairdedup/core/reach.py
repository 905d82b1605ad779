"""Reach: near which other clusters a row lies, so that duplicates in different clusters can be found.

A row's gap to a cluster is its quantised cosine to its own centroid less that to the other centroid, in millionths. It
reaches the cluster at an eps if the gap is at most a limit and the cluster is among the most similar ones. This module
never compares two rows. The published methods have nothing like it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.compiled import njit
from fairdedup.core.similarity import MAX_EPS, QUANTUM, Vectors, cosine, margin
from fairdedup.errors import UserError

AUTOMATIC = 4.0  # standard deviations of a random component of a vector at distance eps
REACH_CLUSTERS = 16
NEVER = MAX_EPS + 1  # in place of the least eps at which a row reaches a cluster
_PRODUCTS = 1 << 22  # products with centroids that are in memory at a time


def check_reach(reach: Any, reach_clusters: Any) -> None:
    """Refuse options that are out of range.

    Parameters
    ----------
    reach : "auto" or float
        Largest gap, as a cosine; 0 means never across clusters.
    reach_clusters : int
        Number of most similar clusters that a row can reach, its own included.

    Raises
    ------
    UserError
        If one of them is not a value that it can have.
    """
    number = isinstance(reach, Real) and not isinstance(reach, bool)
    if reach != "auto" and not (number and 0 <= float(reach) <= 2):
        raise UserError(f"`reach` must be auto, or a number in [0, 2]; got {reach!r}: give auto, or 0 for one cluster")
    if not isinstance(reach_clusters, (int, np.integer)) or isinstance(reach_clusters, bool) or reach_clusters < 1:
        raise UserError(f"`reach_clusters` must be a whole number of 1 or more; got {reach_clusters!r}: give 16")


def reach_limits(reach: str | float, dimension: int) -> NDArray[np.int64]:
    """Return the largest gap, in millionths, at each eps: ascending, of shape (20002,).

    Parameters
    ----------
    reach : "auto" or float above 0
        The option.
    dimension : int
        Length of a vector, for "auto".
    """
    eps = np.arange(MAX_EPS + 1)
    if reach == "auto":
        return np.rint(QUANTUM * AUTOMATIC * np.sqrt(eps / 10_000 / dimension)).astype(np.int64)
    return np.full(len(eps), round_half_even(QUANTUM * float(reach)), np.int64)


def round_half_even(value: float) -> int:
    """Return the nearest whole number, halves to even."""
    return int(np.rint(value)) if math.isfinite(value) else 0


class Nearby(NamedTuple):
    """The clusters that rows may reach, most similar first.

    Attributes
    ----------
    clusters : ndarray of shape (n, r), int32
        Places of the centroids; -1 behind the last.
    gaps : ndarray of shape (n, r), int32
        Gap to each, in millionths. Negative where a centroid is nearer than the row's own, as with given labels.
    """

    clusters: NDArray[np.int32]
    gaps: NDArray[np.int32]


class _Arrays(NamedTuple):
    """Arrays of `Vectors`, for compiled code."""

    x: NDArray[np.float32]
    squares: NDArray[np.float64]


@njit
def _quantise(similarity):  # type: ignore[no-untyped-def]
    return np.int64(np.rint(1_000_000.0 * similarity))


@njit
def _find_most_similar(i, approx, slack, queries, others):  # type: ignore[no-untyped-def]
    """Return the exactly most similar centroid of row i; ties go to the lower number."""
    largest = -np.inf
    for c in range(approx.shape[1]):
        largest = max(largest, approx[i, c])
    chosen, similarity = -1, -2.0
    for c in range(approx.shape[1]):
        if approx[i, c] >= largest - slack:
            exact = cosine(queries.x[i], others.x[c], queries.squares[i], others.squares[c])
            if exact > similarity:
                chosen, similarity = c, exact
    return chosen


@njit
def _settle_nearest(approx, own, slack, queries, others, clusters, gaps):  # type: ignore[no-untyped-def]
    """Choose each row's most similar centroids but its own, exactly, among those whose float32 product is near.

    Where a row's own is -1, it is the most similar one; ties go to the lower number.
    """
    x, squares = queries
    other, other_squares = others
    most = clusters.shape[1]
    top, best, places = np.empty(most), np.empty(most, np.int64), np.empty(most, np.int64)
    for i in range(approx.shape[0]):
        if own[i] < 0:
            own[i] = _find_most_similar(i, approx, slack, queries, others)
        if most == 0:
            continue
        top[:] = -np.inf
        for c in range(approx.shape[1]):
            value = approx[i, c]
            if c == own[i] or value <= top[most - 1]:
                continue
            k = most - 1
            while k > 0 and top[k - 1] < value:
                top[k] = top[k - 1]
                k -= 1
            top[k] = value
        found = 0
        for c in range(approx.shape[1]):
            if c == own[i] or approx[i, c] < top[most - 1] - slack:
                continue
            value = _quantise(cosine(x[i], other[c], squares[i], other_squares[c]))
            if found == most and value <= best[most - 1]:
                continue  # ties go to the lower number
            k = min(found, most - 1)
            while k > 0 and best[k - 1] < value:
                best[k], places[k] = best[k - 1], places[k - 1]
                k -= 1
            best[k], places[k] = value, c
            found = min(found + 1, most)
        home = _quantise(cosine(x[i], other[own[i]], squares[i], other_squares[own[i]]))
        for k in range(most):
            clusters[i, k] = places[k] if k < found else -1
            gaps[i, k] = home - best[k] if k < found else 0


def find_nearby(
    unit: NDArray[np.float16], own: NDArray[np.int64], centroids: NDArray[np.float16], reach_clusters: int
) -> Nearby:
    """Find the clusters that each row may reach, and its gaps to them.

    Parameters
    ----------
    unit : ndarray of shape (n, d), float16
        Unit vectors of the rows.
    own : ndarray of shape (n,), int64
        Place of each row's own centroid.
    centroids : ndarray of shape (k, d), float16
        Unit vectors of all centroids; one may be zero.
    reach_clusters : int
        Number of clusters that a row can reach, its own included.

    Returns
    -------
    Nearby of n rows and min(reach_clusters, k) - 1 clusters
    """
    return _find(unit, own.copy(), centroids, reach_clusters)


def assign_and_find_nearby(
    unit: NDArray[np.float16], centroids: NDArray[np.float16], reach_clusters: int
) -> tuple[NDArray[np.int64], Nearby]:
    """Assign each row to its most similar centroid, as `kmeans.assign`, and find the clusters that it may reach.

    Parameters
    ----------
    unit : ndarray of shape (n, d), float16
        Unit vectors of the rows.
    centroids : ndarray of shape (k, d), float16
        Unit vectors of all centroids; one may be zero.
    reach_clusters : int
        Number of clusters that a row can reach, its own included.

    Returns
    -------
    labels : ndarray of shape (n,), int64, 0 to k - 1
    nearby : Nearby of n rows and min(reach_clusters, k) - 1 clusters
    """
    own = np.full(len(unit), -1)
    return own, _find(unit, own, centroids, reach_clusters)


def _find(
    unit: NDArray[np.float16], own: NDArray[np.int64], centroids: NDArray[np.float16], reach_clusters: int
) -> Nearby:
    """Return the clusters that each row may reach, and fill in its own where that is -1."""
    n, most = len(unit), min(reach_clusters, len(centroids)) - 1
    clusters, gaps = np.empty((n, most), np.int32), np.empty((n, most), np.int32)
    others = Vectors.of(centroids)
    lengths = np.sqrt(others.squares)
    scaled = others.x / np.where(lengths == 0, 1, lengths).astype(np.float32)[:, None]
    slack = 4 * margin(unit.shape[1]) + 2e-6  # the errors of two scaled products, and the rounding to millionths
    step = max(1, _PRODUCTS // len(centroids))
    for start in range(0, n, step):
        rows = slice(start, start + step)
        queries = Vectors.of(unit[rows])
        approx = (queries.x @ scaled.T) / np.sqrt(queries.squares).astype(np.float32)[:, None]
        _settle_nearest(
            approx,
            own[rows],
            slack,
            _Arrays(queries.x, queries.squares),
            _Arrays(others.x, others.squares),
            clusters[rows],
            gaps[rows],
        )
    return Nearby(clusters, gaps)


@dataclass(frozen=True)
class Visits:
    """Which rows reach each cluster from another one.

    Attributes
    ----------
    starts : ndarray of shape (k + 1,), int64
        Where the visits to each cluster begin.
    rows : ndarray of shape (m,), int64
        The row of each visit, as a place among all rows; ascending for each cluster.
    needed : ndarray of shape (m,), int16
        The least eps at which it reaches the cluster, in ten-thousandths.
    """

    starts: NDArray[np.int64]
    rows: NDArray[np.int64]
    needed: NDArray[np.int16]

    @classmethod
    def of(cls, nearby: Nearby, limits: NDArray[np.int64], clusters: int, most: int = MAX_EPS) -> Visits:
        """List the visits to each of some clusters.

        Parameters
        ----------
        nearby : Nearby of n rows
            The clusters that each row may reach.
        limits : ndarray of shape (20002,), int64
            What `reach_limits` returns.
        clusters : int
            Number of clusters.
        most : int
            Largest eps of interest, in ten-thousandths.
        """
        needed = np.searchsorted(limits, nearby.gaps)  # NEVER behind the last limit
        rows, places = np.nonzero((nearby.clusters >= 0) & (needed <= most))
        targets = nearby.clusters[rows, places]
        order = np.argsort(targets, kind="stable")
        starts = np.searchsorted(targets[order], np.arange(clusters + 1))
        return cls(starts, rows[order], needed[rows, places][order].astype(np.int16))

    def to(self, cluster: int) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
        """Return the rows that reach a cluster, and the least eps at which each does."""
        own = slice(self.starts[cluster], self.starts[cluster + 1])
        return self.rows[own], self.needed[own]
