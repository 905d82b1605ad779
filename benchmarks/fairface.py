"""Compare the rules on FairFace at the same kept count: whose share falls or grows, and what it costs in coverage.

    python benchmarks/fairface.py fairface/val --encoder fairdedup-small:face-encoder.safetensors --skew

SOURCE is the official layout (`val/` with `fairface_label_val.csv` next to it) or tar shards with the labels as
metadata. Figures are paired with those of `semdedup` on the same draw.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from face_comparison import (
    BASE,
    RULES,
    compare_rules,
    describe_setting,
    draw_faces,
    load_faces,
    make_panels,
    make_parser,
    summarise,
)
from faces import VALUES
from results_file import RESULTS, write_results

from fairdedup.errors import UserError

SHOWN = tuple(name for name in RULES if not name.endswith(("0.05", "0.15", "0.25", "0.3")))
WHAT = (
    "percent, and points over semdedup at the same kept count: the share of all groups but the majority, "
    "the distance (total variation) of the shares to uniform ones, and the cosine of every face to its nearest "
    "kept one"
)


def print_table(report: dict[str, Any]) -> None:
    """Print the points over semdedup of each rule."""
    shares = "".join(f"{'share ' + a:>16}" for a in VALUES)
    distances = "".join(f"{'distance ' + a:>17}" for a in VALUES)
    print(f"\n{'points over ' + BASE:24}{shares}{distances}{'coverage p1':>14}{'mean':>8}")
    for rule, own in report.items():
        line = f"{rule:24}"
        for key, value in own.items():
            gain = value[f"over {BASE}"]
            sure = "*" if gain["p"] is not None and gain["p"] < 0.001 else " "
            width = {"share": 15, "distance": 16}.get(key.split()[0], 13 if "first" in key else 7)
            if key != "coverage mean":
                line += f"{gain['mean']:>+{width}.2f}{sure}"
        print(line + f"{own['coverage mean'][f'over {BASE}']['mean']:>+8.2f}")
    print("* p < .001 in a paired t-test\n")


def plot(report: dict[str, Any], file: Path, title: str) -> None:
    """Draw each attribute's gain in the share of non-majority groups against what it costs in coverage."""
    figure, panels = make_panels(len(VALUES), 4.4, sharex=True)
    for panel, attribute in zip(panels, VALUES, strict=True):
        curves: dict[str, list[tuple[float, float]]] = {}
        for number, (rule, own) in enumerate(report.items()):
            if rule == "full":
                continue
            gain = own[f"share {attribute}"][f"over {BASE}"]
            cost = own["coverage first percentile"][f"over {BASE}"]["mean"]
            if rule.startswith("balanced"):
                curves.setdefault(rule.rpartition(" ")[0], []).append((cost, gain["mean"]))
            if rule in SHOWN:
                low, high = (gain[k] if gain[k] is not None else gain["mean"] for k in ("low", "high"))
                error = [[gain["mean"] - low], [high - gain["mean"]]]
                panel.errorbar(cost, gain["mean"], yerr=error, fmt="o", capsize=3, color=f"C{number % 10}", label=rule)
        for curve in curves.values():
            panel.plot(*zip(*sorted(curve), strict=True), color="grey", linewidth=1, zorder=0)
        panel.axhline(0, color="black", linewidth=0.5)
        panel.set_title(f"perceived {attribute}")
        panel.set_xlabel("coverage: first percentile of the cosine\nto the nearest kept face, points over semdedup")
    panels[0].set_ylabel("share of all non-majority groups,\npoints over semdedup (95 % interval)")
    panels[-1].legend(fontsize=7, loc="best")
    figure.suptitle(title)
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--rules", default=",".join(RULES), help="names of rules, separated by commas")
    parser.add_argument("--out", type=Path, help="JSON file to write; the plot is written next to it")
    args = parser.parse_args()
    unknown = [name for name in args.rules.split(",") if name not in RULES]
    if unknown:
        raise UserError(f"--rules {unknown[0]!r} is unknown: choose among {', '.join(RULES)}")
    loaded = load_faces(args)
    sets = draw_faces(loaded.faces, args)
    rules = {name: RULES[name] for name in RULES if name in (BASE, *args.rules.split(","))}
    report = summarise(compare_rules(sets, rules, loaded.prototypes, args))
    print_table(report)
    out = args.out or RESULTS / f"fairface_{'skewed' if args.skew else 'as_is'}.json"
    setting = describe_setting(args, sets, loaded.trained_on)
    write_results(out, {**setting, "rules": report}, what=WHAT, seed=args.seed)
    plot(report, out.with_suffix(".svg"), f"FairFace, {setting['setting']}: {args.keep:.0%} kept, {args.repeats} draws")
    print(f"{out} and {out.with_suffix('.svg').name}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
