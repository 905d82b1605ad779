"""On any Dask: the same bytes for any workers, a lost worker costs only its task, failures are reported and resumed."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client
from runs import CLUSTERS, PRODUCT, command, contents, done, manifest, product, started, table

from fairdedup import workers as workers_module
from fairdedup.commands.prune import prune_run
from fairdedup.commands.run import run as run_all
from fairdedup.config import RunConfig
from fairdedup.errors import FairdedupError, UserError
from fairdedup.progress import StageProgress
from fairdedup.storage.layout import RunDirectory
from fairdedup.tasks import Task
from fairdedup.workers import Workers


@dataclass
class Processes:
    """A scheduler and workers, each in a separate process."""

    folder: Path
    address: Path = field(init=False)
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.address = self.folder / "scheduler.json"

    def start(self, *words: str, **environment: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *words, "--scheduler-file", str(self.address)],
            cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | environment,
        )  # fmt: skip
        self.running.append(process)
        return process

    def scheduler(self) -> str:
        self.start("scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard")
        for _ in range(600):
            if self.address.is_file() and self.address.stat().st_size:
                return json.loads(self.address.read_text())["address"]
            time.sleep(0.1)
        raise AssertionError("the scheduler has not started")

    def worker(self, threads: int = 1, **environment: str) -> subprocess.Popen[bytes]:
        return self.start("worker", "--no-nanny", "--nthreads", str(threads), "--no-dashboard", "--local-directory",
                          str(self.folder), **environment)  # fmt: skip


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    (tmp_path / "dask").mkdir()
    started = Processes(tmp_path / "dask")
    yield started
    for process in started.running:
        process.kill()
        process.wait()


# The same bytes


def decide(finished: Path, out: Path, prototypes: Path, scheduler: str, *more: object) -> dict[str, dict[str, bytes]]:
    """Prune a copy of a finished run again, from its embeddings and centroids."""
    shutil.copytree(finished, out)
    done("prune", out, "--keep", 0.5, "--prototypes", prototypes, "--scheduler", scheduler, "--quiet", *more)
    return product(out)


def test_threads_and_processes_and_their_number_change_no_byte(processes, tmp_path, finished, prototypes, scheduler):
    rule = ("--rule", "balanced")
    expected = decide(finished, tmp_path / "two", prototypes, scheduler, *rule)
    address = processes.scheduler()
    processes.worker(threads=4)
    assert decide(finished, tmp_path / "threads", prototypes, address, *rule) == expected
    for _ in range(3):
        processes.worker()
    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(4)
    assert decide(finished, tmp_path / "many", prototypes, address, *rule) == expected


def test_a_whole_run_is_the_same_by_one_worker_and_by_four(processes, tmp_path, finished, embeddings, prototypes):
    address = processes.scheduler()
    for number in (1, 4):
        while len(processes.running) < number + 1:
            processes.worker()
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(number)
        out = tmp_path / f"by{number}"
        done("run", embeddings, "--keep", 0.5, "--prototypes", prototypes, "--clusters", CLUSTERS, "--out", out,
             "--scheduler", address, "--quiet")  # fmt: skip
        assert product(out) == product(finished)


def test_the_order_of_the_tasks_changes_no_byte(tmp_path, finished, embeddings, prototypes, scheduler):
    class Shuffled(Workers):
        def submit(self, stage: str, function: Callable[..., Any], tasks: Sequence[Task]) -> list[Any]:
            order = list(range(len(tasks)))
            rng.shuffle(order)
            work = [0.0] * len(order)
            for place, k in enumerate(order):
                work[k] = -float(place)
            shuffled = [replace(task, work=own) for task, own in zip(tasks, work, strict=True)]
            return super().submit(stage, function, shuffled)

    for seed in range(3):
        rng = random.Random(seed)
        config = RunConfig(input=str(embeddings), keep=0.5, prototypes=prototypes, clusters=CLUSTERS,
                           out=tmp_path / f"run{seed}", scheduler=scheduler)  # fmt: skip
        with pytest.MonkeyPatch.context() as patched, StageProgress(quiet=True) as progress:
            patched.setattr(workers_module, "Workers", Shuffled)
            with workers_module.open_workers(config, progress) as workers:
                run_all(config, workers)
        assert product(config.out) == product(finished)


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({"OPENBLAS_CORETYPE": "Prescott", "OPENBLAS_NUM_THREADS": "1"}, id="sse3 kernels"),
        pytest.param({"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "3"}, id="avx2 kernels, three threads"),
        pytest.param(
            {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": ""},
            id="loops compiled for any x86-64",
            marks=pytest.mark.soak,
        ),
    ],
)
def test_another_blas_and_other_instructions_change_no_byte(
    environment, processes, tmp_path, finished, prototypes, scheduler
):
    if environment.get("NUMBA_CACHE_DIR") == "":
        environment |= {"NUMBA_CACHE_DIR": str(tmp_path / "compiled")}
    address = processes.scheduler()
    processes.worker(**environment)
    expected = decide(finished, tmp_path / "here", prototypes, scheduler, "--rule", "balanced")
    assert decide(finished, tmp_path / "there", prototypes, address, "--rule", "balanced") == expected


def test_groups_of_shards_change_the_parts_and_nothing_else(tmp_path, finished, embeddings, prototypes, monkeypatch):
    from fairdedup.storage import shard_groups as storage

    class Here:
        """Runs each task in this process: the number of rows of a group is patched in this one alone."""

        def __init__(self, progress: StageProgress, *_: object) -> None:
            self.progress = progress

        def __enter__(self) -> Here:
            return self

        def __exit__(self, *_: object) -> None: ...

        def submit(self, stage: str, function: Callable[..., Any], tasks: Sequence[Task]) -> list[Any]:
            with self.progress.stage(stage, len(tasks)):
                return [function(*task.arguments) for task in tasks]

    monkeypatch.setattr(storage, "GROUP_ROWS", 160)
    monkeypatch.setattr(workers_module, "Workers", Here)
    config = RunConfig(input=str(embeddings), keep=0.5, prototypes=prototypes, clusters=CLUSTERS, out=tmp_path / "run")
    with StageProgress(quiet=True) as progress, workers_module.open_workers(config, progress) as workers:
        run_all(config, workers)
    assert sorted(contents(config.out / "kept")) == ["part-00000.parquet", "part-00001.parquet"]
    assert len(list((config.out / "clusters").glob("vectors_*.npy"))) == 2
    for folder in PRODUCT:
        assert table(config.out / folder).equals(table(finished / folder))


# Workers that die, tasks that fail


def test_a_worker_killed_in_every_stage_costs_its_tasks_and_no_byte(
    processes, tmp_path, finished, embeddings, prototypes
):
    address = processes.scheduler()
    mortal: list[subprocess.Popen[bytes]] = [processes.worker(), processes.worker()]
    done_again: dict[str, int] = {}

    class Deadly(Workers):
        """Kills a worker at its first task of every stage; another replaces it."""

        def submit(self, stage: str, function: Callable[..., Any], tasks: Sequence[Task]) -> list[Any]:
            if stage in done_again or not tasks:
                return super().submit(stage, function, tasks)
            log = tmp_path / f"{stage}.log"
            again = [
                replace(task, arguments=(str(log), k == 0, function, task.arguments)) for k, task in enumerate(tasks)
            ]
            results = super().submit(stage, dying(), again)
            begun = log.read_text().split()
            done_again[stage] = len(begun) - len(tasks)
            for process in [p for p in mortal if p.poll() is not None]:
                mortal.remove(process)
                mortal.append(processes.worker())
            return results

    config = RunConfig(input=str(embeddings), keep=0.5, prototypes=prototypes, clusters=CLUSTERS,
                       out=tmp_path / "run", scheduler=address)  # fmt: skip
    with pytest.MonkeyPatch.context() as patched, StageProgress(quiet=True) as progress:
        patched.setattr(workers_module, "Workers", Deadly)
        with workers_module.open_workers(config, progress) as workers:
            run_all(config, workers)
    assert product(config.out) == product(finished)
    assert {"embed", "train k-means", "assign", "search", "decide", "survey", "shares", "export"} <= set(done_again)
    # The task that the worker was at, and of quick ones those whose results it still held.
    assert min(done_again.values()) == 1 and done_again["embed"] == done_again["train k-means"] == 1, done_again


def dying() -> Callable[..., Any]:
    """Return a function that runs a task, but dies once inside a mortal one; workers cannot import this module."""

    def die_once(log: str, mortal: bool, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        with open(log, "a") as file:
            file.write("begun\n")
        if mortal and not os.path.exists(log + ".died"):
            with open(log + ".died", "w"):
                pass
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args)

    return die_once


def test_a_task_that_fails_for_good_names_its_shard_and_the_run_resumes(
    tmp_path, finished, embeddings, prototypes, scheduler
):
    class Failing(Workers):
        def submit(self, stage: str, function: Callable[..., Any], tasks: Sequence[Task]) -> list[Any]:
            wrapped = [
                replace(task, arguments=(stage == "embed" and k == 2, function, task.arguments))
                for k, task in enumerate(tasks)
            ]
            return super().submit(stage, breaking(), wrapped)

    config = RunConfig(input=str(embeddings), keep=0.5, prototypes=prototypes, clusters=CLUSTERS,
                       out=tmp_path / "run", scheduler=scheduler)  # fmt: skip
    with pytest.MonkeyPatch.context() as patched, StageProgress(quiet=True) as progress:
        patched.setattr(workers_module, "Workers", Failing)
        with pytest.raises(FairdedupError) as caught, workers_module.open_workers(config, progress) as workers:
            run_all(config, workers)
    assert not isinstance(caught.value, UserError)
    assert str(caught.value) == (
        "embed of img_emb_2.npy failed: RuntimeError: the device is on fire; once that is fixed, run the same "
        "command to resume"
    )
    with StageProgress(quiet=True) as progress, workers_module.open_workers(config, progress) as workers:
        run_all(config, workers)
    assert product(config.out) == product(finished)


def breaking() -> Callable[..., Any]:
    def break_down(broken: bool, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if broken:
            raise RuntimeError("the device is on fire")
        return function(*args)

    return break_down


# A local cluster


def test_a_local_cluster_tells_its_dashboard_and_keeps_to_its_memory(embeddings, tmp_path):
    import urllib.request

    process = started(tmp_path, "run", embeddings, "--keep", 0.5, "--rule", "semdedup", "--clusters", CLUSTERS,
                      "--workers", 1, "--memory-limit", "1.5GiB")  # fmt: skip
    assert process.stderr is not None
    told = process.stderr.readline()
    address = re.fullmatch(
        r"1 worker on this machine, 1\.50 GiB of memory each; dashboard: (http://127\.0\.0\.1:\d+/status)\n", told
    )
    assert address, told
    with urllib.request.urlopen(address[1], timeout=20) as page:
        assert page.status == 200 and b"Bokeh" in page.read()
    _, err = process.communicate()
    assert process.returncode == 0, err


def alive(group: int) -> list[str]:
    """Return the processes of a group that are still running."""
    listed = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if line.split()[0] == str(group) and line.split()[1][0] != "Z"]


@pytest.mark.parametrize("whom", ["the terminal's group", "the command alone"])
def test_ctrl_c_stops_cleanly_and_explains_how_to_resume(whom, embeddings, finished, prototypes, tmp_path):
    asked = ("run", embeddings, "--keep", 0.5, "--prototypes", prototypes, "--clusters", CLUSTERS, "--out", "run",
             "--workers", 2)  # fmt: skip
    process = started(tmp_path, *asked)
    assert process.stderr is not None
    first = process.stderr.readline()
    assert "dashboard" in first, first
    (os.killpg if whom == "the terminal's group" else os.kill)(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert err.splitlines()[-1] == "fairdedup: error: Interrupted. Run the same command to resume."
    assert "Traceback" not in err
    for _ in range(50):
        if not alive(process.pid):
            break
        time.sleep(0.1)
    assert not alive(process.pid)
    if whom == "the command alone":
        return  # one of them is enough to go on from
    again = started(tmp_path, *asked)
    assert again.communicate(timeout=120) and again.returncode == 0
    assert product(tmp_path / "run") == product(finished)


def test_a_lost_scheduler_is_one_line_and_another_one_resumes(processes, tmp_path, finished, prototypes):
    class Cut(Workers):
        def submit(self, stage: str, function: Callable[..., Any], tasks: Sequence[Task]) -> list[Any]:
            if stage == "decide":
                threading.Timer(1, processes.running[0].kill).start()
                function, tasks = slowly(), [replace(task, arguments=(function, task.arguments)) for task in tasks]
            return super().submit(stage, function, tasks)

    shutil.copytree(finished, tmp_path / "run")
    config = RunConfig(keep=0.5, rule="semdedup", out=tmp_path / "run")
    with (
        StageProgress(quiet=True) as progress,
        Cut(progress, address := processes.scheduler()) as workers,
        pytest.raises(FairdedupError, match="run the same command to resume$") as lost,
    ):
        processes.worker()
        prune_run(config, workers)
    assert address in str(lost.value)
    assert "\n" not in str(lost.value)
    assert manifest(tmp_path / "run") == manifest(finished)  # the old decisions stand until there are new ones
    done("prune", tmp_path / "run", "--keep", 0.5, "--rule", "semdedup", "--workers", 1, "--quiet")
    assert manifest(tmp_path / "run")["config"]["prune"]["rule"] == "semdedup"


def slowly() -> Callable[..., Any]:
    def wait(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        time.sleep(3)
        return function(*args)

    return wait


def test_log_json_tells_progress_result_and_error_a_line_each(embeddings, scheduler, tmp_path):
    asked = ("run", embeddings, "--keep", 0.5, "--rule", "semdedup", "--out", tmp_path / "run", "--scheduler",
             scheduler, "--log-json")  # fmt: skip
    ended = command(*asked)
    assert ended.code == 0 and ended.out == ""
    lines = [json.loads(line) for line in ended.err.splitlines()]
    assert all({"time", "event"} <= set(line) for line in lines)
    stages = [line["stage"] for line in lines if line["event"] == "stage"]
    assert {"embed", "train k-means", "assign", "search", "decide", "export"} <= set(stages)
    assert lines[-1]["event"] == "finished" and lines[-1]["counts"] == manifest(tmp_path / "run")["counts"]
    wrong = command(*asked[:3], 0.4, *asked[4:])
    (line,) = [json.loads(line) for line in wrong.err.splitlines()]
    assert wrong.code == 2 and line["event"] == "error" and line["code"] == 2 and "--keep 0.5 → 0.4" in line["text"]


# Balance


def test_the_task_with_most_pairs_begins_first(scheduler):
    begun: list[float] = []
    with StageProgress(quiet=True) as progress, Workers(progress, scheduler) as workers:
        workers.submit("any", abs, [Task((-1,))])
        submit = workers._client.submit

        def noted(function: Any, fence: Any, task: Any, *args: Any, **more: Any) -> Any:
            begun.append(args[0])
            return submit(function, fence, task, *args, **more)

        workers._client.submit = noted
        work = [3.0, 9.0, 1.0, 4.0]
        assert workers.submit("any", abs, [Task((-w,), rows=10, work=w) for w in work]) == work
    assert begun == [-9.0, -4.0, -3.0, -1.0]


def test_a_range_of_clusters_has_about_as_many_pairs_as_another(tmp_path, finished, monkeypatch):
    from fairdedup.stages.pruning import cluster_ranges as prune
    from fairdedup.storage.contents import load_clustered, load_embedded, write_sizes
    from fairdedup.storage.marks import Marks

    shutil.copytree(finished, tmp_path / "run")
    sizes = np.r_[np.random.default_rng(0).integers(1, 500, 3000), 4000]
    write_sizes(RunDirectory(tmp_path / "run"), sizes)
    clustered = load_clustered(load_embedded(RunDirectory(tmp_path / "run")))
    parts, filled, _ = prune.split_clusters(clustered, Marks())
    assert filled == 3001 and sum(p.rows for p in parts) == sizes.sum() and len(parts) <= prune.TASKS
    work = sorted(p.work for p in parts)
    share = (sizes.astype(float) ** 2).sum() / prune.TASKS
    assert work[-2] < 2 * share and work[0] > 0.5 * share * 0.5
    assert parts[-1].last - parts[-1].first < 50, "the giant stands nearly alone"
    assert parts[-1].work == work[-1]
