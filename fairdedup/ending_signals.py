"""The signals that end a command: Ctrl-C, SIGTERM and SIGHUP. They raise, so that the command cleans up and says so."""

from __future__ import annotations

import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any

ENDING_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_TRACKER = "ignore:resource_tracker:UserWarning"  # the beginning of its messages


class Stopped(SystemExit):
    """SIGTERM or SIGHUP has ended the command. Its code is 128 and the number of the signal, as in a shell.

    Parameters
    ----------
    number : int
        The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


def handle_stop_signals() -> None:
    """Let SIGTERM and SIGHUP raise `Stopped`, so that the command cleans up; under nohup SIGHUP stays ignored."""

    def stop(number: int, _: object) -> None:
        raise Stopped(number)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)


@contextmanager
def delay_interrupts(ignored: bool = False) -> Iterator[None]:
    """Delay the signals that end a command until the block ends; in the middle of Dask's code they print tracebacks.

    These are Ctrl-C and, if something handles them, SIGTERM and SIGHUP.

    Parameters
    ----------
    ignored : bool
        Ignore Ctrl-C instead. Processes that the block starts inherit this and always ignore it, so only the command
        decides when they end. The others are not ignored, since processes are ended by SIGTERM.

    Raises
    ------
    KeyboardInterrupt
        After the block, if an interrupt was delayed; or whatever the handler of another signal raises.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    delayed: list[int] = []
    before: dict[int, Any] = {}
    for number in ENDING_SIGNALS:
        if number == signal.SIGINT or callable(signal.getsignal(number)):
            is_ignored = ignored and number == signal.SIGINT
            handler = signal.SIG_IGN if is_ignored else lambda received, _: delayed.append(received)
            before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for number in delayed:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        before[number](number, None)


def silence_resource_tracker() -> None:
    """Start Python's resource tracker in a way in which it prints nothing when this process or all are ended.

    It is a process of its own, which cleans up what is left. It inherits the filters of warnings and the blocked
    signals; a tracker that a closed terminal has ended would be started again, and print tracebacks.
    """
    if _TRACKER not in sys.warnoptions:
        sys.warnoptions.append(_TRACKER)
        warnings.filterwarnings("ignore", "resource_tracker", UserWarning)
    hang_up = {signal.SIGHUP} if hasattr(signal, "SIGHUP") else set()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, hang_up) if hang_up else set()
    try:
        resource_tracker.ensure_running()
    finally:
        if hang_up:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
