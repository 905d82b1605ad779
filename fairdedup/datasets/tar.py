"""Reads a tar file as a stream of plain members, and reports all damage (tarfile alone ignores some of it).

It never extracts, and never trusts a size; links, devices and folders are skipped.
"""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from fairdedup.datasets.filesystem import to_valid_text

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


class DamagedTar(Exception):
    """The rest of a tar cannot be read; the message names the damage and the last member before it."""


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


def read_members(raw: IO[bytes], limit: Callable[[str], int]) -> Iterator[tuple[str, bytes | None]]:
    """Yield the name and the bytes of every plain member, in order.

    Parameters
    ----------
    raw : file
        The tar, read from its current position to its end; compression is recognised by its bytes.
    limit : callable
        Name of a member -> the largest size at which it is read. Larger members are skipped and yield None for their
        bytes, and so does a member that is cut off by the end of a damaged tar.

    Raises
    ------
    DamagedTar
        If the tar is cut off, has a broken header or stream, or has data after its end. A fault of the disk or the
        network is not damage: the OSError passes unchanged.
    """
    with _report_damage() as last, _open(raw, "r|*") as archive:
        for header in _iterate_plain(archive, last):
            wanted = header.size <= limit(header.name)  # a sparse member can claim any size at no cost
            file = archive.extractfile(header) if wanted else None
            try:
                data = file.read() if file is not None else None
            except _DAMAGE:
                yield header.name, None
                raise
            yield header.name, data
        _expect_end(archive)


def locate_members(
    raw: IO[bytes], size: int, wanted: Callable[[str], bool]
) -> Iterator[tuple[str, tuple[int, int] | None]]:
    """Yield the name and the range (offset, bytes) of every plain member of an uncompressed tar, in order.

    No member is read. The range is None for members that are not wanted, are cut off, or are stored with holes.

    Parameters
    ----------
    raw : file
        The tar; it must be seekable.
    size : int
        Size of the file in bytes.
    wanted : callable
        Name of a member -> whether its range is wanted.

    Raises
    ------
    DamagedTar
        As `read_members`, except that data after the end of the archive are ignored.
    """
    with _report_damage() as last, _open(raw, "r:") as archive:
        while (header := _read_plain_header(raw, archive) or archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]
            if not header.isreg():
                continue
            last[:] = [header.name]
            there = header.offset_data + header.size <= size and not header.issparse()
            yield header.name, (header.offset_data, header.size) if wanted(header.name) and there else None


def is_plain_tar(raw: IO[bytes]) -> bool:
    """Tell whether a file, at its beginning, is an uncompressed tar."""
    head = raw.read(tarfile.BLOCKSIZE)
    raw.seek(0)
    return head[257:262] == b"ustar"


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


def _open(raw: IO[bytes], mode: Any) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=raw, mode=mode, bufsize=_CHUNK, tarinfo=_StrictTarInfo, encoding="utf-8")
    except TypeError:  # tarfile's reaction to a gzip header that is cut off before its flags
        raise tarfile.ReadError("unexpected end of data") from None


def _iterate_plain(archive: tarfile.TarFile, last: list[str]) -> Iterator[tarfile.TarInfo]:
    """Yield the headers of plain members, and note the name of each in `last`."""
    for header in archive:
        archive.members = []  # type: ignore[attr-defined]  # otherwise it keeps every header
        if header.isreg():
            last[:] = [header.name]
            yield header


@contextmanager
def _report_damage() -> Iterator[list[str]]:
    """Turn what tarfile raises on damage into an error that names the last member, which the block notes."""
    last: list[str] = []
    try:
        yield last
    except tarfile.TarError as error:
        raise DamagedTar(_describe(str(error).split("\n")[0], last)) from None
    except _DAMAGE:
        raise DamagedTar(_describe("unreadable header or stream", last)) from None


def _expect_end(archive: tarfile.TarFile) -> None:
    """Read to the end of the file; only padding may follow the end-of-archive marker."""
    stream: Any = archive.fileobj
    while block := stream.read(_CHUNK):
        if block.strip(b"\0"):
            raise tarfile.ReadError("data after the end-of-archive marker, not read")


def _describe(fault: str, last: list[str]) -> str:
    if not last:
        return f"damaged or not a tar file: {fault}"
    return f"damaged tar, in or after member {to_valid_text(last[0])}: {fault}"
