"""The base classes of input formats, and the values that they receive: one subclass for each format.

Recognising and opening an input reads only names and headers. Shards read images and vectors, on the workers.
"""

from __future__ import annotations

import posixpath
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from fsspec import AbstractFileSystem

from fairdedup.datasets.dataset import Dataset
from fairdedup.datasets.filesystem import Entry, get_extension
from fairdedup.datasets.findings import name_ending
from fairdedup.datasets.folder_tree import FolderTree
from fairdedup.errors import UserError, format_count

NOT_PLAIN = "not a plain file but a pipe, a socket, a device or a link that leads nowhere"


@dataclass(frozen=True)
class InputSource:
    """What INPUT names, before anything in it is opened.

    Attributes
    ----------
    fs : AbstractFileSystem
        The file system of the input.
    text : str
        INPUT as the user gave it, for messages.
    kind : {"folder", "files", "pattern"}
        A folder; one file, or the files that a pattern names; a pattern whose files have not been looked up yet.
    paths : tuple of str
        The folder; the files; or what the braces of a pattern expand to (a glob stays as it is).
    tree : FolderTree or None
        The contents of the folder, with its sub-folders; the files that a pattern names; None for one file, and for a
        pattern whose files have not been looked up yet.
    pattern : str
        The pattern as a path on the file system, if INPUT is one.
    """

    fs: AbstractFileSystem
    text: str
    kind: Literal["folder", "files", "pattern"]
    paths: tuple[str, ...]
    tree: FolderTree | None = None
    pattern: str = ""

    @property
    def folders(self) -> set[str]:
        """Names of the folders in this folder; those further down are in `tree.folders`."""
        return {entry.name for entry in self.tree.top if entry.is_dir} if self.tree is not None else set()

    def expect_plain(self, paths: Iterable[str]) -> None:
        """Raise a UserError if one of some shards is a pipe, a socket, a device or a broken link."""
        special = self.tree.special.intersection(paths) if self.tree is not None else ()
        if special:
            raise UserError(f"{min(special)!r} is {NOT_PLAIN}: remove it, or put the file in its place")

    def with_endings(self, extensions: tuple[str, ...]) -> list[Entry]:
        """Return the files of this folder and all folders below it that have one of some extensions."""
        return self.tree.with_endings(extensions) if self.tree is not None else []


@dataclass(frozen=True)
class ReadOptions:
    """Options for reading an input.

    Attributes
    ----------
    id_from : {"key", "shard/key"}
        Whether a sample's id is its own key, or the shard's name and the key.
    column : str or None
        The column of images, paths or vectors, or the ending of the images in tars; None recognises it. Only formats
        with `has_columns` use it.
    skip_damaged : bool
        Whether the rest of a damaged shard is left out; otherwise it stops the run.
    """

    id_from: Literal["key", "shard/key"] = "key"
    column: str | None = None
    skip_damaged: bool = False


@dataclass(frozen=True)
class DocumentedInput:
    """A row of the table of inputs in docs/inputs.md, as Markdown.

    Attributes
    ----------
    given : str
        The value of INPUT.
    read : str
        What is read from it.
    id : str
        What a sample's id is.
    """

    given: str
    read: str
    id: str


class InputFormat(ABC):
    """A format of inputs. Subclasses have no state: one instance is registered, in `datasets.inputs`.

    Attributes
    ----------
    name : str
        Name of the format, which `Dataset.format` and run.json contain.
    file_title : str or None
        Words for one file in messages, such as "a .parquet file"; None if a single file cannot be the input.
    folder_title : str or None
        Words for the content of a folder, such as "Parquet files"; None if a folder cannot be the input.
    extensions : tuple of str
        Extensions of its files, in lower case, with the dot. Messages suggest the first one.
    in_patterns : bool
        Whether brace patterns and globs may name its files.
    has_columns : bool
        Whether it reads `ReadOptions.column`.
    is_fallback : bool
        Whether it is tried after all other formats, because it recognises any folder.
    documentation : tuple of DocumentedInput
        Its rows in the table of inputs.
    """

    name: ClassVar[str]
    file_title: ClassVar[str | None] = None
    folder_title: ClassVar[str | None] = None
    extensions: ClassVar[tuple[str, ...]] = ()
    in_patterns: ClassVar[bool] = False
    has_columns: ClassVar[bool] = False
    is_fallback: ClassVar[bool] = False
    documentation: ClassVar[tuple[DocumentedInput, ...]] = ()

    def has_extension(self, name: str) -> bool:
        """Tell by a file's name whether it can be of this format."""
        return bool(self.extensions) and name.lower().endswith(self.extensions)

    def files_in(self, folder: InputSource) -> list[str]:
        """Return the paths of the samples or shards of this format in a folder and all folders below it."""
        return []

    def without_companions(self, others: list[str], shards: list[str]) -> list[str]:
        """Return the paths among `others` that accompany none of the shards of this format, and so are not read."""
        return others

    def can_hold_samples(self, source: InputSource, path: str) -> bool:
        """Tell whether a file can hold samples; if there are others that do, one that cannot is not read."""
        return True

    @abstractmethod
    def recognises(self, source: InputSource) -> bool:
        """Tell whether an input is of this format, from names alone."""

    @abstractmethod
    def open(self, source: InputSource, options: ReadOptions) -> Dataset:
        """Return the shards of an input that this format recognises, in natural name order.

        Raises
        ------
        UserError
            If the input is visibly damaged, or mixed with files that cannot be read together with it.
        """


class ShardFormat(InputFormat):
    """A format in which each file is one shard or more: one file, a folder, or a pattern if `in_patterns`.

    Subclasses implement `open_files`. They override `files_in` if not every file with their extension is a shard, and
    `without_companions` if other files are read with the shards. A folder's files of no use are counted here.
    """

    @abstractmethod
    def open_files(self, source: InputSource, paths: list[str], options: ReadOptions) -> Dataset:
        """Return the data set made of some files of this format.

        Parameters
        ----------
        source : InputSource
            The input that contains the files.
        paths : list of str
            The files, at least one, in the order in which they are listed or named.
        options : ReadOptions
            How to read them.
        """

    def files_in(self, folder: InputSource) -> list[str]:
        """Return the paths of all files with this format's extensions, in natural order."""
        return [entry.path for entry in folder.with_endings(self.extensions)]

    def names_images(self, source: InputSource, shards: list[str], options: ReadOptions) -> bool:
        """Tell whether the shards name image files of their folder, which then are no input of their own."""
        return False

    def recognises(self, source: InputSource) -> bool:
        """Tell whether the folder holds, or the names are, files of this format."""
        if source.kind == "folder":
            return bool(self.files_in(source))
        return source.kind == "files" and any(map(self.has_extension, source.paths))

    def open(self, source: InputSource, options: ReadOptions) -> Dataset:
        """Return the shards of a file, of a folder, or of the files that a pattern names.

        Raises
        ------
        UserError
            If the files are damaged, no plain files, or mixed with others that would be left out.
        """
        if source.kind == "folder":
            paths = self.files_in(source)
        else:
            paths = [path for path in source.paths if self.has_extension(path)]
            self._expect_no_others(source, paths)
        source.expect_plain(paths)
        dataset = self.open_files(source, paths, options)
        if source.tree is None:
            return dataset
        read, remarks = set(paths), dataset.remarks
        images = {entry.path for entry in source.tree.images.images}
        if images and self.names_images(source, paths, options):
            read |= images
            remarks = (*remarks, _describe_named(len(images), dataset))
        others = [entry.path for entry in source.tree.files if entry.path not in read]
        unused = Counter(map(name_ending, self.without_companions(others, paths)))
        return replace(dataset, unused=Counter(dataset.unused) + unused, remarks=tuple(filter(None, remarks)))

    def _expect_no_others(self, source: InputSource, shards: list[str]) -> None:
        others = [path for path in source.paths if not self.has_extension(path)]
        left_out = self.without_companions(others, shards) if others else []
        if left_out:
            name = posixpath.basename(left_out[0])
            own = next(end for end in self.extensions if shards[0].lower().endswith(end))
            raise UserError(
                f"pattern {source.text!r} names {self.folder_title} and files of another kind such as {name!r}: "
                f"end it in {own} or in .{get_extension(name)}"
            )


def _describe_named(images: int, dataset: Dataset) -> str:
    """Return a remark if a folder cannot have exactly the images that its shards name; "" otherwise."""
    rows = sum(shard.rows or 0 for shard in dataset.shards)
    if images == rows:
        return ""
    return (
        f"the folder has {format_count(images, 'image')} for {format_count(rows, 'row')} of {dataset.format}: only "
        "those that a row names are read"
    )
