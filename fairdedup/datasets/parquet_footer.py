"""Reads from the footer of a Parquet file what it says of its columns, and never their statistics.

pyarrow decodes the statistics of a column whenever it describes the column, and ends the process where they are
damaged. A footer is a struct of Thrift in the compact protocol, as parquet.thrift of the format defines it; it is
parsed here, and all but a few numbers of each column is skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from fairdedup.storage.plain_files import open_plain_file
from fairdedup.storage.remote_path import read_range

TAIL = 8  # bytes behind the footer: its length, and the magic bytes
UNCOMPRESSED = 0
MOST_BYTES = 1 << 24  # of a footer: half a million columns of row groups, which take 15 seconds
MOST_NESTED = 32  # structs and lists in each other; the format has 7

# Types of values in the compact protocol.
_TRUE, _FALSE, _BYTE, _INT16, _INT32, _INT64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)

# Which fields of a struct are read: int, the `Fields` of a struct, or [those] of a list of it.
Fields = Mapping[int, Any]

_COLUMN: Fields = {4: int, 5: int, 6: int, 9: int, 11: int}
_FOOTER: Fields = {4: [{1: [{3: _COLUMN}]}]}  # row groups, their columns, and what is known of each


class DamagedFooter(ValueError):
    """A footer breaks the protocol, or is too large."""


@dataclass(frozen=True)
class ColumnChunk:
    """What a footer says of a column of a row group.

    Attributes
    ----------
    codec : int
        Number of the compression; 0 is none.
    values : int
        Number of values.
    uncompressed : int
        Bytes of its pages before they are compressed.
    start : int
        Place in the file of its first page, which may hold a dictionary.
    """

    codec: int
    values: int
    uncompressed: int
    start: int


def read_footer(fs: AbstractFileSystem, path: str, parquet: pq.ParquetFile) -> list[list[ColumnChunk]]:
    """Return the columns of each row group of a file.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The file's path on it.
    parquet : pyarrow.parquet.ParquetFile
        The file, opened.

    Raises
    ------
    DamagedFooter
        If its footer breaks the protocol, or is too large.
    """
    length = parquet.metadata.serialized_size
    if length > MOST_BYTES:
        raise DamagedFooter(f"it has {length:,} bytes")
    return parse_footer(read_bytes(fs, path, (fs.size(path) or 0) - TAIL - length, length))


def read_bytes(fs: AbstractFileSystem, path: str, start: int, count: int) -> bytes:
    """Return bytes of a file; fewer where it ends, or where `start` is not in it.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The file's path on it.
    start, count : int
        The range.
    """
    if not 0 <= start < (fs.size(path) or 0):
        return b""
    if not isinstance(fs, LocalFileSystem):
        return read_range(fs, path, start, start + count)
    with open_plain_file(path) as file:
        file.seek(start)
        return file.read(count)


def parse_footer(footer: bytes) -> list[list[ColumnChunk]]:
    """Return the columns of each row group.

    Parameters
    ----------
    footer : bytes
        The footer, without its length and the magic bytes.

    Raises
    ------
    DamagedFooter
        If it breaks the protocol.
    """
    groups = _Reader(footer).read_struct(_FOOTER).get(4, [])
    return [[_make_chunk(column.get(3, {})) for column in group.get(1, [])] for group in groups]


def _make_chunk(known: dict[int, int]) -> ColumnChunk:
    dictionary, data = known.get(11, 0), known.get(9, 0)
    return ColumnChunk(known.get(4, UNCOMPRESSED), known.get(5, 0), known.get(6, 0), dictionary or data)


class _Reader:
    """Reads values of the compact protocol, one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.depth = data, 0, 0

    def read_struct(self, fields: Fields) -> dict[int, Any]:
        """Return some fields of a struct by their numbers; those that have another type than expected are left out."""
        self._enter()
        found: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._number()
            kind, wanted = head & 15, fields.get(number)
            if wanted is int and kind in (_INT16, _INT32, _INT64):
                found[number] = self._number()
            elif isinstance(wanted, Mapping) and kind == _STRUCT:
                found[number] = self.read_struct(wanted)
            elif isinstance(wanted, list) and kind == _LIST:
                found[number] = self._read_list(*wanted)
            else:
                self._skip(kind)
        self.depth -= 1
        return found

    def _read_list(self, fields: Fields) -> list[dict[int, Any]]:
        size, kind = self._list_head()
        if kind == _STRUCT:
            return [self.read_struct(fields) for _ in range(size)]
        self._skip_all(size, kind)
        return []

    def _skip(self, kind: int) -> None:
        if kind in (_INT16, _INT32, _INT64):
            self._varint()
        elif kind == _BINARY:
            self._move(self._varint())
        elif kind in (_BYTE, _DOUBLE):
            self._move(1 if kind == _BYTE else 8)
        elif kind == _STRUCT:
            self.read_struct({})
        elif kind in (_LIST, _SET):
            self._skip_all(*self._list_head())
        elif kind == _MAP:
            size = self._varint()
            kinds = self._byte() if size else 0
            for _ in range(self._expect_size(size)):
                self._skip_all(1, kinds >> 4)
                self._skip_all(1, kinds & 15)
        elif kind not in (_TRUE, _FALSE):  # a truth value of a struct is its type
            raise DamagedFooter(f"there is no type {kind}")

    def _skip_all(self, size: int, kind: int) -> None:
        self._enter()
        for _ in range(size):
            self._skip(_BYTE if kind in (_TRUE, _FALSE) else kind)
        self.depth -= 1

    def _list_head(self) -> tuple[int, int]:
        head = self._byte()
        size = head >> 4
        return self._expect_size(self._varint() if size == 15 else size), head & 15

    def _expect_size(self, size: int) -> int:
        if size > len(self.data) - self.at:  # each element has at least a byte
            raise DamagedFooter("a list is longer than the footer")
        return size

    def _enter(self) -> None:
        self.depth += 1
        if self.depth > MOST_NESTED:
            raise DamagedFooter("it is nested too deeply")

    def _move(self, count: int) -> None:
        self.at += count
        if self.at > len(self.data):
            raise DamagedFooter("it ends too early")

    def _byte(self) -> int:
        self._move(1)
        return self.data[self.at - 1]

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise DamagedFooter("a number has more than 64 bits")

    def _number(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)  # zigzag: odd numbers are negative
