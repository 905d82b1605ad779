"""How stages hand work to whoever runs it: a task, the `Submit` protocol, and one helper that maps over groups.

Stages know this module alone. `workers.py` implements `Submit` on Dask; tests implement it by a loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

Result = TypeVar("Result")
ROWS_TOPIC = "fairdedup-rows"  # Dask topic on which a running task reports the rows that it has done


@dataclass(frozen=True)
class Task:
    """One call of a stage's function.

    Attributes
    ----------
    arguments : tuple
        Positional arguments of the call. They travel to a worker, so they must be picklable.
    rows : int or None
        Rows that the task handles, for the progress bar; None where only the work itself tells.
    name : str
        What the task is about, for the error message of a task that fails; empty to number it.
    work : float or None
        Cost relative to the other tasks, if it is not proportional to `rows`. The costliest task starts first.
    """

    arguments: tuple[Any, ...]
    rows: int | None = None
    name: str = ""
    work: float | None = None


class Submit(Protocol):
    """Runs the tasks of one stage, in any order and anywhere, and returns their results in order."""

    def __call__(self, stage: str, function: Callable[..., Result], tasks: Sequence[Task]) -> list[Result]:
        """Call ``function(*task.arguments)`` for each task.

        Parameters
        ----------
        stage : str
            The name that progress shows.
        function : callable
            A module-level function, so that it can be pickled.
        tasks : sequence of Task

        Returns
        -------
        list
            One result for each task, in the order of the tasks.

        Raises
        ------
        FairdedupError
            The error that a task raised on purpose, or one that names the task that failed for good.
        """
        ...


class HasRows(Protocol):
    """Something that tasks map over: a group of shards, with a name and a number of rows."""

    @property
    def name(self) -> str:
        """What error messages call it."""
        ...

    @property
    def input(self) -> int:
        """Number of input rows."""
        ...


def map_groups(
    submit: Submit, stage: str, function: Callable[..., Result], groups: Sequence[HasRows], *shared: Any
) -> list[Result]:
    """Call ``function(group, *shared)`` for each group of shards and return the results in order."""
    return submit(stage, function, [Task((group, *shared), group.input, group.name) for group in groups])
