"""Problems that are made difficult on purpose are decided as by the slow float64 twin, at their own eps and next to it.

Every option of `fairdedup` and of `balanced` is compared as well.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import oracles
import pytest
from problems import (
    LARGEST_EPS,
    RULES_AND_COVER,
    Case,
    check_eps,
    check_keep,
    eps_of_pair,
    naming,
    protect,
    twin,
)

from fairdedup import deduplicate

both_axes = pytest.mark.parametrize(("rule", "cover"), RULES_AND_COVER)
PROTECTING = [how for how in RULES_AND_COVER if how[0] != "semdedup-chain"]
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.no_cover]  # tracing costs a third of their time


def axes(d: int) -> dict[str, dict[str, Any]]:
    """Return two attributes: two axes of the space, and three more with an absent one, wrapping where d is small."""
    eye = np.eye(d)
    return {
        "first": {"plus": eye[0], "other": eye[1 % d] if d > 1 else -eye[0]},
        "second": {"a": eye[2 % d], "b": -eye[0], "c": np.ones(d), "absent": -np.ones(d)},
    }


def copies() -> Case:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(5, 8))[rng.integers(5, size=60)]
    return Case(x, np.arange(60) % 3, axes(8), 1, 0.3)


def all_equal() -> Case:
    return Case(np.ones((40, 6)), np.repeat([3, 9], 20), axes(6), 1, 0.5)


def chain_around(e: int) -> Callable[[], Case]:
    """Neighbours on an arc stand just under, on and above eps, by the grain of float16."""

    def case() -> Case:
        rng = np.random.default_rng(e)
        step = np.arccos(1 - e / 10_000)
        angles = np.cumsum(step * (1 + rng.choice([-2e-3, -1e-4, 0, 1e-4, 2e-3], size=50)))
        x = np.stack([np.cos(angles), np.sin(angles), np.full(50, 0.01)], axis=1)
        return Case(x, np.zeros(50, np.int64), axes(3), e, 0.4)

    return case


def one_row() -> Case:
    return Case(np.array([[3.0, -4.0, 0.5]]), np.array([7]), axes(3), 500, 1.0)


def one_row_clusters() -> Case:
    return Case(np.random.default_rng(2).normal(size=(9, 4)), np.arange(9) * 11, axes(4), 9000, 1.0)


def one_value() -> Case:
    x = np.array([[2.0], [-1.0], [1e-9], [-5e300], [4.0], [-4.0], [1.0]])
    return Case(np.tile(x, (3, 1)), np.arange(21) % 2, axes(1), 1, 0.5)


def antipodal() -> Case:
    """Every cluster sums to zero: each row is equally far from the centroid, and the row decides."""
    half = np.random.default_rng(3).normal(size=(20, 5))
    x = np.concatenate([half, -half])[np.random.default_rng(4).permutation(40)]
    return Case(x, np.zeros(40, np.int64), axes(5), 19_999, 0.3)


def antipodal_pairs() -> Case:
    half = np.random.default_rng(5).normal(size=(6, 3))
    return Case(np.concatenate([half, -half]), np.tile(np.arange(6), 2), axes(3), 20_000, 0.75)


def small_integers() -> Case:
    """All 80 directions of {-1, 0, 1}^4: a handful of distinct cosines, thousands of ties."""
    x = np.array([v for v in itertools.product([-1, 0, 1], repeat=4) if any(v)], float)
    return Case(x, np.arange(80) // 40, axes(4), 5001, 0.4)


def small_counts() -> Case:
    x = np.random.default_rng(6).integers(0, 3, size=(100, 4)).astype(float) + [1, 0, 0, 0]
    return Case(x, np.zeros(100, np.int64), axes(4), 2000, 0.5)


def permuted_columns() -> Case:
    """All 120 orders of one vector: one length, equally near to the sum, symmetric in every concept."""
    x = np.array(list(itertools.permutations([1.0, 2.0, 3.0, 4.0, 5.0])))
    return Case(x, np.zeros(120, np.int64), axes(5), eps_of_pair(x[:2]), 0.5)


def huge_and_tiny() -> Case:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(6, 5))[rng.integers(6, size=48)] + 0.05 * rng.normal(size=(48, 5))
    lengths = np.array([1e-310, 5e-324 * 2**12, 1e-160, 1.0, 1e160, 1e307])
    return Case(x * lengths[np.arange(48) % 6, None], np.arange(48) % 2, axes(5), 30, 0.5)


def grain_of_float16() -> Case:
    """Rows that rounding to float16 makes equal, and rows one unit in its last place apart."""
    base = oracles.unit16(np.random.default_rng(8).normal(size=16)).astype(float)
    ulp = np.spacing(oracles.unit16(base)).astype(float)
    moves = np.random.default_rng(9).choice([0, 0.2, -0.2, 1, -1], size=(60, 16))
    return Case(base + moves * ulp, np.zeros(60, np.int64), axes(16), 1, 0.3)


def subnormal_differences() -> Case:
    """Rows that differ only by subnormal float16 values: cosines of 1 and just under, almost no spread."""
    moves = np.random.default_rng(10).integers(-4, 5, size=(50, 2)) * 2.0**-24
    return Case(np.concatenate([np.ones((50, 1)), moves], axis=1), np.arange(50) % 2, axes(3), 1, 0.2)


def right_angles() -> Case:
    """Cosines of exactly 0, 1/2 and 1 against thresholds of the same values."""
    half = np.array([[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]], float)
    return Case(np.concatenate([np.eye(4), half, np.eye(4), -half]), np.zeros(16, np.int64), axes(4), 5000, 0.5)


def like_clip() -> Case:
    """Rows are close together in a narrow cone, far from every concept, as CLIP's vectors are."""
    rng = np.random.default_rng(11)
    centre = rng.normal(size=24)
    x = centre + 0.5 * (rng.normal(size=(12, 24))[rng.integers(12, size=100)] + 0.4 * rng.normal(size=(100, 24)))
    concepts = {f"c{k}": 0.3 * centre + rng.normal(size=24) for k in range(3)}
    people = {"group": concepts, "age": {"young": rng.normal(size=24), "old": centre}}
    return Case(x, np.arange(100) % 3, people, eps_of_pair(x[:2]), 0.5)


def equal_concepts() -> Case:
    """Concepts are identical: the one listed first is served; their price has no spread."""
    rng = np.random.default_rng(12)
    vector = rng.normal(size=6)
    return Case(
        rng.normal(size=(60, 6)), np.arange(60) % 2, {"a": dict.fromkeys("xyz", vector), "b": {"only": -vector}},
        9000, 0.4, {"temperature": 0.05},
    )  # fmt: skip


def equal_concepts_aimed_at_unequally() -> Case:
    """Shares of a third each against targets that add up to 1: the price is 0 in exact arithmetic, not in floats."""
    shares = {"a": {"x": 0.322, "y": 0.318, "z": 0.36}, "b": {"only": 1.0}}
    return replace(equal_concepts(), options={"target": shares, "temperature": 0.1333, "reserve": 0.3})


def hot() -> Case:
    """Make all memberships nearly equal: prices are a few units of 1e-9 apart before they are standardised."""
    return replace(like_clip(), options={"temperature": 1e6})


def cold() -> Case:
    """Give every row to one concept: the other memberships are exactly 0."""
    return replace(like_clip(), options={"temperature": 1e-4, "target": "data"})


ADVERSARIAL = [
    copies, all_equal, chain_around(1), chain_around(50), chain_around(3000), one_row, one_row_clusters, one_value,
    antipodal, antipodal_pairs, small_integers, small_counts, permuted_columns, huge_and_tiny, grain_of_float16,
    subnormal_differences, right_angles, like_clip, equal_concepts,
    equal_concepts_aimed_at_unequally, hot, cold,
]  # fmt: skip
NAMES = [make.__qualname__.partition(".")[0] for make in ADVERSARIAL]


@both_axes
@pytest.mark.parametrize("make", ADVERSARIAL, ids=NAMES)
def test_an_adversarial_problem_is_decided_as_by_the_oracle(make: Callable[[], Case], rule: str, cover: bool) -> None:
    case = make()
    least = case.clusters / len(case.x)
    for e in sorted({1, case.eps - 1, case.eps, min(case.eps + 1, LARGEST_EPS)}):
        with naming(f"eps {e}"):
            check_eps(case, rule, cover, e)
    assert len(check_eps(case, rule, cover, LARGEST_EPS).kept) == case.clusters
    for keep in {least, max(least, case.keep), 1.0}:
        with naming(f"keep {keep}"):
            check_keep(case, rule, cover, keep)


@pytest.mark.parametrize(("rule", "cover"), PROTECTING)
@pytest.mark.parametrize("make", ADVERSARIAL, ids=NAMES)
def test_an_adversarial_problem_with_protected_rows(make: Callable[[], Case], rule: str, cover: bool) -> None:
    case = protect(make(), 1)
    for e in (case.eps, LARGEST_EPS):
        with naming(f"eps {e}"):
            result = check_eps(case, rule, cover, e)
    assert len(result.kept) == twin(case, rule, cover, result).least
    check_keep(case, rule, cover)


@pytest.mark.parametrize("start", ["cluster", "zero"])
@pytest.mark.parametrize("calibrate", ["none", "zscore"])
@pytest.mark.parametrize(
    "make", [like_clip, small_integers, permuted_columns, equal_concepts], ids=lambda m: m.__name__
)
def test_every_option_of_fairdedup_is_decided_as_by_the_oracle(
    make: Callable[[], Case], calibrate: str, start: str
) -> None:
    case = replace(make(), options={"start": start, "calibrate": calibrate})
    for cover in (False, True):
        check_eps(case, "fairdedup", cover)
        check_keep(case, "fairdedup", cover)


@pytest.mark.parametrize("reserve", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("target", ["uniform", "data", "given"])
def test_every_option_of_balanced_is_decided_as_by_the_oracle(target: str, reserve: float) -> None:
    case = like_clip()
    wanted = {"group": {"c0": 0.5, "c1": 0.2, "c2": 0.3}, "age": {"young": 1.0, "old": 0.0}}
    options = {"target": wanted if target == "given" else target, "reserve": reserve}
    for cover, keep in itertools.product((False, True), (0.1, 0.5, 0.9)):
        check_keep(replace(case, options=options), "balanced", cover, keep)
        check_keep(replace(case, options=options), "balanced", cover, keep, at_most=True)


def test_a_concept_with_hardly_any_spread_is_standardised_exactly() -> None:
    # Similarities to the concept differ by some 1e-11, far below the rounding of their squares.
    x = np.stack([np.ones(4), np.arange(4) * 2.0**-24], axis=1)
    case = Case(x, np.zeros(4, np.int64), {"a": {"p": np.array([1, 2.0**-10])}}, 1, 0.5, {"calibrate": "zscore"})
    assert check_eps(case, "fairdedup").kept.tolist() == [3]


def test_similarities_of_a_thirtieth_the_spread_change_nothing_but_the_temperature() -> None:
    # The complement has length exactly sqrt(1 - 2**-10) and no row has a part in it, so that every cosine with a
    # prototype becomes exactly a thirty-second of what it was, as with real CLIP.
    complement = np.array([63, 11, 1, 1]) / 64
    rng = np.random.default_rng(13)
    x = np.concatenate([rng.normal(size=(300, 8)) + rng.normal(size=8), np.zeros((300, 4))], axis=1)
    wide = {f"c{k}": np.eye(12)[k] for k in range(4)}
    narrow = {name: np.concatenate([vector[:8] / 32, complement]) for name, vector in wide.items()}
    x16 = oracles.unit16(x)
    spreads = [oracles.cosine_matrix(x16, oracles.unit16(list(p.values()))) for p in (wide, narrow)]
    assert np.array_equal(spreads[0] / 32, spreads[1])
    assert 0.02 < np.ptp(spreads[1]) < 0.06
    labels = np.arange(300) % 4
    for keep, cover in itertools.product((0.2, 0.5), (False, True)):
        decided = [
            deduplicate(
                x, keep=keep, cover=cover, rule="balanced", clusters=labels, prototypes={"a": p}, temperature=t
            ).decisions
            for p, t in ((wide, 0.064), (narrow, 0.002))
        ]
        assert decided[0].equals(decided[1])
        by_zscore = [
            deduplicate(x, keep=keep, cover=cover, clusters=labels, prototypes={"a": p}, calibrate="zscore").decisions
            for p in (wide, narrow)
        ]
        assert by_zscore[0].equals(by_zscore[1])
    found = [oracles.temperature_of(s) for s in spreads]
    assert found[1] == pytest.approx(found[0] / 32, abs=0.00005)
    for p, t in ((wide, found[0]), (narrow, found[1])):
        result = deduplicate(x, keep=0.5, rule="balanced", clusters=labels, prototypes={"a": p})
        given_t = deduplicate(x, keep=0.5, rule="balanced", clusters=labels, prototypes={"a": p}, temperature=t)
        assert result.decisions.equals(given_t.decisions)
        check_keep(Case(x, labels, {"a": p}, 100, 0.5), "balanced")
