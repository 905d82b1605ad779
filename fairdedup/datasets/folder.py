"""Reads a folder of image files with their companions: ``.txt`` captions, ``.json`` columns, metadata files.

The id is the relative path; a shard is 1,000 consecutive files in natural order.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from fsspec import AbstractFileSystem

from fairdedup.datasets.columns import CAPTION_COLUMNS
from fairdedup.datasets.dataset import Dataset, Metadata, Sample
from fairdedup.datasets.filesystem import (
    Unreadable,
    fingerprint,
    get_extension,
    natural_key,
    read_file,
    to_valid_text,
)
from fairdedup.datasets.findings import Findings
from fairdedup.datasets.folder_tree import FolderTree
from fairdedup.datasets.format_registry import describe_folders
from fairdedup.datasets.images import IMAGE_EXTENSIONS, MAX_IMAGE_BYTES
from fairdedup.datasets.img2dataset import read_downloads
from fairdedup.datasets.input_format import DocumentedInput, InputFormat, InputSource, ReadOptions
from fairdedup.datasets.listing import METADATA_FILES, read_lines, resolve_file_name
from fairdedup.datasets.rows import is_parquet
from fairdedup.datasets.sidecars import MAX_TEXT_BYTES, combine_sidecars, parse_columns
from fairdedup.errors import UserError

SHARD_FILES = 1_000


@dataclass(frozen=True)
class Listed:
    """One sample of a folder: the image and its companion files, as relative paths.

    Attributes
    ----------
    path : str
        The image.
    text, json : str or None
        The .txt and the .json file of the same stem.
    columns : dict or None
        The columns of the image in a metadata file.
    error : str or None
        Why the sample is rejected without being read.
    """

    path: str
    text: str | None = None
    json: str | None = None
    columns: Metadata | None = None
    error: str | None = None


@dataclass(frozen=True)
class FolderShard:
    """Consecutive image files of one folder and its sub-folders.

    Attributes
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The folder.
    name : str
        The shard's name.
    files : tuple of Listed
        The samples.
    """

    fs: AbstractFileSystem
    path: str
    name: str
    files: tuple[Listed, ...]

    @property
    def rows(self) -> int:
        """Number of files."""
        return len(self.files)

    def read(self, findings: Findings | None = None) -> Iterator[Sample]:
        """Yield every file as a sample, in natural order."""
        for position, listed in enumerate(self.files):
            image, error = None, listed.error
            notes: dict[str, str] = {}
            if error is None:
                try:
                    image = read_file(self.fs, posixpath.join(self.path, listed.path), MAX_IMAGE_BYTES)
                except Unreadable as fault:
                    error = str(fault)
            text = self._read_companion(listed.text, "caption_error", notes)
            json = self._read_companion(listed.json, "json_error", notes)
            caption, metadata = combine_sidecars(text, parse_columns(json) if json is not None else {})
            caption, own = _apply_columns(caption, listed.columns or {})
            path = to_valid_text(listed.path)
            yield Sample(
                position=position,
                id=path,
                image=image,
                caption=caption,
                metadata={"path": path} | _prefix_names(metadata | own, "path") | notes,
                source=path,
                error=error,
            )

    def _read_companion(self, name: str | None, note: str, notes: dict[str, str]) -> bytes | None:
        if name is None:
            return None
        try:
            return read_file(self.fs, posixpath.join(self.path, name), MAX_TEXT_BYTES)
        except Unreadable as fault:
            notes[note] = str(fault)
            return None

    def fingerprint(self) -> str:
        """Return a short text that changes when a file's name, size or time does."""
        names = [name for listed in self.files for name in (listed.path, listed.text, listed.json) if name is not None]
        from_metadata = [
            repr((listed.path, listed.columns, listed.error)) for listed in self.files if listed.columns or listed.error
        ]
        label = "\0".join([self.name, *(listed.path for listed in self.files), *from_metadata])
        return fingerprint(self.fs, *(posixpath.join(self.path, name) for name in names), label=label)


def _apply_columns(caption: str | None, columns: Metadata) -> tuple[str | None, Metadata]:
    """Return the caption, taken from a metadata file's columns if no other was found, and the other columns."""
    own = dict(columns)
    name = next((name for name in CAPTION_COLUMNS if name in own), None)
    if caption is None and name is not None:
        value = own[name]
        value = value if value is None or isinstance(value, str) else value.as_py() if hasattr(value, "as_py") else None
        if isinstance(value, str):
            caption = value.strip() or None
            del own[name]
    return caption, _prefix_names(own, "id", "caption")


def _prefix_names(columns: Metadata, *reserved: str) -> Metadata:
    """Return the columns; those with a reserved name get ``input_`` before it."""
    return {f"input_{name}" if name in reserved else name: value for name, value in columns.items()}


class ImageFolder(InputFormat):
    """A folder of image files. Any folder can be one, so this format is tried last."""

    name = "folder"
    folder_title = "images"
    is_fallback = True
    documentation = (
        DocumentedInput(
            "a folder of images",
            f"{', '.join(IMAGE_EXTENSIONS)}, in sub-folders too; of the same stem a `.txt` as caption and a `.json` as "
            "metadata; [metadata files](#image-folders-with-metadata)",
            "relative path",
        ),
    )

    def recognises(self, source: InputSource) -> bool:
        """Tell whether the input is a folder, or a single image, which `open` refuses with a remedy."""
        return source.kind == "folder" or (
            source.kind == "files" and get_extension(source.paths[0]) in IMAGE_EXTENSIONS
        )

    def open(self, source: InputSource, options: ReadOptions) -> Dataset:
        """Return shards of 1,000 files. Only file names and metadata files are read.

        Raises
        ------
        UserError
            If the folder has no images (the message says what it has instead), or the input is a single image.
        """
        if source.kind != "folder":
            raise UserError(f"{source.text!r} is a single image: give the folder that contains it")
        fs, root = source.fs, source.paths[0]
        found = _list_images(source.tree or FolderTree(fs, root))
        if not found.images and not found.tables:
            raise UserError(_explain_no_images(source.text, found.others))
        rejected: list[Listed] = []
        for table in found.tables:
            rejected += _apply(fs, root, table, found.images)
        for name in found.downloads:
            rejected += _failed_downloads(fs, root, name)
        if not found.images and not rejected:
            raise UserError(_explain_no_images(source.text, found.others))
        ordered = sorted([*found.images.values(), *rejected], key=lambda listed: natural_key(listed.path))
        shards = tuple(
            FolderShard(fs, root, f"files-{start // SHARD_FILES:05d}", tuple(ordered[start : start + SHARD_FILES]))
            for start in range(0, len(ordered), SHARD_FILES)
        )
        return Dataset(kind="images", format=self.name, source=source.text, shards=shards)


@dataclass
class _Contents:
    """The content of a folder and its sub-folders.

    Attributes
    ----------
    images : dict of str to Listed
        Image files by relative path, with the caption and JSON files of the same stem.
    tables : list of str
        Metadata files, one for each folder that has any.
    downloads : list of str
        img2dataset's tables at the top, whose images are in a folder of the same stem.
    others : Counter of str
        How many files of each other extension there are.
    """

    images: dict[str, Listed] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)
    downloads: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


def _list_images(tree: FolderTree) -> _Contents:
    found = _Contents()
    top: list[str] = []
    folders: set[str] = set()
    for folder, entries in tree._walked.items():
        names = [e.name for e in entries if not e.is_dir]
        folders.add(folder)
        top = names if not folder else top
        texts = {posixpath.splitext(name)[0]: name for name in names if get_extension(name) == "txt"}
        jsons = {posixpath.splitext(name)[0]: name for name in names if get_extension(name) == "json"}
        found.tables += [posixpath.join(folder, name) for name in METADATA_FILES if name in names][:1]
        for name in names:
            if get_extension(name) in IMAGE_EXTENSIONS:
                stem = posixpath.splitext(name)[0]
                text, json = (names_of_kind.get(stem) for names_of_kind in (texts, jsons))
                path = posixpath.join(folder, name)
                found.images[path] = Listed(
                    path, text and posixpath.join(folder, text), json and posixpath.join(folder, json)
                )
            else:
                found.others[f".{get_extension(name)}" if get_extension(name) else "without extension"] += 1
    found.downloads = [name for name in top if is_parquet(name) and posixpath.splitext(name)[0] in folders]
    return found


def _apply(fs: AbstractFileSystem, root: str, table: str, files: dict[str, Listed]) -> list[Listed]:
    """Add the columns of a metadata file to the files, and return its lines that are rejected rows."""
    faults = []
    for number, (name, columns, fault) in enumerate(read_lines(fs, posixpath.join(root, table)), 1):
        path = resolve_file_name(posixpath.dirname(table), name) if name is not None else None
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


def _failed_downloads(fs: AbstractFileSystem, root: str, table: str) -> list[Listed]:
    """Return the rows of an img2dataset table whose download failed: their files were never written."""
    stem = posixpath.splitext(table)[0]
    downloads = read_downloads(fs, posixpath.join(root, table))
    return [Listed(table if key is None else f"{stem}/{key}", error=why) for key, why in downloads if why is not None]


def _explain_no_images(source: str, others: Counter[str]) -> str:
    kinds = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    found = ", ".join(f"{count:,} {to_valid_text(kind)!r}" for kind, count in kinds[:5])
    more = f" and {len(kinds) - 5} other kinds" if len(kinds) > 5 else ""
    if not others:
        return f"folder {source!r} holds no files: give a folder with {describe_folders()} in it"
    if others[".tar"]:
        remedy = f"for shards in its sub-folders give the pattern {source.rstrip('/') + '/**/*.tar'!r}"
    elif others[".parquet"]:
        remedy = f"for Parquet files in its sub-folders give the pattern {source.rstrip('/') + '/**/*.parquet'!r}"
    elif others[".npy"]:
        remedy = "for embeddings give one .npy file or the folder that holds img_emb/"
    else:
        kinds_read = " ".join(IMAGE_EXTENSIONS)
        remedy = f"give a folder with {describe_folders()} in it; images are {kinds_read}"
    return f"folder {source!r} holds no images, but {found}{more}: {remedy}"
