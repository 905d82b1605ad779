"""The one module that opens the files of a run to read them, each against its seal: its size and its checksum.

A reader gets a `Seal`, and nothing of the file is believed before its bytes are those that were sealed. The few files
that have no seal by nature are named by `Unsealed`, with the reason. JSON files carry their own checksum, see
`checked_json`. A local file is mapped, and its checksum is the first use of its pages, so no page is read twice.
"""

from __future__ import annotations

import io
import mmap
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tokenize import TokenError
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fairdedup.errors import UserError
from fairdedup.storage.object_stores import RemotePath
from fairdedup.storage.plain_files import open_plain_file
from fairdedup.storage.remedies import MAKE_AGAIN
from fairdedup.storage.remote_array import RemoteArray
from fairdedup.storage.seals import has_sealed_bytes, has_sealed_size, is_sealed, sealed_size
from fairdedup.storage.store_errors import explain_errors

AHEAD = 1 << 27  # bytes that all arrays of a task in a store may read ahead together
WHOLE = 1 << 28  # bytes of an array in a store up to which it is loaded at once, so that it is read only once
_VERIFIED_MOST = 1 << 16
_PREFIX = 10  # bytes of an .npy file before its header; the last two are the header's length
BAD_BYTES = (  # what numpy and pyarrow raise for them; numpy reads a header as Python's own literals
    *(OSError, ValueError, TypeError, KeyError, OverflowError, EOFError, pa.ArrowException),
    *(SyntaxError, TokenError, RecursionError, MemoryError),
)

_VERIFIED: OrderedDict[tuple[str, str], tuple[int, ...]] = OrderedDict()  # local files that this process has verified
Parsed = TypeVar("Parsed")


class DamagedFileError(UserError):
    """A file of a run is missing, or its bytes are not those that were sealed; the message names the repair."""


@dataclass(frozen=True)
class Seal:
    """A file of a run, and what its bytes must be.

    Attributes
    ----------
    path : Path
    expected : str or None
        Seal that a manifest, a record or a mark has for it; None where they have none, which counts as damage.
    remedy : str
        What repairs the file, for the message.
    """

    path: Path
    expected: str | None
    remedy: str

    def error(self) -> DamagedFileError:
        """Return the error of a file that is missing or damaged."""
        return DamagedFileError(f"{self.path} is missing or damaged: {self.remedy}")

    def holds(self) -> bool:
        """Return whether the file exists and has the bytes that were sealed."""
        return self.expected is not None and is_sealed(self.path, self.expected)

    def verify(self) -> None:
        """Raise `DamagedFileError` unless the file has the bytes that were sealed."""
        if not self.holds():
            raise self.error()


@dataclass(frozen=True)
class Unsealed:
    """A file that is read without a seal.

    Attributes
    ----------
    path : Path
    reason : str
        Why none is needed, such as that this command has just written the file.
    remedy : str
        What repairs the file, for the message.
    """

    path: Path
    reason: str
    remedy: str = MAKE_AGAIN

    def error(self) -> DamagedFileError:
        """Return the error of a file that is missing or cannot be read."""
        return DamagedFileError(f"{self.path} is missing or damaged: {self.remedy}")


Source = Seal | Unsealed


def open_array(source: Source, upto: int | None = None, share: int = 1) -> Any:
    """Map an .npy file into memory, read-only; one in an object store is loaded, or read by rows if it is large.

    Parameters
    ----------
    source : Seal or Unsealed
    upto : int, optional
        Row up to which an unsealed array is read in order; then slices in a store are read ahead.
    share : int
        Number of arrays that are read in order at the same time and share the memory for reading ahead.

    Raises
    ------
    DamagedFileError
        If the file is missing or damaged.
    """
    path = source.path
    if not isinstance(path, RemotePath):
        return _parse(source, _as_array, _map(source))
    if isinstance(source, Seal):
        if _is_small(source):
            return _parse(source, _as_array, _fetch(source))
        source.verify()  # too large for memory, so its rows are read a second time
    return RemoteArray(path, AHEAD // max(1, share) if upto is not None else 0, upto)


def load_array(source: Source) -> Any:
    """Return an .npy file as an array in memory, read-only; raises as `open_array`."""
    return _parse(source, _as_array, _fetch(source))


def load_table(source: Source, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a Parquet file, or columns of it; raises as `open_array`."""
    if isinstance(source, Unsealed) and isinstance(source.path, RemotePath) and columns is not None:
        with explain_errors(source.path, "read"), source.path.open("rb") as file:  # only the ranges of these columns
            return _read_columns(file, columns)
    return _parse(source, _read_columns, pa.BufferReader(_whole(source)), columns)


def _read_columns(file: Any, columns: Sequence[str] | None) -> pa.Table:
    """Return columns of a Parquet file, in the order that is given."""
    if columns is None:
        return pq.ParquetFile(file, pre_buffer=True).read()
    return pq.ParquetFile(file, pre_buffer=True).read(list(columns)).select(list(columns))


def load_rows(source: Source, columns: Sequence[str], start: int, stop: int) -> pa.Table:
    """Return columns of some rows of a Parquet file; only their row groups are decoded. It raises as `open_array`.

    Parameters
    ----------
    source : Seal or Unsealed
    columns : sequence of str
    start, stop : int
        Rows from `start` to before `stop`.
    """
    data = _whole(source)
    return _parse(source, _read_row_groups, data, list(columns), start, stop)


def _read_row_groups(data: Any, columns: list[str], start: int, stop: int) -> pa.Table:
    file, first = pq.ParquetFile(pa.BufferReader(data)), 0
    found = [file.schema_arrow.empty_table().select(columns)]
    for number in range(file.num_row_groups):
        count = file.metadata.row_group(number).num_rows
        low, high = max(start - first, 0), min(stop - first, count)
        if low < high:
            found.append(file.read_row_group(number, columns).select(columns).slice(low, high - low))
        first += count
    return pa.concat_tables(found)


def read_schema(source: Source) -> pa.Schema:
    """Return the schema of a Parquet file; raises as `open_array`."""
    if isinstance(source, Unsealed) and isinstance(source.path, RemotePath):
        with explain_errors(source.path, "read"), source.path.open("rb") as file:
            return pq.read_schema(file)
    data = _whole(source)
    return _parse(source, lambda: pq.read_schema(pa.BufferReader(data)))


@contextmanager
def open_arrow(source: Source) -> Iterator[pa.Table]:
    """Yield the table of an Arrow file, mapped into memory if it is local; raises as `open_array`."""
    data = _whole(source)
    yield _parse(source, lambda: pa.ipc.open_file(pa.BufferReader(data)).read_all())


def read_small_file(path: Path) -> bytes | None:
    """Return the bytes of a small file whose content proves itself, such as JSON with a checksum; None without it."""
    try:
        if isinstance(path, RemotePath):
            return path.read_bytes()
        with open_plain_file(path) as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _parse(source: Source, function: Callable[..., Parsed], *arguments: Any) -> Parsed:
    """Return what a function makes of the bytes of a file; its errors are those of a damaged file."""
    try:
        return function(*arguments)
    except BAD_BYTES:
        raise source.error() from None


def _as_array(data: Any) -> Any:
    """Return the array that .npy bytes hold, without a copy."""
    view = memoryview(data)
    end = _PREFIX + int.from_bytes(view[_PREFIX - 2 : _PREFIX], "little")
    shape, dtype = _read_header(bytes(view[:end]))
    array = np.ndarray(shape, dtype, buffer=data, offset=end)
    array.flags.writeable = False
    return array


@lru_cache(maxsize=1 << 12)
def _read_header(header: bytes) -> tuple[tuple[int, ...], Any]:
    """Return the shape and dtype that the first bytes of an .npy file state; few of a run's files differ in them."""
    file = io.BytesIO(header)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("another version of the format")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if fortran or dtype.hasobject:
        raise ValueError("not an array of a run")
    return shape, dtype


def _is_small(source: Seal) -> bool:
    size = sealed_size(source.expected or "0")
    return size.isdecimal() and int(size) <= WHOLE


def _whole(source: Source) -> Any:
    """Return the bytes of a file as a buffer: mapped if it is local."""
    return _fetch(source) if isinstance(source.path, RemotePath) else _map(source)


def _fetch(source: Source) -> Any:
    """Return the bytes of a file in memory."""
    try:
        if isinstance(source.path, RemotePath):
            data = source.path.read_bytes()
        else:
            with open_plain_file(source.path) as file:
                data = file.read()
    except (FileNotFoundError, NotADirectoryError):
        raise source.error() from None
    if isinstance(source, Seal) and not has_sealed_bytes(data, source.expected or ""):
        raise source.error()
    return data


def _map(source: Source) -> Any:
    """Map a local file, whose bytes this process verifies once, unless the file changes."""
    try:
        with open_plain_file(source.path) as file:
            state = os.fstat(file.fileno())
            if isinstance(source, Seal) and str(state.st_size) != sealed_size(source.expected or ""):
                raise source.error()
            if not state.st_size:  # which cannot be mapped
                raise source.error()
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except UserError:
        raise
    except (OSError, ValueError):
        raise source.error() from None
    if isinstance(source, Seal):
        known = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        _verify_once(source, data, known)
    return data


def _verify_once(source: Seal, data: Any, known: tuple[int, ...]) -> None:
    key = (str(source.path), source.expected or "")
    if _VERIFIED.get(key) == known:
        return
    if not has_sealed_bytes(data, source.expected or ""):
        raise source.error()
    _VERIFIED[key] = known
    while len(_VERIFIED) > _VERIFIED_MOST:
        _VERIFIED.popitem(last=False)


def expect_sealed_size(source: Seal) -> None:
    """Raise `DamagedFileError` unless a file has the size that was sealed; whoever reads it verifies the bytes."""
    if source.expected is None or not has_sealed_size(source.path, source.expected):
        raise source.error()
