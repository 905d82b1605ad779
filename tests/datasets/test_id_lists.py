"""Files of ids: numbers, decimals and dates become the text that the readers make of them."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairdedup.datasets import rows
from fairdedup.datasets.ids import find_id_column, read_ids, spell_out
from fairdedup.errors import UserError

spelled = pytest.mark.skipif(not hasattr(rows, "can_be_text"), reason="needs the readers that write numbers out")

COLUMNS: dict[str, tuple[Any, list[str]]] = {
    "float64": (np.array([1.58e12, 7.0, 1e20, -3.0]), ["1580000000000", "7", "100000000000000000000", "-3"]),
    "float32": (np.array([16777216, 8], np.float32), ["16777216", "8"]),
    "halves": (np.array([0.5, 2.25]), ["0.5", "2.25"]),
    "floats with gaps": (np.array([1.0, np.nan, 3.0]), ["1", "3"]),
    "decimals": (pa.array([Decimal("7.00"), Decimal("7.25"), None], pa.decimal128(9, 2)), ["7", "7.25"]),
    "dates": (pa.array([datetime.date(2026, 11, 28)]), ["2026-11-28"]),
    "int64": (pa.array([2**62, None, -1]), [str(2**62), "-1"]),
    "text": (pa.array(["1.58e+12", "007", "7.0"]), ["1.58e+12", "007", "7.0"]),
}


@spelled
@pytest.mark.parametrize("name", COLUMNS)
def test_a_parquet_list_is_read_as_an_input_is(name: str, tmp_path: Path) -> None:
    column, wanted = COLUMNS[name]
    pq.write_table(pa.table({"id": column}), tmp_path / "ids.parquet")
    assert read_ids(tmp_path / "ids.parquet", "--drop").to_pylist() == wanted
    texts = [text for text in rows.to_texts(pa.array(column)) if text is not None]
    assert texts == wanted


def spell(*ids: str) -> list[str] | None:
    found = spell_out(pa.array(ids, pa.string()), np.arange(len(ids)))
    return None if found is None else found.to_pylist()


@spelled
def test_numbers_of_spreadsheets_are_written_out() -> None:
    assert spell("1.58e+12", "1.58E+12", "x") == ["1580000000000", "x"]
    assert spell("1580000000000.0", "7.", "-3.0", "12e2") == ["1580000000000", "7", "-3", "1200"]
    assert spell("1.58e+12", "1.5", "007.0", "0x1p3", "nan", "inf", "1e999", "1_0.0", " 7.0") == [
        "1580000000000", "1.5", "007.0", "0x1p3", "nan", "inf", "1e999", "1_0.0", " 7.0",
    ]  # fmt: skip


def test_what_is_no_number_of_that_kind_stays() -> None:
    assert spell("7", "007", "abc", "1.5", "e5", ".5", "1e999", "+7.0", "1.0.0", "", "１.0") is None
    assert spell_out(pa.array([], pa.string()), np.arange(0)) is None
    assert spell_out(pa.array(["7.0"]), np.arange(0)) is None


@spelled
@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False).map(lambda x: float(round(x, 3))), min_size=1, max_size=5)
)
def test_a_list_that_pandas_writes_names_the_ids_that_the_readers_read(numbers: list[float]) -> None:
    column = pd.Series(numbers, dtype=np.float64)
    read = rows.to_texts(pa.array(column))
    written = [line for line in column.to_csv(index=False, header=False).split("\n") if line]
    found = spell_out(pa.array(written), np.arange(len(written)))
    names = written if found is None else found.to_pylist()
    whole = {text for text, number in zip(read, numbers, strict=True) if number.is_integer()}
    assert whole <= set(names)


REMEDIES: dict[str, tuple[str, str | bytes, str, str, str]] = {
    "no such file": ("none.txt", "", "no such file; give a .txt (one id per line), .csv or .parquet", "ids.txt", "a\n"),
    "another kind": ("ids.json", '["a"]', "is of unknown kind: give a .txt (one id per line)", "ids.txt", "a\n"),
    "no column of ids": (
        "ids.csv",
        "name\na\n",
        "has columns name: give one named id, uid or key",
        "ids.csv",
        "id\na\n",
    ),
    "an empty table": ("ids.csv", "", "has columns none: give one named id, uid or key", "ids.csv", "uid\na\n"),
    "no text": ("ids.csv", b"\xff\xfe", "cannot be read (", "ids.csv", "key\na\n"),
    "a quote without an end": ("ids.csv", 'id\n"a\nb\n', "cannot be read (unexpected end", "ids.csv", 'id\n"a"\n'),
    "two columns of ids": ("ids.csv", "id,id\na,b\n", "duplicate column 'id'; give each", "ids.csv", "id,other\na,b\n"),
    "no Parquet": ("ids.parquet", "a", "cannot be read (", "ids.txt", "a\n"),
}


@pytest.mark.parametrize("name", REMEDIES)
def test_the_remedy_of_a_message_about_a_list_works(name: str, tmp_path: Path) -> None:
    file, content, says, remedied, good = REMEDIES[name]
    if name != "no such file":
        data = content.encode() if isinstance(content, str) else content
        (tmp_path / file).write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_ids(tmp_path / file, "--drop")
    assert says in str(caught.value) and "\n" not in str(caught.value)
    (tmp_path / remedied).write_text(good)
    assert read_ids(tmp_path / remedied, "--drop").to_pylist() == ["a"]


def test_the_first_of_the_known_names_is_the_column_of_ids() -> None:
    assert [find_id_column(names, "x") for names in (("key", "id"), ("key", "uid"), ("a", "key"))] == [
        "id",
        "uid",
        "key",
    ]
