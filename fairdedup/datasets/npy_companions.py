"""Finds what accompanies a file of arrays: NAME.ids.npy, NAME.ids.txt and NAME.parquet, with ids and metadata."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import IO

import numpy as np
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from fairdedup.datasets.filesystem import open_file, to_valid_text
from fairdedup.datasets.metadata import describe_table
from fairdedup.datasets.npy_arrays import Header, read_header
from fairdedup.errors import UserError, format_count
from fairdedup.storage.plain_files import expect_plain_file

ARRAY_EXTENSIONS = (".npy", ".npz")
COMPANIONS = (".ids.npy", ".ids.txt", ".parquet")


@dataclass(frozen=True)
class Companions:
    """The companion files of a file of arrays.

    Attributes
    ----------
    ids : str or None
        NAME.ids.npy or NAME.ids.txt.
    offsets : list of int
        Byte of NAME.ids.txt at which each shard's ids begin; empty where the ids are elsewhere.
    table : str or None
        NAME.parquet.
    id_column : str or None
        The column of the table that holds ids.
    """

    ids: str | None
    offsets: list[int]
    table: str | None
    id_column: str | None


def find_companions(fs: AbstractFileSystem, path: str, count: int, shard_rows: int) -> Companions:
    """Return the companion files of a file of arrays, after comparing their numbers of rows with its own.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The .npy or .npz file.
    count : int
        Its number of rows.
    shard_rows : int
        Number of rows in a shard.

    Raises
    ------
    UserError
        If a companion cannot be read, or has another number of rows.
    """
    stem = posixpath.splitext(path)[0]
    ids = next((p for p in (f"{stem}.ids.npy", f"{stem}.ids.txt") if _is_there(fs, p)), None)
    table = f"{stem}.parquet" if _is_there(fs, f"{stem}.parquet") else None
    offsets: list[int] = []
    id_column = None
    if ids is not None and ids.endswith(".npy"):
        _expect_rows(count, path, found=_count_ids(fs, ids), companion=ids)
    elif ids is not None:
        with open_file(fs, ids) as file:
            listed, offsets = _line_starts(file, ids, shard_rows)
        _expect_rows(count, path, found=listed, companion=ids)
    if table is not None:
        rows, id_column = describe_table(fs, table)
        _expect_rows(count, path, found=rows, companion=table)
    return Companions(ids, offsets, table, id_column)


def _is_there(fs: AbstractFileSystem, path: str) -> bool:
    """Tell whether a companion exists. A pipe in its place is refused, since it would be left out without a word."""
    if isinstance(fs, LocalFileSystem):
        expect_plain_file(path)
    return bool(fs.isfile(path))


def _expect_rows(count: int, path: str, *, found: int, companion: str) -> None:
    if found != count:
        raise UserError(
            f"{path!r} has {format_count(count, 'row')} but {companion!r} has {found:,}: "
            "they must be rows of the same samples"
        )


def _count_ids(fs: AbstractFileSystem, path: str) -> int:
    header = read_header(fs, path)
    if not holds_ids(header):
        example = "ids.astype('int64')" if header.dtype.kind == "f" else "numpy.array(ids, dtype=str)"
        raise UserError(
            f"{path!r} holds {header.dtype} of shape {header.shape}: ids are a 1-d array of text or integers, such as "
            f"{example}"
        )
    return header.shape[0]


def holds_ids(header: Header) -> bool:
    """Tell whether an array can hold ids: text, integers, or DataComp's pairs of 64-bit numbers, in one dimension."""
    dtype = header.dtype
    pair_of_u8 = [dtype[name].str[1:] for name in dtype.names or ()] == ["u8", "u8"]
    return len(header.shape) == 1 and not dtype.hasobject and (dtype.kind in "USiu" or pair_of_u8)


def write_texts(values: np.ndarray) -> list[str]:
    """Return an array of ids as text; DataComp's pairs of u8 become the 32 hex digits of a uid."""
    if values.dtype.kind == "V":
        return [f"{int(high):016x}{int(low):016x}" for high, low in values.tolist()]
    if values.dtype.kind == "S":
        return [value.decode("utf-8", "backslashreplace") for value in values.tolist()]
    return [to_valid_text(str(value)) for value in values.tolist()]


def is_companion(path: str, arrays: set[str]) -> bool:
    """Tell whether a file is read with one of some files of arrays, given by their paths without extension."""
    stem = next((path[: -len(ending)] for ending in COMPANIONS if path.endswith(ending)), None)
    return stem in arrays


def _line_starts(file: IO[bytes], path: str, shard_rows: int) -> tuple[int, list[int]]:
    """Return the number of lines and the byte at which every `shard_rows`-th begins."""
    starts, offset, count = [], 0, 0
    for line in file:
        if not line.strip():
            raise UserError(f"line {count + 1} of {path!r} is empty: give every row an id")
        if count % shard_rows == 0:
            starts.append(offset)
        offset += len(line)
        count += 1
    return count, starts
