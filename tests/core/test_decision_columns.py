"""The columns of a decision are declared once; the tables of `deduplicate` and of a run have these and no others."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from fairdedup import deduplicate
from fairdedup.core.decision_columns import COLUMNS, DECIDED, DECISION_COLUMNS, EARLIER, RECORD
from fairdedup.stages.results import DECISIONS_SCHEMA

IN_FILES = {"<i8": pa.int64(), "<f8": pa.float64(), "?": pa.bool_(), "str": pa.string()}


def test_the_files_of_a_run_have_the_declared_columns() -> None:
    declared = pa.schema([(column.name, IN_FILES[column.dtype]) for column in COLUMNS])
    assert declared == DECISIONS_SCHEMA


def test_the_table_of_a_result_has_the_declared_columns() -> None:
    decisions = deduplicate(np.eye(4), keep=0.5, rule="semdedup", clusters=1, ids=list("abcd")).decisions
    assert tuple(decisions) == DECISION_COLUMNS
    for column in COLUMNS:
        if column.dtype != "str":
            assert decisions[column.name].dtype == np.dtype(column.dtype), column.name
    assert pd.api.types.is_string_dtype(decisions["id"])


def test_what_the_core_decides_is_the_record_of_a_row() -> None:
    assert RECORD.names == (*DECIDED, EARLIER)
    assert set(DECISION_COLUMNS) - set(DECIDED) == {"id", "readmitted"}
    assert all(column.meaning for column in COLUMNS)
