"""Decisions are what they were when golden.json was recorded, on every machine: the labels are given (see golden.py).

After an intended change of decisions run `python tests/golden.py --pin`. To see which part of a result differs, run
`--out` with the old code and `--check` with the new.
"""

from __future__ import annotations

import json

import pandas as pd
import pyarrow as pa
import pytest
from golden import PINNED
from golden_api import pinned
from golden_parts import hash_of_column, whole_hash

CONFIGURATIONS = pinned()
EXPECTED = json.loads(PINNED.read_text(encoding="utf-8"))


def test_every_configuration_is_recorded():
    assert list(EXPECTED) == list(CONFIGURATIONS)


@pytest.mark.parametrize("name", EXPECTED)
def test_decisions_are_those_recorded(name: str):
    assert whole_hash(CONFIGURATIONS[name].parts()) == EXPECTED[name]


def test_different_columns_have_different_hashes_and_all_missing_values_the_same():
    values = [1.0, float("nan"), -0.0]
    same = hash_of_column(values)
    assert same == hash_of_column(pa.chunked_array([[1.0], [None, 0.0]]))
    assert same == hash_of_column(pd.Series(values, dtype="Float64"))
    others = ([1.0, 0.0, 0.0], [1.0, 0.0, None], [1, None, 0], [True, None, False], ["1.0", None, "0.0"], [1.0, None])
    assert len({same, *map(hash_of_column, others)}) == 1 + len(others)
