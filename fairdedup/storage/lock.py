"""One command at a time in a run directory: of two at once, each would take the other's files for its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fairdedup.errors import FairdedupError
from fairdedup.storage.object_stores import RemotePath

try:
    import fcntl
except ImportError:  # no such locks on this system
    fcntl = None  # type: ignore[assignment]


@contextmanager
def lock_run_directory(root: Path) -> Iterator[None]:
    """Hold a run directory, which is made if need be and removed again if nothing is written to it.

    The lock is on the folder itself: it leaves no file behind, and the system releases it when the process ends,
    however it ends. An object store has no such lock, nor have some network file systems: there nothing is held.

    Raises
    ------
    FairdedupError
        If another command holds it. It is no mistake of the user's: the same command may do later.
    """
    if fcntl is None or isinstance(root, RemotePath):
        yield
        return
    held = None
    try:
        made = [folder for folder in (root, *root.parents) if not folder.exists()]
        root.mkdir(parents=True, exist_ok=True)
        held = os.open(root, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        assert held is not None
        os.close(held)
        raise FairdedupError(
            f"{root} is in use by another command of fairdedup: wait until it has ended, or choose another --out"
        ) from None
    except (OSError, ValueError):  # no place for a run, of which the command itself says more; or one without locks
        made = []
    try:
        yield
    finally:
        with suppress(OSError):
            for folder in made:
                folder.rmdir()
        if held is not None:
            os.close(held)
