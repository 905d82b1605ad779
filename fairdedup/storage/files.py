"""Write aside, then rename: a file of a run is either whole or not there, and its record names its size."""

from __future__ import annotations

import json
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
from numpy.typing import NDArray

from fairdedup.errors import FairdedupError


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
            f"cannot write {path}: {error.strerror or error}; free some space or choose another --out"
        ) from error
    finally:
        with suppress(OSError):
            aside.unlink()


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as .npy."""
    with whole(path) as aside, open(aside, "wb") as file:
        np.save(file, array, allow_pickle=False)


def read_array(path: Path) -> NDArray[Any]:
    """Map an .npy file into memory, read-only; a file of no rows is read whole."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as Parquet; the same table gives the same bytes."""
    with whole(path) as aside:
        pq.write_table(table, aside, compression="zstd")


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
