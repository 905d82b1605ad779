"""When this process was created: before Python started, and before the first import."""

from __future__ import annotations

import os
import time
from pathlib import Path

LONGEST = 60.0  # seconds that a start may take; an older process was something else before, such as a shell


def read_process_start() -> float:
    """Return when this process was created, by the monotonic clock; or now, if that is unknown or long ago."""
    now = time.monotonic()
    age = _read_age()
    return now - age if 0.0 <= age <= LONGEST else now


def _read_age() -> float:
    """Return the seconds since this process was created."""
    try:
        after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        created = int(after_name[19]) / os.sysconf("SC_CLK_TCK")  # starttime, the 22nd field, since the machine started
        return time.clock_gettime(time.CLOCK_BOOTTIME) - created
    except (OSError, ValueError, IndexError, AttributeError):  # no Linux
        import psutil

        return time.time() - float(psutil.Process().create_time())
