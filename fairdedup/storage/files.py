"""Write aside, then rename: a file of a run is either whole or not there, and a seal tells it from a damaged one."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from fairdedup.errors import FairdedupError

PIECE = 1 << 24  # bytes


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; it takes the place of `path` once the block has ended well.

    Raises
    ------
    FairdedupError
        If it cannot be written (no space, no permission): nothing half-written stays.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        raise FairdedupError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another place"
        ) from error
    finally:
        with suppress(OSError):
            aside.unlink()


def seal(path: Path) -> str:
    """Return the size of a file and the checksum of its bytes (XXH3, 128 bits): what tells that it is undamaged."""
    checksum = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            checksum.update(block)
        return f"{file.tell()}-{checksum.hexdigest()}"


def is_whole(path: Path, expected: str) -> bool:
    """Return whether a file is there with the size that a seal names."""
    return path.is_file() and str(path.stat().st_size) == expected.split("-")[0]


def is_sealed(path: Path, expected: str) -> bool:
    """Return whether a file is there with the very bytes that it was sealed with."""
    try:
        return is_whole(path, expected) and seal(path) == expected
    except OSError:
        return False


def is_made(path: Path, made_of: str) -> bool:
    """Return whether a file is there undamaged and was made of this, as `mark_made` noted."""
    try:
        known = read_json(path.with_suffix(".json"))
    except FairdedupError:
        return False
    return isinstance(known, dict) and known.get("made of") == made_of and is_sealed(path, str(known.get("seal")))


def mark_made(path: Path, made_of: str) -> None:
    """Note beside a file what it was made of, and its seal; to be called once it is whole."""
    write_json(path.with_suffix(".json"), {"made of": made_of, "seal": seal(path)})


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as .npy, in pieces by Python's own writer: on a full disk numpy's is silent about what it lost."""
    if array.dtype.hasobject:
        raise ValueError(f"{path}: an array of Python objects is never written")
    array = np.ascontiguousarray(array)
    with whole(path) as aside, open(aside, "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        data = array.reshape(-1).view(np.uint8).data
        for start in range(0, len(data), PIECE):
            file.write(data[start : start + PIECE])


def read_array(path: Path) -> NDArray[Any]:
    """Map an .npy file into memory, read-only; a file of no rows is read whole."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


def sha256_of(path: Path) -> str | None:
    """Return the SHA-256 of a file, None where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def release(array: NDArray[Any]) -> None:
    """Let go of the pages of a mapped file that this process has read; they stay in the system's cache."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as Parquet; the same table gives the same bytes."""
    with whole(path) as aside:
        pq.write_table(table, aside, compression="zstd")


@contextmanager
def writing(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Write a Parquet file a table at a time: no more than one is held."""
    with whole(path) as aside, pq.ParquetWriter(aside, schema, compression="zstd") as writer:
        yield writer


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people and machines."""
    with whole(path) as aside:
        aside.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON, or None where there is no such file.

    Raises
    ------
    FairdedupError
        If it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise FairdedupError(f"{path} is damaged ({str(error).splitlines()[0]}): bring it back, or --restart") from None


def clear(folder: Path) -> None:
    """Remove a folder of the run, if it is there."""
    shutil.rmtree(folder, ignore_errors=True)
