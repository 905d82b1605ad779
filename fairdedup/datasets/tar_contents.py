"""The bytes of a member of a tar: in memory, or as a range of a local file, which may be the tar itself."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from typing import IO

from fairdedup.datasets.filesystem import Unreadable

MEMORY_BYTES = 64 << 20
"""Bytes of the members of one key that are kept in memory; the rest waits in a temporary file."""

MAX_TEMPORARY_BYTES = 16 << 30
"""Largest temporary file: shards of WebDataset have about 1 GB, and a compressed tar could fill any disk."""


@dataclass(frozen=True)
class InMemory:
    """The bytes of a member, in memory.

    Attributes
    ----------
    data : bytes
    """

    data: bytes

    def read(self, most: int | None = None) -> bytes:
        """Return the bytes, or the first of them."""
        return self.data if most is None else self.data[:most]


@dataclass(frozen=True)
class FilePart:
    """The bytes of a member, as a range of a local file that stays open while the tar is read.

    Attributes
    ----------
    descriptor : int
        The open file.
    offset, size : int
        The range, in bytes.
    path : str or None
        The file's path; None for a temporary file.
    """

    descriptor: int
    offset: int
    size: int
    path: str | None = None

    def read(self, most: int | None = None) -> bytes:
        """Return the bytes, or the first of them.

        Raises
        ------
        OSError
            If the file has become shorter.
        """
        size = self.size if most is None else min(most, self.size)
        data = os.pread(self.descriptor, size, self.offset)
        while len(data) < size:
            more = os.pread(self.descriptor, size - len(data), self.offset + len(data))
            if not more:
                raise OSError(f"{self.path or 'a temporary file'} has become shorter while it was read")
            data += more
        return data


Content = InMemory | FilePart


class Spool:
    """Holds the members of one key until all of them are known: in memory, and the rest in an unnamed file."""

    def __init__(self) -> None:
        self._used = self._end = 0
        self._file: IO[bytes] | None = None

    def put(self, data: bytes) -> Content:
        """Store the bytes of a member.

        Raises
        ------
        Unreadable
            If the members of the key have more than 16 GiB.
        """
        if self._used + len(data) <= MEMORY_BYTES or not self._used:
            self._used += len(data)
            return InMemory(data)
        if self._end + len(data) > MAX_TEMPORARY_BYTES:
            raise Unreadable(f"the key has more than {MAX_TEMPORARY_BYTES >> 30} GiB")
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self._file.seek(self._end)
        self._file.write(data)
        self._file.flush()
        part = FilePart(self._file.fileno(), self._end, len(data))
        self._end += len(data)
        return part

    def clear(self) -> None:
        """Drop everything, before the members of the next key."""
        self._used = 0
        if self._end and self._file is not None:
            self._file.truncate(0)
            self._end = 0

    def close(self) -> None:
        """Remove the temporary file."""
        if self._file is not None:
            self._file.close()
