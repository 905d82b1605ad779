"""The baselines of the study of models, on cases that were computed by hand or by search."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from baseline_subsets import (  # noqa: E402
    count_by_recall,
    draw_equal_shares,
    draw_from_groups,
    measure_complexity,
    prune_by_complexity,
    quotas_by_complexity,
)


def at(*degrees: float) -> np.ndarray:
    """Return unit vectors of the plane at some angles."""
    return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1)


def follow_algorithm_1(sizes: list[int], recalls: list[float], kept: float) -> list[float]:
    """Return the counts of DRoP's Algorithm 1, step by step as printed."""
    unsaturated, excess, density = set(range(len(sizes))), kept, [0.0] * len(sizes)
    while excess > 1e-9:
        z = sum(sizes[k] * (1 - recalls[k]) for k in unsaturated) / excess
        for k in sorted(unsaturated):
            more = (1 - recalls[k]) / z
            density[k] += more
            excess -= sizes[k] * more
            if density[k] > 1:
                unsaturated.remove(k)
                excess += sizes[k] * (density[k] - 1)
                density[k] = 1.0
    return [d * n for d, n in zip(density, sizes, strict=True)]


def test_classes_with_more_errors_keep_more() -> None:
    # Errors 0.1 and 0.3 of equal sizes: a quarter and three quarters.
    assert count_by_recall(np.array([100, 100]), np.array([0.9, 0.7]), 100).tolist() == [25, 75]
    # 100 x 0.1 and 20 x 0.5 are equal: 30 each, of which the second has only 20.
    assert count_by_recall(np.array([100, 20]), np.array([0.9, 0.5]), 60).tolist() == [40, 20]
    assert count_by_recall(np.array([10, 10]), np.array([1.0, 1.0]), 10).tolist() == [5, 5]


@pytest.mark.parametrize("seed", range(20))
def test_counts_are_those_of_algorithm_1(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes, recalls = rng.integers(5, 300, 7), np.round(rng.uniform(0.1, 0.95, 7), 2)
    kept = int(sizes.sum() * rng.uniform(0.3, 0.9))
    found = count_by_recall(sizes, recalls, kept)
    expected = follow_algorithm_1(sizes.tolist(), recalls.tolist(), kept)
    assert found.sum() == kept
    assert np.abs(found - expected).max() <= 1  # the rest is rounding


def test_drawn_groups_have_the_given_counts() -> None:
    groups = np.repeat([0, 1, 2], [5, 6, 7])
    mask = draw_from_groups(groups, np.array([5, 0, 3]), np.random.default_rng(0))
    assert np.bincount(groups[mask], minlength=3).tolist() == [5, 0, 3]


def test_equal_shares_fill_small_groups_first_and_subgroups_inside() -> None:
    groups = np.repeat([0, 1, 2], [10, 2, 10])
    subgroups = np.concatenate([np.repeat([0, 1], [9, 1]), [0, 0], np.repeat([0, 1], [5, 5])])
    mask = draw_equal_shares(groups, subgroups, 12, np.random.default_rng(0))
    assert np.bincount(groups[mask]).tolist() == [5, 2, 5]
    assert np.bincount(subgroups[mask & (groups == 0)]).tolist() == [4, 1]  # there is only one of the second
    assert sorted(np.bincount(subgroups[mask & (groups == 2)]).tolist()) == [2, 3]


def test_complexity_is_the_distance_within_times_the_distance_between() -> None:
    # Centroids at 0, 60 and 180 degrees; the nearest other one is at 60, 60 and 120 degrees: distances 1/2, 1/2, 3/2.
    x = at(-30, 30, 60 - 10, 60 + 10, 180, 180)
    complexity, distances = measure_complexity(x, np.array([0, 0, 1, 1, 2, 2]), nearest=1)
    cosines = np.cos(np.radians([30, 10]))
    assert complexity == pytest.approx([(1 - cosines[0]) / 2, (1 - cosines[1]) / 2, 0])
    assert distances == pytest.approx([*[1 - cosines[0]] * 2, *[1 - cosines[1]] * 2, 0, 0])
    wider, _ = measure_complexity(x, np.array([0, 0, 1, 1, 2, 2]), nearest=20)  # both others: (1/2 + 2) / 2
    assert wider[0] == pytest.approx((1 - cosines[0]) * 1.25)


def test_quotas_follow_a_softmax_within_their_bounds() -> None:
    alike = np.zeros(2)
    assert quotas_by_complexity(np.array([10, 10]), alike, 10).tolist() == [5, 5]
    assert quotas_by_complexity(np.array([2, 10]), alike, 8).tolist() == [2, 6]
    # exp(ln 3) = 3 to 1: 9 and 3 of 12.
    assert quotas_by_complexity(np.array([20, 20]), np.array([0.1 * np.log(3), 0]), 12).tolist() == [9, 3]
    # The shares of the first would be 0: it keeps one.
    assert quotas_by_complexity(np.array([9, 9, 9]), np.array([0, 5, 5]), 9).tolist() == [1, 4, 4]
    with pytest.raises(ValueError, match="kept is 1: it must be 2"):
        quotas_by_complexity(np.array([2, 10]), alike, 1)


@pytest.mark.parametrize("seed", range(20))
def test_no_other_quotas_are_nearer_to_the_softmax(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes, complexity = rng.integers(1, 9, 4), rng.uniform(0, 0.4, 4)
    kept = int(rng.integers(4, sizes.sum() + 1))
    shares = np.exp(complexity / 0.1)
    wanted = kept * shares / shares.sum()
    found = quotas_by_complexity(sizes, complexity, kept)
    assert found.sum() == kept
    every = [q for q in itertools.product(*(range(1, n + 1) for n in sizes)) if sum(q) == kept]
    best = min(float(((np.array(q) - wanted) ** 2).sum()) for q in every)
    assert float(((found - wanted) ** 2).sum()) == pytest.approx(best)


@pytest.mark.usefixtures("one_thread")
def test_pruning_by_complexity_keeps_the_count_and_the_same_for_a_seed() -> None:
    x = np.random.default_rng(0).standard_normal((120, 6))
    first = prune_by_complexity(x, 60, seed=1)
    assert first.sum() == 60
    assert np.array_equal(first, prune_by_complexity(x, 60, seed=1))
