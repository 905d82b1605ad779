"""Reads a range of the rows of a Parquet file, a few at a time; what cannot be read is counted, never guessed.

Parquet readers do not check text, so bytes that are not UTF-8 are escaped here, before anything decodes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from math import isfinite, isnan

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem

from fairdedup.datasets.filesystem import open_file, to_valid_text
from fairdedup.errors import UserError

PARQUET_EXTENSIONS = (".parquet", ".pq")
ROWS_PER_BYTE = 8  # a footer that claims more rows per byte of its file is treated as damaged
FEW_ROWS = 10_000  # rows that a footer may claim whatever the size of the file

DAMAGED = "damaged Parquet data"

# What pyarrow raises on broken bytes; its own OSErrors have no errno, those of a disk or a network have one.
_DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError, IndexError, TypeError, OverflowError)


def is_parquet(name: str) -> bool:
    """Tell by a file's name whether it is a Parquet file."""
    return name.lower().endswith(PARQUET_EXTENSIONS)


def is_damage(error: Exception) -> bool:
    """Tell whether an error means broken bytes, rather than a fault of the disk or network or a lack of memory."""
    if isinstance(error, MemoryError) or not isinstance(error, _DAMAGE):
        return False
    return not isinstance(error, OSError) or (type(error) is OSError and error.errno is None)


class DamagedTable(UserError):
    """A file of a table cannot be read at all."""


@contextmanager
def open_parquet_file(fs: AbstractFileSystem, path: str) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file after checking its footer.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The file's path on it.

    Raises
    ------
    DamagedTable
        If the file is not a complete Parquet file.
    UserError
        If it has two columns of the same name.
    """
    with open_file(fs, path) as file:
        try:
            parquet = pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False, page_checksum_verification=True)
            names = parquet.schema_arrow.names
            groups = [parquet.metadata.row_group(k).num_rows for k in range(parquet.metadata.num_row_groups)]
            size = fs.size(path)
        except _DAMAGE as error:
            if not is_damage(error):
                raise
            raise DamagedTable(f"{path!r} is not a readable Parquet file: write it again or remove it") from None
        most = None if size is None else FEW_ROWS + ROWS_PER_BYTE * size
        if min(groups, default=0) < 0 or sum(groups) != parquet.metadata.num_rows or (most and sum(groups) > most):
            raise DamagedTable(f"{path!r} has a footer with impossible numbers of rows: write it again")
        repeated = next((n for n in names if names.count(n) > 1), None) if len(set(names)) < len(names) else None
        if repeated is not None:
            raise UserError(f"{path!r} has two columns named {repeated!r}: rename one")
        yield parquet


def count_group_rows(parquet: pq.ParquetFile) -> list[int]:
    """Return the number of rows of each row group."""
    return [parquet.metadata.row_group(k).num_rows for k in range(parquet.metadata.num_row_groups)]


def stream_rows(
    fs: AbstractFileSystem, path: str, start: int, stop: int, size: int, columns: Sequence[str] | None = None
) -> Iterator[tuple[int, pa.RecordBatch | None]]:
    """Yield (count, batch) for the rows from start to stop.

    The batch is None for rows that cannot be read: from the first broken page to the end of its row group. Less than
    one row group is in memory. The types of the columns are the file's, after `replace_views`.

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
        The columns to read; None means all.
    """
    with open_parquet_file(fs, path) as parquet:
        first = 0
        for group, rows in enumerate(count_group_rows(parquet)):
            low, high = max(start - first, 0), min(stop - first, rows)
            if low < high:
                yield from _group(parquet, group, low, high, size, columns)
            first += rows


def _group(
    parquet: pq.ParquetFile, group: int, low: int, high: int, size: int, columns: Sequence[str] | None
) -> Iterator[tuple[int, pa.RecordBatch | None]]:
    at = 0
    batches = parquet.iter_batches(size, [group], columns=columns, use_threads=False)
    while at < high:
        try:
            batch = repair(without_views(next(batches)))
        except StopIteration:  # fewer rows than the footer says
            break
        except Exception as error:
            if not is_damage(error):
                raise
            break
        before, at = at, at + batch.num_rows
        first, last = max(before, low), min(at, high)
        if first < last:
            yield last - first, batch.slice(first - before, last - first)
    if at < high:
        yield high - max(at, low), None


def replace_views(kind: pa.DataType) -> pa.DataType:
    """Return a type with views replaced by plain text and bytes, at any depth: Arrow cannot filter columns of views."""
    if isinstance(kind, pa.BaseExtensionType):
        plain = replace_views(kind.storage_type)
        return kind if plain == kind.storage_type else plain
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.large_binary()  # a few images may be more than 2 GiB
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(replace_views(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(replace_views(kind.key_type), replace_views(kind.item_type))
    if not any(test(kind) for test in LIST_TYPES) or replace_views(kind.value_type) == kind.value_type:
        return kind
    value = kind.value_field.with_type(replace_views(kind.value_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(value, kind.list_size)
    return pa.list_(value) if pa.types.is_list(kind) or pa.types.is_list_view(kind) else pa.large_list(value)


def without_views(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch with columns of plain text and bytes in place of views; see `replace_views`."""
    schema = pa.schema([field.with_type(replace_views(field.type)) for field in batch.schema], batch.schema.metadata)
    if schema == batch.schema:
        return batch
    pairs = zip(batch.columns, schema.types, strict=True)
    return pa.record_batch([_as_plain(column, kind) for column, kind in pairs], schema=schema)


def _as_plain(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if column.type == kind:
        return column
    if "list_view" in str(column.type):  # Arrow 26 casts them wrongly: null lists get impossible offsets
        return pa.array(column.to_pylist(), kind)
    return column.cast(kind)


def repair(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch with readable values only: broken text is escaped, other broken columns become null."""
    if _is_valid(batch):
        return batch
    return pa.record_batch([_repair_column(column) for column in batch.columns], batch.schema)


def _is_valid(data: pa.RecordBatch | pa.Array) -> bool:
    try:
        data.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _repair_column(column: pa.Array) -> pa.Array:
    if _is_valid(column):
        return column
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        plain = column.view(pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary())
        if not _is_valid(plain):  # not the text is broken but its places, which only Arrow files have
            return pa.nulls(len(column), column.type)
        values = plain.to_pylist()
        return pa.array([None if v is None else v.decode("utf-8", "backslashreplace") for v in values], column.type)
    return pa.nulls(len(column), column.type)


def to_texts(column: pa.Array) -> list[str | None]:
    """Return ids, captions or paths as text; broken bytes are escaped.

    Whole numbers are written out, whatever their type ("1580000000000", not "1.58e+12"), dates are those of ISO 8601,
    UUIDs have dashes, and NaN counts as missing.

    Parameters
    ----------
    column : pyarrow.Array
        A column of a type for which `can_be_text` is true.
    """
    import uuid

    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_fixed_size_binary(column.type) and column.type.byte_width == 16:
        return [None if value is None else str(uuid.UUID(bytes=value)) for value in column.to_pylist()]
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if any(test(column.type) for test in BINARY_TYPES):
        return [None if value is None else value.decode("utf-8", "backslashreplace") for value in column.to_pylist()]
    if pa.types.is_floating(column.type):
        return _float_texts(column)
    if pa.types.is_decimal(column.type):
        return [None if value is None else _decimal_text(value) for value in column.to_pylist()]
    if pa.types.is_timestamp(column.type):
        return _time_texts(column)
    return [None if value is None else to_valid_text(value) for value in column.cast(pa.string()).to_pylist()]


def _float_texts(column: pa.Array) -> list[str | None]:
    texts: list[str | None] = []
    for value, text in zip(column.to_pylist(), column.cast(pa.string()).to_pylist(), strict=True):
        if value is None or isnan(value):
            texts.append(None)
        else:
            texts.append(str(int(value)) if isfinite(value) and value == int(value) else text)
    return texts


def _time_texts(column: pa.Array) -> list[str | None]:
    """Return points in time, the same whatever their unit: Parquet stores seconds as milliseconds."""
    zone = "" if column.type.tz is None else "Z"  # in UTC, since Arrow's own cast has to know the zone
    texts = column.cast(pa.timestamp(column.type.unit)).cast(pa.string()).to_pylist()
    return [None if text is None else (text.rstrip("0").rstrip(".") if "." in text else text) + zone for text in texts]


def _decimal_text(value: Decimal) -> str:
    return str(int(value)) if value == value.to_integral_value() else format(value, "f")


def can_be_text(kind: pa.DataType) -> bool:
    """Tell whether a column of this type can hold ids: text, bytes, numbers, dates or points in time."""
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(test(kind) for test in (*BINARY_TYPES, *TEXT_TYPES, *NUMBER_TYPES, *DATE_TYPES))


def cast_to_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return ids or labels as text, written as by `to_texts`.

    Parameters
    ----------
    column : pyarrow.ChunkedArray
        A column of any type.

    Raises
    ------
    pyarrow.ArrowException
        If its type cannot become text, or bytes are not UTF-8.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    tests = (pa.types.is_fixed_size_binary, pa.types.is_floating, pa.types.is_decimal, pa.types.is_timestamp)
    if isinstance(kind, pa.BaseExtensionType) or any(test(kind) for test in tests):
        return pa.chunked_array([pa.array(to_texts(chunk), pa.string()) for chunk in column.chunks], pa.string())
    return column.cast(pa.string())


BINARY_TYPES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
LIST_TYPES = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
)
TEXT_TYPES = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
NUMBER_TYPES = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
DATE_TYPES = (pa.types.is_date, pa.types.is_timestamp)
