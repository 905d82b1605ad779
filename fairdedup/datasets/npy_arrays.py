"""Reads .npy files on any file system: the header alone, or a range of rows, also of a file that is cut off.

It never unpickles: an array of objects is refused by its header, before any data are read.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

import numpy as np
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from fairdedup.datasets.filesystem import open_file
from fairdedup.datasets.findings import Findings
from fairdedup.errors import UserError, format_count
from fairdedup.storage.plain_files import expect_plain_file

MAGIC = b"\x93NUMPY"
MAX_HEADER = 1 << 20
MAX_BITS = 1 << 12  # of a number in a message; Python refuses to write out one of 4,300 digits
MOST_LOST = 20  # times as many rows as are there, in a file that is cut off and read all the same
DAMAGED_NPY = "damaged .npy data"
"""Why rows of a file that is cut off are rejected."""


class Header(NamedTuple):
    """The header of an .npy file.

    Attributes
    ----------
    shape : tuple of int
        The array's shape.
    dtype : numpy.dtype
        The type of its values.
    offset : int
        The byte at which the data begin.
    by_column : bool
        Whether the data are in Fortran order.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    by_column: bool


class Shape(NamedTuple):
    """The shape of an array of embeddings.

    Attributes
    ----------
    rows, width : int
        Its two dimensions.
    whole : int
        Number of rows that are in the file: fewer than `rows` if it is cut off.
    """

    rows: int
    width: int
    whole: int


def read_shape(fs: AbstractFileSystem, path: str, *, skip_damaged: bool = False) -> Shape:
    """Return the shape of an array of embeddings, reading its header only.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The file's path on it.
    skip_damaged : bool
        Whether a file that is cut off is accepted.

    Raises
    ------
    UserError
        If the file is not a complete .npy file with a 2-d array of float16, float32 or float64.
    """
    header = read_header(fs, path, may_be_cut=True)
    rows, width = expect_embeddings(header, repr(path))
    row, total = width * header.dtype.itemsize, fs.size(path)
    if total is None or total >= header.offset + rows * row:
        return Shape(rows, width, rows)
    whole = (total - header.offset) // row if total > header.offset and not header.by_column else 0
    if whole * MOST_LOST < rows:  # else a few bytes may claim any number of rows, and each is rejected by its own
        raise _cut_off(path, header, total)
    place = f"it is cut off at {total:,} of {_end(header):,} bytes, after {whole:,} of {format_count(rows, 'row')}"
    Findings().add_damage(path, place, skip=skip_damaged)
    return Shape(rows, width, whole)


def expect_embeddings(header: Header, what: str) -> tuple[int, int]:
    """Return the shape of an array, after checking that it can hold embeddings.

    Parameters
    ----------
    header : Header
        The array's header.
    what : str
        The file or the array, for messages.

    Raises
    ------
    UserError
        If it is not a 2-d array of float16, float32 or float64.
    """
    shape, dtype = header.shape, header.dtype
    if dtype.hasobject:
        raise UserError(f"{what} holds Python objects, which would need pickle: save it as a float array")
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise UserError(
            f"{what} holds {dtype}: embeddings are float16, float32 or float64, such as array.astype('float32')"
        )
    if len(shape) != 2 or shape[1] == 0:
        raise UserError(f"{what} has shape {shape}: embeddings are 2-d, (rows, dimensions)")
    return shape[0], shape[1]


def read_header(fs: AbstractFileSystem, path: str, *, may_be_cut: bool = False) -> Header:
    """Return the header of an .npy file.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The file's path on it.
    may_be_cut : bool
        Whether the file may be shorter than its header says.

    Raises
    ------
    UserError
        If the file is not an .npy file, or is shorter than its header says.
    """
    with open_file(fs, path) as file:
        header = parse_header(file, f"{path!r} is not an .npy file")
    there = fs.size(path)
    if not may_be_cut and not header.dtype.hasobject and there is not None and there < _end(header):
        raise _cut_off(path, header, there)
    return header


def _end(header: Header) -> int:
    return header.offset + header.dtype.itemsize * int(np.prod(header.shape, dtype=object))


def _cut_off(path: str, header: Header, there: int) -> UserError:
    return UserError(f"{path!r} is cut off at {there:,} of {_end(header):,} bytes: copy or write it again")


def parse_header(file: IO[bytes], fault: str) -> Header:
    """Return the header of an array, from the beginning of its data.

    Parameters
    ----------
    file : binary file
        An .npy file, at its beginning.
    fault : str
        What is wrong if it is none, for the message.

    Raises
    ------
    UserError
        If it is not an .npy file, or its header makes no sense.
    """
    error = UserError(f"{fault}: save it with numpy.save")
    start = file.read(8)
    version = tuple(start[6:8])
    if not start.startswith(MAGIC) or version not in ((1, 0), (2, 0)):
        raise error
    size = file.read(2 if version == (1, 0) else 4)
    length = int.from_bytes(size, "little")
    if length > MAX_HEADER:
        raise error
    content = io.BytesIO(size + file.read(length))
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        with without_warnings():
            shape, by_column, dtype = read(content)
    except Exception:  # numpy parses the header as a Python literal, which fails in many ways
        raise error from None
    if not all(type(extent) is int and 0 <= extent < 1 << 63 for extent in shape):
        shown = f" {str(shape)[:60]}" if all(extent.bit_length() < MAX_BITS for extent in shape) else ""
        raise UserError(f"{fault}, or its shape{shown} makes no sense: save it with numpy.save")
    return Header(shape, dtype, len(start) + len(size) + length, bool(by_column))


@contextmanager
def without_warnings() -> Iterator[None]:
    """Leave out what Python and numpy print about headers: that one is of Python 2, or is no good Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def load_rows(
    fs: AbstractFileSystem, path: str, start: int = 0, stop: int | None = None, whole: int | None = None
) -> np.ndarray:
    """Return rows of an .npy file. A local file is memory-mapped; of any other only these rows are read.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The file's path on it.
    start, stop : int
        The range of rows; a stop of None means the end of the array.
    whole : int or None
        Number of rows that are in the file, if it is cut off; the others are NaN. None means all.
    """
    if whole is None and isinstance(fs, LocalFileSystem):
        expect_plain_file(path)
        with without_warnings():
            return np.load(path, mmap_mode="r", allow_pickle=False)[start:stop]
    shape, dtype, offset, by_column = read_header(fs, path, may_be_cut=whole is not None)
    stop = shape[0] if stop is None else stop
    last = stop if whole is None else max(start, min(stop, whole))
    with open_file(fs, path) as file:
        if by_column:
            with without_warnings():
                return np.load(file, allow_pickle=False)[start:stop]
        row = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        file.seek(offset + start * row)
        data = file.read((last - start) * row)
    if len(data) != (last - start) * row:
        raise UserError(
            f"{path!r} was truncated while it was read: do not change the input during a run, and try again"
        )
    rows = np.frombuffer(data, dtype).reshape(last - start, *shape[1:])
    if last == stop:
        return rows
    return np.concatenate([rows, np.full((stop - last, *shape[1:]), np.nan, dtype)])
