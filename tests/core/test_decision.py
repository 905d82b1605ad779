"""The core decides as the slow float64 twin of the rules does: kept rows, representatives, to the last bit.

First hundreds of random problems, then properties that need no twin. Adversarial problems are in test_adversarial.py.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import (
    RULES_AND_COVER,
    Case,
    assert_same,
    check_eps,
    check_keep,
    columns,
    naming,
    protect,
    random_case,
    random_prototypes,
    run,
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


# Properties that hold for any data, without the twin.

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
    # Row numbers break ties, so there must be no ties: dense vectors of 24 values, all different.
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
def test_cover_and_semdedup_keep_their_guarantees_with_protected_rows(seed: int, how: tuple[str, bool]) -> None:
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
