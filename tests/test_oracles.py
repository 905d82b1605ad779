"""Pins the oracle itself (tests/oracles/) with cases small enough to work out by hand, as the comments do.

Vectors are mostly exact in float16 (axes, and halves such as HALF), so that every cosine below is exact.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

E1, E2, E3, E4 = np.eye(4)
HALF = np.array([0.5, 0.5, 0.5, 0.5])  # unit; cosine 0.5 with every axis

# a path: 0 - 1 - 2 - 3 are neighbours in turn at eps 0.15, nothing else is
PATH = np.full((4, 4), 0.5)
for _i in range(4):
    PATH[_i, _i] = 1.0
for _i in range(3):
    PATH[_i, _i + 1] = PATH[_i + 1, _i] = 0.9

# a star: 0 is near 1 and 2, which are not near each other
STAR = np.array([[1.0, 0.9, 0.9], [0.9, 1.0, 0.5], [0.9, 0.5, 1.0]])


def keep_last(leader: int, members: list[int]) -> int:
    return members[-1]


@pytest.mark.parametrize("factor", [1.0, 1e300, 1e-300, 2.0**-1074])
def test_unit_vectors_survive_huge_and_tiny_lengths(factor: float) -> None:
    expected = np.array([0.6, 0.8], dtype=np.float16)  # 3-4-5
    assert np.array_equal(oracles.unit16(np.array([3.0, 4.0]) * factor), expected)
    assert np.array_equal(oracles.unit16(np.array([[3.0, 4.0], [0, 0]]) * factor)[0], expected)
    assert oracles.unit16(np.zeros((1, 2))).tolist() == [[0, 0]]


def test_unit_vectors_are_rounded_once() -> None:
    # halves near 0.5 are 2**-11 apart: this is just above the middle, and on it once rounded to float32
    first = 0.5 + 2.0**-12 + 2.0**-40
    assert oracles.unit16([first, math.sqrt(1 - first**2)])[0] == 0.5 + 2.0**-11


def test_cosines_of_exact_vectors() -> None:
    # (3, 1) and (1, 3) are not scaled: 6 / sqrt(10 * 10)
    a = np.array([[1, 0], [3, 1], [0, 0]], dtype=np.float16)
    b = np.array([[1, 0], [1, 3]], dtype=np.float16)
    expected = [[1.0, 1 / math.sqrt(10)], [3 / math.sqrt(10), 0.6], [0.0, 0.0]]
    assert np.array_equal(oracles.cosine_matrix(a, b), expected)


def test_cosine_agrees_with_rational_arithmetic() -> None:
    rows = oracles.unit16(np.random.default_rng(0).normal(size=(6, 512)))
    cosines = oracles.cosine_matrix(rows, rows)
    fractions = [[Fraction(value) for value in row] for row in rows.tolist()]
    exact = [[sum(x * y for x, y in zip(a, b, strict=True)) for b in fractions] for a in fractions]
    for i in range(6):
        assert cosines[i, i] == 1.0
        for j in range(6):
            norms = math.sqrt(float(exact[i][i]) * float(exact[j][j]))
            assert cosines[i, j] == min(1.0, float(exact[i][j]) / norms)
            assert Fraction(float(exact[i][j])) == exact[i][j]  # the sum lost nothing


def test_the_threshold_is_strict() -> None:
    cosines = np.array([1.0, 0.5, -1.0])
    assert oracles.duplicates(cosines, 0).tolist() == [False, False, False]
    assert oracles.duplicates(cosines, 1).tolist() == [True, False, False]
    assert oracles.duplicates(cosines, 5000).tolist() == [True, False, False]
    assert oracles.duplicates(cosines, 5001).tolist() == [True, True, False]
    assert oracles.duplicates(cosines, 20000).tolist() == [True, True, False]
    assert oracles.duplicates(cosines, 20001).tolist() == [True, True, True]


def test_quantised_rounds_halves_to_even() -> None:
    # 2**-7 and 3 * 2**-7 times 10**6 are 7812.5 and 23437.5
    assert oracles.quantised([2.0**-7, 3 * 2.0**-7, -(2.0**-7), 0.3333333]).tolist() == [
        7812,
        23438,
        -7812,
        333333,
    ]


def test_centroids_are_sums_and_opposite_vectors_sum_to_zero() -> None:
    x16 = oracles.unit16([E1, E2, E1, -E1])
    centroids = oracles.centroids_of_labels(x16, np.array([7, 7, 2, 2]))
    root = np.float16(math.sqrt(0.5))
    assert centroids[7].tolist() == [root, root, 0, 0]
    assert centroids[2].tolist() == [0, 0, 0, 0]
    decision = oracles.decide_at_eps(x16, [7, 7, 2, 2], "semdedup", 20001)
    assert decision["centroid_similarity"][2:].tolist() == [0.0, 0.0]
    # cluster 7: both as far from the centroid, row 0 first; cluster 2: both 0, row 2 first
    assert decision["representative"].tolist() == [0, 0, 2, 2]


def test_assignment_ties_go_to_the_lower_number() -> None:
    centroids = oracles.unit16([E2, E1, -E1])
    assert oracles.assign(oracles.unit16([HALF, E1, -E1]), centroids).tolist() == [0, 1, 2]
    decision = oracles.decide([HALF, E1, -E1], None, "semdedup", e=0, centroids=[2 * E2, E1, -E1])
    assert decision["cluster"].tolist() == [0, 1, 2]
    assert decision["centroid_similarity"].tolist() == [0.5, 1.0, 1.0]


def test_visiting_order_is_by_quantised_similarity_then_row() -> None:
    # in millionths: 500000, 200000, 200000 (200000.4), 200000 (199999.6)
    assert oracles.visiting_order(np.array([0.5, 0.2, 0.2000004, 0.1999996])) == [1, 2, 3, 0]


def test_a_sweep_groups_unvisited_neighbours_of_its_leader() -> None:
    assert oracles.sweep(PATH, [0, 1, 2, 3], 1500, keep_last) == [
        (0, [0, 1], 1, [0, 1]),
        (2, [2, 3], 3, [2, 3]),
    ]
    assert oracles.sweep(PATH, [2, 0, 1, 3], 1500, oracles.pick_semdedup) == [
        (2, [1, 2, 3], 2, [1, 2, 3]),
        (0, [0], 0, [0]),
    ]
    assert [step.kept for step in oracles.sweep(PATH, [3, 2, 1, 0], 1000, keep_last)] == [
        3,
        2,
        1,
        0,
    ]  # 0.9 > 0.9 is not


def test_cover_takes_the_kept_ones_own_neighbours() -> None:
    # the path: 1 is kept for leader 0 and takes 2 with it, outside the leader's neighbourhood
    assert oracles.sweep(PATH, [0, 1, 2, 3], 1500, keep_last, cover=True) == [
        (0, [0, 1], 1, [0, 1, 2]),
        (3, [3], 3, [3]),
    ]
    # the star: 2 is kept for leader 0, and 1 stays unvisited
    assert oracles.sweep(STAR, [0, 1, 2], 1500, keep_last, cover=True) == [
        (0, [0, 1, 2], 2, [0, 2]),
        (1, [1], 1, [1]),
    ]
    assert oracles.sweep(STAR, [0, 1, 2], 1500, keep_last) == [(0, [0, 1, 2], 2, [0, 1, 2])]


def test_a_pick_outside_the_neighbourhood_is_refused() -> None:
    with pytest.raises(ValueError, match="position 3 was kept at leader 0"):
        oracles.sweep(PATH, [0, 1, 2, 3], 1500, lambda leader, members: 3)


def test_a_chain_removes_what_is_near_a_removed_row() -> None:
    assert oracles.chain(PATH, [0, 1, 2, 3], 1500) == [None, 0, 1, 2]
    assert oracles.chain(PATH, [1, 2, 0, 3], 1500) == [1, None, 1, 2]
    assert oracles.chain(PATH, [0, 1, 2, 3], 0) == [None] * 4
    # 0 is as near to 2, visited first, as to 1: the lowest row represents it
    assert oracles.chain(STAR, [2, 1, 0], 1500) == [1, None, None]


def test_fairdedup_feeds_the_concept_with_the_lowest_sum() -> None:
    p = np.array([[1, 10], [6, 4], [9, 1], [8, 2], [6, 8]])
    pick = oracles.pick_fairdedup(p)  # sums start at 30 / 5 and 25 / 5
    assert pick(1, [0, 1, 2]) == 0  # concept 1; sums 7, 15
    assert pick(3, [2, 3]) == 2  # concept 0; sums 16, 16
    assert pick(4, [1, 4]) == 1  # tied sums: concept 0 is listed first; tied p: the lowest row
    zero = oracles.pick_fairdedup(p, start="zero")
    assert zero(0, [0]) == 0  # sums 1, 10: the concept that was not chosen for grows too
    assert zero(3, [3, 4]) == 3  # concept 0; sums 9, 12
    assert oracles.pick_fairdedup(p, start="zero")(2, [1, 2, 4]) == 2  # tied at 0: concept 0


def test_fairdedup_starts_at_means_rounded_half_to_even() -> None:
    # 2.5 becomes 2 and ties with 2, so concept 0 chooses row 1; 3 would lose to concept 1, which is tied
    assert oracles.pick_fairdedup(np.array([[2, 2], [3, 2]]))(0, [0, 1]) == 1


def test_zscores_use_the_population_deviation_and_give_zero_without_spread() -> None:
    # 1, 1, 1, 5: mean 2, variance (1 + 1 + 1 + 9) / 4 = 3; numpy's deviation of three 0.1 is not 0
    columns = np.array([[0.125, 0.1, 0.0], [0.125, 0.1, 0.0], [0.125, 0.1, 1.0], [0.625, 0.1, 1.0]])
    root, inverse = 1732051, -577350  # sqrt(3), -1 / sqrt(3)
    assert oracles.zscores(columns).tolist() == [
        [inverse, 0, -1000000],
        [inverse, 0, -1000000],
        [inverse, 0, 1000000],
        [root, 0, 1000000],
    ]


def test_fairdedup_lists_concepts_of_all_attributes_and_no_absent_ones() -> None:
    prototypes = {"a": {"y": E1, "absent": [E2, HALF], "x": 3 * HALF}, "b": {"z": -E1}}
    problem = oracles.Problem(oracles.unit16([E1, E2]), [0, 0], "fairdedup", prototypes=prototypes)
    assert problem.p.tolist() == [[1000000, 500000, -1000000], [0, 500000, 0]]
    plain = oracles.Problem(oracles.unit16([E1, E2]), [0, 0], "fairdedup", prototypes=[E1, HALF], calibrate="zscore")
    assert plain.p.tolist() == [[1000000, 0], [-1000000, 0]]


def test_temperature_is_a_third_of_the_median_gap() -> None:
    # gaps 0.25, 0, 0.5: 0.25 / 3 = 0.08333; of 0.25 and 0: 0.125 / 3 = 0.041667; absent entries count
    assert oracles.temperature_of(np.array([[0.75, 0.25], [0.5, 0.5], [1.0, 0.0]])) == 0.0833
    assert oracles.temperature_of(np.array([[0.75, 0.25], [0.5, 0.5]])) == 0.0417
    assert oracles.temperature_of(np.array([[0.5, 0.25, 0.75]])) == 0.0833
    assert oracles.temperature_of(np.array([[0.5, 0.5]])) == 0.0001


def test_membership_is_a_softmax_to_nine_decimals() -> None:
    # a gap of two temperatures: 1 / (1 + exp(-2)) = 0.88079707797788...; three alike: a third each
    similarity = np.array([[0.75 + 2.0**-12, 0.75], [0.75, 0.75 + 2.0**-12]])
    assert oracles.membership(similarity, 2, 2.0**-13).tolist() == [
        [880797078, 119202922],
        [119202922, 880797078],
    ]
    assert oracles.membership(np.full((1, 3), 0.3), 2, 0.01).tolist() == [[333333333, 333333333]]
    assert oracles.membership(np.array([[1.0, 0.0]]), 2, 0.0001).tolist() == [[1000000000, 0]]


def sharp(rows: list[np.ndarray], **options: Any) -> oracles.Problem:
    """Return a balanced problem in one cluster where an axis belongs wholly to the concept of its axis."""
    prototypes = {"a": {"one": E1, "two": E2}}
    given = {"prototypes": prototypes, "temperature": 0.001, **options}
    return oracles.Problem(oracles.unit16(rows), np.zeros(len(rows), dtype=int), "balanced", **given)


def test_the_price_rises_with_what_the_data_lack() -> None:
    # shares 3/4, 1/4: u is -1/4 three times and 1/4; mean -1/8, deviation sqrt(3) / 8
    rows = [E1, E1, E2, E1]
    assert sharp(rows).price == [-577350, -577350, 1732051, -577350]  # -1 / sqrt(3) and sqrt(3)
    twice = {"a": {"one": E1, "two": E2}, "b": {"one": E1, "two": E2}, "flat": {"only": E1}}
    assert sharp(rows, prototypes=twice).price == [-1154701, -1154701, 3464102, -1154701]
    assert sharp(rows, target="data").price == [0, 0, 0, 0]
    assert sharp(rows, target={"a": {"one": 0.75, "two": 0.25}}).price == [0, 0, 0, 0]
    # three fifths of the data: 3/5 is not a float64, and yet the price is exactly 0
    assert sharp([E1, E2, E1, E2, E1], target={"a": {"one": 0.6, "two": 0.4}}).price == [0, 0, 0, 0, 0]
    assert sharp(rows, target={"a": {"one": 1, "two": 0}}).price == [577350, 577350, -1732051, 577350]


def test_absent_prototypes_weigh_in_the_softmax_and_are_then_dropped() -> None:
    prototypes = {"a": {"one": E1, "absent": E2, "two": HALF}}
    problem = sharp([E1, E2, HALF], prototypes=prototypes)
    assert problem.q["a"].tolist() == [[1000000000, 0], [0, 0], [0, 1000000000]]  # row 1 belongs to no concept
    assert sharp([E2], prototypes=prototypes).price == [0]  # no row has a membership: no shares, no price
    # shares (2/3, 1/3, 0), uniform 1/3: u is -1/3, -1/3, 0 and, without memberships, 0; mean and deviation 1/6
    three = {"a": {"one": E1, "two": E2, "three": E3, "absent": E4}}
    assert sharp([E1, E1, E2, E4], prototypes=three).price == [-1000000, -1000000, 1000000, 1000000]
    # similarities (1, 0.5, 0), (0, 0.5, 1), (0.5, 1, 0.5): gaps 0.5, 0.5, 1/3; 0.5 / 3 = 0.16667
    assert sharp([E1, E2, HALF], prototypes=prototypes, temperature="auto").temperatures == {"a": 0.1667}


def test_centrality_is_the_dot_product_with_the_mean() -> None:
    # sum (2.5, .5, .5, .5): E1 gives 2.5 / 3, HALF gives (1.25 + 0.75) / 3
    assert oracles.centrality(oracles.unit16([E1, E2, HALF, E1]), [0, 2, 3]) == [833333, 666667, 833333]
    # (1/8)² / 2 is 7812.5 millionths, 3 (1/8)² / 2 is 23437.5: halves to even
    assert oracles.centrality(np.array([[1 / 8], [0]], dtype=np.float16), [0, 1]) == [7812, 0]
    assert oracles.centrality(np.array([[1 / 8] * 3, [0] * 3], dtype=np.float16), [0, 1]) == [23438, 0]


def test_balanced_weighs_price_against_centrality() -> None:
    # 60 * 833333 - 60 * 666667 = 9999960 makes up for a less central place exactly
    x16 = oracles.unit16([HALF, E1, E1])
    assert oracles.pick_balanced([9999960, 0, 0], x16)(1, [0, 1, 2]) == 0  # a tie: the lowest row
    assert oracles.pick_balanced([9999959, 0, 0], x16)(1, [0, 1, 2]) == 1
    assert oracles.pick_balanced([0, 0, 1], x16)(1, [0, 1, 2]) == 2


def test_seats_follow_the_floor_of_the_fraction() -> None:
    assert [oracles.kept_seats(f, 10) for f in (0.5, 0.25, 0.24, 1.0)] == [5, 3, 2, 10]  # 2.5 goes up
    assert oracles.swept_seats(10, 3, 0.25) == 8  # 7.5 goes up
    assert oracles.swept_seats(10, 9, 0.3) == 9  # one per cluster
    problem = sharp([E1] * 20)
    assert problem.searched_seats(0.5) == 9
    assert problem.searched_seats(0.5, at_most=True) == 10
    assert problem.searched_seats(0.98) == 20  # K == N


def test_an_eps_is_right_when_it_brackets_the_seats() -> None:
    # copies fall together at 1, HALF and E1 at 5001; -E1 and HALF at 15001, which leaves E1; all at 20001
    problem = oracles.Problem(oracles.unit16([E1, E1, HALF, -E1]), [0, 0, 0, 0], "semdedup")
    assert [problem.count(e) for e in (0, 1, 5000, 5001, 15000, 20000, 20001)] == [4, 3, 3, 2, 2, 2, 1]
    assert problem.brackets(0, 4) and not problem.brackets(1, 4)
    assert problem.brackets(1, 3) and not problem.brackets(5000, 3) and not problem.brackets(0, 3)
    assert problem.brackets(5001, 2) and not problem.brackets(5000, 2) and not problem.brackets(20000, 2)
    assert problem.brackets(20001, 1)


def removed_decision(kept: list[int], similarity: list[float]) -> oracles.Decision:
    n = len(similarity)
    mask = np.isin(np.arange(n), kept)
    return {"kept": mask, "similarity": np.array(similarity), "readmitted": np.zeros(n, dtype=bool)}


def test_the_shortfall_is_made_up_from_the_least_similar() -> None:
    # 0.9000001 and 0.9 are both 900000 millionths: the lower row first
    decision = removed_decision([0], [1.0, 0.9000001, 0.9, 0.8])
    assert np.flatnonzero(oracles.readmit(decision, 2)["readmitted"]).tolist() == [3]
    after = oracles.readmit(decision, 3)
    assert np.flatnonzero(after["readmitted"]).tolist() == [1, 3]
    assert np.flatnonzero(after["kept"]).tolist() == [0, 1, 3]
    assert after["similarity"].tolist() == [1.0, 0.9000001, 0.9, 0.8]
    assert not decision["readmitted"].any()  # the input is left alone
    with pytest.raises(ValueError, match="1 rows are kept where there are 0 seats"):
        oracles.readmit(decision, 0)


def test_balanced_seats_follow_the_shares_of_the_kept() -> None:
    # Rows 0-3 are "one", 4 and 5 "two"; row 0 is kept, shares (1, 0), u' = -1/2 and 1/2 over all rows: mean
    # -1/6, deviation sqrt(1/4 - 1/36) = 0.4714, price' -1.0607 and 1.0607. 40 (1 - s) of rows 1-5: 20, 4, 2,
    # 1.9375, 2.
    problem = sharp([E1, E1, E1, E1, E2, E2])
    decision = removed_decision([0], [1.0, 0.5, 0.9, 0.95, 1 - 1.9375 / 40, 0.95])

    def admitted(seats: int) -> list[int]:
        rows: list[int] = np.flatnonzero(problem.seats(decision, seats)["readmitted"]).tolist()
        return rows

    assert admitted(1) == []
    assert admitted(2) == [1]  # 18.94 against 2.94, 0.94, 3.00, 3.06
    assert admitted(3) == [1, 5]  # shares (1, 0) still: 3.06
    # Shares (2/3, 1/3): price' -0.3536 and 0.3536: row 2 has 3.65, row 3 1.65, row 4 2.29. With the first
    # shares, or with today's deviation, price' would be 1.0607 again and row 4 would win: 3.00 against 2.94.
    assert admitted(4) == [1, 2, 5]
    assert admitted(5) == [1, 2, 4, 5]  # shares (3/4, 1/4), price' 0.5303: 2.47 against 1.47


def test_forty_weighs_coverage_against_the_shares() -> None:
    # Rows 1 ("one") and 2 ("two"), row 0 ("one") kept: price' -1.0607 and 1.0607 as above, 2.1213 apart.
    # Being less similar by 0.06 weighs 2.4 and wins; by 0.05, 2.0, and loses.
    problem = sharp([E1, E1, E2])
    for similarity, admitted in ((0.44, 1), (0.45, 2)):
        after = problem.seats(removed_decision([0], [1.0, similarity, 0.5]), 2)
        assert np.flatnonzero(after["readmitted"]).tolist() == [admitted]
    # the cosine is not quantised: 0.2 millionths less similar is 8 millionths in the score
    after = sharp([E1, E1, E1]).seats(removed_decision([0], [1.0, 0.5, 0.4999998]), 2)
    assert np.flatnonzero(after["readmitted"]).tolist() == [2]


def test_balanced_fills_its_seats_where_other_rules_readmit() -> None:
    # Unit vectors: b = (4, 6, 2, 2, 2, 0) / 8 leans to "two", c = (15, 1, 27, 8, 2, 1) / 32 to "one". Their
    # similarities to axis 0 are 0.5 and 0.46875, to each other 140 / 256. With the data's shares as target
    # every price is 0, and the most central is row 0: 2.96875 / 4 against 2.546875 / 4 (b), 2.484375 / 4 (c).
    # c is the least similar. But the kept lack "two": u' = -1/4 and 1/4, mean -1/8, deviation sqrt(3) / 8,
    # price' -1.15 and 1.15: c has 40 * 0.53125 - 1.15 = 20.10, b has 20 + 1.15 = 21.15.
    axes = np.eye(6)
    x = [axes[0], axes[0], np.array([15, 1, 27, 8, 2, 1]) / 32, np.array([4, 6, 2, 2, 2, 0]) / 8]
    options: dict[str, Any] = {
        "prototypes": {"a": {"one": axes[0], "two": axes[1]}},
        "temperature": 0.001,
        "target": "data",
    }
    balanced = oracles.decide(x, [0] * 4, "balanced", e=20001, keep=0.5, **options)
    assert balanced["kept"].tolist() == [True, False, False, True]
    assert balanced["readmitted"].tolist() == [False, False, False, True]
    assert balanced["similarity"].tolist() == [1.0, 1.0, 0.46875, 0.5]
    assert oracles.decide(x, [0] * 4, "balanced", e=20001, **options)["kept"].tolist() == [
        True,
        False,
        False,
        False,
    ]
    plain = oracles.decide(x, [0] * 4, "semdedup", e=20001, keep=0.5, centroids=[-axes[0]])
    assert plain["kept"].tolist() == [True, False, True, False]


def test_seats_are_admitted_by_the_hundredth() -> None:
    # Equal similarities: only price' counts. 200 seats go by twos: two of "two", two of "one", and so on.
    # One by one, a tie (as many of each) would go to the lower rows, "two": 101 to 99.
    problem = sharp([E1] + [E2] * 150 + [E1] * 150)
    decision = removed_decision([0], [1.0] + [0.5] * 300)
    readmitted = problem.seats(decision, 201)["readmitted"]
    assert np.flatnonzero(readmitted).tolist() == [*range(1, 101), *range(151, 251)]
    # 199 seats go one by one: "two", then ("two", "one") 99 times
    readmitted = problem.seats(decision, 200)["readmitted"]
    assert np.flatnonzero(readmitted).tolist() == [*range(1, 101), *range(151, 250)]


def test_an_attribute_with_no_spread_has_no_say_in_the_seats() -> None:
    # shares (1/2, 1/2) of the kept: u' = 0 for every row, so only the similarity counts
    problem = sharp([E1, E2, E1, E2])
    decision = removed_decision([0, 1], [1.0, 1.0, 0.5, 0.25])
    assert np.flatnonzero(problem.seats(decision, 3)["readmitted"]).tolist() == [3]


def test_a_decision_from_raw_vectors() -> None:
    # centroid E1: visiting order -E1 (row 3), HALF (row 2), then the two E1; at 5001 HALF represents both
    x = [5 * E1, 7 * E1, HALF, -E1]
    decision = oracles.decide(x, [0, 0, 0, 0], "semdedup", e=5001, centroids=[2 * E1])
    assert {name: column.tolist() for name, column in decision.items()} == {
        "cluster": [0, 0, 0, 0],
        "kept": [False, False, True, True],
        "representative": [2, 2, 2, 3],
        "similarity": [0.5, 0.5, 1.0, 1.0],
        "centroid_similarity": [1.0, 1.0, 0.5, -1.0],
        "readmitted": [False, False, False, False],
        "neighbourhood": [2, 2, 2, 3],
    }
    three = oracles.decide(x, [0, 0, 0, 0], "semdedup", e=5001, keep=0.75, centroids=[2 * E1])
    assert three["kept"].tolist() == [True, False, True, True]
    assert three["readmitted"].tolist() == [True, False, False, False]
    assert three["representative"].tolist() == [2, 2, 2, 3]


def test_clusters_are_swept_apart_and_fairdedup_starts_anew_in_each() -> None:
    # Both clusters hold E1 and HALF; p is (1, 0.5) and (0.5, 1) in millions, the means tie: concept 0, so E1
    prototypes = [E1, HALF]
    decision = oracles.decide([E1, HALF, E1, HALF], [0, 1, 1, 0], "fairdedup", e=5001, prototypes=prototypes)
    assert decision["kept"].tolist() == [True, False, True, False]
    assert decision["representative"].tolist() == [0, 2, 2, 0]


def test_a_chain_has_no_neighbourhoods() -> None:
    decision = oracles.decide([E1, E1, HALF, -E1], [0] * 4, "semdedup-chain", e=5001, centroids=[E1])
    assert decision["representative"].tolist() == [
        2,
        0,
        2,
        3,
    ]  # row 1's nearest earlier row is its copy, removed
    assert decision["similarity"].tolist() == [0.5, 1.0, 1.0, 1.0]
    assert "neighbourhood" not in decision


def test_a_random_choice_is_replayed_or_refused() -> None:
    x16 = oracles.unit16([E1, E1, HALF, -E1])
    chosen = np.array([1, 1, 1, 3])
    for cover in (False, True):
        decision = oracles.decide_at_eps(x16, [0] * 4, "random-neighbour", 5001, chosen=chosen, cover=cover)
        assert decision["representative"].tolist() == [1, 1, 1, 3]
    with pytest.raises(ValueError, match="was kept at leader"):
        oracles.decide_at_eps(x16, [0] * 4, "random-neighbour", 5001, chosen=np.array([3, 3, 3, 3]))
    with pytest.raises(ValueError, match="needs `chosen`"):
        oracles.decide_at_eps(x16, [0] * 4, "random-neighbour", 5001)


def test_broken_guarantees_are_counted() -> None:
    x16 = oracles.unit16([E1, HALF, E2, E1])
    decision = {
        "cluster": np.array([0, 0, 0, 1]),
        "kept": np.array([True, True, False, True]),
        "readmitted": np.zeros(4, dtype=bool),
        "representative": np.array([0, 1, 0, 3]),
    }
    assert oracles.guarantees(x16, decision, 5001) == (1, 1)  # E1 and HALF both kept; E1 is not near E2
    assert oracles.guarantees(x16, {**decision, "representative": np.array([0, 1, 1, 3])}, 5001) == (1, 0)
    assert oracles.guarantees(x16, {**decision, "readmitted": np.array([True, False, False, False])}, 5001) == (0, 1)
    assert oracles.guarantees(x16, decision, 5000) == (0, 1)


def test_a_random_share_is_only_counted() -> None:
    decision = {"kept": np.array([True, False, True, False]), "readmitted": np.zeros(4, dtype=bool)}
    assert oracles.random_fault(decision, 0.5) == ""
    assert oracles.random_fault(decision, 0.25) == "2 kept where 1 were expected"
    assert oracles.random_fault({**decision, "readmitted": decision["kept"]}, 0.5) == "rows readmitted"


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), e=st.integers(0, 20001))
def test_rules_differ_only_in_who_is_kept(seed: int, e: int) -> None:
    rng = np.random.default_rng(seed)
    x16 = oracles.unit16(rng.integers(-2, 3, size=(24, 3)) + np.array([0.5, 0, 0]))  # many copies and ties
    labels = rng.integers(0, 3, size=24)
    prototypes = {"a": {"one": rng.normal(size=3), "two": rng.normal(size=3), "absent": rng.normal(size=(2, 3))}}
    semdedup = oracles.Problem(x16, labels, "semdedup")
    plain = semdedup.at_eps(e)
    assert oracles.guarantees(x16, plain, e) == (0, 0)
    assert (oracles.Problem(x16, labels, "semdedup-chain").at_eps(e)["kept"] <= plain["kept"]).all()
    for rule in ("fairdedup", "balanced"):
        other = oracles.Problem(x16, labels, rule, prototypes=prototypes).at_eps(e)
        assert np.array_equal(other["neighbourhood"], plain["neighbourhood"])
        covered = oracles.Problem(x16, labels, rule, prototypes=prototypes, cover=True).at_eps(e)
        assert oracles.guarantees(x16, covered, e) == (0, 0)
        for decision in (other, covered):
            kept = np.flatnonzero(decision["kept"]).tolist()
            assert sorted(set(decision["representative"].tolist())) == kept
