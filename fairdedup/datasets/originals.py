"""Reads the files of chosen samples unchanged, and gives them names that fit a WebDataset shard.

Files of a tar or a folder are never parsed or rewritten. Only the captions and columns of a table, which have no
files, become a `.txt` and a `.json`. Nothing is decoded.
"""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from math import isfinite
from typing import Any

import pyarrow as pa

from fairdedup.datasets.dataset import ImageShard, Metadata, Sample, Shard
from fairdedup.datasets.filesystem import Unreadable, get_extension, to_valid_text
from fairdedup.datasets.folder_shards import FolderShard, Listed, Read
from fairdedup.datasets.image_formats import HEAD
from fairdedup.datasets.images import IMAGE_EXTENSIONS, MAX_IMAGE_BYTES
from fairdedup.datasets.keys import make_key
from fairdedup.datasets.parquet_shards import ParquetImageShard
from fairdedup.datasets.sidecars import MAX_TEXT_BYTES
from fairdedup.datasets.tar import DamagedTar
from fairdedup.datasets.tar_contents import FilePart
from fairdedup.datasets.tar_members import read_groups
from fairdedup.datasets.tar_samples import TarSample, choose_certain, split_group
from fairdedup.datasets.webdataset import TarShard
from fairdedup.errors import UserError

_MAGIC = {
    b"\xff\xd8\xff": "jpg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"II*\0": "tif",
    b"MM\0*": "tif",
    b"II+\0": "tif",
    b"MM\0+": "tif",
}


@dataclass(frozen=True)
class FileRange:
    """A range of bytes in a local file, which the operating system can copy.

    Attributes
    ----------
    path : str
        The file.
    offset, size : int
        The range, in bytes.
    """

    path: str
    offset: int
    size: int


@dataclass(frozen=True)
class Member:
    """One file of a sample.

    Attributes
    ----------
    position : int
        Position of the sample in its shard.
    id : str
        The sample's id.
    key, suffix : str
        The two parts of the file's name in the new shard.
    data : bytes or FileRange
        Its content, or the range of a file that holds it.
    """

    position: int
    id: str
    key: str
    suffix: str
    data: bytes | FileRange

    @property
    def name(self) -> str:
        """Name of the file in the new shard."""
        return f"{self.key}.{self.suffix}"


def find_clashing_stems(shards: Iterable[Shard]) -> frozenset[str]:
    """Return the file names, without extension, that several images of a folder share; they cannot be keys.

    Parameters
    ----------
    shards : iterable of Shard
        All shards of the data set.
    """
    stems = Counter(_stem(s, listed) for s in shards if isinstance(s, FolderShard) for listed in s.files)
    return frozenset(stem for stem, count in stems.items() if count > 1)


def _stem(shard: FolderShard, listed: Listed) -> str:
    return posixpath.splitext(shard.make_id(listed.path))[0]


def read_originals(shard: ImageShard, wanted: list[int], clashing: frozenset[str]) -> Iterator[Member]:
    """Yield the files of the samples at some positions of a shard, in the shard's order.

    Parameters
    ----------
    shard : ImageShard
        The shard.
    wanted : list of int
        Ascending positions of samples that have an image.
    clashing : frozenset of str
        What `find_clashing_stems` returned for the data set.

    Raises
    ------
    UserError
        If a file of a sample cannot be copied.
    """
    if isinstance(shard, TarShard):
        return _with_ids(_read_tar(shard, wanted))
    if isinstance(shard, FolderShard):
        return _with_ids(_read_folder(shard, wanted, clashing))
    if isinstance(shard, ParquetImageShard):
        columns = dict(shard.columns.metadata)
        # The name of the file is in a column of paths, or in the struct that holds the image.
        file_name = columns.get(shard.columns.sample, "image_file")
        return _rebuild(shard.read(wanted=frozenset(wanted)), file_name)
    chosen = frozenset(wanted)
    return _rebuild((sample for sample in shard.read() if sample.position in chosen), None)


def _with_ids(found: Iterator[Member]) -> Iterator[Member]:
    """Add a file with the id to each sample whose file names do not contain it."""
    for (position, id_), files in groupby(found, lambda member: (member.position, member.id)):
        is_named, suffixes, key = False, set(), ""
        for member in files:
            is_named |= id_ in (member.key, member.name)
            suffixes.add(member.suffix.lower())
            key = member.key
            yield member
        if not is_named:
            if "json" in suffixes:
                yield Member(position, id_, key, "id.txt", id_.encode())
            else:
                yield Member(position, id_, key, "json", to_json({"id": id_}))


def _read_tar(shard: TarShard, wanted: list[int]) -> Iterator[Member]:
    todo, position = frozenset(wanted), 0
    with suppress(DamagedTar):  # samples behind the damage were rejected, so none of them is wanted
        for group in read_groups(shard.fs, shard.path, shard.column, everything=True):
            samples = split_group(group, shard.column, shard.name)
            if not group.complete:
                samples, _ = choose_certain(group, samples, shard.column)
            for sample in samples:
                if position in todo:
                    yield from _copy_files(shard, position, sample)
                position += 1
            if position > wanted[-1]:
                return


def _copy_files(shard: TarShard, position: int, sample: TarSample) -> Iterator[Member]:
    id_ = to_valid_text(shard.make_id(sample.key))
    key = make_key(id_)
    for suffix, member in sample.files:
        content = member.content
        if isinstance(content, FilePart) and content.path is not None:
            data: bytes | FileRange = FileRange(content.path, content.offset, content.size)
        elif content is not None:
            data = content.read()
        elif member.is_cut or member.fault is not None:  # damage, or a link that leads nowhere: there are no bytes
            continue
        else:
            raise UserError(
                f"{shard.name}/{to_valid_text(member.name)} is over {MAX_IMAGE_BYTES >> 20} MiB, in a tar that is "
                "compressed or not local, or is stored with holes: write the shard again as a plain local .tar"
            )
        if not suffix and content is not None and member is sample.image:
            suffix = detect_extension(content.read(HEAD))
        yield Member(position, id_, key, suffix, data)


def _read_folder(shard: FolderShard, wanted: list[int], clashing: frozenset[str]) -> Iterator[Member]:
    with shard.reader() as read:
        for position in wanted:
            listed = shard.files[position]
            sample = shard.read_sample(position, listed, read)
            stem = _stem(shard, listed)
            key = make_key(sample.id if stem in clashing or make_key(stem) != stem else stem)
            for suffix, data in _folder_files(listed, sample, read):
                yield Member(position, sample.id, key, suffix, data)


def _folder_files(listed: Listed, sample: Sample, read: Read) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a sample of a folder, by their suffixes in a shard."""
    image = _expect_image(sample)
    ending = get_extension(listed.path)
    yield listed.path[-len(ending) :] if ending in IMAGE_EXTENSIONS else detect_extension(image), image
    if listed.text:
        yield get_extension(listed.text), _read_companion(read, listed.text)
    elif sample.caption:
        yield "txt", sample.caption.encode()
    if listed.label:
        yield "cls", _read_companion(read, listed.label)
    if listed.columns:
        yield "json", to_json(sample.metadata)
    elif listed.json:
        yield "json", _read_companion(read, listed.json)


def _expect_image(sample: Sample) -> bytes:
    if sample.image is None:
        raise UserError(f"{sample.source} can no longer be read ({sample.error}): restore the file")
    return sample.image


def _read_companion(read: Read, name: str) -> bytes:
    try:
        return read(name, MAX_TEXT_BYTES)
    except Unreadable as fault:
        raise UserError(f"{to_valid_text(name)} cannot be copied ({fault}): repair or remove the file") from None


def _rebuild(samples: Iterable[Sample], file_name: str | None) -> Iterator[Member]:
    """Yield files made from the rows of a table: the image, the caption and the other columns.

    Parameters
    ----------
    samples : iterable of Sample
        The samples, all with an image.
    file_name : str or None
        The metadata column that may contain the image's file name, for the extension.
    """
    for sample in samples:
        image, key = _expect_image(sample), make_key(sample.id)
        path = sample.metadata.get(file_name) if file_name is not None else None
        path = path.as_py() if isinstance(path, pa.Scalar) else path
        ending = get_extension(path) if isinstance(path, str) else ""
        ending = ending if ending in IMAGE_EXTENSIONS else detect_extension(image)
        yield Member(sample.position, sample.id, key, ending, image)
        if sample.caption is not None:
            yield Member(sample.position, sample.id, key, "txt", sample.caption.encode())
        own_id = {"id": sample.id} if key != sample.id else {}
        if own_id or sample.metadata:
            yield Member(sample.position, sample.id, key, "json", to_json(own_id | sample.metadata))


def detect_extension(data: bytes) -> str:
    """Return the extension for an image file, from its first bytes; "img" if they are unknown."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        return "avif"
    return next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), "img")


def to_json(columns: Metadata) -> bytes:
    """Return columns as JSON: null for NaN and infinity, bytes as text with escapes for what is not UTF-8."""
    plain = {name: value.as_py() if isinstance(value, pa.Scalar) else value for name, value in columns.items()}
    return json.dumps(_to_json_value(plain), ensure_ascii=False, default=str).encode("utf-8", "backslashreplace")


def _to_json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _to_json_value(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json_value(part) for part in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return None if isinstance(value, float) and not isfinite(value) else value
