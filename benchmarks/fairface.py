"""Compare the rules on FairFace at the same kept count: whose share falls or grows, and what it costs in coverage.

    python benchmarks/fairface.py fairface/val --encoder fairdedup-small:face-encoder.safetensors --skew

SOURCE is the official layout (`val/` with `fairface_label_val.csv` next to it) or tar shards with the labels as
metadata. Figures are paired with those of `semdedup --published` on the same draw.
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
    make_parser,
    summarise,
)
from faces import VALUES
from results_file import RESULTS, write_results
from tables import distances_table, shares_table

from fairdedup.errors import UserError

WHAT = (
    "percent, and points over the base at the same kept count: the share of all groups but the majority, "
    "the distance (total variation) of the shares to uniform ones, the cosine of every face to its nearest "
    "kept one, and the kept faces (re-admitted ones aside) that still have a kept duplicate"
)
NOT_DRAWN = ("full", "random")  # far to the right and to the left of all others


def draw_plot(rules: dict[str, Any], file: Path, title: str) -> None:
    """Draw each attribute's gain in the share of non-majority groups against the change in coverage.

    The points of one rule at several reserves are joined. The same figures give the same bytes of SVG.
    """
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "fairdedup"
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(VALUES), figsize=(13, 5.4), layout="constrained", sharex=True)
    for panel, attribute in zip(panels, VALUES, strict=True):
        curves: dict[str, list[tuple[float, float]]] = {}
        for number, (rule, own) in enumerate(rules.items()):
            if rule in NOT_DRAWN:
                continue
            gain = own[f"share {attribute}"]["over base"]
            cost = own["coverage first percentile"]["over base"]["mean"]
            joined, _, reserve = rule.partition(" --reserve ")
            if reserve:
                curves.setdefault(joined, []).append((cost, gain["mean"]))
            low, high = (gain[k] if gain[k] is not None else gain["mean"] for k in ("low", "high"))
            panel.errorbar(
                cost,
                gain["mean"],
                yerr=[[gain["mean"] - low], [high - gain["mean"]]],
                fmt="s" if "--published" in rule else "o",
                capsize=2,
                color=plt.get_cmap("tab20")(number % 20),
                label=rule,
            )
        for curve in curves.values():
            panel.plot(*zip(*curve, strict=True), color="grey", linewidth=1, zorder=0)
        panel.axhline(0, color="black", linewidth=0.5)
        panel.axvline(0, color="black", linewidth=0.5)
        panel.set_title(f"perceived {attribute}")
        panel.set_xlabel(f"coverage: first percentile of the cosine to\nthe nearest kept face, points over {BASE}")
    panels[0].set_ylabel(f"share of all non-majority groups,\npoints over {BASE} (95 % interval)")
    figure.legend(*panels[0].get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=5)
    figure.suptitle(title)
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--rules", default=",".join(RULES), help="names of rules, separated by commas")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--plot", type=Path, help="SVG file to draw")
    args = parser.parse_args()
    unknown = [name for name in args.rules.split(",") if name not in RULES]
    if unknown:
        raise UserError(f"--rules {unknown[0]!r} is unknown: choose among {', '.join(RULES)}")
    loaded = load_faces(args)
    sets = draw_faces(loaded.faces, args)
    rules = {name: RULES[name] for name in RULES if name in (BASE, *args.rules.split(","))}
    report = summarise(compare_rules(sets, rules, loaded.prototypes, args, loaded.priors))
    figures = {**describe_setting(args, sets, loaded.trained_on), "rules": report}
    print("\n".join((*shares_table(figures), "", *distances_table(figures), "")))
    out = args.out or RESULTS / f"fairface_{'skewed' if args.skew else 'as_is'}.json"
    write_results(out, figures, what=WHAT, seed=args.seed)
    if args.plot:
        title = f"FairFace, {figures['setting']}: {args.keep:.0%} kept, {args.repeats} draws"
        draw_plot(report, args.plot, title)
    print(out)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
