"""The audit's measures agree with slow twins (lists of rows, a mask per group, loops) and with arithmetic by hand."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairdedup.core import representation as rp
from fairdedup.core.groups import GroupCells, count_by_cluster
from fairdedup.core.moments import MembershipMoments
from fairdedup.core.uncertainty import apportion, is_uninformative, uncertainty


@st.composite
def labelled_rows(draw):
    """Rows of (cluster, group, kept), with every group at least once."""
    groups = draw(st.integers(2, 4))
    some = st.tuples(st.integers(0, 5), st.integers(0, groups - 1), st.booleans())
    return [(0, g, False) for g in range(groups)] + draw(st.lists(some, min_size=1, max_size=40)), groups


def matrices(rows, groups):
    """Return rows and kept rows of each group in each cluster, by loops."""
    before, after = np.zeros((6, groups)), np.zeros((6, groups))
    for cluster, group, kept in rows:
        before[cluster, group] += 1
        after[cluster, group] += kept
    return before, after


def shares(counts):
    return [c / sum(counts) for c in counts]


@settings(max_examples=50)
@given(labelled_rows())
def test_measures_are_those_of_masks_over_the_rows(given_rows):
    rows, groups = given_rows
    n = [sum(1 for r in rows if r[1] == g) for g in range(groups)]
    k = [sum(1 for r in rows if r[1] == g and r[2]) for g in range(groups)]
    found = rp.compute_measures(
        np.array(n, float), np.array(k, float), np.ones(groups, bool), np.full(groups, 1 / groups)
    )
    rates = [a / b for a, b in zip(k, n, strict=True)]
    assert found.rate.tolist() == pytest.approx(rates)
    majority = n.index(max(n))
    assert found.majority == majority
    assert found.non_majority[0] == pytest.approx(1 - n[majority] / sum(n))
    if max(k):
        assert found.ratio == pytest.approx(min(rates) / max(rates))
        assert found.shift.tolist() == pytest.approx([a - b for a, b in zip(shares(k), shares(n), strict=True)])
        skew = [math.log((a / sum(k)) / (b / sum(n))) if a else -math.inf for a, b in zip(k, n, strict=True)]
        assert found.skew.tolist() == pytest.approx(skew)
        assert found.non_majority[1] == pytest.approx(1 - k[majority] / sum(k))
        assert found.distance[1] == pytest.approx(sum(abs(s - 1 / groups) for s in shares(k)) / 2)
        kl = sum(s * math.log(s / t) for s, t in zip(shares(k), shares(n), strict=True) if s)
        assert found.kl_full == pytest.approx(kl, abs=1e-12)
        assert found.kl_uniform == pytest.approx(sum(s * math.log(s * groups) for s in shares(k) if s), abs=1e-12)
    else:
        assert math.isnan(found.ratio) and np.isnan(found.shift).all() and math.isnan(found.kl_full)


def test_measures_by_hand():
    found = rp.compute_measures(
        np.array([60.0, 40.0]), np.array([30.0, 10.0]), np.array([True, True]), np.array([0.5, 0.5])
    )  # fmt: skip
    assert found.rate.tolist() == [0.5, 0.25]
    assert found.ratio == 0.5 and found.to_best.tolist() == [1.0, 0.5]
    assert found.shift.tolist() == pytest.approx([0.15, -0.15])
    assert found.skew.tolist() == pytest.approx([math.log(1.25), math.log(0.625)])
    assert found.non_majority == pytest.approx((0.4, 0.25))
    assert found.distance == pytest.approx((0.1, 0.25))


def test_the_skew_of_a_lost_group_is_minus_infinity_and_not_0():
    found = rp.compute_measures(np.array([5.0, 5.0]), np.array([5.0, 0.0]), np.ones(2, bool), np.full(2, 0.5))
    assert found.skew.tolist() == [math.log(2), -math.inf]
    assert found.ratio == 0.0


def test_an_insufficient_group_is_compared_with_no_other():
    found = rp.compute_measures(
        np.array([50.0, 50.0, 2.0]), np.array([40.0, 36.0, 0.0]), np.array([True, True, False]), np.full(3, 1 / 3)
    )
    assert found.ratio == pytest.approx(0.9) and math.isnan(found.to_best[2])
    alone = rp.compute_measures(np.array([50.0, 2.0]), np.array([40.0, 0.0]), np.array([True, False]), np.full(2, 0.5))
    assert math.isnan(alone.ratio) and np.isnan(alone.to_best).all()


@settings(max_examples=30)
@given(labelled_rows())
def test_weighted_lines_give_fairlearn_what_the_rows_would(given_rows):
    from fairlearn.metrics import MetricFrame, count, selection_rate

    rows, groups = given_rows
    before, after = matrices(rows, groups)
    ours = rp.keep_rates(before.sum(axis=0), after.sum(axis=0))
    kept = [r[2] for r in rows]
    theirs = MetricFrame(
        metrics={"rows": count, "keep rate": selection_rate},
        y_true=kept,
        y_pred=kept,
        sensitive_features=[r[1] for r in rows],
    )
    assert ours.by_group["rows"].tolist() == theirs.by_group["rows"].tolist()
    assert ours.by_group["keep rate"].tolist() == pytest.approx(theirs.by_group["keep rate"].tolist())
    assert ours.by_group["kept"].tolist() == after.sum(axis=0).tolist()
    assert ours.overall["keep rate"] == pytest.approx(theirs.overall["keep rate"])


@given(labelled_rows())
def test_the_two_parts_of_a_loss_add_up_to_the_whole(given_rows):
    rows, groups = given_rows
    before, after = matrices(rows, groups)
    between, within = rp.decompose(before, after)
    overall = Fraction(int(after.sum()), int(before.sum()))
    for g in range(groups):
        own = [r for r in rows if r[1] == g]
        whole = len(own) * overall - sum(r[2] for r in own)
        assert between[:, g].sum() + within[:, g].sum() == pytest.approx(float(whole), abs=1e-9)
    assert within.sum(axis=1) == pytest.approx(
        np.zeros(6), abs=1e-9
    )  # a cluster's choice takes from one, gives another


def test_a_loss_between_clusters_differs_from_a_loss_within():
    # Cluster 0 holds 10 men and is kept whole; cluster 1 holds 10 women and is kept by half: blind in both.
    between, within = rp.decompose(np.array([[10.0, 0], [0, 10]]), np.array([[10.0, 0], [0, 5]]))
    assert between[:, 1].tolist() == [0, 2.5] and within.tolist() == [[0, 0], [0, 0]]
    # One cluster of both, kept by half, men first: all within.
    between, within = rp.decompose(np.array([[10.0, 10]]), np.array([[8.0, 2]]))
    assert between.tolist() == [[0, 0]] and within.tolist() == [[-3, 3]]


@given(labelled_rows(), st.integers(1, 3))
def test_counts_by_cluster_are_those_of_loops_over_rows(given_rows, unit):
    rows, groups = given_rows
    rng = np.random.default_rng(len(rows))
    first = rng.integers(0, unit + 1, (len(rows), groups))
    second = rng.integers(0, unit + 1, (len(rows), 2))
    cells = [GroupCells((0,), tuple((g,) for g in range(groups))), GroupCells((0, 1), ((0, 0), (groups - 1, 1)))]
    clusters, before, after = count_by_cluster(
        np.array([r[0] for r in rows]), np.array([r[2] for r in rows]), [first, second], unit, cells
    )
    expected = {c: np.zeros((2, groups + 2), int) for c in sorted({r[0] for r in rows})}
    for (cluster, _, kept), a, b in zip(rows, first.tolist(), second.tolist(), strict=True):
        crossed = [a[0] * b[0], a[groups - 1] * b[1]]
        own = np.array([*a, *(math.floor(Fraction(x, unit) + Fraction(1, 2)) for x in crossed)])
        expected[cluster][0] += own
        expected[cluster][1] += own * kept
    assert clusters.tolist() == list(expected)
    for k, cluster in enumerate(clusters):
        assert before[k].tolist() == expected[cluster][0].tolist()
        assert after[k].tolist() == expected[cluster][1].tolist()


def test_no_rows_count_nothing():
    clusters, before, after = count_by_cluster(
        np.zeros(0, np.int64), np.zeros(0, bool), [np.zeros((0, 2))], 1, [GroupCells((0,), ((0,), (1,)))]
    )
    assert len(clusters) == 0 and before.shape == after.shape == (0, 2)


def hypergeometric_p(n, k, rows, kept):
    """Two-sided, by adding the chances of all counts that are no likelier, as fractions."""
    chances = {
        x: Fraction(math.comb(n, x) * math.comb(rows - n, kept - x), math.comb(rows, kept))
        for x in range(max(0, kept - (rows - n)), min(n, kept) + 1)
    }
    return float(sum(c for c in chances.values() if c <= chances[k]))


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 12)), min_size=2, max_size=4))
def test_the_test_against_random_is_exact(pairs):
    n = [a for a, _ in pairs]
    k = [min(a, b) for a, b in pairs]
    found = rp.random_test(np.array(n), np.array(k))
    expected = [hypergeometric_p(a, b, sum(n), sum(k)) for a, b in zip(n, k, strict=True)]
    assert found.tolist() == pytest.approx(expected)


def test_holm_by_hand():
    assert rp.holm(np.array([0.01, 0.04, 0.03, 0.005])).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert rp.holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]


def test_resampling_takes_whole_clusters_and_is_seeded():
    before, after = np.array([[1.0, 0], [0, 100]]), np.array([[1.0, 0], [0, 40]])
    n, k = rp.resample_clusters(before, after, 2000, 3)
    # Two clusters drawn with replacement: twice the first, one of each, twice the second.
    assert {tuple(line) for line in np.concatenate((n, k), axis=1).tolist()} == {
        (2, 0, 2, 0), (1, 100, 1, 40), (0, 200, 0, 80)
    }  # fmt: skip
    assert abs((n[:, 0] == 1).mean() - 0.5) < 0.05
    again = rp.resample_clusters(before, after, 2000, 3)
    assert np.array_equal(n, again[0]) and not np.array_equal(n, rp.resample_clusters(before, after, 2000, 4)[0])


def test_resampling_is_the_same_in_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    before = rng.integers(0, 9, (7, 3)).astype(float)
    whole = rp.resample_clusters(before, before / 2, 50, 1)
    monkeypatch.setattr(rp, "_BLOCK", 20)
    parts = rp.resample_clusters(before, before / 2, 50, 1)
    assert np.array_equal(whole[0], parts[0]) and np.array_equal(whole[1], parts[1])


def test_an_interval_covers_95_of_100_draws():
    after = np.arange(1.0, 1001)[:, None] * [1, 1]
    found = rp.compute_intervals(np.full((1000, 2), 1000.0), after, np.ones(2, bool))
    assert found["rate"].tolist() == [[0.025, 0.976]] * 2  # the 25th and the 976th of 1,000
    assert found["ratio"].tolist() == [[1.0, 1.0]] and found["shift"].tolist() == [[0, 0], [0, 0]]


def test_a_group_that_many_draws_lack_has_no_interval():
    before = np.array([[5.0, 1.0]] * 94 + [[5.0, 0.0]] * 6)
    found = rp.compute_intervals(before, before / 2, np.ones(2, bool))
    assert np.isnan(found["rate"][1]).all() and np.isnan(found["shift"][1]).all()
    assert found["rate"][0].tolist() == [0.5, 0.5]
    kept = rp.compute_intervals(before[:94], np.stack((before[:94, 0], np.zeros(94)), axis=1), np.ones(2, bool))
    assert kept["skew"][1].tolist() == [-math.inf, -math.inf]


def test_wide_intervals_hold_the_truth_about_as_often_as_they_say():
    """Rows of a cluster are kept or lost together: intervals over clusters cover, the rows' own would not."""
    rng = np.random.default_rng(5)
    covered = []
    for _ in range(120):
        size = rng.integers(2, 12, (60, 2)).astype(float)
        stays = (rng.random(60) < 0.5)[:, None]
        n, k = rp.resample_clusters(size, size * stays, 200, 0)
        low, high = rp.compute_intervals(n, k, np.ones(2, bool))["rate"][0]
        covered.append(low <= 0.5 <= high)
    assert 0.88 <= np.mean(covered) <= 1.0


def moments(rows):
    return MembershipMoments.of((np.array(rows) * 1e9).astype(np.int64))


def test_memberships_say_nothing_where_the_largest_is_hardly_above_chance():
    assert not is_uninformative(moments([[0.7, 0.3], [0.2, 0.8]]))  # 0.75 is not under 1.5 / 2
    assert is_uninformative(moments([[0.7, 0.3], [0.26, 0.74]]))
    assert not is_uninformative(moments([[0.9, 0.1], [0.3, 0.7]]))
    assert is_uninformative(moments([[0.4, 0.3, 0.3]])) and not is_uninformative(moments([[0.5, 0.3, 0.2]]))
    assert not is_uninformative(moments([[1.0], [1.0]]))  # one concept has nothing to tell apart


def test_what_is_absent_does_not_count_as_uninformative():
    assert not is_uninformative(moments([[0.95, 0.05], [0.001, 0.0], [0.0, 0.001]]))
    assert is_uninformative(moments([[0.0, 0.0]]))  # no row belongs to any group


def test_being_uninformative_combines_over_parts():
    a, b = [[0.6, 0.4], [0.5, 0.5]], [[1.0, 0.0]]
    assert moments(a) + moments(b) == moments(a + b)
    assert (moments(a) + moments(b)).mean_largest == Fraction(21, 30)


def test_uncertainty_by_hand():
    q = (np.array([[1.0, 0.0], [0.5, 0.5], [0.25, 0.75], [0.05, 0.05]]) * 1e9).astype(np.int64)
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / math.log(2)
    expected = [0, 1, (0.5 + 0.5 + entropy) / 3, 0.1]  # the last: mostly absent
    assert (uncertainty([q]) / 1e6).tolist() == pytest.approx(expected, abs=1e-6)
    one = np.full((4, 1), 10**9)
    assert uncertainty([q, one]).tolist() == uncertainty([q]).tolist()
    assert uncertainty([one]).tolist() == [0, 0, 0, 0]
    assert (uncertainty([q, q[::-1]]) == uncertainty([q[::-1], q])).all()


def test_seats_are_spread_by_mass_and_no_cluster_gives_more_than_it_has():
    assert apportion(np.array([60, 30, 10]), np.array([9, 9, 9]), 10).tolist() == [6, 3, 1]
    assert apportion(np.array([60, 30, 10]), np.array([2, 9, 9]), 10).tolist() == [2, 6, 2]
    assert apportion(np.array([5, 0, 5]), np.array([1, 9, 1]), 10).tolist() == [1, 0, 1]  # no other rows to suggest
    assert apportion(np.array([1, 1, 1]), np.array([9, 9, 9]), 2).tolist() == [1, 1, 0]  # ties: the lower cluster


@given(st.lists(st.tuples(st.integers(0, 10**15), st.integers(0, 20)), min_size=1, max_size=12), st.integers(0, 60))
def test_all_seats_are_given(clusters, number):
    mass, rows = (np.array(c, np.int64) for c in zip(*clusters, strict=True))
    given_ = apportion(mass, rows, number)
    room = sum(r for m, r in clusters if m)
    assert given_.sum() == min(number, room)
    assert (given_ >= 0).all() and (given_ <= np.where(mass > 0, rows, 0)).all()


def test_intersections_multiply_memberships():
    unit = 10**9
    q = [np.array([[unit // 2, unit // 4]]), np.array([[unit // 5, unit]])]
    cells = GroupCells((0, 1), tuple(product(range(2), range(2))))
    assert [int(cells.column(q, unit, g)[0]) for g in range(4)] == [unit // 10, unit // 2, unit // 20, unit // 4]
