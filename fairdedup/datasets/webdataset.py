"""WebDataset tar shards: members with one key, one after another, are one sample.

Shards are streamed from the first byte to the last; no member is ever written to disk, under any name.
"""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from braceexpand import braceexpand
from fsspec import AbstractFileSystem

from fairdedup.datasets.dataset import Dataset, Sample
from fairdedup.datasets.files import extension, fingerprint, natural_key, plain_text
from fairdedup.datasets.images import IMAGE_EXTENSIONS, MAX_IMAGE_BYTES
from fairdedup.datasets.sidecars import MAX_TEXT_BYTES, caption_and_metadata, columns_of
from fairdedup.datasets.tar import DamagedTar, members
from fairdedup.errors import UserError

TAR_EXTENSIONS = (".tar", ".tar.gz", ".tgz")

MAX_SHARDS = 1_000_000

_TEXT_UNREAD = f"larger than {MAX_TEXT_BYTES >> 20} MiB, or cut off"

# WebDataset's rule: the key ends at the first dot of the base name. Hidden names and names without a dot are
# no samples.
_MEMBER = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)


def is_tar(name: str) -> bool:
    """Tell by its name whether a file is a tar shard."""
    return name.lower().endswith(TAR_EXTENSIONS)


def is_pattern(path: str) -> bool:
    """Tell whether a path that does not exist is meant as braces or a glob."""
    return any(letter in path for letter in "{*?[")


@dataclass
class _Group:
    """The members of one key, as far as they have been read."""

    key: str
    image: bytes | None = None
    image_member: str | None = None
    text: bytes | None = None
    json: bytes | None = None
    twice: str | None = None
    suffixes: set[str] = field(default_factory=set)
    notes: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, suffix: str, data: bytes | None) -> None:
        """Take what a sample needs from a member; no data means too much of it, or a cut."""
        suffix = suffix.lower()
        if suffix in self.suffixes:  # WebDataset refuses such a shard; one of the two would be lost
            self.twice = name
        self.suffixes.add(suffix)
        if suffix == "txt":
            self.text = data
            if data is None:
                self.notes["caption_error"] = _TEXT_UNREAD
        elif suffix == "json":
            self.json = data
            if data is None:
                self.notes["json_error"] = _TEXT_UNREAD
        elif extension(name) in IMAGE_EXTENSIONS and self._better(suffix):
            self.image_member = name
            self.image = data

    def error(self) -> str | None:
        """Return why the sample has no usable image, or None."""
        if self.twice is not None:
            return f"two members named {plain_text(self.twice)}"
        if self.image_member is None:
            return f"no image member for key {plain_text(self.key)}"
        return None if self.image is not None else f"image larger than {MAX_IMAGE_BYTES >> 20} MiB"

    def _better(self, suffix: str) -> bool:
        """Tell whether this is the first image, or the first plain one (``.jpg``) after a ``.mask.png``."""
        if self.image_member is None:
            return True
        held = _split(self.image_member)
        return held is not None and "." in held[1] and "." not in suffix


@dataclass(frozen=True)
class TarShard:
    """One tar file of image samples."""

    fs: AbstractFileSystem
    path: str
    name: str
    id_from: str = "key"

    @property
    def rows(self) -> None:
        """A tar has to be read to be counted."""
        return None

    def read(self) -> Iterator[Sample]:
        """Yield every sample in the order of the tar; a damaged tar ends with a rejected one that says so."""
        position = 0
        group: _Group | None = None
        damage: str | None = None
        with self.fs.open(self.path, "rb") as raw:
            try:
                for name, data in members(raw, _limit):
                    parts = _split(name)
                    if parts is None:
                        continue
                    key, suffix = parts
                    if group is not None and group.key != key:
                        yield self._sample(position, group)
                        position += 1
                        group = None
                    if group is None:
                        group = _Group(key)
                    group.add(name, suffix, data)
            except DamagedTar as fault:
                damage = str(fault)
        if group is not None and (damage is None or group.image is not None):
            yield self._sample(position, group)
            position += 1
            group = None
        if damage is not None:  # a key that the damage cost its image gives its name to the rejected row
            yield Sample(
                position=position,
                id=plain_text(self.name if group is None else self._id(group.key)),
                image=None,
                source=plain_text(self.name if group is None else f"{self.name}/{group.key}"),
                error=damage,
            )

    def _sample(self, position: int, group: _Group) -> Sample:
        columns = columns_of(group.json) if group.json is not None else {}
        caption, metadata = caption_and_metadata(group.text, columns)
        error = group.error()
        return Sample(
            position=position,
            id=plain_text(self._id(group.key)),
            image=group.image if error is None else None,
            caption=caption,
            metadata=metadata | group.notes,
            source=plain_text(f"{self.name}/{group.image_member or group.key}"),
            error=error,
        )

    def _id(self, key: str) -> str:
        return f"{shard_stem(self.name)}/{key}" if self.id_from == "shard/key" else key

    def fingerprint(self) -> str:
        """Return a short text that changes when the file's name, size or time does."""
        return fingerprint(self.fs, self.path, label=self.name)


def _limit(name: str) -> int:
    """Return the most bytes wanted of a member."""
    if extension(name) in IMAGE_EXTENSIONS:
        return MAX_IMAGE_BYTES
    return MAX_TEXT_BYTES if extension(name) in ("txt", "json") else 0


def _split(name: str) -> tuple[str, str] | None:
    match = _MEMBER.fullmatch(name)
    return (match[1], match[2]) if match else None


def shard_stem(name: str) -> str:
    """Return a shard's name without its tar extension."""
    ending = next((end for end in TAR_EXTENSIONS if name.lower().endswith(end)), "")
    return name[: len(name) - len(ending)]


def open_shards(fs: AbstractFileSystem, paths: list[str], source: str, id_from: str) -> Dataset:
    """Make a data set of tar files; a shard is named by its path below their common folder."""
    common = posixpath.commonpath([posixpath.dirname(path) for path in paths])
    names = {path: posixpath.relpath(path, common) if common else path for path in paths}
    shards = tuple(
        TarShard(fs, path, names[path], id_from) for path in sorted(names, key=lambda path: natural_key(names[path]))
    )
    return Dataset(kind="images", format="webdataset", source=source, shards=shards)


def open_pattern(fs: AbstractFileSystem, pattern: str, source: str, id_from: str) -> Dataset:
    """Make a data set of the tar files that a brace pattern or a glob names.

    Raises
    ------
    UserError
        If a shard that the braces name is missing, or the glob matches no tar file.
    """
    paths: list[str] = []
    expanded = _expand(pattern, source)
    for path in expanded:
        if any(letter in path for letter in "*?["):
            found = fs.glob(path, detail=True)
            paths.extend(
                name
                for name, info in found.items()
                if info["type"] != "directory" and is_tar(name) and not posixpath.basename(name).startswith(".")
            )
        elif not is_tar(path):
            raise UserError(
                f"pattern {source!r} names {posixpath.basename(path)!r}, not a tar shard: patterns name "
                f"{' '.join(TAR_EXTENSIONS)} files"
            )
        elif fs.isfile(path):
            paths.append(path)
        else:
            there = sum(fs.isfile(other) for other in expanded)
            raise UserError(
                f"shard {path!r} of {source!r} is missing ({there:,} of {len(expanded):,} are there): "
                "mend the pattern or bring the shard"
            )
    if not paths:
        raise UserError(f"no tar shard matches {source!r}: check the pattern; shards end in .tar, .tar.gz or .tgz")
    return open_shards(fs, paths, source, id_from)


def _expand(pattern: str, source: str) -> list[str]:
    """Expand braces, which may not name more than a million shards (braceexpand holds every range whole)."""
    for first, last in re.findall(r"\{(-?[0-9]+)\.\.(-?[0-9]+)", pattern):
        if len(first) > 18 or len(last) > 18 or abs(int(last) - int(first)) >= MAX_SHARDS:
            raise UserError(f"range {first}..{last} in {source!r} is over {MAX_SHARDS:,} shards: mend the pattern")
    try:
        expanded = list(itertools.islice(braceexpand(pattern), MAX_SHARDS + 1))
    except ValueError:
        raise UserError(f"braces in {source!r} do not match: write them as 'data-{{00000..00014}}.tar'") from None
    if len(expanded) > MAX_SHARDS:
        raise UserError(f"pattern {source!r} names over {MAX_SHARDS:,} shards: mend the pattern")
    return expanded
