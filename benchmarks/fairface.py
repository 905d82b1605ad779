"""Compare the rules on FairFace at the same kept count: whose share falls or grows, and what it costs in coverage.

    python benchmarks/fairface.py fairface/val --encoder fairdedup-small:face-encoder.safetensors --skew

SOURCE is the official layout (`val/` with `fairface_label_val.csv` beside it) or tar shards with the labels as
metadata. Each repeat draws rows and clusters them anew, and all rules decide on that one draw; figures are paired with
those of `semdedup`. Labels are what annotators perceived, and are used to measure only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from faces import VALUES, Faces, embed, encoder_of, read_embeddings, refuse_known_faces, skewed, unit, write_embeddings
from scipy import stats
from sweep import cpu_model

import fairdedup
from fairdedup import deduplicate
from fairdedup.core.calibration import calibrate
from fairdedup.core.prototypes import Prototypes
from fairdedup.errors import UserError
from fairdedup.prototype_files import needs_text_tower, read_vectors
from fairdedup.stages.caption_embedding import embed_captions, read_captions
from fairdedup.storage.layout import RunDirectory

ROOT = Path(__file__).resolve().parent.parent
PROTOTYPES = ROOT / "configs" / "prototypes" / "fairface.yaml"
BASE = "semdedup"
RULES: dict[str, dict[str, Any]] = {
    "random": {"rule": "random"},
    "random-neighbour": {"rule": "random-neighbour"},
    "semdedup": {"rule": "semdedup"},
    "semdedup-chain": {"rule": "semdedup-chain"},
    "fairdedup": {"rule": "fairdedup"},
    "fairdedup zscore": {"rule": "fairdedup", "calibrate": "zscore"},
    "fairdedup cover": {"rule": "fairdedup", "cover": True},
    **{f"balanced reserve {r:g}": {"rule": "balanced", "reserve": r} for r in (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)},
    **{
        f"balanced cover reserve {r:g}": {"rule": "balanced", "reserve": r, "cover": True}
        for r in (0.0, 0.1, 0.15, 0.2, 0.25, 0.3)
    },
}
SHOWN = tuple(name for name in RULES if not name.endswith(("0.05", "0.15", "0.25", "0.3")))
ATTRIBUTION = "FairFace (Karkkainen and Joo, WACV 2021), CC BY 4.0; labels are perceived attributes"


def measure(known: Faces, kept: np.ndarray) -> dict[str, float]:
    """Return percent and points: shares of non-majority groups, distances to uniform, and coverage."""
    out = {}
    for attribute, labels in known.labels.items():
        before = labels.value_counts(normalize=True, sort=False).to_numpy()
        after = labels[kept].value_counts(normalize=True, sort=False).to_numpy()
        out[f"share {attribute}"] = 100 * float(1 - after[before.argmax()])
        out[f"distance {attribute}"] = 50 * float(np.abs(after - 1 / len(after)).sum())
    x = unit(known.vectors)
    nearest = np.concatenate([(block @ x[kept].T).max(axis=1) for block in np.array_split(x, 8)])
    out["coverage mean"] = 100 * float(nearest.mean())
    out["coverage first percentile"] = 100 * float(np.percentile(nearest, 1))
    return out


def draws(known: Faces, args: argparse.Namespace) -> list[Faces]:
    """Return the set of each repeat."""
    sets = []
    for repeat in range(args.repeats):
        rng = np.random.default_rng([args.seed, repeat])
        if args.skew:
            rows = skewed(known.labels, args.race, args.gender, rng)
        else:
            rows = np.sort(rng.permutation(len(known.names))[: args.rows])
        sets.append(known.take(rows))
    return sets


def compare(sets: list[Faces], rules: dict[str, dict[str, Any]], prototypes: Any, args: argparse.Namespace) -> Any:
    """Return figures[rule][measure] as an array over the repeats; the rule "full" keeps all."""
    figures: dict[str, dict[str, list[float]]] = {}
    started = time.monotonic()
    for repeat, one in enumerate(sets):
        kept_counts = set()
        for name, options in {"full": {}, **rules}.items():
            kept = np.ones(len(one.names), bool)
            if options:
                result = deduplicate(
                    one.vectors, keep=args.keep, prototypes=prototypes, clusters=args.clusters, seed=repeat, **options
                )
                kept = result.decisions["kept"].to_numpy()
                kept_counts.add(int(kept.sum()))
            for key, value in measure(one, kept).items():
                figures.setdefault(name, {}).setdefault(key, []).append(value)
        assert len(kept_counts) == 1, "rules are compared at one count"
        spent = time.monotonic() - started
        left = spent / (repeat + 1) * (len(sets) - repeat - 1)
        print(f"repeat {repeat + 1} of {len(sets)}: {len(one.names)} faces, {left:.0f} s left", file=sys.stderr)
    return {rule: {key: np.array(v) for key, v in own.items()} for rule, own in figures.items()}


def paired(own: np.ndarray, base: np.ndarray) -> dict[str, float | None]:
    """Return the mean difference with its 95 % interval and the p of a paired t-test."""
    gain = own - base
    out: dict[str, float | None] = {"mean": float(gain.mean()), "low": None, "high": None, "p": None}
    if len(gain) > 1 and gain.std() > 0:
        half = float(stats.t.ppf(0.975, len(gain) - 1) * stats.sem(gain))
        p = float(stats.ttest_1samp(gain, 0).pvalue)
        out |= {"low": out["mean"] - half, "high": out["mean"] + half, "p": p}  # type: ignore[operator]
    return out


def report_of(figures: Any) -> dict[str, Any]:
    """Return, for each rule and measure, the mean and the paired difference to `semdedup`."""
    return {
        rule: {
            key: {"mean": float(values.mean()), f"over {BASE}": paired(values, figures[BASE][key])}
            for key, values in own.items()
        }
        for rule, own in figures.items()
    }


def print_table(report: dict[str, Any]) -> None:
    """Print points over semdedup."""
    print(f"\n{'points over ' + BASE:24}" + "".join(f"{'share ' + a:>16}" for a in VALUES)
          + "".join(f"{'distance ' + a:>17}" for a in VALUES) + f"{'coverage p1':>14}{'mean':>8}")  # fmt: skip
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


def figures_header(args: argparse.Namespace, sets: list[Faces], trained_on: int) -> dict[str, Any]:
    """Return what the figures are of."""
    return {
        "data": ATTRIBUTION,
        "command": "python benchmarks/" + " ".join([Path(sys.argv[0]).name, *map(_named, sys.argv[1:])]),
        "setting": f"{args.race} about 60 %, {args.gender} about 70 %" if args.skew else "as it is",
        "keep": args.keep,
        "repeats": args.repeats,
        "seed": args.seed,
        "clusters": args.clusters,
        "faces": [len(one.names) for one in sets],
        "encoder trained on": f"{trained_on} of these faces",
        "prototypes": f"calibrated by {args.calibrate_labels} labels of other faces"
        if args.calibrate_on
        else "captions",
        "hardware": {"processor": cpu_model(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "fairdedup": fairdedup.__version__},
    }


def _named(word: str) -> str:
    """Return an argument without the folders of the machine that it was given on."""
    head, colon, path = word.rpartition(":")
    return f"{head}{colon}{'/'.join(Path(path).parts[-2:])}" if "/" in word else word


def parser_of(text: str | None) -> argparse.ArgumentParser:
    """Return the options that all benchmarks on faces share."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="*", help="folder of the official layout, or tar shards with labels")
    parser.add_argument("--labels", type=Path, help="fairface_label_*.csv; else the one beside the folder")
    parser.add_argument("--encoder", help="MODEL:WEIGHTS as open_clip names them, local-dir:FOLDER or hf-hub:NAME")
    parser.add_argument("--embeddings", type=Path, help="ready embeddings, in place of SOURCE")
    parser.add_argument("--save-embeddings", type=Path, help="folder to keep them in, for --embeddings")
    parser.add_argument("--prototypes", type=Path, default=PROTOTYPES, help="captions of the groups")
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--rows", type=int, default=2500, help="faces of a draw; with --skew as many as there are")
    parser.add_argument("--clusters", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skew", action="store_true", help="make one race and one gender the majority, as on the web")
    parser.add_argument("--race", default="White", choices=VALUES["race"])
    parser.add_argument("--gender", default="Male", choices=VALUES["gender"])
    parser.add_argument(
        "--calibrate-on", help="labelled faces, never those that are pruned, to calibrate prototypes by"
    )
    parser.add_argument("--calibrate-labels", type=int, default=500, help="how many of them")
    parser.add_argument("--without-known-faces", action="store_true", help="leave out faces that the encoder knows")
    parser.add_argument("--same-faces", action="store_true", help="prune faces that the encoder was trained on")
    return parser


def load(args: argparse.Namespace) -> tuple[Faces, Any, int]:
    """Return the faces, the prototypes, and how many faces the encoder was trained on."""
    spec = encoder_of(args.encoder) if args.encoder else None
    if args.embeddings:
        known = read_embeddings(args.embeddings)
    elif spec and args.source:
        known = embed(args.source, args.labels, spec)
    else:
        raise UserError("nothing to prune: give SOURCE and --encoder, or --embeddings")
    if args.save_embeddings:
        write_embeddings(known, args.save_embeddings)
    if needs_text_tower(args.prototypes):
        if spec is None:
            raise UserError(f"--prototypes {str(args.prototypes)!r} holds captions: name the --encoder of these faces")
        prototypes = Prototypes.of(embed_captions(read_captions(args.prototypes), spec))
    else:
        prototypes = read_vectors(args.prototypes, RunDirectory(Path()))  # no exemplars: there is no run
    weights = spec.pretrained if spec else None
    known, trained_on = refuse_known_faces(known, weights, args.same_faces, args.without_known_faces)
    if args.calibrate_on:
        if spec is None:
            raise UserError(f"--calibrate-on {args.calibrate_on!r}: name the --encoder of these faces")
        own = embed([args.calibrate_on], None, spec, args.calibrate_labels)
        both = set(own.digests) & set(known.digests)
        if both:
            raise UserError(f"--calibrate-on {args.calibrate_on!r} has {len(both)} of the faces that are pruned")
        prototypes = calibrated(prototypes, own)
    return known, prototypes, trained_on


def calibrated(prototypes: Prototypes, own: Faces) -> Prototypes:
    """Return the prototypes as `fairdedup calibrate` would write them with the labels of these faces."""
    fits = []
    for attribute in prototypes.attributes:
        labels = own.labels[attribute.name.removeprefix("perceived ")]
        if tuple(labels.cat.categories) != attribute.concepts:
            raise UserError(f"the prototypes of {attribute.name!r} are not FairFace's groups: use fairface.yaml")
        x, vectors = unit(own.vectors).astype(np.float64), unit(attribute.vectors.astype(np.float64))
        fits.append((attribute, calibrate(x, labels.cat.codes.to_numpy(), vectors)))
    found = Prototypes.of({a.name: dict(zip(a.concepts, f.vectors, strict=True)) for a, f in fits})
    return found.at({a.name: f.temperature for a, f in fits})


def panels_of(number: int, height: float, **shared: bool) -> tuple[Any, Any]:
    """Return a figure with panels side by side; the same figures make the same SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "fairdedup"
    import matplotlib.pyplot as plt

    return plt.subplots(1, number, figsize=(13, height), layout="constrained", **shared)


def plot(report: dict[str, Any], file: Path, title: str) -> None:
    """Draw each attribute's gain in the share of non-majority groups against what it costs in coverage."""
    figure, panels = panels_of(len(VALUES), 4.4, sharex=True)
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
    parser = parser_of(__doc__)
    parser.add_argument("--rules", default=",".join(RULES), help="with commas between them")
    parser.add_argument("--out", type=Path, help="JSON; the plot goes beside it")
    args = parser.parse_args()
    unknown = [name for name in args.rules.split(",") if name not in RULES]
    if unknown:
        raise UserError(f"--rules {unknown[0]!r} is unknown: choose among {', '.join(RULES)}")
    known, prototypes, trained_on = load(args)
    sets = draws(known, args)
    wanted = {name: RULES[name] for name in RULES if name in (BASE, *args.rules.split(","))}
    report = report_of(compare(sets, wanted, prototypes, args))
    print_table(report)
    out = args.out or ROOT / "benchmarks" / "results" / f"fairface_{'skewed' if args.skew else 'as_is'}.json"
    header = {
        "what": "percent, and points over semdedup at the same kept count: the share of all groups but the majority, "
        "the distance (total variation) of the shares to uniform ones, and the cosine of every face to its nearest "
        "kept one",
        **figures_header(args, sets, trained_on),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({**header, "rules": report}, indent=1) + "\n", encoding="utf-8")
    plot(report, out.with_suffix(".svg"), f"FairFace, {header['setting']}: {args.keep:.0%} kept, {args.repeats} draws")
    print(f"{out} and {out.with_suffix('.svg').name}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
