"""Reads files of Arrow's IPC format, which `datasets.save_to_disk` writes: record batches, one after the other.

The file is scanned first, message by message, without the data: only what lies in the file as a whole is ever read.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from fairdedup.datasets.filesystem import open_file
from fairdedup.datasets.rows import (
    FEW_ROWS,
    ROWS_PER_BYTE,
    DamagedTable,
    is_damage,
    repair,
    replace_views,
    without_views,
)
from fairdedup.errors import UserError, format_count
from fairdedup.storage.plain_files import expect_plain_file, open_plain_file
from fairdedup.storage.store_access import read_range

MAGIC = b"ARROW1\0\0"  # before the messages in a file that has a footer, too
MOST_BYTES = 64 << 20  # of the description of one message
MOST_UNPACKED = 1 << 36  # of one column of a batch
AT_ONCE = 1 << 12  # bytes that are read of a message before its length is known
_MARK = -1
_SCHEMA, _BATCH = 1, 3

_FAULTS = (struct.error, IndexError, ValueError)


@dataclass(frozen=True)
class ArrowLayout:
    """What is known about an Arrow file before its rows are read.

    Attributes
    ----------
    schema : pyarrow.Schema
        Its columns, with views replaced.
    batch_rows : list of int
        Number of rows of each record batch that lies in the file as a whole.
    damage : str or None
        Where the file ends too early.
    """

    schema: pa.Schema
    batch_rows: list[int]
    damage: str | None


def scan(fs: AbstractFileSystem, path: str) -> ArrowLayout:
    """Return the columns of an Arrow file, and the rows of its record batches. No data are read.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The file's path on it.

    Raises
    ------
    DamagedTable
        If the file does not begin as an Arrow file.
    UserError
        If it has two columns of the same name.
    """
    total = fs.size(path) or 0
    if isinstance(fs, LocalFileSystem):
        with open_plain_file(path, buffering=0) as file:

            def read_local(start: int, count: int) -> bytes:
                file.seek(start)
                return file.read(count)

            return _scan(read_local, total, path)
    return _scan(lambda start, count: read_range(fs, path, start, start + count), total, path)


def _scan(read: Callable[[int, int], bytes], total: int, path: str) -> ArrowLayout:
    at = len(MAGIC) if read(0, len(MAGIC)) == MAGIC else 0
    schema: pa.Schema | None = None
    rows: list[int] = []
    damage = None
    while True:
        message = _Message.read(read, at, total)
        if schema is None:
            if message is None or message.kind != _SCHEMA:
                raise DamagedTable(f"{path!r} is not an Arrow file: write it again with datasets.save_to_disk")
            schema = _read_schema(message.content, path)
        elif message is None:
            place = f"it ends after {format_count(total, 'byte')}, in record batch {len(rows)}"
            damage = f"{place}; the {format_count(sum(rows), 'row')} before it can be read"
            break
        elif message.end == at:
            break
        elif message.kind == _BATCH:
            rows.append(message.rows)
        at = message.end
    if sum(rows) > FEW_ROWS + ROWS_PER_BYTE * total:
        raise DamagedTable(f"{path!r} has impossible numbers of rows: write it again")
    return ArrowLayout(schema, rows, damage)


@dataclass(frozen=True)
class _Message:
    """A message of an Arrow file: a schema, a dictionary or a record batch; the end mark ends where it begins."""

    kind: int
    rows: int
    end: int
    content: bytes = b""

    @classmethod
    def read(cls, read: Callable[[int, int], bytes], at: int, total: int) -> _Message | None:
        """Return the message at a byte; None if it does not lie in the file as a whole, or is none."""
        head = read(at, AT_ONCE)
        if len(head) < 8:
            return None
        mark, size = struct.unpack_from("<ii", head)
        if mark != _MARK or not 0 <= size <= min(MOST_BYTES, total - at - 8):
            return None
        if size == 0:
            return cls(0, 0, at)
        head = head if len(head) >= 8 + size else read(at, 8 + size)
        content = head[8 : 8 + size]
        try:
            kind, body, rows = _parse(content)
        except _FAULTS:
            return None
        end = at + 8 + size + body
        if body < 0 or end > total or rows < 0:
            return None
        return cls(kind, rows, end, head[: 8 + size] if kind == _SCHEMA else b"")


def _parse(content: bytes) -> tuple[int, int, int]:
    """Return the kind of a message, the bytes of its body, and the rows of a record batch: Arrow's flatbuffers."""
    message = struct.unpack_from("<I", content)[0]
    kind = _field(content, message, 1, "<B")
    body = _field(content, message, 3, "<q")
    rows = 0
    if kind == _BATCH:
        place = _field_place(content, message, 2)
        if place is None:
            raise ValueError("a record batch without a header")
        rows = _field(content, place + struct.unpack_from("<I", content, place)[0], 0, "<q")
    return kind, body, rows


def _field(content: bytes, table: int, number: int, form: str) -> int:
    place = _field_place(content, table, number)
    return 0 if place is None else int(struct.unpack_from(form, content, place)[0])


def _field_place(content: bytes, table: int, number: int) -> int | None:
    """Return where a field of a flatbuffer's table is; None if it has its default value."""
    fields = table - struct.unpack_from("<i", content, table)[0]
    if fields < 0:
        raise ValueError("a table outside of its message")
    if 4 + 2 * number >= struct.unpack_from("<H", content, fields)[0]:
        return None
    offset = struct.unpack_from("<H", content, fields + 4 + 2 * number)[0]
    return table + offset if offset else None


def _claims_too_much(error: Exception) -> bool:
    """Tell whether memory is lacking because a compressed column claims a size that no batch has."""
    found = re.search("size ([0-9]+)", str(error)) if isinstance(error, pa.ArrowMemoryError) else None
    return found is not None and int(found[1]) > MOST_UNPACKED


def _read_schema(message: bytes, path: str) -> pa.Schema:
    try:
        schema = pa.ipc.read_schema(pa.py_buffer(message))
        names = schema.names
        schema = pa.schema([field.with_type(replace_views(field.type)) for field in schema])
    except Exception as error:
        if not is_damage(error):
            raise
        raise DamagedTable(f"{path!r} is not an Arrow file: write it again with datasets.save_to_disk") from None
    repeated = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if repeated is not None:
        raise UserError(f"{path!r} has two columns named {repeated!r}: rename one")
    for field in schema:
        if not _can_be_kept(field):
            raise UserError(
                f"column {field.name!r} of {path!r} is {str(field.type)[:60]}, which Parquet cannot hold: remove it"
            )
    return schema


def _can_be_kept(field: pa.Field) -> bool:
    try:
        pq.write_table(pa.schema([field]).empty_table(), io.BytesIO())
    except Exception as error:  # unions and the like, each with an exception of its own
        if isinstance(error, MemoryError):
            raise
        return False
    return True


@contextmanager
def _open(fs: AbstractFileSystem, path: str) -> Iterator[Any]:
    if isinstance(fs, LocalFileSystem):
        expect_plain_file(path)
        with pa.memory_map(path) as mapped:
            yield mapped
    else:
        with open_file(fs, path) as file, pa.PythonFile(file, mode="r") as wrapped:
            yield wrapped


def stream_batches(
    fs: AbstractFileSystem, path: str, start: int, stop: int, size: int, columns: Sequence[str] | None = None
) -> Iterator[tuple[int, pa.RecordBatch | None]]:
    """Yield (count, batch) for the rows from start to stop; the batch is None for rows that cannot be read.

    One record batch is in memory; of a local file it is only mapped.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The file's path on it.
    start, stop : int
        The rows to read, counted from the beginning of the file.
    size : int
        Largest number of rows in a batch.
    columns : sequence of str or None
        The columns to return; None means all.
    """
    at = start
    try:
        with _open(fs, path) as file:
            if file.read(len(MAGIC)) != MAGIC:
                file.seek(0)
            first = 0
            with pa.ipc.open_stream(file) as stream:
                while at < stop:
                    batch = stream.read_next_batch()
                    while at < min(stop, first + batch.num_rows):
                        part = batch.slice(at - first, min(size, stop - at))
                        # Views are replaced after the check: to cast values whose places are wrong is not safe.
                        part = without_views(repair(part if columns is None else part.select(columns)))
                        at += part.num_rows
                        yield part.num_rows, part
                    first += batch.num_rows
    except StopIteration:  # fewer rows than when the file was scanned
        pass
    except Exception as error:
        if not is_damage(error) and not _claims_too_much(error):
            raise
    if at < stop:
        yield stop - at, None
