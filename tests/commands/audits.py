"""Shared by the tests of the audit: functions that write files of labels and read reports."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import oracles
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

REPORT = ("report/audit.json", "report/audit.parquet")


def strict(text: str) -> dict:
    """Read JSON that must not contain NaN or Infinity."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def read_report(run: Path) -> dict:
    found = strict((run / "report" / "audit.json").read_text(encoding="utf-8"))
    assert found.pop("checksum")
    return found


def attribute(found: dict, name: str) -> dict:
    return next(a for a in found["attributes"] if a["attribute"] == name)


def group(found: dict, name: str, label: str) -> dict:
    return next(g for g in attribute(found, name)["groups"] if g["group"] == label)


def write_labels(path: Path, **columns: list) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    else:
        with open(path, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([list(columns), *zip(*columns.values(), strict=True)])
    return path


def suggested(run: Path) -> list[dict]:
    with open(run / "report" / "suggested-labels.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def oracle_memberships(unit, concepts):
    """Softmax of cosine / temperature, the temperature a third of the median gap, in float64."""
    listed = [v for c, v in concepts.items() if c != "absent"]
    every = np.stack([*listed, *np.atleast_2d(concepts["absent"])]) if "absent" in concepts else np.stack(listed)
    similarity = oracles.cosine_matrix(unit, oracles.unit16(every))
    gap = np.median(similarity.max(axis=1) - similarity.mean(axis=1))
    temperature = max(round(gap / 3, 4), 0.0001)
    weight = np.exp((similarity - similarity.max(axis=1, keepdims=True)) / temperature)
    return (weight / weight.sum(axis=1, keepdims=True))[:, : len(listed)]
