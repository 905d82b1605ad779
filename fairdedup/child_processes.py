"""Child processes for small stages that read the input or load an encoder, without a Dask cluster.

A damaged file may end a child; its task is then given to another one, as Dask does it. A child that takes too much
memory is ended. Children keep their libraries and their model from stage to stage, and end with the command.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from fairdedup.ending_signals import delay_interrupts, silence_resource_tracker
from fairdedup.errors import UserError
from fairdedup.progress import StageProgress
from fairdedup.stage_tasks import RETRIES, StageTasks, TaskRows, call_again
from fairdedup.storage.fence import check_fence, current_fence, use_fence
from fairdedup.tasks import use_report

LOADED_AT_START = ("fairdedup.stages.embedding", "fairdedup.stages.image_scan", "fairdedup.datasets.decoders")
CHECK_EVERY = 0.1  # seconds between two looks at the memory of the children
ROWS_A_CHILD = 200  # a further child loads all libraries again, which takes seconds of a core
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # as Dask sets them for its workers
_context = multiprocessing.get_context("spawn")


class ChildProcesses:
    """A few child processes that run tasks, one at a time each.

    Parameters
    ----------
    most : int
        Largest number of children.
    memory : int
        Bytes that all children together may use; each has an equal share.
    """

    def __init__(self, most: int, memory: int) -> None:
        self.most, self.memory = most, memory
        self._children: list[_Child] = []

    def run(self, stage: StageTasks, progress: StageProgress) -> list[Any]:
        """Run the tasks of a stage and return their results in order.

        Raises
        ------
        FairdedupError
            If a task fails, or ends every child that tries it; the message names it.
        """
        self._start(min(self.most, len(stage.tasks), 1 + stage.likely_rows // ROWS_A_CHILD))
        try:
            return self._run(stage, progress)
        finally:
            self._end([child for child in self._children if child.task is not None])  # after an error, or Ctrl-C

    def _run(self, stage: StageTasks, progress: StageProgress) -> list[Any]:
        results: list[Any] = [None] * len(stage.tasks)
        waiting, deaths = list(stage.order), [0] * len(stage.tasks)
        with stage.show(progress) as shown:
            rows = [TaskRows(shown, weight) for weight in stage.weights]
            while waiting or any(child.task is not None for child in self._children):
                for child in self._children:
                    if child.task is None and waiting:
                        child.begin(waiting.pop(0), stage)
                for child in self._wait():
                    k = child.task
                    assert k is not None
                    kind, value = child.receive()
                    if kind == "rows":
                        rows[k].report(value)
                        continue
                    child.task = None
                    if kind == "result":
                        results[k] = value
                        rows[k].finish()
                    elif kind == "error":
                        stage.raise_error(k, value)
                    else:
                        deaths[k] += 1
                        if deaths[k] > RETRIES:
                            stage.raise_deaths(k)
                        waiting.insert(0, k)
                        child.start()
        return results

    def start(self) -> None:
        """Start the first child now, so that it loads libraries while the command is doing something else."""
        self._start(1)

    def close(self) -> None:
        """End all children."""
        self._end(self._children)

    def _end(self, children: list[_Child]) -> None:
        self._children = [child for child in self._children if child not in children]
        with delay_interrupts():
            for child in children:
                child.end()

    def _start(self, number: int) -> None:
        while len(self._children) < number:
            child = _Child()
            self._children.append(child)  # first, so that it is ended whatever happens
            child.start()

    def _wait(self) -> list[_Child]:
        """Return the children that have something to say; those with too much memory are ended, which says it too."""
        busy = [child for child in self._children if child.task is not None]
        ready = wait([child.connection for child in busy], CHECK_EVERY)
        for child in busy:
            if child.count_memory() > self.memory // len(self._children):
                child.process.kill()
        return [child for child in busy if child.connection in ready]


class _Child:
    """One child process, and the number of the task that it runs."""

    process: Any
    connection: Connection
    task: int | None = None

    def start(self) -> None:
        """Start the process, in the place of one that has died."""
        if hasattr(self, "process"):
            self.end()
        silence_resource_tracker()
        # Ctrl-C reaches the children too, but only the command decides when they end.
        with delay_interrupts(ignored=True), _one_thread():
            self.connection, other = _context.Pipe()
            self.process = _context.Process(target=serve, args=(other,), name="fairdedup-child")
            self.process.start()
            other.close()  # so that the end of the process is the end of what can be received

    def begin(self, k: int, stage: StageTasks) -> None:
        """Send a task. If the process has died, `receive` will say so."""
        self.task = k
        with suppress(OSError):
            self.connection.send_bytes(pickle.dumps((current_fence(), stage.function, stage.tasks[k].arguments)))

    def receive(self) -> tuple[str, Any]:
        """Return "rows", "result" or "error" with its value, or "death"."""
        try:
            kind, value = self.connection.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            return "death", None
        return kind, value

    def count_memory(self) -> int:
        """Return the bytes that the process uses; 0 if it has ended."""
        import psutil

        try:
            return int(psutil.Process(self.process.pid).memory_info().rss)
        except psutil.Error:
            return 0

    def end(self) -> None:
        """End the process. What it writes it writes beside and renames, so nothing half-written stays."""
        with suppress(AttributeError):  # it was never started
            self.connection.close()
            self.process.kill()
            self.process.join()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let the numerical libraries of processes that the block starts use one thread, unless the user says otherwise."""
    unset = [name for name in ONE_THREAD if name not in os.environ]
    os.environ.update(dict.fromkeys(unset, "1"))
    try:
        yield
    finally:
        for name in unset:
            del os.environ[name]


def serve(calls: Connection) -> None:
    """Run the tasks that come through a connection, until it is closed; this is the child process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for name in LOADED_AT_START:
        importlib.import_module(name)
    with use_report(lambda rows: calls.send(("rows", rows))):
        while True:
            try:
                call = calls.recv_bytes()
            except EOFError:
                return
            try:
                answer = pickle.dumps(("result", _call(call)))
            except Exception as error:
                answer = _pickle_error(error)
            calls.send_bytes(answer)


def _call(call: bytes) -> Any:
    fence, function, arguments = pickle.loads(call)
    with use_fence(fence):
        check_fence()
        return call_again(function, *arguments)


def _pickle_error(error: Exception) -> bytes:
    """Return the message that a task has failed; an error that cannot be sent is sent as its text."""
    if not isinstance(error, UserError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(sent := pickle.dumps(("error", error)))
        return sent
    except Exception:
        return pickle.dumps(("error", RuntimeError(f"{type(error).__name__}: {error}")))


def _end_with_parent() -> None:
    """End this process when the command has died."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
