"""Paired differences over seeds are those of a t-test by hand, for every measure of a nested result."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fairdedup.errors import UserError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from paired_seeds import compare_over_seeds, list_measures, paired_difference  # noqa: E402


def test_the_interval_is_that_of_students_t_by_hand():
    gain = paired_difference([3.0, 5.0, 4.0], [1.0, 2.0, 3.0])  # 2, 3, 1: mean 2, s = 1
    assert gain["mean"] == pytest.approx(2)
    assert gain["high"] == pytest.approx(2 + 4.302653 / 3**0.5)
    assert gain["low"] == pytest.approx(2 - 4.302653 / 3**0.5)
    assert gain["p"] == pytest.approx(0.0742, abs=1e-4)
    assert paired_difference([3.0, 5.0, 4.0], [1.0, 2.0, 3.0], level=0.9)["high"] == pytest.approx(
        2 + 2.919986 / 3**0.5
    )


@pytest.mark.parametrize(("own", "base"), [([3.0], [1.0]), ([3.0, 4.0], [1.0, 2.0])])
def test_one_seed_and_equal_differences_have_no_interval(own, base):
    assert paired_difference(own, base) == {"mean": 2, "low": None, "high": None, "p": None}


def test_every_measure_is_compared_and_counts_and_values_by_chance_are_not():
    def result(accuracy: float, gap: float) -> dict:
        return {
            "faces": 7,
            "zero-shot": {"race": {"accuracy": accuracy, "worst group": {"group": "a", "accuracy": accuracy / 2}}},
            "ranking": {"k": 5, "by chance": {"gap": gap}, "neutral": {"gap": gap}, "why": None},
        }

    assert dict(list_measures(result(0.5, 0.1))) == {
        ("zero-shot", "race", "accuracy"): 0.5,
        ("zero-shot", "race", "worst group", "accuracy"): 0.25,
        ("ranking", "neutral", "gap"): 0.1,
    }
    found = compare_over_seeds(
        [result(0.6, 0.1), result(0.8, 0.3), result(0.7, 0.1)], [result(0.5, 0.1), result(0.5, 0.1), result(0.5, 0.2)]
    )
    assert set(found) == {"zero-shot / race / accuracy", "zero-shot / race / worst group / accuracy",
                          "ranking / neutral / gap"}  # fmt: skip
    assert found["zero-shot / race / accuracy"]["mean"] == pytest.approx(0.2)
    assert found["zero-shot / race / accuracy"]["low"] == pytest.approx(0.2 - 4.302653 * 0.1 / 3**0.5)
    assert found["ranking / neutral / gap"]["mean"] == pytest.approx((0 + 0.2 - 0.1) / 3)


@pytest.mark.parametrize(("own", "base"), [([], []), ([{"a": 1.0}], [{"a": 1.0}, {"a": 2.0}])])
def test_results_of_other_numbers_of_seeds_are_refused(own, base):
    with pytest.raises(UserError, match="cannot be paired with"):
        compare_over_seeds(own, base)
