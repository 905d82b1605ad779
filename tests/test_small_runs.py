"""A small run needs no cluster: its stages run in the command or in its children, with the bytes of a run on Dask."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from runs import CLUSTERS, PRODUCT, contents, done, product, started

from fairdedup import stage_tasks, workers
from fairdedup.child_processes import ChildProcesses
from fairdedup.errors import FairdedupError, UserError
from fairdedup.progress import StageProgress
from fairdedup.stage_tasks import RETRIES, StageTasks, run_here
from fairdedup.tasks import Task, report_rows
from fairdedup.workers import SMALL_ROWS, Workers

GIB = 1 << 30
QUIET = StageProgress(quiet=True)


# Functions of tasks: a child imports this module to find them


def square(number: int) -> int:
    report_rows(1)
    return number * number


def name_process(*_: object) -> int:
    return os.getpid()


def die_first(file: Path, times: int, number: int) -> int:
    """Die as often as is asked for, then return the number."""
    with file.open("a") as log:
        log.write("x")
    if len(file.read_text()) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail(kind: str, file: Path) -> None:
    with file.open("a") as log:
        log.write("x")
    if kind == "user":
        raise UserError("the input is wrong: correct it")
    if kind == "local":

        class OddError(Exception):
            def __init__(self, one: int, other: int) -> None:
                super().__init__("odd")

        raise OddError(1, 2)
    raise RuntimeError("the device is on fire")


def take_memory(file: Path) -> str:
    if file.exists():
        return "careful"
    file.touch()
    hog = bytearray(b"x") * GIB
    time.sleep(60)
    return str(len(hog))


# One stage


@pytest.fixture
def children() -> Any:
    own = ChildProcesses(2, 16 * GIB)
    yield own
    own.close()


def test_tasks_return_in_order_and_count_their_rows_wherever_they_run(children):
    tasks = [Task((k,), rows=k + 1, name=f"t{k}") for k in range(5)]
    for run in (run_here, children.run):
        progress = StageProgress(quiet=True)
        assert run(StageTasks("any", square, tasks), progress) == [0, 1, 4, 9, 16]
        assert progress.rows == {"any": 15}


def test_the_costliest_task_starts_first_and_progress_counts_shards_if_rows_are_unknown():
    plan = StageTasks("any", square, [Task((), 10), Task((), 30), Task((), 20, work=99.0)])
    assert plan.order == [2, 1, 0] and plan.unit == "rows" and plan.likely_rows == 60
    plan = StageTasks("any", square, [Task((), 10), Task((), None, likely_rows=7), Task(())])
    assert plan.weights == [1, 1, 1] and plan.unit == "shards"
    assert plan.likely_rows == 17 + stage_tasks.LIKELY_ROWS


@pytest.mark.parametrize(
    ("kind", "message", "times"),
    [
        ("user", "the input is wrong: correct it", 1),
        ("other", "read of x.tar failed: RuntimeError: the device is on fire; once that is fixed, run the same command "
                  "to resume", 1 + RETRIES),
    ],
)  # fmt: skip
def test_an_error_names_its_task_and_is_tried_again_unless_it_is_the_user_s(kind, message, times, children, tmp_path):
    for run in (run_here, children.run):
        log = tmp_path / f"{run.__name__}.log"
        with pytest.raises(FairdedupError) as caught:
            run(StageTasks("read", fail, [Task((kind, log), name="x.tar")]), QUIET)
        assert str(caught.value) == message and isinstance(caught.value, UserError) == (kind == "user")
        assert len(log.read_text()) == times


def test_an_error_that_cannot_be_sent_arrives_as_its_text(children, tmp_path):
    with pytest.raises(FairdedupError, match=r"read task 0 failed: RuntimeError: OddError: odd;"):
        children.run(StageTasks("read", fail, [Task(("local", tmp_path / "log"))]), QUIET)


def test_a_task_whose_child_dies_is_done_by_another_and_given_up_in_one_line(children, tmp_path):
    tasks = [Task((tmp_path / f"{k}", RETRIES if k == 1 else 0, k), rows=300, name=f"{k}.tar") for k in range(3)]
    assert children.run(StageTasks("read", die_first, tasks), QUIET) == [0, 1, 2]
    deadly = [Task((tmp_path / "deadly", 99, 0), name="a.tar")]
    with pytest.raises(FairdedupError, match="read of a.tar killed every worker that tried it, probably"):
        children.run(StageTasks("read", die_first, deadly), QUIET)
    assert len((tmp_path / "deadly").read_text()) == 1 + RETRIES


def test_a_child_that_takes_too_much_memory_is_ended_before_the_machine_has_none(tmp_path):
    children = ChildProcesses(1, GIB)
    try:
        assert children.run(StageTasks("read", take_memory, [Task((tmp_path / "mark",))]), QUIET) == ["careful"]
    finally:
        children.close()


def test_children_stay_from_stage_to_stage_and_end_with_the_command(monkeypatch):
    monkeypatch.setattr(Workers, "_start", lambda self: pytest.fail("a cluster was started"))
    read = [Task((k,), rows=100, isolated=True) for k in range(3)]
    with Workers(QUIET) as own:
        own.expect_input()
        (child,) = {*own.submit("read", name_process, read[:1])}
        assert child in own.submit("read", name_process, read)
        assert own.submit("prototypes", name_process, read[:1]) == [child]
        assert own.submit("decide", name_process, [Task((), rows=SMALL_ROWS)]) == [os.getpid()]
        assert child != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


@pytest.mark.parametrize(
    "options", [{"scheduler": "tcp://127.0.0.1:1"}, {"workers": 1}, {"memory_limit": "2GiB"}, {}], ids=str
)
def test_what_the_user_names_is_honoured_and_a_large_stage_starts_a_cluster(options, monkeypatch):
    def start(own: Workers) -> None:
        raise FairdedupError("started")

    monkeypatch.setattr(Workers, "_start", start)
    with Workers(QUIET, **options) as own, pytest.raises(FairdedupError, match="started"):
        own.submit("decide", square, [Task((1,), rows=1 if options else SMALL_ROWS + 1)])


# Whole runs


def test_a_small_run_has_the_bytes_of_a_run_on_dask(embeddings, finished, prototypes, tmp_path, scheduler):
    done("run", embeddings, "--keep", 0.5, "--prototypes", prototypes, "--clusters", CLUSTERS, "--out",
         tmp_path / "run", "--quiet", "--scheduler", scheduler)  # fmt: skip
    assert product(tmp_path / "run") == product(finished)
    clusters = "clusters/centroids.npy"
    assert (tmp_path / "run" / clusters).read_bytes() == (finished / clusters).read_bytes()


def test_a_small_run_of_pictures_has_the_bytes_of_a_run_on_dask(shards, images_run, weights, tmp_path, monkeypatch):
    here: list[str] = []
    monkeypatch.setattr(workers, "run_here", lambda plan, shown: here.append(plan.stage) or run_here(plan, shown))
    done("run", shards, "--keep", 0.5, "--model", "fairdedup-small", "--pretrained", weights, "--out",
         tmp_path / "run", "--batch-size", 4, "--quiet")  # fmt: skip
    for folder in (*PRODUCT, "embeddings/img_emb"):
        assert contents(tmp_path / "run" / folder) == contents(images_run / folder), folder
    assert {"train k-means", "decide", "export"} < set(here)
    assert not {"device", "find copies", "embed", "prototypes"} & set(here), "a picture may end the command"


def test_a_small_prune_loads_neither_dask_nor_torch(again, tmp_path):
    code = f"""
import sys
from fairdedup import cli
code = cli.call(["prune", {str(again)!r}, "--keep", "0.4", "--rule", "semdedup", "--quiet"])
print(code, sorted({{"torch", "distributed", "dask", "open_clip", "faiss"}} & set(sys.modules)))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "0 []\n", ended.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_small_run_that_is_ended_says_so_leaves_no_process_and_resumes(number, shards, weights, images_run, tmp_path):
    words = ("run", shards, "--keep", 0.5, "--model", "fairdedup-small", "--pretrained", weights, "--out", "run",
             "--batch-size", 4)  # fmt: skip
    process = started(tmp_path, *words)
    while not (tmp_path / "run" / "config.json").is_file():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    ending = {
        signal.SIGINT: (1, "fairdedup: error: Interrupted. Run the same command to resume."),
        signal.SIGTERM: (143, "fairdedup: error: Ended by SIGTERM. Run the same command to resume."),
        signal.SIGKILL: (-9, ""),
    }[number]
    assert (process.returncode, "\n".join(err.splitlines()[-1:] if ending[1] else [])) == ending, err
    assert "Traceback" not in err
    for _ in range(100):
        if not is_alive(process.pid):
            break
        time.sleep(0.1)
    assert not is_alive(process.pid)
    if number == signal.SIGKILL:
        again = started(tmp_path, *words, "--quiet")
        assert again.communicate(timeout=120)[1] == "" and again.returncode == 0
        assert product(tmp_path / "run") == product(images_run)


def is_alive(group: int) -> bool:
    listed = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
    return any(line.split()[0] == str(group) and line.split()[1][0] != "Z" for line in listed.splitlines())


def test_the_times_of_a_small_run_add_up(embeddings, tmp_path):
    from runs import manifest

    progress = StageProgress(quiet=True)
    assert workers.Workers is Workers and progress.seconds == {}
    start = time.monotonic()
    done("run", embeddings, "--keep", 0.5, "--rule", "semdedup", "--out", tmp_path / "run", "--quiet")
    waited = time.monotonic() - start
    spent = sum(stage["seconds"] for stage in manifest(tmp_path / "run")["stages"].values())
    assert {"start", "other"} < set(manifest(tmp_path / "run")["stages"])
    assert 0.5 * waited < spent < waited
