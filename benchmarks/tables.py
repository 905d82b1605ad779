"""Write the tables and figures of the pages from the committed results; --check compares them.

    python benchmarks/tables.py

A place on a page is between two comments: `<!-- KIND: RESULTS -->` and `<!-- end -->`. KIND is a table or paragraphs if
the first comment ends its line, else a few words in a sentence.
"""

from __future__ import annotations

import argparse
import re
from typing import Any

from figure_texts import BLOCKS, WORDS
from results_file import ROOT, read_results
from study_tables import STUDY_KINDS

PAGES = ("fairface", "figures", "experiments", "faq", "tutorial", "explanation/across-clusters", "model-study")
TABLE_PAGES = (ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in PAGES))
ATTRIBUTES = ("race", "gender", "age")
PLACE = re.compile(r"(<!-- (\w+): (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
IN_A_LINE = re.compile(r"(<!-- (\w+): (\w+) -->)(?!\n).*?(<!-- end -->)")
COVERAGE = "coverage first percentile"
LEFT = "duplicates left"
LEFT_OUT = ("0.05", "0.15")  # reserves of older results
BRIEF = (
    *("semdedup --published", "fairdedup --published", "fairdedup --reach 0", "semdedup", "fairdedup"),
    *(f"balanced {how}--reserve {r}" for how in ("--published ", "--reach 0 ", "") for r in ("0.1", "0.2")),
)


def update_names(results: dict[str, Any]) -> dict[str, Any]:
    """Return results with rules named by the options that decide the same today, and `over base` for the differences.

    Results without a `base` are older than the defaults: they have "fairdedup cover" for `fairdedup --reach 0`.
    """
    if "base" in results:
        return results
    rules: dict[str, Any] = {}
    for rule, own in results["rules"].items():
        name, *words = rule.split()
        parts = [name]
        if name not in ("full", "random", "semdedup-chain"):
            parts.append("--reach 0" if "cover" in words else "--published")
        parts += ["--calibrate zscore"] if "zscore" in words else []
        parts += [f"--reserve {words[-1]}"] if "reserve" in words else []
        rules[" ".join(parts)] = {k: {"mean": v["mean"], "over base": v["over semdedup"]} for k, v in own.items()}
    return {**results, "base": "semdedup --published", "rules": rules}


def format_gain(gain: dict[str, Any], sign: str = "+") -> str:
    """Return a difference with half its 95 % interval, in bold if p < .001."""
    text = f"{gain['mean']:{sign}.2f}"
    if gain["low"] is not None:
        text += f" ± {(gain['high'] - gain['low']) / 2:.2f}"
    return f"**{text}**" if gain["p"] is not None and gain["p"] < 0.001 else text


def _rules_table(results: dict[str, Any], measure: str, *, brief: bool = False) -> list[str]:
    """Return a table with a line for each rule; that of the base has its own values, the others what they differ by."""
    results = update_names(results)
    keys, base = [*(f"{measure} {a}" for a in ATTRIBUTES), COVERAGE], results["base"]
    has_left = LEFT in results["rules"][base]
    head = ["rule", *keys[:-1], "coverage, 1 %", *([LEFT] if has_left else [])]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for rule, own in results["rules"].items():
        if rule.endswith(LEFT_OUT) or (brief and rule not in BRIEF):
            continue
        is_base = rule == base
        cells = [f"= {own[key]['mean']:.1f} %" if is_base else format_gain(own[key]["over base"]) for key in keys]
        if has_left:  # a rule without eps, such as `random`, has no duplicates
            cells.append(f"{own[LEFT]['mean']:.1f} %" if LEFT in own else "")
        lines.append(f"| `{rule}` | {' | '.join(cells)} |")
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
    table = [{**line, **update_names({**results, "rules": line["rules"]})} for line in results["table"]]
    names = [rule for rule in table[0]["rules"] if rule not in ("full", table[0]["base"])]
    lines = [
        f"| prototypes | {' | '.join(f'`{name}`' for name in names)} | warned of |",
        "|---|" + "---|" * (len(names) + 1),
    ]
    for line in table:
        gains = [
            " / ".join(f"{line['rules'][name][f'share {a}']['over base']['mean']:+.1f}" for a in ATTRIBUTES)
            for name in names
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
    **BLOCKS,
    **STUDY_KINDS,
}


def fill_tables(page: str) -> str:
    """Return the page with its tables and figures written anew from the results."""

    def table(found: re.Match[str]) -> str:
        return found[1] + "\n".join(KINDS[found[2]](read_results(found[3]))) + "\n" + found[4]

    def words(found: re.Match[str]) -> str:
        return found[1] + WORDS[found[2]](read_results(found[3])) + found[4]

    return IN_A_LINE.sub(words, PLACE.sub(table, page))


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
