"""The standard streams as a command needs them: whatever becomes of them, the work is done and the exit code right.

A scheduler may close them, a disk may be full, `head` leaves early: nobody who prints sees an error of it.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any


class Stream(io.FileIO):
    """What lies under stdout or stderr: from the first failure on it drops what is written, and keeps the reason."""

    failure: OSError | None = None

    def write(self, data: Any) -> int | None:  # type: ignore[override]
        """Write what can be written."""
        if self.failure is None:
            try:
                return super().write(data)
            except OSError as error:
                self.failure = error
        return memoryview(data).nbytes


def steady() -> Stream:
    """Put streams that never fail in the place of stdout and stderr, and return what lies under stdout."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # else the next file to be opened would get this number, and what libraries print
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    under = {}
    for name, number in (("stdout", 1), ("stderr", 2)):
        before = getattr(sys, name)  # None where it was closed
        under[name] = raw = Stream(os.devnull if before is None else number, "w", closefd=before is None)
        as_before = {k: getattr(before, k) for k in ("encoding", "line_buffering") if before is not None}
        # What the encoding has no letter for is spelt out, as \xe9.
        setattr(sys, name, io.TextIOWrapper(io.BufferedWriter(raw), errors="backslashreplace", **as_before))
    return under["stdout"]
