"""Finds how many values the vectors in a column have, by its type or by the first rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from fsspec import AbstractFileSystem

from fairdedup.datasets.findings import Findings
from fairdedup.datasets.parquet_shards import ROWS_AT_ONCE, plain_lists
from fairdedup.datasets.table_files import TableLayout, stream_table
from fairdedup.errors import UserError, format_count

MAX_WIDTH = 1 << 16


def find_width(
    fs: AbstractFileSystem,
    layout: TableLayout,
    column: str,
    path: str,
    *,
    expected: int,
    first: str,
    skip_damaged: bool,
) -> int:
    """Return the width of the vectors: that of the type, else the most common one among the first rows.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    layout : TableLayout
        What is known about the file.
    column, path : str
        The column of vectors, and the file.
    expected : int
        The width in earlier files; 0 if it is unknown.
    first : str
        The first file, for messages.
    skip_damaged : bool
        Whether rows that cannot be read are passed over.

    Raises
    ------
    UserError
        If the width differs from that of earlier files or is too large, or if no row can be read.
    """
    kind = layout.schema.field(column).type
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    found = expected
    if pa.types.is_fixed_size_list(kind):
        found = kind.list_size
        if found == 0:
            raise UserError(f"column {column!r} of {path!r} holds vectors of no values: write the file again")
        if expected and found != expected:
            raise UserError(
                f"{path!r} has {format_count(found, 'dimension')} but {first!r} has {expected}: "
                "give them as separate inputs"
            )
    elif not expected:
        found = _find_commonest_length(fs, path, sum(layout.group_sizes), column, skip_damaged=skip_damaged)
    if found > MAX_WIDTH:
        raise UserError(
            f"column {column!r} of {path!r} has {found:,} dimensions, over {MAX_WIDTH:,}: name another with --column"
        )
    return found


def _find_commonest_length(fs: AbstractFileSystem, path: str, rows: int, column: str, *, skip_damaged: bool) -> int:
    """Return the most common width in the first batch of rows that has vectors; 0 if no row has one."""
    first = 0
    damaged = None
    for count, batch in stream_table(fs, path, 0, rows, ROWS_AT_ONCE, [column]):
        first += count
        if batch is None:
            damaged = damaged or f"rows {first - count:,} to {first - 1:,} of 0 to {rows - 1:,} cannot be read"
            continue
        lengths = pc.list_value_length(plain_lists(batch.column(0))).drop_null().to_numpy()
        lengths = lengths[lengths > 0]
        if len(lengths):
            values, counts = np.unique(lengths, return_counts=True)
            return int(values[np.argmax(counts)])
    if damaged is not None:
        Findings().add_damage(path, damaged, skip=skip_damaged)
    return 0
