"""The rules as Markdown tables: README.md and docs/rules.md contain exactly what this module renders.

To print them: python -m fairdedup.core.rules.rule_tables
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from fairdedup.core.rules.base import Rule
from fairdedup.core.rules.registry import DEFAULT, all_rules

REFUSED = "; an error with the others"
_OWN = ("start", "calibrate", "target", "temperature", "reserve")


def render_rules() -> str:
    """Return the table of the rules: name, which member of a neighbourhood is kept, source."""
    lines = [
        (f"`{each.name}`" + (" (default)" if each.name == DEFAULT else ""), each.summary, each.source)
        for each in all_rules()
    ]
    return _table(("`--rule`", "which member of a neighbourhood is kept", "source"), lines)


def render_options() -> str:
    """Return the table of the options that only some rules read, with the rules that read them."""
    lines = [
        ("`--cover`", _names(partial(_reads, "cover")) + REFUSED),
        ("`--prefer`", _names(lambda rule: rule.needs_column) + ", which it implies" + REFUSED),
        ("`--always-keep`", _names(lambda rule: rule.accepts_pinned_rows) + REFUSED),
        ("`--prototypes`", _names(lambda rule: rule.needs_prototypes) + "; with the others, the report of shares only"),
        *((f"`--{option}`", _names(partial(_reads, option))) for option in _OWN),
        ("`--against`", _names(lambda rule: rule.sweeps) + REFUSED),
        ("`--seed`", f"k-means, {_names(partial(_reads, 'seed'))}, the sample behind the first guess of eps"),
    ]
    return _table(("option", "read by"), lines)


def _reads(option: str, rule: Rule) -> bool:
    return option in rule.reads


def _names(reads: Callable[[Rule], bool]) -> str:
    return ", ".join(f"`{each.name}`" for each in all_rules() if reads(each))


def _table(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    rows = [" | ".join(row) for row in (header, *cells)]
    lines = (f"| {rows[0]} |", "|" + "---|" * len(header), *(f"| {row} |" for row in rows[1:]))
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    print(render_rules(), render_options(), sep="\n")
