"""Opens an input: looks up what INPUT names, and finds the registered format that recognises it.

To add a format, write its class in a file of its own and register it here. Only names and headers are read.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from typing import Literal

from fsspec.implementations.local import LocalFileSystem

from fairdedup.datasets.clip_retrieval import ClipRetrieval
from fairdedup.datasets.dataset import Dataset
from fairdedup.datasets.filesystem import is_on_web, locate
from fairdedup.datasets.findings import describe_unused, name_ending
from fairdedup.datasets.folder import ImageFolder
from fairdedup.datasets.folder_tree import FolderTree
from fairdedup.datasets.format_registry import (
    describe_files,
    describe_folders,
    describe_formats_with_columns,
    describe_shards,
    find_format,
    formats,
    is_file_of_a_format,
    is_shard,
    register,
)
from fairdedup.datasets.input_format import NOT_PLAIN, InputFormat, InputSource, ReadOptions, ShardFormat
from fairdedup.datasets.mixed_kinds import choose_kind, expect_no_embeddings_below
from fairdedup.datasets.npy import Npy
from fairdedup.datasets.npz import Npz
from fairdedup.datasets.parquet import Parquet
from fairdedup.datasets.patterns import expand_pattern, find_files, is_pattern
from fairdedup.datasets.saved_dataset import SavedDataset
from fairdedup.datasets.webdataset import WebDataset
from fairdedup.datasets.zip_images import ZipImages
from fairdedup.errors import UserError
from fairdedup.storage.store_errors import explain_errors
from fairdedup.storage.urls import protocol_of

NAMED_RUNS = 3  # directories of runs that a remark names

# If two formats recognise an input, the first one opens it: a folder with img_emb/ may contain anything else, and
# img2dataset writes Parquet files next to its tars.
for _format in (ImageFolder(), ClipRetrieval(), WebDataset(), Parquet(), SavedDataset(), Npy(), Npz(), ZipImages()):
    register(_format)


def open_input(
    source: str | os.PathLike[str],
    *,
    id_from: Literal["key", "shard/key"] = "key",
    column: str | None = None,
    skip_damaged: bool = False,
    may_be_empty: bool = False,
) -> Dataset:
    """Recognise an input by its names and list its shards in natural name order.

    Parameters
    ----------
    source : str or path
        A folder, a file, a brace pattern or a glob that one of the registered formats reads (docs/inputs.md
        has the table). A local path or a URL that fsspec knows.
    id_from : {"key", "shard/key"}
        Whether a sample's id is its own key, or the shard's name and the key. The id of a file in a folder is its
        relative path in both cases.
    column : str or None
        The column of images, paths or vectors in Parquet files, or the ending of the images in tars; None recognises
        it.
    skip_damaged : bool
        Whether the rest of a damaged shard is left out, with a warning; otherwise it stops the run.
    may_be_empty : bool
        Whether an input without rows is accepted.

    Returns
    -------
    Dataset
        The shards, none of which has been read.

    Raises
    ------
    UserError
        If the input does not exist, no format recognises it, or it is visibly damaged.
    """
    if id_from not in ("key", "shard/key"):
        raise UserError(f"id_from must be 'key' or 'shard/key'; got {id_from!r}")
    text, options = os.fspath(source), ReadOptions(id_from, column, skip_damaged)
    if protocol_of(text) is None:
        input_format, dataset = _open(text, options)
    else:
        with explain_errors(repr(text), "read"):
            input_format, dataset = _open(text, options)
            _ = dataset.fingerprints  # now, while the file system remembers what it listed
    if column is not None and not input_format.has_columns:
        raise UserError(
            f"--column {column!r} is for {describe_formats_with_columns()}, and {text!r} is none of these: omit it"
        )
    if not may_be_empty and all(shard.rows == 0 for shard in dataset.shards):
        raise UserError(f"{text!r} has no rows: give an input with at least one sample")
    return dataset


def _open(text: str, options: ReadOptions) -> tuple[InputFormat, Dataset]:
    source = _look_at(text)
    found = find_format(source)
    if found is None and source.kind == "pattern":
        source = _look_up(source)
        found = find_format(source)
    if found is None:
        raise UserError(
            f"{text!r} is a file of unknown kind: give {', '.join(describe_files())}, or a folder of "
            f"{describe_folders()}"
        )
    if source.kind == "folder" and (found.is_fallback or isinstance(found, ShardFormat)):
        expect_no_embeddings_below(source)
        found = choose_kind(source, found, formats(), options)
    dataset = found.open(source, options)
    if source.tree is not None and source.tree.runs:
        names = ", ".join(repr(name) for name in source.tree.runs[:NAMED_RUNS])
        more = f" and {len(source.tree.runs) - NAMED_RUNS:,} more" if len(source.tree.runs) > NAMED_RUNS else ""
        remark = f"directories of runs in the folder are not part of the input: {names}{more}"
        dataset = replace(dataset, remarks=(*dataset.remarks, remark))
    return found, dataset


def _look_at(text: str) -> InputSource:
    """Return what INPUT names. A file or folder that exists is not a pattern, except on a web server."""
    fs, path = locate(text)
    # A web server answers requests for nearly any name, so the form of the name decides there.
    decided_by_name = is_on_web(fs) and (is_pattern(path) or is_file_of_a_format(path))
    if not decided_by_name and fs.isdir(path):
        return InputSource(fs, text, "folder", (path,), FolderTree(fs, path))
    if not (decided_by_name and is_pattern(path)) and fs.exists(path):
        if isinstance(fs, LocalFileSystem) and not fs.isfile(path):
            raise UserError(f"{text!r} is {NOT_PLAIN}: give a file, a folder or a pattern")
        return InputSource(fs, text, "files", (path,))
    if is_pattern(path):
        return InputSource(fs, text, "pattern", tuple(expand_pattern(fs, path, text)), pattern=path)
    raise UserError(f"no such file or folder: {text!r}; check the path")


def _look_up(source: InputSource) -> InputSource:
    """Return the files that a pattern names; `paths` are those that some format reads."""
    tree = find_files(source.fs, source.pattern, source.paths, source.text)
    images = {entry.path for entry in tree.images.images}
    paths = [entry.path for entry in tree.files if entry.path in images or is_shard(entry.name)]
    if not paths:
        others = describe_unused(Counter(name_ending(entry.name) for entry in tree.files))
        raise UserError(
            f"{source.text!r} names no image or shard, but {others}: it must name images, or files that end in "
            f"{describe_shards()}"
        )
    return replace(source, kind="files", paths=tuple(paths), tree=tree)
