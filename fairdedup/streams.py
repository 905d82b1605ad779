"""Standard streams that never fail, so that a command finishes its work and its exit code is right.

A scheduler may close them, a disk may be full, and `head` closes its input early. Code that prints never notices.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any


class SafeStream(io.FileIO):
    """Raw file under stdout or stderr. After the first failure it drops what is written.

    Attributes
    ----------
    failure : OSError or None
        The first failure, if there was one.
    """

    failure: OSError | None = None

    def write(self, data: Any) -> int | None:  # type: ignore[override]
        """Write data, or drop it."""
        if self.failure is None:
            try:
                return super().write(data)
            except OSError as error:
                self.failure = error
        return memoryview(data).nbytes


def replace_standard_streams() -> SafeStream:
    """Replace stdout and stderr by streams that never fail, and return the raw file under stdout."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: otherwise the next opened file gets this number, and what libraries print to it
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    under = {}
    for name, number in (("stdout", 1), ("stderr", 2)):
        before = getattr(sys, name)  # None if the stream was closed
        under[name] = raw = SafeStream(os.devnull if before is None else number, "w", closefd=before is None)
        settings = {k: getattr(before, k) for k in ("encoding", "line_buffering") if before is not None}
        # Characters that the encoding lacks are escaped, such as \xe9.
        setattr(sys, name, io.TextIOWrapper(io.BufferedWriter(raw), errors="backslashreplace", **settings))
    return under["stdout"]
