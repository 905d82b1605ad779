"""Shards of image files with their companions: consecutive files of a folder, or of a zip archive.

Companions are captions (``.txt``, ``.caption``), columns (``.json``), classes (``.cls``) and lines of metadata files.
"""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Self

from fsspec import AbstractFileSystem

from fairdedup.datasets.columns import CAPTION_COLUMNS
from fairdedup.datasets.dataset import Metadata, Sample
from fairdedup.datasets.filesystem import Unreadable, fingerprint, open_file, read_file, to_valid_text
from fairdedup.datasets.findings import Findings
from fairdedup.datasets.images import MAX_IMAGE_BYTES
from fairdedup.datasets.reserved_columns import rename_reserved
from fairdedup.datasets.sidecars import MAX_TEXT_BYTES, combine_sidecars, parse_class, parse_json
from fairdedup.datasets.zip_members import read_member

Read = Callable[[str, int], bytes]
"""Returns the bytes of a file of a shard, by its relative path, if they are no more than a limit; else Unreadable."""


@dataclass(frozen=True)
class Listed:
    """One sample of a folder: the image and its companion files, as relative paths.

    Attributes
    ----------
    path : str
        The image.
    text, json : str or None
        The caption file, and the .json file.
    columns : dict or None
        The columns of the image in a metadata file.
    error : str or None
        Why the sample is rejected without being read.
    label : str or None
        The .cls file.
    """

    path: str
    text: str | None = None
    json: str | None = None
    columns: Metadata | None = None
    error: str | None = None
    label: str | None = None

    @property
    def names(self) -> list[str]:
        """The image and its companion files."""
        return [name for name in (self.path, self.text, self.json, self.label) if name is not None]


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
    first : int
        Position of the first of them, in a part of a shard.
    """

    fs: AbstractFileSystem
    path: str
    name: str
    files: tuple[Listed, ...]
    first: int = 0

    @property
    def rows(self) -> int:
        """Number of files."""
        return len(self.files)

    def make_id(self, path: str) -> str:
        """Return the id of the sample with this path."""
        return to_valid_text(path)

    def reader(self) -> AbstractContextManager[Read]:
        """Return a context in which files of the shard can be read."""
        return nullcontext(lambda name, limit: read_file(self.fs, posixpath.join(self.path, name), limit))

    def read(self, findings: Findings | None = None) -> Iterator[Sample]:
        """Yield every file as a sample, in natural order."""
        with self.reader() as read:
            for position, listed in enumerate(self.files, self.first):
                yield self.read_sample(position, listed, read)

    @property
    def is_seekable(self) -> bool:
        """Whether a part of the samples can be read at little more than its own cost: always."""
        return True

    def select(self, start: int, stop: int) -> Self:
        """Return the shard with the samples at positions from start to stop only; they keep their positions."""
        return replace(self, files=self.files[start:stop], first=start)

    def read_sample(self, position: int, listed: Listed, read: Read) -> Sample:
        """Return one sample.

        Parameters
        ----------
        position : int
            Its position in the shard.
        listed : Listed
            Its files.
        read : callable
            What `reader` has given.
        """
        image, error, id_ = None, listed.error, self.make_id(listed.path)
        if error is None:
            try:
                image = read(listed.path, MAX_IMAGE_BYTES)
            except Unreadable as fault:
                error = str(fault)
        caption, metadata = _read_companions(listed, id_, read)
        return Sample(position, id_, image, caption, metadata, source=id_, error=error)

    def fingerprint(self) -> str:
        """Return a short text that changes when a file's name, size or time does."""
        names = [posixpath.join(self.path, name) for listed in self.files for name in listed.names]
        return fingerprint(self.fs, *names, label=self._label())

    def _label(self) -> str:
        from_metadata = [
            repr((listed.path, listed.columns, listed.error)) for listed in self.files if listed.columns or listed.error
        ]
        return "\0".join([self.name, *(listed.path for listed in self.files), *from_metadata])


@dataclass(frozen=True)
class ZipShard(FolderShard):
    """Consecutive image files of one zip archive, which is `path` on `fs`.

    Attributes
    ----------
    prefix : str
        Text before every id.
    """

    prefix: str = ""

    def make_id(self, path: str) -> str:
        """Return the id of the sample with this path in the archive."""
        return to_valid_text(self.prefix + path)

    @contextmanager
    def reader(self) -> Iterator[Read]:
        """Open the archive."""
        with open_file(self.fs, self.path) as raw, zipfile.ZipFile(raw) as archive:
            yield lambda name, limit: read_member(archive, name, limit)

    def fingerprint(self) -> str:
        """Return a short text that changes when the archive's name, size or time does, or the files chosen from it."""
        return fingerprint(self.fs, self.path, label="\0".join([self.prefix, self._label()]))


def _read_companions(listed: Listed, id_: str, read: Read) -> tuple[str | None, Metadata]:
    """Return the caption and the metadata of a sample."""
    notes: Metadata = {}

    def content(name: str | None, note: str) -> bytes | None:
        try:
            return read(name, MAX_TEXT_BYTES) if name is not None else None
        except Unreadable as fault:
            notes[note] = str(fault)
            return None

    text = content(listed.text, "caption_error")
    json = content(listed.json, "json_error")
    label = content(listed.label, "cls_error")
    columns = parse_json(json) if json is not None else {}
    names = rename_reserved(columns, {"path"})
    columns = {names[name]: value for name, value in columns.items()}
    caption, _ = combine_sidecars(text, columns)
    caption, table = _apply_columns(caption, listed.columns or {})
    added: Metadata = {"path": id_} | (parse_class(label) if label is not None else {}) | notes
    names = rename_reserved(table, {"id", "caption", *added})
    own = added | {names[name]: value for name, value in table.items()}
    _, metadata = combine_sidecars(text, columns, own)
    return caption, {"path": id_} | metadata


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
    return caption, own
