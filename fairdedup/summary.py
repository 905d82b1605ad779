"""What a person wants to know, printed: of a run counts, eps, guarantees, who gained, where the IDs are; an audit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fairdedup.audit.audit_report import AttributeReport, AuditReport
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


def print_audit(found: AuditReport, out: Path, console: Console) -> None:
    """Print an audit for people: a table for each attribute, who of the intersections fares badly, and where."""
    console.print(f"\nwho was kept, {_plain(found.says)}")
    for line in found.attributes:
        if not line.intersection:
            console.print()
            _print_attribute(line, found, console)
    worst = [
        (group.to_best or 0.0, line.attribute, group)
        for line in found.attributes if line.intersection
        for group in line.groups if group.under_four_fifths
    ]  # fmt: skip
    if any(line.intersection for line in found.attributes):
        console.print(f"\nintersections: {len(worst):,} groups are kept at under four fifths of the best rate")
        for ratio, name, group in sorted(worst, key=lambda w: w[:2])[:_WORST]:
            console.print(
                f"  {_plain(name)}: {_plain(group.group)}: {_amount(group.kept)} of {_amount(group.before)} "
                f"kept, {ratio:.2f} of the best rate", soft_wrap=True,
            )  # fmt: skip
    _print_losses(found, console)
    console.print(
        f"\n! under four fifths of the best rate   [] {found.confidence:.0%} interval over whole clusters   "
        "p against `random`, Holm", markup=False, soft_wrap=True,
    )  # fmt: skip
    for note in found.notes:
        console.print(f"[yellow]note:[/] {_plain(note)}", soft_wrap=True)
    if found.suggested is not None:
        known = found.suggested
        console.print(f"{known.rows:,} samples that are worth a label: {_plain(known.file)}", soft_wrap=True)
    console.print(f"everything, intersections too: {_plain(out / 'report' / 'audit.json')}", soft_wrap=True)


def _print_attribute(line: AttributeReport, found: AuditReport, console: Console) -> None:
    unlabelled = f"; {line.unlabelled:,} unlabelled" if line.unlabelled else ""
    title = f"{_plain(line.attribute)} ({_amount(line.kept)} of {_amount(line.rows)} kept{unlabelled})"
    if not line.groups:
        console.print(f"{title}: {_plain(line.why)}")
        return
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1))
    table.add_column("group", max_width=22, overflow="fold")
    for name in ("before", "kept", "keep rate", "share", "points", "skew", "p", ""):
        table.add_column(name, justify="right", no_wrap=True)
    for group in line.groups:
        counts = (_plain(group.group), _amount(group.before), _amount(group.kept))
        if not group.sufficient:
            table.add_row(*counts, "insufficient")
            continue
        share = _of(group.share_before, "{:.1%}") + " to " + _of(group.share_after, "{:.1%}")
        table.add_row(
            *counts, escape(_of(group.rate, "{:.1%}") + _interval(group.rate_interval, "{:.0f}")), share,
            escape(_of(group.shift, "{:+.1f}", 100) + _interval(group.shift_interval, "{:+.1f}")),
            _of(group.skew, "{:+.2f}"), _chance(group.p_holm), "!" if group.under_four_fifths else "",
        )  # fmt: skip
    console.print(table)
    console.print(
        f"  least / largest rate {_of(line.ratio, '{:.2f}')}{_interval(line.ratio_interval, '{:.2f}', 1)}"
        f"   all but the majority {_of(line.non_majority_before, '{:.1%}')} to "
        f"{_of(line.non_majority_after, '{:.1%}')}\n"
        f"  distance to target ({line.target}) {_of(line.distance_before, '{:.3f}')} to "
        f"{_of(line.distance_after, '{:.3f}')}   KL to full {_of(line.kl_to_full, '{:.4f}')}, to uniform "
        f"{_of(line.kl_to_uniform, '{:.4f}')}", markup=False,
    )  # fmt: skip


def _print_losses(found: AuditReport, console: Console) -> None:
    """Print where the groups that lost most were lost."""
    losers = [
        (group.loss.whole, line.attribute, group)
        for line in found.attributes if not line.intersection
        for group in line.groups if group.sufficient and group.loss.whole > _LEAST
    ]  # fmt: skip
    if not losers:
        return
    table = Table(title="where they were lost (kept samples short of a fair share)", title_justify="left", box=None,
                  pad_edge=False, padding=(0, 1))  # fmt: skip
    table.add_column("group", max_width=36, overflow="fold")
    for name in ("short by", "clusters pruned harder", "choice inside clusters", "costliest clusters"):
        table.add_column(name, justify="right")
    for _, name, group in sorted(losers, key=lambda x: (-x[0], x[1]))[:_WORST]:
        loss = group.loss
        clusters = sorted((*loss.clusters_between, *loss.clusters_within), key=lambda c: -c.cost)
        costliest = ", ".join(list(dict.fromkeys(str(c.cluster) for c in clusters))[:_CLUSTERS])
        table.add_row(f"{_plain(name)}: {_plain(group.group)}", f"{loss.whole:.1f}", f"{loss.between:+.1f}",
                      f"{loss.within:+.1f}", costliest)  # fmt: skip
    console.print()
    console.print(table)


_WORST = 12  # lines of a list
_CLUSTERS = 5
_LEAST = 0.05  # samples


def _amount(count: float) -> str:
    return f"{count:,}" if isinstance(count, int) else f"{count:,.1f}"


def _of(value: float | None, form: str, times: float = 1) -> str:
    return "-" if value is None else form.format(value * times)


def _interval(bounds: tuple[float, float] | None, form: str, times: float = 100) -> str:
    return f" [{_of(bounds[0], form, times)}, {_of(bounds[1], form, times)}]" if bounds else ""


def _chance(p: float | None) -> str:
    return "-" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"
