"""One data set, one clustering, one rule: the whole decision at an eps, and whether an eps is right.

Nothing here finds an eps. A row is a position in `x16`; the caller removes rows that cannot be used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from oracles.arithmetic import (
    PRECISE,
    Array,
    Target,
    assign,
    centroids_of_labels,
    cosine_matrix,
    duplicates,
    membership,
    quantised,
    root_spread,
    shares,
    standardised,
    target_shares,
    temperature_of,
    unit16,
    utility,
    visiting_order,
    zscores,
)
from oracles.leftover import Leftover, count_leftover, sample_rows
from oracles.reach import Reach, Reaching, group_by_value, same_value
from oracles.rounds import Outcome, decide_in_rounds
from oracles.sweeps import (
    Day,
    Pick,
    chain,
    pick_balanced,
    pick_fairdedup,
    pick_highest,
    pick_prefer,
    pick_random,
    pick_semdedup,
    sweep,
)

Decision = dict[str, Array]


def kept_seats(fraction: float, n: int) -> int:
    """K = floor(F*N + 0.5), in float64."""
    return math.floor(fraction * n + 0.5)


def swept_seats(seats: int, least: int, reserve: float) -> int:
    """Return K0, what eps is searched for by `balanced` with a keep fraction.

    Ruling: never under what every eps leaves, one row of each cluster and all that are protected.
    """
    return max(least, math.floor(seats * (1 - reserve) + 0.5))


def readmit(decision: Decision, seats: int) -> Decision:
    """Make up the shortfall to K = `seats`: lowest quantised similarity to the representative, lowest row.

    Ruling: a readmitted row is kept, with the representative and similarity for which it had been removed.
    """
    close = quantised(decision["similarity"])
    removed = sorted(np.flatnonzero(~decision["kept"]).tolist(), key=lambda i: (close[i], i))
    return _with_readmitted(decision, removed[: _shortfall(decision, seats)])


def _shortfall(decision: Decision, seats: int) -> int:
    count = int(decision["kept"].sum())
    if count > seats:
        raise ValueError(f"{count} rows are kept where there are {seats} seats: this eps does not qualify")
    return seats - count


def _with_readmitted(decision: Decision, rows: list[int]) -> Decision:
    kept, readmitted = decision["kept"].copy(), decision["readmitted"].copy()
    kept[rows] = readmitted[rows] = True
    return {**decision, "kept": kept, "readmitted": readmitted}


class Problem:
    """One data set, one clustering, one rule: everything that does not depend on eps, computed once.

    Parameters
    ----------
    x16 : (n, d) float16, from `unit16`
    labels : (n,) integers, each row's cluster
    rule : "semdedup", "fairdedup", "balanced", "prefer", "semdedup-chain", "random-neighbour", or "central", the rule
        of the user's own in docs/rules.md
    cover : the kept sample takes only its own neighbours
    prototypes : attribute -> {concept: (d,), "absent": (m, d) optional}, or (c, d): one attribute "concept".
        Scaled here. Ruling: absent prototypes take part in `balanced`'s softmax and temperature only.
    centroids16 : (k, d) float16; without it the labels are given ones and centroids are sums
    start, calibrate, target, temperature, reserve : the rules' options
    chosen : (n,) for "random-neighbour", whose draw is the code's own: the reported representatives.
        That of a step's leader is what the step kept, so the choices can be replayed and the rest derived.
    values : (n,) numbers, for "prefer"
    protected : (n,) bool, rows that are kept first
    earlier : runs before this one, in order; the clusters and their centroids are the first one's
    reach, reach_clusters : what is compared across clusters. `semdedup-chain` never looks across
    within : (n,) values; rows are compared only where they are equal (see oracles/reach.py)
    seed : for "random-neighbour", by the hash of docs/rules.md; takes the place of `chosen`
    line_eps : the eps of the line's first run, where this run's may differ (`--at-most`). Ruling: rows of earlier runs
        reach by it, new rows by the eps that they are decided at
    offsets : attribute -> what is added to the similarity to each concept before `balanced`'s softmax
    """

    def __init__(
        self,
        x16: Array,
        labels: ArrayLike,
        rule: str,
        *,
        cover: bool = False,
        prototypes: Any = None,
        centroids16: Array | None = None,
        start: str = "cluster",
        calibrate: str = "none",
        target: Target = "uniform",
        temperature: float | str = "auto",
        reserve: float = 0.1,
        chosen: ArrayLike | None = None,
        values: ArrayLike | None = None,
        protected: ArrayLike | None = None,
        earlier: Sequence[Day] = (),
        reach: Reach = 0,
        reach_clusters: int = 16,
        within: Sequence[Any] | None = None,
        seed: int | None = None,
        line_eps: int | None = None,
        offsets: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        self.x16, self.labels, self.rule, self.cover = x16, np.asarray(labels), rule, cover
        self.start, self.reserve = start, reserve
        self.chosen = None if chosen is None else np.asarray(chosen)
        self.n = len(x16)
        self.values = None if values is None else np.asarray(values).tolist()
        self.protected = np.zeros(self.n, bool) if protected is None else np.asarray(protected)
        self.clusters = {int(k): np.flatnonzero(self.labels == k) for k in np.unique(self.labels)}
        self.earlier = list(earlier)
        self.before = sum(len(day.x16) for day in self.earlier)  # rows of earlier runs come before the new ones
        self.all16 = np.concatenate([*(day.x16 for day in self.earlier), x16])
        self.all_labels = np.concatenate([*(day.labels for day in self.earlier), self.labels])
        self.all_kept = np.concatenate([*(day.kept for day in self.earlier), np.zeros(self.n, bool)])
        self.reach, self.seed, self.line_eps = reach, seed, line_eps
        centroids = centroids_of_labels(x16, self.labels) if centroids16 is None else centroids16
        numbered = centroids if isinstance(centroids, Mapping) else dict(enumerate(centroids))
        self._set_groups(within)
        self.reaching = Reaching(self.all16, self.all_labels, numbered, reach, reach_clusters) if reach else None
        self.cosines = {k: cosine_matrix(x16[rows], x16[rows]) for k, rows in self.clusters.items()}
        self.centroid_similarity = np.zeros(self.n)
        for k, rows in self.clusters.items():
            self.centroid_similarity[rows] = cosine_matrix(x16[rows], centroids[k][None])[:, 0]
        if rule == "central":
            self.price = quantised(self.centroid_similarity).tolist()
        if rule == "fairdedup":
            found = self._similarities(prototypes).values()
            concepts = np.hstack([similarity[:, : len(names)] for names, similarity in found])
            first = len(self.earlier[0].x16) if self.earlier else None
            self.all_p = zscores(concepts, first) if calibrate == "zscore" else quantised(concepts)
            self.p = self.all_p[self.before :]
        self.offsets = offsets or {}
        if rule == "balanced":
            self._set_price(prototypes, target, temperature)

    def _set_groups(self, within: Sequence[Any] | None) -> None:
        """Set which rows have the same value, over all rows (n, n), and the group that each belongs to."""
        self.within = within is not None
        values: list[Any] = [None] * len(self.all16)  # without the option all rows are of one group
        if within is not None:
            assert all(day.within is not None for day in self.earlier), "earlier runs have values too"
            values = [value for day in self.earlier for value in day.within or ()] + list(within)
        self.same = same_value(values)
        self.groups = group_by_value(values)

    def _similarities(self, prototypes: Any) -> dict[str, tuple[list[str], Array]]:
        """Attribute -> (concept names, similarities (n, concepts then absent))."""
        if not isinstance(prototypes, Mapping):
            prototypes = {"concept": {str(c): vector for c, vector in enumerate(prototypes)}}
        found = {}
        for attribute, vectors in prototypes.items():
            names = [name for name in vectors if name != "absent"]
            stacked = [np.asarray(vectors[name], dtype=np.float64) for name in names]
            if "absent" in vectors:
                stacked += list(np.atleast_2d(np.asarray(vectors["absent"], dtype=np.float64)))
            found[attribute] = (names, cosine_matrix(self.all16, unit16(np.stack(stacked))))
        return found

    def _set_price(self, prototypes: Any, target: Any, temperature: Any) -> None:
        self.temperatures: dict[str, float] = {}
        self.q: dict[str, Array] = {}
        self.targets: dict[str, list[Fraction]] = {}
        total = [Decimal(0)] * len(self.all16)
        first = len(self.earlier[0].x16) if self.earlier else None
        for attribute, (names, similarity) in self._similarities(prototypes).items():
            if self.offsets.get(attribute):
                similarity[:, : len(names)] += np.array(self.offsets[attribute])
            given = temperature.get(attribute, "auto") if isinstance(temperature, Mapping) else temperature
            warmth = temperature_of(similarity[:first]) if given == "auto" else float(given)
            q = membership(similarity, len(names), warmth)
            self.temperatures[attribute], self.q[attribute] = warmth, q
            self.targets[attribute] = target_shares(target, attribute, names, q)
            u, _ = utility(q, self.targets[attribute], shares(q))
            with localcontext(PRECISE):
                total = [t + z for t, z in zip(total, standardised(u), strict=True)]
        with localcontext(PRECISE):
            self.price = [round(t * 10**6) for t in total[self.before :]]  # (n,) millionths

    @property
    def least(self) -> int:
        """The least K: the protected rows, and one row of each cluster where nothing is kept before.

        Ruling on `within`: one row of each value of each cluster, since without reach every eps leaves those.
        """
        first = np.concatenate([np.zeros(self.before, bool), self.protected])
        pinned = {(k, self.groups[i]) for i, k in enumerate(self.all_labels.tolist()) if self.all_kept[i] or first[i]}
        new = {(k, self.groups[self.before + i]) for i, k in enumerate(self.labels.tolist())}
        return len(new - pinned) + int(self.protected.sum())

    def _pick(self, rows: Array) -> Pick:
        if self.rule == "semdedup":
            return pick_semdedup
        if self.rule == "fairdedup":
            mine = self.all_labels == self.labels[rows[0]]
            day = np.repeat(np.arange(len(self.earlier) + 1), [*(len(d.x16) for d in self.earlier), self.n])
            first = mine & (day == day[mine].min())
            return pick_fairdedup(
                self.p[rows], self.start, np.flatnonzero(self.protected[rows]).tolist(), self.all_p[first],
                self.all_p[mine & self.all_kept],
            )  # fmt: skip
        if self.rule == "balanced":
            return pick_balanced([self.price[row] for row in rows], self.x16[rows])
        if self.rule == "prefer":
            assert self.values is not None
            return pick_prefer([self.values[row] for row in rows])
        if self.rule == "central":
            return pick_highest([self.price[row] for row in rows])
        if self.rule == "random-neighbour" and self.seed is not None:
            return pick_random(rows.tolist(), self.seed)
        if self.rule == "random-neighbour" and self.chosen is not None:
            position = {row: i for i, row in enumerate(rows.tolist())}
            chosen = self.chosen
            return lambda leader, members: position.get(int(chosen[rows[leader]]), -1)
        raise ValueError(f"no oracle for rule {self.rule!r} (random-neighbour needs `chosen` or `seed`)")

    def at_eps(self, e: int) -> Decision:
        """Return what is kept at eps = e ten-thousandths, before any readmission.

        Columns (n,): cluster, kept, representative (its row), similarity (to it, float64 cosine),
        centroid_similarity, readmitted, and neighbourhood, the row of the step's leader (no such column for
        `semdedup-chain`, which has no steps). Ruling: a kept row represents itself with similarity 1.0.
        """
        if self.rule != "semdedup-chain" and (self.reach or self.within):
            return self.in_rounds(e)[0]
        representative = np.arange(self.n)
        neighbourhood = np.arange(self.n)
        by_earlier = np.full(self.n, -1)
        similarity = np.ones(self.n)
        for k, rows in self.clusters.items():
            cosines, order = self.cosines[k], visiting_order(self.centroid_similarity[rows])
            if self.rule == "semdedup-chain":
                cosines = np.where(self.same[self.before + rows][:, self.before + rows], cosines, -2.0)
                pairs = [(i, r) for i, r in enumerate(chain(cosines, order, e)) if r is not None]
            else:
                first = np.flatnonzero(self.protected[rows]).tolist()
                old = np.flatnonzero((self.all_labels == k) & self.all_kept)
                old_cosines = cosine_matrix(self.x16[rows], self.all16[old])
                steps = sweep(cosines, order, e, self._pick(rows), self.cover, first, old_cosines)
                pairs = [(i, s.kept) for s in steps for i in s.visited if i != s.kept >= 0]
                for step in steps:
                    mine = rows[step.visited]
                    neighbourhood[mine] = rows[step.leader] if step.leader >= 0 else -1
                    if step.kept < 0:
                        i = -1 - step.kept
                        representative[mine], by_earlier[mine] = -1, old[i]
                        similarity[mine] = old_cosines[step.visited, i]
            for i, r in pairs:
                representative[rows[i]], similarity[rows[i]] = rows[r], cosines[i, r]
        decision = {
            "cluster": self.labels,
            "kept": representative == np.arange(self.n),
            "representative": representative,
            "similarity": similarity,
            "centroid_similarity": self.centroid_similarity,
            "readmitted": np.zeros(self.n, dtype=bool),
        }
        if self.earlier:
            decision["earlier"] = by_earlier  # position among the rows of all earlier runs, one after the other
        return decision if self.rule == "semdedup-chain" else {**decision, "neighbourhood": neighbourhood}

    def comparable(self, e: int) -> Array:
        """Return which rows are compared at e, over all rows (n, n): comparable, and of one value."""
        if self.reaching is None:
            return np.asarray((self.all_labels[:, None] == self.all_labels) & self.same)
        each = np.full(len(self.all16), e)
        if self.line_eps is not None:
            each[: self.before] = self.line_eps
        return np.asarray(self.reaching.comparable(each) & self.same)

    def in_rounds(self, e: int) -> tuple[Decision, Outcome]:
        """Return the decision of `at_eps` by rounds, and how it went, in positions among all rows."""
        cosines = cosine_matrix(self.all16, self.all16)
        near = duplicates(cosines, e)
        new = np.arange(self.before, len(self.all16))
        keys = [(0, 0)] * self.before + [
            (key, self.before + i) for i, key in enumerate(quantised(self.centroid_similarity).tolist())
        ]
        outcome = decide_in_rounds(
            labels=self.all_labels, order_keys=keys, cosines=cosines, near=near, linked=near & self.comparable(e),
            new=new.tolist(), earlier=np.flatnonzero(self.all_kept).tolist(),
            protected=(self.before + np.flatnonzero(self.protected)).tolist(),
            picks={k: self._by_number(self._pick(rows), rows) for k, rows in self.clusters.items()},
            conflict_pick=lambda rows: self._pick_conflict(np.array(rows) - self.before), cover=self.cover,
            hands_over_duplicates=self.cover or self.rule == "semdedup",
        )  # fmt: skip
        by = np.array([outcome.representative[i] for i in new.tolist()], dtype=np.int64)
        leader = np.array([outcome.leader[i] for i in new.tolist()], dtype=np.int64)
        decision = {
            "cluster": self.labels,
            "kept": by == new,
            "representative": np.where(by < self.before, -1, by - self.before),
            "similarity": np.where(by == new, 1.0, cosines[new, by]),
            "centroid_similarity": self.centroid_similarity,
            "readmitted": np.zeros(self.n, dtype=bool),
            "neighbourhood": np.where(leader < self.before, -1, leader - self.before),
        }
        return (decision | {"earlier": np.where(by < self.before, by, -1)} if self.earlier else decision), outcome

    def _by_number(self, pick: Pick, rows: Array) -> Pick:
        """Return the pick among positions in `rows` as one among numbers of all rows."""
        position = {self.before + row: i for i, row in enumerate(rows.tolist())}
        return lambda leader, members: (
            self.before + int(rows[pick(position[leader], [position[row] for row in members])])
        )

    def _pick_conflict(self, rows: Array) -> Pick:
        """Return the rule over candidates in conflict; `fairdedup` starts anew, from their mean (or 0)."""
        fresh = self.rule == "fairdedup"
        return self._by_number(pick_fairdedup(self.p[rows], self.start) if fresh else self._pick(rows), rows)

    def broken(self, decision: Decision, e: int) -> tuple[int, int]:
        """Count the broken promises at e, over all pairs that are compared: see `guarantees`.

        A pair has at least one row of this run that is not protected. Ruling: a removed row has its representative if
        that is kept and a duplicate of it, comparable or not, since a row may be handed over.
        """
        near = duplicates(cosine_matrix(self.all16, self.all16), e)
        swept = self.all_kept.copy()
        swept[self.before :] = decision["kept"] & ~decision["readmitted"]
        free = np.concatenate([np.zeros(self.before, bool), ~self.protected])
        pairs = near & self.comparable(e) & np.outer(swept, swept) & (free[:, None] | free)
        kept = self.all_kept.copy()
        kept[self.before :] = decision["kept"]
        orphans = 0
        for i in np.flatnonzero(~decision["kept"]).tolist():
            old = int(decision["earlier"][i]) if "earlier" in decision else -1
            by = old if old >= 0 else self.before + int(decision["representative"][i])
            orphans += not (kept[by] and near[self.before + i, by] and self.same[self.before + i, by])
        return int(np.triu(pairs, 1).sum()), orphans

    def leftover(self, decision: Decision, e: int, rows: Sequence[int] | None = None) -> Leftover:
        """Return how many kept rows of this run, all or the `rows` given, still have a kept duplicate."""
        kept = np.flatnonzero(decision["kept"] & ~decision["readmitted"]).tolist()
        everyone = [*np.flatnonzero(self.all_kept).tolist(), *(self.before + i for i in kept)]
        sample = [self.before + i for i in (kept if rows is None else rows)]
        return count_leftover(
            self.all16, self.all_labels, self.comparable(e), self.same, e, sample, everyone
        )  # fmt: skip

    def leftover_sample(self, decision: Decision, size: int, seed: int) -> list[int]:
        """Return the rows that a run of this seed looks up."""
        return sample_rows(np.flatnonzero(decision["kept"] & ~decision["readmitted"]).tolist(), size, seed)

    def count(self, e: int) -> int:
        """Rows kept at e over all clusters together."""
        return int(self.at_eps(e)["kept"].sum())

    def brackets(self, e: int, seats: int) -> bool:
        """Whether count(e) <= seats < count(e - 1); ruling: with a seat for every row, whether e is 0."""
        if seats >= self.n:
            return e == 0
        return e >= 1 and self.count(e) <= seats < self.count(e - 1)

    def searched_seats(self, fraction: float, *, at_most: bool = False) -> int:
        """Return what eps is searched for: K, or K0 for `balanced` with a keep fraction under 1.

        Ruling: under at-most there is no reserve; K == N keeps everything, `balanced` included.
        """
        seats = kept_seats(fraction, self.n)
        if self.rule == "balanced" and not at_most and seats < self.n:
            return swept_seats(seats, self.least, self.reserve)
        return seats

    def seats(self, decision: Decision, seats: int) -> Decision:
        """`balanced`: fill all seats up to K = `seats` by price' + 40 (1 - similarity to the representative).

        Ruling: rint of a million times it, the cosine not quantised, ties to the lowest row. price' sums over
        attributes u' / (its population standard deviation over ALL rows at the first seat; no spread: 0), u'
        with the shares of the kept so far. The top max(1, R // 100) of a scoring are admitted together, then
        the shares are renewed.
        """
        left = _shortfall(decision, seats)
        batch = max(1, left // 100)
        spreads: dict[str, Decimal] = {}
        with localcontext(PRECISE):
            distance = [40 * (1 - Decimal(s)) for s in decision["similarity"].tolist()]
        while left:
            with localcontext(PRECISE):
                total = distance
                for attribute, q in self.q.items():
                    u, common = utility(q, self.targets[attribute], shares(q[decision["kept"]]))
                    if attribute not in spreads:
                        spreads[attribute] = root_spread(u) / self.n / common
                    if spreads[attribute]:
                        scale = 1 / (spreads[attribute] * common)
                        total = [t + value * scale for t, value in zip(total, u, strict=True)]
                ranks = [round(t * 10**6) for t in total]
            removed = np.flatnonzero(~decision["kept"]).tolist()
            admitted = sorted(removed, key=lambda i: (-ranks[i], i))[: min(batch, left)]
            decision = _with_readmitted(decision, admitted)
            left -= len(admitted)
        return decision

    def decide(self, e: int, keep: float | None = None) -> Decision:
        """Return the whole decision at e, made up to `keep`; None for at-most or eps."""
        decision = self.at_eps(e)
        if keep is None:
            return decision
        seats = kept_seats(keep, self.n)
        return self.seats(decision, seats) if self.rule == "balanced" else readmit(decision, seats)


def decide_at_eps(x16: Array, labels: ArrayLike, rule: str, e: int, **options: Any) -> Decision:
    """`Problem.at_eps` in one call; `options` are those of `Problem`."""
    return Problem(x16, labels, rule, **options).at_eps(e)


def decide(
    x: ArrayLike,
    labels: ArrayLike | None,
    rule: str,
    *,
    e: int,
    keep: float | None = None,
    centroids: ArrayLike | None = None,
    **options: Any,
) -> Decision:
    """Return the decision expected from raw vectors and the reported e; x and centroids are scaled here.

    Without labels each row goes to its most similar centroid; without centroids they follow from the labels.
    """
    x16 = unit16(x)
    centroids16 = None if centroids is None else unit16(centroids)
    if labels is None:
        if centroids16 is None:
            raise ValueError("give labels or centroids")
        labels = assign(x16, centroids16)
    return Problem(x16, labels, rule, centroids16=centroids16, **options).decide(e, keep)


def guarantees(
    x16: Array, decision: Mapping[str, Array], e: int, protected: ArrayLike | None = None
) -> tuple[int, int]:
    """Count the broken promises at e: pairs of kept duplicates, and removed rows without a kept representative.

    Pairs are of one cluster, and not both protected. Readmitted rows make none. `similarity` is not trusted: cosines
    are computed again.
    """
    clusters, kept = np.asarray(decision["cluster"]), np.asarray(decision["kept"])
    swept = kept & ~np.asarray(decision["readmitted"])
    pairs = 0
    for k in np.unique(clusters):
        own = np.flatnonzero(swept & (clusters == k))
        both = np.zeros((len(own), len(own)), bool) if protected is None else np.logical_and.outer(
            np.asarray(protected)[own], np.asarray(protected)[own]
        )  # fmt: skip
        pairs += int(np.triu(duplicates(cosine_matrix(x16[own], x16[own]), e) & ~both, 1).sum())
    orphans = 0
    for row in np.flatnonzero(~kept).tolist():
        r = int(decision["representative"][row])
        near = duplicates(cosine_matrix(x16[[row]], x16[[r]]), e)[0, 0]
        orphans += not (kept[r] and clusters[r] == clusters[row] and near)
    return pairs, orphans


def random_fault(decision: Mapping[str, Array], keep: float) -> str:
    """Return what is wrong with a `random` decision, whose draw is the code's own, or ""."""
    kept = np.asarray(decision["kept"])
    seats = kept_seats(keep, len(kept))
    if int(kept.sum()) != seats:
        return f"{int(kept.sum())} kept where {seats} were expected"
    return "rows readmitted" if np.asarray(decision["readmitted"]).any() else ""
