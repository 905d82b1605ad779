"""Sums, deviations and the softmax: exact as documented, for any order, any parts and any machine."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import reduce
from operator import add

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairdedup.core import memberships as ms
from fairdedup.core import moments as mo
from fairdedup.core.moments import MembershipMoments, Moments


def split(rows: np.ndarray, seed: int) -> list[np.ndarray]:
    """Cut rows, in another order, into parts that are not empty."""
    rng = np.random.default_rng(seed)
    shuffled = rows[rng.permutation(len(rows))]
    cuts = np.unique(rng.integers(1, len(rows), size=rng.integers(0, 6))) if len(rows) > 1 else []
    return np.split(shuffled, cuts)


def exactly_standardised(values: list[float]) -> list[Fraction]:
    """Return (value - mean) / population standard deviation, to some 60 digits."""
    fractions = [Fraction(v) for v in values]
    mean = sum(fractions) / len(fractions)
    variance = sum((v - mean) ** 2 for v in fractions) / len(fractions)
    scale = 10**90
    std = Fraction(math.isqrt(int(variance * scale**2)), scale)
    return [(v - mean) / std if std else Fraction(0) for v in fractions]


@pytest.mark.parametrize("spread", [0.3, 0.03, 1e-4, 1e-7, 1e-9])
def test_values_are_standardised_as_in_exact_arithmetic(spread: float) -> None:
    values = 0.25 + spread * np.random.default_rng(0).uniform(-1, 1, size=(700, 3))
    found = Moments.of(values).standardise(values)
    for c in range(3):
        exact = np.array(exactly_standardised(values[:, c].tolist()), float)
        assert np.abs(found[:, c] - exact).max() < 1e-8


def test_only_equal_values_have_no_spread() -> None:
    values = np.full((500, 4), 0.1)
    values[7, 1] = np.nextafter(0.1, 1)
    values[:, 2] = 0.0
    values[:, 3] = -1 / 3
    found = Moments.of(values).standardise(values)
    assert not found[:, [0, 2, 3]].any()
    assert found[7, 1] == pytest.approx(math.sqrt(499))


@given(
    values=st.lists(st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=2), min_size=1, max_size=60),
    seed=st.integers(0, 2**32 - 1),
)
def test_moments_of_any_split_and_order_are_identical(values: list[list[float]], seed: int) -> None:
    rows = np.array(values) / 3
    assert reduce(add, map(Moments.of, split(rows, seed))) == Moments.of(rows)


def test_moments_add_blocks_up_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(1).normal(size=(1000, 2)).clip(-1, 1)
    whole = Moments.of(rows)
    monkeypatch.setattr(mo, "_BLOCK", 7)
    assert Moments.of(rows) == whole


def test_zscores_are_the_oracles_even_of_a_tiny_spread() -> None:
    rng = np.random.default_rng(2)
    for spread in (0.1, 0.03, 1e-3, 1e-6, 1e-8):
        similarity = 0.25 + spread * rng.normal(size=(400, 2))
        similarity[:, 1] = 0.5
        found = oracles.quantised(Moments.of(similarity).standardise(similarity))
        assert np.array_equal(found, oracles.zscores(similarity))


memberships = st.lists(
    st.lists(st.integers(0, 10**9), min_size=3, max_size=3), min_size=1, max_size=40
)  # fmt: skip


@given(rows=memberships, seed=st.integers(0, 2**32 - 1))
def test_membership_moments_of_any_split_are_exact_integers(rows: list[list[int]], seed: int) -> None:
    q = np.array(rows)
    found = reduce(add, map(MembershipMoments.of, split(q, seed)))
    assert found.count == len(rows)
    assert found.sums == tuple(map(sum, zip(*rows, strict=True)))
    assert found.products == tuple(tuple(sum(r[a] * r[b] for r in rows) for b in range(3)) for a in range(3))


@settings(max_examples=50)
@given(rows=memberships, weights=st.lists(st.fractions(-1, 1, max_denominator=1000), min_size=3, max_size=3))
def test_the_spread_of_a_price_is_exact(rows: list[list[int]], weights: list[Fraction]) -> None:
    prices = [sum((w * v for w, v in zip(weights, row, strict=True)), Fraction(0)) for row in rows]
    term = MembershipMoments.of(np.array(rows)).term(weights)
    exact = sum(prices) / len(prices)
    variance = sum((p - exact) ** 2 for p in prices) / len(prices)
    assert term.mean == exact
    assert (term.std == 0) == (variance == 0)
    assert term.std == pytest.approx(math.sqrt(variance), rel=1e-12)
    standard = [(float(p - exact) / math.sqrt(variance)) if variance else 0.0 for p in prices]
    assert term.standardise(np.array(rows)) == pytest.approx(standard, rel=1e-9, abs=1e-9)


def test_a_price_is_the_oracles_however_little_the_memberships_differ() -> None:
    rng = np.random.default_rng(7)
    for width in (1, 3, 1000, 10**8):  # in units of 1e-9 about a third
        q = 333_333_333 + rng.integers(-width, width + 1, size=(400, 3))
        for target in ([Fraction(1, 3)] * 3, [Fraction("0.322"), Fraction("0.318"), Fraction("0.36")]):
            term = MembershipMoments.of(q).term(mo.weights(target, q.sum(axis=0).tolist()))
            utility, _ = oracles.utility(q, target, oracles.shares(q))
            wanted = [round(z * 10**6) for z in oracles.standardised(utility)]
            assert ms.compute_price([q], [term]).tolist() == wanted
        alike = np.repeat(q[:, :1], 3, axis=1)  # no spread in exact arithmetic, whatever the target
        term = MembershipMoments.of(alike).term(mo.weights(target, alike.sum(axis=0).tolist()))
        assert term.std == 0
        assert not term.standardise(alike).any()


def test_a_million_memberships_add_up_exactly() -> None:
    q = np.random.default_rng(3).integers(0, 10**9 + 1, size=((1 << 20) + 5, 2))
    found = MembershipMoments.of(q)
    whole = q.astype(object)
    assert found.products[0][1] == int((whole[:, 0] * whole[:, 1]).sum())
    assert found.sums == tuple(int(s) for s in whole.sum(axis=0))


def test_shares_of_nothing_are_zero() -> None:
    assert mo.shares((0, 0)) == (0, 0)
    assert mo.shares((1, 2)) == (Fraction(1, 3), Fraction(2, 3))


def test_exp_is_within_two_units_in_the_last_place_and_never_above_one() -> None:
    rng = np.random.default_rng(4)
    x = -np.concatenate([rng.uniform(0, 1, 20_000), 10 ** rng.uniform(-20, 2.8, 20_000), [0.0, 5e-324, 690.0]])
    found = np.array([ms.exp(v) for v in x])
    wanted = np.array([math.exp(v) for v in x])
    assert (np.abs(found - wanted) <= 2 * np.spacing(wanted)).all()
    assert found.max() <= 1
    assert ms.exp(0.0) == 1
    assert 0 <= ms.exp(-1e6) < 1e-300


@pytest.mark.parametrize("temperature", [1e-4, 0.01, 0.1, 1.0, 1e6])
def test_memberships_are_the_oracles(temperature: float) -> None:
    rng = np.random.default_rng(5)
    similarity = np.concatenate([0.2 + 0.03 * rng.normal(size=(300, 5)), rng.integers(-2, 3, (50, 5)) / 4])
    for concepts in (1, 3, 5):
        found = ms.compute_memberships(similarity, temperature, concepts)
        assert np.array_equal(found, oracles.membership(similarity, concepts, temperature))


def test_the_automatic_temperature_is_the_oracles() -> None:
    rng = np.random.default_rng(6)
    for rows in (1, 2, 101, 400):
        for spread in (1e-6, 0.03, 0.5):
            similarity = spread * rng.normal(size=(rows, 3))
            assert ms.auto_temperature(ms.compute_gaps(similarity)) == oracles.temperature_of(similarity)
