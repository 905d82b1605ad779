"""Functions of one part of a clustered data set: count the rows that each eps keeps, and decide every row.

They are pure, and at module level, since they are pickled for worker processes. What they know about the rest of the
data set is in the Plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.arranged import ArrangedCluster, arrange
from fairdedup.core.decision_columns import DECIDED, EARLIER
from fairdedup.core.model import Plan
from fairdedup.core.pair_graph import are_distinct
from fairdedup.core.part import Part
from fairdedup.core.pinned import split_blocks
from fairdedup.core.procedures import STEPS
from fairdedup.core.rules.base import Representatives
from fairdedup.core.similarity import EPS_UNIT, Vectors, cosine_of_pairs


@dataclass
class Decided:
    """The decisions of one part, before anything is re-admitted.

    Attributes
    ----------
    columns : dict of ndarrays of shape (n,)
        The columns `DECIDED` and `EARLIER`; empty once they have been stored. A kept row represents itself, with
        similarity 1. If a removed row has no representative, `representative` is -1 and `similarity` NaN. If a sample
        of an earlier run represents it, `representative` and `neighbourhood` are -1 and `EARLIER` is the sample's name.
    removed : ndarray of shape (r,), int64
        The removed rows.
    similarity : ndarray of shape (r,), float64
        Cosine of each removed row to its representative.
    memberships : list of ndarray of shape (r, c), int64
        Memberships of the removed rows in units of 1e-9, for a rule that reserves seats.
    orphans : ndarray of shape (o,), int64
        Removed rows that have no kept representative with a cosine above 1 - eps.
    distinct : bool
        Whether no two kept samples of a cluster are duplicates.
    """

    columns: dict[str, NDArray[Any]]
    removed: NDArray[np.int64]
    similarity: NDArray[np.float64]
    memberships: list[NDArray[np.int64]]
    orphans: NDArray[np.int64]
    distinct: bool


def list_rows(part: Part) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the rows of a part, and the mask of the protected ones.

    Parameters
    ----------
    part : Part
        At least one cluster.

    Returns
    -------
    rows : ndarray of shape (n,), int64
        Positions in the input, cluster after cluster.
    protected : ndarray of shape (n,), bool
        Mask of the protected rows.
    """
    found = [(cluster.rows, cluster.is_protected) for cluster in part.clusters()]
    return np.concatenate([rows for rows, _ in found]), np.concatenate([protected for _, protected in found])


def count_kept(part: Part, eps: list[int], plan: Plan) -> NDArray[np.int64]:
    """Return how many rows of a part the rule keeps at each eps.

    Parameters
    ----------
    part : Part
        Some clusters.
    eps : list of 1 to 64 int, ascending
        Ten-thousandths.
    plan : Plan
        What is known about the whole data set.

    Returns
    -------
    kept : ndarray of shape (len(eps),), int64
        Number of kept rows at each eps.

    Raises
    ------
    ValueError
        If the rule has no eps.
    """
    count = STEPS[plan.options.rule.procedure].count
    if count is None:
        raise ValueError(f"rule {plan.options.rule.name!r} keeps the same rows at every eps: there is nothing to count")
    return count(part, eps, plan)


def decide_part(part: Part, eps: int, plan: Plan) -> Decided:
    """Decide every row of a part.

    Parameters
    ----------
    part : Part
        At least one cluster.
    eps : int
        Ten-thousandths; ignored by a rule without eps, which reads `plan.last_drawn`.
    plan : Plan
        What is known about the whole data set.
    """
    found, distinct = [], True
    for cluster in part.clusters():
        arranged = arrange(part, cluster)
        found.append(_decide_cluster(arranged, eps, plan))
        distinct = distinct and are_kept_distinct(arranged, found[-1].columns["kept"], eps)
    return join_decided(found, distinct=distinct)


def join_decided(found: Sequence[Decided], *, distinct: bool) -> Decided:
    """Return the decisions of a part from those of its clusters.

    Parameters
    ----------
    found : sequence of Decided
        At least one.
    distinct : bool
        Whether no two kept samples of a cluster are duplicates.
    """
    return Decided(
        {name: np.concatenate([each.columns[name] for each in found]) for name in (*DECIDED, EARLIER)},
        np.concatenate([each.removed for each in found]),
        np.concatenate([each.similarity for each in found]),
        [np.concatenate(q) for q in zip(*(each.memberships for each in found), strict=True)],
        np.concatenate([each.orphans for each in found]),
        distinct,
    )


def _decide_cluster(cluster: ArrangedCluster, eps: int, plan: Plan) -> Decided:
    rows = cluster.rows
    found = STEPS[plan.options.rule.procedure].represent(cluster, eps, plan)
    kept = found.keeper == np.arange(len(rows))
    removed = np.flatnonzero(~kept)
    similarity, names = _compare_with_representatives(cluster, found, kept)
    old = found.keeper >= len(rows)
    represented = removed[(found.keeper[removed] >= 0) & ~old[removed]]
    represented = np.concatenate((represented[kept[found.keeper[represented]]], np.flatnonzero(old)))
    near = represented[similarity[represented] > 1.0 - eps / EPS_UNIT]
    own = np.where(old, -1, found.keeper)
    return build_decided(
        cluster,
        plan,
        kept=kept,
        neighbourhood=np.where(old, -1, rows[np.where(old, 0, found.leader)]),
        representative=np.where(own >= 0, rows[own], -1),
        similarity=similarity,
        near=near,
        names=names,
    )


def build_decided(
    cluster: ArrangedCluster,
    plan: Plan,
    *,
    kept: NDArray[np.bool_],
    neighbourhood: NDArray[np.int64],
    representative: NDArray[np.int64],
    similarity: NDArray[np.float64],
    near: NDArray[np.int64],
    names: NDArray[np.int64] | None = None,
) -> Decided:
    """Return the decisions of a cluster.

    Parameters
    ----------
    cluster : ArrangedCluster
        The n rows in visiting order.
    plan : Plan
        What is known about the whole data set.
    kept, neighbourhood, representative, similarity : ndarrays of shape (n,)
        The columns of these names.
    near : ndarray of shape (m,), int64
        Places of the removed rows that have a kept representative with a cosine above 1 - eps.
    names : ndarray of shape (n,), int64, optional
        The column `EARLIER`; -1 in every row if not given.
    """
    rows, removed = cluster.rows, np.flatnonzero(~kept)
    columns = {
        "row": rows,
        "cluster": np.full(len(rows), cluster.cluster.number, np.int64),
        "neighbourhood": neighbourhood,
        "kept": kept,
        "representative": representative,
        "similarity": similarity,
        "centroid_similarity": cluster.centroid_similarity,
        EARLIER: np.full(len(rows), -1, np.int64) if names is None else names,
    }
    return Decided(
        columns,
        rows[removed],
        similarity[removed],
        [q[removed] for q in cluster.memberships(plan)] if plan.options.rule.reserves_seats else [],
        rows[np.setdiff1d(removed, near, assume_unique=True)],
        distinct=True,  # `decide_part` checks it
    )


def _compare_with_representatives(
    cluster: ArrangedCluster, found: Representatives, kept: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return each row's cosine to its representative (n,), and the name of one from an earlier run (n,), or -1."""
    vectors, keeper, n = cluster.vectors, found.keeper, len(cluster.rows)
    similarity, names = np.where(kept, 1.0, np.nan), np.full(n, -1, np.int64)
    old = keeper >= n
    known = np.flatnonzero(~kept & (keeper >= 0) & ~old)
    similarity[known] = cosine_of_pairs(vectors.x, vectors.squares, known, keeper[known])
    earlier = cluster.cluster.earlier
    if old.any():
        assert earlier is not None
        numbers = keeper[old] - n
        similarity[old] = compare_rows(cluster.cluster.unit[cluster.order[old]], earlier.unit[numbers])
        names[old] = earlier.names[numbers]
    return similarity, names


def compare_rows(a: NDArray[np.float16], b: NDArray[np.float16]) -> NDArray[np.float64]:
    """Return the cosine of each row of a (n, d) with the same row of b (n, d)."""
    both, places = Vectors.of(np.concatenate((a, b))), np.arange(len(a))
    return cosine_of_pairs(both.x, both.squares, places, len(a) + places)


def are_kept_distinct(cluster: ArrangedCluster, kept: NDArray[np.bool_], eps: int) -> bool:
    """Tell whether no two kept samples of a cluster are duplicates, kept samples of earlier runs included."""
    unpinned, pinned = np.flatnonzero(kept & ~cluster.pinned.mask), np.flatnonzero(cluster.pinned.mask)
    both, within = np.concatenate((unpinned, pinned)), cluster.within
    if not are_distinct(cluster.vectors.take(both), eps, len(unpinned), None if within is None else within[both]):
        return False
    earlier = cluster.cluster.earlier
    if earlier is None or not len(unpinned):
        return True
    own = cluster.cluster.unit[cluster.order[unpinned]]
    for start, stop in split_blocks(earlier.unit):
        codes = None
        if within is not None and earlier.within is not None:
            codes = np.concatenate((within[unpinned], earlier.within[start:stop]))
        vectors = Vectors.of(np.concatenate((own, earlier.unit[start:stop])))
        if not are_distinct(vectors, eps, len(unpinned), codes):
            return False
    return True
