"""Reads the members of a tar in order, and reports all damage (tarfile alone ignores some of it).

It never extracts, and never trusts a size. An uncompressed local tar is read in places, with large members left where
they are; any other is read once, from its first byte to its last.
"""

from __future__ import annotations

import lzma
import os
import stat
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Literal

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from fairdedup.datasets.filesystem import open_file, to_valid_text
from fairdedup.datasets.image_formats import HEAD
from fairdedup.datasets.tar_contents import Content, FilePart, Spool
from fairdedup.datasets.tar_streams import HEAD_BYTES, TarStream, is_tar_header
from fairdedup.errors import first_line
from fairdedup.storage.plain_files import open_plain_file

_CHUNK = 1 << 14  # tarfile copies what is left of a chunk at every read
_MAX_HEADER_BYTES = 1 << 20  # for a long name or pax records
_MAX_MEMBER_BYTES = 1 << 36  # tarfile skips a member chunk by chunk, even past the end of the file
_EXTENDED = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)

# What tarfile raises on broken input, on purpose or not.
_DAMAGE = (
    tarfile.TarError,
    EOFError,
    ValueError,
    OverflowError,
    RecursionError,
    zlib.error,
    lzma.LZMAError,
)

_CUT = "unexpected end of data"
_JOINED = "data after the end-of-archive marker, not read (`tar -A` joins tars, and cat does not)"

Kind = Literal["file", "symbolic link", "hard link", "folder", "special file"]


class DamagedTar(Exception):
    """The rest of a tar cannot be read; the message names the damage and the last member before it.

    Attributes
    ----------
    place : str
        The same without the word "damaged", and the byte at which the damage is.
    """

    def __init__(self, message: str, place: str) -> None:
        super().__init__(message)
        self.place = place


class _StrictTarInfo(tarfile.TarInfo):
    """A header that raises where tarfile would take a broken header for the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Any:
        try:
            header = super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the end marker
            raise
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
            if archive.offset == 0:
                raise tarfile.ReadError("empty file") from None
            raise tarfile.ReadError("cut off: no end-of-archive marker") from None
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None
        _check_size(header)
        return header

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Any:
        header = super().frombuf(buf, encoding, errors)
        _check_size(header)
        return header


def _check_size(header: tarfile.TarInfo) -> None:
    limit = _MAX_HEADER_BYTES if header.type in _EXTENDED else _MAX_MEMBER_BYTES
    if not 0 <= header.size <= limit:
        raise tarfile.ReadError("impossible size in a header")


class TarMember:
    """A member, as long as it is the current one: after it, its bytes can no longer be read.

    Attributes
    ----------
    name : str
    size : int
        Number of bytes that the header claims.
    kind : str
    target : str
        The name in a link, as it is written.
    """

    def __init__(self, tar: Tar, header: tarfile.TarInfo) -> None:
        self.name, self.size, self.kind, self.target = header.name, header.size, _find_kind(header), header.linkname
        self._tar, self._header = tar, header
        self._file: IO[bytes] | None = None
        self._head = b""

    @property
    def place(self) -> FilePart | None:
        """The range of the tar that has the bytes; None if it is not read in places, or the bytes are not all there."""
        at, tar = self._header.offset_data, self._tar
        if tar.size is None or self._header.issparse() or at + self.size > tar.size:
            return None
        return FilePart(tar.raw.fileno(), at, self.size, tar.path)

    def read_head(self) -> bytes:
        """Return the first 64 bytes, or fewer if the member is shorter or cut off."""
        if self.place is not None:
            return self.place.read(HEAD)
        if not self._head:
            self._head = self._read(HEAD) or b""
        return self._head

    def load(self, spool: Spool) -> Content | None:
        """Return the bytes; None if they are cut off.

        Raises
        ------
        Unreadable
            If `spool` is full.
        """
        if self.place is not None:
            return self.place
        rest = self._read(-1)
        return None if rest is None else spool.put(self._head + rest)

    def _read(self, size: int) -> bytes | None:
        """Return bytes of the current position; after damage none, and the tar raises it at the next member."""
        tar = self._tar
        try:
            self._file = self._file or tar.archive.extractfile(self._header)
            return None if self._file is None or tar.pending is not None else self._file.read(size)
        except _DAMAGE as error:
            tar.pending = error
            return None


def _find_kind(header: tarfile.TarInfo) -> Kind:
    if header.isreg():
        return "file"
    if header.issym() or header.islnk():
        return "symbolic link" if header.issym() else "hard link"
    return "folder" if header.isdir() else "special file"


class Tar:
    """An open tar.

    Parameters
    ----------
    raw : file
        The file, at its beginning; a real file of the operating system if `size` is given.
    size : int or None
        Number of bytes of an uncompressed tar that is read in places; None reads a stream.
    path : str or None
        Its path, if it is local and has one.
    """

    def __init__(self, raw: IO[bytes], size: int | None = None, path: str | None = None) -> None:
        self.raw, self.size, self.path = raw, size, path
        self.pending: BaseException | None = None  # damage that was met in the bytes of the current member
        self.stream = None if size is not None else TarStream(raw)
        self._last: str | None = None

    def members(self) -> Iterator[TarMember]:
        """Yield every member, in order.

        Raises
        ------
        DamagedTar
            If the tar is cut off, has a broken header or stream, or has data after its end. A fault of the disk or the
            network is not damage: the OSError passes unchanged.
        """
        try:
            self.archive = _open(self.stream or self.raw, "r:" if self.stream is None else "r|")
            while (header := self._next()) is not None:
                self.archive.members = []  # type: ignore[attr-defined]  # otherwise it keeps every header
                if header.isreg():
                    self._last = header.name
                yield TarMember(self, header)
                if self.pending is not None:
                    raise self.pending
            self._expect_end()
        except tarfile.TarError as error:
            raise self._describe(first_line(error)) from None
        except _DAMAGE:
            raise self._describe("unreadable header or stream") from None

    def _next(self) -> tarfile.TarInfo | None:
        if self.size is None:
            return self.archive.next()
        if self.archive.offset > self.size and self.archive.firstmember is None:  # type: ignore[attr-defined]
            raise tarfile.ReadError(_CUT)
        return _read_plain_header(self.raw, self.archive) or self.archive.next()

    def _expect_end(self) -> None:
        """Read to the end of the file; only padding may follow the end-of-archive marker."""
        rest: Any = self.archive.fileobj
        if self.size is not None:
            self.raw.seek(self.archive.offset)
        while block := rest.read(_CHUNK):
            if block.strip(b"\0"):
                raise tarfile.ReadError(_JOINED)
        if self.stream is not None and self.stream.fault is not None:
            raise tarfile.ReadError(self.stream.fault)

    def _describe(self, fault: str) -> DamagedTar:
        archive: Any = getattr(self, "archive", None)
        at, end = 0 if archive is None else archive.offset, self.size
        unpacked = ""
        if self.stream is not None:
            end, unpacked = self.stream.position, " of the unpacked tar" if self.stream.compressed else ""
            fault = self.stream.fault or fault
        byte = f"byte {min(at, end or 0):,}{unpacked}"
        if self._last is None:
            return DamagedTar(f"damaged or not a tar file: {fault}", f"not a tar file, or broken at {byte}: {fault}")
        where = f"in or after member {to_valid_text(self._last)}"
        return DamagedTar(f"damaged tar, {where}: {fault}", f"{where}, at {byte}: {fault}")


@contextmanager
def open_tar(fs: AbstractFileSystem, path: str) -> Iterator[Tar]:
    """Open a tar: in places if it is local and uncompressed, else as a stream.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The tar's path on it.
    """
    if isinstance(fs, LocalFileSystem):
        with open_plain_file(path, buffering=0) as raw:
            info = os.fstat(raw.fileno())
            plain = stat.S_ISREG(info.st_mode) and is_tar_header(os.pread(raw.fileno(), HEAD_BYTES, 0))
            yield Tar(raw, info.st_size if plain else None, path)
    else:
        with open_file(fs, path) as raw:
            yield Tar(raw)


def _sum(data: bytes) -> int:
    """Return the sum of at most 256 bytes: the lower half of their Adler-32 checksum, less one."""
    return (zlib.adler32(data) & 0xFFFF) - 1


def _read_plain_header(raw: IO[bytes], archive: tarfile.TarFile) -> tarfile.TarInfo | None:
    """Return the next header if it is of the simplest kind, ten times as fast as tarfile; else None.

    Either way the archive's state is what tarfile's own reading would make it.
    """
    start = archive.offset
    if archive.firstmember is not None or archive.pax_headers:  # type: ignore[attr-defined]
        return None
    raw.seek(start)
    block = raw.read(tarfile.BLOCKSIZE)
    name = block[:100].rstrip(b"\0")
    try:
        size, known = int(block[124:136].rstrip(b" \0"), 8), int(block[148:156].rstrip(b" \0"), 8)
    except ValueError:
        size = known = -1
    plain = block[257:262] == b"ustar" and block[156:157] == b"0" and block[345:346] == b"\0"
    total = _sum(block[:148]) + _sum(block[156:400]) + _sum(block[400:]) + 8 * ord(" ")
    if known != total or not plain or b"\0" in name or name.endswith(b"/") or size < 0:
        raw.seek(start)
        return None
    header = tarfile.TarInfo(name.decode("utf-8", "surrogateescape"))
    header.size, header.offset, header.offset_data = size, start, start + tarfile.BLOCKSIZE
    archive.offset = header.offset_data + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return header


def _open(file: Any, mode: Any) -> tarfile.TarFile:
    return tarfile.open(fileobj=file, mode=mode, bufsize=_CHUNK, tarinfo=_StrictTarInfo, encoding="utf-8")
