"""The plain table of an evaluation on FairFace: one line for each measure, one column for each checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from bias_measures import DESIRED, SHORT
from paired_seeds import BY_CHANCE

Reader = Callable[[Mapping[str, Any]], str]
MEASURES = ("|MinSkew|", "MaxSkew", "NDKL")


def name_infinities(value: Any) -> Any:
    """Return a nested result with "inf" and "-inf" for infinite numbers, which JSON does not have."""
    if isinstance(value, Mapping):
        return {name: name_infinities(own) for name, own in value.items()}
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def list_lines(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the table of the results of all checkpoints, by their names."""
    first = next(iter(results.values()))
    lines = [f"{first['faces']} faces; labels are perceived. Zero counts {first['zero counts']}."]
    for attribute, ranking in first["ranking"].items():
        lines += ["", _describe_pool(attribute, ranking)]
        rows = [*_accuracy_rows(attribute), *([] if "why" in ranking else _ranking_rows(attribute, ranking))]
        table = [["", *([] if "why" in ranking else [BY_CHANCE]), *results]]
        for label, chance, read in rows:
            cells = [label, *([] if "why" in ranking else [chance]), *(read(one) for one in results.values())]
            table.append(cells)
        lines += _align(table)
    return lines


def _describe_pool(attribute: str, ranking: Mapping[str, Any]) -> str:
    left_out = [f"{group} ({own['rows']} faces)" for group, own in ranking["left out"].items()]
    tail = f"; insufficient, left out: {', '.join(left_out)}" if left_out else ""
    if "why" in ranking:
        return f"perceived {attribute}: no rankings, {ranking['why']}{tail}"
    return f"perceived {attribute}: k = {ranking['k']} of {ranking['rows']} faces{tail}"


def _accuracy_rows(attribute: str) -> list[tuple[str, str, Reader]]:
    rows: list[tuple[str, str, Reader]] = []
    for kind in ("zero-shot", "zero-shot by prototypes"):

        def overall(one: Mapping[str, Any], kind: str = kind) -> str:
            return f"{one[kind][attribute]['accuracy']:.1%}"

        def worst(one: Mapping[str, Any], kind: str = kind) -> str:
            found = one[kind][attribute]["worst group"]
            return SHORT if found is None else f"{found['group']} {found['accuracy']:.1%}"

        rows += [(f"{kind}: accuracy", "", overall), (f"{kind}: worst group", "", worst)]
    return rows


def _ranking_rows(attribute: str, ranking: Mapping[str, Any]) -> list[tuple[str, str, Reader]]:
    def reader(*path: str) -> Reader:
        def read(one: Mapping[str, Any]) -> str:
            value: Any = one["ranking"][attribute]
            for name in path:
                value = value[name]
            return _format(value)

        return read

    chance = ranking[BY_CHANCE]
    rows = []
    for kind in [kind for kind in ("neutral", "occupation") if kind in ranking]:
        for desired in DESIRED:
            for measure in MEASURES:
                label = f"{kind}, {desired}: {measure}"
                rows.append((label, _format(chance[desired][measure]), reader(kind, desired, measure)))
        rows.append((f"{kind}: association gap", _format(chance["association gap"]), reader(kind, "association gap")))
    return rows


def _format(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3f}"


def _align(table: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(_pad(row, widths)) for row in table]


def _pad(row: list[str], widths: list[int]) -> list[str]:
    """Return the cells at the widths of their columns: the first on the left, numbers on the right."""
    return [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
