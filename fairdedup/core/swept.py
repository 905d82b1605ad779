"""The rows of a cluster or part that a rule which sweeps keeps: by the leader sweep, or the sweep with cover."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.arranged import ArrangedCluster, arrange
from fairdedup.core.choice import choose
from fairdedup.core.cover import cover_sweep
from fairdedup.core.leader_sweep import Sweep, sweep
from fairdedup.core.model import Plan
from fairdedup.core.pair_graph import find_pairs
from fairdedup.core.part import Part
from fairdedup.core.rules.base import Preference, Representatives


def find_preference(cluster: ArrangedCluster, plan: Plan) -> Preference:
    """Return what the rule prefers in a cluster. The concept sums already include its pinned rows, which are kept.

    Parameters
    ----------
    cluster : ArrangedCluster
        The rows in visiting order.
    plan : Plan
        What is known about the whole data set.
    """
    preference, earlier = _recall_preference(cluster, plan), cluster.cluster.earlier
    sums = preference.sums
    if len(sums) and earlier is not None and earlier.sums is not None:
        sums = earlier.sums
    return preference._replace(sums=sums + preference.similarity[cluster.pinned.mask].sum(axis=0))


def _recall_preference(cluster: ArrangedCluster, plan: Plan) -> Preference:
    """Return what the rule prefers in a cluster; no eps changes it, so the memo of the part remembers it."""
    memo, number = cluster.part.memo, cluster.cluster.number
    known, preference = memo.get(("preference", number), (None, None))
    if known is not plan:
        preference = plan.options.rule.preference(cluster, plan)
        memo["preference", number] = (plan, preference)
    return preference


def count_neighbourhoods(part: Part, eps: list[int]) -> NDArray[np.int64]:
    """Return how many rows of a part the sweep without `cover` keeps at each eps: the same for every rule.

    Parameters
    ----------
    part : Part
        At least one cluster. The sweeps are left in its memo.
    eps : list of 1 to 64 int, ascending
        Ten-thousandths.
    """
    total = np.zeros(len(eps), np.int64)
    sweeps: dict[int, Sweep] = {}
    for cluster in part.clusters():
        arranged = arrange(part, cluster)
        sweeps[cluster.number] = sweep(arranged.vectors, eps, arranged.pinned.needed, arranged.within)
        total += sweeps[cluster.number].counts() + np.count_nonzero(arranged.pinned.mask)
    part.memo["sweeps"] = sweeps
    return total


def count_swept(part: Part, eps: list[int], plan: Plan) -> NDArray[np.int64]:
    """Return how many rows of a part a rule that sweeps keeps at each eps.

    Parameters
    ----------
    part : Part
        At least one cluster.
    eps : list of 1 to 64 int, ascending
        Ten-thousandths.
    plan : Plan
        What is known about the whole data set.

    Returns
    -------
    ndarray of shape (len(eps),), int64
    """
    if not plan.options.cover:
        return count_neighbourhoods(part, eps)
    total = np.zeros(len(eps), np.int64)
    for cluster in part.clusters():
        arranged = arrange(part, cluster)
        within = arranged.within
        pairs = find_pairs(arranged.vectors, max(eps), within=within)
        preference = find_preference(arranged, plan)
        for k, e in enumerate(eps):
            _, keeper = cover_sweep(
                arranged.vectors, arranged.rows, e, preference, pairs, arranged.pinned, within=within
            )
            total[k] += np.count_nonzero(keeper == np.arange(len(keeper)))
    part.memo["sweeps"] = {}
    return total


def represent_swept(cluster: ArrangedCluster, eps: int, plan: Plan) -> Representatives:
    """Return the leader and the representative of each row of a cluster, by a rule that sweeps.

    Parameters
    ----------
    cluster : ArrangedCluster
        The n rows in visiting order.
    eps : int
        Ten-thousandths.
    plan : Plan
        What is known about the whole data set.

    Returns
    -------
    Representatives of n rows
    """
    rows, vectors, pinned, within = cluster.rows, cluster.vectors, cluster.pinned, cluster.within
    preference = find_preference(cluster, plan)
    if plan.options.cover:
        graph = find_pairs(vectors, eps, within=within)
        leader, keeper = cover_sweep(vectors, rows, eps, preference, graph, pinned, within=within)
        return Representatives(leader.astype(np.int64), keeper.astype(np.int64))
    known = cluster.part.memo.get("sweeps", {}).get(cluster.cluster.number)
    if known is None or eps not in known.eps:
        known = sweep(vectors, [eps], pinned.needed, within)
    neighbourhoods = known.neighbourhoods(eps)
    chosen = choose(neighbourhoods, preference, vectors, rows)
    step = neighbourhoods.step_of_member()
    found = Representatives(pinned.keeper.copy(), pinned.keeper.copy())
    found.leader[neighbourhoods.members] = neighbourhoods.leaders[step]
    found.keeper[neighbourhoods.members] = chosen[step]
    return found
