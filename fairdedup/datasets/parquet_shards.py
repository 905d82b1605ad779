"""Reads shards of Parquet or Arrow files: rows with image bytes or paths to images, or rows with vectors.

A shard is a file, or consecutive rows of a large one; its rows are streamed, a few at a time.
"""

from __future__ import annotations

import posixpath
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from fairdedup.datasets.columns import Columns
from fairdedup.datasets.dataset import EmbeddingShard, ImageShard, Metadata, Sample
from fairdedup.datasets.filesystem import Unreadable, fingerprint, read_file, resolve_within, to_valid_text
from fairdedup.datasets.findings import Findings
from fairdedup.datasets.images import MAX_IMAGE_BYTES
from fairdedup.datasets.img2dataset import explain_failure
from fairdedup.datasets.rows import to_texts
from fairdedup.datasets.table_files import name_damage, stream_table
from fairdedup.errors import format_count

IMAGES_AT_ONCE = 16
FEW_IMAGES = 4  # at once of a file with large pages, whose images may be large
ROWS_AT_ONCE = 1_000
_ROW = "\0row"


@dataclass(frozen=True)
class ParquetRows:
    """Consecutive rows of one Parquet or Arrow file.

    Attributes
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The file.
    name : str
        The shard's name.
    place : str
        Text before the row's number in ids of rows that have none, such as the file's name.
    start, stop : int
        The range of rows.
    columns : Columns
        The roles of the columns.
    prefix : str
        Prefix of every id.
    offset : int
        What is added to the row's number in ids of rows that have none.
    skip_damaged : bool
        Whether rows that cannot be read are rejected; otherwise they stop the run.
    cut_off : str or None
        Where the file ends too early, if this is its last shard.
    memory : int
        Bytes that reading the file's large pages needs; 0 if it has none.
    first : int
        Position in the shard of the row `start`, in a part of a shard.
    """

    fs: AbstractFileSystem
    path: str
    name: str
    place: str
    start: int
    stop: int
    columns: Columns
    prefix: str = ""
    offset: int = 0
    skip_damaged: bool = False
    cut_off: str | None = None
    memory: int = 0
    first: int = 0

    @property
    def rows(self) -> int:
        """Number of rows, from the footer."""
        return self.stop - self.start

    def fingerprint(self) -> str:
        """Return a short text that changes when the file's name, size or time does."""
        label = f"{self.name} {self.start}:{self.stop} {self.columns.sample}"
        return fingerprint(self.fs, self.path, label=label)

    def _stream(self, size: int, findings: Findings) -> Iterator[tuple[int, pa.RecordBatch | None]]:
        """Yield the rows as `stream_table` does, and note damage."""
        first, damaged = self.start, []
        for count, batch in stream_table(self.fs, self.path, self.start, self.stop, size):
            if batch is None:
                damaged.append(f"{first:,} to {first + count - 1:,}")
                self._note(f"rows {damaged[0]} of {self.start:,} to {self.stop - 1:,} cannot be read", findings)
            yield count, batch
            first += count
        if len(damaged) > 1:
            self._note(f"{len(damaged):,} ranges of rows cannot be read, the first {damaged[0]}", findings)
        if self.cut_off is not None:
            self._note(self.cut_off, findings)

    def _note(self, place: str, findings: Findings) -> None:
        findings.add_damage(self.path, place, skip=self.skip_damaged)

    def _ids(self, first: int, count: int, batch: pa.RecordBatch | None) -> tuple[list[str], list[str | None]]:
        """Return the ids of some rows, and the fault of each row without an id, which is named by its position."""
        places = [f"{self.place}{row + self.offset}" for row in range(first, first + count)]
        if batch is None:
            return places, [name_damage(self.path)] * count
        if self.columns.id is None:
            return places, [None] * count
        given = to_texts(batch.column(self.columns.id))
        missing = f"no id in column {to_valid_text(self.columns.id)!r}"
        ids = [place if not own else self.prefix + own for place, own in zip(places, given, strict=True)]
        return ids, [None if own else missing for own in given]


@dataclass(frozen=True)
class ParquetImageShard(ParquetRows):
    """Rows with an image or a path to an image."""

    def read(self, findings: Findings | None = None, wanted: Container[int] | None = None) -> Iterator[Sample]:
        """Yield every row as a sample; rows that cannot be read yield rejected samples.

        Parameters
        ----------
        findings : Findings or None
            Where to note damage.
        wanted : container of int or None
            Positions in the shard of the rows to yield; None yields all.
        """
        findings = Findings() if findings is None else findings
        first = self.start
        images = FEW_IMAGES if self.memory else IMAGES_AT_ONCE
        size = images if self.columns.role == "bytes" else ROWS_AT_ONCE
        for count, batch in self._stream(size, findings):
            ids, faults = self._ids(first, count, batch)
            captions = self._texts(batch, self.columns.caption)
            paths = self._texts(batch, self.columns.sample if self.columns.role == "paths" else None)
            for k in range(count):
                source = f"{to_valid_text(posixpath.basename(self.path))}[{first + k}]"
                position = self.first + first + k - self.start
                if wanted is not None and position not in wanted:
                    continue
                if batch is None or faults[k] is not None:
                    yield Sample(position, ids[k], None, source=source, error=faults[k])
                    continue
                metadata = {to_valid_text(new): batch.column(name)[k] for name, new in self.columns.metadata}
                image, error = self._image(batch, k, paths[k] if paths else None, metadata)
                caption = captions[k] if captions else None
                caption = caption.strip() or None if caption else None
                yield Sample(position, ids[k], image, caption, metadata, source, error)
            first += count

    @property
    def is_seekable(self) -> bool:
        """Whether a part of the rows can be read at little more than its own cost.

        Rows are read from the start of their row group, which is cheap on a local disk unless its pages are large.
        """
        return isinstance(self.fs, LocalFileSystem) and not self.memory

    def select(self, start: int, stop: int) -> ParquetImageShard:
        """Return the shard with the rows at positions from start to stop only; they keep their positions."""
        return replace(self, start=self.start + start, stop=self.start + stop, first=start)

    def _texts(self, batch: pa.RecordBatch | None, column: str | None) -> list[str | None] | None:
        return None if batch is None or column is None else to_texts(batch.column(column))

    def _image(
        self, batch: pa.RecordBatch, k: int, path: str | None, metadata: Metadata
    ) -> tuple[bytes | None, str | None]:
        """Return the bytes of the image of a row, or why there are none."""
        value = batch.column(self.columns.sample)[k]
        if isinstance(value, pa.ExtensionScalar):
            value = value.value
        if isinstance(value, pa.StructScalar):
            kind, inner = value.type, value if value.is_valid else None
            value = inner["bytes"] if inner is not None else pa.scalar(None, pa.binary())
            if kind.get_field_index("path") >= 0 and inner is not None:
                path = inner["path"].as_py()
                name = "image_file" if "image_file" not in metadata else "input_image_file"
                metadata.setdefault(name, pa.scalar(path, pa.string()))
        if self.columns.role == "bytes" and value.is_valid:
            data = value.value if isinstance(value, pa.DictionaryScalar) else value
            if data.as_buffer().size > MAX_IMAGE_BYTES:
                return None, f"image larger than {MAX_IMAGE_BYTES >> 20} MiB"
            return bytes(data.as_py()), None
        if path:
            try:
                return read_file(
                    self.fs, resolve_within(self.fs, posixpath.dirname(self.path), path), MAX_IMAGE_BYTES
                ), None
            except Unreadable as fault:
                return None, str(fault)
        failure = explain_failure(metadata.get("status"), metadata.get("error_message"))
        return None, failure or f"nothing in column {to_valid_text(self.columns.sample)!r}"


class _Content(NamedTuple):
    vectors: np.ndarray
    metadata: pa.Table
    faults: dict[int, str]
    findings: Findings


@dataclass(frozen=True)
class ParquetEmbeddingShard(ParquetRows):
    """Rows with vectors.

    Attributes
    ----------
    width : int
        Number of values d that each vector must have.
    """

    width: int = 0

    def vectors(self) -> np.ndarray:
        """Return the (n, d) vectors; a row without a vector of d values is NaN."""
        return self._content.vectors

    def metadata(self) -> pa.Table:
        """Return n rows: ``id``, ``caption`` where there is one, then every other column."""
        return self._content.metadata

    def faults(self) -> dict[int, str]:
        """Return, by position, why rows cannot be used, if their vectors (all NaN) do not show the reason."""
        return self._content.faults

    def findings(self) -> Findings:
        """Return the damage that reading the rows has found."""
        return self._content.findings

    @cached_property
    def _content(self) -> _Content:
        vectors, tables = [], []
        ids: list[str] = []
        faults: dict[int, str] = {}
        findings = Findings()
        first = self.start
        for count, batch in self._stream(ROWS_AT_ONCE, findings):
            own, missing = self._ids(first, count, batch)
            block, wrong = _vectors(batch, self.columns.sample, self.width, count)
            for k, why in enumerate(missing):
                if why is not None or k in wrong:
                    block[k] = np.nan
                    faults[first - self.start + k] = why or wrong[k]
            vectors.append(block)
            ids += own
            tables.append(self._metadata(batch, count))
            first += count
        table = pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({_ROW: pa.nulls(0)})
        table = table.drop_columns([_ROW])
        matrix = np.concatenate(vectors) if vectors else np.zeros((0, self.width), np.float32)
        return _Content(matrix, table.add_column(0, "id", pa.array(ids, pa.string())), faults, findings)

    def _metadata(self, batch: pa.RecordBatch | None, count: int) -> pa.Table:
        columns: dict[str, Any] = {_ROW: pa.nulls(count)}  # a table without columns has no number of rows
        if batch is None:
            return pa.table(columns)
        if self.columns.caption is not None:
            columns["caption"] = pa.array(to_texts(batch.column(self.columns.caption)), pa.string())
        columns |= {to_valid_text(new): batch.column(name) for name, new in self.columns.metadata}
        return pa.table(columns)


def _vectors(batch: pa.RecordBatch | None, column: str, width: int, count: int) -> tuple[np.ndarray, dict[int, str]]:
    """Return the vectors of some rows, and for each row without one the reason."""
    if batch is None:
        return np.full((count, width), np.nan, np.float32), {}
    lists = plain_lists(batch.column(column))
    lengths = pc.list_value_length(lists)
    right = pc.fill_null(pc.equal(lengths, width), False)
    flat = pc.list_flatten(lists.filter(right)).to_numpy(zero_copy_only=False)  # a missing number is NaN
    block = np.full((count, width), np.nan, flat.dtype if flat.dtype.kind == "f" else np.float64)
    block[right.to_numpy(zero_copy_only=False)] = flat.reshape(-1, width)
    wrong = {
        k: "no vector" if length is None else f"vector of {format_count(length, 'value')}, not {width:,}"
        for k, length in enumerate(lengths.to_pylist())
        if length != width
    }
    return block, wrong


def plain_lists(column: pa.Array) -> pa.Array:
    """Return a column of vectors as lists of fixed size or large lists, whatever its type."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    value = column.type.value_type
    return column if pa.types.is_fixed_size_list(column.type) else column.cast(pa.large_list(value))


def _satisfies_protocols(
    images: ParquetImageShard, vectors: ParquetEmbeddingShard
) -> tuple[ImageShard, EmbeddingShard]:
    """Let mypy check that the shards are what the stages expect."""
    return images, vectors
