"""Finds the images in a folder: by their extensions, and where a name does not decide, by the first bytes.

On a store each look into a file is a request, so only some files of each ending are looked into there.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from fairdedup.datasets.filesystem import Entry, in_natural_order
from fairdedup.datasets.findings import name_ending
from fairdedup.datasets.image_formats import HEAD, IMAGE_EXTENSIONS, looks_like_image
from fairdedup.errors import format_count
from fairdedup.storage.plain_files import open_plain_file

LOOKS_PER_ENDING, LOOKS = 64, 1_024  # files of a store whose first bytes are read: of one ending, and of all

NO_IMAGES = frozenset(
    (
        *("txt", "caption", "cls", "json", "jsonl", "ndjson", "csv", "tsv", "md", "rst", "html", "htm", "xml", "yaml"),
        *("yml", "toml", "ini", "cfg", "log", "py", "ipynb", "sh", "js", "css", "db", "sqlite", "lock", "license"),
        *("tar", "gz", "tgz", "bz2", "tbz2", "tbz", "xz", "txz", "zst", "tzst", "zip", "7z", "rar", "idx", "index"),
        *("parquet", "pq", "arrow", "feather", "npy", "npz", "pt", "pth", "pkl", "h5", "hdf5", "mat", "safetensors"),
        *("mp4", "m4v", "mov", "avi", "mkv", "webm", "mp3", "wav", "flac", "pdf", "doc", "docx", "ps", "eps", "svg"),
        *("psd", "ai", "xcf", "dng", "cr2", "cr3", "nef", "nrw", "arw", "orf", "rw2", "raf", "pef", "srw", "raw"),
        *("exe", "dll", "so", "crc", "md5", "sha1", "sha256", "xmp", "aae", "thm"),
    )
)
"""Endings of files that are no images, so that nothing needs to be read. Raw photographs begin as TIFF files do."""


@dataclass
class FoundImages:
    """The files of a folder, sorted into images and others.

    Attributes
    ----------
    images, others : list of Entry
        The files, unordered.
    by_content : set of str
        Paths of the images that are recognised by their content.
    remarks : list of str
        Which files were judged by others of the same ending.
    """

    images: list[Entry] = field(default_factory=list)
    others: list[Entry] = field(default_factory=list)
    by_content: set[str] = field(default_factory=set)
    remarks: list[str] = field(default_factory=list)


def sort_images(fs: AbstractFileSystem, by_ending: dict[str, list[Entry]]) -> FoundImages:
    """Sort files into images and others. The first bytes of some files are read.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    by_ending : dict of str to list of Entry
        The files, by what follows the last dot of their names in lower case.
    """
    found, left = FoundImages(), LOOKS
    for ending, entries in sorted(by_ending.items()):
        if ending in IMAGE_EXTENSIONS:
            found.images += entries
        elif ending in NO_IMAGES:
            found.others += entries
        elif isinstance(fs, LocalFileSystem):
            _sort_out(found, entries, [entry.is_plain and _is_local_image(entry.path) for entry in entries])
        else:
            left -= _sort_some(fs, found, entries, min(LOOKS_PER_ENDING, left))
    return found


def _sort_out(found: FoundImages, entries: Sequence[Entry], is_image: Iterable[bool]) -> None:
    for entry, yes in zip(entries, is_image, strict=True):
        (found.images if yes else found.others).append(entry)
        if yes:
            found.by_content.add(entry.path)


def _is_local_image(path: str) -> bool:
    try:
        with open_plain_file(path, buffering=0) as file:
            return looks_like_image(file.read(HEAD))
    except (PermissionError, FileNotFoundError):
        return False


def _sort_some(fs: AbstractFileSystem, found: FoundImages, entries: list[Entry], limit: int) -> int:
    """Sort files of one ending on a store, of which no more than `limit` are looked into; return how many were."""
    ordered = in_natural_order(entry for entry in entries if entry.is_plain)
    found.others += [entry for entry in entries if not entry.is_plain]
    looked, rest = ordered[:limit], ordered[limit:]
    are_images = [looks_like_image(head) for head in _read_heads(fs, [entry.path for entry in looked])]
    _sort_out(found, looked, are_images)
    if rest:
        any_image = any(are_images)
        _sort_out(found, rest, [any_image] * len(rest))
        were, them, they_are = ("was", "it", "it is") if len(rest) == 1 else ("were", "them", "they are")
        done = f"{they_are} read as images" if any_image else f"{they_are} not read"
        found.remarks.append(
            f"{format_count(len(rest), 'file')} {_describe_ending(rest[0].name)} {were} judged by the {len(looked):,} "
            f"before {them}, of which {format_count(sum(are_images), 'is an image', 'are images')}: {done}"
        )
    return len(looked)


def _describe_ending(name: str) -> str:
    ending = name_ending(name)
    return f"that end in {ending}" if ending.startswith(".") else ending


def _read_heads(fs: AbstractFileSystem, paths: list[str]) -> list[bytes]:
    """Return the first bytes of files on a store, with one small request each, some at a time."""
    if not paths:
        return []
    heads = fs.cat_ranges(paths, [0] * len(paths), [HEAD] * len(paths), on_error="return")
    for head in heads:
        if isinstance(head, BaseException) and not _is_empty_or_missing(head):
            raise head
    return [b"" if isinstance(head, BaseException) else bytes(head) for head in heads]


def _is_empty_or_missing(error: BaseException) -> bool:
    if isinstance(error, FileNotFoundError) or getattr(error, "status", None) == 416:
        return True
    return isinstance(error, OSError) and error.errno == errno.EINVAL  # an empty object has no range
