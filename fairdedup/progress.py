"""Live progress of each stage: bars with counts, rate and ETA on a terminal, plain lines or JSON lines otherwise."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
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
    TimeRemainingColumn,
)
from rich.text import Text

from fairdedup.errors import visible

LINE_EVERY = 5.0  # seconds between plain lines
SHORT_PASS = 1.0  # seconds under which a pass is not worth a line of its own


class _Rate(ProgressColumn):
    """Rows a second, where they are known, else shards."""

    def render(self, task: Task) -> Text:
        rows = task.fields["rows"]
        speed = rows / task.elapsed if rows and task.elapsed else task.finished_speed or task.speed
        return Text(f"{_short(speed)}/s" if speed else "", style="cyan", no_wrap=True)


def _short(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


class StageProgress:
    """Shows one stage after the other, and remembers what each took.

    Parameters
    ----------
    quiet : bool
        Show nothing.
    log_json : bool
        Write a JSON object a line, for what schedules the run, in place of bars and plain lines.

    Attributes
    ----------
    seconds : dict of str to float
        Of each stage so far.
    rows : dict of str to int
        Rows that each stage went over.
    """

    def __init__(self, quiet: bool = False, log_json: bool = False) -> None:
        self.log_json = log_json and not quiet
        self.console = Console(file=sys.stderr, quiet=quiet)
        self.seconds: dict[str, float] = {}
        self.rows: dict[str, int] = {}
        self.live = self.console.is_terminal and not quiet and not log_json
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<14}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[unit]}"),
            _Rate(),
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
        if self.log_json:
            self.log("message", text=line)
            return
        (self._bars.console if self.live else self.console).print(
            visible(line), markup=False, highlight=False, soft_wrap=True
        )

    def log(self, event: str, **values: Any) -> None:
        """Write an event as one line of JSON, where JSON is asked for."""
        if self.log_json:
            line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **values}
            sys.stderr.write(json.dumps(line) + "\n")
            sys.stderr.flush()

    def stage(self, name: str, total: int, unit: str = "rows") -> Stage:
        """Begin a stage, or another pass of one, over a total of rows or shards."""
        return Stage(self, name, total, unit)

    def show(self, stage: Stage) -> None:
        """Show how far a pass of a stage is."""
        name, done, total = stage.name, stage.done, stage.total
        if self.live:
            fields: dict[str, Any] = {"unit": stage.counted, "rows": stage.rows}
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name, total=total, **fields)
            elif not done and not stage.rows:  # another pass has a clock of its own
                self._bars.reset(self._tasks[name], total=total, **fields)
            self._bars.update(self._tasks[name], completed=done, total=total, **fields)
            return
        now = time.monotonic()
        elapsed = now - stage.started
        if now - self._last < LINE_EVERY and (done < total or elapsed < SHORT_PASS):
            return
        self._last = now
        rate = done / elapsed if elapsed > 0 else 0.0
        if self.log_json:
            eta = round((total - done) / rate, 1) if rate else None
            self.log("progress", stage=name, done=done, total=total, unit=stage.unit, rows=stage.rows or None,
                     rate=round(rate, 3), eta_seconds=eta)  # fmt: skip
            return
        left = f"ETA {(total - done) / rate:,.0f} s" if rate and done < total else f"{elapsed:,.1f} s"
        speed = f"{_short(stage.rows / elapsed)} rows/s" if stage.rows and elapsed else f"{_short(rate)} {stage.unit}/s"
        self.say(f"{name}: {done:,}/{total:,} {stage.counted}, {speed}, {left}")


class Stage:
    """One pass of a stage; a context that counts rows or shards, and time."""

    def __init__(self, progress: StageProgress, name: str, total: int, unit: str) -> None:
        self.progress, self.name, self.total, self.unit = progress, name, total, unit
        self.done = 0
        self.rows = 0  # of shards that are not done yet, too
        self.started = time.monotonic()

    def __enter__(self) -> Stage:
        if self.progress.live:
            self.progress.show(self)
        return self

    @property
    def counted(self) -> str:
        """What is counted; of shards also the rows that are known to be done."""
        return f"{self.unit}, {self.rows:,} rows" if self.rows else self.unit

    def report(self, rows: int) -> None:
        """Count rows of a task that is still at work."""
        if self.unit == "rows":
            self.advance(rows)
        else:
            self.rows += rows
            self.progress.show(self)

    def advance(self, number: int) -> None:
        """Count rows or shards as done, never past the total."""
        self.done = min(self.total, self.done + number)
        self.progress.show(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self.done < self.total:
            self.advance(self.total - self.done)
        spent = time.monotonic() - self.started
        self.progress.seconds[self.name] = self.progress.seconds.get(self.name, 0.0) + spent
        self.progress.log("stage", stage=self.name, done=self.done, total=self.total, unit=self.unit,
                          seconds=round(spent, 3), ok=kind is None)  # fmt: skip
        if self.unit == "rows":
            self.progress.rows[self.name] = max(self.progress.rows.get(self.name, 0), self.done)
