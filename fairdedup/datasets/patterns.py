"""Expands brace patterns and globs to the files that they name, in the order of the pattern."""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Callable, Sequence

from braceexpand import braceexpand
from fsspec import AbstractFileSystem
from fsspec.utils import glob_translate

from fairdedup.datasets.filesystem import Entry, get_extension, is_on_web
from fairdedup.datasets.folder_tree import FolderTree, MatchedFiles
from fairdedup.datasets.format_registry import describe_shards, is_shard
from fairdedup.datasets.image_formats import IMAGE_EXTENSIONS
from fairdedup.datasets.image_search import NO_IMAGES
from fairdedup.errors import UserError

MAX_SHARDS = 1_000_000


def is_pattern(path: str) -> bool:
    """Tell whether a path that does not exist is meant as braces or a glob."""
    return any(letter in path for letter in "{*?[")


def expand_braces(pattern: str, source: str) -> list[str]:
    """Return the names that the braces of a pattern expand to; globs stay unchanged.

    Parameters
    ----------
    pattern : str
        A path with braces, globs, both or neither.
    source : str
        INPUT as the user gave it, for messages.

    Raises
    ------
    UserError
        If braces do not match, or expand to more than a million names.
    """
    for first, last in re.findall(r"\{(-?[0-9]+)\.\.(-?[0-9]+)", pattern):  # braceexpand holds every range in memory
        if len(first) > 18 or len(last) > 18 or abs(int(last) - int(first)) >= MAX_SHARDS:
            raise UserError(f"range {first}..{last} in {source!r} is over {MAX_SHARDS:,} shards: shorten the range")
    try:
        expanded = list(itertools.islice(braceexpand(pattern), MAX_SHARDS + 1))
    except ValueError:
        raise UserError(f"braces in {source!r} do not match: write them as 'data-{{00000..00014}}.tar'") from None
    if len(expanded) > MAX_SHARDS:
        raise UserError(f"pattern {source!r} names over {MAX_SHARDS:,} shards: split it into several inputs")
    return expanded


def split_pattern(fs: AbstractFileSystem, path: str) -> tuple[str, str]:
    """Return the folder before the first wildcard or brace of a pattern, and the rest of the pattern.

    A folder that exists is taken literally, whatever its name, so that patterns work below a folder such as ``a [b]``.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The pattern.
    """
    parts = path.split("/")
    fixed = next((k for k, part in enumerate(parts) if is_pattern(part)), len(parts) - 1)
    may_exist = not is_on_web(fs)  # a web server has an answer for nearly any name
    while may_exist and fixed < len(parts) - 1 and "*" not in parts[fixed] and fs.isdir("/".join(parts[: fixed + 1])):
        fixed = next((k for k in range(fixed + 1, len(parts)) if is_pattern(parts[k])), len(parts) - 1)
    return "/".join(parts[:fixed]) or ("/" if path.startswith("/") else ""), "/".join(parts[fixed:])


def expand_pattern(fs: AbstractFileSystem, path: str, source: str) -> list[str]:
    """Return the names that the braces of a pattern expand to, as `expand_braces` does; existing folders stay."""
    fixed, rest = split_pattern(fs, path)
    return [posixpath.join(fixed, name) for name in expand_braces(rest, source)]


def find_files(fs: AbstractFileSystem, path: str, names: Sequence[str], source: str) -> MatchedFiles:
    """Return the files that a pattern names.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The pattern.
    names : sequence of str
        Result of `expand_pattern`. Globs among them are looked up; other files must exist.
    source : str
        INPUT as the user gave it, for messages.

    Raises
    ------
    UserError
        If a named file is missing or of a kind that patterns cannot name, or if globs match nothing.
    """
    root, _ = split_pattern(fs, path)
    search = _Search(fs, root, source)
    for name in names:
        if any(letter in split_pattern(fs, name)[1] for letter in "*?["):
            search.add_glob(name)
        else:
            search.add_file(name, names)
    if not search.matched:
        folders = "; it names folders, so end it in '/**/*' to name the files in them" if search.folders else ""
        kind = "image" if get_extension(path) in IMAGE_EXTENSIONS else "shard"
        raise UserError(
            f"no {kind} matches {source!r}: check the pattern; it must name images, or files that end in "
            f"{describe_shards()}{folders}"
        )
    beside = [entry for path, entry in search.beside.items() if path not in search.matched]
    return MatchedFiles(fs, root, list(search.matched.values()), beside, search.names)


class _Search:
    """Looks up the parts of a pattern one after the other.

    Attributes
    ----------
    matched, beside : dict of str to Entry
        By path, the files that the pattern names, and all files of the folders that were listed.
    folders : int
        How many folders the pattern names.
    """

    def __init__(self, fs: AbstractFileSystem, root: str, source: str) -> None:
        self.fs, self.root, self.source = fs, root, source
        self.matched: dict[str, Entry] = {}
        self.beside: dict[str, Entry] = {}
        self.folders = 0
        self._matchers: list[Callable[[str], object]] = []
        self._trees: dict[tuple[str, int | None], FolderTree | None] = {}

    def names(self, relative: str) -> bool:
        """Tell by a path relative to the root whether the pattern names it."""
        return any(matches(relative) for matches in self._matchers)

    def add_glob(self, glob: str) -> None:
        """Look up the files that a glob names."""
        fixed, rest = split_pattern(self.fs, glob)
        try:
            rule = re.compile(glob_translate(rest)).fullmatch
        except ValueError:
            raise UserError(
                f"'**' in {self.source!r} is a part of a name: write it between slashes, as in 'a/**/*.jpg'"
            ) from None
        folder = _relative(fixed, self.root)
        start = f"{folder}/" if folder else ""
        self._matchers.append(lambda path: path.startswith(start) and rule(path[len(start) :]))
        if is_on_web(self.fs):  # its pages list other things than files
            found = self.fs.glob(glob, detail=True)
            entries = [self._entry(name) for name, info in found.items() if info["type"] != "directory"]
            self.matched |= {e.path: e for e in entries if not e.name.startswith(".")}
            if any(get_extension(entry.name) in IMAGE_EXTENSIONS for entry in entries):
                for parent in dict.fromkeys(posixpath.dirname(entry.path) for entry in entries):
                    self._add_beside(parent)
            return
        tree = self._list(fixed, None if "**" in rest else rest.count("/") + 1)
        if tree is None:
            return
        self.folders += sum(rule(name) is not None for name in tree.folders if name)
        self.folders += sum(entry.is_dir and rule(entry.name) is not None for entry in tree.top)
        for entry in tree.files:
            moved = entry._replace(folder=posixpath.join(folder, entry.folder) if entry.folder else folder)
            if rule(entry.relative):
                self.matched[entry.path] = moved
            self.beside[entry.path] = moved

    def add_file(self, path: str, names: Sequence[str]) -> None:
        """Look up a file that the braces of a pattern name; `names` are all of them."""
        ending = get_extension(path)
        is_known = ending in IMAGE_EXTENSIONS or is_shard(path)
        is_image = ending in IMAGE_EXTENSIONS or (not is_known and ending not in NO_IMAGES and self.fs.isfile(path))
        if not is_image and not is_known:
            is_folder = self.fs.isdir(path)
            remedy = (
                "end it in '/**/*' to name the files in it"
                if is_folder
                else (f"patterns name images, or files that end in {describe_shards()}")
            )
            kind = "a folder" if is_folder else "not a shard or an image"
            raise UserError(f"pattern {self.source!r} names {posixpath.basename(path)!r}, which is {kind}: {remedy}")
        entry = self._entry(path)
        if is_image and path not in self.beside:
            self._add_beside(posixpath.dirname(path))
        if path not in self.beside and not self.fs.isfile(path):
            there = sum(self.fs.isfile(other) for other in names)
            kind = "image" if is_image else "shard"
            raise UserError(
                f"{kind} {path!r} of {self.source!r} is missing ({there:,} of {len(names):,} are there): "
                f"correct the pattern or add the {kind}"
            )
        self.matched[path] = self.beside.get(path, entry)
        self._matchers.append(entry.relative.__eq__)

    def _entry(self, path: str) -> Entry:
        folder, name = posixpath.split(path)
        return Entry(name, path, False, _relative(folder, self.root))

    def _list(self, folder: str, depth: int | None) -> FolderTree | None:
        """Return the contents of a folder, which is listed once; None if there is no such folder."""
        if (folder, depth) not in self._trees:
            try:
                self._trees[folder, depth] = FolderTree(self.fs, folder, depth)
            except (FileNotFoundError, NotADirectoryError):
                self._trees[folder, depth] = None
        return self._trees[folder, depth]

    def _add_beside(self, folder: str) -> None:
        """Note what else is in a folder of images, unless only reading is allowed in it, not listing."""
        try:
            tree = self._list(folder, 1)
        except Exception as error:
            if isinstance(error, UserError | PermissionError) or getattr(error, "status", None) in (403, 404, 405):
                return
            raise
        if tree is not None:
            place = _relative(folder, self.root)
            self.beside |= {found.path: found._replace(folder=place) for found in tree.files}


def _relative(folder: str, root: str) -> str:
    return "" if folder == root else posixpath.relpath(folder, root or ".")
