"""Reads ready embeddings as clip-retrieval writes them: img_emb/img_emb_N.npy with metadata/metadata_N.parquet."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from fsspec import AbstractFileSystem

from fairdedup.datasets.dataset import Dataset
from fairdedup.datasets.filesystem import fingerprint, list_entries
from fairdedup.datasets.findings import Findings, name_ending
from fairdedup.datasets.folder_tree import FolderTree
from fairdedup.datasets.input_format import NOT_PLAIN, DocumentedInput, InputFormat, InputSource, ReadOptions
from fairdedup.datasets.metadata import DOCUMENTED_ID_COLUMN, add_id_column, describe_table, read_rows
from fairdedup.datasets.npy_arrays import DAMAGED_NPY, load_rows, read_shape
from fairdedup.errors import UserError, format_count

FOLDER, METADATA, TEXTS = "img_emb", "metadata", "text_emb"
_OF_A_RUN = re.compile(r"(?:records/(?:record_[0-9]+|input)\.json|copies/(?:hashes|samples)_[0-9]+\.(?:npy|json))")


@dataclass(frozen=True)
class ClipRetrievalShard:
    """One img_emb_N.npy and, if there is one, its metadata_N.parquet.

    Attributes
    ----------
    fs : AbstractFileSystem
        The file system of both files.
    path : str
        The .npy file.
    number : str
        N, as it is written in the file names.
    rows : int
        Number of vectors.
    table : str or None
        The Parquet file.
    id_column : str or None
        The column of the table that holds the ids.
    id_from : {"key", "shard/key"}
        Whether ids have the shard's name before them.
    label : str
        Prefix of the shard's name if there are several folders: "FOLDER/"; "" for one folder.
    whole : int or None
        Number of vectors that are in the file, if it is cut off.
    """

    fs: AbstractFileSystem
    path: str
    number: str
    rows: int
    table: str | None = None
    id_column: str | None = None
    id_from: str = "key"
    label: str = ""
    whole: int | None = None

    @property
    def name(self) -> str:
        """Name of the file, after that of its folder if there are several."""
        return f"{self.label}img_emb_{self.number}.npy"

    def vectors(self) -> np.ndarray:
        """Return the (n, d) array."""
        return load_rows(self.fs, self.path, whole=self.whole)

    def metadata(self) -> pa.Table:
        """Return n rows: ``id``, then every other column of the Parquet file."""
        if self.table is None:
            table = pa.table({"": pa.nulls(self.rows)}).select([])
        else:
            table = read_rows(self.fs, self.table, 0, self.rows)
        ids = self.id_column or [f"{self.number}-{row}" for row in range(self.rows)]
        prefix = f"{self.label}img_emb_{self.number}/" if self.id_from == "shard/key" else ""
        return add_id_column(table, ids, self.table or self.path, prefix)

    def faults(self) -> dict[int, str]:
        """Return, by position, that vectors are not in the file because it is cut off."""
        return {} if self.whole is None else dict.fromkeys(range(self.whole, self.rows), DAMAGED_NPY)

    def findings(self) -> Findings:
        """Return whether vectors are missing because the file is cut off."""
        return Findings(damage=None if self.whole is None else f"it is cut off after {format_count(self.whole, 'row')}")

    def fingerprint(self) -> str:
        """Return a short text that changes when a file's name, size or time does."""
        return fingerprint(self.fs, *(p for p in (self.path, self.table) if p), label=self.name)


class ClipRetrieval(InputFormat):
    """Ready embeddings as clip-retrieval writes them: one folder, or several that a brace pattern names."""

    name = "clip-retrieval"
    folder_title = "img_emb/"
    documentation = (
        DocumentedInput(
            "ready embeddings in clip-retrieval's layout: a folder with `img_emb/img_emb_N.npy` and, if there, "
            "`metadata/metadata_N.parquet`",
            "float16, float32 or float64 (n, d)",
            f"{DOCUMENTED_ID_COLUMN}; else `N-row`",
        ),
        DocumentedInput(
            "several such folders, in braces (`'{day-1,day-2}/embeddings'`)",
            "all of them, one after the other",
            "the same; `--id shard/key` puts the folder before it",
        ),
    )

    def files_in(self, folder: InputSource) -> list[str]:
        """Return the files of vectors and of metadata, if the folder has img_emb/."""
        if FOLDER not in folder.folders:
            return []
        places = [posixpath.join(folder.paths[0], name) for name in (FOLDER, METADATA)]
        return [e.path for e in folder.with_endings((".npy", ".parquet")) if posixpath.dirname(e.path) in places]

    def without_companions(self, others: list[str], shards: list[str]) -> list[str]:
        """Return the files that belong neither to clip-retrieval's embeddings of texts nor to the records of a run."""
        tops = {posixpath.dirname(posixpath.dirname(path)) for path in shards}

        def is_companion(path: str) -> bool:
            folder, name = posixpath.split(path)
            top, kind = posixpath.split(folder)
            return top in tops and (kind == TEXTS or _OF_A_RUN.fullmatch(f"{kind}/{name}") is not None)

        return [path for path in others if not is_companion(path)]

    def recognises(self, source: InputSource) -> bool:
        """Tell whether the folder, or every folder that the braces name, contains img_emb/."""
        if source.kind == "folder":
            return FOLDER in source.folders
        return source.kind == "pattern" and all(source.fs.isdir(posixpath.join(p, FOLDER)) for p in source.paths)

    def open(self, source: InputSource, options: ReadOptions) -> Dataset:
        """Return one shard for each img_emb_N.npy, folder by folder in the order given. Only headers are read.

        Raises
        ------
        UserError
            If a file is missing or holds no embeddings, if its dimension differs from that of the first file in the
            folder, or if its number of rows differs from that of its metadata.
        """
        if source.kind == "folder":
            shards = _open_folder(source.fs, source.paths[0], source.text, options)
        else:
            common = posixpath.commonpath(source.paths)
            shards = []
            for root in source.paths:
                label = posixpath.relpath(root, common) + "/"
                shards += [replace(shard, label=label) for shard in _open_folder(source.fs, root, root, options)]
        read = [path for shard in shards for path in (shard.path, shard.table) if path is not None]
        known = set(read)
        trees = [source.tree] if source.tree is not None else [FolderTree(source.fs, root) for root in source.paths]
        there = [entry.path for tree in trees for entry in tree.files if entry.path not in known]
        unused = Counter(map(name_ending, self.without_companions(there, read)))
        return Dataset("embeddings", self.name, source.text, tuple(shards), unused=unused)


def _open_folder(fs: AbstractFileSystem, root: str, text: str, options: ReadOptions) -> list[ClipRetrievalShard]:
    vectors = _list_numbered(fs, posixpath.join(root, FOLDER), r"img_emb_([0-9]+)\.npy")
    if not vectors:
        raise UserError(f"folder img_emb of {text!r} holds no img_emb_0.npy: give clip-retrieval's output folder")
    folder = posixpath.join(root, METADATA)
    tables = _list_numbered(fs, folder, r"metadata_([0-9]+)\.parquet") if fs.isdir(folder) else {}
    if tables:
        _expect_pairs(vectors, tables)
    shards: list[ClipRetrievalShard] = []
    first_width = 0
    for number, path in vectors.items():
        rows, width, whole = read_shape(fs, path, skip_damaged=options.skip_damaged)
        first_width = first_width or width
        if width != first_width:
            first = next(iter(vectors.values()))
            raise UserError(
                f"{path!r} has {format_count(width, 'dimension')} but {first!r} has {first_width}: "
                "put them into separate folders"
            )
        table, column = tables.get(number), None
        if table is not None:
            column = _expect_fitting_table(fs, table, path, rows, shards)
        shards.append(
            ClipRetrievalShard(
                fs=fs,
                path=path,
                number=number,
                rows=rows,
                table=table,
                id_column=column,
                id_from=options.id_from,
                whole=whole if whole < rows else None,
            )
        )
    return shards


def _expect_fitting_table(
    fs: AbstractFileSystem, table: str, path: str, rows: int, earlier: list[ClipRetrievalShard]
) -> str | None:
    """Return the id column of a metadata file, after comparing its rows with the vectors and its ids with the first."""
    found, column = describe_table(fs, table)
    if found != rows:
        raise UserError(f"{path!r} has {format_count(rows, 'row')} but {table!r} has {found:,}: write both again")
    if earlier and column != earlier[0].id_column:
        raise UserError(
            f"{table!r} has id column {column!r} but {earlier[0].table!r} has {earlier[0].id_column!r}: give the "
            "column the same name in every file"
        )
    return column


def _list_numbered(fs: AbstractFileSystem, folder: str, pattern: str) -> dict[str, str]:
    """Return number -> path of the files in a folder whose name matches, in natural order."""
    found = {}
    for entry in list_entries(fs, folder):
        match = re.fullmatch(pattern, entry.name)
        if match and not entry.is_plain:
            raise UserError(f"{entry.path!r} is {NOT_PLAIN}: remove it, or put the file in its place")
        if match:
            found[match[1]] = entry.path
    return found


def _expect_pairs(vectors: dict[str, str], tables: dict[str, str]) -> None:
    for number, path in vectors.items():
        if number not in tables:
            raise UserError(f"metadata_{number}.parquet is missing, but {path!r} is there: add it, or remove metadata/")
    for number, path in tables.items():
        if number not in vectors:
            raise UserError(f"img_emb_{number}.npy is missing, but {path!r} is there: add it, or remove that file")
