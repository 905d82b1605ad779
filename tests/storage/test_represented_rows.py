"""Lists of removed rows by representative: however rows are cut into groups, counts and values are the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairdedup.storage import represented_rows
from fairdedup.storage.represented_rows import RemovedRows, Represented, Values, write_list
from fairdedup.storage.schemas import to_text

MOST = 3
LINES = st.lists(
    st.tuples(
        st.integers(0, 19),  # representative
        st.sampled_from([0.5, 0.75, -0.25]),
        st.sampled_from(["", "a", "b", "\u00e9\u00e9", "long " * 9, None]),
        st.sampled_from(["x", None]),
    ),
    max_size=40,
)


def collect_by_hand(lines: list[Any], owner: int, column: int) -> list[str]:
    found: list[str] = []
    for _, _, value in sorted((-line[1], row, line[2 + column]) for row, line in enumerate(lines) if line[0] == owner):
        if value is not None and value not in found:
            found.append(value)
    return found[:MOST]


@pytest.fixture(autouse=True)
def few_values() -> Iterator[None]:
    """Collect at most a few values, for the examples of Hypothesis."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(represented_rows, "MOST_VALUES", MOST)
        yield


@given(lines=LINES, cuts=st.lists(st.integers(0, 40), max_size=4), kept=st.sets(st.integers(0, 19)))
def test_groups_change_neither_counts_nor_values(lines, cuts, kept):
    starts = np.array([0, *sorted(cuts), 40])  # rows are removed rows here; their representatives are rows too
    with TemporaryDirectory() as folder:
        bounds = []
        for number, (first, last) in enumerate(zip(starts, starts[1:], strict=False)):
            own = lines[first:last]
            rows = np.arange(first, first + len(own))
            removed = RemovedRows(
                rows, np.array([line[0] for line in own], np.int64), np.array([line[1] for line in own])
            )
            texts = [pa.array([line[2 + k] for line in own], pa.large_string()) for k in (0, 1)]
            bounds.append(write_list(Path(folder), number, removed, texts, starts))
        for number, (first, last) in enumerate(zip(starts, starts[1:], strict=False)):
            rows = np.array([row for row in sorted(kept) if first <= row < last], np.int64)
            found = Represented.of_group(Path(folder), np.array(bounds), number)
            assert found.count(rows).tolist() == [sum(line[0] == row for line in lines) for row in rows]
            for column in (0, 1):
                expected = [collect_by_hand(lines, row, column) for row in rows]
                assert found.collect(rows, column).to_pylist() == expected
                for low in range(len(rows)):  # also a part of the rows
                    assert found.collect(rows[low : low + 2], column).to_pylist() == expected[low : low + 2]
                sizes = found.measure(rows, column)
                texts = [sum(len(text.encode()) for text in own) for own in expected]
                assert (sizes >= np.array(texts, np.int64)).all()


def test_the_most_similar_row_comes_first_and_of_equals_the_lowest():
    removed = RemovedRows(np.array([4, 5, 6, 7, 8]), np.array([2, 2, 2, 2, 2]), np.array([0.5, 0.9, 0.9, 0.95, 0.5]))
    found = Values(removed, pa.array(["d", "c", "b", "c", "a"], pa.large_string())).keep_distinct()
    assert found.text.to_pylist() == ["c", "b", "d"] and found.removed.row.tolist() == [7, 6, 4]


TEXTS = {
    "texts": (["a", None, ""], ["a", None, ""]),
    "whole numbers": ([1, None, -(2**62)], ["1", None, str(-(2**62))]),
    "floats": ([0.1, float("nan"), None, 2.5], ["0.1", None, None, "2.5"]),
    "flags": ([True, False, None], ["true", "false", None]),
    "bytes": ([b"a", b"\xff", None], ["a", "\\xff", None]),
    "lists": ([["a"], [], None], ['["a"]', "[]", None]),
    "structs": ([{"a": 1}, None], ['{"a": 1}', None]),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_values_become_text_and_missing_ones_are_null(kind):
    values, expected = TEXTS[kind]
    found = to_text(pa.chunked_array([pa.array(values)]))
    assert found.type == pa.large_string() and found.to_pylist() == expected
