"""A child process that evaluates conditions, so that no condition can take all memory or run for ever.

DuckDB's own limits do not hold inside one call of a function: `repeat('a', 2000000000)` passes its memory limit, and an
interrupt waits for the end of the call. So the child has limits of the system, and dies where a condition exceeds them.
"""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import IO, Any

from fairdedup.errors import UserError

MEMORY = 2 << 30
"""Bytes that a condition may use, besides what the child process uses at its start."""

TIME_LIMIT = 60.0
"""Seconds that one call may take."""

LESS = "write a simpler condition, or filter the rows first"
_LENGTH = struct.Struct("<Q")


class _Child:
    """The child process of this process; it is started at the first call, and again after it has died."""

    _process: subprocess.Popen[bytes] | None = None
    _owner: int | None = None

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return what a function returns in the child; raise the `UserError` that it raises, and EOFError if it dies.

        The arguments of EOFError are the exit status of the child.
        """
        if self._process is None or self._owner != os.getpid():  # the child of a process that has forked is not ours
            self._start()
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            _send(process.stdin, (function, args, TIME_LIMIT))
            answer = _receive(process.stdout)
        except (OSError, EOFError):
            raise EOFError(self.close()) from None
        except BaseException:  # an interrupt: what the child answers later must not be taken for another answer
            self.close()
            raise
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _start(self) -> None:
        path = os.pathsep.join(folder for folder in sys.path if folder)
        # -P: a module in the current folder must not replace one of Python's own.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", f"from {__name__} import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        self._owner = os.getpid()
        assert self._process.stdin is not None
        try:
            _send(self._process.stdin, MEMORY)
        except OSError:  # noticed by the call
            return

    def close(self) -> int:
        """End the child and return its exit status."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return 0
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):  # what is buffered cannot reach a process that has died
                if pipe is not None:
                    pipe.close()
        try:
            return process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


_CHILD = _Child()
atexit.register(_CHILD.close)


def call_bounded(text: str, rows: int, function: Callable[..., Any], *args: Any) -> Any:
    """Return what a function returns in a process with limits of time and memory.

    Parameters
    ----------
    text : str
        The condition, for messages.
    rows : int
        Number of rows that it is evaluated for, for messages.
    function : callable
        A module-level function.
    *args
        Its arguments.

    Raises
    ------
    UserError
        If the function raises it, or exceeds a limit.
    """
    try:
        return _CHILD.call(function, *args)
    except MemoryError:
        code = 0
    except EOFError as error:
        (code,) = error.args
    what = f"--where {text!r}, for {rows:,} rows," if rows else f"--where {text!r}"
    if code == -getattr(signal, "SIGALRM", 0):
        raise UserError(f"{what} takes longer than {TIME_LIMIT:g} seconds: {LESS}")
    raise UserError(f"{what} needs more than {MEMORY >> 30} GiB of memory: {LESS}")


def serve() -> None:
    """Answer calls until the other process has ended; this is the child process."""
    calls, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print must not get among the answers
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    import duckdb  # noqa: F401  # before the limit, which is for conditions

    _limit_memory(_receive(calls))
    with suppress(EOFError, BrokenPipeError):
        while True:
            function, args, seconds = _receive(calls)
            # By default this signal ends the process, also in the middle of DuckDB's code.
            set_timer = partial(signal.setitimer, signal.ITIMER_REAL) if hasattr(signal, "setitimer") else float
            set_timer(seconds)
            answer = _answer(function, args)
            set_timer(0)
            _send(answers, answer)


def _answer(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    try:
        return function(*args)
    except (UserError, MemoryError) as error:
        return error
    except RecursionError:
        return UserError(f"--where has expressions within expressions, too many to read: {LESS}")
    except Exception as error:  # it may not be picklable
        return RuntimeError(f"{type(error).__name__}: {error}")


def _limit_memory(amount: int) -> None:
    """Limit the memory of this process, and let the system end it before others if memory runs out."""
    try:
        import resource

        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
        with open("/proc/self/statm") as file:
            data = int(file.read().split()[5]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (data + amount, data + amount))
    except (ImportError, OSError, ValueError):  # not Linux
        return


def _send(pipe: IO[bytes], value: object) -> None:
    data = pickle.dumps(value, protocol=5)
    pipe.write(_LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    """Return the next value of a pipe between two processes of this program."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return pickle.loads(data)
