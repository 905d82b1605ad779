"""Object stores: paths in them, by fsspec, and no credentials in a URL.

Credentials come from the environment or the store's own configuration files; none is read, kept or printed here.
"""

from __future__ import annotations

import errno
import fnmatch
import itertools
import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from os import PathLike
from pathlib import Path, PosixPath
from typing import IO, Any, NamedTuple

from fairdedup.errors import FairdedupError, UserError, visible

OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")  # an object appears whole or not at all
WEB = ("http", "https")
EXTRAS = {"s3": "s3", "s3a": "s3", "http": "http", "https": "http"}  # protocol -> extra of this package
PUT = dict.fromkeys(("s3", "s3a"), {"max_concurrency": 4})  # parts of 50 MiB that are held in memory
AT_ONCE = 64  # requests for small objects under way

_URL = re.compile(r"(?:[a-z0-9+.-]+::)*([a-z][a-z0-9+.-]*)://(.*)", re.IGNORECASE | re.DOTALL)
_BEGINS = re.compile(r"(?:--[a-z-]+=)?\{?[a-z0-9+.:-]+://", re.IGNORECASE)  # a URL, or an option that is given one
_IN_URL = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#]*)([^:]*)", re.IGNORECASE)


class Size(NamedTuple):
    """What is known of an object without reading it; the names are those of `os.stat_result`."""

    st_size: int
    st_mtime: float


def protocol_of(text: str) -> str | None:
    """Return the protocol of a URL in lower case, of a chain the last one; None of a local path."""
    found = _URL.fullmatch(text)
    return None if found is None else found[1].lower()


def check_url(text: str) -> None:
    """Refuse a URL that has credentials in it, without repeating them.

    Raises
    ------
    UserError
        In one line.
    """
    for protocol, host, rest in _IN_URL.findall(text) if _BEGINS.match(text) else ():
        web = protocol.lower() in WEB
        user = host.rpartition("@")[0] if "@" in host else ""
        secret = ":" in user or (web and (user or re.search(r":(?![0-9]*$)", host)))
        if protocol.lower() in OBJECT_STORES and not host.startswith("arn:"):  # a secret may hold a slash
            secret = secret or ":" in host
        if secret or re.search(r"\?.*=", rest):
            place = visible(host.rpartition("@")[2].partition(":")[0] if not secret or web else "")
            raise UserError(
                f"the URL {protocol}://{place}... has credentials in it (NAME:SECRET@, or a signature behind '?'), "
                "which would be stored with the run: take them out, and set them in the environment or the store's own "
                "configuration (docs/object-stores.md)"
            )


def as_path(text: str | PathLike[str]) -> Path:
    """Return a local path, or the path that a URL names in a store.

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
    """Tell whether any of these paths or URLs is a folder or lies in it, links followed."""
    root = folder.absolute().resolve()
    return any(as_path(place).absolute().resolve().is_relative_to(root) for place in places)


def check_writable(path: Path, option: str) -> None:
    """Refuse a URL that no run can be written to.

    Raises
    ------
    UserError
        Naming the option.
    """
    if isinstance(path, RemotePath) and path.protocol not in OBJECT_STORES:
        raise UserError(
            f"{option} {str(path)!r} is no place for a run: give a local folder, or a URL of an object store "
            f"({', '.join(f'{p}://' for p in OBJECT_STORES[:1] + OBJECT_STORES[2:3] + OBJECT_STORES[4:5])})"
        )


def check_local(path: Path, option: str) -> None:
    """Refuse a URL where a local file is needed.

    Raises
    ------
    UserError
        Naming the option.
    """
    if isinstance(path, RemotePath):
        raise UserError(f"{option} {str(path)!r} is a URL: give a local file")


def missing_package(protocol: str, reason: str) -> str:
    """Return what to install for a protocol whose package is not there."""
    if protocol in EXTRAS:
        return f"{protocol}:// needs a package that is not installed: pip install 'fairdedup[{EXTRAS[protocol]}]'"
    return f"{reason.rstrip('.')}"


@cache
def file_system(protocol: str) -> Any:
    """Return fsspec's file system of a protocol, which keeps no listings: other processes write too.

    Raises
    ------
    UserError
        If its package is not installed.
    """
    import fsspec

    try:
        return fsspec.filesystem(protocol, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise UserError(f"{protocol}://: {missing_package(protocol, str(error))}") from None


def is_of_transport(error: BaseException) -> bool:
    """Tell whether an error is one of the libraries that speak to stores."""
    return isinstance(error, tuple(
        kind for module, name in (
            ("aiohttp", "ClientError"), ("botocore.exceptions", "HTTPClientError"),
            ("botocore.exceptions", "BotoCoreError"), ("botocore.exceptions", "ClientError"),
        ) if (kind := getattr(sys.modules.get(module), name, None)) is not None
    ))  # fmt: skip


def why(error: BaseException) -> str:
    """Return what is wrong as one line, for people."""
    if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
        return "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    text = str(error.strerror or error) if isinstance(error, OSError) else str(error)
    return visible(f"{type(error).__name__}: {text.strip() or 'no message'}".splitlines()[0])


@contextmanager
def naming(path: object, doing: str) -> Iterator[None]:
    """Turn an error of a store into one line that names the object; that there is none stays what it is.

    Raises
    ------
    FairdedupError
    """
    try:
        yield
    except (FileNotFoundError, FairdedupError):
        raise
    except Exception as error:
        if not isinstance(error, OSError) and not is_of_transport(error):
            raise
        mend = "check the credentials and what they allow" if isinstance(error, PermissionError) else "try again"
        raise FairdedupError(f"cannot {doing} {path} ({why(error)}): {mend}; the same command goes on from here") \
            from error  # fmt: skip


def read_range(fs: Any, name: str, start: int = 0, stop: int | None = None) -> bytes:
    """Return the bytes of an object, or a range of them, by one request."""
    try:
        return bytes(fs.cat_file(name, start=start, end=stop))
    except OSError as error:
        if error.errno == errno.EINVAL and fs.size(name) <= start:  # no range lies in an empty object
            return b""
        raise


class RemotePath(PosixPath):
    """A path in a store, as ``s3://bucket/run``; it has what runs use of a path, and is never a local one.

    Requests are tried again by the store's own package, as its settings say. Nothing here lists a folder, but for
    `iterdir`, `glob`, `is_dir` and `remove_tree`.
    """

    __slots__ = ()

    def __str__(self) -> str:
        first, *rest = self.parts or ("",)
        return f"{first}//{'/'.join(rest)}" if first.endswith(":") else "/".join((first, *rest))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __fspath__(self) -> str:
        raise TypeError(f"{self} is in a store: nothing local can open it")

    @property
    def protocol(self) -> str:
        """What stands before ``://``."""
        return self.parts[0].rstrip(":").lower()

    @property
    def fs(self) -> Any:
        """Its file system in fsspec."""
        return file_system(self.protocol)

    def absolute(self) -> RemotePath:
        """Return itself."""
        return self

    def resolve(self, strict: bool = False) -> RemotePath:
        """Return itself."""
        return self

    def _info(self) -> dict[str, Any] | None:
        with naming(self, "look for"):
            try:
                return dict(self.fs.info(str(self)))
            except FileNotFoundError:
                return None

    def exists(self) -> bool:
        """Tell whether there is an object or anything below it."""
        return self._info() is not None

    def is_file(self) -> bool:
        """Tell whether there is an object of this name."""
        return (self._info() or {}).get("type") == "file"

    def is_dir(self) -> bool:
        """Tell whether there is anything below it."""
        return (self._info() or {}).get("type") == "directory"

    def stat(self, *, follow_symlinks: bool = True) -> Any:
        """Return size and time; the time of a folder is that of the newest object below it.

        Raises
        ------
        FileNotFoundError
        """
        info = self._info()
        if info is None:
            raise FileNotFoundError(errno.ENOENT, "no such object", str(self))
        if info["type"] == "directory":
            with naming(self, "list"):
                below = [_size(each) for each in self.fs.find(str(self), detail=True).values()]
            return Size(0, max((each.st_mtime for each in below), default=time.time()))
        return _size(info)

    def read_bytes(self, start: int = 0, stop: int | None = None) -> bytes:
        """Return the object's bytes, or a range of them, by one request.

        Raises
        ------
        FileNotFoundError
        """
        with naming(self, "read"):
            return read_range(self.fs, str(self), start, stop)

    def blocks(self, size: int) -> Iterator[bytes]:
        """Yield the object's bytes, a request for each so many.

        Raises
        ------
        FileNotFoundError
        """
        for start in itertools.count(0, size):
            block = self.read_bytes(start, start + size)
            yield block
            if len(block) < size:
                return

    def read_ranges(self, ranges: list[tuple[int, int]]) -> list[bytes]:
        """Return several ranges of its bytes, a request each, some at a time."""
        if len(ranges) < 2:
            return [self.read_bytes(*one) for one in ranges]
        with naming(self, "read"):
            names = [str(self)] * len(ranges)
            return list(self.fs.cat_ranges(names, *map(list, zip(*ranges, strict=True)), on_error="raise"))

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        """Return the object's text."""
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def open(self, mode: str = "rb", *args: Any, **kwargs: Any) -> IO[Any]:  # type: ignore[override]
        """Open the object for reading, range by range."""
        if mode != "rb":
            raise ValueError(f"{self}: mode {mode!r}, but objects are written whole")
        with naming(self, "open"):
            file: IO[Any] = self.fs.open(str(self), "rb", cache_type="none")
            return file

    def put(self, local: Path) -> None:
        """Write a local file as the object, which appears whole or not at all.

        Raises
        ------
        FairdedupError
            If it cannot be written; what was there before stays.
        """
        with naming(self, "write"):
            try:
                self.fs.put_file(str(local), str(self), **PUT.get(self.protocol, {}))
            except FileNotFoundError as error:
                raise FairdedupError(f"cannot write {self} ({why(error)}): is the bucket there?") from None

    def get(self, local: Path) -> None:
        """Write the object as a local file."""
        with naming(self, "read"):
            self.fs.get_file(str(self), str(local))

    def copy_from(self, source: RemotePath) -> None:
        """Copy another object of the same store, on its server."""
        with naming(self, "write"):
            self.fs.cp_file(str(source), str(self))

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object; stores do not tell whether there was one."""
        with naming(self, "remove"):
            try:
                self.fs.rm_file(str(self))
            except FileNotFoundError:
                if not missing_ok:
                    raise

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: stores have no folders."""

    def rmdir(self) -> None:
        """Do nothing: stores have no folders."""

    def sizes(self) -> dict[str, int]:
        """Return the size of each object directly in this folder, by name: one listing."""
        with naming(self, "list"):
            try:
                listed = self.fs.ls(str(self), detail=True)
            except FileNotFoundError:
                return {}
        return {info["name"].rpartition("/")[2]: info["size"] for info in listed if info["type"] == "file"}

    def iterdir(self) -> Iterator[Path]:  # type: ignore[override]
        """Yield what is directly in this folder: one listing."""
        with naming(self, "list"):
            try:
                listed = self.fs.ls(str(self), detail=True)
            except FileNotFoundError:
                return
        own = str(self).partition("://")[2].rstrip("/")
        names = (info["name"].rstrip("/") for info in listed)
        yield from (self / name.rpartition("/")[2] for name in names if name != own)

    def glob(self, pattern: str) -> Iterator[Path]:  # type: ignore[override]
        """Yield what is directly in this folder and fits: one listing."""
        if "/" in pattern or "**" in pattern:
            raise ValueError(f"{self}: pattern {pattern!r} of several folders")
        return (path for path in self.iterdir() if fnmatch.fnmatchcase(path.name, pattern))

    def remove_tree(self) -> None:
        """Remove everything below it: one listing, and a request for each thousand objects."""
        with naming(self, "remove"):
            names = self.fs.find(str(self))
            if names:
                self.fs.rm(names)


def _size(info: dict[str, Any]) -> Size:
    changed: Any = info.get("LastModified") or info.get("updated") or info.get("last_modified")
    return Size(info["size"], changed.timestamp() if hasattr(changed, "timestamp") else time.time())


def read_many(paths: list[Path]) -> list[bytes | None]:
    """Return the bytes of small files, None of one that is not there; of a store many at a time."""
    if not paths or not isinstance(paths[0], RemotePath):
        return [_bytes_of(path) for path in paths]
    first, found = paths[0], []
    with naming(first.parent, "read"):
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
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
