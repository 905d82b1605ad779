"""The core decides as the slow float64 twin of the rules does: kept rows, representatives, to the last bit.

Random problems by the hundred, then the adversarial ones by name, then properties that need no twin.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import (
    LARGEST_EPS,
    RULES_AND_COVER,
    Case,
    assert_same,
    check_eps,
    check_keep,
    columns,
    eps_of_pair,
    naming,
    protect,
    random_case,
    random_prototypes,
    run,
    twin,
    units,
)

from fairdedup import deduplicate

RANDOM = range(130)
both_axes = pytest.mark.parametrize(("rule", "cover"), RULES_AND_COVER)
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.no_cover]  # tracing costs a third of their time


@both_axes
def test_every_random_problem_is_decided_as_by_the_oracle(rule: str, cover: bool) -> None:
    clusters = 0
    for seed in RANDOM:
        case = random_case(seed)
        with naming(f"random_case({seed})"):
            result = check_eps(case, rule, cover)
            if seed % 4 == 1:
                check_keep(case, rule, cover)
            elif seed % 8 == 0:
                check_keep(case, rule, cover, at_most=True)
        clusters += result.decisions["cluster"].nunique()
    assert clusters >= 500


@pytest.mark.soak
@both_axes
def test_thousands_of_random_problems_are_decided_as_by_the_oracle(rule: str, cover: bool) -> None:
    for seed in range(1000, 4000):
        case = random_case(seed)
        with naming(f"random_case({seed})"):
            check_eps(case, rule, cover)
            check_keep(case, rule, cover)
            check_keep(case, rule, cover, at_most=True)


PROTECTING = [how for how in RULES_AND_COVER if how[0] != "semdedup-chain"]


@pytest.mark.parametrize(("rule", "cover"), PROTECTING)
def test_protected_rows_are_kept_first_as_by_the_oracle(rule: str, cover: bool) -> None:
    protected = 0
    for seed in range(60):
        case = protect(random_case(seed), seed)
        with naming(f"protect(random_case({seed}))"):
            result = check_eps(case, rule, cover)
            if seed % 2:
                check_keep(case, rule, cover)
            elif seed % 8 == 0:
                check_keep(case, rule, cover, at_most=True)
            assert case.protected is not None
            own = result.decisions[case.protected]
            assert own["kept"].all() and (own["representative"] == own["row"]).all()
            protected += len(own)
    assert protected >= 300


@pytest.mark.soak
@pytest.mark.parametrize(("rule", "cover"), PROTECTING)
def test_protected_rows_of_thousands_of_random_problems(rule: str, cover: bool) -> None:
    for seed in range(1000, 2500):
        case = protect(random_case(seed), seed)
        with naming(f"protect(random_case({seed}))"):
            check_eps(case, rule, cover)
            check_keep(case, rule, cover)
            check_keep(case, rule, cover, at_most=True)


@pytest.mark.parametrize(("rule", "cover"), [("semdedup", False), ("prefer", True), ("balanced", False)])
def test_clusters_of_many_tiles_with_protected_rows_are_decided_as_by_the_oracle(rule: str, cover: bool) -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(200, 24))[rng.integers(200, size=1500)] + 0.3 * rng.normal(size=(1500, 24))
    x[100:120] = x[200]
    labels = (np.arange(1500) % 5 == 0).astype(np.int64)
    values, protected = rng.normal(size=1500), rng.random(1500) < 0.15
    case = Case(x, labels, random_prototypes(rng, x), 900, 0.4, {}, values, protected)
    check_eps(case, rule, cover)
    check_keep(case, rule, cover)


# What follows is made to be difficult; every case is checked at its own eps and next to it.


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
    """Rows that differ by subnormal halves only: cosines of 1 and just under, no spread worth the name."""
    moves = np.random.default_rng(10).integers(-4, 5, size=(50, 2)) * 2.0**-24
    return Case(np.concatenate([np.ones((50, 1)), moves], axis=1), np.arange(50) % 2, axes(3), 1, 0.2)


def right_angles() -> Case:
    """Cosines of exactly 0, 1/2 and 1 against thresholds of exactly that."""
    half = np.array([[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]], float)
    return Case(np.concatenate([np.eye(4), half, np.eye(4), -half]), np.zeros(16, np.int64), axes(4), 5000, 0.5)


def like_clip() -> Case:
    """Stand close together in a narrow cone, far from every concept, as CLIP's vectors do."""
    rng = np.random.default_rng(11)
    centre = rng.normal(size=24)
    x = centre + 0.5 * (rng.normal(size=(12, 24))[rng.integers(12, size=100)] + 0.4 * rng.normal(size=(100, 24)))
    concepts = {f"c{k}": 0.3 * centre + rng.normal(size=24) for k in range(3)}
    people = {"group": concepts, "age": {"young": rng.normal(size=24), "old": centre}}
    return Case(x, np.arange(100) % 3, people, eps_of_pair(x[:2]), 0.5)


def equal_concepts() -> Case:
    """Concepts that cannot be told apart: the first listed is served; their price has no spread."""
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
    # Similarities to the concept lie some 1e-11 apart, far below the rounding of their squares.
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


# Properties that hold for any data; the twin is not asked.

seeds = st.integers(10_000, 10_000_000)
axis = st.sampled_from(RULES_AND_COVER)


@settings(max_examples=12)
@given(seed=seeds, how=axis)
def test_counts_add_up_and_every_row_has_one_line(seed: int, how: tuple[str, bool]) -> None:
    case = random_case(seed)
    result = run(case, *how, keep=case.keep)
    n, counts, table = len(case.x), result.counts, result.decisions
    assert counts["input"] == n == counts["kept"] + counts["removed"] + counts["rejected"]
    assert table["row"].tolist() == list(range(n))
    assert int(table["kept"].sum()) == counts["kept"] == len(result.kept)
    assert int(table["readmitted"].sum()) == counts["readmitted"]
    assert bool(table["kept"][table["readmitted"]].all())
    assert counts["clusters"] == case.clusters
    own = table["kept"] & ~table["readmitted"]
    assert bool((table["representative"][own] == table["row"][own]).all())
    assert bool((table["cluster"][table["representative"]].to_numpy() == table["cluster"].to_numpy()).all())


@settings(max_examples=12)
@given(seed=seeds, how=axis)
def test_permuting_the_columns_changes_nothing(seed: int, how: tuple[str, bool]) -> None:
    case = random_case(seed)
    order = np.random.default_rng(seed).permutation(case.x.shape[1])
    people = {a: {c: np.asarray(v)[..., order] for c, v in of.items()} for a, of in case.prototypes.items()}
    moved = replace(case, x=case.x[:, order], prototypes=people)
    assert_same(columns(run(moved, *how, keep=case.keep)), columns(run(case, *how, keep=case.keep)))


@settings(max_examples=12)
@given(seed=seeds, how=axis)
def test_scaling_rows_by_powers_of_two_changes_nothing(seed: int, how: tuple[str, bool]) -> None:
    case = random_case(seed)
    powers = np.random.default_rng(seed).integers(-900, 900, size=(len(case.x), 1))
    scaled = replace(case, x=np.ldexp(case.x, powers))
    assert_same(columns(run(scaled, *how, eps=case.eps / 1e4)), columns(run(case, *how, eps=case.eps / 1e4)))


@settings(max_examples=12)
@given(seed=seeds, how=axis)
def test_permuting_the_rows_changes_nothing_but_their_order(seed: int, how: tuple[str, bool]) -> None:
    rule, cover = how
    if rule == "random-neighbour":  # draws by the row
        rule = "semdedup"
    rng = np.random.default_rng(seed)
    # Rows break ties, so there must be none: dense vectors of 24 values, no two alike.
    x = rng.normal(size=(60, 24)) + 2 * rng.normal(size=24)
    case = replace(random_case(seed), x=x, labels=np.arange(60) % 3, keep=0.6, options={})
    case = replace(case, prototypes={"a": dict(zip("pqr", rng.normal(size=(3, 24)), strict=True))})
    case = replace(case, values=rng.normal(size=60))
    order = rng.permutation(60)
    before = run(case, rule, cover, keep=0.6)
    assert case.values is not None
    moved = replace(case, x=x[order], labels=case.labels[order], values=case.values[order])
    after = run(moved, rule, cover, keep=0.6)
    assert after.eps == before.eps
    assert sorted(order[after.kept]) == before.kept.tolist()
    back = np.argsort(order)
    assert np.array_equal(order[after.decisions["representative"]][back], before.decisions["representative"])


@settings(max_examples=15)
@given(seed=seeds, how=axis)
def test_eps_of_zero_removes_nothing_and_the_largest_leaves_one_of_each_cluster(
    seed: int, how: tuple[str, bool]
) -> None:
    case = random_case(seed)
    assert len(run(case, *how, eps=0).kept) == len(case.x)
    assert len(run(case, *how, eps=2.0001).kept) == case.clusters
    kept_all = run(case, *how, keep=1)
    assert kept_all.counts["kept"] == len(case.x)
    assert kept_all.counts["readmitted"] == 0


@settings(max_examples=15)
@given(seed=seeds, how=st.sampled_from([(r, c) for r, c in RULES_AND_COVER if c or r == "semdedup"]))
def test_cover_and_semdedup_keep_their_promises(seed: int, how: tuple[str, bool]) -> None:
    case = random_case(seed)
    for amount in ({"eps": case.eps / 1e4}, {"keep": case.keep}, {"at_most": case.keep}):
        result = run(case, *how, **amount)
        assert oracles.guarantees(oracles.unit16(case.x), columns(result), units(result.eps)) == (0, 0)
        assert all(result.guarantees.values())


@settings(max_examples=15)
@given(seed=seeds, how=st.sampled_from([(r, c) for r, c in PROTECTING if c or r == "semdedup"]))
def test_cover_and_semdedup_keep_their_promises_beside_protected_rows(seed: int, how: tuple[str, bool]) -> None:
    case = protect(random_case(seed), seed)
    for amount in ({"eps": case.eps / 1e4}, {"keep": case.keep}, {"at_most": case.keep}):
        result = run(case, *how, **amount)
        broken = oracles.guarantees(oracles.unit16(case.x), columns(result), units(result.eps), case.protected)
        assert broken == (0, 0)
        assert all(result.guarantees.values())


@settings(max_examples=12)
@given(seed=seeds, fraction=st.floats(0.05, 1))
def test_random_keeps_protected_rows_within_its_count(seed: int, fraction: float) -> None:
    case = protect(random_case(seed), seed)
    assert case.protected is not None
    fraction = max(fraction, max(1, case.protected.sum()) / len(case.x))
    result = run(case, "random", keep=fraction)
    assert oracles.random_fault(columns(result), fraction) == ""
    assert result.decisions["kept"][case.protected].all()


@settings(max_examples=12)
@given(seed=seeds, cover=st.booleans(), draw=st.integers(0, 2**40))
def test_at_equal_eps_all_rules_make_the_same_neighbourhoods(seed: int, cover: bool, draw: int) -> None:
    case = random_case(seed)
    found = [
        run(case, rule, eps=case.eps / 1e4, seed=draw).decisions
        for rule in ("semdedup", "fairdedup", "balanced", "prefer", "random-neighbour")
    ]
    for other in found[1:]:
        assert other["neighbourhood"].equals(found[0]["neighbourhood"])
        assert other["kept"].sum() == found[0]["kept"].sum()


@settings(max_examples=12)
@given(seed=seeds, fraction=st.floats(0.01, 1), draw=st.integers(-(2**70), 2**70))
def test_random_keeps_a_seeded_share_of_all_rows(seed: int, fraction: float, draw: int) -> None:
    case = random_case(seed)
    if oracles.kept_seats(fraction, len(case.x)) < 1:
        fraction = 1.0
    result = run(case, "random", keep=fraction, seed=draw)
    assert oracles.random_fault(columns(result), fraction) == ""
    assert result.eps is None
    removed = result.decisions[~result.decisions["kept"]]
    assert (removed["representative"] == -1).all()
    assert removed["similarity"].isna().all()
    assert np.array_equal(run(case, "random", at_most=fraction, seed=draw).kept, result.kept)


def test_random_draws_every_row_alike_and_differently_by_seed() -> None:
    x = np.random.default_rng(0).normal(size=(200, 3))
    times = np.zeros(200)
    for seed in range(200):
        times[deduplicate(x, keep=0.5, rule="random", seed=seed).kept] += 1
    assert 70 < times.min() < 90 < 110 < times.max() < 130  # 100 +- 4 standard deviations of 7.1
    first, second = (deduplicate(x, keep=0.5, rule="random", seed=s).kept for s in (0, 1))
    assert not np.array_equal(first, second)


def test_random_neighbour_draws_every_member_alike() -> None:
    x = np.ones((5, 2))
    times = np.zeros(5)
    for seed in range(500):
        times[deduplicate(x, eps=0.1, rule="random-neighbour", seed=seed, clusters=[0] * 5).kept] += 1
    assert 64 < times.min() < times.max() < 136  # 100 +- 4 standard deviations of 8.9
