"""The whole decision over parts of a clustered data set: survey, search eps, decide, re-admit.

Each step maps a pure function over parts and combines small results, so that the same code decides in memory and on
a Dask cluster: only `Run`, which maps, differs. A part gives clusters one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from operator import add
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fairdedup.core import keep_fraction as kf
from fairdedup.core import prototypes as pt
from fairdedup.core.chain import most_similar_earlier
from fairdedup.core.cover import closest_kept_pair_is_distinct, cover_sweep, graph
from fairdedup.core.moments import MembershipMoments, Moments, shares
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.rules import (
    NEEDS_PROTOTYPES,
    RULES,
    SWEEPING,
    Balanced,
    FairDeDup,
    RandomNeighbour,
    Rule,
    SemDeDup,
    choose,
    row_hash,
)
from fairdedup.core.similarity import (
    EPS_UNIT,
    MAX_EPS,
    Vectors,
    cosine_of_pairs,
    cosine_to_one,
    eps_needed,
    quantised,
)
from fairdedup.core.sweep import Sweep, sweep, visiting_order
from fairdedup.errors import FairdedupError, UserError

SAMPLE_ROWS = 4096  # eps is bracketed on whole clusters of at least so many rows, drawn by the seed
SAMPLE_PARTS = 8
SAMPLE_REACH = 320  # ten-thousandths to either side of the first look
SAMPLE_TOLERANCE = 12
SAMPLE_FROM = 8 * SAMPLE_ROWS  # below, all clusters are as quick as a sample
SHORTFALL_WARNING = 0.01
GUARANTEES = ("no_two_kept_are_duplicates", "every_removed_has_a_kept_representative")


@dataclass(frozen=True)
class Options:
    """What is decided, and how; see docs/rules.md for the meaning of each.

    Raises
    ------
    UserError
        If a value is unknown or out of range, or `cover` is asked of a rule that does not sweep.
    """

    rule: str = "fairdedup"
    cover: bool = False
    seed: int = 0
    start: str = "cluster"
    calibrate: str = "none"
    target: Any = "uniform"
    temperature: float | str = "auto"
    reserve: float = 0.1

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise UserError(f"rule {self.rule!r} is unknown: choose one of {', '.join(RULES)}")
        if self.cover and self.rule not in SWEEPING:
            raise UserError(f"cover does not go with rule {self.rule!r}: choose one of {', '.join(SWEEPING)}")
        for name, value, known in (
            ("start", self.start, ("cluster", "zero")),
            ("calibrate", self.calibrate, ("none", "zscore")),
        ):
            if value not in known:
                raise UserError(f"{name} {value!r} is unknown: choose one of {', '.join(known)}")
        if not isinstance(self.target, Mapping) and self.target not in ("uniform", "data"):
            raise UserError(f"target {self.target!r} is unknown: choose uniform, data or {{attribute: shares}}")
        if self.temperature != "auto" and not (
            isinstance(self.temperature, (int, float)) and 0 < self.temperature < float("inf")
        ):
            raise UserError(f"temperature {self.temperature!r} is no number above 0: give one, or auto")
        if not 0 <= self.reserve <= 0.3:
            raise UserError(f"reserve {self.reserve:g} is out of range: give 0 to 0.3")


@dataclass(frozen=True)
class Cluster:
    """The rows of one cluster.

    Attributes
    ----------
    number : int
    rows : ndarray of shape (n,), int64, ascending
    unit : ndarray of shape (n, d), float16
    centroid : ndarray of shape (d,), float16
        Zero where the cluster's sum is zero.
    """

    number: int
    rows: NDArray[np.int64]
    unit: NDArray[np.float16]
    centroid: NDArray[np.float16]


class Part(Protocol):
    """Some clusters of the data set, read one at a time.

    Attributes
    ----------
    rows : int
        Rows in it.
    memo : dict
        What a pass may leave for the next in the same process; never needed, only quicker.
    """

    @property
    def rows(self) -> int:
        """Number of rows."""
        ...

    @property
    def memo(self) -> dict[Any, Any]:
        """What a pass may leave for the next in the same process."""
        ...

    def clusters(self) -> Iterator[Cluster]:
        """Yield the clusters, always in the same order."""
        ...


class Run(Protocol):
    """Maps a function over parts and returns the results in the order of the parts."""

    def __call__(self, step: str, function: Callable[..., Any], parts: Sequence[Any], *args: Any) -> list[Any]:
        """Apply ``function(part, *args)`` to each part."""
        ...


@dataclass(frozen=True)
class Plan:
    """Everything that a cluster needs to know of the rest of the data set.

    Attributes
    ----------
    temperatures : tuple of float
        Of each attribute (`balanced`).
    memberships : tuple of MembershipMoments
        Of each attribute over the data set (`balanced`).
    targets, weights : tuple of ndarray of shape (c,), float64
        Target shares, and target minus the data set's shares.
    means, stds : tuple of float
        Of the price u of each attribute.
    moments : Moments or None
        Of the similarity to each concept (`calibrate: zscore`).
    """

    options: Options
    prototypes: Prototypes | None = None
    temperatures: tuple[float, ...] = ()
    memberships: tuple[MembershipMoments, ...] = ()
    targets: tuple[NDArray[np.float64], ...] = ()
    weights: tuple[NDArray[np.float64], ...] = ()
    means: tuple[float, ...] = ()
    stds: tuple[float, ...] = ()
    moments: Moments | None = None


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


@dataclass
class Decision:
    """The decision over all parts.

    Attributes
    ----------
    eps : int or None
        Ten-thousandths; None for `random`.
    parts : list
        What the `decide` step gave for each part.
    readmitted : ndarray of shape (r,), int64, ascending
    kept : int
    """

    eps: int | None
    parts: list[Any]
    readmitted: NDArray[np.int64]
    kept: int
    guarantees: dict[str, bool]
    warnings: list[str] = field(default_factory=list)
    plan: Plan | None = None


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


def memberships(vectors: Vectors, plan: Plan) -> list[NDArray[np.int64]]:
    """Return each attribute's memberships (n, c) in units of 1e-9."""
    assert plan.prototypes is not None
    similarity = plan.prototypes.similarity(vectors, absent=True)
    return [
        pt.membership(s, t, len(a.concepts))
        for s, t, a in zip(similarity, plan.temperatures, plan.prototypes.attributes, strict=True)
    ]


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


# Steps: pure functions of a part. They travel to Dask workers, so they stay at module level.


def survey_gaps(part: Part, plan: Plan) -> list[NDArray[np.float64]]:
    """Return each attribute's gaps (n,): what the temperature `auto` is the median of."""
    assert plan.prototypes is not None
    gaps: list[list[NDArray[np.float64]]] = [[] for _ in plan.prototypes.attributes]
    for cluster in part.clusters():
        for values, s in zip(gaps, plan.prototypes.similarity(Vectors.of(cluster.unit), absent=True), strict=True):
            values.append(pt.gap(s))
    return [np.concatenate(values) for values in gaps]


def survey_memberships(part: Part, plan: Plan) -> list[MembershipMoments]:
    """Return the moments of each attribute's memberships."""
    found = [[MembershipMoments.of(q) for q in memberships(Vectors.of(c.unit), plan)] for c in part.clusters()]
    return [reduce(add, per_attribute) for per_attribute in zip(*found, strict=True)]


def survey_moments(part: Part, plan: Plan) -> Moments:
    """Return the moments of the similarity to each concept."""
    assert plan.prototypes is not None
    return reduce(add, (
        Moments.of(np.concatenate(plan.prototypes.similarity(Vectors.of(c.unit), absent=False), axis=1))
        for c in part.clusters()
    ))  # fmt: skip


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


# The conductor.


def survey(parts: Sequence[Part], options: Options, prototypes: Prototypes | None, run: Run) -> Plan:
    """Collect what the rule needs to know of the whole data set."""
    plan = Plan(options, prototypes if options.rule in NEEDS_PROTOTYPES else None)
    if options.rule in NEEDS_PROTOTYPES and prototypes is None:
        raise UserError(
            f"rule {options.rule!r} needs prototypes and there are none: name the model that made the embeddings "
            "(--model), bring prototype vectors (--prototypes), or use a rule that needs none (--rule semdedup)"
        )
    if options.rule == "fairdedup" and options.calibrate == "zscore":
        return replace(plan, moments=reduce(add, run("survey", survey_moments, parts, plan)))
    if options.rule != "balanced":
        return plan
    assert prototypes is not None
    if options.temperature == "auto":
        gaps = run("survey", survey_gaps, parts, plan)
        temperatures = tuple(pt.auto_temperature(np.concatenate(g)) for g in zip(*gaps, strict=True))
    else:
        temperatures = (float(options.temperature),) * len(prototypes.attributes)
    plan = replace(plan, temperatures=temperatures)
    found = run("survey", survey_memberships, parts, plan)
    moments = tuple(reduce(add, m) for m in zip(*found, strict=True))
    _check_target(options.target, prototypes)
    targets = tuple(
        pt.target_shares(options.target, a, m.sums) for a, m in zip(prototypes.attributes, moments, strict=True)
    )
    weights = tuple(t - shares(m.sums) for t, m in zip(targets, moments, strict=True))
    spread = [m.mean_and_std(w) for m, w in zip(moments, weights, strict=True)]
    means, stds = tuple(s[0] for s in spread), tuple(s[1] for s in spread)
    return replace(plan, memberships=moments, targets=targets, weights=weights, means=means, stds=stds)


def _check_target(target: Any, prototypes: Prototypes) -> None:
    if isinstance(target, Mapping):
        names = [a.name for a in prototypes.attributes]
        for name in target:
            if name not in names:
                raise UserError(f"target names attribute {name!r}: the prototypes have {', '.join(names)}")


def _guess(parts: Sequence[Part], plan: Plan, target: int, valid: int, run: Run) -> int | None:
    """Bracket eps on a seeded sample of parts; None where the data set is small."""
    if valid < SAMPLE_FROM or len(parts) < 4:
        return None
    order = np.argsort(row_hash(np.arange(len(parts)), plan.options.seed), kind="stable")
    sizes = np.array([p.rows for p in parts])[order]
    within = np.cumsum(sizes)
    number = min(SAMPLE_PARTS, int(np.searchsorted(within, valid / 4, side="right")))
    number = max(number, int(np.searchsorted(within, SAMPLE_ROWS)) + 1)
    rough = max(1, int(np.searchsorted(within, SAMPLE_ROWS)) + 1)
    if 2 * within[number - 1] > valid:
        return None
    guess: int | None = None
    # A first look at a few rows spares the larger sample the values of eps that are far off.
    for few, reach in ((rough, 0), (number, SAMPLE_REACH)):
        chosen, rows = [parts[k] for k in order[:few]], int(within[few - 1])
        counts = partial(_total, chosen, plan=plan, run=run, step="sample")
        guess = kf.find_eps(counts, max(1, round(target * rows / valid)), guess, reach, SAMPLE_TOLERANCE)
    return guess


def _total(parts: Sequence[Part], eps: list[int], *, plan: Plan, run: Run, step: str) -> list[int]:
    return np.sum(run(step, count_kept, parts, eps, plan), axis=0).tolist()


def search_eps(parts: Sequence[Part], plan: Plan, target: int, valid: int, run: Run) -> int:
    """Find an eps that brackets a number of kept rows; see `keep_fraction.find_eps`."""
    if target >= valid:
        return 0
    guess = None
    if plan.options.cover:
        # Without cover the sweep does not depend on the rule, and its eps is near.
        plain = replace(plan, options=replace(plan.options, rule="semdedup", cover=False), prototypes=None)
        guess = search_eps(parts, plain, target, valid, run)
    elif plan.options.rule != "semdedup-chain":
        guess = _guess(parts, plan, target, valid, run)
    return kf.find_eps(partial(_total, parts, plan=plan, run=run, step="search"), target, guess)


def decide(
    parts: Sequence[Part],
    clusters: int,
    options: Options,
    prototypes: Prototypes | None,
    run: Run,
    keep: float | None = None,
    at_most: float | None = None,
    eps: int | None = None,
    decide_step: Callable[..., Any] = decide_part,
    removed_of: Callable[[Any], tuple[NDArray[np.int64], NDArray[np.float64], list[NDArray[np.int64]]]] | None = None,
) -> Decision:
    """Decide which rows are kept.

    Parameters
    ----------
    parts : sequence of Part
    clusters : int
        Number of clusters that are not empty.
    options : Options
    prototypes : Prototypes or None
    run : Run
    keep, at_most : float, optional
        Fraction of the valid rows, exactly or at most.
    eps : int, optional
        Ten-thousandths. One of the three is given.
    decide_step : callable
        `decide_part`, or a wrapper of it that stores its result and returns what `removed_of` reads.

    Returns
    -------
    Decision

    Raises
    ------
    UserError
        If the options do not fit each other or the data.
    """
    given = [v for v in (keep, at_most, eps) if v is not None]
    if len(given) != 1:
        raise UserError(f"{len(given)} of keep, at-most and eps are given: give one, as in --keep 0.5")
    valid = sum(p.rows for p in parts)
    if not valid:
        raise UserError("no row is valid: there is nothing to decide; see the rejected rows for the reasons")
    fraction = keep if keep is not None else at_most
    if options.rule == "random" and eps is not None:
        raise UserError("rule 'random' has no eps: give --keep or --at-most")
    target = kf.kept_target(fraction, valid) if fraction is not None else None
    if target is not None and target < clusters and options.rule != "random":
        raise UserError(
            f"keep {fraction:g} of {valid} rows is {target}, fewer than one for each of {clusters} clusters: "
            f"keep at least {kf.smallest_fraction(clusters, valid):g} or use fewer clusters"
        )
    if target is not None and target < 1:
        raise UserError(f"keep {fraction:g} of {valid} rows is none: keep at least {kf.smallest_fraction(1, valid):g}")
    plan = survey(parts, options, prototypes, run)
    warnings: list[str] = []
    if options.rule == "random":
        assert target is not None
        rows = np.sort(np.concatenate(run("list", list_rows, parts)))
        chosen = rows[np.lexsort((rows, row_hash(rows, options.seed)))[:target]]
        results = run("decide", decide_step, parts, MAX_EPS, plan, np.sort(chosen))
        return Decision(None, results, np.empty(0, np.int64), target, dict.fromkeys(GUARANTEES, False), plan=plan)
    searched = target
    if eps is None:
        assert target is not None
        if options.rule == "balanced" and keep is not None and target < valid:
            searched = max(clusters, int(np.floor(target * (1 - options.reserve) + 0.5)))
        assert searched is not None
        eps = search_eps(parts, plan, searched, valid, run)
    results = run("decide", decide_step, parts, eps, plan, None)
    removed_of = removed_of or _removed_in_memory
    kept = valid
    guarantees = dict.fromkeys(GUARANTEES, True)
    removed: list[Any] = []
    for result in results:
        part_removed = removed_of(result)
        removed.append(part_removed)
        kept -= len(part_removed[0])
        guarantees[GUARANTEES[0]] &= result.distinct
        guarantees[GUARANTEES[1]] &= result.represented
    _check_promises(options, guarantees)
    readmitted = np.empty(0, np.int64)
    if keep is not None and target is not None and kept < target:
        assert searched is not None
        if searched - kept > SHORTFALL_WARNING * target:
            warnings.append(
                f"{searched - kept} of {target} kept samples are re-admitted duplicates, more than 1 %: the data "
                f"holds many exact copies; --keep {kept / valid:.4g} keeps none of them"
            )
        rows = np.concatenate([r[0] for r in removed])
        similarity = np.concatenate([r[1] for r in removed])
        if options.rule == "balanced":
            soft = [np.concatenate(q) for q in zip(*(r[2] for r in removed), strict=True)]
            readmitted = _seats(rows, similarity, soft, plan, target - kept)
        else:
            readmitted = kf.readmit(rows, similarity, target - kept)
        kept = target
    return Decision(eps, results, np.sort(readmitted), kept, guarantees, warnings, plan)


def _seats(
    rows: NDArray[np.int64],
    similarity: NDArray[np.float64],
    soft: list[NDArray[np.int64]],
    plan: Plan,
    seats: int,
) -> NDArray[np.int64]:
    kept_sums = [
        tuple(int(a) - int(b) for a, b in zip(m.sums, q.sum(axis=0), strict=True))
        for m, q in zip(plan.memberships, soft, strict=True)
    ]
    stds = [m.mean_and_std(t - shares(s))[1] for m, t, s in zip(plan.memberships, plan.targets, kept_sums, strict=True)]
    return kf.fill_seats(rows, similarity, soft, kept_sums, list(plan.targets), stds, seats)


def _removed_in_memory(result: Decided) -> tuple[NDArray[np.int64], NDArray[np.float64], list[NDArray[np.int64]]]:
    removed = ~result.columns["kept"]
    return (
        result.columns["row"][removed],
        result.columns["similarity"][removed],
        [q[removed] for q in result.memberships],
    )


def _check_promises(options: Options, guarantees: dict[str, bool]) -> None:
    """Hold the rule to what it promises; a broken promise is a defect of ours, never a result."""
    promised = options.cover or options.rule == "semdedup"
    if promised and not all(guarantees.values()):
        raise FairdedupError(
            f"rule {options.rule!r} broke a guarantee ({guarantees}): nothing was written; please report this"
        )


def in_order(step: str, function: Callable[..., Any], parts: Iterable[Any], *args: Any) -> list[Any]:
    """Map over parts one after the other."""
    return [function(part, *args) for part in parts]
