"""Reads WebDataset tar shards: consecutive members with one key are one sample.

Shards are streamed from the first byte to the last; no member is ever written to disk, under any name.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from fsspec import AbstractFileSystem

from fairdedup.datasets.dataset import Dataset, Sample
from fairdedup.datasets.filesystem import (
    Entry,
    fingerprint,
    get_extension,
    list_entries,
    natural_key,
    open_file,
    to_valid_text,
)
from fairdedup.datasets.findings import Findings
from fairdedup.datasets.images import IMAGE_EXTENSIONS, MAX_IMAGE_BYTES
from fairdedup.datasets.img2dataset import read_downloads
from fairdedup.datasets.input_format import DocumentedInput, InputSource, ReadOptions, ShardFormat
from fairdedup.datasets.rows import is_parquet
from fairdedup.datasets.sidecars import MAX_TEXT_BYTES, combine_sidecars, parse_columns
from fairdedup.datasets.tar import DamagedTar, read_members
from fairdedup.errors import UserError

TAR_EXTENSIONS = (".tar", ".tar.gz", ".tgz")

_TEXT_UNREAD = f"larger than {MAX_TEXT_BYTES >> 20} MiB, or cut off"

# WebDataset's rule: the key ends at the first dot of the base name. Hidden names and names without a dot belong to
# no sample.
_MEMBER = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)


@dataclass
class _KeyMembers:
    """The members of one key, as far as they have been read.

    Attributes
    ----------
    key : str
        The key.
    image, text, json : bytes or None
        The members that make up a sample.
    image_member : str or None
        The name of the image.
    repeated : str or None
        A member whose suffix another member of the key has already.
    suffixes : set of str
        The suffixes of all members.
    notes : dict of str to str
        Why a caption or JSON was not read, by the name of the metadata column that records it.
    """

    key: str
    image: bytes | None = None
    image_member: str | None = None
    text: bytes | None = None
    json: bytes | None = None
    repeated: str | None = None
    suffixes: set[str] = field(default_factory=set)
    notes: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, suffix: str, data: bytes | None) -> None:
        """Store what the sample needs from a member; data are None if it is too large, or cut off."""
        suffix = suffix.lower()
        if suffix in self.suffixes:  # WebDataset refuses this, since it would lose one of the two
            self.repeated = name
        self.suffixes.add(suffix)
        if suffix == "txt":
            self.text = data
            if data is None:
                self.notes["caption_error"] = _TEXT_UNREAD
        elif suffix == "json":
            self.json = data
            if data is None:
                self.notes["json_error"] = _TEXT_UNREAD
        elif get_extension(name) in IMAGE_EXTENSIONS and self._better(suffix):
            self.image_member = name
            self.image = data

    def error(self) -> str | None:
        """Return why the sample has no usable image, or None."""
        if self.repeated is not None:
            return f"two members named {to_valid_text(self.repeated)}"
        if self.image_member is None:
            return f"no image member for key {to_valid_text(self.key)}"
        return None if self.image is not None else f"image larger than {MAX_IMAGE_BYTES >> 20} MiB"

    def _better(self, suffix: str) -> bool:
        """Tell whether this is the first image, or the first plain one (``.jpg``) after a ``.mask.png``."""
        if self.image_member is None:
            return True
        earlier = split_member_name(self.image_member)
        return earlier is not None and "." in earlier[1] and "." not in suffix


@dataclass(frozen=True)
class TarShard:
    """One tar file of image samples.

    Attributes
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The tar file.
    name : str
        Its path below the folder that all shards have in common.
    id_from : {"key", "shard/key"}
        Whether ids have the shard's name before them.
    table : str or None
        The NAME.parquet that img2dataset writes next to NAME.tar.
    """

    fs: AbstractFileSystem
    path: str
    name: str
    id_from: str = "key"
    table: str | None = None

    @property
    def rows(self) -> None:
        """Number of samples: always None, since it is known only after reading the tar."""
        return None

    def read(self, findings: Findings | None = None) -> Iterator[Sample]:
        """Yield every sample in the order of the tar, then the failed downloads in the order of their table."""
        position = 0
        keys = set()
        for sample in self._read_tar():
            position += 1
            keys.add(sample.id)
            yield sample
        for key, why in read_downloads(self.fs, self.table) if self.table is not None else ():
            name = self.name if key is None else to_valid_text(self.make_id(key))
            if name not in keys:
                why = why or "img2dataset has it as a success, but the tar does not hold it"
                source = to_valid_text(self.name if key is None else f"{self.name}/{key}")
                yield Sample(position=position, id=name, image=None, source=source, error=why)
                position += 1

    def _read_tar(self) -> Iterator[Sample]:
        """Yield every sample in the order of the tar. A damaged tar ends with a rejected sample that says so."""
        position = 0
        group: _KeyMembers | None = None
        damage: str | None = None
        with open_file(self.fs, self.path) as raw:
            try:
                for name, data in read_members(raw, _limit):
                    parts = split_member_name(name)
                    if parts is None:
                        continue
                    key, suffix = parts
                    if group is not None and group.key != key:
                        yield self._sample(position, group)
                        position += 1
                        group = None
                    if group is None:
                        group = _KeyMembers(key)
                    group.add(name, suffix, data)
            except DamagedTar as fault:
                damage = str(fault)
        if group is not None and (damage is None or group.image is not None):
            yield self._sample(position, group)
            position += 1
            group = None
        if damage is not None:  # a key whose image is lost to the damage names the rejected row
            yield Sample(
                position=position,
                id=to_valid_text(self.name if group is None else self.make_id(group.key)),
                image=None,
                source=to_valid_text(self.name if group is None else f"{self.name}/{group.key}"),
                error=damage,
            )

    def _sample(self, position: int, group: _KeyMembers) -> Sample:
        columns = parse_columns(group.json) if group.json is not None else {}
        caption, metadata = combine_sidecars(group.text, columns)
        error = group.error()
        return Sample(
            position=position,
            id=to_valid_text(self.make_id(group.key)),
            image=group.image if error is None else None,
            caption=caption,
            metadata=metadata | group.notes,
            source=to_valid_text(f"{self.name}/{group.image_member or group.key}"),
            error=error,
        )

    def make_id(self, key: str) -> str:
        """Return the id of the sample with this key."""
        return f"{strip_tar_extension(self.name)}/{key}" if self.id_from == "shard/key" else key

    def fingerprint(self) -> str:
        """Return a short text that changes when the file's name, size or time does."""
        paths = (path for path in (self.path, self.table) if path is not None)
        return fingerprint(self.fs, *paths, label=self.name)


def _limit(name: str) -> int:
    """Return the largest size at which a member is read."""
    if get_extension(name) in IMAGE_EXTENSIONS:
        return MAX_IMAGE_BYTES
    return MAX_TEXT_BYTES if get_extension(name) in ("txt", "json") else 0


def split_member_name(name: str) -> tuple[str, str] | None:
    """Return the key and the suffix of a member; None if it belongs to no sample."""
    match = _MEMBER.fullmatch(name)
    return (match[1], match[2]) if match else None


def strip_tar_extension(name: str) -> str:
    """Return a shard's name without its tar extension."""
    ending = next((end for end in TAR_EXTENSIONS if name.lower().endswith(end)), "")
    return name[: len(name) - len(ending)]


class WebDataset(ShardFormat):
    """WebDataset tar shards, also those of img2dataset, each with a table of downloads next to it."""

    name = "webdataset"
    file_title = "a .tar (.tar.gz, .tgz) shard"
    folder_title = "tar shards"
    extensions = TAR_EXTENSIONS
    in_patterns = True
    documentation = (
        DocumentedInput(
            "WebDataset tars: a folder of them, one, a brace pattern or a glob (`'data-{00000..00041}.tar'`; `.tar.gz` "
            "and `.tgz` too)",
            "of each key the image, `.txt` as caption, `.json` as metadata",
            "`__key__`",
        ),
        DocumentedInput(
            "[img2dataset's output](#img2dataset): its folder, or a pattern of its tars",
            "its tars, files or Parquet, and which downloads failed",
            "its key",
        ),
    )

    def without_companions(self, others: list[str], shards: list[str]) -> list[str]:
        """Return the files that are not img2dataset's table of downloads for one of the tars."""
        stems = set(map(strip_tar_extension, shards))
        return [path for path in others if not (is_parquet(path) and posixpath.splitext(path)[0] in stems)]

    def open_files(self, source: InputSource, paths: list[str], options: ReadOptions) -> Dataset:
        """Return a shard for each tar file, named by its path below the common folder."""
        fs = source.fs
        common = posixpath.commonpath([posixpath.dirname(path) for path in paths])
        names = {path: posixpath.relpath(path, common) if common else path for path in paths}
        tables = {entry.path for folder in set(map(posixpath.dirname, paths)) for entry in _list_tables(fs, folder)}
        shards = []
        for path in sorted(names, key=lambda path: natural_key(names[path])):
            table = f"{strip_tar_extension(path)}.parquet"
            shards.append(TarShard(fs, path, names[path], options.id_from, table if table in tables else None))
        return Dataset(kind="images", format=self.name, source=source.text, shards=tuple(shards))


def _list_tables(fs: AbstractFileSystem, folder: str) -> list[Entry]:
    try:
        return [entry for entry in list_entries(fs, folder) if is_parquet(entry.name) and not entry.is_dir]
    except (UserError, OSError):  # permissions may allow reading a shard, but not listing its folder
        return []
