"""Draws the pictures of docs/model-study.md: the difference of every subset, with its interval, for each attribute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from study_results import ATTRIBUTES, BASES, SKEW, SUBJECT, WORST
from svg_parts import MONO, text, wrap

BASE = BASES[0]
LEFT, TOP, STEP, WIDE, GAP = 190, 96, 26, 200, 26


def span_intervals(gains: Sequence[dict[str, Any]]) -> float:
    """Return the largest distance of an end of an interval from 0; over 0."""
    ends = [abs(one[k] if one[k] is not None else one["mean"]) for one in gains for k in ("mean", "low", "high")]
    return max([*ends, 1e-9]) * 1.05


def draw_panel(
    gains: dict[str, dict[str, Any]], names: Sequence[str], x: float, digits: int, scale: float, lower_is_better: bool
) -> list[str]:
    """Return one panel: a point and a bar for each subset, and the line of no difference in the middle."""
    most = span_intervals(list(gains.values())) if gains else 1.0
    middle, bottom = x + WIDE / 2, TOP + STEP * len(names)
    body = [f'<path class="line" d="M{middle:g} {TOP - 8}V{bottom}"/>']
    for k, name in enumerate(names):
        if name not in gains:
            continue
        one, y = gains[name], TOP + STEP * k + 9
        place = middle + WIDE / 2 * one["mean"] / most
        is_sure = one["low"] is not None and one["low"] * one["high"] > 0
        kind = ("good" if (one["mean"] < 0) == lower_is_better else "bad") if is_sure else "soft"
        if one["low"] is not None:
            low, high = (middle + WIDE / 2 * one[end] / most for end in ("low", "high"))
            body.append(f'<rect class="{kind}" x="{low:.1f}" y="{y - 1}" width="{high - low:.1f}" height="2"/>')
        body.append(f'<circle class="{kind}" cx="{place:.1f}" cy="{y}" r="4"/>')
    for share, anchor in ((-1, "start"), (1, "end")):
        at = middle + share * WIDE / 2
        words = f"{scale * share * most:+.{digits}f}"
        body.append(text(at, bottom + 16, words, "soft", f' font-size="11" text-anchor="{anchor}"'))
    return body


def draw_differences(
    results: dict[str, Any], measure: str, title: str, digits: int, scale: float, lower_is_better: bool
) -> str:
    """Return a picture of the differences over BASE in one measure, a panel for each attribute.

    Parameters
    ----------
    results : dict
        Content of a result file.
    measure : str
        The measure, where {} stands for the attribute.
    title : str
        What is above it.
    digits : int
        Decimals of the scale.
    scale : float
        What values are multiplied with.
    lower_is_better : bool
        Which side is coloured as the better one.
    """
    names = [name for name in results["subsets"] if name != BASE]
    body = [text(24, 34, title, more=' font-size="17" font-weight="600"')]
    body += [
        text(24, TOP + STEP * k + 13, name, more=f' font-family="{MONO}" font-size="12"'
             + (' font-weight="700"' if name == SUBJECT else ""))
        for k, name in enumerate(names)
    ]  # fmt: skip
    for k, attribute in enumerate(ATTRIBUTES):
        x = LEFT + k * (WIDE + GAP)
        key = measure.format(attribute)
        gains = {n: results["subsets"][n]["over"].get(BASE, {}).get(key) for n in names}
        body.append(text(x + WIDE / 2, 68, f"perceived {attribute}", "soft", ' text-anchor="middle"'))
        known = {name: gain for name, gain in gains.items() if gain is not None}
        body += draw_panel(known, names, x, digits, scale, lower_is_better)
    bottom = TOP + STEP * len(names)
    note = f"Differences to {BASE}, {len(results['seeds'])} seeds, 95 % intervals; coloured where these exclude 0."
    body.append(text(24, bottom + 40, note, "soft", ' font-size="12"'))
    return wrap(LEFT + 3 * WIDE + 2 * GAP + 24, bottom + 58, title, body)


def draw_study(results: dict[str, Any]) -> dict[str, str]:
    """Return the name and content of both pictures."""
    skew = "|MinSkew| of neutral captions against the pool: left is less bias"
    worst = "Accuracy of the worst group, in points: right is better"
    return {
        "model-skew.svg": draw_differences(results, SKEW, skew, 2, 1.0, True),
        "model-worst-group.svg": draw_differences(results, WORST, worst, 1, 100.0, False),
    }
