"""Reads a tar through its compression, which is recognised by the first bytes: gzip, bzip2, xz, Zstandard or none.

A file of several compressed streams, as pigz, pbzip2 and pzstd write them, is one tar.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from typing import IO, Any

HEAD_BYTES = tarfile.BLOCKSIZE

_ZSTD_SKIPPABLE = tuple(bytes([0x50 + k, 0x2A, 0x4D, 0x18]) for k in range(16))  # pzstd begins with such a frame
_MAGIC = {
    "gzip": (b"\x1f\x8b",),
    "bzip2": (b"BZh",),
    "xz": (b"\xfd7zXZ\0", b"\x5d\0\0"),
    "zstd": (b"\x28\xb5\x2f\xfd", *_ZSTD_SKIPPABLE),
}


def detect_compression(head: bytes) -> str | None:
    """Return "gzip", "bzip2", "xz" or "zstd", from the first bytes of a file; None for any other file."""
    if is_tar_header(head):  # a plain tar whose first member's name begins like one of the marks
        return None
    return next((kind for kind, marks in _MAGIC.items() if head.startswith(marks)), None)


def is_tar_header(head: bytes) -> bool:
    """Tell whether a file begins as an uncompressed tar of the kinds that are written today."""
    return head[257:262] == b"ustar"


class TarStream:
    """The uncompressed bytes of a tar, from the first to the last.

    A fault of the compression ends the stream, so that everything before it is read, and is noted in `fault`. A fault
    of the disk or the network is an OSError with a number, which passes unchanged.

    Attributes
    ----------
    fault : str or None
        Why the stream ended before its end.
    position : int
        Number of bytes returned.
    compressed : bool
        Whether the file is compressed.

    Parameters
    ----------
    raw : file
        The file, of which nothing has been read. It is read once, without seeking.
    """

    def __init__(self, raw: IO[bytes]) -> None:
        self.fault: str | None = None
        self.position = 0
        prefixed = _Prefixed(raw)
        kind = detect_compression(prefixed.head)
        self.compressed = kind is not None
        file: Any = prefixed if kind is None else _decompress(prefixed, kind)
        self._read = file.read if kind in (None, "zstd") else file.read1

    def read(self, size: int) -> bytes:
        """Return at most this many bytes; none at the end, or at a fault."""
        if self.fault is not None:
            return b""
        try:
            data = bytes(self._read(size))
            self.position += len(data)
            return data
        except EOFError:
            self.fault = "unexpected end of data"
        except (zlib.error, lzma.LZMAError, ValueError):
            self.fault = "invalid compressed data"
        except OSError as error:  # what bz2, gzip and Arrow raise has no number
            if error.errno is not None or type(error) not in (OSError, gzip.BadGzipFile):
                raise
            self.fault = "unexpected end of data" if "runcated" in str(error) else "invalid compressed data"
        return b""


class _Prefixed:
    """A file whose first bytes have been looked at, and that is read on from its beginning."""

    closed = False

    def __init__(self, raw: IO[bytes]) -> None:
        self.head = b""
        while len(self.head) < HEAD_BYTES and (more := raw.read(HEAD_BYTES - len(self.head))):
            self.head += more
        self._left, self._raw = self.head, raw

    def read(self, size: int = -1) -> bytes:
        if not self._left:
            return self._raw.read(size)
        if size < 0:
            found, self._left = self._left + self._raw.read(), b""
        else:
            found, self._left = self._left[:size], self._left[size:]
        return found

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """Leave the file open: the caller closes it."""


def _decompress(file: Any, kind: str) -> Any:
    if kind == "gzip":
        return gzip.GzipFile(fileobj=file)
    if kind == "bzip2":
        return bz2.BZ2File(file)
    if kind == "xz":
        return lzma.LZMAFile(file)
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")
