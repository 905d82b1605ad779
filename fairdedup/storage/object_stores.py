"""Paths that may be local or in an object store: parsing, checks, and reading many small files at once.

The other modules import what they need of paths and URLs from here.
"""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

from fairdedup.errors import UserError
from fairdedup.storage.plain_files import open_plain_file
from fairdedup.storage.remote_path import RemotePath
from fairdedup.storage.store_errors import explain_errors
from fairdedup.storage.urls import OBJECT_STORES, check_url, protocol_of

__all__ = [
    "RemotePath",
    "any_in",
    "as_path",
    "check_local",
    "check_url",
    "check_writable",
    "protocol_of",
    "read_many",
]

AT_ONCE = 64  # requests for small objects under way


def as_path(text: str | PathLike[str]) -> Path:
    """Return a local path, or the path that a URL names in a store.

    Parameters
    ----------
    text : str or path
        A path or a URL; a chain of URLs stays a local path, which opening will refuse.

    Raises
    ------
    UserError
        If the URL has credentials in it.
    """
    if isinstance(text, RemotePath):
        return text
    name = str(text)
    protocol = protocol_of(name)
    if protocol is None or "::" in name:
        return Path(name)
    check_url(name)
    if protocol in ("file", "local"):
        return Path("/" + name.partition("://")[2].lstrip("/"))
    return RemotePath(name.rstrip("/"))


def any_in(places: Iterable[str | PathLike[str]], folder: Path) -> bool:
    """Tell whether any of these paths is the folder or is in it, after following links.

    Parameters
    ----------
    places : iterable of str or path
        Paths or URLs.
    folder : Path
        The folder.
    """
    root = folder.absolute().resolve()
    return any(as_path(place).absolute().resolve().is_relative_to(root) for place in places)


def check_writable(path: Path, option: str) -> None:
    """Refuse a URL that no run can be written to.

    Parameters
    ----------
    path : Path
        What `as_path` made of the option's value.
    option : str
        The option, for the message.

    Raises
    ------
    UserError
        If the URL is not of an object store.
    """
    if isinstance(path, RemotePath) and path.protocol not in OBJECT_STORES:
        raise UserError(
            f"{option} {str(path)!r} cannot hold a run: give a local folder, or a URL of an object store "
            "(s3://, gs://, az://)"
        )


def check_local(path: Path, option: str) -> None:
    """Refuse a URL where a local file is needed.

    Parameters
    ----------
    path : Path
        What `as_path` made of the option's value.
    option : str
        The option, for the message.

    Raises
    ------
    UserError
        If it is a URL.
    """
    if isinstance(path, RemotePath):
        raise UserError(f"{option} {str(path)!r} is a URL: give a local file")


def read_many(paths: list[Path]) -> list[bytes | None]:
    """Return the bytes of small files, None for one that does not exist; from a store many at a time.

    Parameters
    ----------
    paths : list of Path
        Files that are all local or all in one store.
    """
    if not paths or not isinstance(paths[0], RemotePath):
        return [_bytes_of(path) for path in paths]
    first, found = paths[0], []
    with explain_errors(first.parent, "read"):
        for start in range(0, len(paths), AT_ONCE):
            names = [str(path) for path in paths[start : start + AT_ONCE]]
            zeros: list[Any] = [0] * len(names)
            found += first.fs.cat_ranges(names, zeros, [None] * len(names), on_error="return")
        for got in found:
            if isinstance(got, Exception) and not isinstance(got, FileNotFoundError):
                raise got
    return [None if isinstance(got, Exception) else bytes(got) for got in found]


def _bytes_of(path: Path) -> bytes | None:
    try:
        with open_plain_file(path) as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
