"""Run a command of fairdedup whose tasks are called in a loop, in its own process, whatever their size.

python benchmarks/run_in_loop.py prune RUN --keep 0.5
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fairdedup import workers
from fairdedup.stage_tasks import StageTasks, run_here
from fairdedup.tasks import Task


class LoopWorkers(workers.Workers):
    """Workers that start neither Dask nor a child process."""

    def submit(self, stage: str, function: Callable[..., Any], tasks: Sequence[Task]) -> list[Any]:
        """Call the function for each task, and return the results in order."""
        return run_here(StageTasks(stage, function, tasks), self.progress) if tasks else []


def main() -> None:
    workers.Workers = LoopWorkers  # type: ignore[misc]
    from fairdedup.cli import main as run_command

    run_command()


if __name__ == "__main__":
    main()
