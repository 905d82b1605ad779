"""Writes kept (or removed) ids as files for other tools: one id per line, a table, or DataComp's pairs of integers.

Ids are read one part of decisions/ at a time and never changed; an id that a format cannot represent is refused.
"""

from __future__ import annotations

import csv
import re
from binascii import unhexlify
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fairdedup.errors import UserError
from fairdedup.storage.csv_cells import neutralise_cell
from fairdedup.storage.run_files import write_array
from fairdedup.storage.sealed_files import Seal, load_table

ROWS_AT_ONCE = 10_000
NAME = "representative_id"
UID = np.dtype("u8,u8")
_HEX = "^[0-9a-fA-F]{32}$"
_ENDS_A_LINE = re.compile("[\r\n]|^\ufeff")  # readers take a byte order mark for the encoding


def iterate_ids(parts: Iterable[Seal], kept: bool) -> Iterator[pa.ChunkedArray]:
    """Yield the ids of the kept, or of the removed, rows of each part, in the order of the input."""
    for part in parts:
        table = load_table(part, ["id", "kept"])
        flags = table.column("kept")
        yield table.column("id").filter(flags if kept else pc.invert(flags))


def write_lines(path: Path, ids: Iterable[pa.ChunkedArray]) -> int:
    """Write one id per line, as UTF-8, and return their number.

    Raises
    ------
    UserError
        If an id would not be read back unchanged.
    """
    count = 0
    with open(path, "w", encoding="utf-8", newline="") as file:
        for column in ids:
            for name in column.to_pylist():
                if not name or _ENDS_A_LINE.search(name):
                    raise UserError(
                        f"id {name!r} cannot be a line of a text file: take the ids from kept/ or decisions/"
                    )
                file.write(f"{name}\n")
            count += len(column)
    return count


def iterate_decisions(parts: Sequence[Seal], kept: bool) -> Iterator[pa.Table]:
    """Yield the decisions of the kept, or of the removed, rows of each part, in the order of the input.

    The column ``representative_id`` has the id of each row's representative, of earlier runs too; null where there is
    none. Each part is read twice or three times, and the ids of samples that represent others are in memory.
    """
    rows, names = _find_representatives(parts, kept)
    for part in parts:
        table = load_table(part)
        flags = table.column("kept")
        table = table.filter(flags if kept else pc.invert(flags))
        own, representative = (table.column(name).to_numpy() for name in ("row", "representative"))
        found = pa.nulls(len(own), pa.string())
        if len(rows):
            places = np.searchsorted(rows, representative).clip(max=len(rows) - 1)
            found = names.take(pa.array(places, mask=rows[places] != representative))
        found = pc.if_else(pa.array(own == representative), table.column("id"), found)
        if NAME in table.column_names:
            found = pc.coalesce(found, table.column(NAME))
            table = table.drop_columns([NAME])
        yield table.add_column(0, NAME, found)


def _find_representatives(parts: Sequence[Seal], kept: bool) -> tuple[NDArray[np.int64], pa.ChunkedArray]:
    """Return the rows that represent other rows of those that are chosen, ascending, and their ids."""
    wanted = [np.zeros(0, np.int64)]
    for part in parts:
        table = load_table(part, ["row", "kept", "representative"])
        row, flags, representative = (table.column(name).to_numpy() for name in ("row", "kept", "representative"))
        wanted.append(np.unique(representative[(flags == kept) & (representative != row) & (representative >= 0)]))
    rows, found, chunks = np.unique(np.concatenate(wanted)), [np.zeros(0, np.int64)], []
    for part in parts if len(rows) else ():
        table = load_table(part, ["row", "id"])
        row = table.column("row").to_numpy()
        there = np.isin(row, rows, assume_unique=True)
        found.append(row[there])
        chunks += table.column("id").filter(pa.array(there)).chunks
    return np.concatenate(found), pa.chunked_array(chunks, pa.string())


def write_csv(path: Path, tables: Iterable[pa.Table], *, keep_formulas: bool = False) -> int:
    """Write tables of the same columns as CSV, the column of ids first, and return the number of rows.

    Parameters
    ----------
    path : Path
        The file to write, UTF-8.
    tables : iterable of pyarrow.Table
        One or more tables with a column ``id``.
    keep_formulas : bool
        Whether texts that a spreadsheet would take for formulas stay as they are.
    """
    count, header = 0, None
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        for table in tables:
            names = ["id", *(name for name in table.column_names if name != "id")]
            if header is None:
                header = names
                writer.writerow(names)
            for batch in table.select(names).to_batches(ROWS_AT_ONCE):
                for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    cells = [str(v).lower() if isinstance(v, bool) else v for v in values]
                    writer.writerow(cells if keep_formulas else map(neutralise_cell, cells))
            count += len(table)
    return count


def write_uids(path: Path, ids: Iterable[pa.ChunkedArray]) -> int:
    """Write ids of 32 hex digits as DataComp's subsets, a sorted .npy of dtype ``u8,u8``; return their number.

    Raises
    ------
    UserError
        Naming the first id that does not have 32 hex digits.
    """
    halves = [_halves(column) for column in ids]
    pairs = np.concatenate(halves) if halves else np.zeros((0, 2), np.uint64)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    write_array(path, np.ascontiguousarray(pairs[order]).view(UID).reshape(-1))
    return len(pairs)


def _halves(column: pa.ChunkedArray) -> NDArray[np.uint64]:
    """Return ids as pairs of numbers (n, 2)."""
    fit = pc.match_substring_regex(column, _HEX)
    if not pc.all(fit, min_count=0).as_py():  # true for no ids
        wrong = column[pc.index(fit, False).as_py()].as_py()
        raise UserError(f"id {wrong!r} is not of 32 hex digits, as DataComp's are: write --to txt")
    digits = "".join(column.to_pylist())
    return np.frombuffer(unhexlify(digits), ">u8").astype(np.uint64).reshape(-1, 2)
