"""A folder of image files, each with an optional caption in a ``.txt`` of the same stem.

The id is the relative path; shards are runs of 1,000 files in natural order.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from fsspec import AbstractFileSystem

from fairdedup.datasets.dataset import Dataset, Sample
from fairdedup.datasets.files import (
    Unreadable,
    extension,
    fingerprint,
    natural_key,
    plain_text,
    read_file,
    walk,
)
from fairdedup.datasets.images import IMAGE_EXTENSIONS, MAX_IMAGE_BYTES
from fairdedup.datasets.sidecars import MAX_TEXT_BYTES, caption_of
from fairdedup.errors import UserError

SHARD_FILES = 1_000


@dataclass(frozen=True)
class FolderShard:
    """A run of image files under one root: (relative path, relative path of its caption or None)."""

    fs: AbstractFileSystem
    root: str
    name: str
    files: tuple[tuple[str, str | None], ...]

    @property
    def rows(self) -> int:
        """Number of files."""
        return len(self.files)

    def read(self) -> Iterator[Sample]:
        """Yield every file as a sample, in natural order."""
        for position, (relative, beside) in enumerate(self.files):
            image = error = caption = None
            metadata = {"path": plain_text(relative)}
            try:
                image = read_file(self.fs, posixpath.join(self.root, relative), MAX_IMAGE_BYTES)
            except Unreadable as fault:
                error = str(fault)
            if beside is not None:
                try:
                    text = read_file(self.fs, posixpath.join(self.root, beside), MAX_TEXT_BYTES)
                    caption = caption_of(text)
                except Unreadable as fault:
                    metadata["caption_error"] = str(fault)
            yield Sample(
                position=position,
                id=metadata["path"],
                image=image,
                caption=caption,
                metadata=metadata,
                source=metadata["path"],
                error=error,
            )

    def fingerprint(self) -> str:
        """Return a short text that changes when a file's name, size or time does."""
        paths = (posixpath.join(self.root, name) for pair in self.files for name in pair if name is not None)
        return fingerprint(self.fs, *paths, label="\0".join([self.name, *(name for name, _ in self.files)]))


def open_folder(fs: AbstractFileSystem, root: str, source: str) -> Dataset:
    """Read the names of a folder of images.

    Raises
    ------
    UserError
        If there is no image in it; the message says what there is.
    """
    files: list[tuple[str, str | None]] = []
    others: Counter[str] = Counter()
    for folder, names in walk(fs, root):
        captions = {posixpath.splitext(name)[0]: name for name in names if extension(name) == "txt"}
        for name in names:
            if extension(name) in IMAGE_EXTENSIONS:
                beside = captions.get(posixpath.splitext(name)[0])
                files.append((posixpath.join(folder, name), beside and posixpath.join(folder, beside)))
            else:
                others[f".{extension(name)}" if extension(name) else "without extension"] += 1
    if not files:
        raise UserError(_no_images(source, others))
    files.sort(key=lambda pair: natural_key(pair[0]))
    shards = tuple(
        FolderShard(fs, root, f"files-{start // SHARD_FILES:05d}", tuple(files[start : start + SHARD_FILES]))
        for start in range(0, len(files), SHARD_FILES)
    )
    return Dataset(kind="images", format="folder", source=source, shards=shards)


def _no_images(source: str, others: Counter[str]) -> str:
    kinds = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    found = ", ".join(f"{count:,} {plain_text(kind)!r}" for kind, count in kinds[:5])
    more = f" and {len(kinds) - 5} other kinds" if len(kinds) > 5 else ""
    if not others:
        return f"folder {source!r} holds no files: give a folder with images, tar shards or img_emb/ in it"
    if others[".tar"]:
        mend = f"for shards in its sub-folders give the pattern {source.rstrip('/') + '/**/*.tar'!r}"
    elif others[".npy"]:
        mend = "for embeddings give one .npy file or the folder that holds img_emb/"
    else:
        kinds_read = " ".join(sorted(IMAGE_EXTENSIONS))
        mend = f"give a folder with images ({kinds_read}), tar shards or img_emb/ in it"
    return f"folder {source!r} holds no images, but {found}{more}: {mend}"
