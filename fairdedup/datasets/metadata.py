"""Reads the Parquet file that accompanies ready embeddings: a range of its rows, with the column of ids first."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from fsspec import AbstractFileSystem

from fairdedup.datasets.reserved_columns import rename_reserved
from fairdedup.datasets.rows import cast_to_text, open_parquet_file, replace_views, stream_rows
from fairdedup.errors import UserError, format_count

ROWS_AT_ONCE = 10_000
ID_COLUMNS = ("uid", "id", "key", "image_path")
"""Names of columns that may hold the ids, in order of preference."""

DOCUMENTED_ID_COLUMN = (
    f"column {', '.join(f'`{name}`' for name in ID_COLUMNS[:-1])} or `{ID_COLUMNS[-1]}`, the first that is there"
)
"""Words for the id column in the table of inputs in the docs."""


def describe_table(fs: AbstractFileSystem, path: str) -> tuple[int, str | None]:
    """Return the number of rows of a Parquet file, and its id column or None. Only the footer is read.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The file's path on it.

    Raises
    ------
    UserError
        If the file is not a Parquet file.
    """
    with open_parquet_file(fs, path) as parquet:
        names = parquet.schema_arrow.names
        return parquet.metadata.num_rows, next((name for name in ID_COLUMNS if name in names), None)


def read_rows(fs: AbstractFileSystem, path: str, start: int, stop: int) -> pa.Table:
    """Return a range of rows. Only the row groups that contain them are read.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The file's path on it.
    start, stop : int
        The rows to read, counted from the beginning of the file.

    Raises
    ------
    UserError
        If some rows are damaged, because it is then unknown which vector belongs to which row.
    """
    with open_parquet_file(fs, path) as parquet:
        schema = pa.schema([f.with_type(replace_views(f.type)) for f in parquet.schema_arrow])
    batches = []
    for count, batch in stream_rows(fs, path, start, stop, ROWS_AT_ONCE):
        if batch is None:
            raise UserError(f"{path!r} has {format_count(count, 'damaged row')}: write it again")
        batches.append(batch.replace_schema_metadata(None))
    return pa.Table.from_batches(batches, schema)


def add_id_column(table: pa.Table, ids: Sequence[str] | str, path: str, prefix: str = "") -> pa.Table:
    """Return the table with a first column ``id`` of text.

    Parameters
    ----------
    table : pyarrow.Table
        The metadata, n rows.
    ids : sequence of n str, or str
        The ids, or the name of the column of ids.
    path : str
        Where the table came from, for messages.
    prefix : str
        Prefix of every id: "SHARD/" if ids consist of shard and key.

    Raises
    ------
    UserError
        If the column cannot become text, or has a row without an id.
    """
    if isinstance(ids, str):
        try:
            column = cast_to_text(table.column(ids))
        except pa.ArrowException:
            kind = table.schema.field(ids).type
            raise UserError(f"id column {ids!r} of {path!r} is {kind}, not text: rename or convert it") from None
        if column.null_count:
            empty = format_count(column.null_count, "empty row: fill it", "empty rows: fill them")
            raise UserError(f"id column {ids!r} of {path!r} has {empty}")
    else:
        column = pa.chunked_array([pa.array(ids, pa.string())])
    if prefix:
        column = pa.chunked_array([[f"{prefix}{value}" for value in column.to_pylist()]], pa.string())
    if ids == "id":
        table = table.drop_columns(["id"])
    else:  # the ids come from elsewhere, so a column of this name gets another one
        table = table.rename_columns(list(rename_reserved(table.column_names, ("id",)).values()))
    return table.add_column(0, "id", column)
