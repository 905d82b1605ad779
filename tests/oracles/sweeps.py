"""The sweep of one cluster, the chain, and what each rule keeps of a neighbourhood, as loops over a matrix of cosines.

SemDeDup is Abbas et al. 2023; `fairdedup` is Algorithm 1 of Slyman et al. 2024; `balanced` is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from oracles.arithmetic import HALF_UNIT, Array, duplicates
from oracles.reach import row_hash

Pick = Callable[[int, list[int]], int]
"""(leader, members ascending) -> the member to keep; all are positions inside the cluster."""


class Step(NamedTuple):
    """One step of a sweep, in positions inside the cluster; lists ascend."""

    leader: int
    members: list[int]  # the leader's neighbourhood, what the rule chooses from
    kept: int
    visited: list[int]  # the kept one and all that it now represents


class Day(NamedTuple):
    """An earlier run, as rules.md ("New rows beside earlier runs") sees it: its valid rows, and which it kept."""

    x16: Array
    labels: Array
    kept: Array  # (n,) bool
    within: Sequence[Any] | None = None  # (n,) values of the column that rows are compared within


def sweep(
    cosines: Array,
    order: Sequence[int],
    e: int,
    pick: Pick,
    cover: bool = False,
    protected: Sequence[int] = (),
    old: Array | None = None,
) -> list[Step]:
    """Sweep one cluster of cosines (m, m).

    `protected` positions are kept first: each other row goes to the most similar protected row (ties: the lowest row),
    if they are duplicates; the rest is swept. `old` are the cosines (m, o) with the samples that earlier runs kept
    here, in their order: these are kept first too, ties go to them, and in a step the i-th of them is -1 - i.

    Ruling on cover: the leader's neighbourhood offers the members and the rule picks one; that one and every
    unvisited row within its own reach become visited, also outside the leader's neighbourhood; the rest of
    it stays unvisited.

    Raises
    ------
    ValueError
        `pick` chose a row that is no member.
    """
    near = duplicates(cosines, e)
    unvisited = np.ones(len(cosines), dtype=bool)
    steps = []
    olds = 0 if old is None else old.shape[1]
    taken: dict[int, list[int]] = {-1 - i: [] for i in range(olds)} | {i: [i] for i in sorted(protected)}
    for j in range(len(cosines)):
        if j not in taken:
            best = -2.0
            nearest = None
            for i in taken:  # the old ones first, in their order; then the protected, lowest first
                assert old is not None or i >= 0
                cosine = cosines[j, i] if i >= 0 or old is None else old[j, -1 - i]
                if cosine > best:
                    best, nearest = cosine, i
            if nearest is not None and duplicates(np.array(best), e):
                taken[nearest].append(j)
    for i, visited in taken.items():
        unvisited[visited] = False
        if visited:
            steps.append(Step(i, [i] if i >= 0 else [], i, sorted(visited)))

    def reach(i: int) -> list[int]:
        return [j for j in np.flatnonzero(unvisited).tolist() if j == i or near[i, j]]

    for leader in order:
        if not unvisited[leader]:
            continue
        members = reach(leader)
        kept = pick(leader, members)
        if kept not in members:
            raise ValueError(f"position {kept} was kept at leader {leader} but is not one of {members}")
        visited = reach(kept) if cover else members
        unvisited[visited] = False
        steps.append(Step(leader, members, kept, visited))
    return steps


def chain(cosines: Array, order: Sequence[int], e: int) -> list[int | None]:
    """`semdedup-chain`: per position None where kept, else its representative.

    Ruling: the representative is the most similar earlier row in visiting order, itself kept or not, ties to
    the lowest row.
    """
    near = duplicates(cosines, e)
    representative: list[int | None] = [None] * len(order)
    for t, i in enumerate(order):
        earlier = order[:t]
        if any(near[i, j] for j in earlier):
            representative[i] = min(earlier, key=lambda j: (-cosines[i, j], j))
    return representative


def pick_semdedup(leader: int, members: list[int]) -> int:
    """Keep the leader, the member farthest from the centroid."""
    return leader


def pick_prefer(values: Sequence[float]) -> Pick:
    """Keep the highest value, NaN last, ties to the lowest row."""
    return lambda leader, members: min(
        members, key=lambda j: (math.isnan(values[j]), 0 if math.isnan(values[j]) else -values[j], j)
    )


def pick_random(rows: Sequence[int], seed: int) -> Pick:
    """Keep the member with the largest hash of row and seed, ties to the lowest row; `rows` are the rows' numbers."""
    draws = [row_hash(row, seed) for row in rows]
    return lambda leader, members: min(members, key=lambda j: (-draws[j], j))


def pick_highest(prices: Sequence[int]) -> Pick:
    """Keep the highest price, ties to the lowest row: what a rule of the user's own does."""
    return lambda leader, members: min(members, key=lambda j: (-prices[j], j))


def pick_fairdedup(
    p: Array,
    start: str = "cluster",
    protected: Sequence[int] = (),
    first: Array | None = None,
    kept_before: Array | None = None,
) -> Pick:
    """Algorithm 1 over one cluster, p (m, c) integers of every concept of every attribute in listed order.

    Ruling: the starting sum is the exact mean of p over the cluster, rounded half to even; `start="zero"`: 0. Protected
    rows are kept first, and their p is added. Of a cluster that is not new, `first` is the p of its rows in the first
    run that had any, which the mean is taken over, and `kept_before` the p of what all earlier runs kept, added too.
    """
    table = p.tolist()
    begun = table if first is None else first.tolist()
    means = [Fraction(sum(column), len(begun)) for column in zip(*begun, strict=True)]
    sums = [round(mean) if start == "cluster" else 0 for mean in means]
    for own in [table[i] for i in protected] + ([] if kept_before is None else kept_before.tolist()):
        sums = [s + value for s, value in zip(sums, own, strict=True)]

    def pick(leader: int, members: list[int]) -> int:
        concept = sums.index(min(sums))
        kept = min(members, key=lambda j: (-table[j][concept], j))
        for c, value in enumerate(table[kept]):
            sums[c] += value
        return kept

    return pick


def centrality(x16: Array, members: Sequence[int]) -> list[int]:
    """Quantised dot product h of each member with the members' mean vector.

    Ruling: rint(1e6 * (x_j . S) / m) with S the exact sum of the m vectors, judged exactly, halves to even.
    """
    whole = np.ldexp(x16[members].astype(np.float64), HALF_UNIT).astype(np.int64)
    dots = (whole @ whole.T).sum(axis=1).tolist()  # exact: each product is under 2**49
    return [round(Fraction(10**6 * dot, len(members) * 4**HALF_UNIT)) for dot in dots]


def pick_balanced(price: Sequence[int], x16: Array) -> Pick:
    """Keep the largest price + 60 h, ties to the lowest row.

    Ruling: h is over the leader's neighbourhood, under cover too.
    """

    def pick(leader: int, members: list[int]) -> int:
        h = dict(zip(members, centrality(x16, members), strict=True))
        return min(members, key=lambda j: (-(price[j] + 60 * h[j]), j))

    return pick
