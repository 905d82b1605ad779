"""Prints an audit: a table for each attribute, the intersections with low rates, and where groups were lost.

It computes no measure: it prints what is in the report.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fairdedup.audit.audit_report import AttributeReport, AuditReport, GroupReport
from fairdedup.cli.run_summary import plain, print_leftover
from fairdedup.errors import format_count

MOST_LINES = 12  # largest number of lines in a list
MOST_CLUSTERS = 5  # largest number of clusters that are listed for a group
LEAST_LOSS = 0.05  # smallest loss, in samples, that is listed
COLUMNS = ("before", "kept", "keep rate", "share", "points", "skew", "p", "")  # of the table of an attribute
LEFT_OUT = ("skew", "share", "before", "p")  # one after the other, where the terminal is too narrow


def print_audit(report: AuditReport, out: Path, console: Console) -> None:
    """Print an audit.

    Parameters
    ----------
    report : AuditReport
        Result of the audit.
    out : Path
        Run directory, as the user named it.
    console : Console
        Console to print on.
    """
    console.print(f"\nkept samples, {plain(report.says)}")
    for attribute in report.attributes:
        if not attribute.intersection:
            console.print()
            _print_attribute(attribute, console)
    _print_intersections(report, console)
    _print_losses(report, console)
    console.print(
        f"\n! under four fifths of the best rate   [] {report.confidence:.0%} interval over whole clusters   "
        "p against `random`, Holm",
        markup=False,
        soft_wrap=True,
    )
    if report.leftover is not None:
        print_leftover(report.leftover, console)
    for note in report.notes:
        console.print(f"[yellow]note:[/] {plain(note)}", soft_wrap=True)
    if report.suggested is not None:
        file = plain(report.suggested.file)
        console.print(
            f"{format_count(report.suggested.rows, 'sample that is', 'samples that are')} worth a label: {file}",
            soft_wrap=True,
        )
    console.print(f"full report, with intersections: {plain(out / 'report' / 'audit.json')}", soft_wrap=True)


def _print_attribute(attribute: AttributeReport, console: Console) -> None:
    unlabelled = f"; {attribute.unlabelled:,} unlabelled" if attribute.unlabelled else ""
    counts = f"{_format_amount(attribute.kept)} of {_format_amount(attribute.rows)} kept{unlabelled}"
    title = f"{plain(attribute.attribute)} ({counts})"
    if not attribute.groups:
        console.print(f"{title}: {plain(attribute.why)}")
        return
    left_out = 0
    table = _build_table(title, attribute, ())
    while left_out < len(LEFT_OUT) and _measure_width(table, console) > console.width:
        left_out += 1
        table = _build_table(title, attribute, LEFT_OUT[:left_out])
    console.print(table)
    if left_out:
        console.print(f"  (a wider terminal also has: {', '.join(LEFT_OUT[:left_out])})", soft_wrap=True)
    _print_measures(attribute, console)


def _build_table(title: str, attribute: AttributeReport, left_out: Collection[str]) -> Table:
    """Return the table of an attribute without some of its columns."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1))
    longest = max(len(plain(group.group)) for group in attribute.groups)
    table.add_column("group", min_width=min(longest, 22), max_width=22, overflow="fold")
    shown = [k for k, name in enumerate(COLUMNS) if name not in left_out]
    for k in shown:
        table.add_column(COLUMNS[k], justify="right", no_wrap=True)
    for group in attribute.groups:
        name, *cells = _group_cells(group)
        table.add_row(name, *(cells[k] for k in shown if k < len(cells)))
    return table


def _measure_width(table: Table, console: Console) -> int:
    """Return the width that a table needs."""
    return console.measure(table, options=console.options.update(width=1_000)).maximum


def _group_cells(group: GroupReport) -> list[str]:
    """Return the cells of a group in the table of its attribute."""
    cells = [plain(group.group), _format_amount(group.before), _format_amount(group.kept)]
    if not group.sufficient:
        return [*cells, "insufficient"]
    rate = _format(group.rate, "{:.1%}") + _format_interval(group.rate_interval, "{:.0f}", 100)
    shift = _format(group.shift, "{:+.1f}", 100) + _format_interval(group.shift_interval, "{:+.1f}", 100)
    return [
        *cells,
        escape(rate),
        _format(group.share_before, "{:.1%}") + " to " + _format(group.share_after, "{:.1%}"),
        escape(shift),
        _format(group.skew, "{:+.2f}"),
        _format_p(group.p_holm),
        "!" if group.under_four_fifths else "",
    ]


def _print_measures(attribute: AttributeReport, console: Console) -> None:
    """Print the measures over all groups of an attribute."""
    ratio = _format(attribute.ratio, "{:.2f}") + _format_interval(attribute.ratio_interval, "{:.2f}")
    minority = (
        f"{_format(attribute.non_majority_before, '{:.1%}')} to {_format(attribute.non_majority_after, '{:.1%}')}"
    )
    distance = f"{_format(attribute.distance_before, '{:.3f}')} to {_format(attribute.distance_after, '{:.3f}')}"
    divergence = f"{_format(attribute.kl_to_full, '{:.4f}')}, to uniform {_format(attribute.kl_to_uniform, '{:.4f}')}"
    console.print(
        f"  least / largest rate {ratio}   all but the majority {minority}\n"
        f"  distance to target ({attribute.target}) {distance}   KL to full {divergence}",
        markup=False,
    )


def _print_intersections(report: AuditReport, console: Console) -> None:
    """Print the groups of intersections that are kept at a low rate."""
    intersections = [attribute for attribute in report.attributes if attribute.intersection]
    if not intersections:
        return
    low = [
        (group.to_best or 0.0, attribute.attribute, group)
        for attribute in intersections
        for group in attribute.groups
        if group.under_four_fifths
    ]
    console.print(
        f"\nintersections: {format_count(len(low), 'group is', 'groups are')} kept at under four fifths of "
        "the best rate"
    )
    for ratio, name, group in sorted(low, key=lambda found: found[:2])[:MOST_LINES]:
        console.print(
            f"  {plain(name)}: {plain(group.group)}: {_format_amount(group.kept)} of {_format_amount(group.before)} "
            f"kept, {ratio:.2f} of the best rate",
            soft_wrap=True,
        )


def _print_losses(report: AuditReport, console: Console) -> None:
    """Print the groups with the largest losses, and where these arose."""
    losses = [
        (attribute.attribute, group)
        for attribute in report.attributes
        for group in attribute.groups
        if not attribute.intersection and group.sufficient and group.loss.whole > LEAST_LOSS
    ]
    if not losses:
        return
    table = Table(
        title="where they were lost (kept samples short of a fair share)",
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 1),
    )
    longest = max(len(f"{plain(name)}: {plain(group.group)}") for name, group in losses)
    table.add_column("group", min_width=min(longest, 28), max_width=36, overflow="fold")
    for name in ("short by", "clusters pruned harder", "choice inside clusters", "costliest clusters"):
        table.add_column(name, justify="right")
    for name, group in sorted(losses, key=lambda found: (-found[1].loss.whole, found[0]))[:MOST_LINES]:
        table.add_row(
            f"{plain(name)}: {plain(group.group)}",
            f"{group.loss.whole:.1f}",
            f"{group.loss.between:+.1f}",
            f"{group.loss.within:+.1f}",
            ", ".join(_costliest_clusters(group)),
        )
    console.print()
    console.print(table)


def _costliest_clusters(group: GroupReport) -> list[str]:
    """Return the numbers of the clusters that cost a group most."""
    clusters = [*group.loss.clusters_between, *group.loss.clusters_within]
    numbers = [str(cluster.cluster) for cluster in sorted(clusters, key=lambda cluster: -cluster.cost)]
    return list(dict.fromkeys(numbers))[:MOST_CLUSTERS]


def _format_amount(count: float) -> str:
    return f"{count:,}" if isinstance(count, int) else f"{count:,.1f}"


def _format(value: float | None, form: str, factor: float = 1) -> str:
    return "-" if value is None else form.format(value * factor)


def _format_interval(bounds: tuple[float, float] | None, form: str, factor: float = 1) -> str:
    return f" [{_format(bounds[0], form, factor)}, {_format(bounds[1], form, factor)}]" if bounds else ""


def _format_p(p: float | None) -> str:
    return "-" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"
