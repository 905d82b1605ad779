"""pipelines/airflow_dag.py runs in a real Airflow, in a separate environment: days arrive, fail, drift, are published.

Slow tests are marked soak; `make test` checks for import errors and publishes one run.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from runs import contents, done, manifest, product, sample, table, write_tar

ROOT = Path(__file__).parents[2]
PINS = ROOT / "constraints-airflow.txt"
PAGE = ROOT / "docs" / "airflow.md"
DAG_FILE = ROOT / "pipelines" / "airflow_dag.py"
DAYS = ("2026-03-01", "2026-03-02", "2026-03-03")
NEXT, STRANGE = "2026-03-04", "2026-03-05"
TASKS = ("wait", "begin", "embed", "assign", "prune", "audit", "gate", "publish")
ROWS, BROKEN, CLUSTERS = 240, 5, 6
LOOSE = {"min_retention": 0.3, "max_drift": 1, "labels": "labels.parquet"}

soak = pytest.mark.soak


@pytest.fixture(scope="session")
def airflow() -> Path:
    """Return the folder of Airflow's programs, installed again if the pins have changed."""
    folder = ROOT / ".airflow-venv"
    stamp = folder / "installed"
    if not stamp.is_file() or stamp.read_bytes() != PINS.read_bytes():
        venv.create(folder, clear=True, with_pip=True)
        python, what = folder / "bin" / "python", ("--quiet", "--no-deps", "-r", PINS)
        by_uv = [sys.executable, "-m", "uv", "pip", "install", "--python", python, *what]
        if subprocess.run(by_uv).returncode:  # it knows pip's index by no setting of pip's
            subprocess.run([python, "-m", "pip", "install", "--disable-pip-version-check", *what], check=True)
        stamp.write_bytes(PINS.read_bytes())  # last: an installation that was stopped is made again
    return folder / "bin"


@dataclass
class Deployment:
    """An Airflow with its own database and folders."""

    programs: Path
    home: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def published(self) -> Path:
        return self.home / "published"

    @property
    def runs(self) -> Path:
        return self.home / "runs"

    @property
    def inbox(self) -> Path:
        return self.home / "inbox"

    @property
    def env(self) -> dict[str, str]:
        own = {
            "AIRFLOW_HOME": str(self.home / "airflow"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.home / "dags"), "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "1",
            "FAIRDEDUP_HOME": str(self.home), "FAIRDEDUP_COMMAND": f"{sys.executable} -m fairdedup",
            "PYTHONPATH": str(ROOT), "PATH": f"{self.programs}:{os.environ['PATH']}", "NO_COLOR": "1",
        }  # fmt: skip
        return {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")} | own | self.settings

    def call(self, *words: object, code: int | None = 0) -> str:
        """Run a program of the environment and return what it printed."""
        shown = subprocess.run(
            [str(self.programs / str(words[0])), *map(str, words[1:])],
            cwd=self.home, env=self.env, capture_output=True, text=True, timeout=900,
        )  # fmt: skip
        assert code is None or shown.returncode == code, shown.stdout[-6000:] + shown.stderr[-6000:]
        return shown.stdout + shown.stderr

    def day(self, day: str, code: int | None = 0, **conf: Any) -> str:
        """Run a logical date by `airflow dags test` and return its log."""
        asked = LOOSE | {"config": str(self.home / "fairdedup.yaml")} | conf
        return self.call("airflow", "dags", "test", "fairdedup_daily", day, "-c", json.dumps(asked), code=code)

    def states(self, dag: str = "fairdedup_daily") -> dict[str, tuple[str, int]]:
        """Return state and number of tries of each task of the newest run."""
        with sqlite3.connect(f"file:{self.home}/airflow/airflow.db?mode=ro", uri=True) as database:
            rows = database.execute(
                "SELECT task_id, t.state, try_number FROM task_instance t JOIN dag_run r USING (dag_id, run_id) "
                "WHERE dag_id = ? AND r.id = (SELECT max(id) FROM dag_run WHERE dag_id = ?)",
                (dag, dag),
            )
            return {task: (state, tries) for task, state, tries in rows}

    @property
    def publications(self) -> list[dict[str, Any]]:
        file = self.published / "publications.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []


@pytest.fixture(scope="module")
def deploy(airflow: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Deployment]:
    """Make an Airflow that knows the DAG, and the consumer of docs/airflow.md."""

    def make(**settings: str) -> Deployment:
        made = Deployment(airflow, tmp_path_factory.mktemp("airflow"), settings)
        (made.home / "dags").mkdir()
        shutil.copy(DAG_FILE, made.home / "dags")
        consumer = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
        assert consumer is not None
        (made.home / "dags" / "consumer.py").write_text(consumer[1], encoding="utf-8")
        return made

    return make


IMPORTED = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
dags = {name: [task.task_id for task in dag.topological_sort()] for name, dag in bag.dags.items()}
print("found", json.dumps([bag.import_errors, dags]))
"""


def test_the_dags_have_no_import_errors_and_the_tasks_are_in_order(deploy):
    made = deploy()
    shown = made.call("python", "-c", IMPORTED, made.home / "dags")
    errors, dags = json.loads(shown.partition("\nfound ")[2].splitlines()[0])
    assert errors == {}
    assert dags["fairdedup_daily"] == list(TASKS)
    assert dags["fairdedup_refit"] == ["begin", "refit", "audit", "gate", "publish"]
    assert set(dags) == {"fairdedup_daily", "fairdedup_refit", "train"}


PUBLISH = """
import json, sys
sys.path.insert(0, sys.argv[1])
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.execution_time.context import OutletEventAccessors
from airflow_dag import KEPT, PublishOperator
for run, name, before in json.loads(sys.argv[3]):
    events = OutletEventAccessors()
    task = PublishOperator(task_id="publish", run=run, name=name, published=sys.argv[2], previous=before)
    try:
        path = task.execute({"params": {}, "outlet_events": events})
        print("found", json.dumps([path, events[KEPT].extra]))
    except AirflowFailException as error:
        print("found", json.dumps(str(error)))
"""


def test_a_run_is_published_once_and_only_after_the_one_it_was_decided_against(deploy, finished, tmp_path):
    made = deploy()
    made.published.mkdir()
    (made.published / ".monday.txt").write_text("half a file of a try that was killed")
    run = str(finished)
    shutil.copytree(finished, tmp_path / "other")
    wanted = [
        [run, "monday", ""], [run, "monday", ""], [str(tmp_path / "other"), "tuesday", ""],
        [str(tmp_path / "other"), "tuesday", run],
    ]  # fmt: skip
    shown = made.call("python", "-c", PUBLISH, made.home / "dags", made.published, json.dumps(wanted))
    first, again, refused, second = [
        json.loads(line.removeprefix("found ")) for line in shown.splitlines() if line.startswith("found ")
    ]
    assert first == again and first[0] == str(made.published / "monday.txt")
    assert first[1] == {
        "name": "monday", "ids": first[0], "run": run, "begins": True, "counts": manifest(finished)["counts"],
    }  # fmt: skip
    assert shown.count("'export'") == 3  # the second try had nothing left to do
    assert "was decided against nothing, and " + run + " has been published since" in refused
    assert second[1]["begins"] is False and made.publications == [first[1], second[1]]
    kept = table(finished / "kept")["id"].tolist()
    assert Path(first[0]).read_text(encoding="utf-8").splitlines() == kept
    assert sorted(p.name for p in made.published.iterdir()) == ["monday.txt", "publications.json", "tuesday.txt"]


# Days


@pytest.fixture(scope="module")
def arrived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an inbox with four days of drawn pictures, as WebDataset shards."""
    inbox = tmp_path_factory.mktemp("arrived")
    for seed, day in enumerate((*DAYS, NEXT)):
        done("sample", inbox / day, "--rows", ROWS, "--seed", seed, "--quiet")
        (inbox / day / "_SUCCESS").touch()
    return inbox


@pytest.fixture(scope="module")
def begun(deploy, arrived, scheduler) -> Callable[..., Deployment]:
    """Make an Airflow with a database, the days' shards, and a connection to the Dask scheduler."""

    def make(**settings: str) -> Deployment:
        made = deploy(**settings)
        shutil.copytree(arrived, made.inbox)
        (made.home / "fairdedup.yaml").write_text(f"clusters: {CLUSTERS}\n")
        made.call("airflow", "db", "migrate")
        host, port = scheduler.removeprefix("tcp://").split(":")
        made.call("airflow", "connections", "add", "fairdedup_dask", "--conn-type", "generic", "--conn-host", host,
                  "--conn-port", port)  # fmt: skip
        return made

    return make


@pytest.fixture(scope="module")
def line(begun) -> tuple[Deployment, list[str]]:
    """Return an Airflow after three days, and the log of each day."""
    made = begun()
    return made, [made.day(day) for day in DAYS]


@soak
def test_three_days_publish_what_fairdedup_by_hand_gives(line, arrived, scheduler, tmp_path):
    made, _ = line
    dask = ("--scheduler", scheduler, "--quiet")
    runs = [tmp_path / day for day in DAYS]
    done("run", arrived / DAYS[0], "--keep", 0.5, "--clusters", CLUSTERS, "--out", runs[0], *dask)
    for before, run in zip(runs, runs[1:], strict=False):
        done("run", arrived / run.name, "--against", before, "--out", run, *dask)
    assert [(p["name"], p["begins"]) for p in made.publications[:3]] == [(d, d == DAYS[0]) for d in DAYS]
    for run, publication in zip(runs, made.publications[:3], strict=True):
        own = made.runs / run.name
        assert product(own)["kept"] == product(run)["kept"] and publication["run"] == str(own)
        ids = Path(publication["ids"]).read_text(encoding="utf-8").splitlines()
        assert ids == table(run / "kept")["id"].tolist() and len(ids) > 50
        counts = publication["counts"]
        assert counts == manifest(own)["counts"] == manifest(run)["counts"]
        assert counts["kept"] + counts["removed"] + counts["rejected"] == counts["input"] == ROWS + BROKEN
    assert manifest(made.runs / DAYS[2])["against"] == [str(made.runs / day) for day in DAYS[:2]]


@soak
def test_logs_show_the_commands_and_what_they_say(line):
    made, logs = line
    for day, log in zip(DAYS, logs, strict=True):
        assert f"'embed', '{made.inbox / day}'" in log and "--scheduler" in log
        assert f"kept IDs: {made.runs / day}/kept" in log and "rejected 0.02041 is within --max-rejected 0.05" in log
        assert "retention of " in log and " by skin_tone " in log
    assert "drift: none" in logs[0] and "drift (psi beyond chance)" in logs[1]


@soak
def test_a_published_day_is_not_run_again(line):
    made, _ = line
    before = contents(made.published), contents(made.runs / DAYS[1])
    log = made.day(DAYS[1], keep=0.2)
    assert f"{DAYS[1]} has been published already" in log
    assert {state for state, _ in made.states().values()} == {"success", "skipped"}
    assert (contents(made.published), contents(made.runs / DAYS[1])) == before


@soak
def test_the_commands_of_the_page_are_airflow_s_own(deploy):
    page = PAGE.read_text(encoding="utf-8").splitlines()
    asked = [shlex.split(line) for line in page if line.startswith("airflow ")]
    assert {tuple(words[1:3]) for words in asked} == {
        ("connections", "add"), ("dags", "trigger"), ("backfill", "create"),
    }  # fmt: skip
    made = deploy()
    made.call("airflow", "db", "migrate")
    made.call("airflow", "dags", "reserialize")
    for words in asked:
        made.call(*words)


@soak
def test_no_import_errors_by_airflow_s_own_command(line):
    made, _ = line
    assert "No data found" in made.call("airflow", "dags", "list-import-errors")
    (made.home / "dags" / "broken.py").write_text("import airflow_dagg  # DAG")
    try:
        assert "No module named 'airflow_dagg'" in made.call("airflow", "dags", "list-import-errors", "-l", code=1)
    finally:
        (made.home / "dags" / "broken.py").unlink()


@soak
def test_a_closed_gate_publishes_nothing_and_the_day_can_be_let_pass(line):
    made, _ = line
    before = contents(made.published)
    log = made.day(NEXT, code=None, max_rejected=0.02, min_retention=1)
    said = rf"the gate is closed for {made.runs / NEXT}: rejected 0.02041 is over --max-rejected 0.02; retention of '"
    assert said in log and re.search(r"retention of '[a-z-]+' by age 0\.\d+ is under --min-retention 1\b", log)
    assert made.states() == dict.fromkeys(TASKS, ("success", 1)) | {
        "gate": ("failed", 1), "publish": ("upstream_failed", 0),
    }  # fmt: skip
    assert contents(made.published) == before
    made.day(NEXT)
    assert made.states() == dict.fromkeys(TASKS, ("success", 1))
    assert made.publications[-1]["name"] == NEXT and made.publications[:-1] == json.loads(before["publications.json"])


@soak
def test_a_day_of_another_kind_drifts_and_continues_from_the_refitted_runs(line):
    made, _ = line
    members: dict[str, bytes] = {}
    for k in range(80):
        members |= sample(f"strange-{k}", 10 * k)
    write_tar(made.inbox / STRANGE / "a.tar", members)
    (made.inbox / STRANGE / "_SUCCESS").touch()
    before = made.publications
    alone = {"labels": None, "dask_conn_id": "nobody", "workers": 1}
    log = made.day(STRANGE, code=None, max_drift=0.25, **alone)
    assert re.search(r"drift \(psi beyond chance\) [\d.]+ is over --max-drift 0.25", log)
    assert "no connection 'nobody': a local Dask cluster" in log and "'--workers', '1'" in log
    assert re.search(r"embed: 1/1 task, 80 rows, [\d.,]+ rows/s", log)  # it took over a second to start
    assert made.publications == before
    (made.home / "refit.yaml").write_text("id: shard/key")  # the days draw the same IDs
    conf = {"keep": 0.4, "min_retention": 0.3, "config": str(made.home / "refit.yaml")}
    made.call("airflow", "dags", "test", "fairdedup_refit", "-c", json.dumps(conf))
    refitted = made.publications[-1]
    assert made.publications[:-1] == before and refitted["begins"] and refitted["name"].startswith("refit-")
    assert refitted["counts"]["input"] == sum(p["counts"]["valid"] for p in before)
    assert len(Path(refitted["ids"]).read_text().splitlines()) == refitted["counts"]["kept"]
    made.day(STRANGE, max_drift=50, labels=None, config=None)
    assert manifest(made.runs / STRANGE)["against"] == [refitted["run"]]
    assert made.publications[-1]["name"] == STRANGE and not made.publications[-1]["begins"]


KILLER = """
import os, signal, subprocess, sys, time
from pathlib import Path
home, *words = sys.argv[1:]
command = [sys.executable, "-m", "fairdedup", *words]
once = Path(home) / f"killed-{words[0]}"
if once.exists():
    os.execv(sys.executable, command)
run = Path(words[words.index("--out") + 1] if words[0] == "embed" else words[1])
signs = {"embed": "embeddings/img_emb", "cluster": "clusters", "prune": "decisions", "audit": "report"}
sign = signs.get(words[0], "-")
child = subprocess.Popen(command)
while child.poll() is None and not (run / sign).exists():
    time.sleep(0.01)
child.kill()
child.wait()
once.touch()
os.kill(os.getpid(), signal.SIGKILL)
"""


@soak
def test_commands_that_are_killed_are_tried_again_and_end_with_the_same_bytes(line, begun, tmp_path):
    (tmp_path / "killer.py").write_text(KILLER)
    made = begun(FAIRDEDUP_COMMAND=f"{sys.executable} {tmp_path / 'killer.py'} {tmp_path}")
    log = made.day(DAYS[0])
    assert made.states() == dict.fromkeys(TASKS[2:], ("success", 2)) | dict.fromkeys(TASKS[:2], ("success", 1))
    assert "embed ended with -9" in log
    assert len(list(tmp_path.glob("killed-*"))) == 6
    other, _ = line
    assert product(made.runs / DAYS[0]) == product(other.runs / DAYS[0])
    name = f"{DAYS[0]}.txt"
    assert (made.published / name).read_bytes() == (other.published / name).read_bytes()
    assert [p["name"] for p in made.publications] == [DAYS[0]]


# The real scheduler


LOST = """
import os, signal, sys
from pathlib import Path
home, *words = sys.argv[1:]
once = Path(home) / "lost"
if words[0] == "embed" and not once.exists():
    once.touch()
    os.kill(os.getppid(), signal.SIGKILL)
os.execv(sys.executable, [sys.executable, "-m", "fairdedup", *words])
"""


@pytest.fixture
def running(begun, arrived, tmp_path) -> Iterator[tuple[Deployment, str]]:
    """Start scheduler, DAG processor and API server; yesterday's shards are in the inbox, without their marker."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    yesterday = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%d")
    (tmp_path / "lost.py").write_text(LOST)
    made = begun(
        FAIRDEDUP_COMMAND=f"{sys.executable} {tmp_path / 'lost.py'} {tmp_path}", FAIRDEDUP_START=yesterday,
        AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="False",
        AIRFLOW__CORE__EXECUTOR="LocalExecutor", AIRFLOW__CORE__PARALLELISM="2", AIRFLOW__API__PORT=str(port),
        AIRFLOW__API__HOST="127.0.0.1", AIRFLOW__CORE__EXECUTION_API_SERVER_URL=f"http://127.0.0.1:{port}/execution/",
    )  # fmt: skip
    shutil.copytree(arrived / DAYS[0], made.inbox / yesterday)
    (made.inbox / yesterday / "_SUCCESS").unlink()
    parts = []
    with open(made.home / "log", "wb") as log:
        try:
            for part in ("api-server", "dag-processor", "scheduler"):
                parts.append(subprocess.Popen(
                    [made.programs / "airflow", part], cwd=made.home, env=made.env, stdout=log, stderr=log,
                    start_new_session=True,
                ))  # fmt: skip
            yield made, yesterday
        finally:
            for part in parts:
                os.killpg(part.pid, signal.SIGKILL)
                part.wait()


def wait_for(what: Callable[[], bool], made: Deployment, seconds: int = 600) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, made.states() | made.states("train")
        time.sleep(1)


@soak
def test_the_scheduler_runs_a_day_once_its_shards_are_there_then_the_consumer(running, arrived, scheduler, tmp_path):
    """The process of the task `embed` is killed, and its command continues alone while the next try begins."""
    made, yesterday = running
    wait_for(lambda: made.states().get("wait", ("", 0))[0] == "up_for_reschedule", made)
    assert not made.runs.exists()
    (made.inbox / yesterday / "_SUCCESS").touch()
    wait_for(lambda: made.states().get("publish", ("", 0))[0] == "success", made)
    wait_for(lambda: made.states("train").get("files", ("", 0))[0] == "success", made)
    assert made.states() == dict.fromkeys(TASKS, ("success", 1)) | {"embed": ("success", 2)}
    done("run", arrived / DAYS[0], "--keep", 0.5, "--out", tmp_path / "run", "--scheduler", scheduler, "--quiet")
    assert product(made.runs / yesterday) == product(tmp_path / "run")
    shown = made.call("airflow", "dags", "list-runs", "fairdedup_daily", "-o", "json")
    (run,) = json.loads(shown[shown.index("[{") :])
    assert run["state"] == "success" and run["run_id"].startswith("scheduled__")
    assert [p["name"] for p in made.publications] == [yesterday]
    logs = "".join(p.read_text() for p in (made.home / "airflow" / "logs").rglob("*.log"))
    assert str(made.published / f"{yesterday}.txt") in logs and "kept samples: 120" in logs
    with sqlite3.connect(f"file:{made.home}/airflow/airflow.db?mode=ro", uri=True) as database:
        (read,) = database.execute("SELECT value FROM xcom WHERE dag_id = 'train'").fetchone()
        (extra,) = database.execute("SELECT extra FROM asset_event").fetchone()
    assert str(made.published / f"{yesterday}.txt") in read
    assert json.loads(extra) == made.publications[0]
