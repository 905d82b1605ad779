"""Opens zip archives of images. An archive is read as a folder of its content would be; nothing is unpacked to disk."""

from __future__ import annotations

import posixpath
import zipfile
from collections import Counter
from dataclasses import dataclass

from fsspec import AbstractFileSystem
from fsspec.implementations.zip import ZipFileSystem

from fairdedup.datasets.dataset import Dataset
from fairdedup.datasets.filesystem import Entry, get_extension, natural_key, open_file, to_valid_text
from fairdedup.datasets.findings import describe_unused
from fairdedup.datasets.folder import cut
from fairdedup.datasets.folder_listing import ImageList, list_samples
from fairdedup.datasets.folder_shards import Listed, ZipShard
from fairdedup.datasets.image_formats import HEAD, IMAGE_EXTENSIONS, looks_like_image
from fairdedup.datasets.image_search import NO_IMAGES
from fairdedup.datasets.input_format import DocumentedInput, InputSource, ReadOptions, ShardFormat
from fairdedup.datasets.zip_members import ENCRYPTED, is_zip_damage, read_first_bytes
from fairdedup.errors import UserError, first_line

MOST_SHARDS = 100  # of one archive, since each reads the archive's list of members


class ZipImages(ShardFormat):
    """Zip archives of images: one, a folder of them, or those that a pattern names."""

    name = "zip"
    file_title = "a .zip of images"
    folder_title = "zip archives"
    extensions = (".zip",)
    in_patterns = True
    documentation = (
        DocumentedInput(
            "zip archives of images: one, a folder of them, a brace pattern or a glob (`'data/*.zip'`)",
            "what a folder with the same content has; no archives within archives",
            "path in the archive; of several, `ZIP/path` with the archive's name",
        ),
    )

    def open_files(self, source: InputSource, paths: list[str], options: ReadOptions) -> Dataset:
        """Return shards of 1,000 files of an archive, or of more if that gave over 100.

        The lists of members and metadata files are read.

        Raises
        ------
        UserError
            If an archive is damaged or encrypted, or if none has images.
        """
        common = posixpath.commonpath([posixpath.dirname(path) for path in paths])
        names = {path: posixpath.relpath(path, common) if common else path for path in paths}
        shards: list[ZipShard] = []
        unused: Counter[str] = Counter()
        remarks: list[str] = []
        for path in sorted(names, key=lambda path: natural_key(names[path])):
            found = _list_archive(source.fs, path)
            unused += found.unused
            remarks += found.remarks
            stem = names[path][: -len(".zip")]
            prefix = f"{stem}/" if len(paths) > 1 or options.id_from == "shard/key" else ""
            shards += [
                ZipShard(source.fs, path, f"{names[path]}-{number:05d}", rows, prefix=prefix)
                for number, rows in cut(found.rows, MOST_SHARDS)
            ]
        if not shards:
            if not unused:
                raise UserError(f"{source.text!r} is empty: give a zip of images")
            raise UserError(
                f"{source.text!r} holds no images, but {describe_unused(unused)}: unpack it and give the folder, or "
                "give a zip of images"
            )
        return Dataset("images", self.name, source.text, tuple(shards), unused=unused, remarks=tuple(remarks))


@dataclass
class _Members:
    """The files in an archive: images, the other files, and the images whose name several members have."""

    images: list[Entry]
    others: list[Entry]
    repeated: set[str]
    folders: set[str]


def _list_archive(fs: AbstractFileSystem, path: str) -> ImageList:
    try:
        with open_file(fs, path) as raw:
            inside = ZipFileSystem(raw, skip_instance_cache=True)
            members = _sort_members(inside.zip, path)
            found = list_samples(inside, "", members.images, members.others, folders=members.folders)
    except Exception as error:
        if not is_zip_damage(error):
            raise
        why = first_line(error)
        raise UserError(f"{path!r} is not a readable zip archive ({why}): copy or write it again") from None
    for place, row in enumerate(found.rows):
        if row.path in members.repeated:
            found.rows[place] = Listed(
                row.path, error=f"two members named {to_valid_text(row.path)} in the zip archive"
            )
    return found


def _sort_members(archive: zipfile.ZipFile, path: str) -> _Members:
    counts = Counter(member.filename for member in archive.infolist() if not member.filename.endswith("/"))
    folders = {posixpath.dirname(name) for name in archive.namelist()}
    found = _Members([], [], {name for name, count in counts.items() if count > 1}, folders)
    for name in counts:
        if any(part.startswith(".") and part not in (".", "..") for part in name.split("/")):
            continue
        if archive.getinfo(name).flag_bits & ENCRYPTED:
            raise UserError(
                f"{path!r} is encrypted, as its member {name!r}: unpack it with the password and give the folder"
            )
        folder, base = posixpath.split(name)
        entry = Entry(base, name, False, folder)
        (found.images if base and _is_image(archive, name) else found.others).append(entry)
    return found


def _is_image(archive: zipfile.ZipFile, name: str) -> bool:
    ending = get_extension(name)
    if ending in IMAGE_EXTENSIONS or ending in NO_IMAGES:
        return ending in IMAGE_EXTENSIONS
    return looks_like_image(read_first_bytes(archive, name, HEAD))
