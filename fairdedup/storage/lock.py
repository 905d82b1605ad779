"""The lock of a run directory: two commands that wrote to it at once would damage each other's files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fairdedup.errors import FairdedupError
from fairdedup.storage.fence import raise_fence
from fairdedup.storage.object_stores import RemotePath

try:
    import fcntl
except ImportError:  # no such locks on this system
    fcntl = None  # type: ignore[assignment]


@contextmanager
def lock_run_directory(root: Path) -> Iterator[None]:
    """Lock a run directory for the block. It is created if needed, and removed again if nothing is written to it.

    The lock is on the folder itself: it leaves no file behind, and the system releases it when the process ends,
    however it ends. Object stores and some network file systems have no such lock: there a later command takes over.
    Either way tasks that an earlier command left running can no longer write, as `fence` says.

    Raises
    ------
    FairdedupError
        If another command has locked it. This is not the user's mistake: the same command may work later.
    """
    if fcntl is None or isinstance(root, RemotePath):
        with raise_fence(root):
            yield
        return
    lock = None
    try:
        created = [folder for folder in (root, *root.parents) if not folder.exists()]
        root.mkdir(parents=True, exist_ok=True)
        lock = os.open(root, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        assert lock is not None
        os.close(lock)
        raise FairdedupError(
            f"{root} is in use by another command of fairdedup: wait until it has ended, or name another run directory"
        ) from None
    except (OSError, ValueError):  # not writable, which the command reports itself, or without locks
        created = []
    try:
        with raise_fence(root):
            yield
    finally:
        with suppress(OSError):
            for folder in created:
                folder.rmdir()
        if lock is not None:
            os.close(lock)
