"""Prints what `compare` and `search` have found as tables, and lists it as values for events.

It computes no measure: it prints what the commands return.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from fairdedup.cli.run_summary import plain

if TYPE_CHECKING:
    from fairdedup.audit.audit_report import GroupReport
    from fairdedup.commands.search import FoundSample
    from fairdedup.report.rule_comparison import ComparedRule, Comparison

CAPTION = 60  # characters of a caption in a table


def list_values(found: Comparison) -> dict[str, Any]:
    """Return a comparison as values that JSON can hold.

    Parameters
    ----------
    found : Comparison
    """
    return {"source": found.source, "rules": [_list_rule(rule) for rule in found.rules], "notes": found.notes}


def _list_rule(rule: ComparedRule) -> dict[str, Any]:
    groups = [
        {
            "attribute": attribute,
            "group": group.group,
            "share_before": group.share_before,
            "share_after": group.share_after,
            "shift": group.shift,
            "shift_interval": group.shift_interval,
        }
        for attribute, group in rule.groups()
    ]
    return {
        "rule": rule.rule,
        "kept": rule.kept,
        "readmitted": rule.readmitted,
        "eps": rule.eps,
        "differs": rule.differs,
        "leftover": None if rule.leftover is None else rule.leftover.model_dump(),
        "coverage": None if rule.coverage is None else asdict(rule.coverage),
        "groups": groups,
    }


def print_comparison(found: Comparison, console: Console) -> None:
    """Print a comparison of rules.

    Parameters
    ----------
    found : Comparison
    console : Console
        Console to print on.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column("rule")
    for name in ("kept", "re-admitted", "eps", "differs", "coverage 1 %", "leftover"):
        table.add_column(name, justify="right")
    for rule in found.rules:
        table.add_row(
            plain(rule.rule),
            f"{rule.kept:,}",
            f"{rule.readmitted:,}",
            "" if rule.eps is None else f"{rule.eps:.4f}",
            f"{rule.differs:,}",
            "" if rule.coverage is None else f"{rule.coverage.first_percentile:.4f}",
            "" if rule.left is None else f"{rule.left:.1%}",
        )
    console.print(table)
    if found.source is not None:
        console.print(
            f"\nchange of the share of each group in points, with a 95 % interval: {plain(found.source)}",
            soft_wrap=True,
        )
        for number, attribute in enumerate(found.rules[0].attributes):
            console.print()
            console.print(_groups_table(found.rules, number, attribute.attribute))
    for note in found.notes:
        console.print(f"[yellow]note:[/] {plain(note)}", soft_wrap=True)


def _groups_table(rules: Sequence[ComparedRule], number: int, name: str) -> Table:
    """Return a table of the groups of one attribute, a column for each rule."""
    table = Table(box=None, pad_edge=False)
    table.add_column(plain(name))
    table.add_column("before", justify="right")
    for rule in rules:
        table.add_column(plain(rule.rule), justify="right")
    for groups in zip(*(rule.attributes[number].groups for rule in rules), strict=True):
        before = groups[0].share_before
        shown = "" if before is None else f"{before:.1%}"
        table.add_row(plain(groups[0].group), shown, *(_format_shift(group) for group in groups))
    return table


def _format_shift(group: GroupReport) -> str:
    if group.shift is None:
        return "too few"
    interval = ""
    if group.shift_interval is not None:
        low, high = group.shift_interval
        interval = f"\n{100 * low:+.1f} to {100 * high:+.1f}"
    return f"{100 * group.shift:+.1f}{interval}"


def print_found(found: Sequence[FoundSample], console: Console) -> None:
    """Print the samples that a search has found.

    Parameters
    ----------
    found : sequence of FoundSample
    console : Console
        Console to print on.
    """
    captions = any(each.caption is not None for each in found)
    table = Table(box=None, pad_edge=False)
    table.add_column("rank", justify="right")
    table.add_column("cosine", justify="right")
    table.add_column("id", overflow="fold")
    table.add_column("state")
    if captions:
        table.add_column("caption", overflow="ellipsis", no_wrap=True)
    for each in found:
        caption = [plain((each.caption or "")[:CAPTION])] if captions else []
        table.add_row(str(each.rank), f"{each.cosine:.4f}", plain(each.id), each.state, *caption)
    console.print(table)
