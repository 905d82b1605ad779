"""The rounds: a decision over all clusters together, as plain loops over matrices of all rows.

Rows are numbers in the problem's `all16`: those of earlier runs first, in their order. Written from the law on
duplicates across clusters alone. Rulings, where the text leaves room:

- Round 1 looks at the rows of earlier runs in their order, then at protected rows; ties go to the first in that order.
  No later round can find an open row linked to one of these, since links do not change. There ties are to the lowest
  row.
- Protected rows are kept before round 1; they are neither open, nor candidates, nor in a conflict.
- Two candidates of one cluster that are linked (rules without cover) make no conflict. Where each has a conflict of its
  own they are neighbours in the conflict sweep, since rows of one cluster are comparable.
- All candidates with a conflict are one sweep, also where they fall into several connected groups.
- `fairdedup`: a cluster's sums get the p of every candidate when the sweep takes it up, and go on like that in the next
  round. The conflict sweep has sums of its own, new in every round; it neither adds to nor subtracts from a cluster's.
- `balanced`: h in the conflict sweep is taken over the leader and its unvisited linked candidates.
- What a candidate stood for is what its step of this round visited. Nothing is handed over twice: the one that gets it
  is kept.
- A row that is handed over needs cosine > 1 - eps with the kept one and nothing else. (Its value of `within` is the
  same in any case.)
- `neighbourhood`: the leader of the last step that visited the row, a step of a conflict too; of a row that was removed
  by one kept earlier, the representative. A row that was handed over keeps the leader in its own cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from oracles.arithmetic import Array
from oracles.sweeps import Pick, Step


@dataclass
class Round:
    """What happened in one round."""

    removed: dict[int, int] = field(default_factory=dict)  # by rows kept earlier: row -> representative
    candidates: dict[int, list[int]] = field(default_factory=dict)  # -> what each stood for
    conflict: list[int] = field(default_factory=list)  # in visiting order
    taken: dict[int, int] = field(default_factory=dict)  # candidate -> the one that was kept
    handed_over: dict[int, int] = field(default_factory=dict)  # what they stood for -> the one that was kept
    reopened: list[int] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)


@dataclass
class Outcome:
    """Representatives and leaders of all rows that were decided, and how it went."""

    representative: dict[int, int]
    leader: dict[int, int]
    rounds: list[Round]


def walk(order: Sequence[int], near: Array, pick: Pick, cover: bool) -> list[Step]:
    """Sweep the rows in `order`, by the rules of one cluster; `near` (n, n) says who is linked."""
    unvisited = set(order)
    steps = []

    def reached_from(i: int) -> list[int]:
        return [j for j in sorted(unvisited) if j == i or near[i, j]]

    for leader in order:
        if leader not in unvisited:
            continue
        members = reached_from(leader)
        kept = pick(leader, members)
        if kept not in members:
            raise ValueError(f"row {kept} was kept at leader {leader} but is not one of {members}")
        visited = reached_from(kept) if cover else members
        unvisited -= set(visited)
        steps.append(Step(leader, members, kept, visited))
    return steps


def most_similar(row: int, kept: Sequence[int], linked: Array, cosines: Array) -> int | None:
    """Return the row of `kept` most similar to `row` among those linked to it; ties to the first of them."""
    best: int | None = None
    for k in kept:
        if linked[row, k] and (best is None or cosines[row, k] > cosines[row, best]):
            best = k
    return best


def decide_in_rounds(
    *,
    labels: Array,
    order_keys: Sequence[tuple[int, int]],
    cosines: Array,
    near: Array,
    linked: Array,
    new: Sequence[int],
    earlier: Sequence[int],
    protected: Sequence[int],
    picks: dict[int, Pick],
    conflict_pick: Callable[[list[int]], Pick],
    cover: bool,
    hands_over_duplicates: bool,
) -> Outcome:
    """Decide the rows `new`.

    Parameters
    ----------
    labels : (n,) clusters of all rows
    order_keys : per row (quantised similarity to its own centroid, row): the visiting order
    cosines, near, linked : (n, n); who is a duplicate of another; who is linked to another
    new, earlier, protected : rows to decide; rows of earlier runs that are kept; those of `new` that are protected
    picks : cluster -> its rule, which remembers what it needs to from round to round
    conflict_pick : from the rows in conflict, ascending, to their rule
    cover : the kept one takes only its own
    hands_over_duplicates : with `cover` or `semdedup`, only duplicates of the kept one are handed over

    Raises
    ------
    ValueError
        A rule kept a row that it was not offered.
    """
    representative, leader = {i: i for i in protected}, {i: i for i in protected}
    still_open = sorted(set(new) - set(protected))
    before = [*earlier, *sorted(protected)]
    kept: list[int] = []
    rounds: list[Round] = []
    while still_open:
        now = Round()
        rounds.append(now)
        for row in still_open:
            first = most_similar(row, before, linked, cosines)
            if len(rounds) == 1:
                best = first
            else:
                assert first is None, "links do not change from round to round"
                best = most_similar(row, sorted(kept), linked, cosines)
            if best is not None:
                now.removed[row] = representative[row] = leader[row] = best
        left = [row for row in still_open if row not in now.removed]
        for k in sorted(set(labels[left].tolist())):
            own = sorted((row for row in left if labels[row] == k), key=order_keys.__getitem__)
            for step in walk(own, linked, picks[k], cover):
                now.candidates[step.kept] = [row for row in step.visited if row != step.kept]
                for row in step.visited:
                    representative[row], leader[row] = step.kept, step.leader
        in_conflict = [
            i for i in sorted(now.candidates) if any(linked[i, j] and labels[i] != labels[j] for j in now.candidates)
        ]
        now.conflict = sorted(in_conflict, key=order_keys.__getitem__)
        for step in walk(now.conflict, linked, conflict_pick(in_conflict), cover) if in_conflict else []:
            for row in step.visited:
                representative[row], leader[row] = step.kept, step.leader
                if row != step.kept:
                    now.taken[row] = step.kept
        for row, keeper in now.taken.items():
            for stood_for in now.candidates[row]:
                if hands_over_duplicates and not near[stood_for, keeper]:
                    now.reopened.append(stood_for)
                    del representative[stood_for], leader[stood_for]
                else:
                    now.handed_over[stood_for] = representative[stood_for] = keeper
        now.kept = sorted(set(now.candidates) - set(now.taken))
        kept += now.kept
        still_open = sorted(now.reopened)
    return Outcome(representative, leader, rounds)
