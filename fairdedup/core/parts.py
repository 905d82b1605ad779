"""What is done to one part of a clustered data set: count what an eps would keep, and decide every row.

Pure functions of a part; they travel to Dask workers, so they stay at module level. Nothing here knows other parts
than through the Plan.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.core import prototypes as pt
from fairdedup.core.chain import most_similar_earlier
from fairdedup.core.cover import closest_kept_pair_is_distinct, cover_sweep, graph
from fairdedup.core.leader_sweep import Sweep, sweep, visiting_order
from fairdedup.core.pinned import Beforehand, beforehand, spans
from fairdedup.core.rules import (
    Balanced,
    FairDeDup,
    Prefer,
    Preference,
    RandomNeighbour,
    Rule,
    SemDeDup,
    choose,
    row_hash,
)
from fairdedup.core.similarity import (
    BLOCK,
    EPS_UNIT,
    MAX_EPS,
    Vectors,
    cosine_of_pairs,
    cosine_to_one,
    eps_needed_by,
    quantised,
)
from fairdedup.core.survey import Cluster, Part, Plan, memberships

COLUMNS = (
    "row", "cluster", "neighbourhood", "kept", "representative", "similarity", "centroid_similarity",
)  # fmt: skip
EARLIER = "earlier"  # a column beside them: who of the earlier runs represents a row, -1 is none of them
NOBODY = (-1, -1)  # hash and row of the last that `random` draws, where the protected rows are all it keeps
RECORD = np.dtype([
    ("row", "<i8"), ("cluster", "<i8"), ("neighbourhood", "<i8"), ("kept", "?"), ("representative", "<i8"),
    ("similarity", "<f8"), ("centroid_similarity", "<f8"), (EARLIER, "<i8"),
])  # fmt: skip


@dataclass
class Decided:
    """The decisions of one part, before anything is re-admitted.

    Attributes
    ----------
    columns : dict of ndarrays of shape (n,)
        Those of `COLUMNS`, and `EARLIER`; empty where they have been stored. `representative` is -1 and `similarity`
        NaN where a removed row has no representative (`random`); a kept row is its own, with similarity 1. Where an
        earlier run's sample represents it, `representative` and `neighbourhood` are -1 and `EARLIER` is its name.
    removed : ndarray of shape (r,), int64
        The removed rows.
    similarity : ndarray of shape (r,), float64
        Of each removed row to its representative.
    memberships : list of ndarray of shape (r, c), int64
        Of the removed rows, in units of 1e-9 (`balanced`).
    orphans : ndarray of shape (o,), int64
        Removed rows without a kept representative nearer than eps.
    distinct : bool
        No two kept samples of a cluster are duplicates.
    """

    columns: dict[str, NDArray[Any]]
    removed: NDArray[np.int64]
    similarity: NDArray[np.float64]
    memberships: list[NDArray[np.int64]]
    orphans: NDArray[np.int64]
    distinct: bool


@dataclass(frozen=True)
class _Arranged:
    """One cluster in visiting order."""

    cluster: Cluster
    order: NDArray[np.int64]
    rows: NDArray[np.int64]
    vectors: Vectors
    centroid_similarity: NDArray[np.float64]
    before: Beforehand
    values: NDArray[np.int64] | None


def _arrange(cluster: Cluster, memo: dict[Any, Any]) -> _Arranged:
    similarity = _to_centroid(cluster)
    order = visiting_order(similarity, cluster.rows)
    rows, vectors = cluster.rows[order], Vectors.of(cluster.unit, order)
    before = memo.get(("before", cluster.number))
    if before is None:
        protected = np.zeros(len(rows), np.bool_) if cluster.protected is None else cluster.protected[order]
        before = beforehand(vectors, rows, protected, None if cluster.earlier is None else cluster.earlier.unit)
        if protected.any() or cluster.earlier is not None:
            memo["before", cluster.number] = before
    values = None if cluster.values is None else cluster.values[order]
    return _Arranged(cluster, order, rows, vectors, similarity[order], before, values)


def _to_centroid(cluster: Cluster) -> NDArray[np.float64]:
    """Return the cosine of each row to the centroid (n,); a large cluster is never widened twice at once."""
    centroid, similarity = Vectors.of(cluster.centroid[None]), np.empty(len(cluster.rows), np.float64)
    for start in range(0, len(similarity), BLOCK):
        block = Vectors.of(cluster.unit[start : start + BLOCK])
        similarity[start : start + BLOCK] = cosine_to_one(block.x, block.squares, centroid.x[0], centroid.squares[0])
    return similarity


def _soft(part: Part, arranged: _Arranged, plan: Plan) -> list[NDArray[np.int64]]:
    """Return the memberships of a cluster in visiting order."""
    return [q[arranged.order] for q in memberships(part, arranged.cluster, plan)]


def _rule(part: Part, arranged: _Arranged, plan: Plan) -> Rule:
    options = plan.options
    if options.rule == "semdedup":
        return SemDeDup()
    if options.rule == "random-neighbour":
        return RandomNeighbour(options.seed)
    if options.rule == "balanced":
        return Balanced(pt.price(_soft(part, arranged, plan), plan.terms))
    assert plan.prototypes is not None
    similarity = np.concatenate(plan.prototypes.similarity(arranged.vectors, absent=False), axis=1)
    if plan.moments is not None:
        similarity = plan.moments.standardised(similarity)
    return FairDeDup(quantised(similarity), options.start)


def _preference(part: Part, arranged: _Arranged, plan: Plan) -> Preference:
    """Return what a cluster's rule prefers, once the rows that are kept beforehand have been kept."""
    if plan.options.rule == "prefer":
        assert arranged.values is not None
        return Prefer(arranged.values).preference(arranged.rows)
    found, earlier = _rule(part, arranged, plan).preference(arranged.rows), arranged.cluster.earlier
    sums = found.sums
    if len(sums) and earlier is not None and earlier.sums is not None:
        sums = earlier.sums
    return replace(found, sums=sums + found.similarity[arranged.before.kept].sum(axis=0))


def list_rows(part: Part) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the rows of a part, and which of them are protected."""
    found = [(c.rows, np.zeros(len(c.rows), np.bool_) if c.protected is None else c.protected) for c in part.clusters()]
    return np.concatenate([rows for rows, _ in found]), np.concatenate([protected for _, protected in found])


def count_kept(part: Part, eps: list[int], plan: Plan) -> NDArray[np.int64]:
    """Return how many rows of a part are kept at each eps."""
    total = np.zeros(len(eps), np.int64)
    if plan.options.rule == "semdedup-chain":
        needed = part.memo.get("chain")
        if needed is None:
            found = [_chain(_arrange(c, part.memo))[2] for c in part.clusters()]
            needed = part.memo["chain"] = np.sort(np.concatenate(found))
        return len(needed) - np.searchsorted(needed, eps, side="right")
    sweeps: dict[int, Sweep] = {}
    for cluster in part.clusters():
        arranged = _arrange(cluster, part.memo)
        before = arranged.before
        if plan.options.cover:
            pairs = graph(arranged.vectors, max(eps))
            preference = _preference(part, arranged, plan)
            for k, e in enumerate(eps):
                _, keeper = cover_sweep(arranged.vectors, arranged.rows, e, preference, pairs, before)
                total[k] += np.count_nonzero(keeper == np.arange(len(keeper)))
        else:
            sweeps[cluster.number] = sweep(arranged.vectors, eps, before.needed)
            total += sweeps[cluster.number].counts() + np.count_nonzero(before.kept)
    part.memo["sweeps"] = sweeps
    return total


def _chain(arranged: _Arranged) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.int64]]:
    """Return the most similar earlier row, its similarity, and the least eps at which the row goes."""
    earlier, similarity = most_similar_earlier(arranged.vectors, arranged.rows)
    needed = np.append(np.int64(MAX_EPS + 1), eps_needed_by(similarity[1:]))
    return earlier, similarity, needed


def decide_part(part: Part, eps: int, plan: Plan, last: tuple[int, int] | None) -> Decided:
    """Decide every row of a part at one eps; `random` brings hash and row of the last that it draws instead."""
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in (*COLUMNS, EARLIER)}
    removed, similarities, soft, orphans = [], [], [], []
    distinct = True
    for cluster in part.clusters():
        arranged = _arrange(cluster, part.memo)
        rows, vectors, places = arranged.rows, arranged.vectors, np.arange(len(arranged.rows))
        leader, keeper = _represent(part, arranged, eps, plan, last)
        kept = keeper == places
        gone = np.flatnonzero(~kept)
        old = keeper >= len(rows)
        known = gone[(keeper[gone] >= 0) & ~old[gone]]
        similarity = np.where(kept, 1.0, np.nan)
        similarity[known] = cosine_of_pairs(vectors.x, vectors.squares, known, keeper[known])
        known = known[kept[keeper[known]]]
        names = np.full(len(rows), -1, np.int64)
        if old.any():
            assert cluster.earlier is not None
            of = keeper[old] - len(rows)
            similarity[old] = _cosines(cluster.unit[arranged.order[old]], cluster.earlier.unit[of])
            names[old] = cluster.earlier.names[of]
            known = np.concatenate((known, np.flatnonzero(old)))
        near = known[similarity[known] > 1.0 - eps / EPS_UNIT]
        distinct = distinct and _distinct(arranged, kept, eps)
        orphans.append(rows[np.setdiff1d(gone, near, assume_unique=True)])
        removed.append(rows[gone])
        similarities.append(similarity[gone])
        soft.append([q[gone] for q in _soft(part, arranged, plan)] if plan.options.rule == "balanced" else [])
        number = np.full(len(rows), cluster.number, np.int64)
        own = np.where(old, -1, keeper)
        representative = np.where(own >= 0, rows[own], -1)
        neighbourhood = np.where(old, -1, rows[np.where(old, 0, leader)])
        values = (
            rows, number, neighbourhood, kept, representative, similarity, arranged.centroid_similarity, names,
        )  # fmt: skip
        for name, value in zip(columns, values, strict=True):
            columns[name].append(value)
    return Decided(
        {name: np.concatenate(values) for name, values in columns.items()},
        np.concatenate(removed),
        np.concatenate(similarities),
        [np.concatenate(q) for q in zip(*soft, strict=True)],
        np.concatenate(orphans),
        distinct,
    )


def _cosines(a: NDArray[np.float16], b: NDArray[np.float16]) -> NDArray[np.float64]:
    """Return the cosine of each row of a (n, d) with the row of b (n, d) beside it."""
    both, places = Vectors.of(np.concatenate((a, b))), np.arange(len(a))
    return cosine_of_pairs(both.x, both.squares, places, len(a) + places)


def _distinct(arranged: _Arranged, kept: NDArray[np.bool_], eps: int) -> bool:
    """Tell whether no two kept samples of a cluster are duplicates, those of earlier runs among them."""
    judged, first = np.flatnonzero(kept & ~arranged.before.kept), np.flatnonzero(arranged.before.kept)
    if not closest_kept_pair_is_distinct(arranged.vectors.take(np.concatenate((judged, first))), eps, len(judged)):
        return False
    if arranged.cluster.earlier is None or not len(judged):
        return True
    own, earlier = arranged.cluster.unit[arranged.order[judged]], arranged.cluster.earlier.unit
    return all(
        closest_kept_pair_is_distinct(Vectors.of(np.concatenate((own, earlier[a:b]))), eps, len(judged))
        for a, b in spans(earlier)
    )


def _represent(
    part: Part, arranged: _Arranged, eps: int, plan: Plan, last: tuple[int, int] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the leader of each row's step and its representative, as places; -1 is none."""
    rows, vectors = arranged.rows, arranged.vectors
    places = np.arange(len(rows))
    if last is not None:
        drawn = row_hash(rows, plan.options.seed)
        kept = arranged.before.kept | (drawn < last[0]) | ((drawn == last[0]) & (rows <= last[1]))
        return places, np.where(kept, places, -1)
    if plan.options.rule == "semdedup-chain":
        return _decide_chain(arranged, eps)
    preference, before = _preference(part, arranged, plan), arranged.before
    if plan.options.cover:
        found = cover_sweep(vectors, rows, eps, preference, graph(vectors, eps), before)
        return found[0].astype(np.int64), found[1].astype(np.int64)
    known = part.memo.get("sweeps", {}).get(arranged.cluster.number)
    if known is None or eps not in known.eps:
        known = sweep(vectors, [eps], before.needed)
    groups = known.neighbourhoods(eps)
    chosen = choose(groups, preference, vectors, rows)
    step = groups.step_of_member()
    leader, keeper = before.keeper.copy(), before.keeper.copy()
    leader[groups.members], keeper[groups.members] = groups.leaders[step], chosen[step]
    return leader, keeper


def _decide_chain(arranged: _Arranged, eps: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first of each row's chain, and each row's representative (itself where it is kept)."""
    earlier, _, needed = _chain(arranged)
    places = np.arange(len(earlier))
    keeper = np.where(needed <= eps, earlier, places)
    leader = keeper
    while not np.array_equal(leader[leader], leader):  # representatives come earlier: halving ends at the first
        leader = leader[leader]
    return leader, keeper
