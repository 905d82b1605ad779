"""Seeded problems for the tests of the core, and the comparison of a result with the slow twin (oracles/).

A problem is a clustered data set with prototypes, an eps and a keep fraction. Random problems mix near duplicates at
every distance, copies, integers, a common offset (as in real CLIP vectors) and uneven lengths. Most values of eps are
the distance of a pair in the data, or next to it. Nothing here uses the internals of the package.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import oracles
from numpy.typing import NDArray

from fairdedup import deduplicate
from fairdedup.api import Result

RULES_AND_COVER = [
    ("semdedup", False), ("semdedup", True), ("fairdedup", False), ("fairdedup", True), ("balanced", False),
    ("balanced", True), ("prefer", False), ("prefer", True), ("random-neighbour", False), ("random-neighbour", True),
    ("semdedup-chain", False),
]  # fmt: skip
COMPARED = ("cluster", "neighbourhood", "kept", "representative", "similarity", "centroid_similarity", "readmitted")
LARGEST_EPS = 20_001
NUMBERS = [0, 1, 2, 3, 17, 1000, 2**31, 2**40, 2**62, 2**63 - 1]  # numbers of clusters: labels need not be consecutive


@dataclass(frozen=True)
class Case:
    """A data set with given labels, and the options of its decisions.

    Attributes
    ----------
    x : ndarray of shape (n, d)
    labels : ndarray of shape (n,), int64
    prototypes : mapping attribute -> {concept: (d,)}
    eps : int
        Ten-thousandths.
    keep : float
        Enough for one row of each cluster.
    options : dict
        Those of `fairdedup` (start, calibrate) and of `balanced` (target, temperature, reserve).
    values : ndarray of shape (n,), optional
        Values for `prefer`; by default small numbers with many ties.
    protected : ndarray of shape (n,), bool, optional
    """

    x: NDArray[Any]
    labels: NDArray[np.int64]
    prototypes: dict[str, dict[str, Any]]
    eps: int
    keep: float
    options: dict[str, Any] = field(default_factory=dict)
    values: NDArray[Any] | None = None
    protected: NDArray[np.bool_] | None = None

    @property
    def quality(self) -> NDArray[Any]:
        return np.arange(len(self.x)) * 7 % 5 - 2 if self.values is None else self.values

    @property
    def clusters(self) -> int:
        return len(np.unique(self.labels))


def random_vectors(rng: np.random.Generator, n: int, d: int) -> NDArray[Any]:
    """Return n vectors around a few bases, near and far, with copies, of one of several kinds."""
    bases = rng.normal(size=(int(rng.integers(1, n + 1)), d))
    x = bases[rng.integers(len(bases), size=n)] + rng.normal(size=(n, d)) * 10 ** rng.uniform(-4, 0.3)
    manner = rng.integers(6)
    if manner == 1:
        x = x + 4 * rng.normal(size=d)  # a common offset: all cosines are high
    elif manner == 2:
        x = np.rint(x * rng.integers(1, 4))  # thousands of exact ties
    elif manner == 3:
        x = x[rng.integers(n, size=n)]  # exact copies
    elif manner == 4:
        x = x * rng.choice([-1.0, 1.0], size=(n, 1))  # antipodes
    x = x * 10 ** rng.normal(size=(n, 1))
    x[np.abs(x).max(axis=1) == 0, 0] = 1.0
    return x


def random_prototypes(rng: np.random.Generator, x: NDArray[Any]) -> dict[str, dict[str, Any]]:
    """Return one to three attributes with concepts near the data, some with absent prototypes."""
    directions = oracles.unit16(x).astype(np.float64)
    found: dict[str, dict[str, Any]] = {}
    for a in range(int(rng.integers(1, 4))):
        concepts, absent = int(rng.integers(1, 5)), int(rng.integers(0, 3))
        near = directions[rng.integers(len(x), size=concepts + absent)]
        vectors = near + rng.normal(size=near.shape) * 10 ** rng.uniform(-1.5, 0.3, size=(len(near), 1))
        found[f"attribute {a}"] = {f"concept {c}": vectors[c] for c in range(concepts)}
        if absent:
            found[f"attribute {a}"]["absent"] = vectors[-1] if absent == 1 else vectors[concepts:]
    return found


def random_options(rng: np.random.Generator, prototypes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return options of `fairdedup` and `balanced`; the other rules ignore them."""
    target: Any = ("uniform", "data", "given")[rng.integers(3)]
    if target == "given":
        target = {}
        for attribute, concepts in prototypes.items():
            names = [name for name in concepts if name != "absent"]
            parts = rng.multinomial(1000, np.full(len(names), 1 / len(names)))
            target[attribute] = {name: int(part) / 1000 for name, part in zip(names, parts, strict=True)}
    temperature: Any = "auto" if rng.random() < 0.7 else float(10 ** rng.uniform(-4, 0))
    if temperature != "auto" and rng.random() < 0.5:  # some attributes have their own
        temperature = {name: float(10 ** rng.uniform(-4, 0)) for name in prototypes if rng.random() < 0.7}
    return {
        "start": ("cluster", "zero")[rng.integers(2)],
        "calibrate": ("none", "zscore")[rng.integers(2)],
        "target": target,
        "temperature": temperature,
        "reserve": (0.0, 0.1, 0.3)[rng.integers(3)],
    }


def random_values(rng: np.random.Generator, n: int) -> NDArray[Any]:
    """Return values for `prefer`: floats, some missing or infinite, or integers, with ties or extreme."""
    floats = np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n) * 10.0 ** rng.integers(-300, 300, size=n))
    odd = rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, -5e-324, 1.0], size=n)
    ends = rng.choice(np.array([-(2**63) + 1, -1, 0, 2**53, 2**53 + 1, 2**63 - 1]), size=n)
    return (floats, odd, ends, rng.integers(0, 4, size=n).astype(np.uint8), odd.astype(np.float32))[rng.integers(5)]


def protect(case: Case, seed: int) -> Case:
    """Return the case with protected rows (few, many, a whole cluster or all), and a keep fraction that allows them."""
    rng = np.random.default_rng([seed, 77])
    n = len(case.x)
    protected = rng.random(n) < rng.choice([1.5 / n, 0.1, 0.5, 1.0], p=[0.35, 0.4, 0.2, 0.05])
    if rng.random() < 0.1:
        protected |= case.labels == case.labels[0]
    least = sum(max(1, int(protected[case.labels == k].sum())) for k in np.unique(case.labels))
    keep = int(rng.integers(least, n + 1)) / n if rng.random() < 0.8 else least / n
    return replace(case, protected=protected, keep=keep)


def eps_of_pair(x: NDArray[Any]) -> int:
    """Return the smallest eps, in ten-thousandths, at which the two vectors of x are duplicates."""
    unit = oracles.unit16(x)
    cosine = oracles.cosine_matrix(unit[:1], unit[1:])[0, 0]
    return next(
        e for e in range(max(0, math.floor((1 - cosine) * 10_000) - 1), LARGEST_EPS + 1) if cosine > 1 - e / 1e4
    )


def random_eps(rng: np.random.Generator, x: NDArray[Any]) -> int:
    """Return an eps: the distance of a pair or just under or above it, or a random or an extreme value."""
    draw = rng.random()
    if draw < 0.05:
        return int(rng.choice([0, 1, 10_000, 10_001, 19_999, 20_000, LARGEST_EPS]))
    if draw < 0.2:
        return int(rng.integers(0, LARGEST_EPS + 1))
    return int(np.clip(eps_of_pair(x[rng.integers(len(x), size=2)]) + rng.integers(-1, 2), 0, LARGEST_EPS))


def random_case(seed: int) -> Case:
    """Return the random problem of this number: 1 to 120 rows of 1 to 24 values in 1 to 10 clusters."""
    rng = np.random.default_rng([seed, 2024])
    n = round(math.exp(rng.uniform(0, math.log(120)))) if seed % 4 else int(rng.integers(40, 121))
    x = random_vectors(rng, n, int(rng.integers(1, 25)))
    numbers = rng.choice(np.array(NUMBERS), size=int(rng.integers(1, 11)), replace=False)
    labels = rng.choice(numbers, size=n)
    prototypes = random_prototypes(rng, x)
    seats = int(rng.integers(len(np.unique(labels)), n + 1))
    keep = seats / n if rng.random() < 0.9 else 1.0
    eps, options = random_eps(rng, x), random_options(rng, prototypes)
    return Case(x, labels, prototypes, eps, keep, options, random_values(rng, n))


def run(case: Case, rule: str, cover: bool = False, **changes: Any) -> Result:
    """Decide a case; `changes` override the arguments of `deduplicate`, and include keep, at_most or eps."""
    arguments = {
        "rule": rule, "cover": cover, "clusters": case.labels, "prototypes": case.prototypes, **case.options,
        "prefer": case.quality if rule == "prefer" else None, "always_keep": case.protected,
    }  # fmt: skip
    return deduplicate(case.x, **{**arguments, **changes})


def twin(case: Case, rule: str, cover: bool = False, result: Result | None = None) -> oracles.Problem:
    """Return the slow twin's problem; for `random-neighbour` it replays the choices in the result."""
    options = case.options if rule in ("fairdedup", "balanced") else {}
    chosen = None if result is None or rule != "random-neighbour" else result.decisions["representative"]
    return oracles.Problem(
        oracles.unit16(case.x), case.labels, rule, cover=cover, prototypes=case.prototypes, chosen=chosen,
        values=case.quality, protected=case.protected, **options,
    )  # fmt: skip


def units(eps: float | None) -> int:
    """Return a reported eps in ten-thousandths."""
    assert eps is not None
    assert round(eps * 10_000) / 10_000 == eps
    return round(eps * 10_000)


def columns(result: Result) -> oracles.Decision:
    """Return the decisions of a result in the form of the oracle's."""
    return {name: result.decisions[name].to_numpy() for name in COMPARED}


def assert_same(found: oracles.Decision, expected: oracles.Decision) -> None:
    """Compare all columns that both have, floats to the last bit."""
    for name in COMPARED:
        if name in expected:
            wrong = np.flatnonzero(found[name] != expected[name])
            assert not len(wrong), (
                f"{name} of rows {wrong[:9]}: {found[name][wrong[:9]]}, by the oracle {expected[name][wrong[:9]]}"
            )


def assert_promises(result: Result, case: Case, e: int, *, chain: bool = False) -> None:
    """Compare the recorded guarantees with the oracle's count of violations, apart from readmitted rows.

    A chain's representative may be readmitted; the record may then guarantee less than is true, but never more.
    """
    pairs, orphans = oracles.guarantees(oracles.unit16(case.x), columns(result), e, case.protected)
    distinct, represented = result.guarantees.values()
    assert list(result.guarantees) == ["no_two_kept_are_duplicates", "every_removed_has_a_kept_representative"]
    assert distinct == (pairs == 0)
    if chain and result.counts["readmitted"]:
        assert orphans == 0 or not represented
    else:
        assert represented == (orphans == 0)


def check_eps(case: Case, rule: str, cover: bool = False, eps: int | None = None) -> Result:
    """Decide a case at an eps (its own by default) and compare the whole decision with the twin's."""
    e = case.eps if eps is None else eps
    result = run(case, rule, cover, eps=e / 10_000)
    assert units(result.eps) == e
    assert_same(columns(result), twin(case, rule, cover, result).at_eps(e))
    assert_promises(result, case, e)
    return result


def check_keep(
    case: Case, rule: str, cover: bool = False, keep: float | None = None, *, at_most: bool = False
) -> Result:
    """Decide a case at a fraction (its own by default), and check the count, the bracket, and the twin's decision."""
    fraction = case.keep if keep is None else keep
    result = run(case, rule, cover, **{"at_most" if at_most else "keep": fraction})
    e = units(result.eps)
    problem = twin(case, rule, cover, result)
    seats = oracles.kept_seats(fraction, problem.n)
    assert len(result.kept) <= seats if at_most else len(result.kept) == seats
    if rule != "random-neighbour":  # its choices are known at e alone, while the bracket looks at e - 1 too
        assert problem.brackets(e, problem.searched_seats(fraction, at_most=at_most))
    assert_same(columns(result), problem.decide(e, None if at_most else fraction))
    assert_promises(result, case, e, chain=rule == "semdedup-chain")
    return result


@contextmanager
def naming(what: object) -> Iterator[None]:
    """Add the name of the case to any error inside the block."""
    try:
        yield
    except Exception as error:
        error.add_note(f"in {what}")
        raise


@dataclass(frozen=True)
class AcrossProblem:
    """A problem with duplicates across clusters, and what is compared there.

    Attributes
    ----------
    case : Case
        `protected` is of rows of the last day only.
    centroids : ndarray of shape (k, d), optional
        The labels are the nearest of these. Without them the labels are given ones.
    reach, reach_clusters : the options of these names
    within : list of n values, optional
        Some are missing.
    day : ndarray of shape (n,), int64
        The night on which each row arrived, from 0; the rows of the last night are to be decided.
    """

    case: Case
    centroids: NDArray[Any] | None
    reach: str | float
    reach_clusters: int
    within: list[Any] | None
    day: NDArray[np.int64]

    def twin(self, rule: str, cover: bool = False, **changes: Any) -> oracles.Problem:
        """Return the slow twin's problem of the last night; it decides the nights before at the case's eps."""
        case, unit, earlier = self.case, oracles.unit16(self.case.x), []
        centroids: Any = None if self.centroids is None else oracles.unit16(self.centroids)
        if centroids is None and self.day.any():  # of given labels: those of all rows, so that they are the line's
            centroids = oracles.centroids_of_labels(unit, case.labels)
        for night in range(int(self.day.max()) + 1):
            own = np.flatnonzero(self.day == night)
            within = None if self.within is None else [self.within[i] for i in own]
            options: dict[str, Any] = {
                "cover": cover, "prototypes": case.prototypes, "centroids16": centroids, "values": case.quality[own],
                "protected": None if case.protected is None else case.protected[own], "earlier": tuple(earlier),
                "reach": self.reach, "reach_clusters": self.reach_clusters, "within": within, "seed": 0,
                **(case.options if rule in ("fairdedup", "balanced") else {}), **changes,
            }  # fmt: skip
            problem = oracles.Problem(unit[own], case.labels[own], rule, **options)
            if night < self.day.max():
                kept = problem.at_eps(case.eps)["kept"]
                earlier.append(oracles.Day(unit[own], case.labels[own], kept, within))
        return problem


def random_across(seed: int, nights: int | None = None) -> AcrossProblem:
    """Return a random problem of 2 to 12 clusters whose borders run through near duplicates, copies and ties.

    Two of three are of one night, the others of three; `nights` says how many instead.
    """
    rng = np.random.default_rng([seed, 515])
    n, d, k = int(rng.integers(8, 100)), int(rng.integers(2, 17)), int(rng.integers(2, 13))
    bases = rng.normal(size=(int(rng.integers(1, n // 2 + 1)), d))
    x = bases[rng.integers(len(bases), size=n)] + rng.normal(size=(n, d)) * 10 ** rng.uniform(-1.5, 0.1)
    if rng.random() < 0.5:
        x = np.rint(x * rng.integers(1, 4))  # ties, and exact copies
    if rng.random() < 0.3:
        x[rng.integers(n, size=n // 3)] = x[rng.integers(n, size=n // 3)]
    x[np.abs(x).max(axis=1) == 0, 0] = 1.0
    centroids = None
    if rng.random() < 0.5:  # random labels split copies too; some cluster numbers may be empty
        labels = rng.choice(rng.choice(np.array(NUMBERS), size=min(k, len(NUMBERS)), replace=False), size=n)
    else:
        centroids = x[rng.integers(n, size=k)] + 0.3 * rng.normal(size=(k, d))
        labels = oracles.assign(oracles.unit16(x), oracles.unit16(centroids))
    days = nights or (1, 1, 3)[rng.integers(3)]
    day = np.where(rng.random(n) < 0.6, days - 1, rng.integers(days, size=n))  # most rows are of the last night
    day[rng.permutation(n)[:days]] = np.arange(days)
    protected = None
    if rng.random() < 0.3:
        protected = (rng.random(n) < 0.15) & (day == days - 1)
    within = None
    if rng.random() < 0.25:
        within = [("a", "b", "", None, float("nan"))[i] for i in rng.integers(5, size=n)]
    reach: Any = ("auto", "auto", "auto", 0, float(10 ** rng.uniform(-2, 0.3)), 0.05, 2.0, 2.0)[rng.integers(8)]
    reach_clusters = int(rng.choice([1, 2, 16], p=[0.15, 0.3, 0.55]))
    prototypes = random_prototypes(rng, x)
    pair = x[[0, int(rng.integers(1, n))]]
    near = oracles.cosine_matrix(oracles.unit16(x), oracles.unit16(x)) - 3 * np.eye(n)
    if rng.random() < 0.85:  # mostly the distance of a row to one of its nearest: not everything falls into one
        i = int(rng.integers(n))
        pair = x[[i, int(np.argsort(-near[i])[rng.integers(min(4, n - 1))])]]
    eps = int(np.clip(eps_of_pair(pair) + rng.integers(-1, 2), 1, LARGEST_EPS))
    last, pinned = day == days - 1, np.zeros(n, bool) if protected is None else protected
    values = oracles.group_by_value(within or [None] * n)
    ours, theirs = ({(int(labels[i]), values[i]) for i in np.flatnonzero(own)} for own in (last, pinned))
    least = len(ours - theirs) + int(pinned.sum())
    keep = int(rng.integers(least, last.sum() + 1)) / int(last.sum())
    options = random_options(rng, prototypes)
    case = Case(x, labels, prototypes, eps, keep, options, rng.integers(0, 4, size=n), protected)
    return AcrossProblem(case, centroids, reach, reach_clusters, within, day)
