"""The inputs that fairdedup reads, one file a format (DESIGN section 4); ``open_input`` recognises which.

Opening reads names and headers only; images and vectors are read by the shards, on the workers.
"""

from __future__ import annotations

import os
import posixpath

from fairdedup.datasets.clip_retrieval import open_clip_retrieval
from fairdedup.datasets.dataset import Dataset, EmbeddingShard, ImageShard, Sample
from fairdedup.datasets.files import entries, extension, locate
from fairdedup.datasets.folder import open_folder
from fairdedup.datasets.images import IMAGE_EXTENSIONS
from fairdedup.datasets.npy import open_npy
from fairdedup.datasets.webdataset import is_pattern, is_tar, open_pattern, open_shards
from fairdedup.errors import UserError

__all__ = ["Dataset", "EmbeddingShard", "ImageShard", "Sample", "open_input"]


def open_input(source: str, *, id_from: str = "key") -> Dataset:
    """Recognise an input by looking at it and list its shards in natural name order.

    Parameters
    ----------
    source : str
        A folder of images, of tar shards or of clip-retrieval's embeddings; a tar shard, a brace pattern or
        a glob of them; one .npy file. A local path or a URL that fsspec knows.
    id_from : {"key", "shard/key"}
        Whether a sample's id is its own key or has its shard's name before it. The id of a file in a folder
        is its relative path in both cases.

    Raises
    ------
    UserError
        If there is no such input, or it is of no known kind, or it is visibly damaged.
    """
    if id_from not in ("key", "shard/key"):
        raise UserError(f"id_from is {id_from!r}: choose 'key' or 'shard/key'")
    source = os.fspath(source)
    fs, path = locate(source)
    if fs.isdir(path):
        listed = entries(fs, path)
        if any(entry.name == "img_emb" and entry.is_dir for entry in listed):
            return open_clip_retrieval(fs, path, source, id_from)
        tars = [entry.path for entry in listed if is_tar(entry.name) and not entry.is_dir]
        images = sum(extension(entry.name) in IMAGE_EXTENSIONS and not entry.is_dir for entry in listed)
        if tars and images:
            pattern = posixpath.join(source, "*.tar")
            raise UserError(
                f"folder {source!r} holds {len(tars):,} tar shards and {images:,} images: "
                f"give {pattern!r}, or move the images to a folder of their own"
            )
        return open_shards(fs, tars, source, id_from) if tars else open_folder(fs, path, source)
    if fs.exists(path):
        if is_tar(path):
            return open_shards(fs, [path], source, id_from)
        if extension(path) == "npy":
            return open_npy(fs, path, source, id_from)
        if extension(path) in IMAGE_EXTENSIONS:
            raise UserError(f"{source!r} is a single image: give the folder that it lies in")
        raise UserError(
            f"{source!r} is a file of unknown kind: give a .tar (.tar.gz, .tgz) shard, "
            "an .npy file of embeddings, or a folder of images, tar shards or img_emb/"
        )
    if is_pattern(path):
        return open_pattern(fs, path, source, id_from)
    raise UserError(f"no such file or folder: {source!r}; check the path")
