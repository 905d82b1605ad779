"""Reads small files of users, such as prototypes, with a bound on what they unpack to, whatever their headers claim."""

from __future__ import annotations

import math

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from fairdedup.datasets.npy_arrays import MAGIC, read_header
from fairdedup.datasets.npz_arrays import read_headers
from fairdedup.datasets.parquet_footer import DamagedFooter, read_footer
from fairdedup.datasets.rows import DamagedTable, open_parquet_file
from fairdedup.errors import UserError, format_count
from fairdedup.storage.plain_files import NotPlainFile, open_plain_file

ROWS_AT_ONCE = 64


def check_array_headers(path: str, most: int) -> None:
    """Check the headers of an .npy or .npz file, before anything of the size that they claim is allocated.

    Parameters
    ----------
    path : str
        A file on the local disk. What begins as neither passes: numpy says what is wrong with it.
    most : int
        Largest number of bytes of all arrays.

    Raises
    ------
    ValueError
        If the arrays are larger, do not fit the size of the file, or have an impossible shape.
    """
    with open_plain_file(path) as file:
        head = file.read(len(MAGIC))
    fs = LocalFileSystem()
    try:
        if head == MAGIC:
            headers = [read_header(fs, path)]
        elif head.startswith(b"PK"):
            headers = list(read_headers(fs, path).values())
        else:
            return
    except UserError as error:
        raise ValueError(str(error).replace(repr(path), "it").partition(": ")[0]) from None
    _expect_at_most(sum(header.dtype.itemsize * math.prod(header.shape) for header in headers), most)


def read_bounded_table(path: str, most: int) -> pa.Table:
    """Return a Parquet file, of which no more than a bounded part is ever in memory.

    Parameters
    ----------
    path : str
        A file on the local disk.
    most : int
        Largest number of bytes in memory.

    Raises
    ------
    ValueError
        If it is larger, or is not a Parquet file.
    """
    try:
        with open_parquet_file(LocalFileSystem(), path) as parquet:
            _expect_at_most(_count_values(path, parquet) * 4, most)
            batches, size = [], 0
            for batch in parquet.iter_batches(ROWS_AT_ONCE, use_threads=False):
                batch = pa.record_batch(list(map(_decode, batch.columns)), batch.schema.names)
                batches.append(batch)
                size += batch.nbytes
                _expect_at_most(size, most)
            return pa.Table.from_batches(batches) if batches else parquet.schema_arrow.empty_table()
    except NotPlainFile:
        raise
    except DamagedTable as error:
        raise ValueError(str(error).replace(repr(path), "it").partition(": ")[0]) from None


def _count_values(path: str, parquet: pq.ParquetFile) -> int:
    """Return how many values a Parquet file says that it holds."""
    try:
        groups = read_footer(LocalFileSystem(), path, parquet)
    except DamagedFooter:
        raise ValueError("its metadata cannot be read") from None
    values = [column.values for group in groups for column in group]
    if min(values, default=0) < 0:
        raise ValueError("its metadata names fewer than no values")
    return sum(values)


def _decode(column: pa.Array) -> pa.Array:
    """Return a column without a dictionary, in which a long text may be named by many rows."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _expect_at_most(size: int, most: int) -> None:
    if size > most:
        raise ValueError(f"it holds {format_count(size, 'byte')}, and such a file has at most {most:,}")
