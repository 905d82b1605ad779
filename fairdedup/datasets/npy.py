"""Reads ready embeddings in one .npy file, with ids and metadata in files of the same name beside it.

It never unpickles: an array of objects is refused by its header, before any data are read.
"""

from __future__ import annotations

import itertools
import posixpath
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from fairdedup.datasets.dataset import Dataset
from fairdedup.datasets.filesystem import fingerprint, open_file, to_valid_text
from fairdedup.datasets.input_format import DocumentedInput, InputFormat, InputSource, ReadOptions
from fairdedup.datasets.metadata import add_id_column, describe_table, read_rows
from fairdedup.errors import UserError
from fairdedup.storage.store_errors import is_transport_error

SHARD_ROWS = 100_000


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
        If it is not a complete .npy file with a 2-d array of float16, float32 or float64.
    """
    header = _read_header(fs, path)
    shape, dtype = header.shape, header.dtype
    if dtype.hasobject:
        raise UserError(f"{path!r} holds Python objects, which would need pickle: save it as a float array")
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise UserError(f"{path!r} holds {dtype}: embeddings are float16, float32 or float64")
    if len(shape) != 2 or shape[1] == 0:
        raise UserError(f"{path!r} has shape {shape}: embeddings are 2-d, (rows, dimensions)")
    return shape[0], shape[1]


class _Header(NamedTuple):
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


def _read_header(fs: AbstractFileSystem, path: str) -> _Header:
    """Return the header of an .npy file; a file that is shorter than its header says is refused."""
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
    return _Header(shape, dtype, offset, bool(by_column))


def load_rows(fs: AbstractFileSystem, path: str, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Return rows of an .npy file: memory-mapped if it is local, else only these rows are read.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The file's path on it.
    start, stop : int
        The range of rows; a stop of None is the end of the array.
    """
    if isinstance(fs, LocalFileSystem):
        return np.load(path, mmap_mode="r", allow_pickle=False)[start:stop]
    shape, dtype, offset, by_column = _read_header(fs, path)
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


@dataclass(frozen=True)
class NpyShard:
    """Consecutive rows of one .npy file.

    Attributes
    ----------
    fs : AbstractFileSystem
        The file system of all these files.
    path : str
        The .npy file.
    start, stop : int
        The range of rows.
    prefix : str
        Text before every id.
    ids : str or None
        NAME.ids.npy or NAME.ids.txt.
    ids_offset : int
        The byte of NAME.ids.txt at which the id of row `start` begins.
    table : str or None
        NAME.parquet.
    id_column : str or None
        The column of the table that holds the ids.
    """

    fs: AbstractFileSystem
    path: str
    start: int
    stop: int
    prefix: str = ""
    ids: str | None = None
    ids_offset: int = 0
    table: str | None = None
    id_column: str | None = None

    @property
    def name(self) -> str:
        """Name of the file, and the shard's number in it."""
        return f"{posixpath.basename(self.path)}-{self.start // SHARD_ROWS:05d}"

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.stop - self.start

    def vectors(self) -> np.ndarray:
        """Return the (n, d) rows."""
        return load_rows(self.fs, self.path, self.start, self.stop)

    def metadata(self) -> pa.Table:
        """Return n rows: ``id``, then the columns of NAME.parquet if there is one."""
        count = self.stop - self.start
        if self.table is None:
            table = pa.table({"": pa.nulls(count)}).select([])
        else:
            table = read_rows(self.fs, self.table, self.start, self.stop)
        ids: list[str] | str
        if self.ids is not None:
            ids = self._listed_ids(self.ids)
        elif self.id_column is not None:
            ids = self.id_column
        else:
            ids = [str(row) for row in range(self.start, self.stop)]
        return add_id_column(table, ids, self.ids or self.table or self.path, self.prefix)

    def faults(self) -> dict[int, str]:
        """Return nothing: a vector that cannot be used shows that by its values."""
        return {}

    def _listed_ids(self, path: str) -> list[str]:
        if path.endswith(".npy"):
            return _texts(load_rows(self.fs, path, self.start, self.stop), path)
        with open_file(self.fs, path) as file:
            file.seek(self.ids_offset)
            lines = itertools.islice(file, self.stop - self.start)
            return [line.decode("utf-8-sig", "backslashreplace").strip() for line in lines]

    def fingerprint(self) -> str:
        """Return a short text that changes when a file's name, size or time does."""
        paths = (path for path in (self.path, self.ids, self.table) if path is not None)
        return fingerprint(self.fs, *paths, label=f"{self.name} {self.start}:{self.stop}")


def _texts(values: np.ndarray, path: str) -> list[str]:
    """Return an array of ids as text; DataComp's pairs of u8 become the 32 hex digits of a uid."""
    if values.dtype.kind == "V":
        return [f"{int(high):016x}{int(low):016x}" for high, low in values.tolist()]
    if values.dtype.kind == "S":
        return [value.decode("utf-8", "backslashreplace") for value in values.tolist()]
    return [to_valid_text(str(value)) for value in values.tolist()]


class Npy(InputFormat):
    """One .npy file of ready embeddings, with ids and metadata in files of the same name beside it."""

    name = "npy"
    file_title = "an .npy file of embeddings"
    extensions = (".npy",)
    documentation = (
        DocumentedInput(
            "one `NAME.npy`",
            "float16, float32 or float64 (n, d); `NAME.ids.npy`, `NAME.ids.txt` (a line a row) and `NAME.parquet` "
            "beside it are read",
            "from those, else the row number",
        ),
    )

    def recognises(self, source: InputSource) -> bool:
        """Tell whether the input is one .npy file."""
        return source.kind == "files" and self.has_extension(source.paths[0])

    def open(self, source: InputSource, options: ReadOptions) -> Dataset:
        """Return shards of 100,000 rows; headers are read, and ids in a text file are counted.

        Raises
        ------
        UserError
            If the array or a file beside it cannot be used, or if their lengths differ.
        """
        fs, path = source.fs, source.paths[0]
        count, _ = read_shape(fs, path)
        beside = _look_beside(fs, path, count)
        stem = path[: -len(".npy")]
        prefix = f"{posixpath.basename(stem)}/" if options.id_from == "shard/key" else ""
        starts = range(0, max(1, count), SHARD_ROWS)
        shards = tuple(
            NpyShard(
                fs=fs,
                path=path,
                start=start,
                stop=min(start + SHARD_ROWS, count),
                prefix=prefix,
                ids=beside.ids,
                ids_offset=offset,
                table=beside.table,
                id_column=beside.id_column,
            )
            for start, offset in zip(starts, beside.offsets or [0] * len(starts), strict=True)
        )
        return Dataset(kind="embeddings", format=self.name, source=source.text, shards=shards)


@dataclass(frozen=True)
class _Beside:
    """The files beside an .npy file.

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


def _look_beside(fs: AbstractFileSystem, path: str, count: int) -> _Beside:
    """Return the files beside an .npy file of `count` rows, each of which must be as long."""
    stem = path[: -len(".npy")]
    ids = next((p for p in (f"{stem}.ids.npy", f"{stem}.ids.txt") if fs.isfile(p)), None)
    table = f"{stem}.parquet" if fs.isfile(f"{stem}.parquet") else None
    offsets: list[int] = []
    id_column = None
    if ids is not None and ids.endswith(".npy"):
        _expect_rows(count, path, found=_count_ids(fs, ids), beside=ids)
    elif ids is not None:
        with open_file(fs, ids) as file:
            listed, offsets = _line_starts(file, ids)
        _expect_rows(count, path, found=listed, beside=ids)
    if table is not None:
        rows, id_column = describe_table(fs, table)
        _expect_rows(count, path, found=rows, beside=table)
    return _Beside(ids, offsets, table, id_column)


def _expect_rows(count: int, path: str, *, found: int, beside: str) -> None:
    if found != count:
        raise UserError(
            f"{path!r} has {count:,} rows but {beside!r} has {found:,}: they must be rows of the same samples"
        )


def _count_ids(fs: AbstractFileSystem, path: str) -> int:
    shape, dtype, *_ = _read_header(fs, path)
    pair_of_u8 = [dtype[name].str[1:] for name in dtype.names or ()] == ["u8", "u8"]
    if dtype.hasobject or len(shape) != 1 or not (dtype.kind in "USiu" or pair_of_u8):
        raise UserError(f"{path!r} holds {dtype} of shape {shape}: ids are a 1-d array of text or integers")
    return shape[0]


def _line_starts(file: IO[bytes], path: str) -> tuple[int, list[int]]:
    """Return the number of lines and the byte at which every SHARD_ROWS-th begins."""
    starts, offset, count = [], 0, 0
    for line in file:
        if not line.strip():
            raise UserError(f"line {count + 1} of {path!r} is empty: give every row an id")
        if count % SHARD_ROWS == 0:
            starts.append(offset)
        offset += len(line)
        count += 1
    return count, starts
