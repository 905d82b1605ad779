"""Writes the files of a run, on a disk or in an object store; each is complete or absent.

On a disk a file is written to a temporary name and renamed. In an object store it is written to the local disk and
uploaded as one object. `sealed_files` reads them.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fairdedup.storage.fence import check_fence
from fairdedup.storage.file_errors import explain_failed_write, link_or_copy_local
from fairdedup.storage.object_stores import RemotePath
from fairdedup.storage.seals import forget_seal, remember_seal, seal

LOCAL_FIRST = "it is written to the local disk first: free some space there, or set TMPDIR to another folder"
PIECE = 1 << 24  # bytes that are written at a time


@contextmanager
def atomic_write(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path to write to; it replaces `path` when the block ends without an error.

    Parameters
    ----------
    path : Path
    durable : bool
        Whether the file must survive a power failure. One that only this command reads need not.

    Raises
    ------
    FairdedupError
        If it cannot be written (no space, no permission, another command has the run). No partial file is left.
    """
    if isinstance(path, RemotePath):
        chosen = None
        try:
            with tempfile.TemporaryDirectory(prefix="fairdedup-") as folder:
                chosen = Path(folder, path.name)
                yield chosen
                check_fence()
                _put(chosen, path)
        except OSError as error:
            raise explain_failed_write(path, chosen, error, LOCAL_FIRST) from error
        return
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    written = False
    try:
        check_fence()
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        if durable:
            with open(aside, "rb") as file:
                os.fsync(file.fileno())
        check_fence()
        os.replace(aside, path)
        written = True
    except OSError as error:
        raise explain_failed_write(path, aside, error) from error
    finally:
        if not written:
            with suppress(OSError):
                aside.unlink()


def _put(local: Path, path: RemotePath) -> None:
    forget_seal(path)
    path.put(local)
    remember_seal(path, seal(local))


def write_array(path: Path, array: NDArray[Any], *, durable: bool = True) -> None:
    """Write an array as .npy, in pieces by Python's own writer: numpy's does not report a full disk.

    Parameters
    ----------
    path : Path
    array : ndarray
    durable : bool
        As for `atomic_write`.
    """
    if array.dtype.hasobject:
        raise ValueError(f"{path}: an array of Python objects is never written")
    array = np.ascontiguousarray(array)
    with atomic_write(path, durable=durable) as aside, open(aside, "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        data = array.reshape(-1).view(np.uint8).data
        for start in range(0, len(data), PIECE):
            file.write(data[start : start + PIECE])


def compute_sha256(path: Path) -> str | None:
    """Return the SHA-256 of a file, or None if there is none."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def release_pages(array: NDArray[Any]) -> None:
    """Release the pages of a mapped file from this process; they stay in the system's cache."""
    mapped = getattr(array, "base", None)
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as Parquet; the same table gives the same bytes."""
    with atomic_write(path) as aside, pa.OSFile(str(aside), "wb") as file:  # closed also where the disk is full
        pq.write_table(table, file, compression="zstd")


@contextmanager
def open_table_writer(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Yield a writer of a Parquet file that is written one table at a time."""
    with atomic_write(path) as aside, pq.ParquetWriter(aside, schema, compression="zstd") as writer:
        yield writer


def list_sizes(folder: Path) -> dict[str, int]:
    """Return the size of each file in a folder, by name: one listing, however many there are."""
    if isinstance(folder, RemotePath):
        return folder.sizes()
    try:
        with os.scandir(folder) as found:
            return {entry.name: entry.stat().st_size for entry in found if entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return {}


def link_or_copy(source: Path, target: Path) -> None:
    """Link a file to another place, or copy it where hard links are not possible."""
    if isinstance(target, RemotePath) and isinstance(source, RemotePath) and source.protocol == target.protocol:
        check_fence()
        target.copy_from(source)
        return
    with atomic_write(target) as aside:
        if isinstance(source, RemotePath):
            source.get(aside)
            return
        link_or_copy_local(source, aside)


def move_file(source: Path, target: Path) -> None:
    """Move a file; in an object store the server copies it, and the source is removed."""
    check_fence()
    if isinstance(target, RemotePath) and isinstance(source, RemotePath):
        target.copy_from(source)
        source.unlink()
    else:
        os.replace(source, target)


def is_same_file(a: Path, b: Path) -> bool:
    """Return whether two local paths name the same file."""
    if isinstance(a, RemotePath) or isinstance(b, RemotePath):
        return False
    try:
        return os.path.samefile(a, b)
    except FileNotFoundError:
        return False


def remove_folder(folder: Path) -> None:
    """Remove a folder and everything in it, if it exists."""
    check_fence()
    if isinstance(folder, RemotePath):
        folder.remove_tree()
    else:
        shutil.rmtree(folder, ignore_errors=True)
