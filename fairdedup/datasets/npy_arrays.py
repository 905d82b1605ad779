"""Reads .npy files on any file system: the header alone, or a range of rows.

It never unpickles: an array of objects is refused by its header, before any data are read.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from fairdedup.datasets.filesystem import open_file
from fairdedup.errors import UserError
from fairdedup.storage.store_errors import is_transport_error


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


def read_shape(fs: AbstractFileSystem, path: str) -> tuple[int, int]:
    """Return (n, d) of an .npy file of embeddings, reading its header only.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The file's path on it.

    Raises
    ------
    UserError
        If the file is not a complete .npy file with a 2-d array of float16, float32 or float64.
    """
    header = read_header(fs, path)
    shape, dtype = header.shape, header.dtype
    if dtype.hasobject:
        raise UserError(f"{path!r} holds Python objects, which would need pickle: save it as a float array")
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise UserError(f"{path!r} holds {dtype}: embeddings are float16, float32 or float64")
    if len(shape) != 2 or shape[1] == 0:
        raise UserError(f"{path!r} has shape {shape}: embeddings are 2-d, (rows, dimensions)")
    return shape[0], shape[1]


def read_header(fs: AbstractFileSystem, path: str) -> Header:
    """Return the header of an .npy file.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The file's path on it.

    Raises
    ------
    UserError
        If the file is not an .npy file, or is shorter than its header says.
    """
    with open_file(fs, path) as file:
        try:
            version = np.lib.format.read_magic(file)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, by_column, dtype = read(file)
        except Exception as error:  # numpy parses the header as a Python literal, which fails in many ways
            if isinstance(error, OSError) or is_transport_error(error):
                raise
            raise UserError(f"{path!r} is not an .npy file: save it with numpy.save") from None
        offset = file.tell()
    wanted, there = offset + dtype.itemsize * int(np.prod(shape, dtype=object)), fs.size(path)
    if not dtype.hasobject and there is not None and there < wanted:
        raise UserError(f"{path!r} is cut off at {there:,} of {wanted:,} bytes: copy or write it again")
    return Header(shape, dtype, offset, bool(by_column))


def load_rows(fs: AbstractFileSystem, path: str, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Return rows of an .npy file. A local file is memory-mapped; of any other only these rows are read.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The file's path on it.
    start, stop : int
        The range of rows; a stop of None means the end of the array.
    """
    if isinstance(fs, LocalFileSystem):
        return np.load(path, mmap_mode="r", allow_pickle=False)[start:stop]
    shape, dtype, offset, by_column = read_header(fs, path)
    with open_file(fs, path) as file:
        if by_column:
            return np.load(file, allow_pickle=False)[start:stop]
        stop = shape[0] if stop is None else stop
        row = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        file.seek(offset + start * row)
        data = file.read((stop - start) * row)
    if len(data) != (stop - start) * row:
        raise UserError(
            f"{path!r} was truncated while it was read: do not change the input during a run, and try again"
        )
    return np.frombuffer(data, dtype).reshape(stop - start, *shape[1:])
