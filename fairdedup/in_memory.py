"""What `deduplicate()` computes on: a part for each cluster, and threads to map over parts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.arrays import as_labels
from fairdedup.core import kmeans
from fairdedup.core.fast_arithmetic import limit_product_threads
from fairdedup.core.keep_fraction import count_kept
from fairdedup.core.model import Cluster, EarlierKept, Options
from fairdedup.core.part import Visitors
from fairdedup.core.reach import Visits, assign_and_find_nearby, find_nearby, reach_limits
from fairdedup.core.within import codes_or_zeros
from fairdedup.row_inputs import RowInputs

BLOCK = 1 << 14  # visitors of a cluster that are copied at a time


@dataclass(frozen=True)
class Across:
    """Which rows of other clusters reach one cluster.

    Attributes
    ----------
    visits : Visits
        Those to all clusters; rows are positions among the valid rows.
    place : int
        Place of the cluster's centroid among all centroids.
    """

    visits: Visits
    place: int


@dataclass
class ClusterInMemory:
    """A `Part` in memory that has one cluster.

    Attributes
    ----------
    given : RowInputs
        Rows of all clusters.
    number : int
        Number of the cluster.
    members : ndarray of shape (m,), int64
        Rows of the cluster, as positions among the valid rows.
    centroid : ndarray of shape (d,), float16
        Unit vector.
    index : int
        Place of the part among all parts.
    across : Across or None
        Which rows of other clusters reach this one; None if rows are compared within clusters only.
    memo : dict
        Cache that a pass leaves for the next one.
    saved : dict
        What steps have left for later steps, by name.
    """

    given: RowInputs
    number: int
    members: NDArray[np.int64]
    centroid: NDArray[np.float16]
    index: int = 0
    across: Across | None = None
    memo: dict[Any, Any] = field(default_factory=dict)
    saved: dict[str, Mapping[str, NDArray[Any]]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.members)

    def clusters(self) -> Iterator[Cluster]:
        """Yield the cluster."""
        given, rows = self.given, self.given.rows[self.members]
        yield Cluster(
            self.number,
            rows,
            given.unit[self.members],
            self.centroid,
            None if given.protected is None else given.protected[rows],
            None if given.values is None else given.values[rows],
            within=given.codes(rows),
        )

    def visitors(self, cluster: int, flags: NDArray[np.uint8], wanted: int, eps: int) -> Iterator[Visitors]:
        """Yield the rows that reach the cluster at an eps and have any of the wanted flags, a block at a time."""
        if self.across is None:
            return
        places, needed = self.across.visits.to(self.across.place)
        rows = self.given.rows[places]
        chosen = np.flatnonzero((needed <= eps) & ((flags[rows] & wanted) > 0))
        for start in range(0, len(chosen), BLOCK):
            own = chosen[start : start + BLOCK]
            yield Visitors(rows[own], self.given.unit[places[own]], needed[own], self.given.codes(rows[own]))

    def clusters_with_earlier(self) -> list[int]:
        """Return no cluster: there are no earlier runs."""
        return []

    def earlier(self, cluster: int) -> EarlierKept:
        """Fail: there are no earlier runs."""
        raise KeyError(cluster)

    def earlier_visitors(self, cluster: int) -> Iterator[EarlierKept]:
        """Yield nothing: there are no earlier runs."""
        return iter(())

    def save(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep arrays for a later step."""
        self.saved[name] = arrays

    def load(self, name: str) -> Mapping[str, NDArray[Any]] | None:
        """Return the arrays of a name; None if there are none."""
        return self.saved.get(name)


class SharedArray(NamedTuple):
    """An array that every step reads."""

    array: NDArray[Any]

    def read(self) -> NDArray[Any]:
        """Return the array."""
        return self.array


class WorkspaceInMemory(NamedTuple):
    """A `Workspace` in memory, of parts that know all their visits."""

    parts: Sequence[ClusterInMemory]

    @property
    def input(self) -> int:
        """Number of rows of the input."""
        return len(self.parts[0].given.names)

    def share(self, array: NDArray[Any]) -> SharedArray:
        """Return an array as tasks read it."""
        return SharedArray(array)

    def list_visits(self, eps: int) -> None:
        """Do nothing: the parts have them."""

    def forget(self, prefix: str) -> None:
        """Remove what parts have saved under names that begin like this."""
        for part in self.parts:
            for name in [name for name in part.saved if name.startswith(prefix)]:
                del part.saved[name]


class Threads:
    """A `MapParts` in `workers` threads, the largest cluster first. Each matrix product takes one of them."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def __call__(
        self,
        step: str,
        function: Callable[..., Any],
        parts: Sequence[ClusterInMemory],
        *args: Any,
        own: Sequence[Any] | None = None,
    ) -> list[Any]:
        """Return ``function(part, *args)`` of each part, in the order of the parts."""
        given = [args if own is None else (own[k], *args) for k in range(len(parts))]
        if len(parts) < 2 * self.workers or self.workers == 1:
            return [function(part, *arguments) for part, arguments in zip(parts, given, strict=True)]
        order = sorted(range(len(parts)), key=lambda k: -parts[k].rows)
        with limit_product_threads(), ThreadPoolExecutor(self.workers) as pool:
            # Each in a context of its own: the device that is used belongs to the context.
            futures = {k: pool.submit(copy_context().run, function, parts[k], *given[k]) for k in order}
            return [futures[k].result() for k in range(len(parts))]


def count_unprotected(part: ClusterInMemory) -> int:
    """Return how many values there are in the cluster without a row that is always kept; without `within` it has one.

    Parameters
    ----------
    part : ClusterInMemory
        Part of one cluster.
    """
    given = part.given
    rows = given.rows[part.members]
    codes = codes_or_zeros(given.codes(rows), len(rows))
    protected = codes[given.protected[rows]] if given.protected is not None else codes[:0]
    return len(np.setdiff1d(codes, protected))


def are_labels(clusters: Any) -> bool:
    """Tell whether an argument is a clustering, and not the number of clusters to make."""
    return not isinstance(clusters, (str, int, np.integer))


def make_parts(
    given: RowInputs, clusters: Any, options: Options, device: str, kept: float | None = None
) -> list[ClusterInMemory]:
    """Return a part for each cluster of the valid rows.

    Parameters
    ----------
    given : RowInputs
        The rows.
    clusters : int, "auto" or array-like of shape (n,)
        Number of clusters, or the label of each row.
    options : Options
        Options of the decision: the seed of the clustering, and whether rows are compared across clusters.
    device : {"auto", "cpu", "cuda"}
        Device on which k-means trains and products are computed.
    kept : float, optional
        Fraction of the valid rows that is kept, for the message about too many clusters.

    Raises
    ------
    UserError
        If the number of clusters or the labels do not fit the rows.
    """
    rows, unit, seed = given.rows, given.unit, options.seed
    if not len(rows):
        return []
    if not are_labels(clusters):
        k = kmeans.check_clusters(clusters, len(rows), count_kept(kept, len(rows)))
        sample = np.searchsorted(rows, kmeans.training_rows([rows], k, seed))
        centroids = kmeans.unit_centroids(kmeans.train(unit[sample], k, seed, os.cpu_count() or 1, device))
        if options.looks_across:
            labels, nearby = assign_and_find_nearby(unit, centroids, options.reach_clusters)
        else:
            labels = kmeans.assign(unit, centroids)
        numbers = np.unique(labels)
        places = numbers  # of the centroids, of which some may have no row
    else:
        labels = as_labels(clusters, len(given.names))[rows]
        numbers = np.unique(labels)
        centroids, places = kmeans.centroids_of_labels(unit, labels, numbers), np.arange(len(numbers))
        if options.looks_across:
            nearby = find_nearby(unit, np.searchsorted(numbers, labels), centroids, options.reach_clusters)
    visits = None
    if options.looks_across:
        visits = Visits.of(nearby, reach_limits(options.reach, unit.shape[1]), len(centroids))
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], numbers)
    return [
        ClusterInMemory(
            given,
            int(numbers[k]),
            members,
            centroids[places[k]],
            index=k,
            across=None if visits is None else Across(visits, int(places[k])),
        )
        for k, members in enumerate(np.split(order, bounds[1:]))
    ]
