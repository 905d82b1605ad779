"""The measures of one attribute or intersection, as plain values with a reason wherever one is missing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.groups import GroupCells
from fairdedup.core.representation import (
    FOUR_FIFTHS,
    Measures,
    decompose,
    holm,
    intervals,
    measures,
    random_test,
    resampled,
)

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
CROSS = " × "


@dataclass(frozen=True)
class Attribute:
    """One attribute, or an intersection of several.

    Attributes
    ----------
    names : tuple of str
        Of the attributes.
    labels : tuple of tuple of str
        Of each group, its label of each of these.
    cells : GroupCells
    columns : slice
        Where its groups stand among all that are counted.
    """

    names: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    cells: GroupCells
    columns: slice


@dataclass(frozen=True)
class Loss:
    """Where each group of an attribute was lost; only groups that there are.

    Attributes
    ----------
    attribute : Attribute
    present : ndarray of shape (g,), int64
        Which of the attribute's groups these are.
    before, after : ndarray of shape (k, g), float64
        Rows and kept rows of each group in each cluster.
    between, within : ndarray of shape (k, g), float64
        The terms of their losses.
    """

    attribute: Attribute
    present: NDArray[np.int64]
    before: Floats
    after: Floats
    between: Floats
    within: Floats


def measured(
    attribute: Attribute, before: Counts, after: Counts, unit: int, target: Any, min_count: int, seed: int,
    draws: int, by_labels: bool,
) -> tuple[dict[str, Any], Loss]:  # fmt: skip
    """Measure one attribute.

    Parameters
    ----------
    attribute : Attribute
    before, after : ndarray of shape (k, g), int64
        What belongs to each group in each cluster, in units.
    unit : int
    target : "uniform", "data", or mapping attribute -> {group: share}
    min_count, seed, draws : int
    by_labels : bool
        Counts are of whole rows: they can be tested exactly.

    Returns
    -------
    line : dict
        Plain values; None where there is none, with its reason as `why`.
    loss : Loss
    """
    present = np.flatnonzero(before.sum(axis=0))
    before, after = before[:, present], after[:, present]
    rows, kept = before / unit, after / unit
    between, within = decompose(rows, kept)
    loss = Loss(attribute, present, rows, kept, between, within)
    line: dict[str, Any] = {
        "attribute": CROSS.join(attribute.names), "attributes": list(attribute.names),
        "intersection": len(attribute.names) > 1, "rows": _count(before.sum(), unit), "kept": _count(after.sum(), unit),
        "unlabelled": None, "groups": [],
    }  # fmt: skip
    if not len(present):
        return line | {"why": "nobody has a label of it"}, loss
    n, k = before.sum(axis=0), after.sum(axis=0)
    aim, named = _target(attribute, present, n, target)
    sufficient = n >= min_count * unit
    found = measures(n / unit, k / unit, sufficient, aim)
    some = rows.sum(axis=1) > 0
    drawn = intervals(*resampled(rows[some], kept[some], draws, seed), sufficient) if some.sum() > 1 else {}
    p = np.full(len(n), np.nan)
    corrected = p.copy()
    if by_labels and sufficient.any() and len(n) > 1:
        p[sufficient] = random_test(n, k)[sufficient]
        corrected[sufficient] = holm(p[sufficient])
    ratio = drawn.get("ratio", np.full((1, 2), np.nan))[0]
    line |= {
        "keep_rate": float(k.sum() / n.sum()),
        "ratio": found.ratio, "ratio_interval": ratio.tolist(), "under_four_fifths": _under(found.ratio),
        "majority": CROSS.join(attribute.labels[present[found.majority]]),
        "non_majority_before": found.non_majority[0], "non_majority_after": found.non_majority[1],
        "target": named, "distance_before": found.distance[0], "distance_after": found.distance[1],
        "kl_to_full": found.kl_full, "kl_to_uniform": found.kl_uniform,
        "test": "two-sided hypergeometric against `random` at the same count, Holm over the groups" if by_labels
        else "none: sums of memberships have no exact test; the interval of the shift takes its place",
    }  # fmt: skip
    if not k.sum():
        line["why"] = "nobody with a label of it is kept: there are no shares after"
    for g, place in enumerate(present):
        group: dict[str, Any] = {
            "group": CROSS.join(attribute.labels[place]), "before": _count(n[g], unit), "kept": _count(k[g], unit),
            "sufficient": bool(sufficient[g]),
            **dict.fromkeys(_OF_GROUP),
            "why": None,
            "loss": {name: float(part[:, g].sum()) for name, part in (("between", between), ("within", within))},
        }  # fmt: skip
        group["loss"]["whole"] = float(n[g] / unit * k.sum() / n.sum() - k[g] / unit)
        if sufficient[g]:
            group |= _of_group(found, drawn, g) | {"p": p[g], "p_holm": corrected[g]}
            group["why"] = _missing(group, len(rows[some]), int((rows[:, g] > 0).sum()))
        else:
            group["why"] = f"insufficient: under {min_count}"
        line["groups"].append(group)
    return line, loss


_OF_GROUP = (
    "rate", "rate_interval", "to_best", "under_four_fifths", "share_before", "share_after", "shift", "shift_interval",
    "skew", "skew_interval", "p", "p_holm",
)  # fmt: skip


def _of_group(found: Measures, drawn: dict[str, Floats], g: int) -> dict[str, Any]:
    nothing = np.full(2, np.nan)
    return {
        "rate": found.rate[g], "share_before": found.share_before[g], "share_after": found.share_after[g],
        "shift": found.shift[g], "skew": found.skew[g], "to_best": found.to_best[g],
        "under_four_fifths": _under(float(found.to_best[g])),
        **{f"{name}_interval": (drawn[name][g] if drawn else nothing).tolist() for name in ("rate", "shift", "skew")},
    }  # fmt: skip


def _missing(group: dict[str, Any], clusters: int, own: int) -> str | None:
    """Return why a value of a sufficient group is missing."""
    if clusters < 2:
        return "no interval: it needs at least two clusters"
    if np.isnan(group["rate_interval"]).any():
        return f"no interval: the group is in {own} of {clusters} clusters, too few to resample"
    if group["kept"] == 0:
        return "nobody of the group is kept: the skew is -inf"
    return None


def _under(ratio: float) -> bool | None:
    return None if math.isnan(ratio) else ratio < FOUR_FIFTHS


def _count(amount: np.integer | int, unit: int) -> int | float:
    return int(amount) if unit == 1 else int(amount) / unit


def _target(attribute: Attribute, present: NDArray[np.int64], n: Counts, target: Any) -> tuple[Floats, str]:
    """Return the shares to aim at of the groups that there are, and what they are called."""
    if target == "data":
        return n / n.sum(), "data"
    shares, named = np.ones(len(present)), "uniform"
    for k, name in enumerate(attribute.names):
        given = target.get(name) if isinstance(target, Mapping) else None
        if isinstance(given, Mapping) and {labels[k] for labels in attribute.labels} <= set(given):
            shares *= [float(given[attribute.labels[place][k]]) for place in present]
            named = "the run's own"
    if not shares.sum():
        return np.full(len(present), 1 / len(present)), "uniform"
    return shares / shares.sum(), named


def number(value: Any) -> Any:
    """Return a value such that JSON can hold it: NaN as None, -inf as text, floats to 9 decimals."""
    if isinstance(value, dict):
        return {name: number(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        found = [number(v) for v in value]
        return None if found and all(v is None for v in found) else found
    if isinstance(value, float):
        return None if math.isnan(value) else str(float(value)) if math.isinf(value) else round(float(value), 9)
    return value.item() if isinstance(value, np.generic) else value
