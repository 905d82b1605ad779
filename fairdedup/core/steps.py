"""What is done to one part of a clustered data set: count what an eps would keep, and decide every row.

Pure functions of a part; they travel to Dask workers, so they stay at module level. Nothing here knows other parts
than through the Plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.core import prototypes as pt
from fairdedup.core.chain import most_similar_earlier
from fairdedup.core.cover import closest_kept_pair_is_distinct, cover_sweep, graph
from fairdedup.core.rules import Balanced, FairDeDup, RandomNeighbour, Rule, SemDeDup, choose
from fairdedup.core.similarity import (
    EPS_UNIT,
    MAX_EPS,
    Vectors,
    cosine_of_pairs,
    cosine_to_one,
    eps_needed,
    quantised,
)
from fairdedup.core.survey import Cluster, Part, Plan, memberships
from fairdedup.core.sweep import Sweep, sweep, visiting_order

COLUMNS = (
    "row", "cluster", "neighbourhood", "kept", "representative", "similarity", "centroid_similarity",
)  # fmt: skip


@dataclass
class Decided:
    """The decisions of one part, before anything is re-admitted.

    Attributes
    ----------
    columns : dict of ndarrays of shape (n,)
        Those of `COLUMNS`. `representative` is -1 and `similarity` NaN where a removed row has no representative
        (`random`); a kept row is its own, with similarity 1.
    memberships : list of ndarray of shape (n, c), int64
        In units of 1e-9 (`balanced`).
    distinct, represented : bool
        No two kept samples of a cluster are duplicates; every removed one has a kept representative nearer than eps.
    """

    columns: dict[str, NDArray[Any]]
    memberships: list[NDArray[np.int64]]
    distinct: bool
    represented: bool


@dataclass(frozen=True)
class _Arranged:
    """One cluster in visiting order."""

    number: int
    rows: NDArray[np.int64]
    vectors: Vectors
    centroid_similarity: NDArray[np.float64]


def _arrange(cluster: Cluster) -> _Arranged:
    vectors = Vectors.of(cluster.unit)
    centroid = Vectors.of(cluster.centroid[None])
    similarity = cosine_to_one(vectors.x, vectors.squares, centroid.x[0], centroid.squares[0])
    order = visiting_order(similarity, cluster.rows)
    return _Arranged(cluster.number, cluster.rows[order], vectors.take(order), similarity[order])


def _price(soft: list[NDArray[np.int64]], plan: Plan) -> NDArray[np.int64]:
    return pt.price(soft, list(plan.weights), list(plan.means), list(plan.stds))


def _rule(vectors: Vectors, plan: Plan, soft: list[NDArray[np.int64]] | None = None) -> Rule:
    """Return the rule of a cluster; `soft` are its memberships where they are known already."""
    options = plan.options
    if options.rule == "semdedup":
        return SemDeDup()
    if options.rule == "random-neighbour":
        return RandomNeighbour(options.seed)
    if options.rule == "balanced":
        return Balanced(_price(soft or memberships(vectors, plan), plan))
    assert plan.prototypes is not None
    similarity = np.concatenate(plan.prototypes.similarity(vectors, absent=False), axis=1)
    if plan.moments is not None:
        similarity = pt.standardised(similarity, plan.moments)
    return FairDeDup(quantised(similarity), options.start)


def list_rows(part: Part) -> NDArray[np.int64]:
    """Return the rows of a part."""
    return np.concatenate([c.rows for c in part.clusters()])


def count_kept(part: Part, eps: list[int], plan: Plan) -> NDArray[np.int64]:
    """Return how many rows of a part are kept at each eps."""
    total = np.zeros(len(eps), np.int64)
    if plan.options.rule == "semdedup-chain":
        needed = part.memo.get("chain")
        if needed is None:
            needed = part.memo["chain"] = np.sort(np.concatenate([_chain(_arrange(c))[2] for c in part.clusters()]))
        return len(needed) - np.searchsorted(needed, eps, side="right")
    sweeps: dict[int, Sweep] = {}
    for cluster in part.clusters():
        arranged = _arrange(cluster)
        if plan.options.cover:
            pairs = graph(arranged.vectors, max(eps))
            preference = _rule(arranged.vectors, plan).preference(arranged.rows)
            for k, e in enumerate(eps):
                _, keeper = cover_sweep(arranged.vectors, arranged.rows, e, preference, pairs)
                total[k] += np.count_nonzero(keeper == np.arange(len(keeper)))
        else:
            sweeps[cluster.number] = sweep(arranged.vectors, eps)
            total += sweeps[cluster.number].counts()
    part.memo["sweeps"] = sweeps
    return total


def _chain(arranged: _Arranged) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.int64]]:
    """Return the most similar earlier row, its similarity, and the least eps at which the row goes."""
    earlier, similarity = most_similar_earlier(arranged.vectors, arranged.rows)
    needed = np.array([eps_needed(s) for s in similarity[1:].tolist()], np.int64)
    return earlier, similarity, np.concatenate(([np.int64(MAX_EPS + 1)], needed))


def decide_part(part: Part, eps: int, plan: Plan, kept_rows: NDArray[np.int64] | None) -> Decided:
    """Decide every row of a part at one eps; `random` brings the rows that it keeps instead."""
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in COLUMNS}
    soft: list[list[NDArray[np.int64]]] = []
    distinct = represented = True
    threshold = 1.0 - eps / EPS_UNIT
    for cluster in part.clusters():
        arranged = _arrange(cluster)
        n, rows, vectors = len(arranged.rows), arranged.rows, arranged.vectors
        places = np.arange(n)
        own = memberships(vectors, plan) if plan.options.rule == "balanced" else []
        if kept_rows is not None:
            leader, keeper = places, np.where(np.isin(rows, kept_rows), places, -1)
        elif plan.options.rule == "semdedup-chain":
            leader, keeper = _decide_chain(arranged, eps)
        elif plan.options.cover:
            pairs = graph(vectors, eps)
            found = cover_sweep(vectors, rows, eps, _rule(vectors, plan, own).preference(rows), pairs)
            leader, keeper = found[0].astype(np.int64), found[1].astype(np.int64)
        else:
            known = part.memo.get("sweeps", {}).get(cluster.number)
            if known is None or eps not in known.eps:
                known = sweep(vectors, [eps])
            groups = known.neighbourhoods(eps)
            chosen = choose(groups, _rule(vectors, plan, own).preference(rows), vectors, rows)
            step = groups.step_of_member()
            leader, keeper = np.empty(n, np.int64), np.empty(n, np.int64)
            leader[groups.members], keeper[groups.members] = groups.leaders[step], chosen[step]
        kept = keeper == places
        similarity = np.where(kept, 1.0, np.nan)
        removed = np.flatnonzero(~kept & (keeper >= 0))
        similarity[removed] = cosine_of_pairs(vectors.x, vectors.squares, removed, keeper[removed])
        with np.errstate(invalid="ignore"):
            represented &= bool(np.all(kept | ((similarity > threshold) & kept[keeper] & (keeper >= 0))))
        distinct = distinct and closest_kept_pair_is_distinct(vectors.take(np.flatnonzero(kept)), eps)
        by_row = np.argsort(rows)
        values: tuple[NDArray[Any], ...] = (
            rows, np.full(n, cluster.number, np.int64), rows[leader], kept, np.where(keeper >= 0, rows[keeper], -1),
            similarity, arranged.centroid_similarity,
        )  # fmt: skip
        for name, value in zip(COLUMNS, values, strict=True):
            columns[name].append(value[by_row])
        if own:
            soft.append([q[by_row] for q in own])
    return Decided(
        {name: np.concatenate(values) for name, values in columns.items()},
        [np.concatenate(q) for q in zip(*soft, strict=True)],
        distinct,
        represented,
    )


def _decide_chain(arranged: _Arranged, eps: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first of each row's chain, and each row's representative (itself where it is kept)."""
    earlier, _, needed = _chain(arranged)
    places = np.arange(len(earlier))
    keeper = np.where(needed <= eps, earlier, places)
    leader = keeper
    while not np.array_equal(leader[leader], leader):  # representatives come earlier: halving ends at the first
        leader = leader[leader]
    return leader, keeper
