"""Unit float16 vectors, exact cosines and thresholds agree with the oracle, at boundaries and for hostile values."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairdedup.core import approximate
from fairdedup.core.kmeans import assign, centroids_of_labels
from fairdedup.core.nearest import most_similar
from fairdedup.core.similarity import (
    REASON_NOT_FINITE,
    REASON_ZERO,
    Vectors,
    cosine_of_pairs,
    cosine_to_one,
    cosines,
    eps_needed,
    margin,
    quantised,
    reason,
    unit_float16,
)


def assert_unit(x: np.ndarray) -> None:
    """Compare with the oracle to the bit, zeros' signs included."""
    unit, bad = unit_float16(x)
    assert not bad.any()
    assert unit.dtype == np.float16
    assert np.array_equal(unit.view(np.uint16), oracles.unit16(x).view(np.uint16))


@pytest.mark.parametrize("d", [1, 2, 3, 24, 512])
def test_unit_vectors_are_those_of_the_oracle(d: int) -> None:
    rng = np.random.default_rng(d)
    x = rng.normal(size=(500, d))
    for values in (x, x.astype(np.float32), x.astype(np.float16)):
        assert_unit(values)
    assert_unit(x * 10.0 ** rng.uniform(-290, 290, (500, 1)))
    assert_unit(x * 10.0 ** rng.uniform(-9, 0, (500, d)))  # many subnormal halves
    assert_unit(rng.integers(-3, 4, (500, d)) + 7.0 * (np.arange(d) == 0))


def test_unit_vectors_of_the_ends_of_float64() -> None:
    tiny, huge = 5e-324, 1.7976931348623157e308
    x = [
        [1e300, 1e300],
        [tiny, 0],
        [tiny, -tiny],
        [3 * tiny, 4 * tiny],
        [huge, huge],
        [huge, tiny],
        [-0.0, -1],
        [2.0**-1022, tiny],
    ]
    assert_unit(np.array(x))
    assert_unit(np.array([[1e38, 3e38], [1e-45, 1e-45], [1e-45, 3e38]], np.float32))
    assert_unit(np.array([[6e-8, 0], [65504, 65504], [6e-8, 65504]], np.float16))


def test_halves_are_rounded_once_and_to_even() -> None:
    # Of length 4096 with an odd first value: its unit is exactly between two float16 values.
    exact = []
    for a in range(2049, 3800, 50):
        rest = 4096**2 - a * a
        b = math.isqrt(rest)
        rest -= b * b
        c = math.isqrt(rest)
        rest -= c * c
        e = math.isqrt(rest)
        squares = [a, b, c, e]
        rest -= e * e
        while rest:
            step = math.isqrt(rest)
            squares.append(step)
            rest -= step * step
        exact.append(squares + [0] * (12 - len(squares)))
    x = np.array(exact, float)
    assert (np.square(x).sum(axis=1) == 4096**2).all()
    assert_unit(x)
    first = unit_float16(x)[0][:, 0].astype(np.float64) * 4096
    assert (first % 4 == 0).all()  # even in units of 2
    # The rounding of the sum of squares must not decide: the same vectors, of lengths that are not integers.
    rng = np.random.default_rng(0)
    scaled = np.repeat(x, 40, axis=0) * rng.uniform(0.1, 10, (40 * len(x), 1))
    assert_unit(scaled)
    order = rng.permutation(x.shape[1])
    assert np.array_equal(unit_float16(scaled)[0][:, order], unit_float16(scaled[:, order])[0])


def test_what_cannot_be_used_is_zero_and_has_a_reason() -> None:
    x = np.array([[1, np.nan], [np.inf, 0], [0, -0.0], [-np.inf, np.nan], [3, 4]])
    for values in (x, x.astype(np.float32), x.astype(np.float16)):
        unit, bad = unit_float16(values)
        assert [reason(int(code)) for code in bad] == [
            REASON_NOT_FINITE, REASON_NOT_FINITE, REASON_ZERO, REASON_NOT_FINITE, "",
        ]  # fmt: skip
        assert not unit[:4].any()
        assert unit[4].tolist() == np.array([0.6, 0.8], np.float16).tolist()


def test_more_rows_than_a_block_and_layouts_that_are_not_contiguous() -> None:
    x = np.random.default_rng(1).normal(size=(40, 30_000))
    wide = unit_float16(x)[0]
    assert np.array_equal(wide, oracles.unit16(x))
    assert np.array_equal(unit_float16(x[:, ::-3])[0], oracles.unit16(x[:, ::-3]))
    assert np.array_equal(unit_float16(np.asfortranarray(x))[0], wide)
    assert np.array_equal(unit_float16(x.astype(">f8"))[0], wide)


def hostile(rng: np.random.Generator, d: int) -> np.ndarray:
    rows = [
        rng.normal(size=(6, d)), rng.choice([-1.0, 1.0], (6, d)), np.ones((2, d)), -np.ones((1, d)),
        rng.normal(size=(6, d)) * np.exp(5 * rng.normal(size=(6, d))), np.eye(d)[:2],
        1 + 1e-3 * rng.normal(size=(6, d)),
    ]  # fmt: skip
    return oracles.unit16(np.concatenate(rows))


@pytest.mark.parametrize("d", [1, 2, 5, 64, 1000])
def test_every_way_to_a_cosine_gives_the_exact_one(d: int) -> None:
    unit = hostile(np.random.default_rng(d), d)
    unit = np.concatenate([unit, np.zeros((1, d), np.float16)])  # a centroid may be zero
    vectors, exact = Vectors.of(unit), oracles.cosine_matrix(unit, unit)
    assert np.array_equal(cosines(vectors, vectors), exact)
    assert np.array_equal(cosine_to_one(vectors.x, vectors.squares, vectors.x[3], vectors.squares[3]), exact[:, 3])
    first, second = np.divmod(np.arange(len(unit) ** 2), len(unit))
    assert np.array_equal(cosine_of_pairs(vectors.x, vectors.squares, first, second), exact.ravel())
    part = vectors.take(np.array([5, 1]))
    assert np.array_equal(cosines(part, vectors), exact[[5, 1]])


def test_margin_bounds_the_error_of_float32_products() -> None:
    for d in (1, 3, 64, 512, 4096):
        vectors = Vectors.of(hostile(np.random.default_rng(d), d))
        lengths = np.sqrt(vectors.squares)
        approx = (vectors.x @ vectors.x.T) / np.outer(lengths, lengths)
        one_by_one = np.zeros_like(approx, np.float32)
        for j in range(d):  # the worst order there is
            one_by_one += np.outer(vectors.x[:, j], vectors.x[:, j])
        exact = oracles.cosine_matrix(vectors.x.astype(np.float16), vectors.x.astype(np.float16))
        assert np.abs(approx - exact).max() <= margin(d)
        assert np.abs(one_by_one / np.outer(lengths, lengths) - exact).max() <= margin(d)


def adversarial(d: int) -> dict[str, np.ndarray]:
    """Vectors whose 8-bit rounding error is nearly the bound, and vectors without any."""
    rng = np.random.default_rng(d)
    signs = rng.choice([-1.0, 1.0], (64, d))
    spikes = 1e-3 * rng.normal(size=(64, d))
    spikes[np.arange(64), rng.integers(d, size=64)] = 1
    almost = np.ones((64, d))
    almost[0, 0] = 1.01
    return {
        "signs": signs, "two sides": signs[:, :1] + 1e-4 * rng.normal(size=(64, d)), "spikes": spikes,
        "one away": almost, "all equal": np.ones((64, d)), "heavy tails": rng.standard_cauchy((64, d)),
        "cone": 1 + 0.1 * rng.normal(size=(64, d)),
    }  # fmt: skip


@pytest.mark.parametrize("make", [approximate.approximate_in_float32, approximate.approximate_in_int8])
@pytest.mark.parametrize("d", [1, 7, 512, 2000])
def test_no_candidate_is_overlooked_however_close_to_the_threshold(make, d: int) -> None:  # noqa: ANN001
    for name, x in adversarial(d).items():
        unit = unit_float16(x)[0]
        known = make(Vectors.of(unit))
        products, exact = known.multiply(known), oracles.cosine_matrix(unit, unit)
        for i in range(64):
            just_under = np.nextafter(exact[i], -2)
            columns = approximate.bound_columns(just_under, known.terms)
            marks = approximate.no_marks(64)
            row = approximate.bound_row(approximate.take_terms(known.terms, i))
            approximate.mark_reaching(products[i], columns, row, marks)
            assert marks.all(), f"{name}: rows {i} and {np.flatnonzero(marks == 0)}"


def test_sums_of_8_bit_products_stay_in_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approximate, "INT8_ROWS", 1)
    d = 2**31 // 127**2 + 1
    x = np.ones((2, d), np.float32)
    x[1] = -1
    known = approximate.approximate(Vectors.of(unit_float16(x)[0]))
    terms = known.terms
    own = float(known.multiply(known)[0, 0]) * terms.scale[0] ** 2 + 2 * terms.base[0]
    assert abs(own / terms.length[0] ** 2 - 1) <= 2 * terms.error[0]


def test_eps_needed_is_the_least_eps_at_which_a_pair_are_duplicates() -> None:
    def by_definition(similarity: float, near: int) -> int:
        return next(e for e in range(max(0, near - 3), 20_002) if similarity > 1.0 - e / 10_000)

    for e in range(0, 20_001):
        threshold = 1.0 - e / 10_000
        assert eps_needed(threshold) == e + 1  # strict: at the threshold itself it is not a duplicate
        for value in (np.nextafter(threshold, 2), np.nextafter(threshold, -2)):
            if -1 <= value <= 1:
                assert eps_needed(value) == by_definition(value, e)
    assert eps_needed(1.0) == 1
    assert eps_needed(-1.0000000000000002) == 20_001
    assert eps_needed(np.nextafter(0.0, 1)) == eps_needed(1e-300) == 10_000
    assert eps_needed(0.0) == eps_needed(-1e-300) == 10_001


@given(st.floats(-1, 1))
def test_eps_needed_agrees_with_the_oracle(similarity: float) -> None:
    e = eps_needed(similarity)
    assert oracles.duplicates(np.array(similarity), e)
    assert not oracles.duplicates(np.array(similarity), e - 1)


def test_quantised_is_the_oracles() -> None:
    values = np.concatenate(
        [np.random.default_rng(0).uniform(-1, 1, 1000), np.arange(-9, 10) * 2.0**-7, [1.0, -1.0, 0.0]]
    )
    assert np.array_equal(quantised(values), oracles.quantised(values))


@pytest.mark.parametrize("d", [1, 3, 48])
def test_assignment_is_exact_and_ties_go_to_the_lower_number(d: int) -> None:
    rng = np.random.default_rng(d)
    x16 = oracles.unit16(rng.integers(-2, 3, (300, d)) + 5.0 * (np.arange(d) == 0))
    centroids = oracles.unit16(rng.integers(-2, 3, (40, d)) + 5.0 * (np.arange(d) == 0))  # copies and near copies
    centroids[7] = 0  # and a zero one, similar to nothing
    assert np.array_equal(assign(x16, centroids), oracles.assign(x16, centroids))
    position, similarity = most_similar(Vectors.of(x16), Vectors.of(centroids))
    exact = oracles.cosine_matrix(x16, centroids)
    assert np.array_equal(position, exact.argmax(axis=1))
    assert np.array_equal(similarity, exact.max(axis=1))


def test_assignment_settles_what_float32_cannot_tell_apart() -> None:
    # Centroids that differ in the last bit of one value out of 2,000, which float32 sums cannot resolve.
    rng = np.random.default_rng(3)
    base = oracles.unit16(rng.normal(size=2000))
    centroids = np.repeat(base[None], 64, axis=0)
    for k in range(1, 64):
        centroids[k, k] = np.nextafter(centroids[k, k], np.float16(rng.choice([-1, 1])))
    x16 = oracles.unit16(base.astype(float) + 1e-3 * rng.normal(size=(50, 2000)))
    exact = oracles.cosine_matrix(x16, centroids)
    float32 = (x16.astype(np.float32) @ centroids.astype(np.float32).T).argmax(axis=1)
    assert (float32 != exact.argmax(axis=1)).any()  # otherwise this shows nothing
    assert np.array_equal(assign(x16, centroids), exact.argmax(axis=1))


def test_assignment_to_only_zero_or_opposite_centroids() -> None:
    x16 = oracles.unit16([[1.0, 0.0], [0.0, -1.0]])
    assert assign(x16, np.zeros((3, 2), np.float16)).tolist() == [0, 0]
    assert assign(x16, oracles.unit16([[-1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])).tolist() == [2, 0]


def test_centroids_of_labels_are_exact_sums() -> None:
    rng = np.random.default_rng(4)
    x16 = oracles.unit16(np.concatenate([rng.normal(size=(50, 6)), [[1.0, 0, 0, 0, 0, 0], [-1.0, 0, 0, 0, 0, 0]]]))
    labels = np.append(rng.choice([2, 5, 2**40], 50), [7, 7])
    numbers = np.unique(labels)
    expected = oracles.centroids_of_labels(x16, labels)
    assert np.array_equal(centroids_of_labels(x16, labels, numbers), np.stack([expected[k] for k in numbers]))
    assert not expected[7].any()
    exact = [sum(Fraction(float(v)) for v in column) for column in x16[labels == 2].T]
    assert np.array_equal(oracles.unit16([float(s) for s in exact]), expected[2])
