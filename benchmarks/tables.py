"""Write the tables of docs/fairface.md and README.md from the committed results, or only compare them with --check.

python benchmarks/tables.py
"""

from __future__ import annotations

import argparse
import re
from typing import Any

from results_file import ROOT, read_results

TABLE_PAGES = (ROOT / "docs" / "fairface.md", ROOT / "README.md")
ATTRIBUTES = ("race", "gender", "age")
BASE = "over semdedup"
PLACE = re.compile(r"(<!-- (\w+): (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
LEFT = "duplicates left"
COVERAGE = "coverage first percentile"
LEFT_OUT = ("0.05", "0.15")  # reserves that only the plot shows
BRIEF = (
    *("semdedup --published", "fairdedup --published", "fairdedup --reach 0"),
    *(f"balanced {how} --reserve {r}" for how in ("--published", "--reach 0") for r in ("0.1", "0.2")),
)


def name_by_options(rule: str) -> str:
    """Return the options that decide today as a rule of the results does: its name may be older than the defaults."""
    name, *words = rule.split()
    if name in ("full", "random", "semdedup-chain"):
        return rule
    parts = [name]
    if "across" not in words:  # which has the defaults
        parts.append("--reach 0" if "cover" in words else "--published")
    parts += ["--calibrate zscore"] if "zscore" in words else []
    parts += [f"--reserve {words[-1]}"] if "reserve" in words else []
    return " ".join(parts)


def format_gain(gain: dict[str, Any], sign: str = "+") -> str:
    """Return a difference with half its 95 % interval, in bold if p < .001."""
    text = f"{gain['mean']:{sign}.2f}"
    if gain["low"] is not None:
        text += f" ± {(gain['high'] - gain['low']) / 2:.2f}"
    return f"**{text}**" if gain["p"] is not None and gain["p"] < 0.001 else text


def _rules_table(results: dict[str, Any], measure: str, *, brief: bool = False) -> list[str]:
    """Return a table with a line for each rule: the values of the base, and the differences of the others to it."""
    keys = [*(f"{measure} {a}" for a in ATTRIBUTES), COVERAGE]
    lines = [f"| rule | {' | '.join(keys[:-1])} | coverage, 1 % |", "|---|" + "---|" * len(keys)]
    for rule, own in results["rules"].items():
        name = name_by_options(rule)
        if rule.endswith(LEFT_OUT) or (brief and name not in BRIEF):
            continue
        is_base = rule == "semdedup"
        cells = [f"= {own[key]['mean']:.1f} %" if is_base else format_gain(own[key][BASE]) for key in keys]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return lines


def shares_table(results: dict[str, Any]) -> list[str]:
    """Return a table of the shares of non-majority groups, with a line for each rule."""
    return _rules_table(results, "share")


def brief_shares_table(results: dict[str, Any]) -> list[str]:
    """Return a table of the shares of non-majority groups, with the rules of BRIEF."""
    return _rules_table(results, "share", brief=True)


def distances_table(results: dict[str, Any]) -> list[str]:
    """Return a table of the distances to equal shares, with the rules of BRIEF."""
    return _rules_table(results, "distance", brief=True)


def encoder_table(results: dict[str, Any]) -> list[str]:
    """Return a table with a line for each attribute: the encoder's accuracy, and its worst and best group."""
    lines = ["| attribute | accuracy | by chance | worst group | best group |", "|---|---|---|---|---|"]
    for attribute, own in results["zero-shot"].items():
        by = sorted((value, name) for name, value in own["by concept"].items())
        ends = [f"{name} {value:.0%}" for value, name in (by[0], by[-1])]
        lines.append(f"| {attribute} | {own['accuracy']:.1%} | {1 / len(by):.1%} | {ends[0]} | {ends[1]} |")
    return lines


def degraded_table(results: dict[str, Any]) -> list[str]:
    """Return a table with a line for each kind and level of degradation: gains in race / gender / age, and warnings."""
    names = [rule for rule in results["table"][0]["rules"] if rule not in ("full", "semdedup")]
    lines = [
        f"| prototypes | {' | '.join(f'`{name_by_options(name)}`' for name in names)} | warned of |",
        "|---|" + "---|" * (len(names) + 1),
    ]
    for line in results["table"]:
        gains = [
            " / ".join(f"{line['rules'][name][f'share {a}'][BASE]['mean']:+.1f}" for a in ATTRIBUTES) for name in names
        ]
        level = f" {line['level']:g}" if line["level"] else ""
        lines.append(f"| {line['how']}{level} | {' | '.join(gains)} | {', '.join(line['warned of'])} |")
    return lines


def sample_table(results: dict[str, Any]) -> list[str]:
    """Return a table with a line for each rule: points gained by each group of the sample, and duplicates left."""
    groups = list(results["groups"])
    lines = [f"| rule | {' | '.join(groups)} | {LEFT} |", "|---|" + "---|" * (len(groups) + 1)]
    for rule, left in results[LEFT].items():
        own = [results["groups"][group][rule] for group in groups]
        cells = [f"{one['gain']:+.1f} ± {one['standard error']:.1f}" for one in own]
        if rule == results["base"]:
            cells = [f"= {one['share']:.1f} %" for one in own]
        lines.append(f"| `{rule}` | {' | '.join(cells)} | {left:.1f} % |")
    return lines


KINDS = {
    "shares": shares_table,
    "shares_brief": brief_shares_table,
    "distances": distances_table,
    "encoder": encoder_table,
    "degraded": degraded_table,
    "sample": sample_table,
}


def fill_tables(page: str) -> str:
    """Return the page with all tables written anew from the results."""

    def table(found: re.Match[str]) -> str:
        return found[1] + "\n".join(KINDS[found[2]](read_results(found[3]))) + "\n" + found[4]

    return PLACE.sub(table, page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail if a page differs from the results")
    args = parser.parse_args()
    for file in TABLE_PAGES:
        page = file.read_text(encoding="utf-8")
        if args.check and fill_tables(page) != page:
            raise SystemExit(f"{file.name} differs from the results: run python benchmarks/tables.py")
        if not args.check:
            file.write_text(fill_tables(page), encoding="utf-8")


if __name__ == "__main__":
    main()
