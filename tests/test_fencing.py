"""A lost client's tasks end with it or can no longer write into its run: real schedulers, workers and signals."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from distributed import Client, Scheduler
from runs import CLUSTERS, done, files, product, started
from test_workers import Processes, processes  # noqa: F401 (a fixture)

from fairdedup.dask_calls import call_on_worker
from fairdedup.errors import FairdedupError
from fairdedup.storage.checked_json import write_json
from fairdedup.storage.fence import NAME, Fence, check_fence, current_fence, raise_fence, use_fence
from fairdedup.storage.lock import lock_run_directory
from fairdedup.storage.run_files import atomic_write, link_or_copy, move_file, remove_folder

CLIENT = """
import sys, time
from pathlib import Path
from fairdedup.ending_signals import handle_stop_signals
from fairdedup.progress import StageProgress
from fairdedup.storage.lock import lock_run_directory
from fairdedup.tasks import Task
from fairdedup.workers import Workers

def make():
    def task(root, name):
        import time
        from fairdedup.storage.checked_json import write_json
        (root.parent / f"began-{name}").touch()
        while not (root.parent / "go").exists():
            time.sleep(0.05)
        try:
            write_json(root / "parts" / f"{name}.json", name)
        except Exception as error:
            (root.parent / f"refused-{name}").write_text(str(error))
            raise
    return task

handle_stop_signals()
root = Path(sys.argv[1])
with lock_run_directory(root), StageProgress(quiet=True) as progress, Workers(progress, sys.argv[2]) as workers:
    workers.submit("work", make(), [Task((root, name)) for name in ("one", "two")])
"""


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until something is true."""
    for _ in range(400):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not become true")


def client_on(address: str, run: Path) -> subprocess.Popen[str]:
    """Start a client whose first task waits on the only worker, and its second in the queue."""
    (run.parent / "client.py").write_text(CLIENT)
    client = subprocess.Popen([sys.executable, str(run.parent / "client.py"), str(run), address],
                              stderr=subprocess.PIPE, text=True)  # fmt: skip
    wait_for(lambda: list(run.parent.glob("began-*")))
    return client


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_task_that_outlives_its_client_writes_nothing_and_queued_ones_never_start(
    number: signal.Signals,
    processes: Processes,  # noqa: F811
    tmp_path: Path,
) -> None:
    address = processes.scheduler()
    processes.worker()
    run = tmp_path / "run"
    first = client_on(address, run)
    os.kill(first.pid, number)
    first.communicate(timeout=20)
    assert first.returncode == (-number if number == signal.SIGKILL else 128 + number)
    with Client(address, set_as_default=False) as client:
        wait_for(lambda: not client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.tasks)))
    with lock_run_directory(run):
        (tmp_path / "go").touch()
        wait_for(lambda: list(tmp_path.glob("refused-*")))
        assert "was taken over by another command" in next(tmp_path.glob("refused-*")).read_text()
        time.sleep(0.5)
        assert len(list(tmp_path.glob("began-*"))) == 1
        assert sorted(p.name for p in run.rglob("*")) == [NAME]


def test_a_run_whose_client_was_killed_is_resumed_at_once_with_the_same_bytes(
    processes: Processes,  # noqa: F811
    tmp_path: Path,
    finished: Path,
    prototypes: Path,
) -> None:
    address = processes.scheduler()
    processes.worker()
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    first = client_on(address, run)
    first.kill()
    first.communicate()
    (tmp_path / "go").touch()
    done("prune", run, "--keep", 0.5, "--prototypes", prototypes, "--scheduler", address, "--quiet")
    assert product(run) == product(finished)
    assert not (run / NAME).exists()


def test_a_stopped_worker_that_goes_on_after_the_run_was_finished_changes_nothing(
    processes: Processes,  # noqa: F811
    tmp_path: Path,
    finished: Path,
    prototypes: Path,
) -> None:
    address = processes.scheduler()
    zombie = processes.worker()
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    first = client_on(address, run)
    os.kill(zombie.pid, signal.SIGSTOP)
    try:
        first.kill()
        first.communicate()
        with Client(address, set_as_default=False) as client:
            forget_all_workers(client)
        processes.worker()
        done("prune", run, "--keep", 0.4, "--prototypes", prototypes, "--scheduler", address, "--quiet")
        before = files(run)
        (tmp_path / "go").touch()
    finally:
        os.kill(zombie.pid, signal.SIGCONT)
    wait_for(lambda: list(tmp_path.glob("refused-*")))
    assert "the command of this task has ended" in next(tmp_path.glob("refused-*")).read_text()
    time.sleep(0.5)
    assert files(run) == before
    assert len(list(tmp_path.glob("began-*"))) == 1


def forget_all_workers(client: Client) -> None:
    """Let the scheduler forget its workers, as it does after five minutes without a sign of life."""

    async def forget(dask_scheduler: Scheduler) -> None:  # the scheduler cannot import this module
        for address in list(dask_scheduler.workers):
            await dask_scheduler.remove_worker(address, stimulus_id="test", close=False)

    client.run_on_scheduler(forget)


@pytest.mark.parametrize("stages", [pytest.param(1, marks=pytest.mark.soak), 4])
def test_a_whole_command_that_is_killed_in_mid_stage_leaves_no_task_and_is_run_again(
    stages: int,
    processes: Processes,  # noqa: F811
    tmp_path: Path,
    embeddings: Path,
    finished: Path,
    prototypes: Path,
) -> None:
    address = processes.scheduler()
    worker = processes.worker()
    run = tmp_path / "run"
    words = ("run", embeddings, "--keep", 0.5, "--prototypes", prototypes, "--clusters", CLUSTERS, "--out", run,
             "--scheduler", address)  # fmt: skip
    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(1)

        def tasks() -> list[str]:
            return client.run_on_scheduler(lambda dask_scheduler: list(map(str, dask_scheduler.tasks)))

        first = started(tmp_path, *words, "--log-json")
        assert first.stderr is not None
        for line in first.stderr:
            stages -= '"event": "stage"' in line
            if not stages:
                break
        os.kill(worker.pid, signal.SIGSTOP)  # so that the next stage is certainly under way
        try:
            wait_for(tasks)
            os.kill(first.pid, signal.SIGKILL)
            first.communicate(timeout=20)
            assert (run / NAME).is_file() and not (run / "run.json").exists()
            wait_for(lambda: not tasks())
        finally:
            os.kill(worker.pid, signal.SIGCONT)
        done(*words, "--quiet")
        wait_for(lambda: not tasks())
    assert product(run) == product(finished)
    assert not (run / NAME).exists() and not list(run.rglob("*.tmp"))


def test_a_command_that_lost_its_run_fails_in_one_line_and_leaves_no_file(tmp_path: Path) -> None:
    root = tmp_path / "run"
    root.mkdir()
    (root / "old").mkdir()
    (tmp_path / "source").write_text("1")
    writes: list[Callable[[], None]] = [
        lambda: write_json(root / "parts" / "a.json", 1),
        lambda: move_file(tmp_path / "source", root / "moved"),
        lambda: link_or_copy(tmp_path / "source", root / "linked"),
        lambda: remove_folder(root / "old"),
    ]
    with raise_fence(root):
        zombie = current_fence()
        with raise_fence(root):
            later = (root / NAME).read_text()
            with use_fence(zombie):
                for write in writes:
                    with pytest.raises(FairdedupError, match="was taken over by another command") as error:
                        write()
                    assert "\n" not in str(error.value)
            assert sorted(p.name for p in root.rglob("*")) == [NAME, "old"]
            with pytest.raises(FairdedupError, match="was taken over"):
                call_on_worker(zombie, write_json, root / "b.json", 1)
            call_on_worker(current_fence(), write_json, root / "b.json", 1)
            assert (root / NAME).read_text() == later
    assert sorted(p.name for p in root.iterdir()) == ["b.json", "old"]
    with use_fence(zombie), pytest.raises(FairdedupError, match="the command of this task has ended"):
        check_fence()


def test_a_fence_lost_while_a_file_is_written_keeps_the_file_from_its_name(tmp_path: Path) -> None:
    with (
        raise_fence(tmp_path),
        pytest.raises(FairdedupError, match="was taken over"),
        atomic_write(tmp_path / "file") as aside,
    ):
        aside.write_text("1")
        (tmp_path / NAME).write_text("another token")
    assert [p.name for p in tmp_path.iterdir()] == [NAME]  # that of the later command stays


def test_a_zombie_that_ends_leaves_the_fence_of_the_later_command(tmp_path: Path) -> None:
    with raise_fence(tmp_path):
        (tmp_path / NAME).write_text("another token")
    assert (tmp_path / NAME).read_text() == "another token"
    assert current_fence() is None
    with use_fence(Fence(tmp_path, "another token")):
        check_fence()
