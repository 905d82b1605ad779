"""Live progress of each stage: bars with counts, rate and ETA on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

LINE_EVERY = 5.0  # seconds between plain lines of one stage


class _Rate(ProgressColumn):
    """Rows a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} rows/s" if speed else "", style="cyan")


class StageProgress:
    """Shows one stage after the other, and remembers what each took.

    Parameters
    ----------
    quiet : bool
        Show nothing.

    Attributes
    ----------
    seconds : dict of str to float
        Of each stage so far.
    rows : dict of str to int
        Rows that each stage went over.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(file=sys.stderr, quiet=quiet)
        self.seconds: dict[str, float] = {}
        self.rows: dict[str, int] = {}
        self.live = self.console.is_terminal and not quiet
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<14}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} rows"),
            _Rate(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self._tasks: dict[str, Any] = {}
        self._last = 0.0

    def __enter__(self) -> StageProgress:
        if self.live:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self._bars.stop()

    def say(self, line: str) -> None:
        """Print one line beside the bars."""
        (self._bars.console if self.live else self.console).print(line, markup=False, highlight=False)

    def stage(self, name: str, total: int) -> Stage:
        """Begin a stage, or another pass of one."""
        return Stage(self, name, total)

    def show(self, name: str, done: int, total: int, started: float) -> None:
        """Show how far a pass of a stage is."""
        if self.live:
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name, total=total)
            self._bars.update(self._tasks[name], completed=done, total=total)
            return
        now = time.monotonic()
        if done < total and now - self._last < LINE_EVERY:
            return
        self._last = now
        elapsed = now - started
        rate = done / elapsed if elapsed > 0 else 0.0
        left = f", ETA {(total - done) / rate:,.0f} s" if rate and done < total else f", {elapsed:,.1f} s"
        self.say(f"{name}: {done:,}/{total:,} rows, {rate:,.0f} rows/s{left}")


class Stage:
    """One pass of a stage; a context that counts rows and time."""

    def __init__(self, progress: StageProgress, name: str, total: int) -> None:
        self.progress, self.name, self.total = progress, name, total
        self.done = 0
        self.started = time.monotonic()

    def __enter__(self) -> Stage:
        if self.progress.live:
            self.progress.show(self.name, 0, self.total, self.started)
        return self

    def advance(self, rows: int) -> None:
        """Count rows as done."""
        self.done += rows
        self.progress.show(self.name, self.done, self.total, self.started)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        spent = time.monotonic() - self.started
        self.progress.seconds[self.name] = self.progress.seconds.get(self.name, 0.0) + spent
        self.progress.rows[self.name] = max(self.progress.rows.get(self.name, 0), self.done)
