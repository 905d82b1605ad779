"""The fence of a run directory: once another command has taken it over, nothing of an earlier one writes to it.

A command writes a new token into RUN when it starts, and removes it when it ends. Its tasks carry the token. Each write
compares it with the file immediately before the rename or the upload, so a task that outlived its client fails.
"""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from fairdedup.errors import FairdedupError
from fairdedup.storage.object_stores import RemotePath
from fairdedup.storage.sealed_files import read_small_file

NAME = ".writer"  # the file in RUN that names the command that may write
REMEMBERED = 1.0  # seconds for which an answer of a store is used again, so that small files cost no request each


@dataclass(frozen=True)
class Fence:
    """The right of one command to write to a run directory.

    Attributes
    ----------
    root : Path
        The run directory.
    token : str
        What the file in it must say. Every command has its own.
    """

    root: Path
    token: str


_fence: ContextVar[Fence | None] = ContextVar("fence", default=None)
_confirmed: dict[Fence, float] = {}  # the last fence of a store that was intact, and when


def current_fence() -> Fence | None:
    """Return the fence of this command or task; None if it writes to no run directory."""
    return _fence.get()


@contextmanager
def use_fence(fence: Fence | None) -> Iterator[None]:
    """Let the block write only as long as this fence is intact."""
    before = _fence.set(fence)
    try:
        yield
    finally:
        _fence.reset(before)


@contextmanager
def raise_fence(root: Path) -> Iterator[None]:
    """Take over a run directory for the block: all that commands before this one left running can no longer write."""
    fence = Fence(root, secrets.token_hex(16))
    try:
        _write(fence)
    except (OSError, FairdedupError):  # full or not writable, which the command reports itself
        with suppress(OSError, FairdedupError):
            (root / NAME).unlink()  # a full disk allows it, and it stops what an earlier command left running
        yield
        return
    try:
        with use_fence(fence):
            yield
    finally:
        _confirmed.pop(fence, None)
        with suppress(OSError, FairdedupError):
            if _read(fence) == fence.token:  # else it is that of a later command
                (root / NAME).unlink()


def check_fence() -> None:
    """Refuse to write if the command of this task has ended or lost the run directory.

    Raises
    ------
    FairdedupError
        If the file in the run directory has another token, or is missing.
    """
    fence = _fence.get()
    if fence is None:
        return
    stored = isinstance(fence.root, RemotePath)
    if stored and time.monotonic() - _confirmed.get(fence, -REMEMBERED) < REMEMBERED:
        return
    started = time.monotonic()
    if _read(fence) != fence.token:
        _confirmed.pop(fence, None)
        raise FairdedupError(
            f"{fence.root} was taken over by another command of fairdedup, or the command of this task has ended: "
            "wait until no other command uses it, then run the same command to resume"
        )
    if stored:
        _confirmed.clear()
        _confirmed[fence] = started


def _write(fence: Fence) -> None:
    path = fence.root / NAME
    if isinstance(path, RemotePath):
        with tempfile.TemporaryDirectory(prefix="fairdedup-") as folder:
            local = Path(folder, NAME)
            local.write_text(fence.token, encoding="utf-8")
            path.put(local)
        return
    aside = path.with_name(f"{NAME}.{fence.token}.tmp")
    try:
        aside.write_text(fence.token, encoding="utf-8")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _read(fence: Fence) -> str | None:
    data = read_small_file(fence.root / NAME)
    return None if data is None else data.decode("utf-8", "replace")
