"""`fairdedup plan`: parses the size of a run, and prints what it needs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from fairdedup.cli.help_format import ExampleCommand
from fairdedup.cli.options import option
from fairdedup.cli.value_types import MODEL_NAME, Bytes, Count, NumberOrAuto, RuleName

if TYPE_CHECKING:
    from rich.table import Table

    from fairdedup.planning.run_needs import RunNeeds

UNKNOWN = "not measured"
UNITS = ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
GIB = 1 << 30


@click.command(
    cls=ExampleCommand,
    examples=[
        "fairdedup plan --rows 1e8 --dim 512 --workers 64",
        "fairdedup plan --rows 400e6 --dim 512 --gpus 8 --images-per-second 700 --image-bytes 20kB",
    ],
)
@option("--rows", required=True, type=Count(), metavar="N", help="Number of images or vectors, such as 400e6.")
@option("--dim", type=click.IntRange(1), default=512, show_default=True, help="Values of a vector.")
@option("--keep", type=float, default=0.5, show_default=True, help="Fraction of the rows to keep.")
@option("--clusters", type=NumberOrAuto(int), help="Number of clusters.  [default: auto]")
@option("--shards", type=click.IntRange(1), help="Shards of the input.  [default: one for 10,000 rows]")
@option(
    "--workers",
    type=click.IntRange(1),
    help="Processes.  [default: one for each GPU, else one for each core of this machine]",
)
@option("--gpus", type=click.IntRange(1), help="GPUs that embed images.  [default: the input is ready embeddings]")
@option(
    "--images-per-second",
    type=float,
    help="Images that a GPU, or without --gpus a worker, embeds in a second.",
)
@option("--image-bytes", type=Bytes(), metavar="SIZE", help="Mean size of an image file, such as 20kB.")
@option(
    "--read-rate", type=Bytes(), metavar="SIZE", help="Bytes of images that a worker reads in a second, such as 200MB."
)
@option("--model", type=MODEL_NAME, help="Model that embeds the images, for the memory of a worker.")
@option("--batch-size", type=click.IntRange(1), default=32, show_default=True, help="Images in one forward pass.")
@option("--rule", type=RuleName(), help="Rule that decides; those with concepts have passes of their own.")
@option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def plan(clusters: int | str | None, as_json: bool, **flags: Any) -> None:
    """Print what a run of a given size needs: hours, disk, reads, writes and memory of each stage.

    Hours are scaled from a measured run; docs/sizing.md says how. Nothing is read, and nothing is started.
    """
    from fairdedup.commands.plan import PlanOptions, plan_run

    needs = plan_run(PlanOptions(clusters=clusters or "auto", **flags))
    if as_json:
        click.echo(json.dumps(asdict(needs), indent=2))
        return
    from rich.console import Console

    console = Console(width=110, highlight=False)
    size = needs.size
    console.print(
        f"{size.rows:,} rows of {size.dim:,} values in {size.shards:,} shards, {size.clusters:,} clusters, "
        f"{size.kept:,} rows kept\n"
    )
    console.print(_needs_table(needs))
    console.print()
    for line in list_notes(needs):
        console.print(line, soft_wrap=True)


def format_bytes(number: float | None) -> str:
    """Return an amount of bytes, such as "1.2 TB"."""
    if number is None:
        return UNKNOWN
    for size, unit in UNITS:
        if number >= size:
            return f"{number / size:.{0 if number >= 100 * size else 1}f} {unit}"
    return f"{number:.0f} B" if number else "0"


def format_hours(hours: float | None) -> str:
    """Return hours with two digits after the point below 10."""
    if hours is None:
        return UNKNOWN
    if hours < 0.005:
        return "under 0.01"
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.1f}" if hours >= 10 else f"{hours:.2f}"


def list_notes(needs: RunNeeds) -> list[str]:
    """Return what a reader of the table must know.

    Parameters
    ----------
    needs : RunNeeds
        What the run needs.
    """
    notes = [
        f"Hours and memory are scaled from {needs.source} ({needs.hardware}); yours differ with the processor.",
        f"The command itself holds at least {needs.conductor / GIB:.1f} GiB.",
        "Disk, reads and writes leave out what the input has beside vectors and ids (captions, URLs).",
    ]
    if needs.not_measured:
        notes.append(f"Hours that were not measured are not in the total: {', '.join(needs.not_measured)}.")
    notes += [f"{stage.name}: {stage.source}." for stage in needs.stages if "--" in stage.source and not stage.hours]
    return notes


def _needs_table(needs: RunNeeds) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("stage", "workers", "hours", "disk", "read", "written", "memory a worker"):
        table.add_column(name, justify="left" if name == "stage" else "right", no_wrap=True)
    for stage in needs.stages:
        memory = UNKNOWN if stage.memory is None else f"{stage.memory / GIB:.1f} GiB"
        amounts = map(format_bytes, (stage.disk, stage.read, stage.written))
        table.add_row(stage.name, f"{stage.workers:,}", format_hours(stage.hours), *amounts, memory)
    total = f"{'over ' if needs.not_measured else ''}{format_hours(needs.hours)}"
    table.add_row("total", "", total, format_bytes(needs.disk), "", "", "")
    return table
