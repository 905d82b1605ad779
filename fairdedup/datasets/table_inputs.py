"""Opens files of tables, Parquet or Arrow, as an input: finds their columns, and cuts large files into shards.

Footers or the heads of messages are read, and the first rows: for the width of embeddings, and to recognise text that
is no path. All other rows are read by `parquet_shards`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
from fsspec import AbstractFileSystem

from fairdedup.datasets.columns import NAMES, Columns, describe_unfit_ids, expect_paths, find_role, recognise_columns
from fairdedup.datasets.dataset import Dataset
from fairdedup.datasets.filesystem import Unreadable, resolve_within, to_valid_text
from fairdedup.datasets.findings import Findings
from fairdedup.datasets.input_format import InputSource, ReadOptions
from fairdedup.datasets.parquet_shards import ParquetEmbeddingShard, ParquetImageShard
from fairdedup.datasets.rows import DamagedTable, to_texts
from fairdedup.datasets.table_files import read_layout, stream_table
from fairdedup.datasets.vector_width import find_width
from fairdedup.errors import UserError

SHARD_IMAGES = 10_000
SHARD_VECTORS = 100_000
SHARD_VALUES = 1 << 27  # numbers in one shard of vectors: 1 GiB as float64
FIRST_VALUES = 100  # by which text that is no path is recognised


@dataclass(frozen=True)
class TableFile:
    """A file of the input, and its name in it.

    Attributes
    ----------
    path : str
        The file.
    label : str
        Its name in messages and in the names of its shards.
    group : str or None
        What ids of rows without an id begin with, if rows are counted over all files of a group, such as the split of
        a data set; None counts those of each file.
    """

    path: str
    label: str
    group: str | None = None


def open_tables(name: str, source: InputSource, files: list[TableFile], options: ReadOptions) -> Dataset:
    """Return shards of whole row groups or record batches.

    Parameters
    ----------
    name : str
        The format.
    source : InputSource
        The input that contains the files.
    files : list of TableFile
        The files, in the order in which they are read.
    options : ReadOptions
        How to read them.

    Raises
    ------
    UserError
        If a file is damaged or has no column of images, paths or vectors, if several columns fit, or if its columns
        differ from those of the first file.
    """
    found = _find_layouts(source.fs, files, options)
    first, width = found.files[0], found.files[-1].width  # the first files may have no rows
    if first.columns.role == "vectors" and not width and any(sum(file.group_sizes) for file in found.files):
        raise UserError(
            f"column {first.columns.sample!r} of {source.text!r} holds no vectors: name another with --column, or "
            "write the file again"
        )
    if first.columns.role == "paths":
        _expect_paths(source.fs, found.files)
    shards: list[ParquetImageShard | ParquetEmbeddingShard] = []
    offsets: dict[str | None, int] = {}
    for file in found.files:
        offset = offsets.get(file.file.group, 0) if file.file.group is not None else 0
        shards += _cut(source.fs, file, width, options, offset)
        offsets[file.file.group] = offset + sum(file.group_sizes)
    kind = "embeddings" if first.columns.role == "vectors" else "images"
    return Dataset(
        kind,  # type: ignore[arg-type]
        name,
        source.text,
        tuple(shards),  # type: ignore[arg-type]
        column=first.columns.sample,
        remarks=tuple(found.remarks),
    )


@dataclass(frozen=True)
class _Layout:
    """What is known about a file before its rows are read.

    Attributes
    ----------
    file : TableFile
    columns : Columns
    group_sizes : list of int
        Rows of each row group or record batch.
    width : int
        Values of each vector, from this file or an earlier one; 0 if that is still unknown, or for images.
    damage : str or None
        Where the file ends too early.
    memory : int
        Bytes that reading its large pages needs; 0 if it has none.
    """

    file: TableFile
    columns: Columns
    group_sizes: list[int]
    width: int
    damage: str | None
    memory: int

    @property
    def path(self) -> str:
        """Path of the file."""
        return self.file.path


@dataclass
class _Found:
    """The files that can be read, and what the user should know about the others."""

    files: list[_Layout] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def holds_paths(source: InputSource, path: str, options: ReadOptions) -> bool:
    """Tell whether a file has a column of paths to images, which is the one that would be read."""
    try:
        return recognise_columns(read_layout(source.fs, path).schema, options.column, path).role == "paths"
    except UserError:
        return False


def has_sample_column(fs: AbstractFileSystem, path: str) -> bool:
    """Tell whether a table has a column that can hold images, their paths or vectors; also if it cannot be read."""
    try:
        schema = read_layout(fs, path).schema
    except UserError:
        return True
    roles = {field.name: find_role(field.type) for field in schema}
    return any(role in ("bytes", "vectors") or (role and name in NAMES["paths"]) for name, role in roles.items())


def _find_layouts(fs: AbstractFileSystem, files: list[TableFile], options: ReadOptions) -> _Found:
    """Return what is known about each file, without damaged ones if `ReadOptions.skip_damaged` allows that."""
    found = _Found()
    for number, file in enumerate(files):
        try:
            layout = read_layout(fs, file.path)
        except DamagedTable as error:
            is_last_hope = not found.files and number == len(files) - 1
            if not options.skip_damaged or is_last_hope:
                raise
            found.remarks.append(f"left out, with an unknown number of rows: {error}")
            continue
        if layout.damage is not None and not options.skip_damaged:
            Findings().add_damage(file.path, layout.damage, skip=False)
        first = found.files[0] if found.files else None
        columns = _recognise(layout.schema, file.path, options.column, first)
        width = found.files[-1].width if found.files else 0
        if columns.role == "vectors":
            width = find_width(
                fs,
                layout,
                columns.sample,
                file.path,
                expected=width,
                first=(first or file).path,
                skip_damaged=options.skip_damaged,
            )
        if first is None:
            found.remarks += describe_unfit_ids(layout.schema, columns, file.path)
        found.files.append(_Layout(file, columns, layout.group_sizes, width, layout.damage, layout.memory))
    return found


def _recognise(schema: pa.Schema, path: str, wanted: str | None, first: _Layout | None) -> Columns:
    if first is None:
        return recognise_columns(schema, wanted, path)
    sample = first.columns.sample
    if wanted is None and sample not in schema.names:
        raise UserError(
            f"{path!r} has no column {sample!r}, but {first.path!r} has: give the column the same name in every file, "
            "or give them as separate inputs"
        )
    columns = recognise_columns(schema, sample, path)
    _expect_alike(path, columns, first)
    return columns


def _expect_paths(fs: AbstractFileSystem, files: list[_Layout]) -> None:
    """Check that the first values of a column of paths may be paths."""
    file = next((file for file in files if sum(file.group_sizes)), None)
    if file is None:
        return
    folder = posixpath.dirname(file.path)

    def is_readable(address: str) -> bool:
        try:
            resolve_within(fs, folder, address)
        except Unreadable:
            return False
        return True

    column = file.columns.sample
    for _, batch in stream_table(fs, file.path, 0, sum(file.group_sizes), FIRST_VALUES, [column]):
        if batch is not None:
            values = [value for value in to_texts(batch.column(0)) if value]
            expect_paths(values, column, file.path, is_readable)
        return


def _cut(
    fs: AbstractFileSystem, file: _Layout, width: int, options: ReadOptions, offset: int
) -> list[ParquetImageShard | ParquetEmbeddingShard]:
    """Return the shards of a file: consecutive row groups, or parts of a group that is too large."""
    # The width known when this file was opened decides the cut, as in earlier versions, so that shard names stay.
    most = _most_vectors(file.width) if file.columns.role == "vectors" else SHARD_IMAGES
    label, group = file.file.label, file.file.group
    stem = to_valid_text(posixpath.splitext(label)[0])
    ranges = list(_ranges(file.group_sizes, most, cut=file.columns.role != "bytes"))
    shards: list[ParquetImageShard | ParquetEmbeddingShard] = []
    for number, (start, stop) in enumerate(ranges):
        shard = ParquetImageShard(
            fs=fs,
            path=file.path,
            name=label + (f"-{number:05d}" if len(ranges) > 1 else ""),
            place=f"{stem}-" if group is None else group,
            offset=offset,
            start=start,
            stop=stop,
            columns=file.columns,
            prefix=f"{stem}/" if options.id_from == "shard/key" else "",
            skip_damaged=options.skip_damaged,
            cut_off=file.damage if number == len(ranges) - 1 else None,
            memory=0 if file.columns.role == "vectors" else file.memory,
        )
        shards.append(ParquetEmbeddingShard(**vars(shard), width=width) if file.columns.role == "vectors" else shard)
    return shards


def _expect_alike(path: str, columns: Columns, first: _Layout) -> None:
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
