"""The tables of docs/model-study.md, from the results of train_on_subsets.py."""

from __future__ import annotations

from typing import Any

import numpy as np
from paired_seeds import BY_CHANCE
from study_results import ACCURACY, ATTRIBUTES, BASES, LEVEL, SKEW, WORST

BASE = BASES[0]
SHARES = "share of non-majority groups, {}"


def format_difference(gain: dict[str, Any] | None, digits: int, scale: float) -> str:
    """Return a difference with half its 95 % interval, in bold if p < .001; "" if there is none."""
    if gain is None:
        return ""
    text = f"{scale * gain['mean']:+.{digits}f}"
    if gain["low"] is not None:
        text += f" ± {scale * (gain['high'] - gain['low']) / 2:.{digits}f}"
    return f"**{text}**" if gain["p"] is not None and gain["p"] < 0.001 else text


def make_table(head: list[str], lines: list[list[str]]) -> list[str]:
    """Return a table of Markdown."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *lines)]


def hypotheses_table(results: dict[str, Any]) -> list[str]:
    """Return a table with a line for each confirmatory comparison, and for the accuracy."""
    lines = []
    for one in (*results["confirmatory"], *results["accuracy"]):
        is_skew = one["measure"].startswith("|")
        digits, scale = (3, 1.0) if is_skew else (1, 100.0)
        unit = "" if is_skew else " points"
        # Bars would end the cell.
        measure = one["measure"].replace("|MinSkew|", "MinSkew")
        adjusted = f"{one['adjusted p']:.3f}" if "adjusted p" in one else ""
        predicted = one.get("predicted", "at most one point lower")
        difference = f"{format_difference(one, digits, scale)}{unit}".replace("**", "")
        lines.append([f"`{one['over']}`", measure, predicted, difference, adjusted, one["verdict"]])
    return make_table(["over", "measure", "predicted", "difference", f"p, by Holm ({LEVEL:g})", "verdict"], lines)


def subsets_table(results: dict[str, Any]) -> list[str]:
    """Return a table of what the subsets hold: rows, distinct faces, and shares of all groups but the majority."""
    lines = []
    for name, own in results["subsets"].items():
        known = own["subset"]
        shares = [f"{100 * known[SHARES.format(a)]:.1f} %" for a in ATTRIBUTES]
        lines.append([f"`{name}`", f"{known['rows']:,.0f}", f"{known['distinct faces']:,.0f}", *shares])
    return make_table(["subset", "rows", "distinct faces", *(f"not the majority: {a}" for a in ATTRIBUTES)], lines)


def compare_subsets(
    results: dict[str, Any], measures: dict[str, str], digits: int, scale: float, chance: list[str] | None = None
) -> list[str]:
    """Return a table of differences over BASE, whose line has its own values; then the spread of `full`, and chance.

    Parameters
    ----------
    results : dict
        Content of a result file.
    measures : dict of str to str
        Head of each column, and its measure.
    digits : int
        Decimals.
    scale : float
        What values are multiplied with.
    chance : list of str, optional
        The values by chance of each column.
    """
    lines = []
    for name, own in results["subsets"].items():
        if name == BASE:
            known = [own["by seed"].get(m) for m in measures.values()]
            cells = ["–" if values is None else f"= {scale * np.mean(values):.{digits}f}" for values in known]
        else:
            over = own["over"].get(BASE, {})
            cells = [format_difference(over.get(m), digits, scale) for m in measures.values()]
        lines.append([f"`{name}`", *cells])
    full = results["subsets"].get("full")
    if full is not None and len(results["seeds"]) > 1:
        known = [full["by seed"].get(m) for m in measures.values()]
        spread = ["–" if values is None else f"{scale * np.std(values, ddof=1):.{digits}f}" for values in known]
        lines.append(["spread of `full` over seeds", *spread])
    if chance:
        lines.append(["random rankings", *chance])
    return make_table(["subset", *measures], lines)


def skew_table(results: dict[str, Any]) -> list[str]:
    """Return a table of |MinSkew| of neutral captions, against the pool's shares and against equal ones."""
    measures, chance = {}, []
    for desired in ("dem_par", "eq_opp"):
        for a in ATTRIBUTES:
            measures[f"{desired}, {a}"] = SKEW.format(a).replace("dem_par", desired)
            known = results["rankings"][a].get(BY_CHANCE)
            chance.append("" if known is None else f"{known[desired]['|MinSkew|']:.3f}")
    return compare_subsets(results, measures, 3, 1.0, chance)


def accuracy_table(results: dict[str, Any]) -> list[str]:
    """Return a table of the mean accuracy and of the worst groups, in points."""
    measures = {ACCURACY: ACCURACY} | {WORST.format(a): WORST.format(a) for a in ATTRIBUTES}
    return compare_subsets(results, measures, 1, 100.0)


def occupations_table(results: dict[str, Any]) -> list[str]:
    """Return a table of the planted association and of the association gaps of occupations, in points."""
    measures = {f"planted, {a}": f"planted association: {a}" for a in ("race", "gender")}
    measures |= {f"gap, {a}": f"association gap, occupation: {a}" for a in ATTRIBUTES}
    return compare_subsets(results, measures, 1, 100.0)


STUDY_KINDS = {
    "model_hypotheses": hypotheses_table,
    "model_subsets": subsets_table,
    "model_skew": skew_table,
    "model_accuracy": accuracy_table,
    "model_occupations": occupations_table,
}
