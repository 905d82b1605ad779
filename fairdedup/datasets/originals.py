"""The files of chosen samples, byte for byte as the input has them, under names that a WebDataset shard can hold.

What a tar or a folder holds of a sample is never parsed or written anew; of what has no file (a caption or other
columns of a table) a `.txt` and a `.json` are made. Nothing is decoded.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import groupby
from math import isfinite
from typing import Any

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from fairdedup.datasets.dataset import ImageShard, Sample
from fairdedup.datasets.filesystem import Unreadable, get_extension, open_file, read_file, to_valid_text
from fairdedup.datasets.folder import FolderShard
from fairdedup.datasets.images import IMAGE_EXTENSIONS, MAX_IMAGE_BYTES
from fairdedup.datasets.parquet_shards import ParquetImageShard
from fairdedup.datasets.sidecars import MAX_TEXT_BYTES
from fairdedup.datasets.tar import DamagedTar, is_plain_tar, locate_members, read_members
from fairdedup.datasets.webdataset import TarShard, split_member_name
from fairdedup.errors import UserError

LONGEST_KEY = 180  # bytes of one part of a key; with its suffix it may be the name of a file

# WebDataset ends a key at the first dot of its base name. A percent sign marks a key that was spelt anew.
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\\%.]")
_PLAIN = re.compile(r"(?:[^\x00-\x1f\x7f-\x9f\\%/]+/)*[^\x00-\x1f\x7f-\x9f\\%/.]+")
_MAGIC = (
    (b"\xff\xd8\xff", "jpg"), (b"\x89PNG\r\n\x1a\n", "png"), (b"GIF8", "gif"), (b"BM", "bmp"),
    (b"II*\0", "tif"), (b"MM\0*", "tif"), (b"II+\0", "tif"), (b"MM\0+", "tif"),
)  # fmt: skip


@dataclass(frozen=True)
class FileRange:
    """Bytes of a local file: what can be copied without being read here."""

    path: str
    offset: int
    size: int


@dataclass(frozen=True)
class Member:
    """One file of a sample.

    Attributes
    ----------
    position : int
        Of the sample in its shard.
    id : str
        The sample's.
    key, suffix : str
        Of the new shard.
    data : bytes or FileRange
    """

    position: int
    id: str
    key: str
    suffix: str
    data: bytes | FileRange

    @property
    def name(self) -> str:
        """Of the member."""
        return f"{self.key}.{self.suffix}"


def make_key(id_: str) -> str:
    """Return an id as a WebDataset key: itself where it may be one, else spelt with ``%2E`` for a dot and so on.

    No two ids have one key. `urllib.parse.unquote` gives the id back, but of one that is too long, which has a hash.
    """
    if _PLAIN.fullmatch(id_) and ".." not in id_.split("/") and _fits(id_):
        return id_
    spelt = _UNFIT.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), id_)
    spelt = spelt if all(spelt.split("/")) else spelt.replace("/", "%2F")
    return spelt if spelt and _fits(spelt) else f"%sha256-{sha256(id_.encode()).hexdigest()}"


def _fits(key: str) -> bool:
    parts = key.encode().split(b"/")
    return max(map(len, parts)) <= LONGEST_KEY and len(parts) <= 32


def find_clashing_stems(shards: Iterable[Any]) -> frozenset[str]:
    """Return what several images of a folder are called, their extensions aside: no key for any of them."""
    stems = Counter(_stem(listed.path) for s in shards if isinstance(s, FolderShard) for listed in s.files)
    return frozenset(stem for stem, count in stems.items() if count > 1)


def _stem(path: str) -> str:
    return posixpath.splitext(to_valid_text(path))[0]


def read_originals(shard: ImageShard, wanted: list[int], clashing: frozenset[str]) -> Iterator[Member]:
    """Yield the files of the samples at some positions of a shard, in its order.

    Parameters
    ----------
    shard : ImageShard
    wanted : list of int
        Ascending; samples that have an image.
    clashing : frozenset of str
        What `find_clashing_stems` found.

    Raises
    ------
    UserError
        If a file of a sample cannot be copied.
    """
    if isinstance(shard, TarShard):
        return _telling_ids(_of_tar(shard, wanted))
    if isinstance(shard, FolderShard):
        return _telling_ids(_of_folder(shard, wanted, clashing))
    if isinstance(shard, ParquetImageShard):
        return _of_table(shard, wanted)
    raise TypeError(f"{type(shard).__name__} holds no images")


def _telling_ids(found: Iterator[Member]) -> Iterator[Member]:
    """Add a file with the id to each sample whose names do not tell it."""
    for (position, id_), files in groupby(found, lambda member: (member.position, member.id)):
        told, suffixes, key = False, set(), ""
        for member in files:
            told |= id_ in (member.key, member.name)
            suffixes.add(member.suffix.lower())
            key = member.key
            yield member
        if not told:
            if "json" in suffixes:
                yield Member(position, id_, key, "id.txt", id_.encode())
            else:
                yield Member(position, id_, key, "json", _json({"id": id_}))


@dataclass
class _Walk:
    """Where a walk through a tar is, and whether its sample is wanted; positions are those of `TarShard.read`."""

    wanted: frozenset[int]
    position: int = -1
    key: str | None = None
    suffix: str = ""
    here: bool = False

    def __call__(self, name: str) -> bool:
        parts = split_member_name(name)
        if parts is not None:
            self.position += parts[0] != self.key
            self.key, self.suffix = parts
        self.here = parts is not None and self.position in self.wanted
        return self.here


def _of_tar(shard: TarShard, wanted: list[int]) -> Iterator[Member]:
    walk = _Walk(frozenset(wanted))
    missing = None  # behind the place where a tar is damaged nothing is wanted, else all must be there
    local = isinstance(shard.fs, LocalFileSystem)
    position, id_, key = -1, "", ""
    with open(shard.path, "rb", buffering=0) if local else open_file(shard.fs, shard.path) as raw:
        if local and is_plain_tar(raw):
            found: Iterator[tuple[str, Any]] = locate_members(raw, shard.fs.size(shard.path), walk)
        else:
            found = read_members(raw, lambda name: MAX_IMAGE_BYTES if walk(name) else -1)
        with suppress(DamagedTar):
            for name, data in found:
                if missing is not None or walk.position > wanted[-1]:
                    break
                if not walk.here:
                    continue
                if data is None:
                    missing = name
                    continue
                if walk.position != position:
                    position, id_ = walk.position, to_valid_text(shard.id_of(str(walk.key)))
                    key = make_key(id_)
                data = FileRange(shard.path, *data) if isinstance(data, tuple) else data
                yield Member(position, id_, key, walk.suffix, data)
            if missing is not None:
                raise UserError(
                    f"{shard.name}/{to_valid_text(missing)} has holes, or over {MAX_IMAGE_BYTES >> 20} MiB in a tar that "
                    "is compressed or not local: write the shard anew as a plain local .tar"
                )


def _of_folder(shard: FolderShard, wanted: list[int], clashing: frozenset[str]) -> Iterator[Member]:
    for position in wanted:
        listed = shard.files[position]
        sample = next(iter(replace(shard, files=(listed,)).read()))
        image, stem = _image_of(sample), _stem(listed.path)
        key = make_key(sample.id if stem in clashing or make_key(stem) != stem else stem)
        ending = get_extension(listed.path)
        ending = listed.path[-len(ending) :] if ending in IMAGE_EXTENSIONS else detect_extension(image)
        yield Member(position, sample.id, key, ending, image)
        text = _beside(shard, listed.text) if listed.text else (sample.caption or "").encode()
        if text or listed.text:
            yield Member(position, sample.id, key, "txt", text)
        if listed.json and not listed.columns:
            yield Member(position, sample.id, key, "json", _beside(shard, listed.json))
        elif listed.columns:
            yield Member(position, sample.id, key, "json", _json(sample.metadata))


def _image_of(sample: Sample) -> bytes:
    if sample.image is None:
        raise UserError(f"{sample.source} cannot be read any more ({sample.error}): bring it back")
    return sample.image


def _beside(shard: FolderShard, name: str) -> bytes:
    try:
        return read_file(shard.fs, posixpath.join(shard.path, name), MAX_TEXT_BYTES)
    except Unreadable as fault:
        raise UserError(f"{to_valid_text(name)} cannot be copied ({fault}): mend it or take it out") from None


def _of_table(shard: ParquetImageShard, wanted: list[int]) -> Iterator[Member]:
    columns = dict(shard.columns.metadata)
    named = columns.get(shard.columns.sample, "image_file")  # of a column of paths, or the struct's own path
    for sample in shard.read(frozenset(wanted)):
        image, key = _image_of(sample), make_key(sample.id)
        path = sample.metadata.get(named)
        path = path.as_py() if isinstance(path, pa.Scalar) else path
        ending = get_extension(path) if isinstance(path, str) else ""
        ending = ending if ending in IMAGE_EXTENSIONS else detect_extension(image)
        yield Member(sample.position, sample.id, key, ending, image)
        if sample.caption is not None:
            yield Member(sample.position, sample.id, key, "txt", sample.caption.encode())
        told = {"id": sample.id} if key != sample.id else {}
        if told or sample.metadata:
            yield Member(sample.position, sample.id, key, "json", _json(told | sample.metadata))


def detect_extension(data: bytes) -> str:
    """Return the extension of an image file by its first bytes."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        return "avif"
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), "img")


def _json(columns: dict[str, Any]) -> bytes:
    """Return columns as JSON: null for what is no number, bytes as text with the odd ones spelt out."""
    plain = {name: value.as_py() if isinstance(value, pa.Scalar) else value for name, value in columns.items()}
    return json.dumps(_jsonable(plain), ensure_ascii=False, default=str).encode("utf-8", "backslashreplace")


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _jsonable(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(part) for part in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return None if isinstance(value, float) and not isfinite(value) else value
