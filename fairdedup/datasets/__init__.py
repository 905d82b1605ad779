"""The inputs that fairdedup reads, one file a format (DESIGN section 4); ``open_input`` recognises which.

Opening reads names and headers only; images and vectors are read by the shards, on the workers.
"""

from __future__ import annotations

import os
import posixpath

from fsspec import AbstractFileSystem

from fairdedup.datasets.clip_retrieval import open_clip_retrieval, open_several
from fairdedup.datasets.dataset import Dataset, EmbeddingShard, ImageShard, Sample
from fairdedup.datasets.filesystem import entries, extension, is_on_web, locate
from fairdedup.datasets.folder import open_folder
from fairdedup.datasets.images import IMAGE_EXTENSIONS
from fairdedup.datasets.listing import METADATA_FILES
from fairdedup.datasets.npy import open_npy
from fairdedup.datasets.parquet import open_parquet
from fairdedup.datasets.patterns import folders_named_by, is_pattern, named_by
from fairdedup.datasets.rows import is_parquet
from fairdedup.datasets.webdataset import is_tar, open_shards
from fairdedup.errors import UserError
from fairdedup.storage.object_stores import naming, protocol_of

__all__ = ["Dataset", "EmbeddingShard", "ImageShard", "Sample", "open_input"]


def open_input(source: str, *, id_from: str = "key", column: str | None = None, may_be_empty: bool = False) -> Dataset:
    """Recognise an input by looking at it and list its shards in natural name order.

    Parameters
    ----------
    source : str
        A folder of images, of tar shards, of Parquet files or of clip-retrieval's embeddings; a tar shard or a
        Parquet file, a brace pattern or a glob of them; braces that name several folders of embeddings; one .npy
        file. A local path or a URL that fsspec knows.
    id_from : {"key", "shard/key"}
        Whether a sample's id is its own key or has its shard's name before it. The id of a file in a folder
        is its relative path in both cases.
    column : str or None
        Of Parquet files, the column of images, paths or vectors; None: it is recognised.
    may_be_empty : bool
        Whether an input of no rows will do.

    Raises
    ------
    UserError
        If there is no such input, or it is of no known kind, or it is visibly damaged.
    """
    if id_from not in ("key", "shard/key"):
        raise UserError(f"id_from is {id_from!r}: choose 'key' or 'shard/key'")
    source = os.fspath(source)
    if protocol_of(source) is None:
        dataset = _open(source, id_from, column)
    else:
        with naming(repr(source), "read"):
            dataset = _open(source, id_from, column)
            _ = dataset.fingerprints  # now, while what was listed is known
    if column is not None and dataset.format != "parquet":
        raise UserError(f"--column {column!r} is for Parquet files, and {source!r} is not of them: leave it out")
    if not may_be_empty and all(shard.rows == 0 for shard in dataset.shards):
        raise UserError(f"{source!r} has no rows: give one of at least one sample")
    return dataset


def _open(source: str, id_from: str, column: str | None) -> Dataset:
    fs, path = locate(source)
    named = is_on_web(fs) and (is_pattern(path) or is_tar(path) or is_parquet(path) or extension(path) == "npy")
    if not named and fs.isdir(path):
        return _open_folder(fs, path, source, id_from, column)
    if not (named and is_pattern(path)) and fs.exists(path):
        if is_tar(path):
            return open_shards(fs, [path], source, id_from)
        if is_parquet(path):
            return open_parquet(fs, [path], source, id_from, column)
        if extension(path) == "npy":
            return open_npy(fs, path, source, id_from)
        if extension(path) in IMAGE_EXTENSIONS:
            raise UserError(f"{source!r} is a single image: give the folder that it lies in")
        raise UserError(
            f"{source!r} is a file of unknown kind: give a .tar (.tar.gz, .tgz) shard, a .parquet file, "
            "an .npy file of embeddings, or a folder of images, tar shards, Parquet files or img_emb/"
        )
    if is_pattern(path):
        folders = folders_named_by(fs, path, source)
        if folders:
            return open_several(fs, folders, source, id_from)
        paths = named_by(fs, path, source)
        if is_parquet(paths[0]):
            return open_parquet(fs, paths, source, id_from, column)
        return open_shards(fs, paths, source, id_from)
    raise UserError(f"no such file or folder: {source!r}; check the path")


def _open_folder(fs: AbstractFileSystem, path: str, source: str, id_from: str, column: str | None) -> Dataset:
    listed = entries(fs, path)
    folders = {entry.name for entry in listed if entry.is_dir}
    if "img_emb" in folders:
        return open_clip_retrieval(fs, path, source, id_from)
    files = [entry for entry in listed if not entry.is_dir]
    tars = [entry.path for entry in files if is_tar(entry.name)]
    tables = [entry.path for entry in files if is_parquet(entry.name) and entry.name not in METADATA_FILES]
    if tables and all(posixpath.splitext(posixpath.basename(table))[0] in folders for table in tables):
        tables = []  # img2dataset's files: a folder of images for each table
    images = sum(extension(entry.name) in IMAGE_EXTENSIONS for entry in files)
    kind, shards = ("tar shards", tars) if tars else ("Parquet files", tables)
    if shards and images:
        pattern = posixpath.join(source, "*.tar" if tars else "*.parquet")
        raise UserError(
            f"folder {source!r} holds {len(shards):,} {kind} and {images:,} images: "
            f"give {pattern!r}, or move the images to a folder of their own"
        )
    if tars:
        return open_shards(fs, tars, source, id_from)
    return open_parquet(fs, tables, source, id_from, column) if tables else open_folder(fs, path, source)
