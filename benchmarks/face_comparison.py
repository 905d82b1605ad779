"""The shared parts of the benchmarks on faces: options, faces and prototypes, and the comparison of rules.

Each repeat draws rows and clusters them, and all rules decide on that draw at the same kept count. Labels are what
annotators perceived, and serve only for measuring.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from faces import (
    ATTRIBUTION,
    VALUES,
    Faces,
    choose_skewed,
    embed_faces,
    find_weights,
    leave_out_known_faces,
    parse_encoder,
    read_embeddings,
    scale_to_unit,
    write_embeddings,
)
from paired_seeds import paired_difference
from results_file import ROOT

from fairdedup import deduplicate
from fairdedup.core.calibration import calibrate
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.share_estimate import correct_shares, equal_priors
from fairdedup.core.similarity import Vectors, unit_float16
from fairdedup.errors import UserError
from fairdedup.prototype_files import needs_text_tower, read_vectors
from fairdedup.stages.caption_embedding import embed_captions, read_captions

PROTOTYPES = ROOT / "configs" / "prototypes" / "fairface.yaml"
BASE = "semdedup --published"
PUBLISHED = {"published": True}  # within clusters and without cover, as the papers have it
ALL_KEPT = 100_000  # rows that are looked up for duplicates left: more than any draw has
# Named by what follows --rule on the command line. What is not --published has the defaults: cover, and reach auto.
RULES: dict[str, dict[str, Any]] = {
    "random": {"rule": "random"},
    "semdedup-chain": {"rule": "semdedup-chain"},
    "random-neighbour --published": {"rule": "random-neighbour", **PUBLISHED},
    "semdedup --published": {"rule": "semdedup", **PUBLISHED},
    "fairdedup --published": {"rule": "fairdedup", **PUBLISHED},
    **{
        f"balanced --published --reserve {r:g}": {"rule": "balanced", "reserve": r, **PUBLISHED}
        for r in (0.0, 0.1, 0.2, 0.3)
    },
    "fairdedup --reach 0": {"rule": "fairdedup", "reach": 0},
    **{f"balanced --reach 0 --reserve {r:g}": {"rule": "balanced", "reach": 0, "reserve": r} for r in (0.1, 0.2)},
    "semdedup": {"rule": "semdedup"},
    "fairdedup": {"rule": "fairdedup"},
    "fairdedup --calibrate zscore": {"rule": "fairdedup", "calibrate": "zscore"},
    **{f"balanced --reserve {r:g}": {"rule": "balanced", "reserve": r} for r in (0.0, 0.1, 0.2, 0.3)},
}


Priors = dict[str, np.ndarray]  # attribute -> shares of its concepts (c,) where memberships are probabilities
Figures = dict[str, dict[str, np.ndarray]]  # rule -> measure -> its value in each repeat


class Loaded(NamedTuple):
    """The faces to prune, the prototypes, how many of the faces the encoder knows, and the shares among the labels."""

    faces: Faces
    prototypes: Prototypes
    trained_on: int
    priors: Priors


def measure_kept(faces: Faces, kept: np.ndarray) -> dict[str, float]:
    """Return the share of non-majority groups, the distance of the shares to uniform ones, and coverage, in percent.

    Parameters
    ----------
    faces : Faces
        All faces, n of them.
    kept : ndarray of shape (n,), bool
        Which faces are kept.
    """
    out = {}
    for attribute, labels in faces.labels.items():
        before = labels.value_counts(normalize=True, sort=False).to_numpy()
        after = labels[kept].value_counts(normalize=True, sort=False).to_numpy()
        out[f"share {attribute}"] = 100 * float(1 - after[before.argmax()])
        out[f"distance {attribute}"] = 50 * float(np.abs(after - 1 / len(after)).sum())
    x = scale_to_unit(faces.vectors)
    nearest = np.concatenate([(block @ x[kept].T).max(axis=1) for block in np.array_split(x, 8)])
    out["coverage mean"] = 100 * float(nearest.mean())
    out["coverage first percentile"] = 100 * float(np.percentile(nearest, 1))
    return out


def draw_faces(faces: Faces, args: argparse.Namespace) -> list[Faces]:
    """Return the faces that each repeat draws."""
    sets = []
    for repeat in range(args.repeats):
        rng = np.random.default_rng([args.seed, repeat])
        if args.skew:
            rows = choose_skewed(faces.labels, args.race, args.gender, rng)
        else:
            rows = np.sort(rng.permutation(len(faces.names))[: args.rows])
        sets.append(faces.take(rows))
    return sets


def compare_rules(
    sets: list[Faces],
    rules: dict[str, dict[str, Any]],
    prototypes: Prototypes,
    args: argparse.Namespace,
    priors: Priors,
) -> Figures:
    """Prune each draw by each rule, and measure the result; the rule "full" keeps all faces.

    Parameters
    ----------
    sets : list of Faces
        The faces of each repeat.
    rules : dict of str to dict
        Options of `deduplicate` for each rule, by the name in the results.
    prototypes : Prototypes
        Prototypes of the rules that read them.
    args : argparse.Namespace
        Options of `make_parser`.
    priors : dict of str to ndarray
        With `--correct-shares`: the shares where memberships are probabilities.
    """
    figures: dict[str, dict[str, list[float]]] = {}
    started = time.monotonic()
    for repeat, one in enumerate(sets):
        kept_counts = set()
        own_prototypes = correct_for_draw(prototypes, one.vectors, priors) if args.correct_shares else prototypes
        for name, options in {"full": {}, **rules}.items():
            kept, left = np.ones(len(one.names), bool), None
            if options:
                result = deduplicate(
                    one.vectors,
                    keep=args.keep,
                    prototypes=own_prototypes,
                    clusters=args.clusters,
                    seed=repeat,
                    leftover=ALL_KEPT,
                    **options,
                )
                kept, left = result.decisions["kept"].to_numpy(), result.leftover
                kept_counts.add(int(kept.sum()))
            measures = measure_kept(one, kept)
            if left is not None:  # `random` has no eps, so it has no duplicates
                measures["duplicates left"] = 100 * left.any / left.looked_up
            for key, value in measures.items():
                figures.setdefault(name, {}).setdefault(key, []).append(value)
        assert len(kept_counts) == 1, "rules are compared at one count"
        spent = time.monotonic() - started
        remaining = spent / (repeat + 1) * (len(sets) - repeat - 1)
        print(f"repeat {repeat + 1} of {len(sets)}: {len(one.names)} faces, {remaining:.0f} s left", file=sys.stderr)
    return {rule: {key: np.array(v) for key, v in own.items()} for rule, own in figures.items()}


def summarise(figures: Figures) -> dict[str, Any]:
    """Return, for each rule and measure, the mean and the paired difference to BASE."""
    return {
        rule: {
            key: {"mean": float(values.mean()), "over base": paired_difference(values, figures[BASE][key])}
            for key, values in own.items()
        }
        for rule, own in figures.items()
    }


def describe_setting(args: argparse.Namespace, sets: list[Faces], trained_on: int) -> dict[str, Any]:
    """Return the data and the options behind the figures, for the result file."""
    return {
        "data": ATTRIBUTION,
        "setting": f"{args.race} about 60 %, {args.gender} about 70 %" if args.skew else "as it is",
        "base": BASE,
        "keep": args.keep,
        "repeats": args.repeats,
        "clusters": args.clusters,
        "faces": [len(one.names) for one in sets],
        "encoder trained on": f"{trained_on} of these faces",
        "prototypes": (
            f"calibrated by {args.calibrate_labels} labels of other faces" if args.calibrate_on else "captions"
        )
        + (", corrected by the shares of each draw, which no label tells" if args.correct_shares else ""),
    }


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks on faces share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="*", help="folder of the official layout, or tar shards with labels")
    parser.add_argument("--labels", type=Path, help="fairface_label_*.csv  [default: the one next to the folder]")
    parser.add_argument("--encoder", help="MODEL:WEIGHTS as open_clip names them, local-dir:FOLDER or hf-hub:NAME")
    parser.add_argument("--embeddings", type=Path, help="folder of ready embeddings, in place of SOURCE")
    parser.add_argument("--save-embeddings", type=Path, help="folder to write the embeddings to, for --embeddings")
    parser.add_argument("--prototypes", type=Path, default=PROTOTYPES, help="captions of the groups")
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--rows", type=int, default=2500, help="faces of a draw; --skew decides this itself")
    parser.add_argument("--clusters", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skew", action="store_true", help="make one race and one gender the majority, as on the web")
    parser.add_argument("--race", default="White", choices=VALUES["race"])
    parser.add_argument("--gender", default="Male", choices=VALUES["gender"])
    parser.add_argument(
        "--calibrate-on", help="labelled faces to calibrate the prototypes on; they must not be among those to prune"
    )
    parser.add_argument("--calibrate-labels", type=int, default=500, help="number of labelled faces to calibrate on")
    parser.add_argument(
        "--correct-shares", action="store_true", help="correct memberships by the shares estimated of each draw"
    )
    parser.add_argument(
        "--without-known-faces", action="store_true", help="leave out faces that the encoder was trained on"
    )
    parser.add_argument("--same-faces", action="store_true", help="prune even faces that the encoder was trained on")
    return parser


def load_faces(args: argparse.Namespace) -> Loaded:
    """Load or embed the faces, and load the prototypes.

    Raises
    ------
    UserError
        If options are missing or do not fit together, or the encoder was trained on some of the faces.
    """
    spec = parse_encoder(args.encoder) if args.encoder else None
    if args.embeddings:
        faces = read_embeddings(args.embeddings)
    elif spec and args.source:
        faces = embed_faces(args.source, args.labels, spec)
    else:
        raise UserError("nothing to prune: give SOURCE and --encoder, or --embeddings")
    if args.save_embeddings:
        write_embeddings(faces, args.save_embeddings)
    if needs_text_tower(args.prototypes):
        if spec is None:
            raise UserError(f"--prototypes {str(args.prototypes)!r} holds captions: give the --encoder of these faces")
        prototypes = Prototypes.of(embed_captions(read_captions(args.prototypes), spec))
    else:
        prototypes = read_vectors(args.prototypes)
    faces, trained_on = leave_out_known_faces(
        faces,
        find_weights(spec) if spec else None,
        allow=args.same_faces,
        leave_out=args.without_known_faces,
    )
    priors = equal_priors(prototypes)
    if args.calibrate_on:
        if spec is None:
            raise UserError(f"--calibrate-on {args.calibrate_on!r}: give the --encoder of these faces")
        labelled = embed_faces([args.calibrate_on], None, spec, args.calibrate_labels)
        both = set(labelled.digests) & set(faces.digests)
        if both:
            raise UserError(
                f"--calibrate-on {args.calibrate_on!r} has {len(both)} of the faces that are pruned: give other faces"
            )
        prototypes, priors = calibrate_on_faces(prototypes, labelled), count_priors(prototypes, labelled)
    return Loaded(faces, prototypes, trained_on, priors)


def count_priors(prototypes: Prototypes, faces: Faces) -> Priors:
    """Return the shares of each attribute's concepts among some faces, by their labels."""
    return {
        a.name: faces.labels[a.name.removeprefix("perceived ")].value_counts(normalize=True, sort=False).to_numpy()
        for a in prototypes.attributes
    }


def correct_for_draw(prototypes: Prototypes, vectors: np.ndarray, priors: Priors) -> Prototypes:
    """Return the prototypes as `fairdedup calibrate --correct-shares` would write them for these vectors (n, d)."""
    return correct_shares(prototypes, prototypes.scores(Vectors.of(unit_float16(vectors)[0])), priors)[0]


def calibrate_on_faces(prototypes: Prototypes, faces: Faces) -> Prototypes:
    """Return the prototypes as `fairdedup calibrate` would write them with the labels of these faces."""
    fits = []
    for attribute in prototypes.attributes:
        labels = faces.labels[attribute.name.removeprefix("perceived ")]
        if tuple(labels.cat.categories) != attribute.concepts:
            raise UserError(f"the prototypes of {attribute.name!r} are not FairFace's groups: use fairface.yaml")
        x = scale_to_unit(faces.vectors).astype(np.float64)
        vectors = scale_to_unit(attribute.vectors.astype(np.float64))
        fits.append((attribute, calibrate(x, labels.cat.codes.to_numpy(), vectors)))
    calibrated = Prototypes.of({a.name: dict(zip(a.concepts, f.vectors, strict=True)) for a, f in fits})
    return calibrated.with_temperatures({a.name: f.temperature for a, f in fits})
