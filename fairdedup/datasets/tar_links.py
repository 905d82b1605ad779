"""Finds the bytes behind symbolic and hard links in a tar. Only members of the same tar are ever read through a link.

An uncompressed local tar is indexed by its headers when the first link is met. Any other tar is then copied once,
uncompressed, into a temporary file without a name.
"""

from __future__ import annotations

import posixpath
import tempfile
from typing import IO

import xxhash
from fsspec import AbstractFileSystem

from fairdedup.datasets.filesystem import Unreadable, open_file, to_valid_text
from fairdedup.datasets.tar import DamagedTar, Tar, TarMember
from fairdedup.datasets.tar_contents import MAX_TEMPORARY_BYTES, FilePart
from fairdedup.datasets.tar_streams import TarStream
from fairdedup.storage.plain_files import open_plain_file

MAX_MEMBERS = 4_000_000
"""Largest number of members that are indexed: their index takes about 1 GB."""

_LONGEST_CHAIN = 40  # links to links, as on Linux
_PIECE = 1 << 20


class TarLinks:
    """The links of one tar.

    Parameters
    ----------
    tar : Tar
        The tar that is read.
    fs : AbstractFileSystem
        Its file system.
    path : str
        Its path.
    """

    def __init__(self, tar: Tar, fs: AbstractFileSystem, path: str) -> None:
        self._tar, self._fs, self._path = tar, fs, path
        self._places: dict[int, FilePart | str] | None = None  # by the hash of a name: the bytes, or where a link leads
        self._fault: str | None = None
        self._file: IO[bytes] | None = None

    def find(self, member: TarMember) -> FilePart:
        """Return the bytes behind a link.

        Raises
        ------
        Unreadable
            If it leads to nothing in the tar, or in a circle, or the tar is too large for the links to be followed.
        """
        if self._places is None and self._fault is None:
            try:
                self._places = self._index()
            except Unreadable as fault:
                self._fault = str(fault)
        if self._places is None:
            raise Unreadable(f"{member.kind} that cannot be followed: {self._fault}")
        found: FilePart | str | None = _destination(member)
        for _ in range(_LONGEST_CHAIN):
            if not isinstance(found, str):
                break
            found = self._places.get(_hash(found))
        if isinstance(found, FilePart):
            return found
        why = "leads in a circle" if isinstance(found, str) else "is not a file in the tar"
        raise Unreadable(f"{member.kind} to {to_valid_text(member.target)[:100]}, which {why}")

    def _index(self) -> dict[int, FilePart | str]:
        places: dict[int, FilePart | str] = {}
        if self._tar.path is not None and self._tar.size is not None:
            self._file = open_plain_file(self._tar.path, buffering=0)
            size, path = self._tar.size, self._tar.path
        else:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
            size, path = self._copy(self._file), None
        try:
            for member in Tar(self._file, size, path).members():
                if len(places) >= MAX_MEMBERS:
                    raise Unreadable(f"the tar has more than {MAX_MEMBERS:,} members; write it again without links")
                if member.kind in ("symbolic link", "hard link"):
                    places[_hash(posixpath.normpath(member.name))] = _destination(member)
                elif member.kind == "file" and (place := member.place) is not None:
                    places[_hash(posixpath.normpath(member.name))] = place
        except DamagedTar:  # reading the tar reports it
            pass
        return places

    def _copy(self, file: IO[bytes]) -> int:
        """Copy the tar, uncompressed, and return its size. The bound keeps a small file from filling the disk."""
        size = 0
        with open_file(self._fs, self._path) as raw:
            stream = TarStream(raw)
            while piece := stream.read(_PIECE):
                size += len(piece)
                if size > MAX_TEMPORARY_BYTES:
                    raise Unreadable(
                        f"the tar is compressed or not local, and has more than {MAX_TEMPORARY_BYTES >> 30} GiB; write "
                        "it again as a plain local .tar"
                    )
                file.write(piece)
        file.seek(0)
        return size

    def close(self) -> None:
        """Close what was opened to follow links."""
        if self._file is not None:
            self._file.close()


def _destination(member: TarMember) -> str:
    """Return the name to which a link leads: in a hard link a name of the tar, else relative to the link."""
    folder = "" if member.kind == "hard link" else posixpath.dirname(member.name)
    return posixpath.normpath(posixpath.join(folder, member.target))


def _hash(name: str) -> int:
    return xxhash.xxh3_128_intdigest(name.encode("utf-8", "surrogateescape"))
