"""Finding and naming the files of an input, on the local disk or any fsspec file system (DESIGN section 4).

Never follows a link round in a circle and never opens what is not a plain file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import unquote

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from fairdedup.errors import UserError
from fairdedup.storage.remote_path import read_range
from fairdedup.storage.urls import OBJECT_STORES, WEB, check_url, explain_missing_package, protocol_of

BLOCK = 1 << 23  # bytes that are asked of a store at a time
STAMPS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "Last-Modified", "updated", "created")


class Unreadable(Exception):
    """One file that cannot be read; the message is a reason fit for rejected/."""


@dataclass(frozen=True)
class Entry:
    """A name in a folder."""

    name: str
    path: str
    is_dir: bool


def locate(source: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a path or URL and the path on it.

    Raises
    ------
    UserError
        If the source is empty, its protocol is unknown or not installed, or its URL has credentials in it.
    """
    if not source or "\0" in source:
        raise UserError(f"the input is {source!r}: give a folder, a file, a pattern of tar shards or a URL")
    if os.path.lexists(source):  # a local name may hold "::" or ":", which mean something in a URL
        return LocalFileSystem(), LocalFileSystem._strip_protocol(source)
    check_url(source)
    protocol = protocol_of(source)
    try:
        if protocol in WEB and "::" not in source:
            from fairdedup.datasets.web import WebFileSystem

            return WebFileSystem(), source
        fs, path = url_to_fs(source)
    except ImportError as error:
        raise UserError(
            f"cannot open input {source!r}: {explain_missing_package(protocol or '', str(error))}"
        ) from None
    except Exception as error:  # an unknown protocol, an archive that is damaged
        reason = (str(error) or type(error).__name__).split("\n")[0]
        raise UserError(f"cannot open input {source!r}: {reason}; check the part before '://'") from None
    fs.invalidate_cache()  # what it has listed before may have changed
    return fs, path


def open_file(fs: AbstractFileSystem, path: str) -> IO[bytes]:
    """Open a file for reading; of a store in blocks, since its own would hold much at a time."""
    if isinstance(fs, LocalFileSystem):
        file: IO[bytes] = fs.open(path, "rb")
    else:
        file = fs.open(path, "rb", block_size=BLOCK)
    return file


def is_on_web(fs: AbstractFileSystem) -> bool:
    """Tell whether a file system is of web servers, which hardly know folders."""
    return _is_of(fs, WEB)


def _is_of(fs: AbstractFileSystem, protocols: tuple[str, ...]) -> bool:
    return (fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]) in protocols


def natural_key(text: str) -> tuple[tuple[str | int, ...], str]:
    """Sort key that puts "2" before "10"; a total order, for texts equal but for leading zeros too."""
    parts = re.split(r"([0-9]+)", text)  # odd places are digits, so types never meet
    return tuple(int(part) if place % 2 else part for place, part in enumerate(parts)), text


def plain_text(name: str) -> str:
    r"""Return text that any file can hold: a byte that is not UTF-8, or half a pair, is spelt ``\udcff``."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def extension(name: str) -> str:
    """Return what follows the last dot of a file name, in lower case; "" without one."""
    return posixpath.splitext(name)[1][1:].lower()


def entries(fs: AbstractFileSystem, folder: str) -> list[Entry]:
    """List a folder in natural order, hidden names left out, links to folders counted as folders.

    Raises
    ------
    UserError
        If the folder may not be read.
    """
    try:
        if isinstance(fs, LocalFileSystem):
            with os.scandir(folder) as found:  # without fsspec's stat of every file
                listed = [Entry(e.name, posixpath.join(folder, e.name), _is_dir(e)) for e in found]
        else:
            paths = {info["name"].rstrip("/"): info["type"] for info in fs.ls(folder, detail=True)}
            paths.pop(folder.rstrip("/"), None)  # object stores list the folder's own marker
            listed = [Entry(posixpath.basename(p), p, kind == "directory") for p, kind in paths.items()]
    except PermissionError:
        raise UserError(f"folder {folder!r} may not be read: check its permissions") from None
    return sorted((e for e in listed if not e.name.startswith(".")), key=lambda e: natural_key(e.name))


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def walk(fs: AbstractFileSystem, root: str) -> Iterator[tuple[str, list[str]]]:
    """Yield (relative folder, file names) for a folder and everything under it; "" is the root itself."""
    todo: list[tuple[str, str, frozenset[Any]]] = [(root, "", frozenset())]
    while todo:
        folder, relative, above = todo.pop()
        identity = _identity(fs, folder)
        if identity in above:  # a link to a folder that it lies in
            continue
        found = entries(fs, folder)
        yield relative, [entry.name for entry in found if not entry.is_dir]
        todo.extend(
            (entry.path, posixpath.join(relative, entry.name), above | {identity}) for entry in found if entry.is_dir
        )


def _identity(fs: AbstractFileSystem, folder: str) -> Any:
    if not isinstance(fs, LocalFileSystem):
        return folder
    stat = os.stat(folder)
    return stat.st_dev, stat.st_ino


def within(fs: AbstractFileSystem, folder: str, name: str) -> str:
    """Return the path on the file system of a file that data names, relative to a folder or in full.

    Raises
    ------
    Unreadable
        If it leads out of the folder: data must not choose what else is read.
    """
    outside = Unreadable("path leads out of the data set's folder")
    if "\0" in name:
        raise Unreadable("path with a zero byte")
    base = folder if not folder or folder.endswith("/") else f"{folder}/"
    path = name if name.startswith("/") else base + name
    if "://" in name:
        protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
        if name.partition("://")[0] not in protocols:
            raise outside
        path = fs._strip_protocol(name)
    # A server may read %2e, and another system a backslash, as what they stand for.
    for spelt in (path, unquote(path), path.replace("\\", "/")):
        if not spelt.startswith(base) or ".." in spelt.split("/"):
            raise outside
    return path


def read_file(fs: AbstractFileSystem, path: str, limit: int) -> bytes:
    """Return the bytes of a plain file of at most ``limit`` bytes.

    A fault of the disk or the network is not a bad sample: it stays the exception that it is.

    Raises
    ------
    Unreadable
        If the file is missing, forbidden, too large or not a plain file.
    """
    try:
        if _is_of(fs, OBJECT_STORES):  # one request, and no listing where there is none
            return _at_most(read_range(fs, path, 0, limit + 1), limit)
        info = fs.info(path)
        if info["type"] != "file":  # a named pipe would wait for ever
            raise Unreadable("not a plain file")
        if info["size"] is not None and info["size"] > limit:
            raise Unreadable(f"file larger than {limit >> 20} MiB")
        if info["size"] is None:
            with fs.open(path, "rb") as file:
                return _at_most(file.read(limit + 1), limit)
        return bytes(fs.cat_file(path))
    except FileNotFoundError:
        raise Unreadable("file is missing or a broken link") from None
    except PermissionError:
        if not isinstance(fs, LocalFileSystem) and not is_on_web(fs):  # credentials that have run out
            raise
        raise Unreadable("file may not be read: permission denied") from None
    except OSError as error:
        if isinstance(fs, LocalFileSystem) and os.path.islink(path):
            raise Unreadable("link that leads nowhere") from error
        if error.errno in (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR):  # a name that data gave
            raise Unreadable("no file can have this path") from error
        raise


def _at_most(data: bytes, limit: int) -> bytes:
    if len(data) > limit:
        raise Unreadable(f"file larger than {limit >> 20} MiB")
    return data


def fingerprint(fs: AbstractFileSystem, *paths: str, label: str = "") -> str:
    """Return 16 hex digits that change when the label or a file's name, size, or time or etag does."""
    digest = hashlib.sha256(label.encode("utf-8", "surrogatepass"))
    for path in paths:
        try:
            info = fs.info(path)
        except OSError as error:  # a broken link; a vanished file shows when it is read
            if not isinstance(fs, LocalFileSystem) and not isinstance(error, FileNotFoundError):
                raise
            info = {}
        stamp = next((info[key] for key in STAMPS if info.get(key) is not None), None)
        digest.update(f"\0{posixpath.basename(path)}\0{info.get('size')}\0{stamp}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]
