"""Reads ready embeddings in one .npy file, with ids and metadata in files of the same name next to it."""

from __future__ import annotations

import itertools
import posixpath
from dataclasses import dataclass
from typing import IO

import numpy as np
import pyarrow as pa
from fsspec import AbstractFileSystem

from fairdedup.datasets.dataset import Dataset
from fairdedup.datasets.filesystem import fingerprint, open_file, to_valid_text
from fairdedup.datasets.findings import Findings
from fairdedup.datasets.input_format import DocumentedInput, InputFormat, InputSource, ReadOptions
from fairdedup.datasets.metadata import add_id_column, describe_table, read_rows
from fairdedup.datasets.npy_arrays import load_rows, read_header, read_shape
from fairdedup.errors import UserError

SHARD_ROWS = 100_000


@dataclass(frozen=True)
class NpyShard:
    """Consecutive rows of one .npy file.

    Attributes
    ----------
    fs : AbstractFileSystem
        The file system of all files of the shard.
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
        """Return an empty dict: a vector that cannot be used is recognised by its values."""
        return {}

    def findings(self) -> Findings:
        """Return no damage: a file that is cut off is refused before it is read."""
        return Findings()

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
    """One .npy file of ready embeddings, with ids and metadata in files of the same name next to it."""

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
        """Return shards of 100,000 rows. Headers are read, and the ids in a text file are counted.

        Raises
        ------
        UserError
            If the array or one of its companion files cannot be used, or if their numbers of rows differ.
        """
        fs, path = source.fs, source.paths[0]
        count, _ = read_shape(fs, path)
        companions = _find_companions(fs, path, count)
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
                ids=companions.ids,
                ids_offset=offset,
                table=companions.table,
                id_column=companions.id_column,
            )
            for start, offset in zip(starts, companions.offsets or [0] * len(starts), strict=True)
        )
        return Dataset(kind="embeddings", format=self.name, source=source.text, shards=shards)


@dataclass(frozen=True)
class _Companions:
    """The companion files of an .npy file.

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


def _find_companions(fs: AbstractFileSystem, path: str, count: int) -> _Companions:
    """Return the companion files of an .npy file; each must have its number of rows, `count`."""
    stem = path[: -len(".npy")]
    ids = next((p for p in (f"{stem}.ids.npy", f"{stem}.ids.txt") if fs.isfile(p)), None)
    table = f"{stem}.parquet" if fs.isfile(f"{stem}.parquet") else None
    offsets: list[int] = []
    id_column = None
    if ids is not None and ids.endswith(".npy"):
        _expect_rows(count, path, found=_count_ids(fs, ids), companion=ids)
    elif ids is not None:
        with open_file(fs, ids) as file:
            listed, offsets = _line_starts(file, ids)
        _expect_rows(count, path, found=listed, companion=ids)
    if table is not None:
        rows, id_column = describe_table(fs, table)
        _expect_rows(count, path, found=rows, companion=table)
    return _Companions(ids, offsets, table, id_column)


def _expect_rows(count: int, path: str, *, found: int, companion: str) -> None:
    if found != count:
        raise UserError(
            f"{path!r} has {count:,} rows but {companion!r} has {found:,}: they must be rows of the same samples"
        )


def _count_ids(fs: AbstractFileSystem, path: str) -> int:
    shape, dtype, *_ = read_header(fs, path)
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
