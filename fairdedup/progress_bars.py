"""The bars of stages on a terminal: how their counts and rates look."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.progress import Progress, ProgressColumn, Task
from rich.text import Text

from fairdedup.errors import format_seconds
from fairdedup.stage_names import show_name


class StageBars(Progress):
    """Bars of the stages that run, under one line of those that have ended.

    Attributes
    ----------
    ended : dict of str to float
        Seconds of each stage that has ended, all passes together.
    """

    def __init__(self, *columns: ProgressColumn, console: Console) -> None:
        self.ended: dict[str, float] = {}
        super().__init__(*columns, console=console)

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield the line, and then the bars."""
        if self.ended:
            ended = list(self.ended.items())  # a copy, since another thread draws the bars
            parts = [f"{show_name(name)} {format_seconds(seconds)}" for name, seconds in ended]
            yield Text(f"done: {', '.join(parts)}", style="green")
        yield from super().get_renderables()


class RateColumn(ProgressColumn):
    """Rows per second if they are known, otherwise shards per second."""

    def render(self, task: Task) -> Text:
        """Return the rate of a bar as text."""
        rows = task.fields["rows"]
        speed = rows / task.elapsed if rows and task.elapsed else task.finished_speed or task.speed
        return Text(f"{format_rate(speed)}/s" if speed else "", style="cyan", no_wrap=True)


def format_rate(rate: float) -> str:
    """Return a rate, per second, with two digits at least."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
