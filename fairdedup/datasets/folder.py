"""Opens folders of image files with their companions, and patterns that name such files.

The id is the relative path; a shard is 1,000 consecutive files in natural order. Images are recognised by their names,
and where these do not decide, by their content.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from fairdedup.datasets.dataset import Dataset
from fairdedup.datasets.filesystem import get_extension
from fairdedup.datasets.findings import name_ending
from fairdedup.datasets.folder_listing import list_samples
from fairdedup.datasets.folder_shards import FolderShard, Listed
from fairdedup.datasets.format_registry import describe_folders
from fairdedup.datasets.image_formats import IMAGE_EXTENSIONS
from fairdedup.datasets.input_format import DocumentedInput, InputFormat, InputSource, ReadOptions
from fairdedup.errors import UserError, format_count

__all__ = ["SHARD_FILES", "FolderShard", "ImageFolder", "Listed"]

SHARD_FILES = 1_000
ARCHIVES = (".7z", ".rar")  # never read


class ImageFolder(InputFormat):
    """Image files: those of a folder, or those that a pattern names. Any folder can be one, so it is tried last."""

    name = "folder"
    folder_title = "images"
    is_fallback = True
    documentation = (
        DocumentedInput(
            "a folder of images",
            f"{', '.join(IMAGE_EXTENSIONS)}, in sub-folders too, and files of other names whose content is an image; "
            "[captions, classes and metadata](#folders-of-images) beside them",
            "relative path",
        ),
        DocumentedInput(
            "a glob of images (`'photos/**/*.jpg'`, `'photos/*.{jpg,png}'`)",
            "the images that it names, as those of a folder",
            "path relative to the folder before the first `*`, `?`, `[` or `{`",
        ),
    )

    def files_in(self, folder: InputSource) -> list[str]:
        """Return the images of a folder and all folders below it, in any order."""
        return [entry.path for entry in folder.tree.images.images] if folder.tree is not None else []

    def recognises(self, source: InputSource) -> bool:
        """Tell whether the input is a folder or has images; `open` refuses a single image, with a remedy."""
        if source.kind == "files":
            return source.tree is not None or get_extension(source.paths[0]) in IMAGE_EXTENSIONS
        return source.kind == "folder"

    def open(self, source: InputSource, options: ReadOptions) -> Dataset:
        """Return shards of 1,000 files. Only names, metadata files, and the first bytes of some files are read.

        Raises
        ------
        UserError
            If the folder has no images (the message says what it has instead), or the input is a single image.
        """
        if source.tree is None:
            raise UserError(f"{source.text!r} is a single image: give the folder that contains it")
        tree, found = source.tree, source.tree.images
        listed = list_samples(
            source.fs,
            tree.root,
            found.images,
            [*found.others, *tree.beside],
            folders=tree.folders,
            is_wanted=tree.names,
        )
        if not listed.rows:
            raise UserError(_explain_no_images(source.text, listed.unused))
        beside = Counter(name_ending(entry.name) for entry in tree.beside if entry.relative not in listed.used)
        shards = tuple(
            FolderShard(source.fs, tree.root, f"files-{number:05d}", rows) for number, rows in cut(listed.rows)
        )
        return Dataset(
            kind="images",
            format=self.name,
            source=source.text,
            shards=shards,
            unused=listed.unused - beside,
            remarks=(*found.remarks, *listed.remarks),
        )


def cut(rows: list[Listed], most: int | None = None) -> Iterator[tuple[int, tuple[Listed, ...]]]:
    """Yield the number and the rows of every shard: of 1,000 rows, or more if there were more than `most` shards."""
    size = SHARD_FILES if most is None else max(SHARD_FILES, -(-len(rows) // most))
    for number, start in enumerate(range(0, len(rows), size)):
        yield number, tuple(rows[start : start + size])


def _explain_no_images(source: str, unused: Mapping[str, int]) -> str:
    if not unused:
        return f"folder {source!r} holds no files: give a folder with {describe_folders()} in it"
    kinds = sorted(unused.items(), key=lambda item: (-item[1], item[0]))
    found = ", ".join(f"{count:,} {kind!r}" for kind, count in kinds[:5])
    more = f" and {format_count(len(kinds) - 5, 'other kind')}" if len(kinds) > 5 else ""
    archives = next((ending for ending in ARCHIVES if ending in unused), None)
    remedy = f"unpack the {archives} files and " if archives else ""
    kinds_read = " ".join(IMAGE_EXTENSIONS)
    return (
        f"folder {source!r} holds no images, but {found}{more}: {remedy}give a folder with {describe_folders()} in it; "
        f"images are {kinds_read}"
    )
