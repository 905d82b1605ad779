"""How the study of models is summed up: Holm, verdicts, planted associations, tables and pictures, by hand."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import study_results as sr  # noqa: E402
from captioned_faces import OCCUPATIONS, Setting  # noqa: E402
from study_pictures import draw_study  # noqa: E402
from study_tables import STUDY_KINDS  # noqa: E402

SEEDS = 6
NAMES = ("full", "random", "semdedup --published", "balanced calibrated")


def make_evaluation(skew: float, accuracy: float, associations: dict[str, float] | None = None) -> dict[str, Any]:
    """Return an evaluation in which every skew and every accuracy has one value."""
    measures = {"|MinSkew|": skew, "MaxSkew": skew, "NDKL": skew}
    queries = {"eq_opp": measures, "dem_par": measures, "association gap": skew}
    by = {noun: {"associations": {"White": v, "Male": v}} for noun, v in (associations or {}).items()}
    ranking = {"k": 9, "rows": 90, "by chance": {d: measures for d in ("eq_opp", "dem_par")}, "neutral": queries,
               "occupation": {**queries, "by occupation": by}}  # fmt: skip
    shot = {"accuracy": accuracy, "mean of groups": accuracy, "worst group": {"group": "x", "accuracy": accuracy}}
    each = dict.fromkeys(("race", "gender", "age"), shot)
    return {"faces": 90, "zero-shot": each, sr.PROTOTYPES: each, "ranking": dict.fromkeys(each, ranking)}


def make_models(skews: dict[str, float], accuracies: dict[str, float]) -> dict[str, list[dict[str, Any]]]:
    """Return models of each subset and seed, around given means."""
    noise = np.random.default_rng(0).normal(0, 0.001, (len(NAMES), SEEDS, 2))
    share = {f"share of non-majority groups, {a}": 0.5 for a in ("race", "gender", "age")}
    subset = {"rows": 50.0, "distinct faces": 40.0, **share}
    return {
        name: [
            {
                "subset": subset,
                "loss": 1.0,
                "evaluation": make_evaluation(skews[name] + noise[k, s, 0], accuracies[name] + noise[k, s, 1]),
            }
            for s in range(SEEDS)
        ]
        for k, name in enumerate(NAMES)
    }


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    skews = {"full": 0.3, "random": 0.4, "semdedup --published": 0.4, "balanced calibrated": 0.3}
    accuracies = {"full": 0.5, "random": 0.4, "semdedup --published": 0.45, "balanced calibrated": 0.46}
    return {"seeds": list(range(SEEDS)), **sr.sum_up(make_models(skews, accuracies), Setting())}


def test_adjusted_p_values_are_those_of_holm_by_hand() -> None:
    # In order: 3 x 0.01, 2 x 0.03, and 1 x 0.04, which may not be below the one before.
    assert sr.adjust_by_holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert sr.adjust_by_holm([0.5, 0.9]) == [1.0, 1.0]


def test_the_nine_planned_comparisons_have_a_verdict(results: dict[str, Any]) -> None:
    lines = results["confirmatory"]
    assert [(line["over"], line["predicted"]) for line in lines] == [
        *[("semdedup --published", "lower")] * 3,
        *[("full", "lower")] * 3,
        *[("semdedup --published", "higher")] * 3,
    ]
    # 0.1 below semdedup is far beyond the noise of 0.001; equal to full is noise; and 1 point more is sure.
    assert [line["verdict"] for line in lines] == [*["holds"] * 3, *["noise"] * 3, *["holds"] * 3]
    assert lines[0]["mean"] == pytest.approx(-0.1, abs=0.003)
    assert lines[0]["adjusted p"] >= lines[0]["p"]


def test_a_sure_difference_in_the_other_direction_is_the_opposite() -> None:
    skews = {"full": 0.2, "random": 0.4, "semdedup --published": 0.4, "balanced calibrated": 0.3}
    figures = sr.sum_up(make_models(skews, dict.fromkeys(NAMES, 0.5)), Setting())
    verdicts = [line["verdict"] for line in figures["confirmatory"]]
    assert verdicts == [*["holds"] * 3, *["the opposite"] * 3, *["noise"] * 3]


def test_accuracy_is_as_good_only_if_the_whole_interval_is_above_minus_one_point(results: dict[str, Any]) -> None:
    over = {line["over"]: line for line in results["accuracy"]}
    assert over["semdedup --published"]["verdict"] == "as good"  # one point more
    assert over["full"]["verdict"] == "not shown"  # four points less
    assert over["full"]["mean"] == pytest.approx(-0.04, abs=0.003)


def test_no_verdict_without_the_subjects() -> None:
    models = make_models(dict.fromkeys(NAMES, 0.3), dict.fromkeys(NAMES, 0.5))
    del models["full"]
    assert "confirmatory" not in sr.sum_up(models, Setting())


def test_the_planted_association_is_positive_where_the_favoured_are_on_top() -> None:
    # baker and gardener favour Male, chemist and journalist others;
    # dentist and lawyer favour White, engineer and musician others.
    ties = dict.fromkeys(OCCUPATIONS, 0.5) | {"baker": 0.3, "gardener": 0.1, "chemist": -0.2, "journalist": 0.0}
    ties |= {"dentist": 0.4, "lawyer": 0.4, "engineer": 0.1, "musician": 0.1}
    found = sr.measure_planted(make_evaluation(0.1, 0.5, ties), Setting())
    assert found["planted association: gender"] == pytest.approx((0.3 + 0.1 + 0.2 - 0.0) / 4)
    assert found["planted association: race"] == pytest.approx((0.4 + 0.4 - 0.1 - 0.1) / 4)


def test_a_figure_that_an_evaluation_lacks_is_not_compared() -> None:
    models = make_models(dict.fromkeys(NAMES, 0.3), dict.fromkeys(NAMES, 0.5))
    for own in models.values():
        for one in own:
            one["evaluation"]["ranking"] = {**one["evaluation"]["ranking"], "age": {"why": "insufficient"}}
    over = sr.sum_up(models, Setting())["subsets"]["full"]["over"]["semdedup --published"]
    assert sr.SKEW.format("age") not in over
    assert sr.SKEW.format("race") in over


def test_every_table_has_a_line_for_each_subset(results: dict[str, Any]) -> None:
    for kind, table in STUDY_KINDS.items():
        lines = table(results)
        assert len({line.count("|") for line in lines}) == 1, kind  # as many cells in each
        if kind != "model_hypotheses":
            assert [f"`{name}`" for name in NAMES] == [line.split(" | ")[0][2:] for line in lines[2 : 2 + len(NAMES)]]
    shown = STUDY_KINDS["model_accuracy"](results)
    assert "| `semdedup --published` | = 45.0 |" in shown[4]
    assert shown[2].startswith("| `full` | **+5.")
    assert "| noise |" in STUDY_KINDS["model_hypotheses"](results)[5]


def test_pictures_show_a_point_for_each_subset_and_attribute(results: dict[str, Any]) -> None:
    for name, content in draw_study(results).items():
        root = ElementTree.fromstring(content)
        points = [e for e in root.iter() if e.tag.endswith("circle")]
        assert len(points) == 3 * (len(NAMES) - 1), name
    # In the first panel |MinSkew| of `full` is 0.1 lower than the base's: coloured as better, and on the left.
    skew = ElementTree.fromstring(draw_study(results)["model-skew.svg"])
    first = next(e for e in skew.iter() if e.tag.endswith("circle"))
    assert first.get("class") == "good"
    assert float(first.get("cx", "nan")) < 190 + 100
