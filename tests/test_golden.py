"""Decisions are what they were when golden.json was recorded, on every machine: the labels are given (see golden.py).

Where a change of decisions is meant, `python tests/golden.py --pin` records them anew. Which part of a result differs
is told by `--out` on the old code and `--check` on the new.
"""

from __future__ import annotations

import json

import golden
import pytest

CONFIGURATIONS = golden.pinned()
EXPECTED = json.loads(golden.PINNED.read_text(encoding="utf-8"))


def test_every_configuration_is_recorded():
    assert list(EXPECTED) == list(CONFIGURATIONS)


@pytest.mark.parametrize("name", EXPECTED)
def test_decisions_are_those_recorded(name: str):
    assert golden.whole_hash(CONFIGURATIONS[name].parts()) == EXPECTED[name]


def test_a_hash_tells_columns_apart_and_missing_values_alike():
    values = [1.0, float("nan"), -0.0]
    same = golden.hash_of_column(values)
    assert same == golden.hash_of_column(golden.pa.chunked_array([[1.0], [None, 0.0]]))
    assert same == golden.hash_of_column(golden.pd.Series(values, dtype="Float64"))
    others = ([1.0, 0.0, 0.0], [1.0, 0.0, None], [1, None, 0], [True, None, False], ["1.0", None, "0.0"], [1.0, None])
    assert len({same, *map(golden.hash_of_column, others)}) == 1 + len(others)
