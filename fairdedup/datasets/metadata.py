"""The Parquet file beside embeddings: its rows in a range, with the column of ids first."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem

from fairdedup.errors import UserError

ID_COLUMNS = ("uid", "id", "key", "image_path")
"""Columns that may hold the ids; the first that is there does."""


def describe(fs: AbstractFileSystem, path: str) -> tuple[int, str | None]:
    """Return a Parquet file's row count and its id column, reading its footer only.

    Raises
    ------
    UserError
        If it is not a Parquet file.
    """
    try:
        with fs.open(path, "rb") as file, pq.ParquetFile(file) as parquet:
            names = parquet.schema_arrow.names
            return parquet.metadata.num_rows, next((name for name in ID_COLUMNS if name in names), None)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # Arrow's own OSErrors have no number
            raise
        raise UserError(f"{path!r} is not a readable Parquet file: write it anew or remove it") from None


def read_rows(fs: AbstractFileSystem, path: str, start: int, stop: int) -> pa.Table:
    """Return rows start to stop, reading only the row groups that hold them."""
    with fs.open(path, "rb") as file, pq.ParquetFile(file) as parquet:
        groups: list[int] = []
        first = skip = 0
        for group in range(parquet.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            if first < stop and first + rows > start:
                if not groups:
                    skip = start - first
                groups.append(group)
            first += rows
        table = parquet.read_row_groups(groups)
    return table.slice(skip, stop - start).replace_schema_metadata(None)


def with_ids(table: pa.Table, ids: Sequence[str] | str, path: str, prefix: str = "") -> pa.Table:
    """Return the table with a first column ``id`` of text.

    Parameters
    ----------
    table : pyarrow.Table
        The metadata, n rows.
    ids : sequence of n str, or str
        The ids, or the name of the column that holds them.
    path : str
        Where the table came from, for messages.
    prefix : str
        Put before every id ("shard/" where ids are asked for by shard).

    Raises
    ------
    UserError
        If the column cannot be text or has a row without an id.
    """
    if isinstance(ids, str):
        try:
            column = table.column(ids).cast(pa.string())
        except pa.ArrowException:
            kind = table.schema.field(ids).type
            raise UserError(f"id column {ids!r} of {path!r} is {kind}, not text: rename or convert it") from None
        if column.null_count:
            raise UserError(f"id column {ids!r} of {path!r} has {column.null_count:,} empty rows: fill them")
    else:
        column = pa.chunked_array([pa.array(ids, pa.string())])
    if prefix:
        column = pa.chunked_array([[f"{prefix}{value}" for value in column.to_pylist()]], pa.string())
    if ids == "id":
        table = table.drop_columns(["id"])
    elif "id" in table.column_names:  # another column has the better id; this one stays, under another name
        taken, free = set(table.column_names), "input_id"
        while free in taken:
            free += "_"
        table = table.rename_columns([free if name == "id" else name for name in table.column_names])
    return table.add_column(0, "id", column)
