"""A fraction becomes an eps and an exact count: the bracket of the search, readmitted rows, reserved seats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import RULES_AND_COVER, Case, check_keep, naming, random_prototypes, run

from fairdedup import UserError, deduplicate
from fairdedup.core import eps_search
from fairdedup.core.eps_search import find_eps
from fairdedup.core.eps_steps import KeptWithin, find_eps_by_steps
from fairdedup.core.keep_fraction import kept_target, parse_eps, readmit, shortest_fraction, smallest_fraction

pytestmark = pytest.mark.usefixtures("one_thread")
FRACTIONS = [0.01, 0.02, 0.05, 0.1, 0.25, 0.4, 0.5, 0.65, 0.8, 0.9, 0.99, 1.0]


def hundreds() -> Case:
    """Return 200 rows in 2 clusters, with neighbours at every distance and some exact copies."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 10))[rng.integers(60, size=200)] + rng.normal(size=10)
    x += rng.normal(size=x.shape) * rng.choice([0, 0.01, 0.1, 0.4], size=(200, 1))
    return Case(x, np.arange(200) % 2, random_prototypes(rng, x), 100, 0.5, {"reserve": 0.2})


@pytest.mark.parametrize(("rule", "cover"), RULES_AND_COVER)
def test_every_fraction_keeps_exactly_its_share_as_by_the_oracle(rule: str, cover: bool) -> None:
    case = hundreds()
    for keep in FRACTIONS:
        with naming(f"keep {keep}"):
            result = check_keep(case, rule, cover, keep)
            assert len(result.kept) == math.floor(keep * 200 + 0.5)


def test_every_hundredth_from_none_to_all_keeps_exactly_its_share() -> None:
    case = hundreds()
    previous = None
    for percent in range(1, 101):
        for rule in ("semdedup", "balanced"):
            result = run(case, rule, keep=percent / 100)
            assert len(result.kept) == 2 * percent
            if rule == "semdedup":
                assert result.eps is not None
                assert previous is None or result.eps <= previous
                previous = result.eps


@pytest.mark.parametrize(("rule", "cover"), RULES_AND_COVER)
def test_at_most_readmits_no_row(rule: str, cover: bool) -> None:
    case = hundreds()
    for most in (0.01, 0.37, 0.9, 1.0):
        result = check_keep(case, rule, cover, most, at_most=True)
        assert result.counts["readmitted"] == 0
        assert len(result.kept) <= most * 200 + 0.5
        assert result.warnings == []


@pytest.mark.parametrize(("rule", "cover"), RULES_AND_COVER)
def test_a_seat_for_everyone_keeps_everyone(rule: str, cover: bool) -> None:
    for keep in (1, 1.0, 0.9999):  # 199.98 is 200 once rounded
        result = run(hundreds(), rule, cover, keep=keep)
        assert (result.counts["kept"], result.counts["readmitted"], result.eps) == (200, 0, 0)
        assert result.guarantees == dict.fromkeys(result.guarantees, True)


@pytest.mark.parametrize("reserve", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("cover", [False, True])
def test_balanced_searches_for_what_the_reserve_leaves(reserve: float, cover: bool) -> None:
    case = replace(hundreds(), options={"reserve": reserve})
    for keep in (0.02, 0.1, 0.5, 0.97):
        result = check_keep(case, "balanced", cover, keep)
        seats = math.floor(keep * 200 + 0.5)
        swept = max(2, math.floor(seats * (1 - reserve) + 0.5))
        assert seats - swept <= result.counts["readmitted"]


@pytest.mark.parametrize("rows", [64, 150])
def test_a_search_bracketed_on_a_sample_ends_at_an_eps_that_qualifies(
    monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(eps_search, "SAMPLE_ROWS", 8)
    monkeypatch.setattr(eps_search, "SAMPLE_FROM", 64)
    guesses = []
    original = eps_search._guess
    monkeypatch.setattr(eps_search, "_guess", lambda *a: guesses.append(original(*a)) or guesses[-1])
    case = hundreds()
    for seed in range(2):
        labels = np.random.default_rng(seed).integers(0, 30, size=rows)
        sampled = replace(case, x=case.x[:rows], labels=labels)
        for rule, cover in (("semdedup", False), ("fairdedup", True), ("balanced", False)):
            for keep in (0.6, 0.95):
                with naming((seed, rule, cover, keep)):
                    check_keep(sampled, rule, cover, keep)
    assert any(guess is not None for guess in guesses)


# The search alone, on made-up counts.


class Counts:
    """Counts for each eps from 0 to 20001; it records the requested ones."""

    def __init__(self, counts: Sequence[int]) -> None:
        self.counts, self.passes = counts, 0

    def __call__(self, eps: list[int]) -> list[int]:
        assert 1 <= len(eps) <= 64
        assert all(1 <= e <= 20_000 for e in eps)
        assert all(a < b for a, b in zip(eps, eps[1:], strict=False))
        self.passes += 1
        return [int(self.counts[e]) for e in eps]


@settings(max_examples=200)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(2, 3000),
    jitter=st.sampled_from([0, 3, 200]),
    guess=st.none() | st.integers(-5, 30_000),
)
def test_the_search_brackets_any_target_however_the_counts_wander(
    seed: int, rows: int, jitter: int, guess: int | None
) -> None:
    rng = np.random.default_rng(seed)
    places = np.sort(rng.choice([rng.beta(0.5, 4), rng.random(), 0.05], p=[0.5, 0.3, 0.2]) * rng.random(rows) * 20_002)
    counts = rows - np.searchsorted(places, np.arange(20_002))
    counts = np.clip(counts + rng.integers(-jitter, jitter + 1, size=20_002), 1, rows)
    counts[0], counts[20_001] = rows, 1
    target = int(rng.integers(1, rows))
    asked = Counts(counts)
    e = find_eps(asked, target, guess)
    assert counts[e] <= target < counts[e - 1]
    assert asked.passes <= 12
    assert find_eps(Counts(counts), target, guess) == e


@settings(max_examples=200)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(2, 3000),
    jitter=st.sampled_from([0, 3, 200]),
    guess=st.integers(1, 20_000),
    likeness=st.sampled_from(["none", "same", "scaled", "other"]),
)
def test_the_search_by_steps_brackets_any_target_whatever_it_expects(
    seed: int, rows: int, jitter: int, guess: int, likeness: str
) -> None:
    rng = np.random.default_rng(seed)
    places = np.sort(rng.beta(0.5, 4) * rng.random(rows) * 20_002)
    smooth = rows - np.searchsorted(places, np.arange(20_002))
    counts = np.clip(smooth + rng.integers(-jitter, jitter + 1, size=20_002), 1, rows)
    counts[0], counts[20_001] = rows, 1
    target = int(rng.integers(1, rows))
    known = np.sort(rng.choice(20_002, 64, replace=False)).tolist()
    shares: dict[int, float] = {
        "none": {},
        "same": {e: smooth[e] / rows for e in known},
        "scaled": {e: smooth[e] / rows / 7 for e in known},
        "other": {e: int(rng.integers(0, 50)) / 49 for e in known},
    }[likeness]
    like = KeptWithin(rows, shares) if shares else None
    steps: list[int] = []

    def count(eps: int) -> int:
        assert 1 <= eps <= 20_000
        assert eps not in steps
        steps.append(eps)
        return int(counts[eps])

    estimate = (lambda eps: int(counts[eps]) - jitter) if seed % 2 else None
    e = find_eps_by_steps(count, target, guess, like=like, estimate=estimate)
    assert counts[e] <= target < counts[e - 1]
    assert len(steps) <= 60


def test_the_search_by_steps_needs_few_where_other_counts_fall_alike() -> None:
    eps = np.arange(20_002)
    counts = np.rint(1_000_000 * np.exp(-((eps / 2800) ** 4))).astype(int)
    shares = {e: float(0.97 * (counts[e] / 1e6) ** 0.8) for e in range(2000, 3000, 10)}  # of a sample, within clusters
    like = KeptWithin(1_000_000, shares)
    steps: list[int] = []

    def count(e: int) -> int:
        steps.append(e)
        return int(counts[e])

    found = find_eps_by_steps(count, 500_000, 2700, like=like)
    assert counts[found] <= 500_000 < counts[found - 1]
    assert len(steps) <= 5
    few = len(steps)
    steps.clear()
    assert find_eps_by_steps(count, 500_000, 2700, like=like, estimate=lambda e: int(counts[e] * 0.996)) == found
    assert len(steps) <= few and 2700 not in steps
    steps.clear()
    find_eps_by_steps(count, 500_000, 2700)
    assert few < len(steps)


def test_the_search_ends_at_the_ends() -> None:
    steps = np.full(20_002, 5)
    for place in (1, 2, 10_000, 20_000, 20_001):
        counts = np.where(np.arange(20_002) < place, 9, 5)
        for guess in (None, 1, 20_000, place):
            assert find_eps(Counts(counts), 7, guess) == place
            assert find_eps(Counts(counts), 5, guess) == place
    steps[0] = 6
    assert find_eps(Counts(steps), 5) == 1


@pytest.mark.parametrize(("fraction", "rows", "seats"), [
    (0.5, 5, 3), (0.5, 4, 2), (0.1, 25, 3), (0.3, 5, 2), (1, 7, 7), (0.01, 200, 2), (0.001, 400, 0), (1e-9, 10, 0),
])  # fmt: skip
def test_halves_are_kept(fraction: float, rows: int, seats: int) -> None:
    assert kept_target(fraction, rows) == oracles.kept_seats(fraction, rows) == seats


def test_a_float32_fraction_counts_as_precisely_as_its_value() -> None:
    for rows in (10**8 + 3, 123_456_789, 2**31 + 7):
        assert kept_target(np.float32(0.3), rows) == oracles.kept_seats(float(np.float32(0.3)), rows)


@pytest.mark.parametrize("fraction", [0, -0.5, 1.0000001, 2, math.inf, -math.inf, math.nan])
def test_an_invalid_fraction_is_refused(fraction: float) -> None:
    with pytest.raises(UserError, match=r"`keep` must be in \(0, 1\]; got "):
        kept_target(fraction, 10)
    for how in ("keep", "at_most"):
        with pytest.raises(UserError, match=rf"`{how}` must be in \(0, 1\]; got {fraction:g}"):
            deduplicate(np.eye(3), rule="semdedup", **{how: fraction})


def test_the_smallest_fraction_is_the_smallest_to_six_decimals() -> None:
    for rows in (1, 2, 3, 7, 100, 997, 65_536, 999_983):
        for clusters in {1, 2, 3, rows // 3, rows // 2, rows - 1, rows} - {0, -1}:
            if clusters > rows:
                continue
            least = smallest_fraction(clusters, rows)
            assert 0 < least <= 1
            assert oracles.kept_seats(least, rows) >= clusters
            before = round(least * 1e6 - 1) / 1e6
            assert before <= 0 or oracles.kept_seats(before, rows) < clusters
            assert float(f"{least:g}") == least  # as the message writes it


def test_fewer_seats_than_clusters_name_the_smallest_fraction_that_works() -> None:
    x, labels = np.random.default_rng(1).normal(size=(37, 3)), np.arange(37) % 7
    for how in ("keep", "at_most"):
        words = f"fewer than one for each of 7 clusters: give at least `{how}=0.175676` "
        with pytest.raises(UserError, match=words) as caught:
            deduplicate(x, rule="semdedup", clusters=labels, **{how: 0.1})
        assert "\n" not in str(caught.value)
        assert len(deduplicate(x, rule="semdedup", clusters=labels, **{how: 0.175676}).kept) == 7
    with pytest.raises(UserError, match=r"`keep=0.001` of 37 rows is none: give at least `keep=0.013514`"):
        deduplicate(x, keep=0.001, rule="random")


@pytest.mark.parametrize(
    ("eps", "whole"), [(0, 0), (0.05, 500), (0.0001, 1), (0.3, 3000), (1, 10_000), (2, 20_000), (2.0001, 20_001)]
)
def test_eps_is_a_whole_number_of_ten_thousandths(eps: float, whole: int) -> None:
    assert parse_eps(eps) == whole
    assert parse_eps(np.float32(eps)) == whole
    result = deduplicate(np.eye(2), eps=eps, rule="semdedup", clusters=[0, 0])
    assert result.eps == whole / 10_000


@pytest.mark.parametrize(
    ("eps", "mend"),
    [
        (-0.0001, "must be 0 .removes nothing. to 2; got "),
        (2.0002, "must be 0 .removes nothing. to 2; got "),
        (math.nan, "must be 0 .removes nothing. to 2; got "),
        (math.inf, "must be 0 .removes nothing. to 2; got "),
        (0.00015, "is not a whole number of ten-thousandths: give `eps=0.000"),
        (0.123456, "is not a whole number of ten-thousandths: give `eps=0.1235`"),
    ],
)
def test_an_invalid_eps_is_refused(eps: float, mend: str) -> None:
    with pytest.raises(UserError, match=mend) as caught:
        deduplicate(np.eye(2), eps=eps, rule="semdedup")
    assert f"{eps:g}" in str(caught.value)


# Re-admission.


def test_the_least_similar_come_back_first_and_then_the_lowest_row() -> None:
    rows = np.array([40, 3, 17, 8, 25])
    similarity = np.array([0.9, 0.5, 0.5000004, 0.7, 0.4999996])  # three of them are equal in millionths
    assert readmit(rows, similarity, 4).tolist() == [3, 17, 25, 8]
    assert readmit(rows, similarity, 0).tolist() == []


def test_a_readmitted_row_keeps_the_representative_it_was_removed_for() -> None:
    x = np.repeat(np.eye(4), 5, axis=0)  # four directions, five copies of each
    result = deduplicate(x, keep=0.4, rule="semdedup", clusters=np.zeros(20, int))
    table = result.decisions
    assert result.kept.tolist() == [0, 1, 2, 3, 4, 5, 10, 15]  # one of each, then the lowest rows
    assert table["readmitted"].to_numpy().nonzero()[0].tolist() == [1, 2, 3, 4]
    assert table["representative"][:6].tolist() == [0, 0, 0, 0, 0, 5]
    assert table["similarity"].tolist() == [1.0] * 20
    assert all(result.guarantees.values())


def test_many_readmitted_copies_are_a_warning_with_a_fraction_that_needs_none() -> None:
    x = np.repeat(np.random.default_rng(2).normal(size=(30, 8)), 4, axis=0)
    labels = np.zeros(120, int)
    result = deduplicate(x, keep=0.5, rule="semdedup", clusters=labels)
    assert result.counts["readmitted"] == 30
    (warning,) = result.warnings
    assert "30 of 60 kept samples are re-admitted duplicates, more than 1 %" in warning
    fraction = float(warning.partition("a fraction of ")[2].split()[0])
    assert fraction == 0.25
    again = deduplicate(x, keep=fraction, rule="semdedup", clusters=labels)
    assert (again.counts["kept"], again.counts["readmitted"], again.warnings) == (30, 0, [])


@pytest.mark.parametrize(("readmitted", "warned"), [(1, False), (2, True)])
def test_a_shortfall_of_up_to_one_percent_gives_no_warning(readmitted: int, warned: bool) -> None:
    x = np.random.default_rng(3).normal(size=(100, 30))
    x = np.concatenate([x, x[:1], x[:1], x[:1]])  # 100 are kept at any small eps
    seats = 100 + readmitted
    result = deduplicate(x, keep=seats / 103, rule="semdedup", clusters=np.zeros(103, int))
    assert (result.counts["kept"], result.counts["readmitted"]) == (seats, readmitted)
    assert bool(result.warnings) == warned


def test_equal_distances_are_not_called_exact_copies() -> None:
    x = np.repeat(np.eye(60), 2, axis=0)
    x[1::2] += np.roll(np.eye(60), 1, axis=1) * 0.3  # 60 pairs, all equally similar
    labels = np.zeros(120, int)
    (warning,) = deduplicate(x, keep=0.75, rule="semdedup", clusters=labels).warnings
    assert "30 of 90 kept samples are re-admitted duplicates" in warning and "copies" not in warning
    assert "many pairs are equally similar" in warning
    fraction = float(warning.partition("a fraction of ")[2].split()[0])
    again = deduplicate(x, keep=fraction, rule="semdedup", clusters=labels)
    assert (again.counts["readmitted"], again.warnings) == (0, [])


@pytest.mark.parametrize(
    ("target", "valid", "expected"), [(1, 3, "0.3333"), (123_456, 1_000_000, "0.123456"), (9, 9, "1")]
)
def test_the_shortest_fraction_keeps_exactly_as_many(target: int, valid: int, expected: str) -> None:
    assert shortest_fraction(target, valid) == expected
    assert kept_target(float(expected), valid) == target
