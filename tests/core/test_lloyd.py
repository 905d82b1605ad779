"""k-means trains to the bit as its definition says, by any product, in any pieces and threads, and finds clusters."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles.lloyd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairdedup.core import kmeans, lloyd
from fairdedup.core.lloyd import Near, Rounded, Start, assign_and_add, count_levels, round_rows, update
from fairdedup.core.lloyd_on_torch import assign_and_add_by_torch
from fairdedup.core.similarity import unit_float16


def draw(n: int, d: int, seed: int, topics: int = 5, spread: float = 0.4) -> np.ndarray:
    """Return unit vectors of topics that share a large mean, with values on a grid, so that ties are common."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(-3, 4, (topics, d)) + 2.0 * (np.arange(d) == 0)
    x = centres[rng.integers(topics, size=n)] + np.rint(2 * spread * rng.standard_normal((n, d))) / 2
    x[~x.any(axis=1), 0] = 1
    return unit_float16(x)[0]


@settings(max_examples=60)
@given(n=st.integers(1, 60), d=st.integers(1, 12), k=st.integers(1, 60), seed=st.integers(0, 2**40))
def test_training_is_the_definition_to_the_bit(n: int, d: int, k: int, seed: int) -> None:
    sample = draw(n, d, seed % 1000)
    k = min(k, n)
    expected = oracles.lloyd.train(sample, k, seed)
    found = kmeans.train(sample, k, seed)
    assert found.dtype == np.float32
    assert np.array_equal(found, expected.astype(np.float32))


@pytest.mark.parametrize("d", [600, 2000])  # more than 1040 values have fewer levels
def test_training_of_long_vectors_is_the_definition_to_the_bit(d: int) -> None:
    sample = draw(30, d, 1)
    assert np.array_equal(kmeans.train(sample, 4, 7), oracles.lloyd.train(sample, 4, 7).astype(np.float32))


@pytest.mark.parametrize("clusters", [1, 3, 64, 65, 200])
def test_every_product_gives_the_same_sums(clusters: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairdedup.core.lloyd_on_torch.PRODUCTS", 64 * 40)  # several steps
    sample = draw(1500, 20, 0, topics=30)
    start = Start.of(sample[:300])
    rows, centroids = round_rows(sample, start.mean), sample[-clusters:]
    found = [assign_and_add(rows, centroids, start.mean, 1e20)]  # by what this machine prefers
    for in_int8 in (True, False):
        monkeypatch.setattr(lloyd, "int8_is_worth_it", lambda work, in_int8=in_int8: in_int8)
        found.append(assign_and_add(rows, centroids, start.mean, 1e20))
    found.append(assign_and_add_by_torch("cpu", rows, Near.of(centroids, start.mean), clusters))
    for sums, counts in found:
        assert sums.dtype == counts.dtype == np.int64
        assert np.array_equal(sums, found[0].sums) and np.array_equal(counts, found[0].counts)
    assert found[0].counts.sum() == len(sample)


def test_float32_products_of_the_largest_integers_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lloyd, "int8_is_worth_it", lambda work: False)
    for d in (1, 512, 1040, 1041, 5000):
        largest = count_levels(d)
        rows = np.full((3, d), largest, np.int8)
        for sign in (1, -1):
            products = lloyd._Products(sign * rows, 0.0)(rows)
            assert np.array_equal(products.astype(np.int64), np.full((3, 3), sign * d * largest**2))


@pytest.mark.parametrize("threads", [2, 5])
def test_pieces_and_threads_change_nothing(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = draw(700, 16, 3, topics=20)
    expected = kmeans.train(sample, 25, 1)
    monkeypatch.setattr(kmeans, "PIECE", 97)
    monkeypatch.setattr(kmeans, "LEAST_PIECE", 50)
    assert np.array_equal(kmeans.train(sample, 25, 1, threads), expected)
    assert np.array_equal(kmeans.train(sample, 25, 1, device="auto"), expected)
    assert not np.array_equal(kmeans.train(sample, 25, 2), expected)


def test_rounding_is_within_half_a_step_and_the_levels() -> None:
    sample = draw(500, 33, 5)
    sample[:3] = unit_float16(np.eye(33)[:3])[0]
    mean = Start.of(sample).mean
    values, steps = round_rows(sample, mean)
    less = sample.astype(np.float64) - mean.astype(np.float64)
    assert np.all(np.abs(less - values * steps[:, None] / 2**20) <= (steps[:, None] / 2 + 1e-6) / 2**20)
    assert np.abs(values.astype(int)).max() == 127


def test_an_empty_cluster_begins_anew_at_the_next_row_of_the_order() -> None:
    sample = draw(20, 6, 2)
    start = Start.of(sample[:4])
    sums = np.array([[5] * 6, [0] * 6, [0] * 6, [0] * 6])
    nothing: Any = [lloyd.Sums(np.zeros((4, 6), np.int64), np.zeros(4, np.int64))]
    filled = [lloyd.Sums(sums, np.array([1, 0, 0, 0]))]
    updated, used = update(filled, sample[10:14], start, 2)
    assert used == 4
    assert np.array_equal(updated[1:], [sample[2], sample[3], sample[13]])  # none is left for the last
    assert np.array_equal(update(nothing, sample[10:14], start, 4)[0], sample[10:14])


def test_the_same_vector_many_times_is_one_cluster() -> None:
    sample = np.repeat(draw(1, 5, 0), 50, axis=0)
    assert np.array_equal(kmeans.train(sample, 7, 0), np.repeat(sample[:1], 7, axis=0).astype(np.float32))


def test_it_finds_topics_with_outlying_dimensions_and_a_common_mean() -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((8, 64))
    labels = rng.integers(8, size=2000)
    x = centres[labels] + 0.3 * rng.standard_normal((2000, 64))
    x[:, 3] += 40  # as CLIP has one
    unit = unit_float16(x)[0]
    centroids = kmeans.unit_centroids(kmeans.train(unit, 32, 0))
    found = kmeans.assign(unit, centroids)
    for cluster in np.unique(found):
        assert len(np.unique(labels[found == cluster])) == 1


def test_an_iteration_never_takes_the_objective_back_by_more_than_rounding() -> None:
    sample = draw(3000, 24, 8, topics=40, spread=1.5)
    start = Start.of(sample[lloyd.draw_first(3000, 30, 0)])
    rows: Rounded = round_rows(sample, start.mean)
    centroids, used, before = start.first[:30], 30, 0.0
    for _ in range(12):
        centroids, used = update([assign_and_add(rows, centroids, start.mean, 0.0)], centroids, start, used)
        now = float((sample.astype(np.float64) @ centroids.astype(np.float64).T).max(axis=1).mean())
        assert now > before - 1e-4
        before = now
