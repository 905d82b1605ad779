"""How stages submit work: a task, the `Submit` protocol, and a helper that maps a function over groups.

Stages depend on this module and never on Dask. `workers.py` implements `Submit` on Dask, tests implement it by a loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

Result = TypeVar("Result")
Report = Callable[[int], None]
_report: ContextVar[Report | None] = ContextVar("report", default=None)


@dataclass(frozen=True)
class Task:
    """One call of a stage's function.

    Attributes
    ----------
    arguments : tuple
        Positional arguments of the call. They are sent to a worker, so they must be picklable.
    rows : int or None
        Number of rows that the task handles, for the progress bar; None if it is not known before.
    name : str
        Name of what the task handles, for error messages; if empty, they give the number of the task.
    work : float or None
        Relative cost of the task, if it is not proportional to `rows`. The costliest task starts first.
    memory : int
        Bytes that the task needs at least, beside the libraries; a worker that has less is refused.
    peak : int
        Bytes that a task on images needs for a moment, beside the libraries and a model; as for `memory`.
    isolated : bool
        Whether the task reads the input or loads an encoder. Damaged bytes may end its process, and torch is large, so
        it never runs in the process of the command.
    likely_rows : int or None
        Estimate of `rows` where they are unknown. It decides how the stage is run, never what comes out.
    """

    arguments: tuple[Any, ...]
    rows: int | None = None
    name: str = ""
    work: float | None = None
    memory: int = 0
    peak: int = 0
    isolated: bool = False
    likely_rows: int | None = None


class Submit(Protocol):
    """Runs the tasks of one stage, in any order and anywhere, and returns their results in order."""

    def __call__(self, stage: str, function: Callable[..., Result], tasks: Sequence[Task]) -> list[Result]:
        """Call ``function(*task.arguments)`` for each task.

        Parameters
        ----------
        stage : str
            Name that progress shows.
        function : callable
            A module-level function, so that it can be pickled.
        tasks : sequence of Task
            Arguments of the calls.

        Returns
        -------
        list
            One result for each task, in the order of the tasks.

        Raises
        ------
        FairdedupError
            If a task raises it, or fails for good; then the message names the task.
        """
        ...


class HasRows(Protocol):
    """Something that tasks map over: a group of shards, with a name and a number of rows."""

    @property
    def name(self) -> str:
        """Name for error messages."""
        ...

    @property
    def input(self) -> int:
        """Number of input rows."""
        ...


def map_groups(
    submit: Submit, stage: str, function: Callable[..., Result], groups: Sequence[HasRows], *shared: Any
) -> list[Result]:
    """Call ``function(group, *shared)`` for each group of shards and return the results in order.

    Parameters
    ----------
    submit : Submit
        Runs the tasks.
    stage : str
        Name that progress shows.
    function : callable
        A module-level function, so that it can be pickled.
    groups : sequence of HasRows
        Groups to map over.
    *shared
        Further arguments of every call.
    """
    return submit(stage, function, [Task((group, *shared), group.input, group.name) for group in groups])


def report_rows(rows: int) -> None:
    """Report, from inside of a task, that it has done so many more rows; without anybody to report to, do nothing."""
    report = _report.get()
    if report is not None and rows:
        report(rows)


@contextmanager
def use_report(report: Report) -> Iterator[None]:
    """Let tasks in the block report their rows to a function."""
    before = _report.set(report)
    try:
        yield
    finally:
        _report.reset(before)
