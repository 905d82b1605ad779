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
from fairdedup.core.nearest import VectorArrays, multiply_scaled, open_search, scale_to_length, split_rows
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


@njit
def _quantise(similarity):  # type: ignore[no-untyped-def]
    return np.int64(np.rint(1_000_000.0 * similarity))


class _Output(NamedTuple):
    """What is found for the rows of a block, and room for one row.

    Attributes
    ----------
    own : ndarray of shape (n,), int64
        Place of each row's own centroid; -1 where the most similar one is to be found.
    clusters, gaps : ndarrays of shape (n, r), int32
        As in `Nearby`.
    exact : ndarray of shape (k,), float64
        Cosines of a row to centroids.
    values, places : ndarrays of shape (r,), int64
        The most similar ones of a row: quantised cosines, and places.
    """

    own: NDArray[np.int64]
    clusters: NDArray[np.int32]
    gaps: NDArray[np.int32]
    exact: NDArray[np.float64]
    values: NDArray[np.int64]
    places: NDArray[np.int64]


@njit
def _settle_row(i, near, queries, others, out):  # type: ignore[no-untyped-def]
    """Choose row i's most similar centroids but its own, exactly, among those at some ascending places.

    Where its own is -1, it is the most similar one. Ties go to the lower number.
    """
    own, clusters, gaps, exact, values, places = out
    chosen, similarity = -1, -2.0
    for k in range(near.shape[0]):
        c = near[k]
        exact[k] = cosine(queries.x[i], others.x[c], queries.squares[i], others.squares[c])
        if exact[k] > similarity:
            chosen, similarity = c, exact[k]
    if own[i] < 0:
        own[i] = chosen
    most, found = clusters.shape[1], 0
    for k in range(near.shape[0]):
        if near[k] == own[i]:
            continue
        value = _quantise(exact[k])
        if found == most and (most == 0 or value <= values[most - 1]):
            continue
        place = min(found, most - 1)
        while place > 0 and values[place - 1] < value:
            values[place], places[place] = values[place - 1], places[place - 1]
            place -= 1
        values[place], places[place] = value, near[k]
        found = min(found + 1, most)
    home = _quantise(cosine(queries.x[i], others.x[own[i]], queries.squares[i], others.squares[own[i]]))
    for k in range(most):
        clusters[i, k] = places[k] if k < found else -1
        gaps[i, k] = home - values[k] if k < found else 0


@njit
def _settle_products(products, slack, queries, others, out):  # type: ignore[no-untyped-def]
    """Settle each row among the centroids whose product is near the largest ones; one more than are wanted."""
    most = out.clusters.shape[1] + 1
    top, near = np.empty(most), np.empty(products.shape[1], np.int32)
    for i in range(products.shape[0]):
        top[:] = -np.inf
        for c in range(products.shape[1]):
            value = products[i, c]
            if value <= top[most - 1]:
                continue
            k = most - 1
            while k > 0 and top[k - 1] < value:
                top[k] = top[k - 1]
                k -= 1
            top[k] = value
        found = 0
        for c in range(products.shape[1]):
            if products[i, c] >= top[most - 1] - slack:
                near[found] = c
                found += 1
        _settle_row(i, near[:found], queries, others, out)


@njit
def _settle_candidates(starts, columns, queries, others, out):  # type: ignore[no-untyped-def]
    """Settle each row among the centroids that a device has found."""
    for i in range(starts.shape[0] - 1):
        _settle_row(i, columns[starts[i] : starts[i + 1]], queries, others, out)


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
    room = np.empty(len(centroids)), np.empty(most, np.int64), np.empty(most, np.int64)
    others = Vectors.of(centroids)
    arrays = VectorArrays(others.x, others.squares)
    slack = 4 * margin(unit.shape[1]) + 2e-6  # the errors of two scaled products, and the rounding to millionths
    search = open_search(others, n)
    scaled = None if search is not None else scale_to_length(others)
    for rows in split_rows(n, _PRODUCTS // len(centroids) if search is None else search.step):
        vectors = Vectors.of(unit[rows])
        queries = VectorArrays(vectors.x, vectors.squares)
        out = _Output(own[rows], clusters[rows], gaps[rows], *room)
        if search is not None:
            found = search.find_near_best(*queries, most + 1, slack)
            _settle_candidates(found.starts(slice(0, len(vectors))), found.columns, queries, arrays, out)
            continue
        assert scaled is not None
        _settle_products(multiply_scaled(queries, scaled), slack, queries, arrays, out)
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
