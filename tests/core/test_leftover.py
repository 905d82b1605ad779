"""The leftover equals the oracle's, in any blocks and any precision; its intervals are those of Clopper and Pearson."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from oracles.reach import Reaching
from problems import AcrossProblem, columns, naming, random_across, units

from fairdedup import UserError, deduplicate
from fairdedup.core import cross_links, leftover, pair_graph
from fairdedup.core.approximate import approximate_in_int8
from fairdedup.core.leftover import (
    ALL_HASHES,
    KeptRows,
    Leftover,
    Sample,
    bound_hashes,
    choose_sample,
    count_leftover,
    find_duplicates,
    find_interval,
)

RULES = list(product(("semdedup", "fairdedup", "balanced", "prefer", "random-neighbour"), (False, True)))
RULES += [("semdedup-chain", False)]
E1, E2, E3 = np.eye(3)


def counts(found: Leftover) -> oracles.Leftover:
    return oracles.Leftover(found.looked_up, found.own, found.comparable, found.elsewhere, found.any)


def compare(problem: AcrossProblem, rule: str, cover: bool, size: int, seed: int, **amount: Any) -> oracles.Leftover:
    """Compare the leftover of a decision with the oracle's, and return it."""
    reach = {"reach": 0} if rule == "semdedup-chain" else {}  # it never looks across, whatever the option says
    case, twin = problem.case, problem.twin(rule, cover, centroids16=None, **reach)
    result = deduplicate(
        case.x, rule=rule, cover=cover, clusters=case.labels, prototypes=case.prototypes, reach=problem.reach,
        reach_clusters=problem.reach_clusters, prefer=case.quality if rule == "prefer" else None, leftover=size,
        always_keep=None if rule == "semdedup-chain" else case.protected, seed=seed, within=problem.within,
        **case.options, **amount,
    )  # fmt: skip
    decision = columns(result)
    rows = twin.leftover_sample(decision, size, seed)
    expected = twin.leftover(decision, units(result.eps), rows)
    assert result.leftover is not None
    assert counts(result.leftover) == expected
    assert result.leftover.among == result.counts["kept"] - result.counts["readmitted"]
    return expected


def test_random_decisions_leave_what_the_oracle_finds(one_thread: None) -> None:
    total, compared = np.zeros(4, int), 0
    for number in range(330):
        problem = random_across(number, nights=1)
        rule, cover = RULES[number % len(RULES)]
        amount = {"keep": problem.case.keep} if number % 3 == 0 else {"eps": problem.case.eps / 10_000}
        with naming((number, rule, cover)):
            found = compare(problem, rule, cover, (1, 5, 1000)[number % 4 % 3], number % 5, **amount)
        total += np.array(found[1:])
        compared += 1
    assert compared > 200
    assert (total > compared // 10).all(), total  # each kind


def random_kept(seed: int) -> tuple[oracles.Problem, int, NDArray[np.bool_], NDArray[np.bool_], int]:
    """Return a problem, its `reach_clusters`, which rows are kept, which of these may be in the sample, and an eps."""
    rng = np.random.default_rng([seed, 99])
    problem = random_across(seed, nights=1)
    kept = rng.random(len(problem.case.x)) < rng.choice([0.2, 0.6, 1.0])
    own = kept & (rng.random(len(kept)) < 0.7)
    twin = problem.twin("semdedup", within=None, centroids16=None)
    return twin, problem.reach_clusters, kept, own, problem.case.eps


def centroids_of(twin: oracles.Problem) -> dict[int, NDArray[np.float16]]:
    return oracles.centroids_of_labels(twin.x16, twin.labels)


def look_up(seed: int, block: int) -> tuple[Leftover, oracles.Leftover]:
    """Look rows up among blocks of kept rows, as a run does; rows that cannot be in the sample are of earlier runs."""
    twin, clusters, kept, own, eps = random_kept(seed)
    rows = np.where(own, np.arange(len(kept)), -1)
    reaching = Reaching(twin.x16, twin.labels, centroids_of(twin), twin.reach, clusters)
    reaches = reaching.reaches(np.full(len(kept), eps))
    numbers = np.array(sorted(reaching.column))
    reached = np.where(reaches & (numbers != twin.labels[:, None]), numbers, -1)
    if twin.reach == 0:
        reached = reached[:, :0]
    places = np.flatnonzero(own)
    places = places[choose_sample(rows[places], 12, seed)]
    everyone = KeptRows(rows, twin.x16, twin.labels)
    sample = Sample(everyone.take(places), reached[places])
    found = np.zeros((len(places), 3), bool)
    for part in np.array_split(np.flatnonzero(kept), block):
        found |= find_duplicates(sample, everyone.take(part), lambda wanted, part=part: reached[part[wanted]], eps)
    matrix = reaching.comparable(np.full(len(kept), eps))
    expected = oracles.count_leftover(
        twin.x16, twin.labels, matrix, np.ones_like(matrix), eps, places.tolist(), np.flatnonzero(kept).tolist()
    )
    return count_leftover(found, int(kept.sum())), expected


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_blocks_and_precisions_change_nothing(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    if precision == "int8":
        monkeypatch.setattr(cross_links, "approximate", lambda vectors, _: approximate_in_int8(vectors))
    monkeypatch.setattr(leftover, "BLOCK", 24)
    monkeypatch.setattr(leftover, "_ROWS", 8)
    monkeypatch.setattr(pair_graph, "TILE", 5)
    kinds = np.zeros(4, int)
    for seed in range(220):
        with naming(seed):
            found, expected = look_up(seed, 1 + seed % 4)
            assert counts(found) == expected
        kinds += np.array(expected[1:]) > 0
    assert (kinds > 30).all(), kinds


def test_copies_in_two_clusters_are_left_unless_rows_reach_across() -> None:
    x, labels = [E1, E1, E2, E3, E3], [0, 1, 1, 2, 2]
    found = deduplicate(x, eps=0.01, rule="semdedup", clusters=labels).leftover
    assert found == Leftover(looked_up=4, among=4, own=0, comparable=0, elsewhere=2, any=2)
    across = deduplicate(x, eps=0.01, rule="semdedup", clusters=labels, reach=2).leftover
    assert across == Leftover(looked_up=3, among=3, own=0, comparable=0, elsewhere=0, any=0)
    assert across.intervals["any"] == (0.0, pytest.approx(1 - 0.025 ** (1 / 3)))


def test_rows_that_were_re_admitted_are_left_aside() -> None:
    result = deduplicate([E1, E1, E1, E2], keep=0.75, rule="semdedup", clusters=[0, 0, 0, 0])
    assert (result.counts["kept"], result.counts["readmitted"]) == (3, 1)
    assert result.leftover == Leftover(2, 2, 0, 0, 0, 0)


def test_it_can_be_turned_off_and_is_not_there_without_eps() -> None:
    x = np.random.default_rng(0).normal(size=(20, 4))
    assert deduplicate(x, keep=0.5, rule="semdedup", clusters=2, leftover=0).leftover is None
    assert deduplicate(x, keep=0.5, rule="random", clusters=2).leftover is None
    found = deduplicate(x, keep=0.5, rule="semdedup", clusters=2, leftover=3).leftover
    assert found is not None and found.looked_up == 3


@pytest.mark.parametrize(
    ("size", "text"),
    [(-1, r"`leftover` must be 0 \(off\) to 100000; got -1"), (100_001, "got 100001"), (1.5, "whole number; got 1.5")],
)
def test_a_size_out_of_range_is_refused(size: Any, text: str) -> None:
    with pytest.raises(UserError, match=text):
        deduplicate([E1, E2], keep=0.5, rule="semdedup", clusters=1, leftover=size)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.integers(0, 2**40), unique=True, max_size=80),
    size=st.integers(0, 40),
    seed=st.integers(0, 2**64),
    parts=st.integers(1, 5),
)
def test_the_sample_is_the_oracle_s_in_any_parts(rows: list[int], size: int, seed: int, parts: int) -> None:
    ascending = np.array(sorted(rows), np.int64)
    expected = oracles.sample_rows(rows, size, seed)
    assert ascending[choose_sample(ascending, size, seed)].tolist() == expected
    joined = np.concatenate([part[choose_sample(part, size, seed)] for part in np.array_split(ascending, parts)])
    assert joined[choose_sample(joined, size, seed)].tolist() == expected


def test_few_rows_are_at_most_the_bound_and_enough_of_them_are() -> None:
    for size, kept in ((1, 200), (1000, 1264), (1000, 2_000), (1000, 100_000), (30, 400_000)):
        for seed in range(3):
            hashes = leftover.hash_for_sample(np.arange(kept), seed)
            below = int((hashes <= bound_hashes(size, kept)).sum())
            assert min(size, kept) <= below <= 2 * size + 400
    assert bound_hashes(1000, 900) == bound_hashes(1000, 0) == ALL_HASHES
    assert bound_hashes(1000, 10**12) > 0


@settings(max_examples=40, deadline=None)
@given(looked_up=st.integers(1, 1500), share=st.floats(0, 1))
def test_intervals_are_those_of_the_oracle(looked_up: int, share: float) -> None:
    found = round(share * looked_up)
    assert find_interval(found, looked_up) == pytest.approx(oracles.interval(found, looked_up), abs=1e-9)


def test_the_ends_of_intervals() -> None:
    assert find_interval(0, 0) == (0, 1)
    assert find_interval(0, 1000) == (0, pytest.approx(1 - 0.025**0.001))
    assert find_interval(7, 7) == (pytest.approx(0.025 ** (1 / 7)), 1)
    assert find_interval(5, 10) == (pytest.approx(0.1870860), pytest.approx(0.8129140))  # from the tables
