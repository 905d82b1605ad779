"""What to do about a file that cannot be read or written, by the kind of the error, and copies that notice a change."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fairdedup.errors import FairdedupError

PIECE = 1 << 24  # bytes that are copied at a time
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)
NO_FOLDER = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)


def explain_failed_write(path: Path, aside: Path | None, error: OSError, remedy: str | None = None) -> FairdedupError:
    """Return the error of a file that could not be written. It may be due to another file, which had to be read.

    Parameters
    ----------
    path : Path
        The file.
    aside : Path or None
        Temporary file that was to replace it, if it was chosen.
    error : OSError
        What happened.
    remedy : str, optional
        What to do about the write; by default that depends on the error.
    """
    reason = error.strerror or error
    other = None if isinstance(error.filename, int) else error.filename
    if other is not None and aside is not None:
        other = os.fsdecode(other)
        if Path(other) not in (aside, path, *aside.parents):
            return FairdedupError(f"cannot read {other}: {reason}; {_advise_on_reading(error)}")
    if aside is not None and error.errno is None and isinstance(error, FileNotFoundError):  # as fsspec raises it
        return FairdedupError(f"cannot read {error}: no such file; bring it back, and run the command again")
    return FairdedupError(f"cannot write {path}: {reason}; {remedy or _advise_on_writing(error)}")


def _advise_on_writing(error: OSError) -> str:
    if error.errno in NO_SPACE or error.errno is None:
        return "free some space or choose another place"
    if error.errno in NO_PERMISSION:
        return "ask its owner, or choose another place"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return "a file is where its folder must be: choose another place"
    if error.errno in NO_FOLDER:
        return "its folder was moved or removed meanwhile: run the command again where the folder is now"
    return "check the disk, or choose another place"


def _advise_on_reading(error: OSError) -> str:
    if error.errno in NO_FOLDER:
        return "bring it back, and run the command again"
    return "ask its owner" if error.errno in NO_PERMISSION else "check its disk, and run the command again"


@contextmanager
def explain_reading(source: Path) -> Iterator[None]:
    """Turn an error of reading a file into one that names this file, not the file that is being written.

    Raises
    ------
    FairdedupError
        If the file cannot be read.
    """
    try:
        yield
    except OSError as error:
        if error.errno in NO_FOLDER:
            raise FairdedupError(
                f"{source} was moved or removed while it was copied: run the command again, with the new place of "
                "that run"
            ) from error
        raise FairdedupError(f"cannot read {source}: {error.strerror or error}; {_advise_on_reading(error)}") from error


def link_or_copy_local(source: Path, target: Path) -> None:
    """Link a file to another place, or copy it where hard links are not possible.

    Raises
    ------
    FairdedupError
        If the source cannot be read, or changes meanwhile.
    """
    with explain_reading(source):
        before = os.stat(source)
    try:
        os.link(source, target)
    except OSError:  # another file system, no hard links, or a limit of links
        _copy(source, target)
    with explain_reading(source):
        after = os.stat(source)
    if any(getattr(before, name) != getattr(after, name) for name in ("st_ino", "st_dev", "st_size", "st_mtime_ns")):
        raise changed(source)


def changed(source: Path) -> FairdedupError:
    """Return the error of a file that another command writes while it is linked or copied."""
    return FairdedupError(
        f"{source} changed while it was copied: wait until the command that writes that run has ended, and run this "
        "one again"
    )


def _copy(source: Path, target: Path) -> None:
    with explain_reading(source):
        descriptor = os.open(source, os.O_RDONLY)
    with open(descriptor, "rb") as file, open(target, "wb") as out:
        while True:
            with explain_reading(source):
                data = file.read(PIECE)
            if not data:
                return
            out.write(data)
