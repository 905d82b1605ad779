"""Reads and writes the files of a run, on a disk or in an object store; each is complete or absent.

On a disk a file is written to a temporary name and renamed. In an object store it is written to the local disk and
uploaded as one object. Reading an object transfers only the ranges that are needed. `seals` detects damaged files;
no third module opens the files of a run.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fairdedup.errors import FairdedupError
from fairdedup.storage.fence import check_fence
from fairdedup.storage.file_errors import explain_failed_write, link_or_copy_local
from fairdedup.storage.object_stores import RemotePath
from fairdedup.storage.plain_files import expect_plain_file
from fairdedup.storage.remedies import MAKE_AGAIN
from fairdedup.storage.remote_array import RemoteArray
from fairdedup.storage.seals import forget_seal, has_sealed_bytes, is_sealed, remember_seal, seal
from fairdedup.storage.store_errors import explain_errors

LOCAL_FIRST = "it is written to the local disk first: free some space there, or set TMPDIR to another folder"
PIECE = 1 << 24  # bytes that are written at a time
AHEAD = 1 << 27  # bytes that all arrays of a task in a store may read ahead together


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; it replaces `path` when the block ends without an error.

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
    try:
        check_fence()
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        check_fence()
        os.replace(aside, path)
    except OSError as error:
        raise explain_failed_write(path, aside, error) from error
    finally:
        with suppress(OSError):
            aside.unlink()


def _put(local: Path, path: RemotePath) -> None:
    forget_seal(path)
    path.put(local)
    remember_seal(path, seal(local))


def is_up_to_date(path: Path, made_of: str) -> bool:
    """Return whether a file is undamaged and was made of these inputs, as `mark_up_to_date` has recorded.

    Parameters
    ----------
    path : Path
    made_of : str
        Hash of the inputs.
    """
    try:
        known = read_json(path.with_suffix(".json"))
    except FairdedupError:
        return False
    return isinstance(known, dict) and known.get("made of") == made_of and is_sealed(path, str(known.get("seal")))


def mark_up_to_date(path: Path, made_of: str) -> None:
    """Record what a complete file was made of, and its seal, in a JSON file of the same stem."""
    write_json(path.with_suffix(".json"), {"made of": made_of, "seal": seal(path)})


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as .npy, in pieces by Python's own writer: numpy's does not report a full disk."""
    if array.dtype.hasobject:
        raise ValueError(f"{path}: an array of Python objects is never written")
    array = np.ascontiguousarray(array)
    with atomic_write(path) as aside, open(aside, "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        data = array.reshape(-1).view(np.uint8).data
        for start in range(0, len(data), PIECE):
            file.write(data[start : start + PIECE])


def read_array(path: Path, upto: int | None = None, share: int = 1) -> Any:
    """Map an .npy file into memory, read-only; in an object store, return an array whose slices are range requests.

    Parameters
    ----------
    path : Path
    upto : int, optional
        Row up to which the array is read in order; then slices in a store are read ahead.
    share : int
        Number of arrays that are read in order at the same time and share the memory for reading ahead.
    """
    if isinstance(path, RemotePath):
        return RemoteArray(path, AHEAD // max(1, share) if upto is not None else 0, upto)
    expect_plain_file(path)
    return np.load(path, mmap_mode="r", allow_pickle=False)


@contextmanager
def _readable(path: Path) -> Iterator[Any]:
    if isinstance(path, RemotePath):
        with explain_errors(path, "read"), path.open("rb") as file:
            yield file
    else:
        expect_plain_file(path)
        yield path


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file, or columns of it."""
    if isinstance(path, RemotePath) and columns is None:
        return pq.read_table(pa.BufferReader(path.read_bytes()))
    with _readable(path) as file:
        return pq.read_table(file, columns=None if columns is None else list(columns))


def read_sealed_table(path: Path, expected: str, columns: Sequence[str] | None = None) -> pa.Table | None:
    """Return a Parquet file, or columns of it; None if its bytes are not those that it was sealed with."""
    if isinstance(path, RemotePath):  # one request for both
        try:
            data = path.read_bytes()
        except OSError:
            return None
        if not has_sealed_bytes(data, expected):
            return None
        return pq.read_table(pa.BufferReader(data), columns=None if columns is None else list(columns))
    return read_table(path, columns) if is_sealed(path, expected) else None


def read_schema(path: Path) -> pa.Schema:
    """Read the schema of a Parquet file."""
    with _readable(path) as file:
        return pq.read_schema(file)


@contextmanager
def open_arrow(path: Path) -> Iterator[pa.Table]:
    """Yield the table of an Arrow file, mapped into memory if it is local."""
    expect_plain_file(path)
    with pa.BufferReader(path.read_bytes()) if isinstance(path, RemotePath) else pa.memory_map(str(path)) as source:
        yield pa.ipc.open_file(source).read_all()


def compute_sha256(path: Path) -> str | None:
    """Return the SHA-256 of a file, or None if there is none."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def release_pages(array: NDArray[Any]) -> None:
    """Release the pages of a mapped file from this process; they stay in the system's cache."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as Parquet; the same table gives the same bytes."""
    with atomic_write(path) as aside:
        pq.write_table(table, aside, compression="zstd")


@contextmanager
def open_table_writer(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Yield a writer of a Parquet file that is written one table at a time."""
    with atomic_write(path) as aside, pq.ParquetWriter(aside, schema, compression="zstd") as writer:
        yield writer


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON."""
    with atomic_write(path) as aside:
        aside.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON, or None where there is no such file.

    Raises
    ------
    FairdedupError
        If it is damaged.
    """
    expect_plain_file(path)
    try:
        return _parsed(path, path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError as error:
        raise damage(path, str(error)) from None


def _parsed(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise damage(path, str(error)) from None


def damage(path: Path, reason: str) -> FairdedupError:
    """Return the error of a damaged file."""
    return FairdedupError(f"{path} is damaged ({reason.splitlines()[0]}): {MAKE_AGAIN}")


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
