"""Prints the summary of a finished run: counts, eps, guarantees, what is left, the share of each group, and the ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fairdedup.errors import format_count, format_seconds, visible
from fairdedup.report.leftover_summary import describe_leftover, describe_removed, list_guarantees, list_remedies
from fairdedup.stage_names import show_name

if TYPE_CHECKING:
    from fairdedup.commands.sweep import BorderExample, SweptFraction
    from fairdedup.storage.manifest import LeftoverRecord, RunManifest


LONGEST_STAGES = 5  # that are named beside the total


def plain(value: object) -> str:
    """Return text from the data with its markup and control characters escaped, for rich and the terminal.

    Parameters
    ----------
    value : object
        Value from the data.
    """
    return escape(visible(str(value)))


def print_summary(
    manifest: RunManifest,
    out: Path,
    console: Console,
    page: Path | None = None,
    seconds: Mapping[str, float] | None = None,
) -> None:
    """Print the manifest of a finished run.

    Parameters
    ----------
    manifest : RunManifest
        Content of run.json.
    out : Path
        Run directory, as the user named it.
    console : Console
        Console to print on.
    page : Path or None
        Page about the run, if it was made.
    seconds : mapping of str to float, or None
        What each stage of the command took.
    """
    console.print()
    console.print(_facts_table(manifest, out))
    _print_guarantees(manifest, console)
    if manifest.leftover is not None:
        print_leftover(manifest.leftover, console, list_remedies(manifest), manifest.counts.readmitted)
    removed = describe_removed(manifest)
    if removed is not None:
        console.print(f"\n{removed}", markup=False, soft_wrap=True)
    if manifest.shares:
        console.print()
        console.print(_shares_table(manifest))
    for warning in manifest.warnings:
        console.print(f"[yellow]warning:[/] {plain(warning)}", soft_wrap=True)
    console.print(f"\nkept IDs: {plain(out / 'kept')}   every decision: {plain(out / 'decisions')}", soft_wrap=True)
    if seconds:
        console.print(describe_seconds(seconds), markup=False, soft_wrap=True)
    if page is not None:
        console.print(f"See it: {plain(page)}", soft_wrap=True)


def describe_seconds(seconds: Mapping[str, float]) -> str:
    """Return what a command took, and the stages that took most of it.

    Parameters
    ----------
    seconds : mapping of str to float
        Seconds of each stage.
    """
    longest = sorted(seconds.items(), key=lambda each: -each[1])[:LONGEST_STAGES]
    parts = [f"{show_name(name)} {format_seconds(each)}" for name, each in longest if each >= 0.05]
    rest = sum(seconds.values()) - sum(each for _, each in longest)
    if rest >= 0.05:
        parts.append(f"the rest {format_seconds(rest)}")
    total = f"took {format_seconds(sum(seconds.values()))}"
    return f"{total}: {', '.join(parts)}" if parts else total


def _facts_table(manifest: RunManifest, out: Path) -> Table:
    """Return a table of the numbers of a run, with a remark on each."""
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    for row in (*_count_rows(manifest, out), *_eps_rows(manifest), *_earlier_run_rows(manifest)):
        table.add_row(*row)
    within = manifest.config["prune"].get("within")  # earlier versions did not have it
    if within is not None:
        table.add_row("within", plain(within), "samples are compared only where this column has the same value")
    return table


def _count_rows(manifest: RunManifest, out: Path) -> Iterator[tuple[str, str, str]]:
    counts = manifest.counts
    readmitted = f", {counts.readmitted:,} of them re-admitted" if counts.readmitted else ""
    share = counts.kept / max(counts.valid, 1)
    yield "input", f"{counts.input:,}", format_count(manifest.clusters, "cluster")
    if manifest.input.column is not None:
        yield "column", plain(manifest.input.column), f"chosen in the {manifest.input.format} input"
    yield "kept", f"{counts.kept:,}", f"{share:.1%} of the valid rows{readmitted}"
    yield "removed", f"{counts.removed:,}", ""
    near = manifest.config["prune"].get("exclude_near")
    flags = "--where, --drop and --exclude-near" if near else "--where and --drop"
    excluded = f", {counts.excluded:,} of them by {flags}" if counts.excluded else ""
    reasons = f"reasons in {plain(out / 'rejected')}{excluded}" if counts.rejected else ""
    yield "rejected", f"{counts.rejected:,}", reasons
    for one in manifest.replaced:
        yield (
            "gone",
            f"{one.gone:,}",
            f"{one.gone_kept:,} of them were kept, {one.promoted:,} promoted instead",
        )


def _eps_rows(manifest: RunManifest) -> Iterator[tuple[str, str, str]]:
    eps = manifest.eps
    if eps is not None:
        yield "eps", f"{eps:.4f}", f"duplicates have a cosine above {1 - eps:.4f}"


def _earlier_run_rows(manifest: RunManifest) -> Iterator[tuple[str, str, str]]:
    runs = manifest.against
    if runs is None:
        return
    yield "against", f"{len(runs):,}", f"earlier {'runs' if len(runs) > 1 else 'run'}, whose kept samples stay"
    drift = manifest.drift
    if drift is not None:
        yield (
            "drift",
            f"{drift.psi:.3f}",
            f"stability index of the clusters, by chance {drift.psi_by_chance:.3f}; "
            f"mean similarity {drift.mean_similarity:.3f}, before {drift.mean_similarity_before:.3f}",
        )


def _print_guarantees(manifest: RunManifest, console: Console) -> None:
    options = manifest.config["prune"]
    console.print(f"\nguarantees (rule {options['rule']}, re-admitted rows aside)")
    remedy = "" if options["cover"] or manifest.replaced else " (add --cover)"
    for holds, sentence in list_guarantees(manifest):
        if holds:
            console.print(f"  [green]yes[/]  {sentence}", soft_wrap=True)
        else:
            console.print(f"  [yellow]not guaranteed:[/] {sentence}{remedy}", soft_wrap=True)


def print_leftover(found: LeftoverRecord, console: Console, remedies: Sequence[str] = (), readmitted: int = 0) -> None:
    """Print how many kept samples still have a duplicate, and what would leave fewer.

    Parameters
    ----------
    found : LeftoverRecord
        What was measured.
    console : Console
        Console to print on.
    remedies : sequence of str
        Sentences to print after it.
    readmitted : int
        Number of re-admitted samples of the run.
    """
    console.print()
    for line in (*describe_leftover(found, readmitted), *(f"  {line}" for line in remedies)):
        console.print(line, markup=False, soft_wrap=True)


def _shares_table(manifest: RunManifest) -> Table:
    """Return a table of each group's share of the valid and of the kept samples."""
    drawn = manifest.input.format == "sample"
    source = "groups as they were drawn" if drawn else "perceived groups, by the encoder's soft membership"
    table = Table(title=f"share of each group ({source})", title_justify="left", box=None, pad_edge=False)
    table.add_column("attribute")
    table.add_column("group")
    for name in ("before", "kept", "change"):
        table.add_column(name, justify="right")
    previous = None
    for line in manifest.shares:
        change = 100 * (line.kept - line.input)
        colour = "green" if change > 0.05 else "red" if change < -0.05 else "default"
        table.add_row(
            plain(line.attribute) if line.attribute != previous else "",
            plain(line.group),
            f"{line.input:.1%}",
            f"{line.kept:.1%}",
            f"[{colour}]{change:+.1f} points[/]",
        )
        previous = line.attribute
    return table


def print_sweep(lines: Sequence[SweptFraction], console: Console) -> None:
    """Print the kept count and the eps of each fraction.

    Parameters
    ----------
    lines : sequence of SweptFraction
        One for each fraction.
    console : Console
        Console to print on.
    """
    table = Table(box=None, pad_edge=False)
    for name in ("keep", "kept", "eps", "re-admitted"):
        table.add_column(name, justify="right")
    for line in lines:
        table.add_row(f"{line.keep:g}", f"{line.kept:,}", f"{line.eps:.4f}", f"{line.readmitted:,}")
    console.print(table)


def print_border_examples(examples: Sequence[BorderExample], console: Console) -> None:
    """Print the least similar pair that each eps links.

    Parameters
    ----------
    examples : sequence of BorderExample
        None prints nothing.
    console : Console
        Console to print on.
    """
    if examples:
        console.print("\nthe least similar pair at each eps: the first is removed for the second")
    for pair in examples:
        console.print(
            f"  eps {pair.eps:.4f}  cosine {pair.cosine:.4f}  {plain(pair.removed)}  {plain(pair.representative)}",
            soft_wrap=True,
        )
