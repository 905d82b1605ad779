"""Reads the files of tables, Parquet or Arrow, in one way: their columns and numbers of rows, or a range of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
from fsspec import AbstractFileSystem

from fairdedup.datasets.arrow_stream import scan, stream_batches
from fairdedup.datasets.page_memory import estimate_page_memory
from fairdedup.datasets.rows import DAMAGED, count_group_rows, open_parquet_file, stream_rows

ARROW_EXTENSIONS = (".arrow",)
DAMAGED_ARROW = "damaged Arrow data"


@dataclass(frozen=True)
class TableLayout:
    """What is known about a file of a table before its rows are read.

    Attributes
    ----------
    schema : pyarrow.Schema
        Its columns.
    group_sizes : list of int
        Rows of each row group or record batch.
    damage : str or None
        Where the file ends too early, if it can be read up to there.
    memory : int
        Bytes that reading its large pages needs; 0 if it has none.
    """

    schema: pa.Schema
    group_sizes: list[int]
    damage: str | None = None
    memory: int = 0


def is_arrow(path: str) -> bool:
    """Tell by a file's name whether it is an Arrow file."""
    return path.lower().endswith(ARROW_EXTENSIONS)


def read_layout(fs: AbstractFileSystem, path: str) -> TableLayout:
    """Return the columns of a file, and the rows of its parts. No rows are read.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The file's path on it.

    Raises
    ------
    DamagedTable
        If it cannot be read at all.
    UserError
        If it has two columns of the same name.
    """
    if is_arrow(path):
        found = scan(fs, path)
        return TableLayout(found.schema, found.batch_rows, found.damage)
    with open_parquet_file(fs, path) as parquet:
        memory = estimate_page_memory(fs, path, parquet)
        return TableLayout(parquet.schema_arrow, count_group_rows(parquet), memory=memory)


def stream_table(
    fs: AbstractFileSystem, path: str, start: int, stop: int, size: int, columns: Sequence[str] | None = None
) -> Iterator[tuple[int, pa.RecordBatch | None]]:
    """Yield (count, batch) for the rows from start to stop, at most `size` in a batch; None for rows that are damaged.

    See `rows.stream_rows` and `arrow_stream.stream_batches`.
    """
    stream = stream_batches if is_arrow(path) else stream_rows
    return stream(fs, path, start, stop, size, columns)


def name_damage(path: str) -> str:
    """Return the reason for which rows of a file that cannot be read are rejected."""
    return DAMAGED_ARROW if is_arrow(path) else DAMAGED
