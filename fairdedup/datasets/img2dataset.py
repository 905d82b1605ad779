"""Reads the Parquet files that img2dataset writes next to its images, with the status of every download.

Rows that failed have no image; they are rejected with the reason that the file gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from fsspec import AbstractFileSystem

from fairdedup.datasets.filesystem import to_valid_text
from fairdedup.datasets.rows import DAMAGED, TEXT_TYPES, open_parquet_file, stream_rows, to_texts
from fairdedup.errors import UserError, format_count

COLUMNS = ("key", "status", "error_message")
LONGEST_REASON = 200
ROWS_AT_ONCE = 1_000


def explain_failure(status: Any, message: Any) -> str | None:
    """Return why a download failed; None if it succeeded, or if the status is not text.

    Parameters
    ----------
    status : str, pyarrow.Scalar or any other value
        The column ``status``: "success", or a word for the failure.
    message : str, pyarrow.Scalar or any other value
        The column ``error_message``, which is cut to 200 characters.
    """
    status, message = (value.as_py() if isinstance(value, pa.Scalar) else value for value in (status, message))
    if not isinstance(status, str) or status == "success":
        return None
    why = to_valid_text(message if isinstance(message, str) and message else status)
    return f"img2dataset: {why if len(why) <= LONGEST_REASON else why[: LONGEST_REASON - 3] + '...'}"


def _is_text(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (*TEXT_TYPES, pa.types.is_null, pa.types.is_integer))


def read_downloads(fs: AbstractFileSystem, path: str) -> Iterator[tuple[str | None, str | None]]:
    """Yield, for every row, its key and why its download failed (or None); nothing for a file of another kind.

    A key of None means that the file, or some rows of it, cannot be read.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The Parquet file's path on it.
    """
    try:
        with open_parquet_file(fs, path) as parquet:
            schema, rows = parquet.schema_arrow, parquet.metadata.num_rows
    except UserError:
        yield None, "the Parquet file beside it is damaged"
        return
    if not all(name in schema.names and _is_text(schema.field(name).type) for name in COLUMNS):
        return
    for count, batch in stream_rows(fs, path, 0, rows, ROWS_AT_ONCE, COLUMNS):
        if batch is None:
            yield None, f"{DAMAGED} beside it ({format_count(count, 'row')})"
            continue
        keys, states, messages = (to_texts(batch.column(name)) for name in COLUMNS)
        for key, status, message in zip(keys, states, messages, strict=True):
            yield key or "", explain_failure(status, message)
