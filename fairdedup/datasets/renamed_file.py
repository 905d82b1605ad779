"""Gives the shards of a single file that was renamed the names that they had, so that it is known as the same input.

The size and the time of the file, or its etag, must be as they were; its content is never read.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fairdedup.datasets.dataset import Dataset, ImageShard


class _FormerNames:
    """A file system that is asked for former paths, and answers what it knows of the files today."""

    def __init__(self, fs: Any, current: Callable[[str], str]) -> None:
        self._fs, self._current = fs, current

    def info(self, path: str) -> dict[str, Any]:
        """Return size and time of a file, by its former path."""
        return dict(self._fs.info(self._current(path)))


def restore_names(dataset: Dataset, former: str) -> tuple[Dataset, dict[str, str]] | None:
    """Return an input of one file with the names that its shards had, and their fingerprints under these names.

    Parameters
    ----------
    dataset : Dataset
        Images in one file: a tar, a zip archive or a table.
    former : str
        Path or URL of the file before it was renamed.

    Returns
    -------
    (Dataset, dict of str to str) or None
        None if the input is not one file, or has the same name as before.
    """
    paths = {shard.path for shard in dataset.shards}
    old = posixpath.basename(former.rstrip("/"))
    new = posixpath.basename(next(iter(paths), ""))
    if len(paths) != 1 or old == new or dataset.kind != "images":
        return None
    if not all(shard.name.startswith(new) for shard in dataset.shards):  # a folder
        return None
    old_stem, new_stem = posixpath.splitext(old)[0], posixpath.splitext(new)[0]

    def rename(path: str, before: str, after: str) -> str:
        folder, name = posixpath.split(path)
        return posixpath.join(folder, after + name.removeprefix(before)) if name.startswith(before) else path

    def current(path: str) -> str:
        return rename(path, old, new) if posixpath.basename(path) == old else rename(path, old_stem, new_stem)

    shards: list[ImageShard] = []
    prints: dict[str, str] = {}
    for shard in dataset.shards:
        names: dict[str, Any] = {"name": old + shard.name.removeprefix(new)}
        if prefix := getattr(shard, "prefix", ""):  # of the ids in a zip archive
            names["prefix"] = old_stem + prefix.removeprefix(new_stem)
        restored: Any = replace(shard, **names)  # type: ignore[type-var]
        places: dict[str, Any] = {"fs": _FormerNames(shard.fs, current), "path": rename(shard.path, new, old)}
        if table := getattr(shard, "table", None):  # beside a tar of img2dataset
            places["table"] = rename(table, new_stem, old_stem)
        prints[restored.name] = replace(restored, **places).fingerprint()
        shards.append(restored)
    return replace(dataset, shards=tuple(shards)), prints
