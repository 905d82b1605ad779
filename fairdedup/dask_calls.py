"""What a Dask worker calls: the function of a task, within the fence of its command, which hears of finished rows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from fairdedup.errors import LastingError, UserError
from fairdedup.storage.fence import Fence, check_fence, use_fence
from fairdedup.tasks import use_report

ROWS_TOPIC = "fairdedup-rows"  # Dask topic on which a running task reports how many rows are done


def call_on_worker(fence: Fence | None, function: Callable[..., Any], *args: Any) -> Any:
    """Return the result of a function, or an error that it raises and that would last: Dask would retry such a task.

    Parameters
    ----------
    fence : Fence or None
        The right of the command to write to its run directory; the function writes nothing after that has ended.
    function : callable
        A module-level function.
    *args
        Its arguments.
    """
    try:
        with use_fence(fence), use_report(_report_to_scheduler):
            check_fence()  # a task that waited in the queue of a lost worker does not even start
            return function(*args)
    except (UserError, LastingError) as error:
        return error


def _report_to_scheduler(rows: int) -> None:
    from distributed import get_worker

    with suppress(ValueError):  # not on a worker
        worker = get_worker()
        worker.log_event(ROWS_TOPIC, {"rows": rows, "task": str(worker.get_current_task())})
