"""Conflicts of one round: candidates of different clusters that are linked are swept together, as one cluster.

There is one such sweep in a round, over all candidates in conflict, because the sums of `fairdedup` go through all of
them. A process holds 2 d + about 100 bytes for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.arranged import ArrangedCluster
from fairdedup.core.cover import cover_sweep
from fairdedup.core.cross_links import Links
from fairdedup.core.leader_sweep import visiting_order
from fairdedup.core.model import Cluster, Plan
from fairdedup.core.pair_graph import Found, PairGraph, find_pairs, list_both_directions
from fairdedup.core.similarity import MAX_EPS
from fairdedup.core.swept import find_preference


class Cards(NamedTuple):
    """What a sweep needs of some rows of any clusters.

    Attributes
    ----------
    rows : ndarray of shape (n,), int64, ascending
    cluster : ndarray of shape (n,), int64
    unit : ndarray of shape (n, d), float16
    centroid_similarity : ndarray of shape (n,), float64
        Cosine of each to the centroid of its own cluster.
    values : ndarray of shape (n,), int64
        Values that the rule `prefer` compares; 0 without them.
    within : ndarray of shape (n,), int64
        Codes of the values within which rows are compared; 0 without them.
    """

    rows: NDArray[np.int64]
    cluster: NDArray[np.int64]
    unit: NDArray[np.float16]
    centroid_similarity: NDArray[np.float64]
    values: NDArray[np.int64]
    within: NDArray[np.int64]

    @classmethod
    def join(cls, parts: Sequence[Cards]) -> Cards:
        """Return the cards of several parts, rows ascending."""
        if not parts:
            nothing = np.zeros(0, np.int64)
            return cls(nothing, nothing, np.zeros((0, 0), np.float16), np.zeros(0), nothing, nothing)
        rows = np.concatenate([part.rows for part in parts])
        places = np.empty(len(rows), np.int64)
        places[np.argsort(rows)] = np.arange(len(rows))
        own = np.split(places, np.cumsum([len(part.rows) for part in parts])[:-1])
        joined = [np.empty((len(rows), *column.shape[1:]), column.dtype) for column in parts[0]]
        for part, there in zip(parts, own, strict=True):  # the vectors are many, so they are copied once
            for column, into in zip(part, joined, strict=True):
                into[there] = column
        return cls._make(joined)

    def take(self, rows: NDArray[np.int64]) -> Cards:
        """Return the cards of these rows."""
        places = np.searchsorted(self.rows, rows)
        return Cards._make(column[places] for column in self)


class Resolved(NamedTuple):
    """How the conflicts of a round ended.

    Attributes
    ----------
    rows, keepers, leaders : ndarrays of shape (n,), int64
        The candidates in conflict, rows ascending; the candidate that is kept for each, maybe itself; the leader of the
        step that visited it.
    """

    rows: NDArray[np.int64]
    keepers: NDArray[np.int64]
    leaders: NDArray[np.int64]

    @property
    def taken(self) -> NDArray[np.bool_]:
        """Mask of the candidates (n,) that are not kept."""
        return self.keepers != self.rows

    def take(self, places: NDArray[np.int64]) -> Resolved:
        """Return some of the candidates."""
        return Resolved._make(column[places] for column in self)


NOTHING_RESOLVED = Resolved(*(np.zeros(0, np.int64) for _ in range(3)))


@dataclass
class _Memo:
    """What stands in for a part: the candidates in conflict are of many."""

    memo: dict[Any, Any] = field(default_factory=dict)


def resolve_conflicts(cards: Cards, links: Links, eps: int, plan: Plan) -> Resolved:
    """Sweep the candidates in conflict, as one cluster.

    Parameters
    ----------
    cards : Cards of n rows
        The candidates in conflict.
    links : Links
        Pairs of them in different clusters that are linked at eps, each once.
    eps : int
        Ten-thousandths.
    plan : Plan
        What is known about the whole data set.
    """
    order = visiting_order(cards.centroid_similarity, cards.rows)
    rows, values, within = (column[order] for column in (cards.rows, cards.values, cards.within))
    zero = np.zeros(cards.unit.shape[1], np.float16)
    arranged = ArrangedCluster(
        _Memo(),  # type: ignore[arg-type]
        Cluster(-1, cards.rows, cards.unit, zero, values=cards.values),
        order,
        rows,
        cards.centroid_similarity[order],
        values,
        within,
    )
    graph = _link_all(arranged, cards, links, eps, distinct=plan.options.hands_over_duplicates)
    preference = find_preference(arranged, plan)
    leader, keeper = cover_sweep(
        arranged.vectors if preference.likeness_weight else None,
        rows,
        eps,
        preference,
        graph,
        own_only=plan.options.cover,
        within=within,
    )
    back = np.argsort(rows)
    return Resolved(cards.rows, rows[keeper[back]], rows[leader[back]])


def _link_all(arranged: ArrangedCluster, cards: Cards, links: Links, eps: int, *, distinct: bool) -> PairGraph:
    """Return the graph of the links, and of the duplicates within each cluster, by places in the visiting order.

    Parameters
    ----------
    arranged : ArrangedCluster
        The candidates in conflict.
    cards : Cards
        The same, by row.
    links : Links
        Pairs of them in different clusters.
    eps : int
        Ten-thousandths.
    distinct : bool
        Whether the candidates of one cluster are no duplicates of each other, as where both guarantees hold.
    """
    order = arranged.order
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    pairs = [(place[np.searchsorted(cards.rows, rows)]) for rows in (links.first, links.second)]
    first, second, needed = [pairs[0]], [pairs[1]], [links.needed]
    clusters = cards.cluster[order]
    by_cluster = np.argsort(np.zeros(0) if distinct else clusters, kind="stable")
    bounds = np.flatnonzero(np.diff(clusters[by_cluster])) + 1
    for own in np.split(by_cluster, bounds):
        alone = len(own) < 2
        graph = None if alone else find_pairs(arranged.vectors.take(own), eps, within=cards.within[order[own]])
        if graph is not None and len(graph.pairs.neighbours):
            a = np.repeat(np.arange(len(own)), np.diff(graph.pairs.starts))
            b = graph.pairs.neighbours.astype(np.int64)
            once = a < b
            first.append(own[a[once]])
            second.append(own[b[once]])
            needed.append(graph.pairs.needed[once].astype(np.int64))
    joined = [np.concatenate(column) for column in (first, second, needed)]
    found = Found(joined[0].astype(np.int32), joined[1].astype(np.int32), joined[2].astype(np.int16))
    return PairGraph(min(eps, MAX_EPS), list_both_directions(len(order), found))
