"""The largest memory of each process of a command, as the system counts it (VmHWM of Linux)."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20


@dataclass(frozen=True)
class Measured:
    """How a command ended, and the largest resident memory of any of its processes, in bytes."""

    code: int
    err: str
    peak: int


def measure(*arguments: object, cwd: Path) -> Measured:
    """Run a command of fairdedup, and measure it and the processes that it starts."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fairdedup", *map(str, arguments)],
        cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    peaks: dict[str, int] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            for number in _processes_of(process.pid):
                peaks[number] = max(peaks.get(number, 0), _peak_of(number))

    thread = threading.Thread(target=watch)
    thread.start()
    _, err = process.communicate()
    ended.set()
    thread.join()
    return Measured(process.returncode, err, max(peaks.values()))


def _processes_of(session: int) -> Iterator[str]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) == session:
                    yield folder.name
            except (OSError, IndexError):  # it has ended
                continue


def _peak_of(number: str) -> int:
    try:
        lines = Path("/proc", number, "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)
