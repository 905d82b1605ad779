"""A child process that evaluates conditions, so that no condition can take all memory or run for ever.

DuckDB's own limits do not hold inside one call of a function: `repeat('a', 2000000000)` passes its memory limit, and an
interrupt waits for the end of the call. So the child has limits of the system, and dies where a condition exceeds them.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import IO, Any

from fairdedup.errors import UserError, format_count
from fairdedup.storage.memory_limit import limit_memory

MEMORY = 2 << 30
"""Bytes that a condition may use, besides what the child process uses at its start."""

TIME_LIMIT = 60.0
"""Seconds that one call may take."""

SERVER = "fairdedup.storage.condition"
"""The module whose `serve` the child runs."""

LESS = "write a simpler condition, or filter the rows first"
LOCKED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "threads": "1",
    "memory_limit": "1GiB",
    "temp_directory": "",
}
SAME_EVERYWHERE = ("TimeZone = 'UTC'", "Calendar = 'gregorian'")
"""Settings that a session would otherwise take from the machine."""

_LENGTH = struct.Struct("<Q")

Message = dict[str, Any]
"""Values that JSON can hold."""


class _Child:
    """The child process of this process; it is started at the first call, and again after it has died."""

    _process: subprocess.Popen[bytes] | None = None
    _owner: int | None = None

    def call(self, request: Message, data: bytes) -> tuple[Message, bytes]:
        """Return the child's answer; raise EOFError if it dies, with its exit status."""
        if self._process is None or self._owner != os.getpid():  # the child of a process that has forked is not ours
            self._start()
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            _send(process.stdin, {**request, "seconds": TIME_LIMIT}, data)
            return _receive(process.stdout)
        except (OSError, EOFError):
            raise EOFError(self.close()) from None
        except BaseException:  # an interrupt: what the child answers later must not be taken for another answer
            self.close()
            raise

    def _start(self) -> None:
        path = os.pathsep.join(folder for folder in sys.path if folder)
        # -P: a module in the current folder must not replace one of Python's own.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", f"from {SERVER} import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        self._owner = os.getpid()

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


def connect() -> Any:
    """Return a connection to an empty database that reads no file and is the same on every machine."""
    import duckdb

    connection = duckdb.connect(":memory:", config=LOCKED)
    connection.execute("SET python_enable_replacements = false")  # a name is a column, never a Python variable
    for setting in SAME_EVERYWHERE:
        connection.execute(f"SET {setting}")
    connection.execute("SET lock_configuration = true")
    return connection


def call_bounded(text: str, rows: int, request: Message, data: bytes) -> tuple[Message, bytes]:
    """Return the answer of `condition.serve` to a request.

    Parameters
    ----------
    text : str
        The condition, for messages.
    rows : int
        Number of rows that it is evaluated for, for messages.
    request : dict
        What is wanted; values that JSON can hold.
    data : bytes
        Further data.

    Raises
    ------
    UserError
        If the child reports a mistake, or exceeds a limit.
    """
    what, code = f"--where {text!r}, for {format_count(rows, 'row')}," if rows else f"--where {text!r}", 0
    try:
        answer, found = _CHILD.call(request, data)
        if "mistake" in answer:
            raise UserError(answer["mistake"])
        if "fault" in answer:
            raise RuntimeError(answer["fault"])
        if "lacks memory" not in answer:
            return answer, found
    except EOFError as error:
        (code,) = error.args
    if code == -getattr(signal, "SIGALRM", 0) and code:
        raise UserError(f"{what} takes longer than {TIME_LIMIT:g} seconds: {LESS}")
    raise UserError(f"{what} needs more than {MEMORY >> 30} GiB of memory: {LESS}")


def serve_calls(evaluate: Callable[[Message, bytes], tuple[Message, bytes]]) -> None:
    """Answer calls by a function until the other process has ended; this is the child process."""
    calls, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print must not get among the answers
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    import duckdb  # noqa: F401  # before the limit, which is for conditions

    limit_memory(MEMORY)
    with suppress(EOFError, BrokenPipeError):
        while True:
            request, data = _receive(calls)
            # By default this signal ends the process, also in the middle of DuckDB's code.
            set_timer = partial(signal.setitimer, signal.ITIMER_REAL) if hasattr(signal, "setitimer") else float
            set_timer(request["seconds"])
            answer, found = _answer(evaluate, request, data)
            set_timer(0)
            _send(answers, answer, found)


def _answer(
    evaluate: Callable[[Message, bytes], tuple[Message, bytes]], request: Message, data: bytes
) -> tuple[Message, bytes]:
    try:
        return evaluate(request, data)
    except UserError as error:
        return {"mistake": str(error)}, b""
    except MemoryError:
        return {"lacks memory": True}, b""
    except RecursionError:
        return {"mistake": f"--where has expressions within expressions, too many to read: {LESS}"}, b""
    except Exception as error:
        return {"fault": f"{type(error).__name__}: {error}"}, b""


def _send(pipe: IO[bytes], message: Message, data: bytes) -> None:
    for part in (json.dumps(message).encode(), data):
        pipe.write(_LENGTH.pack(len(part)))
        pipe.write(part)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> tuple[Message, bytes]:
    """Return the next message of a pipe between two processes of this program, and its data."""
    head, data = (_read(pipe, *_LENGTH.unpack(_read(pipe, _LENGTH.size))) for _ in range(2))
    message: Message = json.loads(head)
    return message, data


def _read(pipe: IO[bytes], size: int) -> bytes:
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return data
