"""Marks a task that is running, so that its next attempt knows when the process of the last one has died."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fairdedup.storage.checked_json import write_json


@contextmanager
def note_attempt(path: Path) -> Iterator[bool]:
    """Mark that a task is running in the block, and yield whether an earlier attempt has died or run out of memory.

    Parameters
    ----------
    path : Path
        File of the mark. It stays if the process dies, or on a `MemoryError`.
    """
    has_died = path.exists()
    if not has_died:
        write_json(path, {})
    try:
        yield has_died
    except MemoryError:
        raise
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    path.unlink(missing_ok=True)
