"""What each kept row stands for, counted by loops over the decisions; a small input whose values repeat."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from runs import raw_vectors, table

ROWS = 240
MOST = 100


def values_by_row() -> dict[str, list[Any]]:
    """Return the columns of the input: texts and numbers that repeat, some of them missing."""
    rng = np.random.default_rng(5)
    captions = [None if row % 7 == 0 else f"caption {rng.integers(30)} \u00e9" for row in range(ROWS)]
    stars = [float("nan") if row % 5 == 0 else float(rng.integers(4)) / 2 for row in range(ROWS)]
    return {
        "id": [f"k{row}" for row in range(ROWS)],
        "caption": captions,
        "stars": stars,
        "width": [int(rng.integers(1, 9)) for _ in range(ROWS)],
        "stands_for": ["mine"] * ROWS,
    }


def write_table(folder: Path) -> Path:
    """Write vectors with these columns as three Parquet files, so that three groups of shards can be made of them."""
    folder.mkdir()
    x, columns = raw_vectors(ROWS), values_by_row()
    for number, rows in enumerate(np.array_split(np.arange(ROWS), 3)):
        own = {name: [values[row] for row in rows] for name, values in columns.items()}
        pq.write_table(pa.table({**own, "vector": list(x[rows])}), folder / f"{number}.parquet")
    return folder


def count_by_hand(decisions: pd.DataFrame) -> dict[int, int]:
    """Return how many removed rows each row represents."""
    counts: dict[int, int] = {}
    for line in decisions.itertuples():
        if not line.kept and line.representative >= 0:
            counts[line.representative] = counts.get(line.representative, 0) + 1
    return counts


def collect_by_hand(decisions: pd.DataFrame, values: list[Any]) -> dict[int, list[str]]:
    """Return the distinct values, as text, of the removed rows that each row represents, most similar first."""
    removed = [line for line in decisions.itertuples() if not line.kept and line.representative >= 0]
    found: dict[int, list[str]] = {}
    for line in sorted(removed, key=lambda line: (-line.similarity, line.row)):
        value, own = values[line.row], found.setdefault(line.representative, [])
        missing = value is None or (isinstance(value, float) and math.isnan(value))
        if not missing and text_of(value) not in own and len(own) < MOST:
            own.append(text_of(value))
    return found


def text_of(value: Any) -> str:
    """Return a value as Arrow writes it: a float without a fraction has none."""
    return str(int(value)) if isinstance(value, float) and value == int(value) else str(value)


def assert_counted(run: Path) -> pd.DataFrame:
    """Compare stands_for with the count by hand, and return kept/."""
    decisions, kept = table(run / "decisions"), table(run / "kept")
    counts, rows = count_by_hand(decisions), decisions["row"][decisions["kept"]].tolist()
    assert kept["id"].tolist() == decisions["id"][decisions["kept"]].tolist()
    assert kept["stands_for"].dtype == np.int64
    assert kept["stands_for"].tolist() == [counts.get(row, 0) for row in rows]
    removed = decisions[~decisions["kept"]]
    none = removed["representative"] == -1  # nobody, or a sample of an earlier run
    chained = ~none & ~removed["representative"].isin(rows)
    assert kept["stands_for"].sum() + none.sum() + chained.sum() == len(removed)
    return kept


def assert_collected(run: Path, columns: list[str]) -> None:
    """Compare kept/ with what is counted and collected by hand."""
    kept, decisions = assert_counted(run), table(run / "decisions")
    rows = decisions["row"][decisions["kept"]].tolist()
    for name in columns:
        expected = collect_by_hand(decisions, values_by_row()[name])
        assert [list(found) for found in kept[f"{name}_collected"]] == [expected.get(row, []) for row in rows], name
    names = ["id", "caption", "stars", "width", "input_stands_for", "stands_for"]
    assert list(kept.columns) == [*names, *(f"{name}_collected" for name in columns)]
