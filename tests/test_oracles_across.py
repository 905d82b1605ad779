"""Pins the oracle's reach, rounds, `within` and leftover with cases worked out by hand, and with properties."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import RULES_AND_COVER, random_across

E1, E2, E3, E4 = np.eye(4)
HALF = np.array([0.5, 0.5, 0.5, 0.5])  # unit; cosine 0.5 with every axis

SWEEPING = [(rule, cover) for rule, cover in RULES_AND_COVER if rule != "semdedup-chain"]
SWEEPING += [("central", False), ("central", True)]


def keep_last(leader: int, members: list[int]) -> int:
    return members[-1]


def settle(
    labels: Sequence[int],
    near: dict[tuple[int, int], float],
    *,
    unlinked: Sequence[tuple[int, int]] = (),
    order: Sequence[int] | None = None,
    pick: Callable[[int, list[int]], int] = oracles.pick_semdedup,
    cover: bool = False,
    gives_back: bool = True,
    protected: Sequence[int] = (),
    earlier: Sequence[int] = (),
    in_conflict: Callable[[int, list[int]], int] | None = None,
) -> oracles.Outcome:
    """Decide rows that are duplicates (with these cosines) only as `near` says, and linked except where `unlinked`."""
    n = len(labels)
    cosines = np.eye(n)
    for (i, j), cosine in near.items():
        cosines[i, j] = cosines[j, i] = cosine
    linked = cosines > 0
    for i, j in unlinked:
        linked[i, j] = linked[j, i] = False
    place = {row: t for t, row in enumerate(range(n) if order is None else order)}
    return oracles.decide_in_rounds(
        labels=np.array(labels), order_keys=[(place[row], row) for row in range(n)], cosines=cosines,
        near=cosines > 0, linked=linked, new=[row for row in range(n) if row not in earlier], earlier=earlier,
        protected=protected, picks=dict.fromkeys(labels, pick), conflict_pick=lambda rows: in_conflict or pick,
        cover=cover, hands_over_duplicates=gives_back,
    )  # fmt: skip


def test_of_a_split_pair_one_is_kept() -> None:
    outcome = settle([0, 0, 1], {(1, 2): 0.9})
    assert outcome.representative == {0: 0, 1: 1, 2: 1}
    assert [r.conflict for r in outcome.rounds] == [[1, 2]]
    assert settle([0, 0, 1], {(1, 2): 0.9}, order=[2, 1, 0]).representative == {0: 0, 1: 2, 2: 2}
    # duplicates that are not comparable are both kept
    assert settle([0, 0, 1], {(1, 2): 0.9}, unlinked=[(1, 2)]).representative == {0: 0, 1: 1, 2: 2}


def test_a_chain_over_three_clusters_is_swept_like_a_cluster() -> None:
    chain = {(0, 1): 0.9, (1, 2): 0.9}
    assert settle([0, 1, 2], chain).representative == {0: 0, 1: 0, 2: 2}
    assert settle([0, 1, 2], chain, order=[1, 0, 2]).representative == {0: 1, 1: 1, 2: 1}
    # leader 0 offers 0 and 1, and 1 is kept: without cover it leaves 2 alone, with cover it takes it
    assert settle([0, 1, 2], chain, pick=keep_last).representative == {0: 1, 1: 1, 2: 2}
    assert settle([0, 1, 2], chain, pick=keep_last, cover=True).representative == {0: 1, 1: 1, 2: 1}


def test_a_taken_candidate_gives_its_rows_back() -> None:
    # 1 stands for 2 and 3 in cluster 1, and 0 takes it. 2 is a duplicate of 0, though not comparable; 3 is not.
    near = {(0, 1): 0.9, (1, 2): 0.9, (1, 3): 0.9, (0, 2): 0.7}
    outcome = settle([0, 1, 1, 1], near, unlinked=[(0, 2)])
    assert outcome.representative == {0: 0, 1: 0, 2: 0, 3: 3}
    first, second = outcome.rounds
    assert (first.candidates, first.taken, first.handed_over) == ({0: [], 1: [2, 3]}, {1: 0}, {2: 0})
    assert (first.reopened, first.kept, second.kept) == ([3], [0], [3])
    # without cover, other rules hand over all of them in one round
    outcome = settle([0, 1, 1, 1], near, unlinked=[(0, 2)], gives_back=False)
    assert (outcome.representative, len(outcome.rounds)) == ({0: 0, 1: 0, 2: 0, 3: 0}, 1)


def test_an_open_row_goes_to_the_most_similar_that_is_kept() -> None:
    # 1 stands for 3 and is taken by 0. In round 2, row 3 is linked to 2 (own cluster) and 4 (another), both kept.
    near = {(0, 1): 0.9, (1, 3): 0.9, (2, 3): 0.8, (3, 4): 0.85}
    outcome = settle([0, 1, 1, 1, 2], near)
    assert outcome.representative == {0: 0, 1: 0, 2: 2, 3: 4, 4: 4}
    assert outcome.rounds[1].removed == {3: 4}
    tied = settle([0, 1, 1, 1, 2], near | {(2, 3): 0.85})
    assert tied.representative[3] == 2  # ties to the lowest row


def test_a_row_that_is_given_back_may_conflict_again() -> None:
    # 0 takes 1, which stood for 2; 0 takes 3, which stood for 4. Rows 2 and 4 are linked, and meet in round 2.
    outcome = settle([0, 1, 1, 2, 2], {(0, 1): 0.9, (1, 2): 0.9, (0, 3): 0.9, (3, 4): 0.9, (2, 4): 0.9})
    assert outcome.representative == {0: 0, 1: 0, 2: 2, 3: 0, 4: 2}
    assert [r.taken for r in outcome.rounds] == [{1: 0, 3: 0}, {4: 2}]


def test_a_rule_goes_on_where_the_last_round_left_it() -> None:
    # 0 takes 1, which gives 2 and 3 back; these are the third neighbourhood of the rule, which then keeps the last
    leaders = []

    def keep_first_twice(leader: int, members: list[int]) -> int:
        leaders.append(leader)
        return members[0] if len(leaders) < 3 else members[-1]

    near = {(0, 1): 0.9, (1, 2): 0.9, (1, 3): 0.9, (2, 3): 0.8}
    outcome = settle([0, 1, 1, 1], near, pick=keep_first_twice, in_conflict=oracles.pick_semdedup)
    assert (leaders, outcome.representative) == ([0, 1, 2], {0: 0, 1: 0, 2: 3, 3: 3})


def test_linked_candidates_of_one_cluster_make_no_conflict() -> None:
    # leader 0 offers 0 and 1, and 1 is kept; 2 is linked to it and is a candidate too
    near = {(0, 1): 0.9, (1, 2): 0.9}
    outcome = settle([0, 0, 0], near, pick=keep_last, gives_back=False)
    assert (outcome.representative, outcome.rounds[0].conflict) == ({0: 1, 1: 1, 2: 2}, [])
    # each has a conflict of its own, with 3 and 4: then they are neighbours, and 2 goes with 1 and 3
    outcome = settle(
        [0, 0, 0, 1, 2], near | {(1, 3): 0.9, (2, 4): 0.9}, pick=oracles.pick_prefer([0, 9, 1, 1, 1]), gives_back=False
    )
    assert outcome.rounds[0].conflict == [1, 2, 3, 4]
    assert outcome.representative == {0: 1, 1: 1, 2: 1, 3: 1, 4: 4}


def test_rows_kept_before_remove_across_clusters() -> None:
    # row 0 is of an earlier run, row 2 is protected: 3 is as near to both, and goes to the old one
    near = {(0, 3): 0.9, (2, 3): 0.9, (0, 2): 0.9, (2, 4): 0.9}
    outcome = settle([0, 1, 1, 2, 2], near, earlier=[0], protected=[2])
    assert outcome.representative == {1: 1, 2: 2, 3: 0, 4: 2}
    assert outcome.rounds[0].removed == {3: 0, 4: 2}
    assert settle([0, 1, 1, 2, 2], near | {(2, 3): 0.95}, earlier=[0], protected=[2]).representative[3] == 2


def test_the_reach_of_an_eps() -> None:
    assert oracles.rho(100, 4) == 200_000  # 4 * sqrt(0.01 / 4) = 0.2
    assert oracles.rho(500, 512) == 39_528  # 4 * sqrt(0.05 / 512) = 0.0395284...
    assert oracles.rho(0, 4) == 0
    assert oracles.rho(100, 4, 0.25) == 250_000
    # halves to even: 4 * 10^6 * sqrt(e / 10^4 / d) with d = 2^16 is 156.25 * sqrt(e): 312.5 at 4, 937.5 at 36
    assert [oracles.rho(e, 2**16) for e in (4, 36, 64)] == [312, 938, 1250]
    for d in (2, 3, 16, 512):
        floats = np.rint(10**6 * 4 * np.sqrt(np.arange(20002) / 10**4 / d))
        assert [oracles.rho(e, d) for e in range(20002)] == floats.tolist()


def test_the_nearest_clusters_begin_with_the_own_and_end_with_the_higher_number() -> None:
    similarity = {7: 5, 3: 9, 1: 5, 4: 9}
    assert oracles.nearest_clusters(7, similarity, 3) == [7, 3, 4]
    assert oracles.nearest_clusters(3, similarity, 3) == [3, 4, 1]
    assert oracles.nearest_clusters(7, similarity, 1) == [7]


def test_one_of_two_rows_reaches_for_both() -> None:
    # centroids E1, E2, E3. (4, 3, 0, 0) / 5 in float16 has gap 0.2 to E2; E2 has gap 1 to E1
    x16 = oracles.unit16([[4, 3, 0, 0], E2, [4, 0, 3, 0]])
    centroids = dict(enumerate(oracles.unit16([E1, E2, E3])))

    def comparable(reach: float, clusters: int = 16, row: int = 0) -> list[bool]:
        reaching = oracles.Reaching(x16, np.array([0, 1, 0]), centroids, reach, clusters)
        found: list[bool] = reaching.comparable(np.full(3, 100))[row].tolist()
        return found

    assert comparable(0.19) == [True, False, True]
    assert comparable(0.21) == [True, True, True]
    assert comparable(0.21, row=1) == [True, True, False]  # symmetric; row 2 is nearer to E3 than to E2
    assert comparable(0.85, row=2) == [True, True, True]  # gap 0.8
    assert comparable(0.85, 2, row=2) == [True, False, True]  # E2 is the third of its clusters
    assert comparable(0.21, 1) == [True, False, True]


def test_a_gap_of_exactly_rho_reaches_and_reach_0_never_does() -> None:
    # HALF is as near to both centroids: its gap is 0, and with a given label that is not the nearest below 0
    x16, centroids = oracles.unit16([HALF, E2, E2]), dict(enumerate(oracles.unit16([E1, E2])))
    for reach, expected in ((1e-7, [True, True, True]), (0, [True, False, False])):
        reaching = oracles.Reaching(x16, np.array([0, 1, 1]), centroids, reach)
        assert reaching.comparable(np.full(3, 100))[0].tolist() == expected
        reaching = oracles.Reaching(x16, np.array([0, 0, 1]), centroids, reach)
        assert reaching.comparable(np.full(3, 100))[1].tolist() == [True, True, reach > 0]


def test_across_clusters_fairdedup_starts_from_the_mean_in_conflict() -> None:
    # p is (0.5, 1) for E1, (1, 0.5) for HALF: the mean ties, so the first concept, so HALF (row 1). With -E1, which is
    # in no conflict and has (-0.5, -1), the means would be 1/3 and 1/6, and E1 would be kept.
    problem = oracles.Problem(
        oracles.unit16([E1, HALF, -E1]), [0, 1, 2], "fairdedup", prototypes=[HALF, E1], reach=2.0
    )  # fmt: skip
    decision = problem.at_eps(5001)
    assert decision["representative"].tolist() == [1, 1, 2]
    assert decision["similarity"].tolist() == [0.5, 1.0, 1.0]
    assert oracles.Problem(problem.x16, [0, 1, 2], "fairdedup", prototypes=[HALF, E1]).count(5001) == 3


def test_across_clusters_fairdedup_forgets_the_sums_of_the_clusters() -> None:
    # as above; two more copies of -E1 in cluster 0 make its mean -1/6 and -1/3, so that its concept would be the second
    options: dict[str, Any] = {"prototypes": [HALF, E1], "reach": 2.0}
    decision = oracles.decide_at_eps(oracles.unit16([E1, HALF, -E1, -E1]), [0, 1, 0, 0], "fairdedup", 5001, **options)
    assert decision["representative"].tolist() == [1, 1, 2, 2]
    # p is (1, 0) for E1, (0.5, 0.5) for HALF. The mean (0.75, 0.25) asks for the second concept, zeros for the first
    options = {"prototypes": [E1, E2], "reach": 2.0}
    for start, kept in (("cluster", 1), ("zero", 0)):
        decision = oracles.decide_at_eps(oracles.unit16([E1, HALF]), [0, 1], "fairdedup", 5001, start=start, **options)
        assert decision["representative"].tolist() == [kept, kept]


def test_across_clusters_balanced_counts_the_leader_and_its_linked_candidates() -> None:
    # Prices are 0 (one concept). Leader 0 (E1) has cosine 0.5 with HALF, which has 0.5 with E2 too; E1 and E2 have 0.
    # Over the leader's neighbourhood {E1, HALF} h ties at 0.75: row 0. Over all three HALF would be the most central.
    options: dict[str, Any] = {"prototypes": [E1], "temperature": 0.1, "reach": 2.0}
    decision = oracles.decide_at_eps(oracles.unit16([E1, HALF, E2]), [0, 1, 2], "balanced", 5001, **options)
    assert decision["representative"].tolist() == [0, 0, 2]


def test_broken_promises_are_counted_over_compared_pairs() -> None:
    # copies, all kept: of 6 pairs, rows 0 and 1 are both protected; without reach only 0-1 and 2-3 are compared
    x16, protected = oracles.unit16([E1] * 4), np.array([True, True, False, False])
    decision = oracles.decide_at_eps(x16, [0, 0, 1, 1], "semdedup", 0)
    for reach, pairs in ((2.0, 5), (0, 1)):
        problem = oracles.Problem(x16, [0, 0, 1, 1], "semdedup", reach=reach, protected=protected)
        assert problem.broken(decision, 1) == (pairs, 0)
    lost = {**decision, "kept": np.array([True, True, True, False])}  # row 3 still names itself
    assert problem.broken(lost, 1) == (0, 1)
    assert problem.broken({**lost, "representative": np.array([0, 1, 2, 0])}, 1) == (0, 0)


def test_exact_copies_in_two_clusters_are_one_kept_row() -> None:
    x16 = oracles.unit16([E1, E2, E1, E2, E1])
    options: dict[str, Any] = {"reach": 2.0}
    decision = oracles.decide_at_eps(x16, [0, 0, 1, 1, 2], "semdedup", 1, **options)
    assert decision["representative"].tolist() == [0, 1, 0, 1, 0]
    apart = oracles.decide_at_eps(x16, [0, 0, 1, 1, 2], "semdedup", 1, within=list("xyyyx"), **options)
    assert apart["representative"].tolist() == [0, 1, 2, 1, 0]
    none, nan = None, float("nan")
    missing = oracles.decide_at_eps(x16, [0, 0, 1, 1, 2], "semdedup", 1, within=[none, "", nan, none, ""], **options)
    assert missing["representative"].tolist() == [0, 1, 0, 3, 4]


def test_the_least_k_has_a_row_of_each_value_of_each_cluster() -> None:
    x16 = oracles.unit16([E1, E1, E1, E2])
    assert oracles.Problem(x16, [0, 0, 0, 1], "semdedup").least == 2
    assert oracles.Problem(x16, [0, 0, 0, 1], "semdedup", within=["a", "b", "a", "a"]).least == 3
    chain = oracles.Problem(x16, [0, 0, 0, 1], "semdedup-chain", within=["a", "b", "a", "a"])
    assert chain.at_eps(20001)["kept"].tolist() == [True, True, False, True]


def test_old_rows_reach_by_the_eps_of_their_line() -> None:
    # d = 64, centroids E1 and E2. The old row, (4, 3) / 5 of the first, has gap 0.2 to the second; the new one, nearly
    # E2, has gap 0.9 to the first. Their cosine is 0.677: duplicates at 3400, where rho is 0.29; at 1 it is 0.005.
    axes = np.eye(64)
    day = oracles.Day(oracles.unit16([0.8 * axes[0] + 0.6 * axes[1]]), np.array([0]), np.array([True]))
    new = oracles.unit16([0.1 * axes[0] + axes[1]])
    for line_eps, by in ((None, 0), (3400, 0), (1, -1)):
        problem = oracles.Problem(
            new, [1], "semdedup", centroids16=axes[:2].astype(np.float16), earlier=[day], reach="auto",
            line_eps=line_eps,
        )  # fmt: skip
        decision = problem.at_eps(3400)
        assert (decision["earlier"].tolist(), decision["kept"].tolist()) == ([by], [by < 0])


def test_the_leftover_is_counted_by_where_the_duplicate_is() -> None:
    # kept: three copies of E1 in clusters 0, 0, 1 and one in 2; only 0 and 1 are comparable
    x16, labels = oracles.unit16([E1, E1, E1, E1, E2]), np.array([0, 0, 1, 2, 2])
    comparable = (labels[:, None] == labels) | ((labels[:, None] < 2) & (labels < 2))
    same = np.ones((5, 5), bool)
    count = oracles.count_leftover
    assert count(x16, labels, comparable, same, 1, range(5), range(5)) == (5, 2, 3, 4, 4)
    assert count(x16, labels, comparable, same, 1, [0, 4], range(5)) == (2, 1, 1, 1, 1)
    assert count(x16, labels, comparable, same, 1, [2, 3], [2, 3]) == (2, 0, 0, 2, 2)
    assert count(x16, labels, comparable, same, 0, range(5), range(5)) == (5, 0, 0, 0, 0)
    assert count(x16, labels, comparable, np.eye(5, dtype=bool), 1, range(5), range(5)) == (5, 0, 0, 0, 0)


def test_clopper_pearson_intervals() -> None:
    assert oracles.interval(0, 1000) == (0.0, pytest.approx(1 - 0.025**0.001))  # under 0.4 %
    assert oracles.interval(10, 10) == (pytest.approx(0.025**0.1), 1.0)
    assert oracles.interval(5, 10) == (pytest.approx(0.1870860), pytest.approx(0.8129140))  # from the tables


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_rounds_keep_what_they_promise(seed: int) -> None:
    across = random_across(seed)
    for rule, cover in SWEEPING:
        problem = across.twin(rule, cover)
        decision, outcome = problem.in_rounds(across.case.eps)
        kept = [row for one in outcome.rounds for row in one.kept]
        assert len(kept) == len(set(kept))
        assert decision["kept"].sum() == len(kept) + problem.protected.sum()
        assert len(outcome.rounds) <= 6
        removed = decision["representative"][~decision["kept"]]
        assert decision["kept"][removed[removed >= 0]].all()
        if cover or rule == "semdedup":
            assert problem.broken(decision, across.case.eps) == (0, 0)
        else:
            assert len(outcome.rounds) <= 1


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_rounds_without_reach_are_the_sweep_of_each_cluster(seed: int) -> None:
    across = random_across(seed)
    for rule, cover in SWEEPING:
        problem = across.twin(rule, cover, reach=0, within=None)
        by_rounds, _ = problem.in_rounds(across.case.eps)
        for name, column in problem.at_eps(across.case.eps).items():
            assert np.array_equal(by_rounds[name], column), (rule, cover, name)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_numbers_of_the_clusters_matter_in_ties_only(seed: int) -> None:
    across = random_across(seed, nights=1)
    numbers = np.unique(across.case.labels)
    mixed = np.random.default_rng(seed).permutation(len(numbers))
    renumbered = mixed[np.searchsorted(numbers, across.case.labels)]
    x16 = oracles.unit16(across.case.x)
    for rule in ("semdedup", "prefer"):
        found = [
            oracles.Problem(x16, labels, rule, cover=True, values=across.case.quality, reach="auto")  # 16 hold them all
            for labels in (across.case.labels, renumbered)
        ]
        one, other = (problem.at_eps(across.case.eps) for problem in found)
        for name in ("kept", "representative", "similarity", "neighbourhood"):
            assert np.array_equal(one[name], other[name])
