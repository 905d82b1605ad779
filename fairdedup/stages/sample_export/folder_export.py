"""Kept (or removed) samples as a tree of plain files: links to the files of the input, or copies of them.

Files of a folder keep their names; those of tars and tables get the names that they have in a WebDataset shard. A file
that exists already is left alone if it is the very same, and refused otherwise, so a stopped export goes on.
"""

from __future__ import annotations

import filecmp
import os
import posixpath
from collections.abc import Callable, Sequence
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem

from fairdedup.datasets import ImageShard
from fairdedup.datasets.filesystem import Unreadable, to_valid_text
from fairdedup.datasets.folder_shards import FolderShard, ZipShard
from fairdedup.datasets.images import MAX_IMAGE_BYTES
from fairdedup.datasets.keys import make_key
from fairdedup.datasets.originals import read_originals
from fairdedup.errors import UserError
from fairdedup.stages.sample_export.export_plan import NewShard, Plan, copy_files, expect_id, make_task, read_samples
from fairdedup.storage.plain_files import open_plain_file
from fairdedup.storage.run_files import atomic_write
from fairdedup.tasks import Submit, Task

PIECE = 1 << 24  # bytes that are copied at a time


class FolderWriter:
    """Writes files below a folder, and never replaces one.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, data: bytes, like: str | None = None) -> None:
        """Write a file, with the time of modification of another local file if one is given."""

        def write(aside: Path) -> None:
            aside.write_bytes(data)
            if like is not None:
                known = os.stat(like)
                os.utime(aside, ns=(known.st_atime_ns, known.st_mtime_ns))

        self._write(name, write)

    def copy(self, name: str, path: str, offset: int, size: int) -> None:
        """Write a file whose bytes are a range of a local file."""
        self._write(name, lambda aside: _copy_range(path, offset, size, aside))

    def link(self, name: str, target: str) -> None:
        """Write a symbolic link to a file."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.symlink(target, path)
        except FileExistsError:
            if not path.is_symlink() or os.readlink(path) != target:
                raise _taken(path) from None
        except OSError as error:
            raise UserError(
                f"{str(path)!r} cannot be a link ({error.strerror or error}): add --copy, or choose another place"
            ) from None

    def _write(self, name: str, write: Callable[[Path], object]) -> None:
        path = self.folder / name
        with atomic_write(path) as aside:
            write(aside)
            if os.path.lexists(path) and (path.is_symlink() or not filecmp.cmp(path, aside, shallow=False)):
                raise _taken(path)


def _copy_range(path: str, offset: int, size: int, target: Path) -> None:
    with open_plain_file(path) as file, open(target, "wb") as out:
        file.seek(offset)
        left = size
        while left:
            data = file.read(min(PIECE, left))
            if not data:
                raise UserError(f"{path} became shorter while it was read: do not change the input, and try again")
            out.write(data)
            left -= len(data)


def _taken(path: Path) -> UserError:
    return UserError(f"{str(path)!r} is another file already: remove it, or choose a new folder with --dest")


def has_files_to_link(shards: Sequence[ImageShard]) -> bool:
    """Tell whether the samples of an input are files of a local folder, to which links can lead.

    Parameters
    ----------
    shards : sequence of ImageShard
        All shards of the input.
    """
    return all(
        isinstance(shard, FolderShard) and not isinstance(shard, ZipShard) and isinstance(shard.fs, LocalFileSystem)
        for shard in shards
    )


def write_files(plan: Plan, new: NewShard, copy: bool) -> int:
    """Write the files of some samples, and return the number of the samples.

    Parameters
    ----------
    plan : Plan
    new : NewShard
        The samples.
    copy : bool
        Whether to copy the files, not to link to them.

    Raises
    ------
    UserError
        If the input has changed since the run, a file cannot be copied, or another file is in its place.
    """
    writer, written = FolderWriter(plan.folder), 0
    for samples in read_samples(plan, new):
        written += len(samples.positions)
        if not isinstance(samples.source, FolderShard):
            copy_files(samples, read_originals(samples.source, samples.positions, plan.clashing), writer)
            continue
        for position, expected in zip(samples.positions, samples.ids, strict=True):
            listed = samples.source.files[position]
            expect_id(samples.source, position, samples.source.make_id(listed.path), expected)
            _place(samples.source, listed.names, writer, copy)
    return written


def _place(source: FolderShard, names: Sequence[str], writer: FolderWriter, copy: bool) -> None:
    """Link or copy the files of one sample of a folder."""
    prefix = source.prefix if isinstance(source, ZipShard) else ""
    is_local = has_files_to_link([source])
    with source.reader() as read:
        for name in names:
            target, place = make_safe(prefix + name), os.path.abspath(posixpath.join(source.path, name))
            if copy:
                try:
                    writer.add(target, read(name, MAX_IMAGE_BYTES), place if is_local else None)
                except Unreadable as fault:
                    raise UserError(f"{to_valid_text(name)} cannot be copied ({fault}): restore the file") from None
            elif not os.path.isfile(place):
                raise UserError(f"{to_valid_text(place)!r} is no longer there: restore the file")
            else:
                writer.link(target, place)


def make_safe(name: str) -> str:
    """Return the relative path of a file, spelt as a key where it would lead out of the folder.

    Parameters
    ----------
    name : str
        Path in the input, which in an archive may be any text.
    """
    if "\0" not in name and all(part not in ("", "..") for part in name.split("/")):
        return name
    stem, ending = posixpath.splitext(name)
    return make_key(stem) + ending


def write_tree(plan: Plan, shards: Sequence[NewShard], submit: Submit, *, copy: bool) -> int:
    """Write the files of all samples, and return the number of the samples.

    Parameters
    ----------
    plan : Plan
    shards : sequence of NewShard
        The samples, cut into tasks.
    submit : Submit
    copy : bool
        Whether to copy the files, not to link to them.
    """
    tasks = [make_task(plan, new) for new in shards]
    tasks = [Task((*task.arguments, copy), task.rows, task.name, isolated=True) for task in tasks]
    return sum(submit("copy" if copy else "link", write_files, tasks))
