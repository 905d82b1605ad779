"""A path in an object store, by fsspec: it has what runs use of a path, and is never a local file."""

from __future__ import annotations

import errno
import fnmatch
import itertools
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path, PosixPath
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from fairdedup.errors import FairdedupError
from fairdedup.storage.store_access import file_system, read_range
from fairdedup.storage.store_errors import describe_error, explain_errors
from fairdedup.storage.urls import AZURE

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

PUT_OPTIONS = dict.fromkeys(("s3", "s3a"), {"max_concurrency": 4})  # parts of 50 MiB that are kept in memory


class Size(NamedTuple):
    """What is known of an object without reading it; the names are those of `os.stat_result`.

    Attributes
    ----------
    st_size : int
        Length in bytes.
    st_mtime : float
        Time of the last change, in seconds since 1970.
    """

    st_size: int
    st_mtime: float


class _Found(NamedTuple):
    is_folder: bool
    size: Size


class RemotePath(PosixPath):
    """A path in a store, such as ``s3://bucket/run``.

    The store's own package repeats failed requests, as its settings say. Only `iterdir`, `glob`, `sizes`, `stat`,
    `is_dir` and `remove_tree` list a folder. What opens local files raises TypeError.
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
        """The part before ``://``, in lower case."""
        return self.parts[0].rstrip(":").lower()

    @property
    def fs(self) -> AbstractFileSystem:
        """Fsspec's file system of the store."""
        return file_system(self.protocol)

    def absolute(self) -> RemotePath:
        """Return this path, which is absolute and has no links."""
        return self

    def resolve(self, strict: bool = False) -> RemotePath:
        """Return this path, which is absolute and has no links."""
        return self

    def _find(self) -> _Found | None:
        with explain_errors(self, "look for"):
            try:
                info = self.fs.info(str(self))
            except FileNotFoundError:
                return None
        is_folder = info["type"] == "directory"
        return _Found(is_folder, Size(0, 0.0) if is_folder else _size(info))

    def exists(self) -> bool:
        """Tell whether there is an object or anything below it."""
        return self._find() is not None

    def is_file(self) -> bool:
        """Tell whether there is an object of this name."""
        found = self._find()
        return found is not None and not found.is_folder

    def is_dir(self) -> bool:
        """Tell whether there is anything below it."""
        found = self._find()
        return found is not None and found.is_folder

    def stat(self, *, follow_symlinks: bool = True) -> Any:
        """Return size and time; the time of a folder is that of the newest object below it.

        Raises
        ------
        FileNotFoundError
            If there is neither an object nor anything below it.
        """
        found = self._find()
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no such object", str(self))
        if found.is_folder:
            with explain_errors(self, "list"):
                below = [_size(each) for each in self.fs.find(str(self), detail=True).values()]
            return Size(0, max((each.st_mtime for each in below), default=time.time()))
        return found.size

    def read_bytes(self, start: int = 0, stop: int | None = None) -> bytes:
        """Return the object's bytes, or a range of them, by one request.

        Raises
        ------
        FileNotFoundError
            If there is no such object.
        """
        with explain_errors(self, "read"):
            return read_range(self.fs, str(self), start, stop)

    def blocks(self, size: int) -> Iterator[bytes]:
        """Yield the object's bytes in blocks of `size`, one request each.

        Raises
        ------
        FileNotFoundError
            If there is no such object.
        """
        for start in itertools.count(0, size):
            block = self.read_bytes(start, start + size)
            yield block
            if len(block) < size:
                return

    def read_ranges(self, ranges: list[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of several ranges (start, stop), one request each, some at a time."""
        if len(ranges) < 2:
            return [self.read_bytes(*one) for one in ranges]
        with explain_errors(self, "read"):
            names = [str(self)] * len(ranges)
            return list(self.fs.cat_ranges(names, *map(list, zip(*ranges, strict=True)), on_error="raise"))

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        """Return the object's text."""
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def open(self, mode: str = "rb", *args: Any, **kwargs: Any) -> IO[Any]:  # type: ignore[override]
        """Open the object for reading, range by range."""
        if mode != "rb":
            raise ValueError(f"{self}: mode must be 'rb', since objects are written whole; got {mode!r}")
        with explain_errors(self, "open"):
            file: IO[Any] = self.fs.open(str(self), "rb", cache_type="none")
            return file

    def put(self, local: Path) -> None:
        """Copy a local file into the object, which appears whole or not at all.

        Raises
        ------
        FairdedupError
            If it cannot be written; what was there before stays.
        """
        with explain_errors(self, "write"):
            try:
                self.fs.put_file(str(local), str(self), **PUT_OPTIONS.get(self.protocol, {}))
            except FileNotFoundError as error:
                raise FairdedupError(
                    f"cannot write {self} ({describe_error(error)}): check that the bucket exists"
                ) from None

    def get(self, local: Path) -> None:
        """Copy the object into a local file."""
        with explain_errors(self, "read"):
            self.fs.get_file(str(self), str(local))

    def copy_from(self, source: RemotePath) -> None:
        """Copy another object of the same store, on its server; in Azure through the local disk.

        Azure's server copies in the background, and whoever reads the copy too early does not get it whole.
        """
        if self.protocol in AZURE:
            with tempfile.TemporaryDirectory(prefix="fairdedup-") as folder:
                source.get(Path(folder, source.name))
                self.put(Path(folder, source.name))
            return
        with explain_errors(self, "write"):
            self.fs.cp_file(str(source), str(self))

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object; most stores do not tell whether there was one."""
        with explain_errors(self, "remove"):
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
        """Return the size in bytes of each object directly in this folder, by name: one listing."""
        with explain_errors(self, "list"):
            try:
                listed = self.fs.ls(str(self), detail=True)
            except FileNotFoundError:
                return {}
        return {info["name"].rpartition("/")[2]: info["size"] for info in listed if info["type"] == "file"}

    def iterdir(self) -> Iterator[Path]:  # type: ignore[override]
        """Yield what is directly in this folder: one listing."""
        with explain_errors(self, "list"):
            try:
                listed = self.fs.ls(str(self), detail=True)
            except FileNotFoundError:
                return
        own = str(self).partition("://")[2].rstrip("/")
        names = (info["name"].rstrip("/") for info in listed)
        yield from (self / name.rpartition("/")[2] for name in names if name != own)

    def glob(self, pattern: str) -> Iterator[Path]:  # type: ignore[override]
        """Yield what is directly in this folder and matches: one listing.

        Raises
        ------
        ValueError
            If the pattern spans folders.
        """
        if "/" in pattern or "**" in pattern:
            raise ValueError(f"{self}: pattern {pattern!r} spans folders; give one for names in this folder")
        return (path for path in self.iterdir() if fnmatch.fnmatchcase(path.name, pattern))

    def remove_tree(self) -> None:
        """Remove everything below this path: one listing, and one request for each thousand objects."""
        with explain_errors(self, "remove"):
            names = self.fs.find(str(self))
            if names:
                self.fs.rm(names)


def _size(info: Mapping[str, Any]) -> Size:
    changed: Any = info.get("LastModified") or info.get("mtime") or info.get("last_modified")  # S3, Google, Azure
    return Size(info["size"], changed.timestamp() if hasattr(changed, "timestamp") else time.time())
