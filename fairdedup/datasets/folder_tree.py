"""Walks a folder and all folders below it once, and groups what it finds by the ending of its name.

A link that leads back to a folder above it is not followed. Nothing is opened.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from fairdedup.datasets.filesystem import Entry, in_natural_order, scan_entries
from fairdedup.datasets.image_search import FoundImages, sort_images

RUN_ENTRIES = {"config.json", "embeddings"}  # the names by which the directory of a run is recognised


class FolderTree:
    """The contents of a folder. Its own entries are listed at once, those of its sub-folders when they are needed.

    Hidden names are left out at every depth. Each folder is listed once.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    root : str
        The folder's path on it.
    depth : int or None
        How many folders deep files are looked for, 1 for the folder alone; None for all.
    """

    beside: Sequence[Entry] = ()
    names: Callable[[str], bool] | None = None

    def __init__(self, fs: AbstractFileSystem, root: str, depth: int | None = None) -> None:
        self.fs, self.root, self.depth = fs, root, depth
        self.top = scan_entries(fs, root)
        self._runs: list[str] = []

    @cached_property
    def by_ending(self) -> dict[str, list[Entry]]:
        """Files at any depth by what follows the last dot of their names, in lower case ("" without one), unordered."""
        groups: defaultdict[str, list[Entry]] = defaultdict(list)
        for entries in self._walked.values():
            for entry in entries:
                if not entry.is_dir:
                    groups[_ending(entry.name)].append(entry)
        return dict(groups)

    @property
    def folders(self) -> set[str]:
        """Relative paths of all folders; "" is the folder itself."""
        return set(self._walked)

    @property
    def files(self) -> list[Entry]:
        """Files at any depth, in natural order of their relative paths."""
        return in_natural_order(entry for entries in self.by_ending.values() for entry in entries)

    @cached_property
    def count(self) -> int:
        """Number of files at any depth."""
        return sum(map(len, self.by_ending.values()))

    def with_endings(self, extensions: Iterable[str]) -> list[Entry]:
        """Return the files whose names end in one of some extensions, such as ".tar.gz", in natural order."""
        wanted = tuple(extensions)
        found = [e for ending in {_ending(one) for one in wanted} for e in self.by_ending.get(ending, ())]
        return in_natural_order(entry for entry in found if entry.name.lower().endswith(wanted))

    @cached_property
    def images(self) -> FoundImages:
        """The files, sorted into images and others; the first bytes of some are read."""
        return sort_images(self.fs, self.by_ending)

    @cached_property
    def special(self) -> set[str]:
        """Paths of pipes, sockets, devices and broken links, which must not be opened."""
        return {entry.path for entries in self._walked.values() for entry in entries if not entry.is_plain}

    @property
    def runs(self) -> list[str]:
        """Relative paths of the directories of runs, which are left out: a run may be written into its own input."""
        _ = self._walked
        return sorted(self._runs)

    @cached_property
    def _walked(self) -> dict[str, list[Entry]]:
        """The entries of every folder, by its relative path; a folder always precedes those in it."""
        walked = {"": self.top}
        todo: list[tuple[str, str, int, frozenset[Any]]] = [("", self.root, 1, frozenset())]
        while todo:
            relative, path, depth, above = todo.pop()
            identity = _identify(self.fs, path)
            if identity in above:  # a link to a folder that contains it
                continue
            if relative:
                found = scan_entries(self.fs, path, relative)
                if {entry.name for entry in found} >= RUN_ENTRIES:
                    self._runs.append(relative)
                    continue
                walked[relative] = found
            if depth != self.depth:
                todo += [
                    (entry.relative, entry.path, depth + 1, above | {identity})
                    for entry in walked[relative]
                    if entry.is_dir
                ]
        return walked


class MatchedFiles(FolderTree):
    """The files that a pattern names, as if they were all that is in the folder before its first wildcard.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    root : str
        The folder before the pattern's first wildcard or brace.
    matched : list of Entry
        The files that the pattern names.
    beside : list of Entry
        The other files of the folders in which they are.
    names : callable
        Tells by a relative path whether the pattern names it.
    """

    def __init__(
        self,
        fs: AbstractFileSystem,
        root: str,
        matched: list[Entry],
        beside: list[Entry],
        names: Callable[[str], bool],
    ) -> None:
        self.fs, self.root, self.depth = fs, root, 1
        self.top, self.beside, self.names = matched, beside, names
        self._runs = []


def _ending(name: str) -> str:
    head, dot, ending = name.rpartition(".")
    return ending.lower() if dot else ""


def _identify(fs: AbstractFileSystem, folder: str) -> Any:
    if not isinstance(fs, LocalFileSystem):
        return folder
    stat = os.stat(folder)
    return stat.st_dev, stat.st_ino
