"""The guard for every file that a user or the data name: only plain files are opened, so that nothing waits for ever.

A pipe that nobody writes into, a socket, or a device such as /dev/zero is refused in one line before anything is read.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import IO, Any

from fairdedup.errors import UserError

REMEDY = "put a plain file in its place, or write what it holds into a file and give that"
_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_DOES_NOT_WAIT = getattr(os, "O_NONBLOCK", 0)  # for a pipe that takes the place of a file after it was looked at


class NotPlainFile(UserError):
    """A path names a pipe, a socket or a device, itself or through links."""


def expect_plain_file(path: str | Path, what: str | None = None) -> None:
    """Refuse a pipe, a socket or a device. Anything else passes: a folder, and a path that does not exist.

    Parameters
    ----------
    path : str or Path
        A path on the local disk. A path in an object store passes.
    what : str or None
        What names the file, for the message, such as "--drop 'ids.txt'"; None means the path alone.

    Raises
    ------
    NotPlainFile
        If opening or reading it could wait for ever.
    """
    try:
        mode = os.stat(path).st_mode
    except (
        OSError,
        ValueError,
        TypeError,
    ):  # the caller says what is wrong; a store's paths are not paths of the system
        return
    _refuse_special(mode, path, what)


def _refuse_special(mode: int, path: str | Path, what: str | None) -> None:
    for is_kind, kind in _KINDS:
        if is_kind(mode):
            raise NotPlainFile(f"{what or repr(str(path))} is not a plain file but {kind}: {REMEDY}")


def open_plain_file(path: str | Path, what: str | None = None, *, buffering: int = -1) -> IO[bytes]:
    """Open a file on the local disk for reading, if it is a plain one.

    Parameters
    ----------
    path : str or Path
        The file.
    what : str or None
        What names it, for the message; None means the path alone.
    buffering : int
        As for `open`.

    Raises
    ------
    NotPlainFile
        If it is a pipe, a socket or a device.
    OSError
        If it cannot be opened.
    """
    expect_plain_file(path, what)

    def open_at_once(name: str, flags: int) -> int:
        number = os.open(name, flags | _DOES_NOT_WAIT)
        try:
            _refuse_special(os.fstat(number).st_mode, path, what)
        except BaseException:
            os.close(number)
            raise
        return number

    file: IO[bytes] = open(path, "rb", buffering=buffering, opener=open_at_once)  # noqa: SIM115
    return file


def read_plain_text(path: str | Path, what: str, *, most: int) -> str:
    """Return the text of a small file, UTF-8.

    Parameters
    ----------
    path : str or Path
        The file.
    what : str
        What names it, for the message.
    most : int
        Largest number of bytes.

    Raises
    ------
    UserError
        If it is not a plain file, or is larger.
    OSError, UnicodeDecodeError
        If it cannot be read.
    """
    with open_plain_file(path, what) as file:
        data: Any = file.read(most + 1)
    if data is None:  # a file of /proc that has nothing to read yet
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    if len(data) > most:
        raise UserError(f"{what} is larger than {most >> 10:,} KiB, which is too much for such a file: shorten it")
    return str(data, "utf-8")
