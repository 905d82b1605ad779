"""Seals of files: a size and a checksum, which detect a file that is missing, incomplete or changed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import xxhash

from fairdedup.storage.object_stores import RemotePath
from fairdedup.storage.plain_files import open_plain_file

LOCAL_BLOCK = 1 << 22  # bytes of a local file that are read at a time
REMOTE_BLOCK = 1 << 26  # bytes of an object that one request reads
_UPLOADED_MOST = 16

_UPLOADED: OrderedDict[RemotePath, str] = OrderedDict()  # recent uploads, so that sealing one does not read it back


def seal(path: Path) -> str:
    """Return the seal of a file: its size and the checksum of its bytes (XXH3, 128 bits)."""
    if isinstance(path, RemotePath):
        return _UPLOADED.pop(path, None) or _seal_blocks(path.blocks(REMOTE_BLOCK))
    with open_plain_file(path, buffering=0) as file:
        return _seal_blocks(iter(partial(file.read, LOCAL_BLOCK), b""))


def remember_seal(path: RemotePath, sealed: str) -> None:
    """Remember the seal of an object that was just uploaded; only a few are remembered."""
    _UPLOADED[path] = sealed
    while len(_UPLOADED) > _UPLOADED_MOST:
        _UPLOADED.popitem(last=False)


def forget_seal(path: RemotePath) -> None:
    """Forget the seal of an object that is about to change."""
    _UPLOADED.pop(path, None)


def _seal_blocks(blocks: Iterable[bytes]) -> str:
    checksum, size = xxhash.xxh3_128(), 0
    for block in blocks:
        checksum.update(block)
        size += len(block)
    return f"{size}-{checksum.hexdigest()}"


def sealed_size(sealed: str) -> str:
    """Return the size that a seal records, as text; it need not be a valid seal."""
    return sealed.split("-")[0]


def has_sealed_bytes(data: bytes, expected: str) -> bool:
    """Return whether these are the bytes of the file that was sealed."""
    return _seal_blocks([data]) == expected


def has_sealed_size(path: Path, expected: str) -> bool:
    """Return whether a file exists and has the size that its seal records."""
    if isinstance(path, RemotePath):
        try:
            return str(path.stat().st_size) == sealed_size(expected)
        except FileNotFoundError:
            return False
    return path.is_file() and str(path.stat().st_size) == sealed_size(expected)


def is_sealed(path: Path, expected: str) -> bool:
    """Return whether a file exists and has exactly the bytes that were sealed."""
    try:
        if isinstance(path, RemotePath):
            return _seal_blocks(path.blocks(REMOTE_BLOCK)) == expected
        return has_sealed_size(path, expected) and seal(path) == expected
    except OSError:
        return False
