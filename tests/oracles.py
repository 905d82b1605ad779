"""Slow float64 twin of the rules: what a decision must be, written from DESIGN.md sections 2 and 3 alone.

SemDeDup is Abbas et al. 2023; `fairdedup` is Algorithm 1 of Slyman et al. 2024; `balanced` is ours.
It never imports the package and never finds eps: it says whether an eps is right and what follows from it.

Sums, shares and roundings are exact (integers, fractions, 50-digit decimals), so that nothing here depends on
the order of a float sum. A row is a position in `x16`; rows that cannot be used are removed by the caller.
"Ruling" marks what the lead decided where the document leaves room.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
Decision = dict[str, Array]
Target = str | Mapping[str, Mapping[str, float]]
Pick = Callable[[int, list[int]], int]
"""(leader, members ascending) -> the member to keep; all are positions inside the cluster."""

PRECISE = Context(prec=50)
HALF_UNIT = 24  # every float16 is a whole number of 2**-24


def unit16(x: ArrayLike) -> Array:
    """Scale vectors, (d,) or (n, d), to unit length in float64 and round them once to float16.

    Ruling: an exact power of two is taken out first, so that no square overflows or underflows; then the
    division by the float64 norm; then double to half directly. A zero vector (only a centroid may be) stays.
    """
    values = np.asarray(x, dtype=np.float64)
    units = np.zeros(values.shape, dtype=np.float16)
    for row, unit in zip(np.atleast_2d(values), np.atleast_2d(units), strict=True):
        largest = np.abs(row).max()
        if largest > 0:
            scaled = np.ldexp(row, -np.frexp(largest)[1])  # the largest is now in [0.5, 1)
            unit[:] = (scaled / math.sqrt(math.fsum(scaled * scaled))).astype(np.float16)
    return units


def cosine_matrix(a: Array, b: Array) -> Array:
    """Cosine similarities (n, m) float64 of float16 rows.

    Ruling: min(1, dot / sqrt(|a|² |b|²)); the sums are exact in float64 in any order. A zero vector gives 0.
    """
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    squares = np.outer((a64 * a64).sum(axis=1), (b64 * b64).sum(axis=1))
    cosines = np.divide(a64 @ b64.T, np.sqrt(squares), out=np.zeros(squares.shape), where=squares > 0)
    return np.minimum(1.0, cosines)


def duplicates(cosines: Array, e: int) -> Array:
    """Which cosines make semantic duplicates at eps = e ten-thousandths.

    Ruling: cosine > 1.0 - e / 10000 in float64, strict, with e an integer from 0 to 20001.
    """
    return np.asarray(cosines > 1.0 - e / 10000)


def quantised(values: ArrayLike) -> Array:
    """Integer nearest to a million times the value; ruling: float64 product, halves to even."""
    return np.asarray(np.rint(np.asarray(values, dtype=np.float64) * 1e6).astype(np.int64))


def centroids_of_labels(x16: Array, labels: Array) -> dict[int, Array]:
    """Cluster number -> (d,) float16; ruling: the exact sum of its float16 vectors, scaled by `unit16`."""
    x64 = x16.astype(np.float64)  # sums of multiples of 2**-24 are exact below 2**28 rows
    return {int(label): unit16(x64[labels == label].sum(axis=0)) for label in np.unique(labels)}


def assign(x16: Array, centroids16: Array) -> Array:
    """Each row's most similar centroid by float64 cosine; ruling: ties to the lower number."""
    return np.asarray(np.argmax(cosine_matrix(x16, centroids16), axis=1))


def visiting_order(centroid_similarity: Array) -> list[int]:
    """Positions by quantised centroid similarity ascending, then row (positions ascend with the row)."""
    keys = quantised(centroid_similarity)
    return sorted(range(len(keys)), key=lambda i: (keys[i], i))


class Step(NamedTuple):
    """One step of a sweep, in positions inside the cluster; lists ascend."""

    leader: int
    members: list[int]  # the leader's neighbourhood, what the rule chooses from
    kept: int
    visited: list[int]  # the kept one and all that it now represents


class Day(NamedTuple):
    """An earlier run, as rules.md ("New rows beside earlier runs") sees it: all its valid rows, and whom it kept."""

    x16: Array
    labels: Array
    kept: Array  # (n,) bool


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

    `protected` positions are kept first: each other row goes to the protected row most like it (ties: the lowest
    row), if they are duplicates; the rest is swept as ever. `old` are the cosines (m, o) with what earlier runs kept
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


def root_spread(values: Sequence[int]) -> Decimal:
    """Return n times the population standard deviation; exactly 0 only where all values are equal."""
    n, total = len(values), sum(values)
    with localcontext(PRECISE):
        return Decimal(n * sum(v * v for v in values) - total * total).sqrt()


def standardised(values: Sequence[int], first: int | None = None) -> list[Decimal]:
    """(value - mean) / population standard deviation, of the first so many values or of all.

    Ruling: all 0 where all values are equal, judged exactly.
    """
    over = values[:first]
    n, total, spread = len(over), sum(over), root_spread(over)
    with localcontext(PRECISE):
        return [Decimal(n * v - total) / spread if spread else Decimal(0) for v in values]


def zscores(similarity: Array, first: int | None = None) -> Array:
    """`calibrate: zscore`: float64 similarities (n, c) standardised per concept over the data set, quantised.

    `first`: the mean and the deviation are those of so many rows from the front, the first run's.

    Ruling: population standard deviation; a concept with no spread gives 0.
    """
    columns = []
    for column in similarity.T.tolist():
        ratios = [value.as_integer_ratio() for value in column]
        common = max(denominator for _, denominator in ratios)  # all are powers of two
        exact = [numerator * (common // denominator) for numerator, denominator in ratios]
        with localcontext(PRECISE):
            columns.append([round(z * 10**6) for z in standardised(exact, first)])
    return np.array(columns, dtype=np.int64).T


def temperature_of(similarity: Array) -> float:
    """Automatic temperature from similarities (n, c + m) to concepts and absent prototypes together.

    Ruling: max(rint(median / 3 * 1e4) / 1e4, 0.0001), the median by numpy over rows of (largest - mean).
    """
    gaps = [max(row) - math.fsum(row) / len(row) for row in similarity.tolist()]
    return max(float(np.rint(np.median(gaps) / 3 * 1e4)) / 1e4, 0.0001)


def membership(similarity: Array, concepts: int, temperature: float) -> Array:
    """Memberships q (n, concepts) int64 in units of 1e-9; ruling: rint(q * 1e9) of the exact softmax.

    The softmax runs over all columns, concepts first; the absent prototypes after them are then dropped.
    """
    table = []
    with localcontext(PRECISE):
        for row in similarity.tolist():
            largest = Decimal(max(row))
            weights = [((Decimal(s) - largest) / Decimal(temperature)).exp() for s in row]
            total = sum(weights)
            table.append([round(weight / total * 10**9) for weight in weights[:concepts]])
    return np.array(table, dtype=np.int64)


def shares(q: Array) -> list[Fraction]:
    """Column sums of q over their sum; all 0 where every membership is 0 (the text leaves this open)."""
    sums = q.sum(axis=0).tolist()
    return [Fraction(s, sum(sums)) if any(sums) else Fraction(0) for s in sums]


def utility(q: Array, target: Sequence[Fraction], current: Sequence[Fraction]) -> tuple[list[int], int]:
    """Per row Σ q (target - current), as whole numbers and the common denominator they are over."""
    gaps = [t - s for t, s in zip(target, current, strict=True)]
    common = math.lcm(*(gap.denominator for gap in gaps))
    return (q.astype(object) @ np.array([int(gap * common) for gap in gaps], dtype=object)).tolist(), common


def target_shares(target: Target, attribute: str, names: list[str], q: Array) -> list[Fraction]:
    """Target shares of one attribute.

    Ruling: "uniform" is 1/c, "data" the data's own, otherwise attribute -> {concept: share}. This file's
    reading: a given share is the decimal as written (0.3 is 3/10), so that it can equal the data's exactly.
    """
    if target == "uniform":
        return [Fraction(1, len(names))] * len(names)
    if target == "data":
        return shares(q)
    assert not isinstance(target, str), target
    return [Fraction(str(target[attribute][name])) for name in names]


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
    rule : "semdedup", "fairdedup", "balanced", "prefer", "semdedup-chain" or "random-neighbour"
    cover : the kept sample takes only its own neighbours
    prototypes : attribute -> {concept: (d,), "absent": (m, d) optional}, or (c, d): one attribute "concept".
        Scaled here. Ruling: absent prototypes take part in `balanced`'s softmax and temperature only.
    centroids16 : (k, d) float16; without it the labels are given ones and centroids are sums
    start, calibrate, target, temperature, reserve : the rules' options
    chosen : (n,) for "random-neighbour", whose draw is the code's business: the reported representatives.
        That of a step's leader is what the step kept, so the choices can be replayed and the rest derived.
    values : (n,) numbers, for "prefer"
    protected : (n,) bool, rows that are kept first
    earlier : runs before this one, in order; the clusters and their centroids are the first one's
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
    ) -> None:
        self.x16, self.labels, self.rule, self.cover = x16, np.asarray(labels), rule, cover
        self.start, self.reserve = start, reserve
        self.chosen = None if chosen is None else np.asarray(chosen)
        self.n = len(x16)
        self.values = None if values is None else np.asarray(values).tolist()
        self.protected = np.zeros(self.n, bool) if protected is None else np.asarray(protected)
        self.clusters = {int(k): np.flatnonzero(self.labels == k) for k in np.unique(self.labels)}
        self.earlier = list(earlier)
        self.before = sum(len(day.x16) for day in self.earlier)  # rows of earlier runs stand before the new ones
        self.all16 = np.concatenate([*(day.x16 for day in self.earlier), x16])
        self.all_labels = np.concatenate([*(day.labels for day in self.earlier), self.labels])
        self.all_kept = np.concatenate([*(day.kept for day in self.earlier), np.zeros(self.n, bool)])
        centroids = centroids_of_labels(x16, self.labels) if centroids16 is None else centroids16
        self.cosines = {k: cosine_matrix(x16[rows], x16[rows]) for k, rows in self.clusters.items()}
        self.centroid_similarity = np.zeros(self.n)
        for k, rows in self.clusters.items():
            self.centroid_similarity[rows] = cosine_matrix(x16[rows], centroids[k][None])[:, 0]
        if rule == "fairdedup":
            found = self._similarities(prototypes).values()
            concepts = np.hstack([similarity[:, : len(names)] for names, similarity in found])
            first = len(self.earlier[0].x16) if self.earlier else None
            self.all_p = zscores(concepts, first) if calibrate == "zscore" else quantised(concepts)
            self.p = self.all_p[self.before :]
        if rule == "balanced":
            self._set_price(prototypes, target, temperature)

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
            asked = temperature.get(attribute, "auto") if isinstance(temperature, Mapping) else temperature
            warmth = temperature_of(similarity[:first]) if asked == "auto" else float(asked)
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
        """Rows that every eps leaves: the protected ones, and one of each cluster where nothing is kept before."""
        return sum(
            max(not self.all_kept[self.all_labels == k].any(), int(self.protected[rows].sum()))
            for k, rows in self.clusters.items()
        )

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
        if self.rule == "random-neighbour" and self.chosen is not None:
            position = {row: i for i, row in enumerate(rows.tolist())}
            chosen = self.chosen
            return lambda leader, members: position.get(int(chosen[rows[leader]]), -1)
        raise ValueError(f"no oracle for rule {self.rule!r} (random-neighbour needs `chosen`)")

    def at_eps(self, e: int) -> Decision:
        """Return what is kept at eps = e ten-thousandths, before any readmission.

        Columns (n,): cluster, kept, representative (its row), similarity (to it, float64 cosine),
        centroid_similarity, readmitted, and neighbourhood, the row of the step's leader (no such column for
        `semdedup-chain`, which has no steps). Ruling: a kept row represents itself with similarity 1.0.
        """
        representative = np.arange(self.n)
        neighbourhood = np.arange(self.n)
        by_earlier = np.full(self.n, -1)
        similarity = np.ones(self.n)
        for k, rows in self.clusters.items():
            cosines, order = self.cosines[k], visiting_order(self.centroid_similarity[rows])
            if self.rule == "semdedup-chain":
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
        """Return the whole decision at e, made up to `keep`; None where at-most or eps was asked for."""
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
    """Count the broken promises at e: pairs of kept duplicates, removed rows that nothing kept stands for.

    Pairs are of one cluster, and not both protected. Readmitted rows make none. `similarity` is not trusted: cosines
    are taken anew.
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
    """Return what is wrong with a `random` decision, whose draw is the code's business, or ""."""
    kept = np.asarray(decision["kept"])
    seats = kept_seats(keep, len(kept))
    if int(kept.sum()) != seats:
        return f"{int(kept.sum())} kept where {seats} were due"
    return "rows readmitted" if np.asarray(decision["readmitted"]).any() else ""
