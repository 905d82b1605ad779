"""Progress of each stage: bars with counts, rate and ETA on a terminal, otherwise plain lines or JSON lines.

It also records the rows and seconds of each stage, for run.json. It never writes to stdout.
"""

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
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from fairdedup.errors import format_count, visible
from fairdedup.progress_bars import RateColumn, StageBars, format_rate
from fairdedup.stage_names import show_name

LINE_EVERY = 5.0  # seconds between plain lines or JSON lines
SHORT_PASS = 1.0  # seconds; a shorter pass gets no line of its own
START, OTHER = "start", "other"  # names of the time before the first stage, and of the time between stages


class StageProgress:
    """Shows one stage after the other, and records their rows and seconds.

    Parameters
    ----------
    quiet : bool
        Show nothing.
    log_json : bool
        Write one JSON object per line, for schedulers, instead of bars and plain lines.
    started : float or None
        When the user's wait began, by the monotonic clock; None is now.

    Attributes
    ----------
    seconds : dict of str to float
        Seconds that each stage has taken so far; "start" and "other" are what is left of the time of the command.
    rows : dict of str to int
        Rows that each stage has handled.
    live : bool
        Whether bars are shown.
    """

    def __init__(self, quiet: bool = False, log_json: bool = False, *, started: float | None = None) -> None:
        self.log_json = log_json and not quiet
        self._warns_in_json = log_json
        self.console = Console(file=sys.stderr, quiet=quiet)
        self.seconds: dict[str, float] = {}
        self.rows: dict[str, int] = {}
        self.live = self.console.is_terminal and not quiet and not log_json
        self._bars = StageBars(
            SpinnerColumn(),
            TextColumn("{task.description:<19}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[unit]}"),
            RateColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._last_line = 0.0
        self._counted = time.monotonic() if started is None else started  # what was before is in `seconds`
        self._open: list[Stage] = []  # passes that run, each inside the one before it
        self._starting: TaskID | None = None  # the bar before the first stage

    def __enter__(self) -> StageProgress:
        if self.live:
            self._bars.start()
            if not self.seconds:
                self._starting = self._bars.add_task(show_name(START), total=1, unit="step", rows=0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self._bars.stop()

    def say(self, line: str) -> None:
        """Print one line above the bars, or log it as the event "message"."""
        if self.log_json:
            self.log("message", text=line)
            return
        console = self._bars.console if self.live else self.console
        console.print(visible(line), markup=False, highlight=False, soft_wrap=True)

    def warn(self, line: str) -> None:
        """Print or log one line that is needed even where nothing else is shown."""
        (StageProgress(log_json=self._warns_in_json) if self.console.quiet else self).say(line)

    def log(self, event: str, **values: Any) -> None:
        """Write an event as one line of JSON, if `log_json` is set.

        Parameters
        ----------
        event : str
            Name of the event.
        **values
            Its values, which JSON can represent.
        """
        if self.log_json:
            line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **values}
            sys.stderr.write(json.dumps(line) + "\n")
            sys.stderr.flush()

    def stage(self, name: str, total: int, unit: str = "rows", *, is_listed: bool = True) -> Stage:
        """Return a context that counts and times one pass of a stage.

        Parameters
        ----------
        name : str
            Name of the stage.
        total : int
            Number of rows, shards or tasks of the pass.
        unit : str
            What is counted: "rows", "shards", "task" or "workers".
        is_listed : bool
            Whether it has plain lines and progress events too, not only a bar.
        """
        return Stage(self, name, total, unit, is_listed)

    def count_other(self) -> None:
        """Add the time since the last stage to that of "other", or to that of "start" before the first stage."""
        if self._open:  # it belongs to the stage that runs
            return
        now = time.monotonic()
        name = OTHER if self.seconds else START
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._counted
        self._counted = now
        if name == START:
            self.log("stage", stage=name, seconds=round(self.seconds[name], 3), ok=True)
        if self.live and self.seconds[name] >= 0.05:
            self._bars.ended[name] = self.seconds[name]
        if self._starting is not None:
            self._bars.remove_task(self._starting)
            self._starting = None

    def open_stage(self, stage: Stage) -> None:
        """Note that a stage begins, maybe inside another."""
        self.count_other()
        self._open.append(stage)

    def count_stage(self, stage: Stage) -> float:
        """Add the time of a stage that ends now, less that of stages inside it, and return it in seconds."""
        self._counted = time.monotonic()
        whole = self._counted - stage.started
        self._open.remove(stage)
        if self._open:
            self._open[-1].inside += whole
        seconds = whole - stage.inside
        self.seconds[stage.name] = self.seconds.get(stage.name, 0.0) + seconds
        return seconds

    def fold(self, stage: Stage) -> None:
        """Show a stage that has ended as a part of one line, in place of its bar."""
        if self.live and stage.name in self._tasks:
            self._bars.update(self._tasks[stage.name], visible=False)
            self._bars.ended[stage.name] = self.seconds[stage.name]

    def show(self, stage: Stage) -> None:
        """Show the progress of a pass of a stage."""
        if self.live:
            self._show_bar(stage)
            return
        if not stage.is_listed:
            return
        now = time.monotonic()
        elapsed = now - stage.started
        if now - self._last_line < LINE_EVERY and (stage.done < stage.total or elapsed < SHORT_PASS):
            return
        self._last_line = now
        rate = stage.done / elapsed if elapsed > 0 else 0.0
        if self.log_json:
            self._log_progress(stage, rate)
        else:
            self._print_line(stage, elapsed, rate)

    def _show_bar(self, stage: Stage) -> None:
        fields: dict[str, Any] = {"unit": stage.label, "rows": stage.rows}
        if stage.name not in self._tasks:
            self._tasks[stage.name] = self._bars.add_task(show_name(stage.name), total=stage.total, **fields)
        elif not stage.done and not stage.rows:  # each pass has its own clock
            self._bars.reset(self._tasks[stage.name], total=stage.total, visible=True, **fields)
            self._bars.ended.pop(stage.name, None)
        self._bars.update(self._tasks[stage.name], completed=stage.done, total=stage.total, **fields)

    def _log_progress(self, stage: Stage, rate: float) -> None:
        self.log(
            "progress",
            stage=stage.name,
            done=stage.done,
            total=stage.total,
            unit=stage.unit,
            rows=stage.rows or None,
            rate=round(rate, 3),
            eta_seconds=round((stage.total - stage.done) / rate, 1) if rate else None,
        )

    def _print_line(self, stage: Stage, elapsed: float, rate: float) -> None:
        running = rate and stage.done < stage.total
        remaining = f"ETA {(stage.total - stage.done) / rate:,.0f} s" if running else f"{elapsed:,.1f} s"
        speed, unit = (stage.rows / elapsed, "rows") if stage.rows and elapsed else (rate, stage.unit)
        counts = f"{stage.done:,}/{stage.total:,} {stage.label}"
        self.say(f"{show_name(stage.name)}: {counts}, {format_rate(speed)} {unit}/s, {remaining}")


class Stage:
    """One pass of a stage: a context that counts rows or shards, and measures time.

    Attributes
    ----------
    done, total : int
        Number of rows or shards that are done, and of all.
    unit : str
        What is counted: "rows", "shards" or "task".
    is_listed : bool
        Whether it has plain lines and progress events too, not only a bar.
    rows : int
        If shards are counted: number of rows that are done, including those of unfinished shards.
    started : float
        Start of the pass, by the monotonic clock, in seconds.
    inside : float
        Seconds of stages that ran inside this one.
    """

    def __init__(self, progress: StageProgress, name: str, total: int, unit: str, is_listed: bool = True) -> None:
        self.progress, self.name, self.total, self.unit, self.is_listed = progress, name, total, unit, is_listed
        self.done = 0
        self.rows = 0
        self.inside = 0.0
        self.started = time.monotonic()

    def __enter__(self) -> Stage:
        self.progress.open_stage(self)
        self.started = time.monotonic()
        if self.progress.live:
            self.progress.show(self)
        return self

    @property
    def label(self) -> str:
        """Text after the counts: the unit, and for shards the number of rows that are done."""
        return f"{self.unit}, {format_count(self.rows, 'row')}" if self.rows else self.unit

    def report(self, rows: int) -> None:
        """Count rows of a task that is still running."""
        if self.unit == "rows":
            self.advance(rows)
        else:
            self.rows += rows
            self.progress.show(self)

    def advance(self, number: int) -> None:
        """Count rows or shards as done, up to the total."""
        self.done = min(self.total, self.done + number)
        self.progress.show(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self.done < self.total:
            self.advance(self.total - self.done)
        seconds = self.progress.count_stage(self)
        if kind is None:
            self.progress.fold(self)
        self.progress.log(
            "stage",
            stage=self.name,
            done=self.done,
            total=self.total,
            unit=self.unit,
            seconds=round(seconds, 3),
            ok=kind is None,
        )
        if self.unit == "rows":
            self.progress.rows[self.name] = max(self.progress.rows.get(self.name, 0), self.done)
