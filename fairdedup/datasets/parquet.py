"""Parquet files as input: a column of image bytes, of paths to images, or of ready embeddings.

A shard is a file, or a run of whole row groups of a large one; its rows are streamed, a few at a time.
"""

from __future__ import annotations

import posixpath
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem

from fairdedup.datasets.columns import Columns, recognise
from fairdedup.datasets.dataset import Dataset, EmbeddingShard, ImageShard, Sample
from fairdedup.datasets.filesystem import Unreadable, fingerprint, natural_key, plain_text, read_file, within
from fairdedup.datasets.images import MAX_IMAGE_BYTES
from fairdedup.datasets.img2dataset import failure
from fairdedup.datasets.rows import DAMAGED, group_sizes, opened, stream, text_column
from fairdedup.errors import UserError

SHARD_IMAGES = 10_000
SHARD_VECTORS = 100_000
SHARD_VALUES = 1 << 27  # numbers in one shard of vectors: 1 GiB as float64
MAX_WIDTH = 1 << 16
IMAGES_AT_ONCE = 16
ROWS_AT_ONCE = 1_000
_ROW = "\0row"


@dataclass(frozen=True)
class _Rows:
    """Rows start to stop of one Parquet file."""

    fs: AbstractFileSystem
    path: str
    name: str
    stem: str
    start: int
    stop: int
    columns: Columns
    prefix: str = ""

    @property
    def rows(self) -> int:
        """Number of rows, as the footer says."""
        return self.stop - self.start

    def fingerprint(self) -> str:
        """Return a short text that changes when the file's name, size or time does."""
        label = f"{self.name} {self.start}:{self.stop} {self.columns.sample}"
        return fingerprint(self.fs, self.path, label=label)

    def _ids(self, first: int, count: int, batch: pa.RecordBatch | None) -> tuple[list[str], list[str | None]]:
        """Return the ids of some rows, and for each row why it has none; the place stands in for it then."""
        places = [f"{self.stem}-{row}" for row in range(first, first + count)]
        if batch is None:
            return places, [DAMAGED] * count
        if self.columns.id is None:
            return places, [None] * count
        given = text_column(batch.column(self.columns.id))
        missing = f"no id in column {plain_text(self.columns.id)!r}"
        ids = [place if not own else self.prefix + own for place, own in zip(places, given, strict=True)]
        return ids, [None if own else missing for own in given]


@dataclass(frozen=True)
class ParquetImageShard(_Rows):
    """Rows with an image, or with the path of one."""

    def read(self, wanted: Container[int] | None = None) -> Iterator[Sample]:
        """Yield every row as a sample, or those at wanted positions; rows that cannot be read are rejected ones."""
        first = self.start
        size = IMAGES_AT_ONCE if self.columns.role == "bytes" else ROWS_AT_ONCE
        for count, batch in stream(self.fs, self.path, self.start, self.stop, size):
            ids, faults = self._ids(first, count, batch)
            captions = self._texts(batch, self.columns.caption)
            paths = self._texts(batch, self.columns.sample if self.columns.role == "paths" else None)
            for k in range(count):
                source = f"{plain_text(posixpath.basename(self.path))}[{first + k}]"
                position = first + k - self.start
                if wanted is not None and position not in wanted:
                    continue
                if batch is None or faults[k] is not None:
                    yield Sample(position, ids[k], None, source=source, error=faults[k])
                    continue
                metadata = {plain_text(new): batch.column(name)[k] for name, new in self.columns.metadata}
                image, error = self._image(batch, k, paths[k] if paths else None, metadata)
                caption = captions[k] if captions else None
                caption = caption.strip() or None if caption else None
                yield Sample(position, ids[k], image, caption, metadata, source, error)
            first += count

    def _texts(self, batch: pa.RecordBatch | None, column: str | None) -> list[str | None] | None:
        return None if batch is None or column is None else text_column(batch.column(column))

    def _image(
        self, batch: pa.RecordBatch, k: int, path: str | None, metadata: dict[str, Any]
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
                metadata.setdefault("image_file", pa.scalar(path, pa.string()))
        if self.columns.role == "bytes" and value.is_valid:
            data = value.value if isinstance(value, pa.DictionaryScalar) else value
            if data.as_buffer().size > MAX_IMAGE_BYTES:
                return None, f"image larger than {MAX_IMAGE_BYTES >> 20} MiB"
            return bytes(data.as_py()), None
        if path:
            try:
                return read_file(self.fs, within(self.fs, posixpath.dirname(self.path), path), MAX_IMAGE_BYTES), None
            except Unreadable as fault:
                return None, str(fault)
        told = failure(metadata.get("status"), metadata.get("error_message"))
        return None, told or f"nothing in column {plain_text(self.columns.sample)!r}"


@dataclass(frozen=True)
class ParquetEmbeddingShard(_Rows):
    """Rows with a vector."""

    width: int = 0

    def vectors(self) -> np.ndarray:
        """Return the (n, d) vectors; a row that has none of d values is NaN."""
        return self._read[0]

    def metadata(self) -> pa.Table:
        """Return n rows: ``id``, ``caption`` where there is one, then every other column."""
        return self._read[1]

    def faults(self) -> dict[int, str]:
        """Return why rows cannot be used whose vectors do not tell."""
        return self._read[2]

    @cached_property
    def _read(self) -> tuple[np.ndarray, pa.Table, dict[int, str]]:
        vectors, tables = [], []
        ids: list[str] = []
        faults: dict[int, str] = {}
        first = self.start
        for count, batch in stream(self.fs, self.path, self.start, self.stop, ROWS_AT_ONCE):
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
        return matrix, table.add_column(0, "id", pa.array(ids, pa.string())), faults

    def _metadata(self, batch: pa.RecordBatch | None, count: int) -> pa.Table:
        columns: dict[str, Any] = {_ROW: pa.nulls(count)}  # a table without columns forgets how long it is
        if batch is None:
            return pa.table(columns)
        if self.columns.caption is not None:
            columns["caption"] = pa.array(text_column(batch.column(self.columns.caption)), pa.string())
        columns |= {plain_text(new): batch.column(name) for name, new in self.columns.metadata}
        return pa.table(columns)


def _vectors(batch: pa.RecordBatch | None, column: str, width: int, count: int) -> tuple[np.ndarray, dict[int, str]]:
    """Return the vectors of some rows, and why some are none."""
    if batch is None:
        return np.full((count, width), np.nan, np.float32), {}
    lists = _lists(batch.column(column))
    lengths = pc.list_value_length(lists)
    right = pc.fill_null(pc.equal(lengths, width), False)
    flat = pc.list_flatten(lists.filter(right)).to_numpy(zero_copy_only=False)  # a missing number is NaN
    block = np.full((count, width), np.nan, flat.dtype if flat.dtype.kind == "f" else np.float64)
    block[right.to_numpy(zero_copy_only=False)] = flat.reshape(-1, width)
    wrong = {
        k: "no vector" if length is None else f"vector of {length:,} values, not {width:,}"
        for k, length in enumerate(lengths.to_pylist())
        if length != width
    }
    return block, wrong


def _lists(column: pa.Array) -> pa.Array:
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    value = column.type.value_type
    return column if pa.types.is_fixed_size_list(column.type) else column.cast(pa.large_list(value))


def open_parquet(
    fs: AbstractFileSystem, paths: list[str], source: str, id_from: str, column: str | None = None
) -> Dataset:
    """Make a data set of Parquet files; footers are read, and of embeddings the first rows for their length.

    Raises
    ------
    UserError
        If a file is damaged, has no column of images, paths or vectors, or not the same as the first, or if it is
        not clear which column is meant.
    """
    common = posixpath.commonpath([posixpath.dirname(path) for path in paths])
    labels = {path: posixpath.relpath(path, common) if common else path for path in paths}
    shards: list[Any] = []
    first: tuple[str, Columns] | None = None
    width = rows = 0
    for path in sorted(labels, key=lambda path: natural_key(labels[path])):
        with opened(fs, path) as parquet:
            columns = recognise(parquet.schema_arrow, column or (first[1].sample if first else None), path)
            first = first or (path, columns)
            _expect_alike(path, columns, *first)
            if columns.role == "vectors":
                width = _width(fs, parquet, columns.sample, path, width, first[0])
            sizes = group_sizes(parquet)
        rows += sum(sizes)
        stem = labels[path][: -len(posixpath.splitext(path)[1])]
        kind: type[_Rows] = ParquetImageShard
        most = SHARD_IMAGES
        extra: dict[str, Any] = {}
        if columns.role == "vectors":
            kind, most, extra = ParquetEmbeddingShard, _most_vectors(width), {"width": width}
        ranges = list(_ranges(sizes, most, cut=columns.role != "bytes"))
        for number, (start, stop) in enumerate(ranges):
            name = labels[path] + (f"-{number:05d}" if len(ranges) > 1 else "")
            prefix = f"{plain_text(stem)}/" if id_from == "shard/key" else ""
            shards.append(kind(fs, path, name, plain_text(stem), start, stop, columns, prefix, **extra))
    assert first is not None
    if first[1].role == "vectors":
        if not width and rows:
            raise UserError(f"column {first[1].sample!r} of {source!r} holds no vectors: name another with --column")
        known = [_with_width(shard, width) for shard in shards]  # the first files may have had none to tell it by
        return Dataset("embeddings", "parquet", source, tuple(known))
    return Dataset("images", "parquet", source, tuple(shards))


def _with_width(shard: ParquetEmbeddingShard, width: int) -> ParquetEmbeddingShard:
    return shard if shard.width == width else replace(shard, width=width)


def _expect_alike(path: str, columns: Columns, first: str, expected: Columns) -> None:
    if columns.role != expected.role:
        raise UserError(
            f"column {columns.sample!r} is {columns.role} in {path!r} and {expected.role} in {first!r}: keep them apart"
        )
    if columns.id != expected.id:
        raise UserError(
            f"{path!r} has id column {columns.id!r} but {first!r} has {expected.id!r}: name it alike in every file"
        )


def _most_vectors(width: int) -> int:
    return max(1, min(SHARD_VECTORS, SHARD_VALUES // max(width, 1)))


def _ranges(sizes: list[int], most: int, cut: bool) -> Iterator[tuple[int, int]]:
    """Yield runs of whole row groups with at most so many rows; a larger group is cut, or stays alone."""
    start = stop = 0
    for size in sizes:
        if stop > start and stop + size - start > most:
            yield start, stop
            start = stop
        stop += size
        while cut and stop - start > most:
            yield start, start + most
            start += most
    if stop > start or not sizes or stop == 0:
        yield start, stop


def _width(fs: AbstractFileSystem, parquet: pq.ParquetFile, column: str, path: str, expected: int, first: str) -> int:
    """Return the length of the vectors: as the type says, else the commonest among the first that there are."""
    kind = parquet.schema_arrow.field(column).type
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    found = expected
    if pa.types.is_fixed_size_list(kind):
        found = kind.list_size
        if found == 0:
            raise UserError(f"column {column!r} of {path!r} holds vectors of no values: write it anew")
        if expected and found != expected:
            raise UserError(f"{path!r} has {found} dimensions but {first!r} has {expected}: keep them apart")
    elif not expected:
        found = _commonest_length(fs, path, parquet.metadata.num_rows, column)
    if found > MAX_WIDTH:
        raise UserError(f"column {column!r} of {path!r} has {found:,} dimensions, over {MAX_WIDTH:,}: name another")
    return found


def _commonest_length(fs: AbstractFileSystem, path: str, rows: int, column: str) -> int:
    """Return the commonest length in the first thousand rows that have any; 0 if none has."""
    for _, batch in stream(fs, path, 0, rows, ROWS_AT_ONCE, [column]):
        if batch is None:
            continue
        lengths = pc.list_value_length(_lists(batch.column(0))).drop_null().to_numpy()
        lengths = lengths[lengths > 0]
        if len(lengths):
            values, counts = np.unique(lengths, return_counts=True)
            return int(values[np.argmax(counts)])
    return 0


def _protocols(images: ParquetImageShard, vectors: ParquetEmbeddingShard) -> tuple[ImageShard, EmbeddingShard]:
    """Let mypy check that the shards are what the stages expect."""
    return images, vectors
