"""Gives the shards of a single file that was renamed the names that they had, so that it is known as the same input.

The size and the time of the file, or its etag, must be as they were; its content is never read.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fairdedup.datasets.dataset import Dataset
from fairdedup.datasets.filesystem import to_valid_text
from fairdedup.datasets.folder_shards import ZipShard
from fairdedup.datasets.npy import NpyShard
from fairdedup.datasets.parquet_shards import ParquetRows
from fairdedup.datasets.webdataset import TarShard, strip_tar_extension

_PATHS = ("path", "ids", "table")  # of a shard's own file, and of those beside it that are named after it


class _FormerNames:
    """A file system that is asked for former paths, and answers what it knows of the files today."""

    def __init__(self, fs: Any, current: Mapping[str, str]) -> None:
        self._fs, self._current = fs, current

    def info(self, path: str) -> dict[str, Any]:
        """Return size and time of a file, by its former path."""
        return dict(self._fs.info(self._current[path]))


def restore_names(dataset: Dataset, known: Mapping[str, str]) -> Dataset | None:
    """Return an input of one file with the names and the ids that its samples had before the file was renamed.

    Parameters
    ----------
    dataset : Dataset
        Samples in one file: a tar, a zip archive, a table or an array.
    known : mapping of str to str
        Fingerprint of every shard, by the name that it had.

    Returns
    -------
    Dataset or None
        None if it is not the same file, or was not renamed.
    """
    shards: Sequence[Any] = dataset.shards
    if not shards or not all(isinstance(shard, TarShard | ZipShard | ParquetRows | NpyShard) for shard in shards):
        return None
    if len({shard.path for shard in shards}) != 1 or len(shards) != len(known):
        return None
    new = posixpath.basename(shards[0].path)
    old = next(iter(known)).removesuffix(shards[0].name.removeprefix(new))
    if old == new or "/" in old or not all(shard.name.startswith(new) for shard in shards):
        return None
    restored = [_rename(shard, old, new) for shard in shards]
    found = {shard.name: _fingerprint(shard, old, new) for shard in restored}
    return replace(dataset, shards=tuple(restored), former_fingerprints=found) if found == known else None


def _rename(shard: Any, old: str, new: str) -> Any:
    """Return a shard with the names that messages and ids have of it; it reads the same files."""
    names: dict[str, str] = {"label": old} if isinstance(shard, NpyShard) else {"name": old + shard.name[len(new) :]}
    before, after = (to_valid_text(_strip_extension(name)) for name in (new, old))
    for field, end in (("prefix", "/"), ("place", "-")):  # of the ids
        if getattr(shard, field, None) == f"{before}{end}":
            names[field] = f"{after}{end}"
    return replace(shard, **names)


def _fingerprint(shard: Any, old: str, new: str) -> str:
    """Return the fingerprint that a shard would have if its file had its former name."""
    current = {
        field: path for field in _PATHS if (path := getattr(shard, field, None)) is not None
    }  # those beside it were renamed too, or the shard would not have them
    former = {field: _restore_path(path, old, new) for field, path in current.items()}
    fs = _FormerNames(shard.fs, {former[field]: current[field] for field in current})
    return str(replace(shard, fs=fs, **former).fingerprint())


def _restore_path(path: str, old: str, new: str) -> str:
    folder, name = posixpath.split(path)
    rest = name.removeprefix(_strip_extension(new))
    return posixpath.join(folder, old if name == new else _strip_extension(old) + rest)


def _strip_extension(name: str) -> str:
    stem = strip_tar_extension(name)
    return stem if stem != name else posixpath.splitext(name)[0]
