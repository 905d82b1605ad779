"""What is printed when a run is finished: counts, eps, guarantees, who gained, and where the ids are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fairdedup.errors import visible

_GUARANTEES = {
    "no_two_kept_are_duplicates": "no two kept samples of a cluster are duplicates",
    "every_removed_has_a_kept_representative": "every removed sample has a kept duplicate",
}


def plain(value: object) -> str:
    """Return text from the data, so that neither rich nor the terminal finds markup in it."""
    return escape(visible(str(value)))


def print_summary(manifest: dict[str, Any], out: Path, console: Console) -> None:
    """Print the manifest of a finished run.

    Parameters
    ----------
    manifest : dict
        Content of run.json.
    out : Path
        The run directory, as the user named it.
    console : Console
        Where it is printed.
    """
    console.print()
    console.print(_facts_table(manifest, out))
    _print_guarantees(manifest, console)
    if manifest["shares"]:
        console.print()
        console.print(_shares_table(manifest))
    for warning in manifest["warnings"]:
        console.print(f"[yellow]warning:[/] {plain(warning)}")
    console.print(f"\nkept IDs: {plain(out / 'kept')}   every decision: {plain(out / 'decisions')}", soft_wrap=True)


def _facts_table(manifest: dict[str, Any], out: Path) -> Table:
    """Return the numbers of a run, each with a remark."""
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    for row in (*_count_rows(manifest, out), *_eps_rows(manifest), *_earlier_run_rows(manifest)):
        table.add_row(*row)
    return table


def _count_rows(manifest: dict[str, Any], out: Path) -> Iterator[tuple[str, str, str]]:
    counts = manifest["counts"]
    readmitted = f", {counts['readmitted']:,} of them re-admitted" if counts["readmitted"] else ""
    share = counts["kept"] / max(counts["valid"], 1)
    yield "input", f"{counts['input']:,}", f"{manifest['clusters']:,} clusters"
    yield "kept", f"{counts['kept']:,}", f"{share:.1%} of the valid rows{readmitted}"
    yield "removed", f"{counts['removed']:,}", ""
    near = manifest["config"]["prune"].get("exclude_near")
    flags = "--where, --drop and --exclude-near" if near else "--where and --drop"
    excluded = f", {counts['excluded']:,} of them by {flags}" if counts.get("excluded") else ""
    reasons = f"reasons in {plain(out / 'rejected')}{excluded}" if counts["rejected"] else ""
    yield "rejected", f"{counts['rejected']:,}", reasons
    for one in manifest.get("replaced", []):
        yield (
            "gone",
            f"{one['gone']:,}",
            f"{one['gone_kept']:,} of them were kept, {one['promoted']:,} promoted instead",
        )


def _eps_rows(manifest: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    eps = manifest["eps"]
    if eps is not None:
        yield "eps", f"{eps:.4f}", f"duplicates have a cosine above {1 - eps:.4f}"


def _earlier_run_rows(manifest: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    runs = manifest.get("against")
    if runs is None:
        return
    yield "against", f"{len(runs):,}", f"earlier {'runs' if len(runs) > 1 else 'run'}, whose kept samples stay"
    drift = manifest["drift"]
    if drift:
        yield (
            "drift",
            f"{drift['psi']:.3f}",
            f"stability index of the clusters, by chance {drift['psi_by_chance']:.3f}; "
            f"mean similarity {drift['mean_similarity']:.3f}, before {drift['mean_similarity_before']:.3f}",
        )


def _print_guarantees(manifest: dict[str, Any], console: Console) -> None:
    options = manifest["config"]["prune"]
    cover = " with cover" if options["cover"] else ""
    console.print(f"\nguarantees (rule {options['rule']}{cover}, re-admitted rows aside)")
    for name, holds in manifest["guarantees"].items():
        console.print(f"  {'[green]yes[/]' if holds else '[yellow]no [/]'}  {_GUARANTEES[name]}")
    if not all(manifest["guarantees"].values()) and not options["cover"] and "replaced" not in manifest:
        console.print("       (--cover gives both)")


def _shares_table(manifest: dict[str, Any]) -> Table:
    """Return each group's share of the valid and of the kept samples."""
    drawn = manifest["input"]["format"] == "sample"
    source = "groups as they were drawn" if drawn else "perceived groups, by the encoder's soft membership"
    table = Table(title=f"share of each group ({source})", title_justify="left", box=None, pad_edge=False)
    table.add_column("attribute")
    table.add_column("group")
    for name in ("before", "kept", "change"):
        table.add_column(name, justify="right")
    previous = None
    for line in manifest["shares"]:
        change = 100 * (line["kept"] - line["input"])
        colour = "green" if change > 0.05 else "red" if change < -0.05 else "default"
        table.add_row(
            plain(line["attribute"]) if line["attribute"] != previous else "",
            plain(line["group"]),
            f"{line['input']:.1%}",
            f"{line['kept']:.1%}",
            f"[{colour}]{change:+.1f} points[/]",
        )
        previous = line["attribute"]
    return table


def print_sweep(lines: list[dict[str, Any]], console: Console) -> None:
    """Print what each fraction would keep, and at which eps.

    Parameters
    ----------
    lines : list of dict
        For each fraction `keep`, `kept`, `eps` and `readmitted`.
    console : Console
        Where it is printed.
    """
    table = Table(box=None, pad_edge=False)
    for name in ("keep", "kept", "eps", "re-admitted"):
        table.add_column(name, justify="right")
    for line in lines:
        table.add_row(f"{line['keep']:g}", f"{line['kept']:,}", f"{line['eps']:.4f}", f"{line['readmitted']:,}")
    console.print(table)
