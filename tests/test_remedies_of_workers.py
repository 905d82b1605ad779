"""What is advised when a command was stopped, or has no workers, works."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import threading
import time

import pytest
from remedies import InProcess, call
from runs import contents

from fairdedup import worker_watch, workers
from fairdedup.errors import UserError
from fairdedup.progress import StageProgress
from fairdedup.tasks import Task

RUN = "run t.parquet --rule semdedup --eps 0.1 --clusters 4 --out r"
REAL = workers.Workers  # the fixture `place` replaces it


class Stopped(InProcess):
    """Stops at the decision, by Ctrl-C or by an error."""

    by: type[BaseException] = KeyboardInterrupt

    def submit(self, stage, function, tasks):
        if stage == "decide":
            raise self.by
        return super().submit(stage, function, tasks)


@pytest.mark.parametrize("restart", ["", " --restart"])
def test_a_run_that_was_interrupted_is_resumed_by_the_command_that_the_message_names(place, monkeypatch, restart):
    assert call(f"{RUN.replace('0.1', '0.2')}").code == 0 or restart
    with monkeypatch.context() as patched:
        patched.setattr(workers, "Workers", Stopped)
        shown = call(f"{RUN}{restart or '2'}")
    found = re.search(r"Interrupted\. Run the same command( without --restart)? to resume\.", shown.err)
    assert shown.code == 1 and found and bool(found[1]) == bool(restart), shown.err
    out = place / ("r" if restart else "r2")
    before = contents(out / "embeddings")
    stamp = (out / "embeddings" / "img_emb" / "img_emb_0.npy").stat().st_mtime_ns
    assert call(f"{RUN}{'' if restart else '2'}").code == 0
    assert contents(out / "embeddings") == before
    assert (out / "embeddings" / "img_emb" / "img_emb_0.npy").stat().st_mtime_ns == stamp, "it was embedded again"


def test_no_message_of_a_restart_advises_to_clear_what_is_done(place, monkeypatch):
    class Lost(Stopped):
        by = workers.FairdedupError

        def submit(self, stage, function, tasks):
            try:
                return super().submit(stage, function, tasks)
            except workers.FairdedupError:
                raise workers.FairdedupError(f"the scheduler was lost: {workers.RESUME}") from None

    with monkeypatch.context() as patched:
        patched.setattr(workers, "Workers", Lost)
        assert call(f"{RUN} --restart").err.endswith("run the same command without --restart to resume\n")
        assert call(RUN).err.endswith("run the same command to resume\n")
    assert call(RUN).code == 0


def test_a_run_that_is_finished_says_what_starts_it_again(place, capsys):
    from runs import command

    words = RUN.split()
    assert command(*words).code == 0
    found = re.search(r"nothing to do \((--restart) clears it\)", command(*words).err)
    assert found and "embed" in command(*words, found[1]).err
    (place / "r" / "kept" / "part-00000.parquet").unlink()
    assert "is missing or damaged: it will be written again" in command(*words).err
    assert (place / "r" / "kept" / "part-00000.parquet").is_file()


def test_a_scheduler_that_does_not_answer_can_be_started_or_left_out(monkeypatch, scheduler):
    monkeypatch.setattr(workers, "ANSWER_WITHIN", 0.5)
    with StageProgress(quiet=True) as progress:
        with REAL(progress, "tcp://127.0.0.1:9") as lost, pytest.raises(UserError) as caught:
            lost.submit("any", abs, [Task((-1,))])
        assert "Start `dask scheduler` or leave --scheduler out." in str(caught.value)
        with REAL(progress, scheduler) as found:
            assert found.submit("any", abs, [Task((-1,))]) == [1]


def test_a_scheduler_without_workers_goes_on_when_the_worker_of_the_message_has_started(tmp_path, monkeypatch):
    from distributed import LocalCluster

    said: list[str] = []

    class Heard(StageProgress):
        def warn(self, line: str) -> None:
            said.append(line)

    monkeypatch.setattr(worker_watch, "SAY_AFTER", 0.5)

    with (
        LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as empty,
        Heard(quiet=True) as progress,
    ):  # type: ignore[no-untyped-call]
        address, results = empty.scheduler_address, []

        def work() -> None:
            with REAL(progress, address) as waiting:
                results.extend(waiting.submit("any", abs, [Task((-1,))]))

        thread = threading.Thread(target=work)
        thread.start()
        for _ in range(200):
            if said:
                break
            time.sleep(0.05)
        command = re.search(r"waiting for workers at \S+: start one by `dask (worker \S+)`", said[0])
        assert command, said
        words = [sys.executable, "-m", "dask", *shlex.split(command[1]), "--no-dashboard", "--nthreads", "1"]
        worker = subprocess.Popen([*words, "--no-nanny"], cwd=tmp_path, stderr=subprocess.DEVNULL)
        try:
            thread.join(60)
        finally:
            worker.terminate()
            worker.wait()
    assert results == [1]


def test_the_hard_limit_on_open_files_that_the_message_names_is_enough(tmp_path):
    """Each shell is one that starts with this hard limit: no user may raise it in a shell."""
    words = f"{sys.executable} -c 'from fairdedup.open_files import allow_files; allow_files()'"
    refused = subprocess.run(["bash", "-c", f"ulimit -n 100; {words}"], capture_output=True, text=True, cwd=tmp_path)
    found = re.search(r"Raise the hard limit \(`ulimit -Hn`\) to ([0-9]+)", refused.stderr)
    assert refused.returncode and found, refused.stderr
    subprocess.run(["bash", "-c", f"ulimit -Sn 100; ulimit -Hn {found[1]}; {words}"], check=True, cwd=tmp_path)
