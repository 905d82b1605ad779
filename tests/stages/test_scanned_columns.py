"""The types of columns that the first pass over images notes."""

from __future__ import annotations

import pyarrow as pa
import pytest

from fairdedup.config import RunConfig
from fairdedup.datasets import column_types
from fairdedup.datasets.column_types import ColumnTypes, read_schema, write_schema
from fairdedup.errors import UserError
from fairdedup.preparation.run_checks import check_scanned_columns
from fairdedup.stages.scanned_columns import list_columns
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.records import FindingsRecord

SAMPLES = [
    {"a": 1, "mixed": 1, "tags": ["x"], "width": 3.5},
    {"a": None, "mixed": "one", "tags": [], "width": 4.5},
    {"a": 2, "late": None, "tags": None},
    {"late": True, "width": 1.0},
]


@pytest.mark.parametrize("block", [1, 2, 1000])
def test_types_are_those_of_all_samples_whatever_the_blocks(monkeypatch, block):
    monkeypatch.setattr(column_types, "ROWS_AT_ONCE", block)
    types = ColumnTypes()
    for metadata in SAMPLES:
        types.add(metadata)
    found = types.find_schema()
    assert "mixed" not in found.names
    assert {name: found.field(name).type for name in ("a", "late", "width")} == {
        "a": pa.int64(), "late": pa.bool_(), "width": pa.float64()
    }  # fmt: skip
    assert read_schema(write_schema(found)) == found


def test_odd_names_and_values_have_no_type_and_do_no_harm():
    types = ColumnTypes()
    types.add({"a\ud800": 1, "big": 2**70, "word": "\ud800", "nested": {"x": [1, {"y": None}]}})
    types.add({"a\ud800": 1, "big": 1, "word": "b", "nested": {"x": 1}, "fine": 1})
    assert types.find_schema() == pa.schema([("fine", pa.int64())])


def noted(run: RunDirectory, number: int, columns: list[str], schema: pa.Schema | None) -> None:
    text = None if schema is None else write_schema(schema)
    record = FindingsRecord(fingerprint="f", columns=columns, schema_of_columns=text)
    record.write(run.scan_findings(number))


def test_shards_are_merged_and_what_they_disagree_on_is_not_known(tmp_path):
    run = RunDirectory(tmp_path)
    noted(run, 0, ["a", "odd", "width"], pa.schema([("a", pa.int64()), ("odd", pa.int64()), ("width", pa.float64())]))
    noted(run, 1, ["a", "odd", "mixed"], pa.schema([("a", pa.float64()), ("odd", pa.string())]))
    found = list_columns(run, 2)
    assert found is not None
    assert set(found.names) == {
        "id",
        "caption",
        "a",
        "odd",
        "mixed",
        "input_width",
        "width",
        "height",
        "format",
        "bytes",
    }
    assert found.schema.field("a").type == pa.float64()
    assert found.schema.field("input_width").type == pa.float64() and found.schema.field("width").type == pa.int64()
    assert not {"odd", "mixed"} & set(found.schema.names)


def test_a_column_whose_type_is_not_known_is_refused_only_if_it_does_not_exist(tmp_path):
    run = RunDirectory(tmp_path)
    noted(run, 0, ["a"], None)  # as an earlier version wrote it
    found = list_columns(run, 1)
    assert found is not None
    check_scanned_columns(RunConfig(rule="prefer", where="a + 1", prefer="a", within="a", collect=["a"]), found)
    with pytest.raises(UserError, match="must be true or false"):
        check_scanned_columns(RunConfig(where="width + 1"), found)
    with pytest.raises(UserError, match="names column 'b'"):
        check_scanned_columns(RunConfig(where="a = b"), found)
