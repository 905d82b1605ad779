"""The core decides new rows against the kept rows of earlier runs as the slow twin does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import oracles
import pytest
from nights import earlier_of, inherited_of, promises
from numpy.typing import NDArray
from problems import Case, assert_same, naming, random_case

from fairdedup.core.decision import Decision, decide
from fairdedup.core.decision_columns import DECIDED, EARLIER
from fairdedup.core.model import Cluster, Options
from fairdedup.core.ordered_integers import to_ordered_integers
from fairdedup.core.prototypes import Prototypes
from fairdedup.errors import UserError

SWEEPING = [
    (rule, cover) for rule in ("semdedup", "fairdedup", "balanced", "prefer", "random-neighbour")
    for cover in (False, True)
]  # fmt: skip


COMPARED = (*DECIDED, EARLIER)


@dataclass
class Part:
    """One cluster of a problem, for the core."""

    cluster: Cluster
    memo: dict[Any, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(self.cluster.rows)

    def clusters(self) -> Iterator[Cluster]:
        yield self.cluster


@dataclass(frozen=True)
class Night:
    """A problem whose rows arrived over several days; those of the last day are to be decided."""

    case: Case
    day: NDArray[np.int64]
    kept: NDArray[np.bool_]
    protected: NDArray[np.bool_]

    @property
    def new(self) -> NDArray[np.bool_]:
        return self.day == self.day.max()

    def twin(self, rule: str, cover: bool, chosen: NDArray[np.int64] | None = None) -> oracles.Problem:
        case, new = self.case, self.new
        unit = oracles.unit16(case.x)
        days = [
            oracles.Day(unit[own], case.labels[own], self.kept[own])
            for own in (self.day == d for d in range(self.day.max()))
        ]
        options = case.options if rule in ("fairdedup", "balanced") else {}
        return oracles.Problem(
            unit[new], case.labels[new], rule, cover=cover, prototypes=case.prototypes, chosen=chosen,
            centroids16=oracles.centroids_of_labels(unit, case.labels), values=case.quality[new],  # type: ignore[arg-type]
            protected=self.protected[new], earlier=days, **options,
        )  # fmt: skip

    def decide(self, rule: str, cover: bool, at_most: float | None = None) -> Decision:
        """Decide the new rows with the core, from the twin's sums over the earlier days."""
        case, problem = self.case, self.twin(rule, cover)
        centroids = oracles.centroids_of_labels(oracles.unit16(case.x), case.labels)
        values = to_ordered_integers(case.quality)[self.new]
        parts, without = [], 0
        for k, rows in problem.clusters.items():
            earlier = earlier_of(problem, k)
            protected = problem.protected[rows]
            without += not (len(earlier.names) or protected.any())
            parts.append(Part(Cluster(k, rows, problem.x16[rows], centroids[k], protected, values[rows], earlier)))
        known, inherited = Prototypes.of(case.prototypes), inherited_of(problem, case)
        options = Options(rule=rule, cover=cover, **(case.options if rule in ("fairdedup", "balanced") else {}))
        return decide(
            parts, without, options, known, lambda step, f, parts, *args: [f(p, *args) for p in parts],
            at_most=at_most, protected=int(problem.protected.sum()), inherited=inherited,
        )  # fmt: skip


def random_night(seed: int) -> Night:
    """Return a random problem over two or three days: many copies across days, and maybe clusters of new rows only."""
    case = random_case(seed)
    rng = np.random.default_rng([seed, 5])
    n, days = len(case.x), int(rng.integers(2, 4))
    if n < days:
        return random_night(seed + 10_000)
    if rng.random() < 0.3:
        case.x[rng.integers(n, size=n // 3)] = case.x[rng.integers(n, size=n // 3)]
    day = rng.integers(days, size=n)
    day[rng.permutation(n)[:days]] = np.arange(days)
    if rng.random() < 0.3:  # a cluster without rows in earlier runs
        day[(case.labels == case.labels[0]) & (day > 0)] = days - 1
    kept = (rng.random(n) < rng.choice([0.2, 0.6, 1.0])) & (day < days - 1)
    protected = (rng.random(n) < rng.choice([0.0, 0.2])) & (day == days - 1)
    return Night(case, day, kept, protected)


def table(decision: Decision) -> oracles.Decision:
    columns = {name: np.concatenate([p.columns[name] for p in decision.parts]) for name in COMPARED}
    order = np.argsort(columns["row"])
    return {name: values[order] for name, values in columns.items()} | {"readmitted": np.zeros(len(order), bool)}


def check(night: Night, rule: str, cover: bool, at_most: float | None = None) -> oracles.Decision:
    """Decide the last day and compare the whole decision with the twin, including the guarantees."""
    decision = night.decide(rule, cover, at_most)
    found = table(decision)
    problem = night.twin(rule, cover, found["representative"] if rule == "random-neighbour" else None)
    assert decision.eps is not None
    if at_most is None:
        assert decision.eps == night.case.eps
    elif rule != "random-neighbour":
        most = oracles.kept_seats(at_most, problem.n)
        assert problem.count(decision.eps) <= most
        looked_at = range(night.case.eps, decision.eps)
        assert all(problem.count(e) > most for e in [*looked_at[:20], *looked_at[-20:]])
    expected = problem.at_eps(decision.eps)
    assert_same(found, expected)
    assert (found[EARLIER] == expected["earlier"]).all()
    assert decision.kept == expected["kept"].sum()
    assert tuple(decision.guarantees.values()) == promises(problem, expected, decision.eps)
    if cover or rule == "semdedup":
        assert all(decision.guarantees.values())
    return found


def check_nights(seeds: range, rule: str, cover: bool) -> None:
    """Check random nights against the oracle, a third of them also with a limit."""
    taken = capped = 0
    for seed in seeds:
        night = random_night(seed)
        with naming(f"random_night({seed})"):
            found = check(night, rule, cover)
            taken += int((found[EARLIER] >= 0).sum())
            if seed % 3 == 0:
                problem = night.twin(rule, cover)
                fraction = np.random.default_rng(seed).integers(problem.least, problem.n + 1) / problem.n
                if fraction > 0:
                    check(night, rule, cover, at_most=fraction)
                    capped += 1
    assert taken > 4 * len(seeds) and capped > len(seeds) / 5


@pytest.mark.parametrize(("rule", "cover"), SWEEPING)
def test_new_rows_are_decided_against_earlier_ones_as_by_the_oracle(rule: str, cover: bool) -> None:
    check_nights(range(30), rule, cover)


@pytest.mark.soak
@pytest.mark.parametrize(("rule", "cover"), SWEEPING)
def test_hundreds_of_random_nights_are_decided_as_by_the_oracle(rule: str, cover: bool) -> None:
    check_nights(range(30, 600), rule, cover)


def test_a_cap_below_what_every_eps_leaves_names_the_smallest_that_works() -> None:
    night = random_night(3)
    whole = Night(night.case, night.day, np.zeros_like(night.kept), night.protected)
    least, n = whole.twin("semdedup", False).least, int(whole.new.sum())
    assert least > 1
    words = rf"every eps keeps at least {least} \(.* give at least `at_most=0\."
    with pytest.raises(UserError, match=words) as refused:
        whole.decide("semdedup", False, at_most=(least - 0.6) / n)
    smallest = float(str(refused.value).rsplit("=", 1)[1].rstrip("`"))
    assert whole.decide("semdedup", False, at_most=smallest).kept == least


def test_nothing_is_kept_where_everything_is_a_copy_of_what_was_kept() -> None:
    x = np.random.default_rng(0).normal(size=(6, 5))
    case = Case(np.concatenate([x, x]), np.zeros(12, np.int64), {"a": {"p": x[0]}}, 1, 0.5)
    night = Night(case, np.repeat([0, 1], 6), np.arange(12) < 6, np.zeros(12, bool))
    for at_most in (None, 0.01):
        decision = night.decide("fairdedup", True, at_most)
        assert decision.kept == 0 and decision.eps == 1
        assert table(decision)[EARLIER].tolist() == list(range(6))
