"""The core decides the new rows of a line across clusters as the slow twin does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import oracles
import pytest
from nights import codes_of, earlier_of, inherited_of
from problems import AcrossProblem, assert_same, naming, random_across

from fairdedup.core.decision import Decision, decide
from fairdedup.core.decision_columns import DECIDED, EARLIER
from fairdedup.core.model import Cluster, EarlierKept, Options
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.reach import Visits, find_nearby, reach_limits
from fairdedup.in_memory import Across, ClusterInMemory, Threads, WorkspaceInMemory
from fairdedup.row_inputs import read_inputs

RULES = list(product(("semdedup", "fairdedup", "balanced", "prefer", "random-neighbour"), (False, True)))
PROBLEMS, MORE = 300, 3_000
COMPARED = (*DECIDED, EARLIER)


@dataclass
class LinePart(ClusterInMemory):
    """One cluster of a line: its new rows, which may be none, and what earlier runs kept of all clusters."""

    twin: Any = None
    old_visits: Any = None  # of the rows of earlier runs that are kept

    def clusters(self) -> Iterator[Cluster]:
        if self.rows:
            for cluster in super().clusters():
                yield Cluster(**{**vars(cluster), "earlier": earlier_of(self.twin, self.number)})

    def clusters_with_earlier(self) -> list[int]:
        return [self.number] if len(self.earlier(self.number).names) else []

    def earlier(self, cluster: int) -> EarlierKept:
        return earlier_of(self.twin, cluster)

    def earlier_visitors(self, cluster: int) -> Iterator[EarlierKept]:
        kept = np.flatnonzero(self.twin.all_kept)
        for row in kept[self.old_visits.to(self.across.place)[0]]:  # a block for each
            codes = codes_of(self.twin)
            place, within = np.array([row]), None if codes is None else codes[[row]]
            yield EarlierKept(self.twin.all16[place], place, place, within=within)


def decide_last_night(problem: AcrossProblem, twin: oracles.Problem, at_most: float | None = None) -> Decision:
    case, new = problem.case, problem.day == problem.day.max()
    protected = None if case.protected is None else case.protected[new]
    codes = codes_of(twin)
    given = read_inputs(case.x[new], None, protected, case.quality[new])
    given = replace(given, within=None if codes is None else codes[twin.before :])
    centroids = oracles.unit16(problem.centroids) if problem.centroids is not None else None
    if centroids is None:
        by_label = oracles.centroids_of_labels(oracles.unit16(case.x), case.labels)
        numbers, centroids = sorted(by_label), np.stack([by_label[k] for k in sorted(by_label)])
    else:
        numbers = list(range(len(centroids)))
    limits, before, most = reach_limits(problem.reach, case.x.shape[1]), twin.before, problem.reach_clusters
    own = np.searchsorted(numbers, twin.all_labels)
    kept = np.flatnonzero(twin.all_kept)
    visits, old_visits = (
        Visits.of(find_nearby(twin.all16[rows], own[rows], centroids, most), limits, len(numbers), eps)
        for rows, eps in ((np.arange(before, len(own)), 20_001), (kept, case.eps))
    )
    parts, without_rows = [], []
    for place, k in enumerate(numbers):
        members = np.flatnonzero(twin.labels == k)
        across = Across(visits, place) if problem.reach else None
        part = LinePart(given, k, members, centroids[place], len(parts), across, twin=twin, old_visits=old_visits)
        (parts if len(members) else without_rows).append(part)
    pinned = int(twin.protected.sum())
    options = Options(
        rule=twin.rule, cover=twin.cover, reach=problem.reach, reach_clusters=most, within=twin.within,
        **(case.options if twin.rule in ("fairdedup", "balanced") else {}),
    )  # fmt: skip
    return decide(
        parts, twin.least - pinned, options, Prototypes.of(case.prototypes), Threads(1), at_most=at_most,
        workspace=WorkspaceInMemory(parts), protected=pinned,
        inherited=inherited_of(twin, case), without_rows=without_rows,
    )  # fmt: skip


def is_without_links(problem: AcrossProblem) -> bool:
    """Tell whether a problem compares rows of one cluster only, whatever their values: other tests have such lines."""
    return problem.within is None and (not problem.reach or problem.reach_clusters == 1)


def assert_decided_as_by_the_twin(decision: Decision, expected: Any) -> None:
    columns = {name: np.concatenate([part.columns[name] for part in decision.parts]) for name in COMPARED}
    order = np.argsort(columns["row"])
    found = {name: column[order] for name, column in columns.items() if name != "row"} | {
        "readmitted": expected["readmitted"]  # nothing is re-admitted in a line
    }
    assert_same(found, expected)
    assert found[EARLIER].tolist() == expected["earlier"].tolist()


def compare(numbers: range) -> tuple[int, int]:
    """Compare the last night of a line of each number with the twin; count them, and removals by old rows elsewhere."""
    compared = crossed = 0
    for number in numbers:
        problem = random_across(number, nights=3)
        if is_without_links(problem):
            continue
        rule, cover = RULES[number % len(RULES)]
        with naming((number, rule, cover)):
            twin = problem.twin(rule, cover)
            decision, expected = decide_last_night(problem, twin), twin.at_eps(problem.case.eps)
            assert_decided_as_by_the_twin(decision, expected)
            pairs, orphans = twin.broken(expected, problem.case.eps)
            assert decision.guarantees["no_two_kept_are_duplicates"] == (not pairs)
            assert decision.guarantees["every_removed_has_a_kept_representative"] == (not orphans)
        old = expected["earlier"] >= 0
        crossed += int((twin.all_labels[expected["earlier"][old]] != twin.labels[old]).sum())
        compared += 1
    return compared, crossed


def test_the_last_of_three_nights_is_decided_as_by_the_oracle(one_thread: None) -> None:
    compared, crossed = compare(range(PROBLEMS))
    assert compared > 0.4 * PROBLEMS and crossed > compared


@pytest.mark.soak
def test_thousands_of_lines_across_clusters(one_thread: None) -> None:
    print(compare(range(PROBLEMS, PROBLEMS + MORE)))


def test_a_cap_widens_eps_for_new_rows_only(one_thread: None) -> None:
    widened = 0
    for number in range(40):
        problem = random_across(number, nights=3)
        if is_without_links(problem):
            continue
        rule, cover = RULES[number % len(RULES)]
        with naming((number, rule, cover)):
            twin = problem.twin(rule, cover, line_eps=problem.case.eps)
            swept = int(twin.at_eps(problem.case.eps)["kept"].sum())
            cap = max(twin.least, swept - 2)
            if not cap:
                continue
            decision = decide_last_night(problem, twin, at_most=cap / twin.n)
            found, first = decision.eps, problem.case.eps
            assert found is not None and twin.count(found) <= cap
            assert found == first if swept <= cap else twin.count(found - 1) > cap
            assert_decided_as_by_the_twin(decision, twin.at_eps(found))
            widened += found > first
    assert widened > 5
