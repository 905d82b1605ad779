"""Reads ready embeddings in .npy files, with ids and metadata in files of the same name next to each."""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import numpy as np
import pyarrow as pa
from fsspec import AbstractFileSystem

from fairdedup.datasets.dataset import Dataset
from fairdedup.datasets.file_labels import is_named_itself, label_files
from fairdedup.datasets.filesystem import fingerprint, open_file, to_valid_text
from fairdedup.datasets.findings import Findings
from fairdedup.datasets.input_format import DocumentedInput, InputSource, ReadOptions, ShardFormat
from fairdedup.datasets.metadata import add_id_column, read_rows
from fairdedup.datasets.npy_arrays import DAMAGED_NPY, load_rows, read_shape
from fairdedup.datasets.npy_companions import find_companions, is_companion, write_texts
from fairdedup.errors import UserError, format_count

SHARD_ROWS = 100_000

ShardOfArray = TypeVar("ShardOfArray", bound="NpyShard")


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
    label : str
        The file's name in the input; "" is the name alone.
    place : str
        Text before the row's number in ids of rows that have none.
    whole : int or None
        Number of rows that are in the file, if it is cut off.
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
    label: str = ""
    place: str = ""
    whole: int | None = None

    @property
    def name(self) -> str:
        """Name of the file, and the shard's number in it."""
        return f"{self.label or posixpath.basename(self.path)}-{self.start // SHARD_ROWS:05d}"

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.stop - self.start

    def vectors(self) -> np.ndarray:
        """Return the (n, d) rows."""
        return load_rows(self.fs, self.path, self.start, self.stop, self.whole)

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
            ids = [f"{self.place}{row}" for row in range(self.start, self.stop)]
        return add_id_column(table, ids, self.ids or self.table or self.path, self.prefix)

    def faults(self) -> dict[int, str]:
        """Return, by position, that rows are not in the file because it is cut off."""
        first = self.stop if self.whole is None else max(self.start, self.whole)
        return {row - self.start: DAMAGED_NPY for row in range(first, self.stop)}

    def findings(self) -> Findings:
        """Return whether rows of this shard are missing because the file is cut off."""
        if self.whole is None or self.whole >= self.stop:
            return Findings()
        return Findings(damage=f"it is cut off after {format_count(self.whole, 'row')}")

    def _listed_ids(self, path: str) -> list[str]:
        if path.endswith(".npy"):
            return write_texts(load_rows(self.fs, path, self.start, self.stop))
        with open_file(self.fs, path) as file:
            file.seek(self.ids_offset)
            lines = itertools.islice(file, self.stop - self.start)
            return [line.decode("utf-8-sig", "backslashreplace").strip() for line in lines]

    def fingerprint(self) -> str:
        """Return a short text that changes when a file's name, size or time does."""
        paths = (path for path in (self.path, self.ids, self.table) if path is not None)
        return fingerprint(self.fs, *paths, label=f"{self.name} {self.start}:{self.stop}")


def cut_into_shards(source: InputSource, paths: list[str], options: ReadOptions) -> tuple[NpyShard, ...]:
    """Return shards of 100,000 rows of some .npy files.

    Parameters
    ----------
    source : InputSource
        The input.
    paths : list of str
        Its .npy files.
    options : ReadOptions
        How to read them.
    """
    shards: list[NpyShard] = []
    alone = is_named_itself(source, paths)
    first: tuple[str, int] | None = None
    for path, label in label_files(source, paths).items():
        shape = read_shape(source.fs, path, skip_damaged=options.skip_damaged)
        first = first or (path, shape.width)
        expect_width(path, shape.width, *first)
        base = NpyShard(
            fs=source.fs, path=path, start=0, stop=shape.rows, whole=shape.whole if shape.whole < shape.rows else None
        )
        shards += cut(base, label, options, alone=alone)
    expect_ids_in_all(shards)
    return tuple(shards)


def expect_ids_in_all(shards: Sequence[NpyShard]) -> None:
    """Refuse files of which only some have ids: the rows of the others would be numbered without a word.

    Raises
    ------
    UserError
        Naming a file with ids and one without.
    """
    with_ids = [shard.path for shard in shards if shard.ids is not None or shard.id_column is not None]
    without = [shard.path for shard in shards if shard.ids is None and shard.id_column is None]
    if with_ids and without:
        ids = f"{posixpath.splitext(without[0])[0]}.ids.txt"
        raise UserError(
            f"{with_ids[0]!r} has ids but {without[0]!r} has none: write them to {ids!r}, one a line, or give the "
            "files as separate inputs"
        )


def expect_width(path: str, width: int, first: str, expected: int) -> None:
    """Check that a file's vectors have as many dimensions as those of the first file."""
    if width != expected:
        raise UserError(
            f"{path!r} has {format_count(width, 'dimension')} but {first!r} has {expected:,}: "
            "give them as separate inputs"
        )


def cut(whole: ShardOfArray, label: str, options: ReadOptions, *, alone: bool) -> list[ShardOfArray]:
    """Return shards of 100,000 rows of a file of arrays, with ids and metadata from the files beside it.

    Parameters
    ----------
    whole : NpyShard
        All rows of the file.
    label : str
        Its name in the input.
    options : ReadOptions
        How to read it.
    alone : bool
        Whether the input is this file, so that the number of a row is an id.
    """
    companions = find_companions(whole.fs, whole.path, whole.stop, SHARD_ROWS)
    stem = to_valid_text(posixpath.splitext(label)[0])
    starts = range(0, max(1, whole.stop), SHARD_ROWS)
    return [
        replace(
            whole,
            start=start,
            stop=min(start + SHARD_ROWS, whole.stop),
            prefix=f"{stem}/" if options.id_from == "shard/key" else "",
            ids=companions.ids,
            ids_offset=offset,
            table=companions.table,
            id_column=companions.id_column,
            label=label,
            place="" if alone else f"{stem}-",
        )
        for start, offset in zip(starts, companions.offsets or [0] * len(starts), strict=True)
    ]


class Npy(ShardFormat):
    """Files .npy of ready embeddings, with ids and metadata in files of the same name next to each."""

    name = "npy"
    file_title = "an .npy file of embeddings"
    folder_title = ".npy files"
    extensions = (".npy",)
    in_patterns = True
    documentation: ClassVar[tuple[DocumentedInput, ...]] = (
        DocumentedInput(
            "[arrays](#arrays): one `NAME.npy`",
            "float16, float32 or float64 (n, d); `NAME.ids.npy`, `NAME.ids.txt` (a line a row) and `NAME.parquet` "
            "beside it are read",
            "from those, else the row number",
        ),
        DocumentedInput(
            "several: a folder of them, a brace pattern or a glob", "the same", "the same, else `NAME-row`"
        ),
    )

    def files_in(self, folder: InputSource) -> list[str]:
        """Return the .npy files of a folder, without those that hold the ids of others."""
        return _without_ids([entry.path for entry in folder.with_endings(self.extensions)], folder)

    def without_companions(self, others: list[str], shards: list[str]) -> list[str]:
        """Return the files that hold no ids or metadata of an .npy file."""
        stems = {posixpath.splitext(path)[0] for path in shards}
        return [path for path in others if not is_companion(path, stems)]

    def open_files(self, source: InputSource, paths: list[str], options: ReadOptions) -> Dataset:
        """Return shards of 100,000 rows. Headers are read, and the ids in a text file are counted.

        Raises
        ------
        UserError
            If an array or one of its companion files cannot be used, or if their numbers of rows or dimensions differ.
        """
        shards = cut_into_shards(source, _without_ids(paths, source), options)
        return Dataset(kind="embeddings", format=self.name, source=source.text, shards=shards)


def _without_ids(paths: list[str], source: InputSource) -> list[str]:
    """Return the .npy files that do not hold the ids of another file of arrays."""
    arrays = {posixpath.splitext(path)[0] for path in paths}
    arrays |= {posixpath.splitext(entry.path)[0] for entry in source.with_endings((".npz",))}
    return [path for path in paths if not is_companion(path, arrays)]
