"""Sorts the files of a folder into images, their companions and metadata files; what is left is counted as unused."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace

from fsspec import AbstractFileSystem

from fairdedup.datasets.filesystem import Entry, get_extension, natural_key, to_valid_text
from fairdedup.datasets.findings import name_ending
from fairdedup.datasets.folder_shards import Listed
from fairdedup.datasets.img2dataset import read_downloads
from fairdedup.datasets.listing import METADATA_FILES, ForeignMetadata, Line, read_lines, resolve_file_name
from fairdedup.datasets.rows import is_parquet
from fairdedup.datasets.sidecars import CAPTION_ENDINGS, SIDECAR_ENDINGS
from fairdedup.errors import format_count


@dataclass
class ImageList:
    """The samples of a folder of images, and what else is in it.

    Attributes
    ----------
    rows : list of Listed
        Images, and lines of metadata files that have no image, in natural order of their paths.
    unused : Counter of str
        How many files no sample uses, by ending.
    used : set of str
        Relative paths of companions and metadata files.
    remarks : list of str
        Which metadata files are not used, and why.
    """

    rows: list[Listed] = field(default_factory=list)
    unused: Counter[str] = field(default_factory=Counter)
    used: set[str] = field(default_factory=set)
    remarks: list[str] = field(default_factory=list)


def list_samples(
    fs: AbstractFileSystem,
    root: str,
    images: Iterable[Entry],
    others: Iterable[Entry],
    *,
    folders: Collection[str] = (),
    is_wanted: Callable[[str], bool] | None = None,
) -> ImageList:
    """Return the samples of a folder of images.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    root : str
        The folder's path on it.
    images : iterable of Entry
        The image files.
    others : iterable of Entry
        All other files.
    folders : collection of str
        Relative paths of its sub-folders. A NAME.parquet beside the folder NAME may be img2dataset's table.
    is_wanted : callable or None
        Tells by a relative path whether the lines of metadata files for it belong to the input; None if all do.

    Raises
    ------
    UserError
        If a metadata file is damaged.
    """
    found = ImageList()
    rest = {entry.relative: entry for entry in others}
    listed, used = _pair(images, rest)
    rejected: list[Listed] = []
    foreign: list[tuple[str, str]] = []
    for names in _metadata_files(rest.values()):
        for name in names:
            try:
                lines = read_lines(fs, posixpath.join(root, name))
            except ForeignMetadata as fault:
                foreign.append((name, str(fault)))
                continue
            used.add(name)
            rejected += _apply(name, lines, listed, is_wanted)
            break
    for name in sorted(name for name, entry in rest.items() if entry.is_plain and is_parquet(entry.name)):
        failed = _failed_downloads(fs, root, name) if posixpath.splitext(name)[0] in folders else None
        if failed is not None:
            used |= {name, f"{posixpath.splitext(name)[0]}_stats.json"}
            rejected += failed
    found.rows = sorted([*listed.values(), *rejected], key=lambda row: natural_key(row.path))
    found.used = used
    found.unused = Counter(name_ending(entry.name) for name, entry in rest.items() if name not in used)
    found.remarks = _describe_foreign(foreign)
    return found


def _pair(images: Iterable[Entry], others: dict[str, Entry]) -> tuple[dict[str, Listed], set[str]]:
    """Return the images by relative path, with their companion files, and the names of the companions."""
    stems: dict[str, dict[str, str]] = {}  # ending -> path without it -> companion
    for name, entry in others.items():
        ending = get_extension(entry.name)
        if ending in SIDECAR_ENDINGS:
            of_ending = stems.setdefault(ending, {})
            stem = name[: -len(ending) - 1]
            of_ending[stem] = max(name, of_ending.get(stem, ""))  # a.txt rather than a.TXT
    if not stems:
        return {path: Listed(path) for path in (entry.relative for entry in images)}, set()
    listed, used = {}, set()
    for entry in images:
        path = entry.relative
        stem = posixpath.splitext(path)[0]
        beside = {e: names[s] for e, names in stems.items() for s in (path, stem) if s in names}
        text = next((beside[ending] for ending in CAPTION_ENDINGS if ending in beside), None)
        listed[path] = Listed(path, text, beside.get("json"), label=beside.get("cls"))
        if beside:
            used.update(listed[path].names[1:])
    return listed, used


def _metadata_files(others: Iterable[Entry]) -> list[list[str]]:
    """Return for every folder that has any its metadata files, in order of precedence; parents come first."""
    by_folder: dict[str, set[str]] = {}
    for entry in others:
        if entry.name in METADATA_FILES and entry.is_plain:
            by_folder.setdefault(entry.folder, set()).add(entry.name)
    return [
        [posixpath.join(folder, name) for name in METADATA_FILES if name in names]
        for folder, names in sorted(by_folder.items())
    ]


def _apply(
    table: str, lines: list[Line], files: dict[str, Listed], is_wanted: Callable[[str], bool] | None
) -> list[Listed]:
    """Add the columns of a metadata file to the files, and return its lines that are rejected rows."""
    faults = []
    for number, (name, columns, fault) in enumerate(lines, 1):
        path = resolve_file_name(posixpath.dirname(table), name) if name is not None else None
        if is_wanted is not None and (path is None or (path not in files and not is_wanted(path))):
            continue
        if fault is None and path is None:
            fault = "path leads out of the data set's folder" if name else "no file_name"
        if fault is None and path is not None and path in files and files[path].columns is not None:
            fault = f"listed twice in {to_valid_text(posixpath.basename(table))}"
        elif fault is not None and path is not None and path in files and files[path].columns is None:
            files[path] = replace(files[path], columns={"metadata_error": fault})  # the image itself is still good
            continue
        if fault is not None or path is None:
            faults.append(Listed(f"{table}#{number}" if path is None else path, error=fault))
        else:  # a listed file that does not exist is noticed when it is read
            files[path] = replace(files.get(path, Listed(path)), columns=columns)
    return faults


def _failed_downloads(fs: AbstractFileSystem, root: str, table: str) -> list[Listed] | None:
    """Return the rows of an img2dataset table whose download failed; None for a table of another kind."""
    stem = posixpath.splitext(table)[0]
    downloads = list(read_downloads(fs, posixpath.join(root, table)))
    if not downloads:
        return None
    return [Listed(table if key is None else f"{stem}/{key}", error=why) for key, why in downloads if why is not None]


def _describe_foreign(foreign: list[tuple[str, str]]) -> list[str]:
    if not foreign:
        return []
    name, why = foreign[0]
    more = (
        f", and {format_count(len(foreign) - 1, 'other metadata file is', 'other metadata files are')} not used either"
        if len(foreign) > 1
        else ""
    )
    return [
        f"metadata file {to_valid_text(name)!r} is not used: {why}{more}; to use it, name the column of image files "
        "'file_name'"
    ]
