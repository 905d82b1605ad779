"""Ready embeddings as clip-retrieval writes them: img_emb/img_emb_N.npy with metadata/metadata_N.parquet."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from fsspec import AbstractFileSystem

from fairdedup.datasets.dataset import Dataset
from fairdedup.datasets.filesystem import entries, fingerprint
from fairdedup.datasets.metadata import describe, read_rows, with_ids
from fairdedup.datasets.npy import load, read_shape
from fairdedup.errors import UserError


@dataclass(frozen=True)
class ClipRetrievalShard:
    """One img_emb_N.npy and, where there is one, its metadata_N.parquet."""

    fs: AbstractFileSystem
    path: str
    number: str
    rows: int
    table: str | None = None
    id_column: str | None = None
    id_from: str = "key"
    label: str = ""  # tells the folders of several apart

    @property
    def name(self) -> str:
        """The file's name, behind that of its folder where there are several."""
        return f"{self.label}img_emb_{self.number}.npy"

    def vectors(self) -> np.ndarray:
        """Return the (n, d) array."""
        return load(self.fs, self.path)

    def metadata(self) -> pa.Table:
        """Return n rows: ``id``, then every other column of the Parquet file."""
        if self.table is None:
            table = pa.table({"": pa.nulls(self.rows)}).select([])
        else:
            table = read_rows(self.fs, self.table, 0, self.rows)
        ids = self.id_column or [f"{self.number}-{row}" for row in range(self.rows)]
        prefix = f"{self.label}img_emb_{self.number}/" if self.id_from == "shard/key" else ""
        return with_ids(table, ids, self.table or self.path, prefix)

    def faults(self) -> dict[int, str]:
        """Return nothing: an array says all there is to say."""
        return {}

    def fingerprint(self) -> str:
        """Return a short text that changes when a file's name, size or time does."""
        return fingerprint(self.fs, *(p for p in (self.path, self.table) if p), label=self.name)


def open_clip_retrieval(fs: AbstractFileSystem, root: str, source: str, id_from: str) -> Dataset:
    """Make a data set of a folder with img_emb/ in it; every header is read, no data.

    Raises
    ------
    UserError
        If a file is missing, not embeddings, of another dimension than the first, or not of the length of
        its metadata.
    """
    vectors = _numbered(fs, posixpath.join(root, "img_emb"), r"img_emb_([0-9]+)\.npy")
    if not vectors:
        raise UserError(f"folder img_emb of {source!r} holds no img_emb_0.npy: give clip-retrieval's output folder")
    folder = posixpath.join(root, "metadata")
    tables = _numbered(fs, folder, r"metadata_([0-9]+)\.parquet") if fs.isdir(folder) else {}
    if tables:
        _expect_pairs(vectors, tables)
    shards: list[ClipRetrievalShard] = []
    first_width = 0
    for number, path in vectors.items():
        rows, width = read_shape(fs, path)
        first_width = first_width or width
        if width != first_width:
            first = next(iter(vectors.values()))
            raise UserError(f"{path!r} has {width} dimensions but {first!r} has {first_width}: keep them apart")
        table, column = tables.get(number), None
        if table is not None:
            found, column = describe(fs, table)
            if found != rows:
                raise UserError(f"{path!r} has {rows:,} rows but {table!r} has {found:,}: write both again")
            if shards and column != shards[0].id_column:
                raise UserError(
                    f"{table!r} has id column {column!r} but {shards[0].table!r} has "
                    f"{shards[0].id_column!r}: name it alike in every file"
                )
        shards.append(ClipRetrievalShard(fs, path, number, rows, table, column, id_from))
    return Dataset(kind="embeddings", format="clip-retrieval", source=source, shards=tuple(shards))


def open_several(fs: AbstractFileSystem, roots: list[str], source: str, id_from: str) -> Dataset:
    """Make one data set of several such folders, in the order given.

    Raises
    ------
    UserError
        As `open_clip_retrieval`, of any of them.
    """
    common = posixpath.commonpath(roots)
    shards = []
    for root in roots:
        own = open_clip_retrieval(fs, root, root, id_from).shards
        label = posixpath.relpath(root, common) + "/"
        shards += [replace(s, label=label) for s in own if isinstance(s, ClipRetrievalShard)]
    return Dataset(kind="embeddings", format="clip-retrieval", source=source, shards=tuple(shards))


def _numbered(fs: AbstractFileSystem, folder: str, pattern: str) -> dict[str, str]:
    """Return number -> path of the files in a folder whose name fits, in natural order."""
    matches = ((re.fullmatch(pattern, entry.name), entry.path) for entry in entries(fs, folder))
    return {match[1]: path for match, path in matches if match}


def _expect_pairs(vectors: dict[str, str], tables: dict[str, str]) -> None:
    for number, path in vectors.items():
        if number not in tables:
            raise UserError(
                f"metadata_{number}.parquet is missing, but {path!r} is there: bring it, or remove metadata/"
            )
    for number, path in tables.items():
        if number not in vectors:
            raise UserError(f"img_emb_{number}.npy is missing, but {path!r} is there: bring it, or remove that file")
