"""fairdedup every day, for Airflow 3: what arrived is embedded, decided beside all earlier days, audited and published.

wait ──▶ begin ──▶ embed ──▶ assign ──▶ prune ──▶ audit ──▶ gate ──▶ publish ──▶ Asset `fairdedup_kept`

Copy this one file into the DAGs folder; docs/airflow.md says how to install and what each parameter does. Airflow and
fairdedup live in virtual environments of their own, so nothing of fairdedup is imported here: a task is one command of
it, which goes on where a try before it was stopped. Tasks hand each other paths, never data.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import (
    Asset,
    BaseHook,
    BaseOperator,
    CronDataIntervalTimetable,
    ObjectStoragePath,
    Param,
    dag,
    task,
)
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSkipException,
)

KEPT = Asset("fairdedup_kept")
HOME = os.environ.get("FAIRDEDUP_HOME", "/srv/fairdedup")
START = datetime.fromisoformat(os.environ.get("FAIRDEDUP_START", "2026-01-01")).replace(tzinfo=UTC)
WAIT = timedelta(hours=24)  # for shards that come late
PUBLICATIONS = "publications.json"
USERS_MISTAKE = 2  # an exit code that no other try would change

RUN = "{{ params.runs }}/{{ ds }}"
REFITTED = "{{ params.runs }}/refit-{{ dag_run.run_after.strftime('%Y-%m-%dT%H%M%S') }}"
BEFORE = "{{ ti.xcom_pull('begin') }}"
CONFIG = {"config": "{{ params.config or '' }}"}

FRACTION = {"type": "number", "minimum": 0, "maximum": 1}
PARAMS = {
    "runs": Param(f"{HOME}/runs", "Run directories, one a day, which all Dask workers can write.", type="string"),
    "published": Param(f"{HOME}/published", "Kept IDs, and publications.json.", type="string"),
    "config": Param(None, "fairdedup's YAML: model, rule, prototypes ...", type=["null", "string"]),
    "keep": Param(0.5, "Fraction that the first run keeps.", **FRACTION | {"exclusiveMinimum": 0}),
    "labels": Param(None, "File of labels for the audit; none: soft membership.", type=["null", "string"]),
    "intersections": Param("none", "Attributes that the audit crosses, as gender,age; empty: all.", type="string"),
    "max_rejected": Param(0.05, "Gate: largest share of rejected rows.", **FRACTION),
    "max_drift": Param(0.25, "Gate: largest psi beyond chance.", type="number", minimum=0),
    "min_retention": Param(0.5, "Gate: smallest keep rate of a group to its attribute's largest.", **FRACTION),
    "dask_conn_id": Param("fairdedup_dask", "Connection of the Dask scheduler; none: a local cluster.", type="string"),
    "workers": Param(None, "Processes of the local cluster.", type=["null", "integer"], minimum=1),
}
DAILY = {
    "inbox": Param(f"{HOME}/inbox", "Where shards arrive, in a folder YYYY-MM-DD for each day.", type="string"),
    "marker": Param("_SUCCESS", "File in that folder which says: all shards are there.", type="string"),
    "at_most": Param(None, "Largest fraction that a later day keeps.", **FRACTION | {"type": ["null", "number"]}),
    "labels": Param(None, "File of labels in the day's folder, for the audit.", type=["null", "string"]),
}


class FairdedupOperator(BaseOperator):
    """Run one command of fairdedup, whose lines are the task's log.

    Parameters
    ----------
    command : str
        As ``embed``.
    arguments : sequence of str
        Templated.
    options : dict of str to str
        Templated; one that is empty is left out.
    on_dask : bool
        Whether the command takes ``--scheduler`` and ``--workers``.
    final : sequence of int
        Exit codes that no other try would change.
    """

    template_fields = ("arguments", "options")

    def __init__(
        self, *, command: str, arguments: Sequence[str], options: dict[str, str] | None = None, on_dask: bool = True,
        final: Sequence[int] = (USERS_MISTAKE,), **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self.command, self.arguments, self.options = command, list(arguments), options or {}
        self.on_dask, self.final = on_dask, tuple(final)

    def execute(self, context: Any) -> None:
        """Run it, and fail as it does."""
        self.run_command(self.command, self.arguments, self.options, context)

    def run_command(self, command: str, arguments: list[str], options: dict[str, str], context: Any) -> None:
        """Run a command of fairdedup; its last line, which says what is wrong, becomes the error."""
        words = [*shlex.split(os.environ.get("FAIRDEDUP_COMMAND", "fairdedup")), command, *arguments]
        if self.on_dask:
            options = options | self._dask(context["params"])
        words += [word for name, value in options.items() if value for word in (f"--{name}", value)]
        done = self.hook.run_command(words, env={**os.environ, "PYTHONUNBUFFERED": "1"})
        if done.exit_code in self.final:
            raise AirflowFailException(done.output)
        if done.exit_code:
            raise AirflowException(f"{command} ended with {done.exit_code}: {done.output}")

    @cached_property
    def hook(self) -> SubprocessHook:
        """What starts the command, in a process group of its own."""
        return SubprocessHook()

    def on_kill(self) -> None:
        """End the command, and its local workers, with the task."""
        self.hook.send_sigterm()

    def _dask(self, params: dict[str, Any]) -> dict[str, str]:
        try:
            known = BaseHook.get_connection(params["dask_conn_id"])
        except AirflowNotFoundException:
            self.log.info("no connection %r: a local Dask cluster", params["dask_conn_id"])
            return {"workers": str(params["workers"] or "")}
        scheme = "tls" if known.conn_type == "tls" else "tcp"
        return {"scheduler": f"{scheme}://{known.host}:{known.port or 8786}"}


class PublishOperator(FairdedupOperator):
    """Write a run's kept IDs, then the one file that says so, and tell the Asset's consumers.

    Parameters
    ----------
    name : str
        Templated: of the publication.
    published : str
        Templated: folder.
    before : str
        Templated: the run that was published last when this one was decided.
    begins : bool
        Whether this run does not go on from the one before, but replaces all.
    """

    template_fields = (*FairdedupOperator.template_fields, "name", "published", "before")

    def __init__(self, *, run: str, name: str, published: str, before: str, begins: bool = False, **kwargs: Any):
        super().__init__(command="export", arguments=[run], on_dask=False, outlets=[KEPT], **kwargs)
        self.name, self.published, self.before, self.begins = name, published, before, begins

    def execute(self, context: Any) -> str:
        """Publish, unless that has been done; return the path of the IDs."""
        run, folder = self.arguments[0], Path(self.published)
        mine = next((p for p in publications(folder) if p["run"] == run), None)
        if mine is None:
            folder.mkdir(parents=True, exist_ok=True)
            ids, aside = folder / f"{self.name}.txt", folder / f".{self.name}.txt"
            aside.unlink(missing_ok=True)
            self.run_command("export", [run], {"to": "txt", "dest": str(aside)}, context)
            done = json.loads((ObjectStoragePath(run) / "run.json").read_text())
            known = publications(folder)
            last = known[-1]["run"] if known else ""
            if last != self.before:
                aside.unlink()
                raise AirflowFailException(
                    f"{run} was decided against {self.before or 'nothing'}, and {last} has been published since: clear "
                    "this DAG run from its first task, so that it is decided against that"
                )
            os.replace(aside, ids)
            begins = self.begins or not self.before
            mine = {"name": self.name, "ids": str(ids), "run": run, "begins": begins, "counts": done["counts"]}
            aside = folder / f".{PUBLICATIONS}"
            aside.write_text(json.dumps([*known, mine], indent=1), encoding="utf-8")
            os.replace(aside, folder / PUBLICATIONS)  # only now it is published
        context["outlet_events"][KEPT].extra = mine
        return mine["ids"]


def publications(folder: Path) -> list[dict[str, Any]]:
    """Return what has been published, the first first."""
    file = folder / PUBLICATIONS
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []


def judged(run: str, labels: str) -> tuple[FairdedupOperator, FairdedupOperator]:
    """Return the tasks that audit a run, and that let it pass or not."""
    audit = FairdedupOperator(
        task_id="audit", command="audit", arguments=[run],
        options=CONFIG | {"labels": labels, "intersections": "{{ params.intersections }}"},
    )  # fmt: skip
    gate = FairdedupOperator(
        task_id="gate", command="gate", arguments=[run], on_dask=False, final=(1, USERS_MISTAKE),
        options={
            "max-rejected": "{{ params.max_rejected }}", "max-drift": "{{ params.max_drift }}",
            "min-retention": "{{ params.min_retention }}",
        },
    )  # fmt: skip
    return audit, gate


@dag(
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=START,
    catchup=True,  # a day that is left out would never be embedded
    max_active_runs=1,  # a day goes on from the one published before it
    params=PARAMS | DAILY,
    default_args={"retries": 2},
    tags=["fairdedup"],
    doc_md=__doc__,
)
def fairdedup_daily() -> None:
    """Decide a day's shards beside all that was published before."""

    @task.sensor(mode="reschedule", poke_interval=60, timeout=WAIT.total_seconds())
    def wait(params: dict[str, Any], ds: str) -> bool:
        return (ObjectStoragePath(params["inbox"]) / ds / params["marker"]).exists()

    @task
    def begin(params: dict[str, Any], ds: str) -> str:
        """Return the run to go on from, or an empty text on the first day; skip a day that has been published."""
        known = publications(Path(params["published"]))
        if any(publication["name"] == ds for publication in known):
            raise AirflowSkipException(f"{ds} has been published: nothing to do")
        return known[-1]["run"] if known else ""

    embed = FairdedupOperator(
        task_id="embed", command="embed", arguments=["{{ params.inbox }}/{{ ds }}"],
        # The gate judges rejects: a day that it stops can be looked at, and let pass.
        options=CONFIG | {"out": RUN, "against": BEFORE, "max-rejected": "1"},
    )  # fmt: skip
    assign = FairdedupOperator(
        task_id="assign", command="cluster", arguments=[RUN], options=CONFIG | {"against": BEFORE}
    )
    prune = FairdedupOperator(
        task_id="prune", command="prune", arguments=[RUN],
        options=CONFIG | {
            "keep": "{{ '' if ti.xcom_pull('begin') else params.keep }}",
            "at-most": "{{ params.at_most or '' if ti.xcom_pull('begin') else '' }}",
        },
    )  # fmt: skip
    audit, gate = judged(RUN, "{{ params.inbox ~ '/' ~ ds ~ '/' ~ params.labels if params.labels else '' }}")
    publish = PublishOperator(
        task_id="publish", run=RUN, name="{{ ds }}", published="{{ params.published }}", before=BEFORE,
        max_active_tis_per_dag=1,  # a backfill's runs are not counted by max_active_runs
    )  # fmt: skip
    wait() >> begin() >> embed >> assign >> prune >> audit >> gate >> publish


@dag(
    schedule=None, max_active_runs=1, params=PARAMS, default_args={"retries": 2}, tags=["fairdedup"],
)  # fmt: skip
def fairdedup_refit() -> None:
    """Cluster and decide all published days anew, where they have drifted, and publish that in their place."""

    @task
    def begin(params: dict[str, Any]) -> str:
        """Return the run that was published last."""
        known = publications(Path(params["published"]))
        if not known:
            raise AirflowFailException(f"nothing has been published in {params['published']}: nothing to refit")
        return known[-1]["run"]

    refit = FairdedupOperator(
        task_id="refit", command="refit", arguments=[BEFORE],
        options=CONFIG | {"keep": "{{ params.keep }}", "out": REFITTED, "max-rejected": "1"},
    )  # fmt: skip
    audit, gate = judged(REFITTED, "{{ params.labels or '' }}")
    publish = PublishOperator(
        task_id="publish", run=REFITTED, name=REFITTED.rpartition("/")[2], published="{{ params.published }}",
        before=BEFORE, begins=True,
    )  # fmt: skip
    begin() >> refit >> audit >> gate >> publish


fairdedup_daily()
fairdedup_refit()
