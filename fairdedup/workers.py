"""Runs the tasks of the stages: on Dask workers, started on this machine or reached through a scheduler.

Those of small stages run in this process or its children, since starting a cluster takes longer than they do. This
module never looks into a task, and never decides anything about the data.
"""

from __future__ import annotations

import logging
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from types import TracebackType
from typing import Any

from fairdedup.child_processes import ChildProcesses
from fairdedup.config import RunConfig
from fairdedup.core.devices import call_on_device
from fairdedup.dask_calls import ROWS_TOPIC, call_on_worker
from fairdedup.ending_signals import delay_interrupts, silence_resource_tracker
from fairdedup.errors import FairdedupError, UserError, format_count
from fairdedup.open_files import allow_files
from fairdedup.progress import Stage, StageProgress
from fairdedup.stage_tasks import RESUME, RETRIES, StageTasks, run_here
from fairdedup.storage.fence import current_fence
from fairdedup.storage.lock import lock_run_directory
from fairdedup.tasks import Result, Task
from fairdedup.worker_memory import (
    ENDS_AT,
    PAUSES_AT,
    check_address_space,
    check_worker_memory,
    has_plenty,
    machine_memory,
    parse_limit,
    smallest_limit,
)
from fairdedup.worker_watch import WorkerWatch

SMALL_ROWS = 20_000  # a stage of at most so many rows needs no cluster
WORKER_THREADS = 1  # an encoder's result may depend on its threads; it never depends on the number of workers
PRELOAD = "fairdedup.workers"  # pass this module to `dask worker --preload`: see `dask_setup`
# A paused worker takes no task until its memory shrinks. That of a model does not, so the run would wait for ever.
NEVER_PAUSE = {"distributed.worker.memory.pause": False}
DASHBOARD = "127.0.0.1:0"  # reachable from this machine only, on any free port
ANSWER_WITHIN = 10.0  # seconds to wait for the answer of a scheduler


def dask_setup(worker: Any) -> None:
    """Raise the limit of open files of a worker. Dask calls this in a preloaded module before the first task."""
    allow_files()


class Workers:
    """A context that runs tasks. It starts a Dask cluster, or connects to one, at the first stage that is not small.

    A stage is small if it has at most `SMALL_ROWS` rows, and the user has named neither a scheduler nor the size of a
    cluster.

    Parameters
    ----------
    progress : StageProgress
        Where progress and messages go.
    scheduler : str or None
        Address of a Dask scheduler. None starts a local cluster of processes.
    workers : int or None
        Number of processes of the local cluster. None means one per core.
    memory_limit : str
        Memory of each of these processes, such as "4GiB". "auto" divides the machine's memory among them. Dask kills a
        process that exceeds it, and its task is retried.
    device : {"auto", "cpu"}
        Where tasks compute products: "auto" takes a GPU where a worker has one and the work is much.
    """

    def __init__(
        self,
        progress: StageProgress,
        scheduler: str | None = None,
        workers: int | None = None,
        memory_limit: str = "auto",
        device: str = "auto",
    ) -> None:
        self.progress = progress
        self.device = device
        self.memory_limit = memory_limit
        self.scheduler = scheduler
        self.number = workers or os.cpu_count() or 1
        self.wants_cluster = scheduler is not None or workers is not None or memory_limit != "auto"
        self._children = ChildProcesses(self.number, int(ENDS_AT * machine_memory()))
        self._cluster: Any = None
        self._client: Any = None
        self._watch: WorkerWatch | None = None  # of a scheduler; a local cluster starts its lost workers again

    def __enter__(self) -> Workers:
        return self

    def expect_input(self) -> None:
        """Start a process that will read the input, so that it loads its libraries while this one loads others."""
        if not self.wants_cluster:
            self._children.start()

    def require_memory(self, data: int, what: str, *, encoder: bool = False, share: float = PAUSES_AT) -> None:
        """Refuse workers whose memory is too small, as `check_worker_memory` does, before a task runs into it."""
        own: dict[str, Any] = {"encoder": encoder, "share": share}
        if not self.scheduler:
            check_address_space(encoder=encoder)
            if self.memory_limit != "auto" or not has_plenty(data, **own):
                check_worker_memory(parse_limit(self.memory_limit), data, what, workers=self.number, **own)
        elif self._client is not None:
            check_worker_memory(smallest_limit(self._client), data, what, workers=None, **own)

    def _start(self) -> Any:
        """Start the local cluster or connect to the scheduler, and return the client."""
        import dask
        from dask.utils import format_bytes
        from distributed import Client, LocalCluster

        allow_files()
        silence_resource_tracker()
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
            self._client = client  # closed even if no worker comes
            self._watch = WorkerWatch(self.scheduler, lambda: len(client.nthreads()), self.progress.warn)
            self._watch.wait()
            return client
        starting = self.progress.stage("start workers", self.number, "workers", is_listed=False)
        with starting, delay_interrupts(ignored=True), dask.config.set(NEVER_PAUSE):
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
        workers = format_count(self.number, "worker")
        limits = {worker["memory_limit"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()}
        memory = f"{format_bytes(min(limits))} of memory" if min(limits, default=0) else "no memory limit"
        self.progress.say(f"{workers} on this machine, {memory} each; dashboard: {client.dashboard_link}")
        return client

    def submit(self, stage: str, function: Callable[..., Result], tasks: Sequence[Task]) -> list[Result]:
        """Run the tasks of a stage and return their results in order: the `Submit` protocol.

        Parameters
        ----------
        stage : str
            Name that progress shows.
        function : callable
            A module-level function. If it reports rows on `ROWS_TOPIC` while it runs, the bar moves before it ends.
        tasks : sequence of Task
            If the rows of any of them are unknown, progress counts tasks instead.

        Raises
        ------
        UserError
            If a task raises it, or no scheduler answers at the address.
        FairdedupError
            If a task raises it, fails for good (the message names the task), or the scheduler is lost or without
            workers.
        """
        if not tasks:
            return []
        if self.device != "auto":
            function = partial(call_on_device, self.device, function)
        plan = StageTasks(stage, function, tasks)
        self._check_memory(plan)
        if self._client is None and not self.wants_cluster and plan.likely_rows <= SMALL_ROWS:
            return self._children.run(plan, self.progress) if plan.is_isolated else run_here(plan, self.progress)
        if self._client is None:
            self._children.close()
            self._client = self._start()
            self._check_memory(plan)  # of workers that others have started
        return self._run_on_dask(plan)

    def _check_memory(self, plan: StageTasks) -> None:
        self.require_memory(0, "any stage")
        self.require_memory(max(task.memory for task in plan.tasks), plan.stage)
        most = max(plan.tasks, key=lambda task: task.peak)
        if most.peak:
            what = f"{plan.stage} of {most.name}, which has large Parquet pages,"
            self.require_memory(most.peak, what, encoder=True, share=ENDS_AT)

    def _run_on_dask(self, plan: StageTasks) -> list[Any]:
        from distributed import KilledWorker, as_completed

        stage, tasks, weights = plan.stage, plan.tasks, plan.weights
        pass_id = secrets.token_hex(8)  # part of each key, since Dask gives equal keys equal results
        futures: dict[Any, int] = {}
        watch = self._watch.during(lambda: self._client.cancel(list(futures))) if self._watch else nullcontext()
        with (
            plan.show(self.progress) as shown,
            self._follow_rows(shown, pass_id) as reported,
            watch,
        ):
            with delay_interrupts():
                for k in plan.order:
                    key = f"{stage}-{k}-{pass_id}"
                    arguments = tasks[k].arguments
                    future = self._client.submit(
                        call_on_worker,
                        current_fence(),
                        plan.function,
                        *arguments,
                        pure=False,
                        retries=RETRIES,
                        key=key,
                    )
                    futures[future] = k
            results: list[Any] = [None] * len(tasks)
            for future in as_completed(futures, loop=self._client.loop):
                k = futures[future]
                if future.cancelled():  # the scheduler was lost, and the futures with it, or the watch gave up
                    if self._watch is not None and self._watch.is_over:
                        raise FairdedupError(self._watch.explain())
                    lost = f"the scheduler {self.scheduler or 'of this command'} was lost during {stage}"
                    raise FairdedupError(f"{lost}: {'start it again, then ' if self.scheduler else ''}{RESUME}")
                error = future.exception()
                if error is not None:
                    self._client.cancel(list(futures))
                    if isinstance(error, KilledWorker):
                        plan.raise_deaths(k)
                    plan.raise_error(k, error)
                results[k] = future.result()
                if isinstance(results[k], FairdedupError):
                    self._client.cancel(list(futures))
                    raise results[k]
                if not reported:
                    shown.advance(weights[k])
        return results

    @contextmanager
    def _follow_rows(self, shown: Stage, pass_id: str) -> Iterator[list[int]]:
        """Show the rows that running tasks of this pass report, and yield the list of these reports."""
        reported: list[int] = []

        def show_rows(event: tuple[float, Any]) -> None:
            report = event[1] if isinstance(event[1], dict) else {}
            rows = report.get("rows")
            if rows and str(report.get("task", "")).endswith(pass_id):  # another run may share the scheduler
                shown.report(rows)
                if shown.unit == "rows":
                    reported.append(rows)

        if shown.name == "embed":
            self._client.subscribe_topic(ROWS_TOPIC, show_rows)
        try:
            yield reported
        finally:
            if shown.name == "embed":
                self._client.unsubscribe_topic(ROWS_TOPIC)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with delay_interrupts():
            self._children.close()
            if self._client is None:
                return
            if self._cluster is None:
                self._client.close()
                return
            with self.progress.stage("stop workers", self.number, "workers", is_listed=False):
                self._client.close()
                self._cluster.close()


@contextmanager
def open_workers(config: RunConfig, progress: StageProgress, *, read_only: bool = False) -> Iterator[Workers]:
    """Lock the run directory, unless the command only reads it, and yield the workers of the command.

    Parameters
    ----------
    config : RunConfig
        Names the run directory, and the scheduler or the size of the local cluster.
    progress : StageProgress
        Where progress and messages go.
    read_only : bool
        Whether the command writes nothing into the run directory.

    Raises
    ------
    FairdedupError
        If another command has locked the run directory.
    """
    lock = nullcontext() if read_only else lock_run_directory(config.out.absolute())
    # With --device cuda the encoder needs a GPU; other tasks may run where there is none, and then use none.
    device = "cpu" if config.device == "cpu" else "auto"
    with lock, Workers(progress, config.scheduler, config.workers, config.memory_limit, device) as workers:
        yield workers
