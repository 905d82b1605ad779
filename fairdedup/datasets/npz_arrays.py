"""Reads .npz files on any file system: the headers of the arrays in it, or a range of rows of one array.

Nothing is unpickled, and of a compressed array no more is unpacked than its header says.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from fsspec import AbstractFileSystem

from fairdedup.datasets.filesystem import open_file
from fairdedup.datasets.npy_arrays import Header, parse_header
from fairdedup.errors import UserError
from fairdedup.storage.store_errors import is_transport_error

ENDING = ".npy"
CHUNK = 1 << 22
MOST_ARRAYS = 10_000


@contextmanager
def _open(fs: AbstractFileSystem, path: str) -> Iterator[zipfile.ZipFile]:
    try:
        with open_file(fs, path) as file, zipfile.ZipFile(file) as archive:
            if any(member.header_offset < 0 for member in archive.infolist()):  # bytes are missing at the front
                raise zipfile.BadZipFile
            yield archive
    except Exception as error:  # zipfile and its decompressors raise nearly everything on hostile bytes
        if isinstance(error, UserError | MemoryError) or is_transport_error(error):
            raise
        if isinstance(error, OSError) and error.errno is not None:
            raise
        why = (
            "encrypted" if isinstance(error, RuntimeError) and "password" in str(error) else "damaged, or no .npz file"
        )
        raise UserError(f"{path!r} is {why}: copy it again, or save it with numpy.savez") from None


def read_headers(fs: AbstractFileSystem, path: str) -> dict[str, Header]:
    """Return the header of each array in an .npz file, by the array's name.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The file's path on it.

    Raises
    ------
    UserError
        If the file is not a complete .npz file.
    """
    headers = {}
    with _open(fs, path) as archive:
        members = [member for member in archive.infolist() if member.filename.endswith(ENDING)]
        if len(members) > MOST_ARRAYS:
            raise UserError(f"{path!r} holds over {MOST_ARRAYS:,} arrays: save fewer with numpy.savez")
        for member in members:
            name = member.filename[: -len(ENDING)]
            with archive.open(member) as file:
                header = parse_header(file, f"array {name[:60]!r} of {path!r} is damaged")
            end = header.offset + header.dtype.itemsize * int(np.prod(header.shape, dtype=object))
            if not header.dtype.hasobject and member.file_size != end:
                raise UserError(
                    f"array {name[:60]!r} of {path!r} has {member.file_size:,} of {end:,} bytes: copy or write it again"
                )
            headers[name] = header
    return headers


def load_array_rows(fs: AbstractFileSystem, path: str, name: str, start: int, stop: int) -> np.ndarray:
    """Return rows of an array in an .npz file.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The file's path on it.
    name : str
        The array.
    start, stop : int
        The range of rows.

    Raises
    ------
    UserError
        If the array is damaged.
    """
    with _open(fs, path) as archive, archive.open(name + ENDING) as file:
        fault = f"array {name[:60]!r} of {path!r} is damaged"
        header = parse_header(file, fault)
        row = header.dtype.itemsize * int(np.prod(header.shape[1:], dtype=np.int64))
        if header.by_column:
            start, stop, first, last = 0, header.shape[0], start, stop
        skip, size = start * row, (stop - start) * row
        while skip > 0 and (passed := len(file.read(min(skip, CHUNK)))):
            skip -= passed
        data = bytearray()
        while len(data) < size and (more := file.read(min(size - len(data), CHUNK))):
            data += more
    if len(data) != size:
        raise UserError(f"{fault}: copy or write it again")
    if header.by_column:
        return np.frombuffer(data, header.dtype).reshape(header.shape, order="F")[first:last]
    return np.frombuffer(data, header.dtype).reshape(stop - start, *header.shape[1:])
