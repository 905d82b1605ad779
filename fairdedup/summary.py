"""What a person wants to know of a run, printed: counts, eps, guarantees, who gained and lost, where the IDs are."""

from __future__ import annotations

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


def _plain(value: object) -> str:
    """Return a value that somebody else wrote, such that neither rich nor the terminal reads orders in it."""
    return escape(visible(str(value)))


def print_summary(manifest: dict[str, Any], out: Path, console: Console) -> None:
    """Print the manifest of a finished run for people."""
    counts = manifest["counts"]
    valid = max(counts["valid"], 1)
    facts = Table.grid(padding=(0, 2))
    facts.add_column()
    facts.add_column(justify="right")
    facts.add_column()
    again = f", {counts['readmitted']:,} of them re-admitted" if counts["readmitted"] else ""
    facts.add_row("input", f"{counts['input']:,}", f"{manifest['clusters']:,} clusters")
    facts.add_row("kept", f"{counts['kept']:,}", f"{counts['kept'] / valid:.1%} of the valid rows{again}")
    facts.add_row("removed", f"{counts['removed']:,}", "")
    by = (
        "--where, --drop and --exclude-near"
        if manifest["config"]["prune"].get("exclude_near")
        else "--where and --drop"
    )
    asked = f", {counts['excluded']:,} of them by {by}" if counts.get("excluded") else ""
    facts.add_row(
        "rejected",
        f"{counts['rejected']:,}",
        f"reasons in {_plain(out / 'rejected')}{asked}" if counts["rejected"] else "",
    )
    for known in manifest.get("replaced", []):
        facts.add_row("gone", f"{known['gone']:,}", f"{known['gone_kept']:,} kept ones, {known['promoted']:,} promoted")
    if manifest["eps"] is not None:
        facts.add_row("eps", f"{manifest['eps']:.4f}", f"duplicates have a cosine above {1 - manifest['eps']:.4f}")
    if "against" in manifest:
        before = manifest["against"]
        facts.add_row(
            "against", f"{len(before):,}", f"earlier {'runs' if len(before) > 1 else 'run'}, whose kept samples stay"
        )
        drift = manifest["drift"]
        if drift:
            facts.add_row(
                "drift", f"{drift['psi']:.3f}",
                f"stability index of the clusters, by chance {drift['psi_by_chance']:.3f}; "
                f"mean similarity {drift['mean_similarity']:.3f}, before {drift['mean_similarity_before']:.3f}"
            )  # fmt: skip
    console.print()
    console.print(facts)
    rule = manifest["config"]["prune"]
    console.print(f"\nguarantees (rule {rule['rule']}{' with cover' if rule['cover'] else ''}, re-admitted rows aside)")
    for name, holds in manifest["guarantees"].items():
        console.print(f"  {'[green]yes[/]' if holds else '[yellow]no [/]'}  {_GUARANTEES[name]}")
    if not all(manifest["guarantees"].values()) and not rule["cover"] and "replaced" not in manifest:
        console.print("       (--cover gives both)")
    if manifest["shares"]:
        console.print()
        console.print(shares_table(manifest))
    for warning in manifest["warnings"]:
        console.print(f"[yellow]warning:[/] {_plain(warning)}")
    console.print(f"\nkept IDs: {_plain(out / 'kept')}   every decision: {_plain(out / 'decisions')}", soft_wrap=True)


def shares_table(manifest: dict[str, Any]) -> Table:
    """Return each group's share of the valid and of the kept samples as a table."""
    drawn = manifest["input"]["format"] == "sample"
    source = "groups as they were drawn" if drawn else "perceived groups, by the encoder's soft membership"
    table = Table(title=f"share of each group ({source})", title_justify="left", box=None, pad_edge=False)
    table.add_column("attribute")
    table.add_column("group")
    for name in ("before", "kept", "change"):
        table.add_column(name, justify="right")
    last = None
    for line in manifest["shares"]:
        change = 100 * (line["kept"] - line["input"])
        colour = "green" if change > 0.05 else "red" if change < -0.05 else "default"
        table.add_row(
            _plain(line["attribute"]) if line["attribute"] != last else "", _plain(line["group"]),
            f"{line['input']:.1%}", f"{line['kept']:.1%}", f"[{colour}]{change:+.1f} points[/]",
        )  # fmt: skip
        last = line["attribute"]
    return table


def print_sweep(lines: list[dict[str, Any]], console: Console) -> None:
    """Print what each fraction would keep, at which eps."""
    table = Table(box=None, pad_edge=False)
    for name in ("keep", "kept", "eps", "re-admitted"):
        table.add_column(name, justify="right")
    for line in lines:
        table.add_row(f"{line['keep']:g}", f"{line['kept']:,}", f"{line['eps']:.4f}", f"{line['readmitted']:,}")
    console.print(table)
