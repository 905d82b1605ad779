"""Opens Parquet files as an input: a column of image bytes, of paths to images, or of ready embeddings.

Footers are read to find the columns and to cut large files into shards; rows are read by `parquet_shards`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem

from fairdedup.datasets.columns import Columns, recognise_columns
from fairdedup.datasets.dataset import Dataset
from fairdedup.datasets.filesystem import natural_key, to_valid_text
from fairdedup.datasets.input_format import DocumentedInput, InputSource, ReadOptions, ShardFormat
from fairdedup.datasets.listing import METADATA_FILES
from fairdedup.datasets.metadata import DOCUMENTED_ID_COLUMN
from fairdedup.datasets.parquet_shards import ROWS_AT_ONCE, ParquetEmbeddingShard, ParquetImageShard, plain_lists
from fairdedup.datasets.rows import PARQUET_EXTENSIONS, count_group_rows, open_parquet_file, stream_rows
from fairdedup.errors import UserError

SHARD_IMAGES = 10_000
SHARD_VECTORS = 100_000
SHARD_VALUES = 1 << 27  # numbers in one shard of vectors: 1 GiB as float64
MAX_WIDTH = 1 << 16


class Parquet(ShardFormat):
    """Parquet files: tables whose column of images, paths or vectors is recognised by its type and name."""

    name = "parquet"
    file_title = "a .parquet file"
    folder_title = "Parquet files"
    extensions = PARQUET_EXTENSIONS
    in_patterns = True
    has_columns = True
    documentation = (
        DocumentedInput(
            "[Parquet](#parquet): a file, a folder of them, a brace pattern or a glob",
            "a column of image bytes, of paths to images, or of embeddings",
            f"{DOCUMENTED_ID_COLUMN}; else the path, else `FILE-row`",
        ),
    )

    def files_in(self, folder: InputSource) -> list[str]:
        """Return the Parquet files of a folder, unless they only describe the images in it."""
        found = [entry for entry in folder.with_endings(self.extensions) if entry.name not in METADATA_FILES]
        folders = folder.tree.folders if folder.tree is not None else set()
        if all(posixpath.splitext(table.relative)[0] in folders for table in found):
            return []  # img2dataset's output as files: a folder of images for each table
        return [table.path for table in found]

    def names_images(self, source: InputSource, shards: list[str], options: ReadOptions) -> bool:
        """Tell whether the first file has a column of paths to images."""
        try:
            with open_parquet_file(source.fs, shards[0]) as parquet:
                return recognise_columns(parquet.schema_arrow, options.column, shards[0]).role == "paths"
        except UserError:
            return False

    def open_files(self, source: InputSource, paths: list[str], options: ReadOptions) -> Dataset:
        """Return shards of whole row groups. Only footers are read, and the first rows of embeddings for their width.

        Raises
        ------
        UserError
            If a file is damaged or has no column of images, paths or vectors, if several columns fit, or if its columns
            differ from those of the first file.
        """
        common = posixpath.commonpath([posixpath.dirname(path) for path in paths])
        labels = {path: posixpath.relpath(path, common) if common else path for path in paths}
        files = _read_footers(source.fs, sorted(labels, key=lambda path: natural_key(labels[path])), options.column)
        first, width = files[0], files[-1].width  # the first files may have no rows
        if first.columns.role == "vectors" and not width and any(sum(file.group_sizes) for file in files):
            raise UserError(
                f"column {first.columns.sample!r} of {source.text!r} holds no vectors: name another with --column"
            )
        shards: list[ParquetImageShard | ParquetEmbeddingShard] = []
        for file in files:
            label = labels[file.path]
            shards += _cut(source.fs, file, label, width, with_prefix=options.id_from == "shard/key")
        kind = "embeddings" if first.columns.role == "vectors" else "images"
        return Dataset(kind, self.name, source.text, tuple(shards))  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Footer:
    """What is known about a Parquet file before its rows are read.

    Attributes
    ----------
    path : str
    columns : Columns
    group_sizes : list of int
        Rows of each row group.
    width : int
        Values of each vector, from this file or an earlier one; 0 if that is still unknown, or for images.
    """

    path: str
    columns: Columns
    group_sizes: list[int]
    width: int


def _read_footers(fs: AbstractFileSystem, paths: list[str], wanted: str | None) -> list[_Footer]:
    files: list[_Footer] = []
    for path in paths:
        with open_parquet_file(fs, path) as parquet:
            columns = recognise_columns(
                parquet.schema_arrow, wanted or (files[0].columns.sample if files else None), path
            )
            width = 0
            if files:
                _expect_alike(path, columns, files[0])
                width = files[-1].width
            if columns.role == "vectors":
                width = _find_width(
                    fs, parquet, columns.sample, path, expected=width, first=files[0].path if files else path
                )
            files.append(_Footer(path, columns, count_group_rows(parquet), width))
    return files


def _cut(
    fs: AbstractFileSystem, file: _Footer, label: str, width: int, *, with_prefix: bool
) -> list[ParquetImageShard | ParquetEmbeddingShard]:
    """Return the shards of a file: consecutive row groups, or parts of a group that is too large."""
    # The width known when this file was opened decides the cut, as in earlier versions, so that shard names stay.
    most = _most_vectors(file.width) if file.columns.role == "vectors" else SHARD_IMAGES
    stem = to_valid_text(posixpath.splitext(label)[0])
    ranges = list(_ranges(file.group_sizes, most, cut=file.columns.role != "bytes"))
    shards: list[ParquetImageShard | ParquetEmbeddingShard] = []
    for number, (start, stop) in enumerate(ranges):
        shard = ParquetImageShard(
            fs=fs,
            path=file.path,
            name=label + (f"-{number:05d}" if len(ranges) > 1 else ""),
            stem=stem,
            start=start,
            stop=stop,
            columns=file.columns,
            prefix=f"{stem}/" if with_prefix else "",
        )
        shards.append(ParquetEmbeddingShard(**vars(shard), width=width) if file.columns.role == "vectors" else shard)
    return shards


def _expect_alike(path: str, columns: Columns, first: _Footer) -> None:
    expected = first.columns
    if columns.role != expected.role:
        raise UserError(
            f"column {columns.sample!r} is {columns.role} in {path!r} and {expected.role} in {first.path!r}: give them "
            "as separate inputs"
        )
    if columns.id != expected.id:
        raise UserError(
            f"{path!r} has id column {columns.id!r} but {first.path!r} has {expected.id!r}: give the "
            "column the same name in every file"
        )


def _most_vectors(width: int) -> int:
    return max(1, min(SHARD_VECTORS, SHARD_VALUES // max(width, 1)))


def _ranges(sizes: list[int], most: int, *, cut: bool) -> Iterator[tuple[int, int]]:
    """Yield ranges of whole row groups, at most `most` rows in each; a larger group is cut or stays whole (`cut`)."""
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


def _find_width(
    fs: AbstractFileSystem, parquet: pq.ParquetFile, column: str, path: str, *, expected: int, first: str
) -> int:
    """Return the width of the vectors: that of the type, else the most common one among the first rows."""
    kind = parquet.schema_arrow.field(column).type
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    found = expected
    if pa.types.is_fixed_size_list(kind):
        found = kind.list_size
        if found == 0:
            raise UserError(f"column {column!r} of {path!r} holds vectors of no values: write the file again")
        if expected and found != expected:
            raise UserError(
                f"{path!r} has {found} dimensions but {first!r} has {expected}: give them as separate inputs"
            )
    elif not expected:
        found = _find_commonest_length(fs, path, parquet.metadata.num_rows, column)
    if found > MAX_WIDTH:
        raise UserError(f"column {column!r} of {path!r} has {found:,} dimensions, over {MAX_WIDTH:,}: name another")
    return found


def _find_commonest_length(fs: AbstractFileSystem, path: str, rows: int, column: str) -> int:
    """Return the most common width in the first batch of rows that has vectors; 0 if no row has one."""
    for _, batch in stream_rows(fs, path, 0, rows, ROWS_AT_ONCE, [column]):
        if batch is None:
            continue
        lengths = pc.list_value_length(plain_lists(batch.column(0))).drop_null().to_numpy()
        lengths = lengths[lengths > 0]
        if len(lengths):
            values, counts = np.unique(lengths, return_counts=True)
            return int(values[np.argmax(counts)])
    return 0
