"""How much memory a Parquet file with large pages needs, by its footer and the headers of its pages. No rows are read.

A page is the least that can be read at a time. pyarrow puts the values of up to 1,024 rows into one, whatever their
size, so a row group of a few hundred photographs may be a single page.
"""

from __future__ import annotations

import pyarrow.parquet as pq
from fsspec import AbstractFileSystem

from fairdedup.datasets.parquet_footer import UNCOMPRESSED, ColumnChunk, DamagedFooter, read_bytes, read_footer

LARGE = 256 << 20
"""Bytes of a column of a row group from which on its first page is looked at; smaller ones fit every worker."""

# Memory for a page, as a multiple of its uncompressed size: the page and its values are in memory together. Measured
# with pyarrow 26 and pages of 480 MiB, 4 rows at a time: 2.01 to 2.15; by snappy or zstd, of which a part of the
# compressed page is left as well, 2.26 to 2.49 (from 2.01 on with the allocator of glibc). Dictionaries with zstd were
# not measured. A worker that embeds a page of 1,023 MiB has 2.06 to 2.16 times that above its own 1,240 to 1,340 MiB.
PLAIN, COMPRESSED = 2.2, 2.5

_HEAD = 32  # bytes that hold the sizes in the header of a page


def estimate_page_memory(fs: AbstractFileSystem, path: str, parquet: pq.ParquetFile) -> int:
    """Return the bytes that reading the row group with the largest pages needs; 0 if none has large columns.

    Only the first page of each column counts. The writers that make large pages make them about equally large.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The file's path on it.
    parquet : pyarrow.parquet.ParquetFile
        The file, opened.
    """
    metadata = parquet.metadata
    if all(metadata.row_group(k).total_byte_size < LARGE for k in range(metadata.num_row_groups)):
        return 0
    try:
        groups = read_footer(fs, path, parquet)
    except DamagedFooter:  # reading it finds what is wrong
        return 0
    return max((sum(_estimate(fs, path, column) for column in group) for group in groups), default=0)


def _estimate(fs: AbstractFileSystem, path: str, column: ColumnChunk) -> int:
    if column.uncompressed < LARGE:
        return 0
    page = read_page_size(read_bytes(fs, path, column.start, _HEAD))
    if not LARGE <= page <= column.uncompressed:
        return 0
    if column.codec != UNCOMPRESSED:
        return int(COMPRESSED * page)
    return int(PLAIN * page) if page <= (fs.size(path) or 0) else 0  # else it is damaged, which reading it finds


def read_page_size(header: bytes) -> int:
    """Return the uncompressed size that the header of a page states; 0 if it is not a header.

    A header is a Thrift struct in the compact protocol. Its first two fields, of 32 bits, are type and size.

    Parameters
    ----------
    header : bytes
        The first bytes of the page.
    """
    at, value = 0, 0
    for _ in range(2):
        if header[at : at + 1] != b"\x15":  # the next field, of 32 bits
            return 0
        at, value, shift = at + 1, 0, 0
        while True:
            if at >= len(header) or shift > 28:
                return 0
            value |= (header[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if header[at - 1] < 0x80:
                break
    return value >> 1 if value % 2 == 0 else 0  # zigzag: odd numbers are negative
