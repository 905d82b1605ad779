"""Follows the memory and the processor time of a process and its children while it runs."""

from __future__ import annotations

import subprocess
import threading
import time
from types import TracebackType

import psutil

MIB = 1 << 20
EVERY = 0.05  # seconds


class ProcessMemory:
    """A context that looks at a process and its children 20 times a second.

    Parameters
    ----------
    process : Popen
        A running process.

    Attributes
    ----------
    largest : dict of str to float
        Most resident MiB of the process itself ("conductor"), and of any of its children ("worker").
    together : float
        Most resident MiB of all of them at one moment; pages that they share count for each.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.largest: dict[str, float] = {}
        self.together = 0.0
        self._process = process
        self._spent: dict[tuple[int, float], float] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def processor_seconds(self) -> float:
        """Seconds that the processor has worked for all of them, up to when each was last seen."""
        return sum(self._spent.values())

    def __enter__(self) -> ProcessMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.join()

    def _watch(self) -> None:
        while self._process.poll() is None:
            self._look()
            time.sleep(EVERY)

    def _look(self) -> None:
        together = 0.0
        try:
            root = psutil.Process(self._process.pid)
            family = [root, *root.children(recursive=True)]
        except psutil.Error:
            return
        for each in family:
            try:
                own, spent = each.memory_info().rss / MIB, each.cpu_times()
                begun = each.create_time()
            except psutil.Error:
                continue
            role = "conductor" if each.pid == self._process.pid else "worker"
            self.largest[role] = max(self.largest.get(role, 0), own)
            self._spent[each.pid, begun] = spent.user + spent.system
            together += own
        self.together = max(self.together, together)
