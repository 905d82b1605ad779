"""Runs fairdedup daily, for Airflow 3: a day's shards are embedded, pruned against earlier days, audited, published.

wait ──▶ begin ──▶ embed ──▶ assign ──▶ prune ──▶ audit ──▶ gate ──▶ publish ──▶ Asset `fairdedup_kept`

Copy this one file into the DAGs folder. docs/airflow.md explains the installation and each parameter. Airflow and
fairdedup have separate virtual environments, so nothing from fairdedup is imported here: each task runs one command of
it, which resumes the work of an earlier try. Tasks pass paths to each other, never data.
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
LONGEST_WAIT = timedelta(hours=24)  # for shards that arrive late
PUBLICATIONS = "publications.json"
EXIT_USER = 2  # an error of the user, which a retry does not fix

RUN = "{{ params.runs }}/{{ ds }}"
REFITTED = "{{ params.runs }}/refit-{{ dag_run.run_after.strftime('%Y-%m-%dT%H%M%S') }}"
PREVIOUS = "{{ ti.xcom_pull('begin') }}"
CONFIG = {"config": "{{ params.config or '' }}"}

FRACTION = {"type": "number", "minimum": 0, "maximum": 1}
PARAMS = {
    "runs": Param(f"{HOME}/runs", "Run directories, one per day, which all Dask workers can write.", type="string"),
    "published": Param(f"{HOME}/published", "Kept IDs, and publications.json.", type="string"),
    "config": Param(None, "fairdedup's YAML: model, rule, prototypes ...", type=["null", "string"]),
    "keep": Param(0.5, "Fraction that the first run keeps.", **FRACTION | {"exclusiveMinimum": 0}),
    "labels": Param(None, "File of labels for the audit; without it, soft membership.", type=["null", "string"]),
    "intersections": Param(
        "none", "Attributes that the audit crosses, such as gender,age; empty for all.", type="string"
    ),
    "max_rejected": Param(0.05, "Gate: largest share of rejected rows.", **FRACTION),
    "max_drift": Param(0.25, "Gate: largest psi beyond chance.", type="number", minimum=0),
    "min_retention": Param(0.5, "Gate: smallest keep rate of a group to its attribute's largest.", **FRACTION),
    "dask_conn_id": Param("fairdedup_dask", "Connection of the Dask scheduler; none: a local cluster.", type="string"),
    "workers": Param(None, "Processes of the local cluster.", type=["null", "integer"], minimum=1),
}
DAILY = {
    "inbox": Param(f"{HOME}/inbox", "Where shards arrive, in one folder YYYY-MM-DD per day.", type="string"),
    "marker": Param("_SUCCESS", "File in that folder that marks its shards as complete.", type="string"),
    "at_most": Param(None, "Largest fraction that a later day keeps.", **FRACTION | {"type": ["null", "number"]}),
    "labels": Param(None, "File of labels in the day's folder, for the audit.", type=["null", "string"]),
}


class FairdedupOperator(BaseOperator):
    """Run one command of fairdedup. Its output becomes the log of the task.

    Parameters
    ----------
    command : str
        Name of the command, for example ``embed``.
    arguments : sequence of str
        Its arguments. Templated.
    options : dict of str to str
        Its options, without ``--``. Templated; empty ones are left out.
    on_dask : bool
        Whether the command takes ``--scheduler`` and ``--workers``.
    final : sequence of int
        Exit codes after which the task is not retried.
    """

    template_fields = ("arguments", "options")

    def __init__(
        self,
        *,
        command: str,
        arguments: Sequence[str],
        options: dict[str, str] | None = None,
        on_dask: bool = True,
        final: Sequence[int] = (EXIT_USER,),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.command, self.arguments, self.options = command, list(arguments), options or {}
        self.on_dask, self.final = on_dask, tuple(final)

    def execute(self, context: Any) -> None:
        """Run the command, and fail if it fails."""
        self.run_command(self.command, self.arguments, self.options, context)

    def run_command(self, command: str, arguments: list[str], options: dict[str, str], context: Any) -> None:
        """Run a command of fairdedup. If it fails, the last line of its output becomes the error."""
        words = [*shlex.split(os.environ.get("FAIRDEDUP_COMMAND", "fairdedup")), command, *arguments]
        if self.on_dask:
            options = options | self._dask_options(context["params"])
        words += [word for name, value in options.items() if value for word in (f"--{name}", value)]
        done = self.hook.run_command(words, env={**os.environ, "PYTHONUNBUFFERED": "1"})
        if done.exit_code in self.final:
            raise AirflowFailException(done.output)
        if done.exit_code:
            raise AirflowException(f"{command} ended with {done.exit_code}: {done.output}")

    @cached_property
    def hook(self) -> SubprocessHook:
        """Hook that starts the command in its own process group."""
        return SubprocessHook()

    def on_kill(self) -> None:
        """Stop the command and its local workers, together with the task."""
        self.hook.send_sigterm()

    def _dask_options(self, params: dict[str, Any]) -> dict[str, str]:
        try:
            connection = BaseHook.get_connection(params["dask_conn_id"])
        except AirflowNotFoundException:
            self.log.info("no connection %r: a local Dask cluster", params["dask_conn_id"])
            return {"workers": str(params["workers"] or "")}
        scheme = "tls" if connection.conn_type == "tls" else "tcp"
        return {"scheduler": f"{scheme}://{connection.host}:{connection.port or 8786}"}


class PublishOperator(FairdedupOperator):
    """Write the kept ids of a run, add them to publications.json, and notify the consumers of the Asset.

    Parameters
    ----------
    run : str
        The run directory. Templated.
    name : str
        Name of the publication. Templated.
    published : str
        Folder to publish in. Templated.
    previous : str
        The newest published run at the time of this run's decisions, or an empty text. Templated.
    begins : bool
        Whether this run replaces all earlier publications instead of adding to them.
    """

    template_fields = (*FairdedupOperator.template_fields, "name", "published", "previous")

    def __init__(self, *, run: str, name: str, published: str, previous: str, begins: bool = False, **kwargs: Any):
        super().__init__(command="export", arguments=[run], on_dask=False, outlets=[KEPT], **kwargs)
        self.name, self.published, self.previous, self.begins = name, published, previous, begins

    def execute(self, context: Any) -> str:
        """Publish the run, unless it is published already, and return the path of the ids."""
        run, folder = self.arguments[0], Path(self.published)
        publication = next((p for p in read_publications(folder) if p["run"] == run), None)
        if publication is None:
            publication = self._publish(run, folder, context)
        context["outlet_events"][KEPT].extra = publication
        return publication["ids"]

    def _publish(self, run: str, folder: Path, context: Any) -> dict[str, Any]:
        """Write the ids and publications.json, each under a temporary name first, and return the publication."""
        folder.mkdir(parents=True, exist_ok=True)
        ids, temporary = folder / f"{self.name}.txt", folder / f".{self.name}.txt"
        temporary.unlink(missing_ok=True)
        self.run_command("export", [run], {"to": "txt", "dest": str(temporary)}, context)
        counts = json.loads((ObjectStoragePath(run) / "run.json").read_text())["counts"]
        known = read_publications(folder)
        last = known[-1]["run"] if known else ""
        if last != self.previous:
            temporary.unlink()
            raise AirflowFailException(
                f"{run} was decided against {self.previous or 'nothing'}, and {last} has been published since. Clear "
                "this DAG run from its first task, so that it is decided against that."
            )
        os.replace(temporary, ids)
        begins = self.begins or not self.previous
        publication = {"name": self.name, "ids": str(ids), "run": run, "begins": begins, "counts": counts}
        temporary = folder / f".{PUBLICATIONS}"
        temporary.write_text(json.dumps([*known, publication], indent=1), encoding="utf-8")
        os.replace(temporary, folder / PUBLICATIONS)  # from here on it is published
        return publication


def read_publications(folder: Path) -> list[dict[str, Any]]:
    """Return all publications, oldest first."""
    file = folder / PUBLICATIONS
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []


def make_audit_and_gate(run: str, labels: str) -> tuple[FairdedupOperator, FairdedupOperator]:
    """Return the task that audits a run, and the task that checks the audit against the gate's limits."""
    audit = FairdedupOperator(
        task_id="audit",
        command="audit",
        arguments=[run],
        options=CONFIG | {"labels": labels, "intersections": "{{ params.intersections }}"},
    )
    gate = FairdedupOperator(
        task_id="gate",
        command="gate",
        arguments=[run],
        on_dask=False,
        final=(1, EXIT_USER),
        options={
            "max-rejected": "{{ params.max_rejected }}",
            "max-drift": "{{ params.max_drift }}",
            "min-retention": "{{ params.min_retention }}",
        },
    )
    return audit, gate


@dag(
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=START,
    catchup=True,  # a skipped day would never be embedded
    max_active_runs=1,  # a day builds on the one published before it
    params=PARAMS | DAILY,
    default_args={"retries": 2},
    tags=["fairdedup"],
    doc_md=__doc__,
)
def fairdedup_daily() -> None:
    """Prune the shards of a day against everything that was published before."""

    @task.sensor(mode="reschedule", poke_interval=60, timeout=LONGEST_WAIT.total_seconds())
    def wait(params: dict[str, Any], ds: str) -> bool:
        return (ObjectStoragePath(params["inbox"]) / ds / params["marker"]).exists()

    @task
    def begin(params: dict[str, Any], ds: str) -> str:
        """Return the run to build on, or an empty text on the first day. Skip a day that has been published."""
        known = read_publications(Path(params["published"]))
        if any(publication["name"] == ds for publication in known):
            raise AirflowSkipException(f"{ds} has been published already")
        return known[-1]["run"] if known else ""

    embed = FairdedupOperator(
        task_id="embed",
        command="embed",
        arguments=["{{ params.inbox }}/{{ ds }}"],
        # The gate checks the rejected rows: a day that it stops can be inspected, and passed by hand.
        options=CONFIG | {"out": RUN, "against": PREVIOUS, "max-rejected": "1"},
    )
    assign = FairdedupOperator(
        task_id="assign", command="cluster", arguments=[RUN], options=CONFIG | {"against": PREVIOUS}
    )
    prune = FairdedupOperator(
        task_id="prune",
        command="prune",
        arguments=[RUN],
        options=CONFIG
        | {
            "keep": "{{ '' if ti.xcom_pull('begin') else params.keep }}",
            "at-most": "{{ params.at_most or '' if ti.xcom_pull('begin') else '' }}",
        },
    )
    labels = "{{ params.inbox ~ '/' ~ ds ~ '/' ~ params.labels if params.labels else '' }}"
    audit, gate = make_audit_and_gate(RUN, labels)
    publish = PublishOperator(
        task_id="publish",
        run=RUN,
        name="{{ ds }}",
        published="{{ params.published }}",
        previous=PREVIOUS,
        max_active_tis_per_dag=1,  # max_active_runs does not count the runs of a backfill
    )
    wait() >> begin() >> embed >> assign >> prune >> audit >> gate >> publish


@dag(schedule=None, max_active_runs=1, params=PARAMS, default_args={"retries": 2}, tags=["fairdedup"])
def fairdedup_refit() -> None:
    """Cluster and prune all published days again, after they have drifted, and publish the result in their place."""

    @task
    def begin(params: dict[str, Any]) -> str:
        """Return the run that was published last."""
        known = read_publications(Path(params["published"]))
        if not known:
            raise AirflowFailException(f"{params['published']} has no publications, so there is nothing to refit")
        return known[-1]["run"]

    refit = FairdedupOperator(
        task_id="refit",
        command="refit",
        arguments=[PREVIOUS],
        options=CONFIG | {"keep": "{{ params.keep }}", "out": REFITTED, "max-rejected": "1"},
    )
    audit, gate = make_audit_and_gate(REFITTED, "{{ params.labels or '' }}")
    publish = PublishOperator(
        task_id="publish",
        run=REFITTED,
        name=REFITTED.rpartition("/")[2],
        published="{{ params.published }}",
        previous=PREVIOUS,
        begins=True,
    )
    begin() >> refit >> audit >> gate >> publish


fairdedup_daily()
fairdedup_refit()
