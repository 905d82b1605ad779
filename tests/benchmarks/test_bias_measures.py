"""Measures of bias against arithmetic by hand and loops from definitions, and the traps of other implementations."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairdedup.errors import UserError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import bias_measures as bm  # noqa: E402


def rank_by_hand(scores: list[float], k: int) -> list[int]:
    """Return the best k rows by repeated search for the first largest score."""
    left, out = list(range(len(scores))), []
    for _ in range(k):
        best = left[0]
        for row in left:
            if scores[row] > scores[best]:
                best = row
        out.append(best)
        left.remove(best)
    return out


def ndkl_by_hand(ranked: list[int], desired: list[float]) -> float:
    """Return definition 5 of Geyik et al., place by place."""
    total = z = 0.0
    for i in range(1, len(ranked) + 1):
        weight = 1 / math.log2(i + 1)
        z += weight
        for g, share in enumerate(desired):
            own = ranked[:i].count(g) / i
            if own:
                total += weight * own * math.log(own / share)
    return total / z


# k


@pytest.mark.parametrize(
    ("counts", "k"),
    [([600, 4400], 600), ([2500, 2500], 1000), ([52, 700, 4248], 52), ([1, 1], 1), ([5], 4), ([1000, 1000], 1000)],
)
def test_k_is_the_largest_that_every_group_could_fill_below_the_whole_pool(counts, k):
    assert bm.choose_k(counts) == k
    assert k < sum(counts) and k <= min(counts)


@pytest.mark.parametrize("counts", [[0, 5], [], [1]])
def test_there_is_no_k_for_an_empty_group_or_a_single_row(counts):
    with pytest.raises(UserError, match="no k fits groups of"):
        bm.choose_k(counts)


@pytest.mark.parametrize("k", [0, -1, 11, 30, 2.0, True, "5"])
def test_a_k_that_a_group_cannot_fill_or_that_is_no_integer_is_refused(k):
    with pytest.raises(UserError, match="k of age is .*from 1 to 10, under the 30 rows"):
        bm.check_k(k, [10, 20], "age")


def test_a_k_that_fits_is_taken_also_above_the_usual_limit():
    assert bm.check_k(10, [10, 20], "age") == 10
    assert bm.check_k(1500, [2000, 3000], "gender") == 1500


# Rankings


def test_ties_go_to_the_lower_row_and_never_add_rows():
    top = bm.find_top([[0.5, 0.9, 0.9, 0.9, 0.1], [0.0, 0.0, 0.0, 0.0, 0.0]], 2)
    assert top.tolist() == [[1, 2], [0, 1]]
    counts = bm.count_groups(np.array([0, 1, 1, 0, 0])[top], 2)
    assert counts.tolist() == [[0, 2], [1, 1]]
    assert (counts.sum(axis=1) == 2).all()  # shares of a top k with ties add up to 1


def test_the_whole_pool_cannot_be_ranked_since_its_skew_is_0_for_any_model():
    with pytest.raises(UserError, match="k is 4 of 4 rows: give one from 1 to 3"):
        bm.find_top([[4.0, 3.0, 2.0, 1.0]], 4)
    pool = [30, 70]
    assert bm.skew(pool, bm.desired_shares(pool, "dem_par"), "infinite").tolist() == [0, 0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_score_that_is_not_finite_is_refused(bad):
    with pytest.raises(UserError, match="a score is not finite"):
        bm.find_top([[1.0, bad, 0.0]], 1)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=12), st.data())
def test_rankings_are_those_of_a_search_for_the_first_largest(scores, data):
    k = data.draw(st.integers(1, len(scores) - 1))
    assert bm.find_top([scores], k)[0].tolist() == rank_by_hand([float(s) for s in scores], k)


# Skew


def test_skew_by_hand():
    assert bm.skew([3, 1], [0.5, 0.5], "infinite") == pytest.approx([math.log(1.5), math.log(0.5)])
    assert bm.skew([[3, 1], [1, 3]], [0.75, 0.25], "as_one") == pytest.approx(
        np.array([[0, 0], [math.log(1 / 3), math.log(3)]])
    )


@pytest.mark.parametrize(
    ("zero", "expected"),
    [
        ("infinite", [math.log(2), -math.inf]),
        ("as_one", [math.log(2), math.log(0.25 / 0.5)]),
        ("laplace", [math.log(5 / 6 / 0.5), math.log(1 / 6 / 0.5)]),
    ],
)
def test_a_count_of_zero_is_what_its_name_says_and_never_a_skew_of_0(zero, expected):
    assert bm.skew([4, 0], [0.5, 0.5], zero).tolist() == pytest.approx(expected)


def test_names_that_are_unknown_are_refused():
    with pytest.raises(UserError, match="zero counts 'none' is unknown: choose among infinite, as_one, laplace"):
        bm.skew([1, 1], [0.5, 0.5], "none")
    with pytest.raises(UserError, match="distribution 'parity' is unknown: choose among eq_opp, dem_par"):
        bm.desired_shares([1, 1], "parity")


def test_desired_shares_are_equal_or_those_of_the_pool():
    assert bm.desired_shares([10, 30], "eq_opp").tolist() == [0.5, 0.5]
    assert bm.desired_shares([10, 30], "dem_par").tolist() == [0.25, 0.75]


# NDKL


def test_ndkl_by_hand():
    # Place 1 has shares (1, 0): ln 2. Place 2 has the desired ones: 0. Z = 1 + 1 / log2(3).
    assert bm.ndkl(np.array([[0, 1]]), [0.5, 0.5])[0] == pytest.approx(math.log(2) / (1 + 1 / math.log2(3)))
    assert bm.ndkl(np.array([[0, 0, 0]]), [0.25, 0.75])[0] == pytest.approx(math.log(4))
    assert bm.ndkl(np.array([[1, 1]]), [0.0001, 1 - 0.0001])[0] == pytest.approx(-math.log(1 - 0.0001))


@given(st.lists(st.integers(0, 2), min_size=1, max_size=20), st.lists(st.integers(1, 9), min_size=3, max_size=3))
def test_ndkl_is_that_of_the_definition_place_by_place(ranked, pool):
    desired = [p / sum(pool) for p in pool]
    assert bm.ndkl(np.array([ranked]), desired)[0] == pytest.approx(ndkl_by_hand(ranked, desired), abs=1e-12)


def test_order_counts_for_ndkl_and_not_for_skew():
    early, late = np.array([[0, 0, 1, 1]]), np.array([[0, 1, 0, 1]])
    assert bm.ndkl(early, [0.5, 0.5])[0] > bm.ndkl(late, [0.5, 0.5])[0]
    assert bm.count_groups(early, 2).tolist() == bm.count_groups(late, 2).tolist()


# Associations


def test_an_association_is_the_share_of_the_top_less_the_share_of_the_pool():
    assert bm.associations([[8, 2]], [50, 50])[0] == pytest.approx([0.3, -0.3])
    assert bm.associations([[8, 2], [5, 5]], [80, 20]) == pytest.approx(np.array([[0, 0], [-0.3, 0.3]]))


def test_the_gap_of_two_groups_is_bias_at_k_less_that_of_the_pool():
    assert bm.association_gap([[8, 2]], [50, 50])[0] == pytest.approx(0.6)  # (8 - 2) / 10
    assert bm.association_gap([[3, 1]], [75, 25])[0] == pytest.approx(0)
    assert bm.association_gap([[0, 4]], [75, 25])[0] == pytest.approx(abs(-1 - 0.5))


def test_the_gap_of_three_groups_is_between_the_most_and_the_least_preferred():
    # Shares 0.5, 0.3, 0.2 less 0.2, 0.3, 0.5.
    assert bm.association_gap([[5, 3, 2]], [20, 30, 50])[0] == pytest.approx(0.3 + 0.3)


# Together


def test_the_means_over_queries_by_hand():
    ranked = np.array([[0, 0, 0, 1], [0, 1, 1, 1]])
    found = bm.measure_rankings(ranked, [10, 30], "infinite")
    assert found["eq_opp"]["MinSkew"] == pytest.approx(math.log(0.5))  # of group 1, then of group 0
    assert found["eq_opp"]["|MinSkew|"] == pytest.approx(math.log(2))
    assert found["eq_opp"]["MaxSkew"] == pytest.approx(math.log(1.5))
    assert found["dem_par"]["MinSkew"] == pytest.approx((math.log(0.25 / 0.75) + 0) / 2)
    assert found["dem_par"]["MaxSkew"] == pytest.approx((math.log(0.75 / 0.25) + 0) / 2)
    assert found["dem_par"]["NDKL"] == pytest.approx(
        (ndkl_by_hand([0, 0, 0, 1], [0.25, 0.75]) + ndkl_by_hand([0, 1, 1, 1], [0.25, 0.75])) / 2
    )
    assert found["association gap"] == pytest.approx((2 * 0.5 + 0) / 2)


def test_random_rankings_are_not_free_of_skew_and_are_the_same_each_time():
    codes = np.repeat([0, 1], [900, 100])
    found = bm.measure_chance(codes, [900, 100], 50, "as_one", seed=3)
    assert found == bm.measure_chance(codes, [900, 100], 50, "as_one", seed=3)
    assert 0.1 < found["dem_par"]["|MinSkew|"] < 0.6
    # Of 50 rows, 5 of the rare group are expected, with a hypergeometric standard deviation of 2.07: a gap of
    # 2 / 50 times the mean deviation, which is about 0.8 standard deviations.
    assert found["association gap"] == pytest.approx(2 * 0.8 * 2.07 / 50, abs=0.012)


# Accuracy


def test_accuracy_by_group_and_the_worst_group_by_hand():
    right = np.array([True, True, False, True, False, False, True])
    groups = np.array(["a", "a", "a", "b", "b", "b", "c"])
    found = bm.measure_accuracy(right, groups, min_count=3)
    assert found["accuracy"] == pytest.approx(4 / 7)
    assert found["groups"]["a"] == {"rows": 3, "accuracy": pytest.approx(2 / 3)}
    assert found["groups"]["c"] == {"rows": 1, "why": "insufficient"}
    assert found["worst group"] == {"group": "b", "accuracy": pytest.approx(1 / 3)}
    assert found["mean of groups"] == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_without_a_sufficient_group_there_is_no_worst_one():
    found = bm.measure_accuracy(np.array([True, False]), np.array(["a", "b"]), min_count=2)
    assert found["worst group"] is None and found["mean of groups"] is None
    assert found["accuracy"] == 0.5
