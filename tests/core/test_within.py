"""Rows are compared only where the values of `within` are equal; everything else is that of the whole cluster."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from itertools import product
from typing import Any

import numpy as np
import oracles
import pandas as pd
import pyarrow as pa
import pytest
from problems import AcrossProblem, assert_same, columns, naming, random_across, units

from fairdedup import UserError, deduplicate
from fairdedup.core import pair_graph
from fairdedup.core.nearest import most_similar
from fairdedup.core.similarity import Vectors

RULES = list(product(("semdedup", "fairdedup", "balanced", "prefer", "random-neighbour"), (False, True)))
RULES += [("semdedup-chain", False)]
NAN = float("nan")


def random_within(number: int, values: int) -> AcrossProblem:
    """Return a random problem of one night in which `within` has up to some number of values, or is missing."""
    problem = random_across(number, nights=1)
    rng = np.random.default_rng([number, 88])
    within = [None if v == 0 else f"album {v}" for v in rng.integers(values, size=len(problem.case.x)).tolist()]
    return replace(problem, within=within)


def compare(problem: AcrossProblem, rule: str, cover: bool, reach: Any, **amount: Any) -> None:
    case = problem.case
    if rule == "semdedup-chain":
        case = replace(case, protected=None)
        problem, reach = replace(problem, case=case), 0  # it never looks across, whatever the option says
    twin = problem.twin(rule, cover, centroids16=None, reach=reach)
    result = deduplicate(
        case.x, rule=rule, cover=cover, clusters=case.labels, prototypes=case.prototypes, reach=reach,
        reach_clusters=problem.reach_clusters, prefer=case.quality if rule == "prefer" else None,
        always_keep=case.protected, within=problem.within, **case.options, **amount,
    )  # fmt: skip
    e = units(result.eps)
    if "keep" not in amount:
        expected = twin.at_eps(e)
        pairs, orphans = twin.broken(expected, e)
        assert result.guarantees["no_two_kept_are_duplicates"] == (not pairs)
        assert result.guarantees["every_removed_has_a_kept_representative"] == (not orphans)
    else:
        assert len(result.kept) == oracles.kept_seats(amount["keep"], twin.n)
        if rule != "random-neighbour":
            assert twin.brackets(e, twin.searched_seats(amount["keep"]))
        expected = twin.decide(e, amount["keep"])
    assert_same(columns(result), expected)
    values, table = np.array([str(v) for v in problem.within or ()]), result.decisions
    assert (values[table["representative"]] == values[table["row"]]).all()


def test_random_problems_are_decided_as_by_the_oracle(one_thread: None) -> None:
    for number in range(176):
        problem = random_within(number, (2, 4, 12, 200)[number % 4])
        rule, cover = RULES[number % len(RULES)]
        with naming((number, rule, cover)):
            compare(problem, rule, cover, 0 if number % 3 == 0 else "auto", eps=problem.case.eps / 10_000)


def test_a_keep_fraction_is_exact_and_its_eps_brackets_the_counts(one_thread: None) -> None:
    for number in range(44):
        problem = random_within(number, (2, 4, 12)[number % 3])
        rule, cover = RULES[number % len(RULES)]
        twin = problem.twin("semdedup", centroids16=None)
        keep = np.random.default_rng(number).integers(twin.least, twin.n + 1) / twin.n
        with naming((number, rule, cover)):
            compare(problem, rule, cover, 0 if number % 2 else "auto", keep=keep)


def test_clusters_with_too_many_pairs_are_decided_as_by_the_oracle(
    monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    monkeypatch.setattr(pair_graph, "MAX_PAIRS", 3)
    for number in range(40):
        problem = random_within(number, 3)
        rule, cover = RULES[number % 10]
        with naming((number, rule, cover)):
            compare(problem, rule, cover, 0 if number % 2 else "auto", eps=problem.case.eps / 10_000)


def test_a_single_value_changes_nothing_and_values_of_their_own_remove_nothing() -> None:
    x = np.random.default_rng(0).normal(size=(60, 4))
    plain = deduplicate(x, eps=0.3, rule="semdedup", clusters=3)
    one = deduplicate(x, eps=0.3, rule="semdedup", clusters=3, within=["a"] * 60)
    pd.testing.assert_frame_equal(plain.decisions, one.decisions)
    assert 1 < len(plain.kept) < 60
    assert len(deduplicate(x, eps=0.3, rule="semdedup", clusters=3, within=np.arange(60)).kept) == 60
    assert len(deduplicate(x, eps=0.3, rule="semdedup-chain", clusters=3, within=np.arange(60)).kept) == 60


@pytest.mark.parametrize(
    "values",
    [
        ["a", "b", "a", None, NAN, "b"],
        [1, 2, 1.0, None, NAN, 2],
        np.array([1.0, 2.0, 1.0, NAN, NAN, 2.0]),
        np.ma.masked_array([1, 2, 1, 7, 8, 2], [0, 0, 0, 1, 1, 0]),
        pd.Series(["a", "b", "a", pd.NA, None, "b"], dtype="string"),
        pd.Series(pd.to_datetime(["2020-01-01", "2020-01-02", "2020-01-01", None, None, "2020-01-02"])),
        pa.array(["a", "b", "a", None, None, "b"]),
        [("a", 1), "b", ("a", 1), None, None, "b"],
        [Decimal("1.0"), "b", 1, None, None, "b"],
        np.array([0.0, 2.0, -0.0, NAN, NAN, 2.0]),
        pd.Categorical(["a", "b", "a", None, None, "b"]),
    ],
)
def test_values_of_any_kind_are_equal_as_python_has_them(values: Any) -> None:
    result = deduplicate(np.ones((6, 2)), eps=0.1, rule="semdedup", clusters=np.zeros(6, int), within=values)
    assert result.decisions["representative"].tolist() == [0, 1, 0, 3, 3, 1]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"within": ["a"]}, "`within` has shape (1,): give one value, such as a class, for each of 4 rows"),
        ({"within": [["a"], "b", "c", "d"]}, "`within` has a list at row 0, which cannot be compared: give text"),
        (
            {"within": list("abab"), "rule": "random", "keep": 0.5, "eps": None},
            "`within` cannot be combined with `rule=random`, which compares no rows: choose one of fairdedup, ",
        ),
        (
            {"within": list("abab"), "keep": 0.25, "eps": None},
            "`keep=0.25` of 4 rows is 1, fewer than one for each of 2 values of `within` in their clusters: give at "
            "least `keep=0.375` or use fewer clusters",
        ),
        (
            {"within": list("abcb"), "keep": 0.5, "eps": None, "always_keep": [1]},
            "`keep=0.5` of 4 rows is 2, fewer than the 1 row always kept and one for each of the 2 values of `within` "
            "in their clusters without any",
        ),
    ],
)
def test_a_wrong_within_is_one_line(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as error:
        deduplicate(np.eye(4), **{"eps": 0.1, "rule": "semdedup", "clusters": np.zeros(4, int), **changes})
    assert told in str(error.value) and "\n" not in str(error.value)


def test_the_most_similar_of_the_same_value() -> None:
    rng = np.random.default_rng(0)
    x, y = (oracles.unit16(np.rint(2 * rng.normal(size=(n, 3))) + 0.1) for n in (300, 40))
    mine, theirs = rng.integers(12, size=300), rng.integers(10, size=40)
    position, similarity = most_similar(Vectors.of(x), Vectors.of(y), (mine, theirs))
    cosine = np.where(mine[:, None] == theirs, oracles.cosine_matrix(x, y), -2.0)
    assert similarity.tolist() == cosine.max(axis=1).tolist()
    assert position.tolist() == np.where(cosine.max(axis=1) > -2.0, cosine.argmax(axis=1), -1).tolist()
