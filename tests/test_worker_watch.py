"""A scheduler without workers: one line says so even with --quiet, and the wait ends with one line and a remedy."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import pytest
from distributed import Client
from runs import command, done, product
from test_workers import Processes, processes  # noqa: F401 (a fixture)

from fairdedup import worker_watch
from fairdedup import workers as workers_module
from fairdedup.errors import FairdedupError, UserError
from fairdedup.progress import StageProgress
from fairdedup.tasks import Task
from fairdedup.worker_watch import PATIENCE, SETTING, VARIABLE, WorkerWatch, read_patience
from fairdedup.workers import Workers


def make_slow() -> Callable[..., Any]:
    def sleep(folder: str, seconds: float) -> str:
        import pathlib
        import time

        pathlib.Path(folder, "began").touch()
        time.sleep(seconds)
        return folder

    return sleep


@pytest.mark.parametrize("form", [[], ["--log-json"]])
def test_a_scheduler_without_workers_is_a_line_and_an_error_whose_remedy_works(
    form: list[str],
    processes: Processes,  # noqa: F811
    tmp_path: Path,
    finished: Path,
    embeddings: Path,
    prototypes: Path,
) -> None:
    address = processes.scheduler()
    words = ("run", embeddings, "--keep", 0.5, "--prototypes", prototypes, "--clusters", 5, "--out", tmp_path / "run",
             "--scheduler", address, "--quiet", *form)  # fmt: skip
    with dask.config.set({SETTING: "600 ms"}):
        ended = command(*words)
    assert ended.code == 1 and ended.out == "" and ended.err.count("\n") == 2, ended
    said = [json.loads(line)["text"] for line in ended.err.splitlines()] if form else ended.err.splitlines()
    advice = f"`dask worker {address}`"
    assert said[0] == f"waiting for workers at {address}: start one by {advice}"
    assert said[1].removeprefix("fairdedup: error: ") == (
        f"the scheduler {address} has had no worker for 0.6 seconds: start {advice}, then run the same command to "
        f"resume ({VARIABLE}=1h waits longer)"
    )
    assert not (tmp_path / "run" / "run.json").exists()
    if not form:
        processes.worker()
        assert done(*words).err == ""  # nothing is said within `SAY_AFTER`
        assert product(tmp_path / "run") == product(finished)


def test_workers_that_all_end_in_mid_stage_are_waited_for_only_so_long(
    processes: Processes,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address = processes.scheduler()
    worker = processes.worker()
    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(1)
    tasks = [Task((str(tmp_path), 30.0), name="a.tar")]

    def end_worker() -> None:
        while not (tmp_path / "began").exists():
            time.sleep(0.05)
        worker.kill()

    threading.Thread(target=end_worker).start()
    with (
        dask.config.set({SETTING: "2s"}),
        StageProgress(quiet=True) as progress,
        Workers(progress, address) as workers,
        pytest.raises(FairdedupError, match="has had no worker for 2 seconds") as caught,
    ):
        workers.submit("embed", make_slow(), tasks)
    assert not isinstance(caught.value, UserError) and "\n" not in str(caught.value)
    assert capsys.readouterr().err == f"waiting for workers at {address}: start one by `dask worker {address}`\n"


def test_a_worker_that_comes_back_in_time_finishes_the_stage(
    processes: Processes,  # noqa: F811
    tmp_path: Path,
) -> None:
    address = processes.scheduler()
    worker = processes.worker()

    def replace_worker() -> None:
        while not (tmp_path / "began").exists():
            time.sleep(0.05)
        worker.kill()
        processes.worker()

    threading.Thread(target=replace_worker).start()
    with StageProgress(quiet=True) as progress, Workers(progress, address) as workers:
        assert workers.submit("embed", make_slow(), [Task((str(tmp_path), 1.0))]) == [str(tmp_path)]


def test_a_scheduler_that_is_lost_before_it_has_a_worker_is_one_line(
    processes: Processes,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers_module, "ANSWER_WITHIN", 2)
    address = processes.scheduler()
    threading.Timer(1, processes.running[0].kill).start()
    with (
        StageProgress(quiet=True) as progress,
        Workers(progress, address) as workers,
        pytest.raises(FairdedupError, match="was lost .* before it had a worker: start it again, then") as caught,
    ):
        workers.submit("embed", abs, [Task((-1,))])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("setting", "expected"), [(None, PATIENCE), ("10m", 600), (7, 7), ("90 s", 90)])
def test_dasks_own_setting_is_the_bound(setting: object, expected: float) -> None:
    with dask.config.set({SETTING: setting}):
        assert read_patience() == expected


@pytest.mark.parametrize("setting", ["soon", "3 moons", [1]])
def test_a_setting_that_is_no_time_is_an_error_that_names_it(setting: object) -> None:
    with dask.config.set({SETTING: setting}), pytest.raises(UserError, match=re.escape(f"{VARIABLE}) must be a time")):
        read_patience()


def test_the_line_is_said_once_for_each_time_without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    now = 0.0
    counts = iter([1, *[0] * 20, 1, *[0] * 20, 1])

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(worker_watch, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    watch = WorkerWatch("tcp://a:1", lambda: next(counts), said.append)
    for expected in (0, 1, 2):
        watch.wait()
        assert len(said) == expected
