"""Finds, names and reads the files of an input, on the local disk or any file system that fsspec knows.

It never follows links in a circle, and never opens anything but plain files.
"""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import re
from collections.abc import Iterable
from typing import IO, NamedTuple
from urllib.parse import unquote

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from fairdedup.errors import UserError, first_line
from fairdedup.storage.plain_files import expect_plain_file, open_plain_file
from fairdedup.storage.store_access import prepare_package, read_range
from fairdedup.storage.store_errors import no_credentials
from fairdedup.storage.urls import OBJECT_STORES, WEB, check_url, explain_missing_package, protocol_of

BLOCK = 1 << 23  # bytes in one request to a store
LOCAL = (None, "file", "local")
STAMPS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "Last-Modified", "updated", "created")


class Unreadable(Exception):
    """One file cannot be read; the message is the reason that rejected/ records."""


class Entry(NamedTuple):
    """A file or folder in a folder.

    Attributes
    ----------
    name : str
        Its name in the folder.
    path : str
        Its path on the file system.
    is_dir : bool
        Whether it is a folder, or a link to one.
    folder : str
        The folder that holds it, relative to the folder that is walked; "" for that folder itself.
    is_plain : bool
        Whether it is a plain file, or a link to one; pipes, sockets, devices and broken links are never opened.
    """

    name: str
    path: str
    is_dir: bool
    folder: str = ""
    is_plain: bool = True

    @property
    def relative(self) -> str:
        """Its path relative to the folder that is walked."""
        return f"{self.folder}/{self.name}" if self.folder else self.name


def locate(source: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a path or URL, and the path on it.

    Parameters
    ----------
    source : str
        INPUT as the user gave it.

    Raises
    ------
    UserError
        If the source is empty, its protocol is unknown or not installed, or its URL has credentials in it.
    """
    if not source or "\0" in source:
        raise UserError(f"the input is {source!r}: give a folder, a file, a pattern of shards or a URL")
    if os.path.lexists(source):  # a local name may hold "::" or ":", which mean something in a URL
        return LocalFileSystem(), LocalFileSystem._strip_protocol(source)
    check_url(source)
    protocol = protocol_of(source)
    for part in source.split("::")[1:]:  # the archive of a chain of URLs, which is opened at once
        expect_plain_file(LocalFileSystem._strip_protocol(part) if protocol_of(part) in LOCAL else part, repr(source))
    try:
        if protocol in WEB and "::" not in source:
            from fairdedup.datasets.web import WebFileSystem

            return WebFileSystem(), source
        prepare_package(protocol or "")
        fs, path = url_to_fs(source)
    except ImportError as error:
        raise UserError(
            f"cannot open input {source!r}: {explain_missing_package(protocol or '', str(error))}"
        ) from None
    except Exception as error:  # an unknown protocol, an archive that is damaged, no credentials
        reason = first_line(error)
        if protocol in OBJECT_STORES:
            raise UserError(f"cannot open input {source!r} ({reason}): {no_credentials(protocol)}") from None
        raise UserError(f"cannot open input {source!r}: {reason}; check the part before '://'") from None
    fs.invalidate_cache()  # its cached listings may be out of date
    return fs, path


def open_file(fs: AbstractFileSystem, path: str) -> IO[bytes]:
    """Open a file for reading. A store is read in blocks of 8 MiB, since fsspec's default needs more memory.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The file's path on it.

    Raises
    ------
    UserError
        If it is a pipe, a socket or a device.
    """
    file: IO[bytes] = (
        open_plain_file(path) if isinstance(fs, LocalFileSystem) else fs.open(path, "rb", block_size=BLOCK)
    )
    return file


def is_on_web(fs: AbstractFileSystem) -> bool:
    """Tell whether a file system reads web servers, which can hardly list folders."""
    return _has_protocol(fs, WEB)


def _has_protocol(fs: AbstractFileSystem, protocols: tuple[str, ...]) -> bool:
    return (fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]) in protocols


def natural_key(text: str) -> tuple[tuple[str | tuple[int, str], ...], str]:
    """Return a sort key that puts "2" before "10"; the order is total, also between "1" and "01"."""
    parts = re.split(r"([0-9]+)", text)  # digits are at odd places, so a number is never compared with a text
    return tuple(_number_key(part) if place % 2 else part for place, part in enumerate(parts)), text


def _number_key(digits: str) -> tuple[int, str]:
    """Return a sort key of whole numbers, also of those with too many digits for Python."""
    digits = digits.lstrip("0")
    return len(digits), digits


def in_natural_order(entries: Iterable[Entry]) -> list[Entry]:
    """Return files in natural order of their relative paths."""
    return sorted(entries, key=lambda entry: natural_key(entry.relative))


def to_valid_text(name: str) -> str:
    r"""Return text that is valid UTF-8: a wrong byte or half a surrogate pair becomes an escape such as ``\udcff``."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def get_extension(name: str) -> str:
    """Return what follows the last dot of a file name, in lower case; "" without one."""
    return posixpath.splitext(name)[1][1:].lower()


def list_entries(fs: AbstractFileSystem, folder: str) -> list[Entry]:
    """List a folder in natural order, without hidden names; a link to a folder counts as a folder.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    folder : str
        The folder's path on it.

    Raises
    ------
    UserError
        If its permissions forbid listing it.
    """
    return sorted(scan_entries(fs, folder), key=lambda entry: natural_key(entry.name))


def scan_entries(fs: AbstractFileSystem, folder: str, relative: str = "") -> list[Entry]:
    """List a folder as `list_entries` does, in any order; `relative` becomes the `folder` of its entries."""
    try:
        if isinstance(fs, LocalFileSystem):
            base = folder if folder.endswith("/") else f"{folder}/"
            with os.scandir(folder) as found:  # fsspec would call stat for every file
                return [_local_entry(e, base + e.name, relative) for e in found if not e.name.startswith(".")]
        kinds = {info["name"].rstrip("/"): info["type"] for info in fs.ls(folder, detail=True)}
    except PermissionError:
        raise UserError(f"folder {folder!r} cannot be read: check its permissions") from None
    kinds.pop(folder.rstrip("/"), None)  # object stores list the folder's own marker, too
    named = ((posixpath.basename(path), path, kind) for path, kind in kinds.items())
    return [Entry(n, p, k == "directory", relative, k != "other") for n, p, k in named if not n.startswith(".")]


def _local_entry(entry: os.DirEntry[str], path: str, relative: str) -> Entry:
    try:
        is_dir = entry.is_dir()
        return Entry(entry.name, path, is_dir, relative, is_dir or entry.is_file())
    except OSError:  # a link to itself
        return Entry(entry.name, path, False, relative, False)


def resolve_within(fs: AbstractFileSystem, folder: str, name: str) -> str:
    """Return the path of a file that the data refer to, by a relative or a full path.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system of the folder.
    folder : str
        The folder of the data set, as a path on `fs`.
    name : str
        The path in the data.

    Raises
    ------
    Unreadable
        If the path leads out of the folder: the data must not decide which other files are read.
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
    # Some servers decode %2e, and some systems take a backslash for a slash.
    for variant in (path, unquote(path), path.replace("\\", "/")):
        if not variant.startswith(base) or ".." in variant.split("/"):
            raise outside
    return path


def read_file(fs: AbstractFileSystem, path: str, limit: int) -> bytes:
    """Return the bytes of a plain file of at most ``limit`` bytes.

    A fault of the disk or the network is not a bad sample: such exceptions pass unchanged.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The file's path on it.
    limit : int
        Largest number of bytes to read.

    Raises
    ------
    Unreadable
        If the file is missing, forbidden, too large or not a plain file.
    """
    try:
        if _has_protocol(fs, OBJECT_STORES):  # one request, and no listing if there is no such object
            return _at_most(read_range(fs, path, 0, limit + 1), limit)
        info = fs.info(path)
        if info["type"] != "file":  # reading a named pipe would block for ever
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
        if error.errno in (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR):  # a name from the data
            raise Unreadable("no file can have this path") from error
        raise


def _at_most(data: bytes, limit: int) -> bytes:
    if len(data) > limit:
        raise Unreadable(f"file larger than {limit >> 20} MiB")
    return data


def fingerprint(fs: AbstractFileSystem, *paths: str, label: str = "") -> str:
    """Return 16 hex digits that change when the label does, or a file's name, size, time or etag.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    *paths : str
        The files' paths on it.
    label : str
        Text that also identifies the shard.
    """
    digest = hashlib.sha256(label.encode("utf-8", "surrogatepass"))
    for path in paths:
        try:
            info = fs.info(path)
        except OSError as error:  # a broken link; a missing file is noticed when it is read
            if not isinstance(fs, LocalFileSystem) and not isinstance(error, FileNotFoundError):
                raise
            info = {}
        stamp = next((info[key] for key in STAMPS if info.get(key) is not None), None)
        digest.update(f"\0{posixpath.basename(path)}\0{info.get('size')}\0{stamp}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]
