"""The tasks of one stage together: in which order they start, how progress counts them, what an error says.

`run_here` runs them one after the other in this process. `workers.py` and `child_processes.py` run them elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

from fairdedup.errors import FairdedupError, LastingError, UserError
from fairdedup.progress import Stage, StageProgress
from fairdedup.tasks import Task, use_report

RETRIES = 2  # how often a task is tried again after an error that may pass, or after its worker was lost
RESUME = "run the same command to resume"
LIKELY_ROWS = 1_000  # of a task of which nothing is known


@dataclass(frozen=True)
class StageTasks:
    """The calls of one function in a stage.

    Attributes
    ----------
    stage : str
        Name that progress shows.
    function : callable
        A module-level function.
    tasks : sequence of Task
        At least one.
    """

    stage: str
    function: Callable[..., Any]
    tasks: Sequence[Task]

    @cached_property
    def weights(self) -> list[int]:
        """What progress counts for each task: its rows, or 1 if the rows of any task are unknown."""
        known = [task.rows for task in self.tasks if task.rows is not None]
        return known if len(known) == len(self.tasks) else [1] * len(self.tasks)

    @property
    def unit(self) -> str:
        """What the weights count: "rows", "shards" or "task"."""
        if all(task.rows is not None for task in self.tasks):
            return "rows"
        return "shards" if len(self.tasks) > 1 else "task"

    @cached_property
    def order(self) -> list[int]:
        """Numbers of the tasks, the costliest first."""
        work = [w if task.work is None else task.work for task, w in zip(self.tasks, self.weights, strict=True)]
        return sorted(range(len(self.tasks)), key=lambda k: -work[k])

    @property
    def is_isolated(self) -> bool:
        """Whether the tasks must not run in the process of the command."""
        return any(task.isolated for task in self.tasks)

    @property
    def likely_rows(self) -> int:
        """Rows of all tasks, estimated where they are unknown."""
        return sum(
            next((rows for rows in (task.rows, task.likely_rows) if rows is not None), LIKELY_ROWS)
            for task in self.tasks
        )

    def name(self, k: int) -> str:
        """Return the name of a task for messages."""
        return f"{self.stage} of {self.tasks[k].name}" if self.tasks[k].name else f"{self.stage} task {k}"

    def show(self, progress: StageProgress) -> Stage:
        """Return the context that shows the progress of the stage."""
        return progress.stage(self.stage, sum(self.weights), self.unit)

    def raise_error(self, k: int, error: BaseException) -> NoReturn:
        """Raise the error of a task, with the name of the task unless its message explains itself."""
        if isinstance(error, FairdedupError):
            raise error
        raise FairdedupError(
            f"{self.name(k)} failed: {type(error).__name__}: {error}; once that is fixed, {RESUME}"
        ) from error

    def raise_deaths(self, k: int) -> NoReturn:
        """Raise the error for a task that no process survives."""
        raise FairdedupError(
            f"{self.name(k)} killed every worker that tried it, probably because memory ran out: use fewer "
            f"--workers, a smaller --batch-size or smaller shards, then {RESUME}"
        )


class TaskRows:
    """Counts a task in the progress of its stage: the rows that it reports, and at its end those that are left.

    Parameters
    ----------
    shown : Stage
        Progress of the stage.
    weight : int
        Weight of the task.
    """

    def __init__(self, shown: Stage, weight: int) -> None:
        self.shown, self.left = shown, weight

    def report(self, rows: int) -> None:
        """Count rows of the task while it runs."""
        if self.shown.unit == "rows":
            rows = min(rows, self.left)
            self.left -= rows
        self.shown.report(rows)

    def finish(self) -> None:
        """Count what the task has not reported."""
        if self.left:
            self.shown.advance(self.left)
            self.left = 0


def run_here(stage: StageTasks, progress: StageProgress) -> list[Any]:
    """Run the tasks of a stage one after the other in this process, and return their results in order.

    Raises
    ------
    FairdedupError
        If a task fails; the message names it.
    """
    results: list[Any] = [None] * len(stage.tasks)
    with stage.show(progress) as shown:
        for k in stage.order:
            rows = TaskRows(shown, stage.weights[k])
            try:
                with use_report(rows.report):
                    results[k] = call_again(stage.function, *stage.tasks[k].arguments)
            except Exception as error:
                stage.raise_error(k, error)
            rows.finish()
    return results


def call_again(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of a function; one that fails is tried again, unless that would not help."""
    for _ in range(RETRIES):
        try:
            return function(*arguments)
        except (UserError, LastingError):
            raise
        except Exception:  # a store that did not answer may do so now
            continue
    return function(*arguments)
