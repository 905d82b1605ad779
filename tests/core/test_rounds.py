"""Duplicates across clusters: the decision in rounds equals the oracle's, and leaves no linked pair."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import oracles
import pandas as pd
import pytest
from oracles.reach import rho
from problems import AcrossProblem, assert_same, columns, naming, random_across, units

from fairdedup import Result, deduplicate
from fairdedup.core import kmeans
from fairdedup.core.cross_links import find_links
from fairdedup.core.model import Options, Plan
from fairdedup.core.reach import NEVER, Visits, find_nearby, reach_limits
from fairdedup.core.rounds import AcrossClusters
from fairdedup.core.rules.registry import find_rule
from fairdedup.core.similarity import MAX_EPS, unit_float16
from fairdedup.errors import UserError
from fairdedup.in_memory import Threads, WorkspaceInMemory, make_parts
from fairdedup.row_inputs import read_inputs

RULES = list(product(("semdedup", "fairdedup", "balanced", "prefer", "random-neighbour"), (False, True)))
PROBLEMS, MORE = 520, 6_000


def decide(problem: AcrossProblem, rule: str, cover: bool, **amount: Any) -> Result:
    case = problem.case
    return deduplicate(
        case.x, rule=rule, cover=cover, clusters=case.labels, prototypes=case.prototypes, reach=problem.reach,
        reach_clusters=problem.reach_clusters, prefer=case.quality if rule == "prefer" else None,
        always_keep=case.protected, within=problem.within, **case.options, **amount,
    )  # fmt: skip


def compare(numbers: range) -> tuple[int, int]:
    """Compare a problem of each number with the oracle; return how many were, and how many rows crossed a border."""
    compared = crossed = 0
    for number in numbers:
        problem = random_across(number, nights=1)
        rule, cover = RULES[number % len(RULES)]
        with naming((number, rule, cover)):
            case, twin = problem.case, problem.twin(rule, cover, centroids16=None)
            result = decide(problem, rule, cover, eps=case.eps / 10_000)
            found, expected = columns(result), twin.at_eps(case.eps)
            assert_same(found, expected)
            pairs, orphans = twin.broken(expected, case.eps)
            assert result.guarantees["no_two_kept_are_duplicates"] == (not pairs)
            assert result.guarantees["every_removed_has_a_kept_representative"] == (not orphans)
        labels = np.asarray(case.labels)
        crossed += int((labels[found["representative"]] != labels).sum())
        compared += 1
    return compared, crossed


def test_random_problems_are_decided_as_by_the_oracle(one_thread: None) -> None:
    compared, crossed = compare(range(PROBLEMS))
    assert compared > 0.6 * PROBLEMS and crossed > compared


@pytest.mark.soak
def test_thousands_of_random_problems_across_clusters(one_thread: None) -> None:
    print(compare(range(PROBLEMS, PROBLEMS + MORE)))


def test_a_keep_fraction_is_exact_and_its_eps_brackets_the_counts(one_thread: None) -> None:
    for number in range(40):
        problem = random_across(number, nights=1)
        rule, cover = RULES[number % 8]  # the draws of `random-neighbour` are compared above
        with naming((number, rule, cover)):
            case, twin = problem.case, problem.twin(rule, cover, centroids16=None)
            result = decide(problem, rule, cover, keep=case.keep)
            e = units(result.eps)
            assert len(result.kept) == oracles.kept_seats(case.keep, twin.n)
            assert twin.brackets(e, twin.searched_seats(case.keep))
            assert_same(columns(result), twin.decide(e, case.keep))


def test_clusters_of_k_means_have_reach_too(one_thread: None) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 8))  # no groups, so borders run through duplicates
    result = deduplicate(x, eps=0.2, rule="semdedup", cover=True, clusters=12, reach="auto")
    unit = unit_float16(x)[0]
    rows = kmeans.training_rows([np.arange(400)], 12, 0)
    centroids = kmeans.unit_centroids(kmeans.train(unit[rows], 12, 0, device="cpu"))
    labels = oracles.assign(unit, centroids)
    twin = oracles.Problem(unit, labels, "semdedup", cover=True, centroids16=centroids, reach="auto")
    assert_same(columns(result), twin.at_eps(2000))
    within = deduplicate(x, eps=0.2, rule="semdedup", clusters=12, reach=0)
    assert len(result.kept) < len(within.kept)
    assert_same(columns(deduplicate(x, eps=0.2, rule="semdedup", clusters=12)), twin.at_eps(2000))  # the default


def test_the_limit_is_that_of_the_rules() -> None:
    for dimension in (2, 16, 512):
        found = reach_limits("auto", dimension)
        assert found.tolist() == [rho(e, dimension) for e in range(MAX_EPS + 1)]
    assert set(reach_limits(0.25, 16).tolist()) == {250_000}


def test_nearby_clusters_and_gaps_are_exact() -> None:
    rng = np.random.default_rng(1)
    for dimension, k, most in ((4, 7, 16), (16, 40, 16), (8, 3, 2), (8, 5, 1)):
        unit = unit_float16(np.rint(3 * rng.normal(size=(60, dimension))) + 0.0)[0]
        unit[unit.any(axis=1) == 0, 0] = 1
        centroids = unit_float16(np.concatenate((rng.normal(size=(k - 1, dimension)), np.zeros((1, dimension)))))[0]
        centroids[k // 2] = centroids[0]  # a tie
        own = rng.integers(k, size=60)
        nearby = find_nearby(unit, own, centroids, most)
        similarity = oracles.quantised(oracles.cosine_matrix(unit, centroids))
        for row in range(60):
            others = sorted((c for c in range(k) if c != own[row]), key=lambda c: (-similarity[row, c], c))[: most - 1]
            assert nearby.clusters[row, : len(others)].tolist() == others
            assert nearby.gaps[row, : len(others)].tolist() == [
                similarity[row, own[row]] - similarity[row, c] for c in others
            ]
            assert (nearby.clusters[row, len(others) :] == -1).all()


def test_visits_name_the_least_eps_at_which_a_row_reaches_a_cluster() -> None:
    limits = np.array([0, 10, 10, 20])
    nearby = find_nearby(np.eye(2, dtype=np.float16), np.array([0, 1]), np.eye(2, dtype=np.float16), 2)
    nearby = nearby._replace(gaps=np.array([[15], [21]], np.int32))
    visits = Visits.of(nearby, np.concatenate((limits, np.full(MAX_EPS - 3, 20))), 2)
    assert [visits.to(c)[0].tolist() for c in (0, 1)] == [[], [0]]
    assert visits.to(1)[1].tolist() == [3]
    assert NEVER > MAX_EPS


def test_links_are_those_of_all_pairs() -> None:
    rng = np.random.default_rng(2)
    for n, m, dimension in ((700, 1300, 16), (3, 5, 4), (0, 4, 4)):
        bases = rng.normal(size=(50, dimension))
        x, y = (
            unit_float16(bases[rng.integers(50, size=k)] + 0.2 * rng.normal(size=(k, dimension)))[0] for k in (n, m)
        )
        reached = rng.integers(0, 900, size=m)
        links = find_links(x, y, reached, 500)
        cosine = oracles.cosine_matrix(x, y)
        linked = (cosine > 1.0 - 500 / 10_000) & (reached <= 500)[None]
        assert set(zip(links.first.tolist(), links.second.tolist(), strict=True)) == set(
            zip(*np.nonzero(linked), strict=True)
        )
        for a, b, e in zip(*links, strict=True):
            assert e == reached[b] or cosine[a, b] > 1.0 - e / 10_000
            assert e == reached[b] or not cosine[a, b] > 1.0 - (e - 1) / 10_000


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"reach": "far"}, "`reach` must be auto, or a number in [0, 2]; got 'far'"),
        ({"reach": -1}, "`reach` must be auto, or a number in [0, 2]; got -1"),
        ({"reach": True}, "`reach` must be auto, or a number in [0, 2]; got True"),
        ({"reach_clusters": 0}, "`reach_clusters` must be a whole number of 1 or more; got 0"),
    ],
)
def test_a_wrong_reach_is_one_line(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as error:
        deduplicate(np.eye(4), eps=0.1, rule="semdedup", **changes)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_rules_that_do_not_sweep_never_look_across() -> None:
    x = np.repeat(np.random.default_rng(0).normal(size=(10, 4)), 2, axis=0)
    for rule, amount in (("semdedup-chain", {"eps": 0.1}), ("random", {"keep": 0.5})):
        plain, across = (deduplicate(x, rule=rule, clusters=np.arange(20) % 2, reach=r, **amount) for r in (0, "auto"))
        pd.testing.assert_frame_equal(plain.decisions, across.decisions)


def test_an_eps_is_decided_the_same_after_larger_ones_were_tried() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 8))[rng.integers(20, size=200)] + 0.3 * rng.normal(size=(200, 8))
    options = Options(rule=find_rule("semdedup"), cover=True, reach="auto")
    parts = make_parts(read_inputs(x, None, None, None), 6, options, "cpu")
    across = AcrossClusters(parts, Plan(options), Threads(1), WorkspaceInMemory(parts), margin=10)
    before = across.at(400)
    kept = [each.columns["kept"].tolist() for each in before.decide()]
    assert 20 < before.count() < 200
    assert across.at(1200).count() < before.count()  # more than the margin above, so all pairs are looked for anew
    again = across.at(400)
    assert [each.columns["kept"].tolist() for each in again.decide()] == kept
    assert again.count() == before.count()
