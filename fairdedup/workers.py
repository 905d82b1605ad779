"""Dask workers, of a local cluster or of a scheduler that is named. They run the tasks of the stages.

Nothing here knows what a task does, or decides anything about the data.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import TracebackType
from typing import Any

from fairdedup.config import RunConfig
from fairdedup.errors import FairdedupError, UserError
from fairdedup.progress import Stage, StageProgress
from fairdedup.storage.lock import lock_run_directory
from fairdedup.tasks import ROWS_TOPIC, Result, Task

RETRIES = 2  # of a task whose worker was lost
WORKER_THREADS = 1  # the result of an encoder may depend on its threads, but not on the number of workers
PRELOAD = "fairdedup.workers"  # for `dask worker --preload`, wherever workers are started: see `dask_setup`
DASHBOARD = "127.0.0.1:0"  # visible from this machine only, at any free port
ANSWER_WITHIN = 10.0  # seconds that a scheduler has to answer
FILES, LEAST_FILES = 4096, 256  # open files that are requested, and that are needed


@contextmanager
def held_back(ignored: bool = False) -> Iterator[None]:
    """Delay an interrupt (Ctrl-C) until the block ends: half-made futures would print tracebacks.

    Parameters
    ----------
    ignored : bool
        Ignore it instead. Processes that the block starts inherit this and ignore it for good, so that only the command
        decides when they end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    handler = signal.SIG_IGN if ignored else lambda number, _: held.append(number)
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        raise KeyboardInterrupt


def allow_files() -> None:
    """Let this process, and the workers that it starts, open enough files.

    Raises
    ------
    UserError
        If the machine does not allow it: Dask would hang.
    """
    try:
        import resource
    except ImportError:  # this system has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < LEAST_FILES:
        raise UserError(f"this process may open only {most} files. Raise the limit, as by `ulimit -n {FILES}`.")


def dask_setup(worker: Any) -> None:
    """Let a worker open enough files. Dask calls this in a preloaded module before the first task."""
    allow_files()


def outcome(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function on a worker. A mistake of the user is returned as a value, since a retry would not fix it."""
    try:
        return function(*args)
    except UserError as error:
        return error


class Workers:
    """A context that runs tasks on Dask. It starts or connects with the first task.

    Parameters
    ----------
    progress : StageProgress
        Where progress and messages go.
    scheduler : str or None
        Address of a Dask scheduler. None starts a local cluster of processes.
    workers : int or None
        Number of processes of the local cluster. None means one per core.
    memory_limit : str
        Memory of each of these processes, as "4GiB". "auto" divides the machine's memory among them. Dask kills a
        process that exceeds it, and its task is retried.

    Raises
    ------
    UserError
        If no scheduler answers at the address.
    """

    def __init__(
        self,
        progress: StageProgress,
        scheduler: str | None = None,
        workers: int | None = None,
        memory_limit: str = "auto",
    ) -> None:
        self.progress = progress
        self.memory_limit = memory_limit
        self.scheduler = scheduler
        self.number = workers or os.cpu_count() or 1
        self._cluster: Any = None
        self._client: Any = None

    def __enter__(self) -> Workers:
        return self

    def _start(self) -> Any:
        """Start the local cluster or connect to the scheduler, and return the client."""
        from dask.utils import format_bytes
        from distributed import Client, LocalCluster

        allow_files()
        for name in ("distributed", "distributed.worker", "distributed.nanny", "distributed.scheduler"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        if self.scheduler:
            try:
                client = Client(self.scheduler, timeout=ANSWER_WITHIN, set_as_default=False)
            except (OSError, ValueError, TimeoutError) as error:
                raise UserError(
                    f"scheduler {self.scheduler!r} does not answer ({type(error).__name__}). Start `dask scheduler` or "
                    "leave --scheduler out."
                ) from None
            if not client.scheduler_info(n_workers=-1)["workers"]:
                self.progress.say(f"waiting for a worker of {self.scheduler}. Start `dask worker {self.scheduler}`.")
                client.wait_for_workers(1)
            return client
        with held_back(ignored=True):
            self._cluster = LocalCluster(
                n_workers=self.number,
                threads_per_worker=WORKER_THREADS,
                processes=True,
                dashboard_address=DASHBOARD,
                local_directory=tempfile.gettempdir(),
                silence_logs=logging.CRITICAL,
                memory_limit=self.memory_limit,
            )
            self._client = client = Client(self._cluster, set_as_default=False)
        workers = "1 worker" if self.number == 1 else f"{self.number} workers"
        limits = {worker["memory_limit"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()}
        memory = f"{format_bytes(min(limits))} of memory" if min(limits, default=0) else "no memory limit"
        self.progress.say(f"{workers} on this machine, {memory} each; dashboard: {client.dashboard_link}")
        return client

    def submit(self, stage: str, function: Callable[..., Result], tasks: Sequence[Task]) -> list[Result]:
        """Run the tasks of a stage and return their results in order: the `Submit` protocol.

        Parameters
        ----------
        stage : str
            The name that progress shows.
        function : callable
            A module-level function. If it reports rows on `ROWS_TOPIC` while it works, the bar moves before it ends.
        tasks : sequence of Task
            If the rows of any of them are unknown, progress counts tasks instead.

        Raises
        ------
        UserError, FairdedupError
            As the task raised it, or naming the task that failed for good.
        """
        if not tasks:
            return []
        from distributed import KilledWorker, as_completed

        if self._client is None:
            self._client = self._start()
        known = [task.rows for task in tasks if task.rows is not None]
        weights = known if len(known) == len(tasks) else [1] * len(tasks)
        work = [weight if task.work is None else task.work for task, weight in zip(tasks, weights, strict=True)]
        order = sorted(range(len(tasks)), key=lambda k: -work[k])
        called = [f"{stage} of {task.name}" if task.name else f"{stage} task {k}" for k, task in enumerate(tasks)]
        own = secrets.token_hex(8)  # no pass may be taken for another: Dask gives equal keys equal results
        unit = "rows" if weights is known else "shards" if len(tasks) > 1 else "task"
        with self.progress.stage(stage, sum(weights), unit) as shown, self._listening(shown, own) as reported:
            futures = {}
            with held_back():
                for k in order:
                    key = f"{stage}-{k}-{own}"
                    arguments = tasks[k].arguments
                    future = self._client.submit(outcome, function, *arguments, pure=False, retries=RETRIES, key=key)
                    futures[future] = k
            results: list[Any] = [None] * len(tasks)
            for future in as_completed(futures, loop=self._client.loop):
                k = futures[future]
                if future.cancelled():  # nobody here has: the scheduler is gone, and what it knew with it
                    lost = f"{self.scheduler} was lost during {stage}: start another"
                    raise FairdedupError(
                        f"the scheduler {lost if self.scheduler else f'of this command was lost during {stage}'}; "
                        "the same command goes on from here"
                    )
                error = future.exception()
                if error is not None:
                    self._client.cancel(list(futures))
                    if isinstance(error, FairdedupError):
                        raise error
                    if isinstance(error, KilledWorker):
                        raise FairdedupError(
                            f"{called[k]} has ended every worker that tried it, likely for want of memory: use fewer "
                            "--workers, a smaller --batch-size or smaller shards; the same command goes on from here"
                        ) from error
                    raise FairdedupError(
                        f"{called[k]} failed: {type(error).__name__}: {error}; the same command goes on from here"
                    ) from error
                results[k] = future.result()
                if isinstance(results[k], UserError):
                    self._client.cancel(list(futures))
                    raise results[k]
                if not reported:
                    shown.advance(weights[k])
        return results

    @contextmanager
    def _listening(self, shown: Stage, own: str) -> Iterator[list[int]]:
        """Show rows that running tasks of this pass report, and give the list of what they have reported."""
        reported: list[int] = []

        def heard(event: tuple[float, Any]) -> None:
            report = event[1] if isinstance(event[1], dict) else {}
            rows = report.get("rows")
            if rows and str(report.get("task", "")).endswith(own):  # another run may share the scheduler
                shown.report(rows)
                if shown.unit == "rows":
                    reported.append(rows)

        if shown.name == "embed":
            self._client.subscribe_topic(ROWS_TOPIC, heard)
        try:
            yield reported
        finally:
            if shown.name == "embed":
                self._client.unsubscribe_topic(ROWS_TOPIC)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with held_back():
            if self._client is not None:
                self._client.close()
            if self._cluster is not None:
                self._cluster.close()


@contextmanager
def open_workers(config: RunConfig, progress: StageProgress, *, read_only: bool = False) -> Iterator[Workers]:
    """Lock the run directory, unless it is only read, and yield the workers that a command may start.

    Parameters
    ----------
    config : RunConfig
        Names the run directory, and the scheduler or the size of the local cluster.
    progress : StageProgress
    read_only : bool
        Whether the command writes nothing into the run directory.

    Raises
    ------
    FairdedupError
        If another command has locked the run directory.
    """
    lock = nullcontext() if read_only else lock_run_directory(config.out.absolute())
    with lock, Workers(progress, config.scheduler, config.workers, config.memory_limit) as workers:
        yield workers
