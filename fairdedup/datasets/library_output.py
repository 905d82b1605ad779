"""Keeps what C libraries print about bad image files from the terminal: libtiff writes to stderr itself."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()  # two threads that overlap would leave stderr closed


@contextmanager
def discard_stderr(wanted: bool = True) -> Iterator[None]:
    """Discard what the process writes to its standard error in the block, whoever writes it.

    Parameters
    ----------
    wanted : bool
        False does nothing.
    """
    if not wanted:
        yield
        return
    with _lock:
        try:
            sys.stderr.flush()
            kept = os.dup(2)
        except (OSError, ValueError, AttributeError):  # closed, or not there
            yield
            return
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
