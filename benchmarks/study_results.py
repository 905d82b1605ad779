"""Sums up the evaluations of train_on_subsets.py: figures by seed, paired differences, and the comparisons that count.

docs/model-study.md said before the first run which comparisons are confirmatory, and what counts as noise. This module
computes just that; it reads no file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from bias_measures import DESIRED
from captioned_faces import FAVOURED, OCCUPATIONS, Setting
from faces import VALUES
from paired_seeds import BY_CHANCE, paired_difference

Evaluation = Mapping[str, Any]
BASES = ("semdedup --published", "full")
SUBJECT = "balanced calibrated"  # the subset that the hypotheses are about
ATTRIBUTES = tuple(VALUES)
PROTOTYPES = "zero-shot by prototypes"
ACCURACY = "mean accuracy"
LEVEL = 0.05
MARGIN = 0.01  # of the mean accuracy, for "as good"
SKEW = "|MinSkew|, neutral, dem_par: {}"
WORST = "worst group: {}"


def list_paths() -> dict[str, tuple[str, ...]]:
    """Return the name and the path of every figure that is taken from an evaluation."""
    out: dict[str, tuple[str, ...]] = {}
    for a in ATTRIBUTES:
        out[f"accuracy: {a}"] = (PROTOTYPES, a, "accuracy")
        out[WORST.format(a)] = (PROTOTYPES, a, "worst group", "accuracy")
        out[f"accuracy, DataComp's captions: {a}"] = ("zero-shot", a, "accuracy")
        out[f"worst group, DataComp's captions: {a}"] = ("zero-shot", a, "worst group", "accuracy")
        for queries, measures in (("neutral", ("|MinSkew|", "MaxSkew", "NDKL")), ("occupation", ("|MinSkew|",))):
            for desired in DESIRED:
                for measure in measures:
                    out[f"{measure}, {queries}, {desired}: {a}"] = ("ranking", a, queries, desired, measure)
            out[f"association gap, {queries}: {a}"] = ("ranking", a, queries, "association gap")
    return out


def read_path(result: Evaluation, path: tuple[str, ...]) -> float:
    """Return the value at a path; NaN if there is none, as for an attribute with too few faces."""
    value: Any = result
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            return float("nan")
        value = value[name]
    return float("nan") if value is None else float(value)


def measure_planted(result: Evaluation, setting: Setting) -> dict[str, float]:
    """Return how much of the association that the set planted the rankings show, for race and gender.

    It is the mean over the occupations that favour the majority of its share of the top k less its share of the pool,
    and over those that favour all others of the negative of that. A model that learned no association has 0.
    """
    out = {}
    for attribute in ("race", "gender"):
        by = result["ranking"].get(attribute, {}).get("occupation", {}).get("by occupation", {})
        values = []
        for k, noun in enumerate(OCCUPATIONS):
            favoured = FAVOURED[k % len(FAVOURED)]
            if favoured is not None and favoured[0] == attribute and noun in by:
                own = by[noun]["associations"].get(getattr(setting, attribute))
                values += [] if own is None else [own if favoured[1] else -own]
        out[f"planted association: {attribute}"] = float(np.mean(values)) if values else float("nan")
    return out


def take_figures(result: Evaluation, setting: Setting) -> dict[str, float]:
    """Return all figures of one evaluation."""
    out = {name: read_path(result, path) for name, path in list_paths().items()}
    out[ACCURACY] = float(np.mean([out[f"accuracy: {a}"] for a in ATTRIBUTES]))
    return out | measure_planted(result, setting)


def adjust_by_holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given.

    References
    ----------
    Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, k in enumerate(order.tolist()):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[k]))
        adjusted[k] = largest
    return adjusted


def check_hypotheses(figures: Mapping[str, Mapping[str, Sequence[float]]]) -> list[dict[str, Any]]:
    """Return the nine confirmatory comparisons, with p-values adjusted by Holm, and a verdict for each.

    A verdict is "holds" or "the opposite" if the adjusted p-value is below 0.05, else "noise".

    Parameters
    ----------
    figures : mapping
        Subset -> measure -> its value for each seed.
    """
    planned = [(base, SKEW.format(a), -1) for base in BASES for a in ATTRIBUTES]
    planned += [(BASES[0], WORST.format(a), 1) for a in ATTRIBUTES]
    lines: list[dict[str, Any]] = []
    for base, measure, sign in planned:
        found = paired_difference(figures[SUBJECT][measure], figures[base][measure])
        lines.append({"over": base, "measure": measure, "predicted": "higher" if sign > 0 else "lower", **found})
    adjusted = adjust_by_holm([1.0 if line["p"] is None else line["p"] for line in lines])
    for line, p, (_, _, sign) in zip(lines, adjusted, planned, strict=True):
        right = sign * line["mean"] > 0
        line |= {"adjusted p": p, "verdict": "noise" if p >= LEVEL else "holds" if right else "the opposite"}
    return lines


def check_accuracy(figures: Mapping[str, Mapping[str, Sequence[float]]]) -> list[dict[str, Any]]:
    """Return whether the subject's mean accuracy is as good as each base's: the interval lies above minus one point."""
    lines = []
    for base in BASES:
        found = paired_difference(figures[SUBJECT][ACCURACY], figures[base][ACCURACY])
        low = found["low"]
        verdict = "as good" if low is not None and low > -MARGIN else "not shown"
        lines.append({"over": base, "measure": ACCURACY, **found, "verdict": verdict})
    return lines


def round_values(difference: dict[str, float | None]) -> dict[str, float | None]:
    """Return a difference with six significant digits."""
    return {key: None if value is None else float(f"{value:.6g}") for key, value in difference.items()}


def sum_up(models: Mapping[str, Sequence[Mapping[str, Any]]], setting: Setting) -> dict[str, Any]:
    """Return the figures of all subsets, their paired differences, and the tests if their subsets are there.

    Parameters
    ----------
    models : mapping of str to sequence
        Subset -> what `train_on_subsets.train_model` wrote for each seed, all of the same seeds in the same order.
    setting : Setting
        How the sets were drawn.
    """
    figures: dict[str, dict[str, list[float]]] = {}
    for name, own in models.items():
        each = [take_figures(one["evaluation"], setting) for one in own]
        figures[name] = {key: [one[key] for one in each] for key in each[0]}
    subsets: dict[str, Any] = {}
    for name, own in models.items():
        described = {key: float(np.mean([one["subset"][key] for one in own])) for key in own[0]["subset"]}
        over = {}
        for base in (base for base in BASES if base in models and base != name):
            over[base] = {
                key: round_values(paired_difference(values, figures[base][key]))
                for key, values in figures[name].items()
                if np.isfinite([*values, *figures[base][key]]).all()
            }
        subsets[name] = {
            "subset": described,
            "loss": float(np.mean([one["loss"] for one in own])),
            "by seed": {k: [round(v, 5) for v in own] for k, own in figures[name].items() if np.isfinite(own).all()},
            "over": over,
        }
    out: dict[str, Any] = {"subsets": subsets}
    if {SUBJECT, *BASES} <= set(models):
        out |= {"confirmatory": check_hypotheses(figures), "accuracy": check_accuracy(figures)}
    first = next(iter(models.values()))[0]["evaluation"]["ranking"]
    return out | {"rankings": {a: {k: first[a].get(k) for k in ("k", "rows", "why", BY_CHANCE)} for a in first}}
