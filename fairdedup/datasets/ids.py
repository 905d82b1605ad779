"""Reads files of ids: text with one id per line, or a table with a column of ids."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fairdedup.datasets.rows import cast_to_text
from fairdedup.errors import UserError, first_line
from fairdedup.storage.csv_cells import restore_cell
from fairdedup.storage.plain_files import expect_plain_file, open_plain_file

COLUMNS = ("id", "uid", "key")
_FLOAT = re.compile(r"-?(0|[1-9][0-9]*)(?=[.eE])(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?")  # not 007, and not 5
KINDS = ".txt (one id per line), .csv or .parquet (a column id)"


def check_ids(path: Path, option: str) -> None:
    """Check that a file exists and has a known extension, without reading it.

    Parameters
    ----------
    path : Path
        The file.
    option : str
        The option that names it, for messages.

    Raises
    ------
    UserError
        If the file does not exist, or its extension is unknown.
    """
    expect_plain_file(path, f"{option} {str(path)!r}")
    if not path.is_file():
        raise UserError(f"{option} {str(path)!r}: no such file; give a {KINDS}")
    if path.suffix.lower() not in (".txt", ".csv", ".parquet"):
        raise UserError(f"{option} {str(path)!r} is of unknown kind: give a {KINDS}")


def read_ids(path: Path, option: str) -> pa.Array:
    """Return the ids of a file, without repetitions, in the order of the file.

    Parameters
    ----------
    path : Path
        A .txt, .csv or .parquet file.
    option : str
        The option that names it, for messages.

    Returns
    -------
    pyarrow.Array of string
        The ids.

    Raises
    ------
    UserError
        If the file cannot be read, or has no column of ids.
    """
    check_ids(path, option)
    kind, what = path.suffix.lower(), f"{option} {str(path)!r}"
    try:
        if kind == ".parquet":
            return _read_parquet(path, what)
        with open_plain_file(path, what) as raw, TextIOWrapper(raw, "utf-8-sig", newline="") as file:
            if kind == ".txt":
                names = [line.rstrip("\r\n") for line in file]
            else:
                lines = csv.DictReader(file, strict=True)  # else a quote without an end hides the lines behind it
                column = find_id_column(lines.fieldnames or (), what)
                names = [line[column] for line in lines]
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{what} cannot be read ({first_line(error)}): write the file again") from None
    return pc.unique(pa.array([name for name in names if name], pa.string()))


def _read_parquet(path: Path, what: str) -> pa.Array:
    with open_plain_file(path, what) as raw, pq.ParquetFile(raw) as file:
        column = find_id_column(file.schema_arrow.names, what)
        return pc.unique(cast_to_text(file.read([column]).column(column))).drop_null()


def spell_out(ids: pa.Array, places: NDArray[np.int64]) -> pa.Array | None:
    """Return a list of ids in which some whole numbers are written out: "1.58e+12" and "1580000000000.0" are not.

    Spreadsheets and pandas write ids of a column of floats so. The apostrophe before an id that would be a formula in a
    spreadsheet is removed, as in "'=a". Only ids that nothing has may be changed.

    Parameters
    ----------
    ids : pyarrow.Array of string
        The list.
    places : ndarray of int64
        Places in the list of the ids that may be changed.

    Returns
    -------
    pyarrow.Array of string or None
        The new list, without repetitions; None if there is nothing to change.
    """
    texts = ids.to_pylist()
    there = [k for k in places.tolist() if _FLOAT.fullmatch(texts[k]) and float(texts[k]).is_integer()]
    marked = [k for k in places.tolist() if restore_cell(texts[k]) != texts[k]]
    if not there and not marked:
        return None
    for k in marked:
        texts[k] = restore_cell(texts[k])
    written = cast_to_text(pa.chunked_array([pa.array([float(texts[k]) for k in there], pa.float64())]))
    for k, text in zip(there, written.to_pylist(), strict=True):
        texts[k] = text
    return pc.unique(pa.array(texts, pa.string()))


def find_id_column(names: Sequence[str], what: str) -> str:
    """Return which of these columns holds the ids.

    Parameters
    ----------
    names : sequence of str
        The columns of a file.
    what : str
        The file, for the message.

    Raises
    ------
    UserError
        If no column has one of the known names, or several have the same.
    """
    for column in COLUMNS:
        if names.count(column) > 1:
            raise UserError(f"{what}: duplicate column {column!r}; give each column its own name")
        if column in names:
            return column
    there = ", ".join(names) or "none"
    raise UserError(f"{what} has columns {there}: give one named id, uid or key")
