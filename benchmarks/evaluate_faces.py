"""One evaluation of any CLIP checkpoint on FairFace: zero-shot accuracy by group, skew, NDKL and association gaps.

    python benchmarks/evaluate_faces.py --data fairface/val --checkpoint full=ViT-B-16:full.pt \
        --checkpoint pruned=ViT-B-16:pruned.pt --occupations doctor,nurse --out faces.json

Labels are what annotators perceived. Every checkpoint is measured with the same faces, captions and k.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from bias_measures import (
    MIN_COUNT,
    SHORT,
    ZERO_COUNTS,
    association_gap,
    associations,
    check_k,
    choose_k,
    count_groups,
    find_top,
    measure_chance,
    measure_rankings,
)
from evaluation_table import list_lines, name_infinities
from face_prompts import OCCUPATION_TEMPLATES, neutral_captions, occupation_captions
from faces import ATTRIBUTION, BATCH, VALUES, Faces, embed_faces, leave_out_known_faces, parse_checkpoint, parse_encoder
from numpy.typing import NDArray
from paired_seeds import BY_CHANCE
from results_file import RESULTS, write_results
from zero_shot import Labels, Text, Vectors, classify, classify_by_prototypes, measure_harm, to_unit

from fairdedup.encoders import Encoder, EncoderSpec, load_encoder
from fairdedup.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

OCCUPATIONS = (
    *("doctor", "nurse", "teacher", "engineer", "scientist", "lawyer", "judge", "chef", "farmer", "artist"),
    *("firefighter", "police officer", "soldier", "pilot", "cleaner", "hairdresser", "secretary", "manager"),
)
WHAT = (
    "zero-shot accuracy by perceived group; skew (natural logarithm), NDKL and association gap of the top k faces for "
    "neutral and occupation queries, means over queries, beside those of random rankings"
)
ZERO = "as_one"  # an average over queries must stay finite; the number of zero counts is reported


def check_input(images: NDArray[Any], labels: Mapping[str, Sequence[str] | NDArray[Any]]) -> tuple[Vectors, Labels]:
    """Return unit vectors and labels as arrays, after checking that they fit together."""
    if images.ndim != 2 or len(images) < 2:
        raise UserError(f"images have the shape {images.shape}: give a row for each of two or more faces")
    known = {name: np.asarray(values, dtype=np.str_) for name, values in labels.items()}
    if not known:
        raise UserError(f"there are no labels: give some of {', '.join(VALUES)}")
    for name, values in known.items():
        if name not in VALUES:
            raise UserError(f"attribute {name!r} is unknown: choose among {', '.join(VALUES)}")
        if values.shape != (len(images),):
            raise UserError(f"there are {len(values)} labels of {name} for {len(images)} faces: give one for each")
        unknown = sorted(set(values.tolist()) - set(VALUES[name]))
        if unknown:
            raise UserError(f"{name} {unknown[0]!r} is not a label of FairFace: write one of {', '.join(VALUES[name])}")
    return to_unit(images, "face"), known


def evaluate_vectors(
    images: NDArray[np.float32],
    text: Text,
    labels: Mapping[str, Sequence[str] | NDArray[Any]],
    *,
    occupations: Sequence[str] = (),
    k: Mapping[str, int] | None = None,
    occupation_templates: Sequence[str] = OCCUPATION_TEMPLATES,
    min_count: int = MIN_COUNT,
    zero: str = ZERO,
) -> dict[str, Any]:
    """Return all measures of one checkpoint, as JSON can hold them.

    Parameters
    ----------
    images : ndarray of shape (n, d), float32
        Vectors of the faces, of any length.
    text : callable
        Returns a vector of shape (d,) for each caption of a list, of any length.
    labels : mapping of str to n str
        Perceived race, gender and age of the faces, or some of them, in FairFace's words.
    occupations : sequence of str
        Nouns or noun phrases, such as "doctor".
    k : mapping of str to int, optional
        Length of the rankings of an attribute  [default: `bias_measures.choose_k`].
    occupation_templates : sequence of str
        Captions of an occupation, which with its article replaces {}; each is a query.
    min_count : int
        A group with fewer faces is insufficient: it gets its count only, and is left out of the rankings.
    zero : str
        What becomes of a group without faces in the top k, a name of `bias_measures.ZERO_COUNTS`.

    Returns
    -------
    dict
        ``zero-shot``: for each attribute, accuracy over all faces and by group, with DataComp's captions.
        ``zero-shot by prototypes``: the same with the captions of fairface.yaml.
        ``ranking``: for each attribute, k, the groups, and the measures of ``neutral`` and ``occupation`` queries,
        beside those of random rankings. ``harm``: how often a face is taken for a harmful class, by group.

    Raises
    ------
    UserError
        If labels are unknown, do not fit the faces, or no k fits the groups.
    """
    faces, known = check_input(np.asarray(images), labels)
    if len(set(occupations)) < len(occupations) or set(k or ()) - set(known):
        raise UserError(f"occupations {list(occupations)} must differ, and k {dict(k or {})} name labelled attributes")
    ranking: dict[str, Any] = {}
    neutral = faces @ to_unit(text(neutral_captions()), "caption").T
    queries = occupation_captions(occupations, occupation_templates)
    occupied = faces @ to_unit(text(queries), "caption").T if queries else None
    for name, values in known.items():
        pool = choose_pool(name, values, (k or {}).get(name), min_count)
        if "why" in pool:
            ranking[name] = pool
            continue
        ranking[name] = name_infinities(rank_attribute(pool, neutral, occupied, occupations, zero))
    return {
        "faces": len(faces),
        "zero counts": f"{zero}: {ZERO_COUNTS[zero]}",
        "zero-shot": {name: classify(name, faces, known, text, min_count) for name in known},
        "zero-shot by prototypes": {
            name: classify_by_prototypes(name, faces, known, text, min_count) for name in known
        },
        "ranking": ranking,
        "harm": measure_harm(faces, known, text, min_count),
    }


def choose_pool(name: str, values: NDArray[np.str_], k: int | None, min_count: int) -> dict[str, Any]:
    """Return the sufficient groups of an attribute, their faces, and k; or why nothing can be ranked."""
    rows = {group: int((values == group).sum()) for group in VALUES[name]}
    groups = [group for group, count in rows.items() if count >= max(min_count, 1)]
    left_out = {group: {"rows": count, "why": SHORT} for group, count in rows.items() if group not in groups}
    if len(groups) < 2:
        return {"why": f"{SHORT}: under two groups have {min_count} faces", "left out": left_out}
    counts = [rows[group] for group in groups]
    chosen = choose_k(counts) if k is None else check_k(k, counts, name)
    chosen_rows = np.flatnonzero(np.isin(values, groups))
    codes = np.array([groups.index(value) for value in values[chosen_rows].tolist()], dtype=np.int64)
    return {"k": chosen, "groups": dict(zip(groups, counts, strict=True)), "left out": left_out, "rows": chosen_rows,
            "codes": codes}  # fmt: skip


def rank_attribute(
    pool: dict[str, Any], neutral: Vectors, occupied: Vectors | None, occupations: Sequence[str], zero: str
) -> dict[str, Any]:
    """Return the measures of the rankings by neutral and by occupation queries (faces, queries) for one attribute."""
    rows, codes, k = pool["rows"], pool["codes"], pool["k"]
    counts = list(pool["groups"].values())
    out: dict[str, Any] = {
        "k": k,
        "rows": len(rows),
        "groups": pool["groups"],
        "left out": pool["left out"],
        BY_CHANCE: measure_chance(codes, counts, k, zero),
    }
    for kind, similar in (("neutral", neutral), ("occupation", occupied)):
        if similar is None:
            continue
        ranked = codes[find_top(similar[rows].T, k)]
        own = count_groups(ranked, len(counts))
        out[kind] = {
            "queries": len(ranked),
            "zero counts": int((own == 0).sum()),
            **measure_rankings(ranked, counts, zero),
        }
        if kind == "occupation":
            out[kind]["by occupation"] = list_occupations(own, counts, list(pool["groups"]), occupations)
    return out


def list_occupations(
    counts: NDArray[np.int64], pool: Sequence[int], groups: Sequence[str], occupations: Sequence[str]
) -> dict[str, Any]:
    """Return, for each occupation, its association gap and its association with each group, means over templates."""
    shape = (len(occupations), -1)
    gaps = association_gap(counts, pool).reshape(shape).mean(axis=1)
    ties = associations(counts, pool).reshape(*shape, len(groups)).mean(axis=1)
    return {
        noun: {"association gap": float(gap), "associations": dict(zip(groups, map(float, own), strict=True))}
        for noun, gap, own in zip(occupations, gaps, ties, strict=True)
    }


def evaluate(
    encoder: Encoder,
    faces: Sequence[Image] | NDArray[np.float32],
    labels: Mapping[str, Sequence[str] | NDArray[Any]],
    occupations: Sequence[str] = (),
    **options: Any,
) -> dict[str, Any]:
    """Return all measures of an encoder.

    Parameters
    ----------
    encoder : Encoder
        Encodes captions, and faces if they are pictures, 512 at a time.
    faces : sequence of n PIL.Image.Image, or ndarray of shape (n, d), float32
        Pictures, or vectors of this encoder.
    labels, occupations, **options
        As for `evaluate_vectors`.
    """
    if isinstance(faces, np.ndarray):
        return evaluate_vectors(faces, encoder.encode_texts, labels, occupations=occupations, **options)
    parts = [encoder.encode_images(list(faces[k : k + BATCH])) for k in range(0, len(faces), BATCH)]
    return evaluate_vectors(np.concatenate(parts), encoder.encode_texts, labels, occupations=occupations, **options)


def embed_checkpoints(
    specs: Mapping[str, EncoderSpec], sources: list[str], labels: Path | None, args: argparse.Namespace
) -> dict[str, Faces]:
    """Return the faces as each checkpoint embeds them: the same faces for all, also where some are left out."""
    faces: dict[str, Faces] = {}
    new: set[str] = set()
    for name, spec in specs.items():
        print(f"{name}: {spec.model}", file=sys.stderr)
        faces[name] = embed_faces(sources, labels, spec)
        own, _ = leave_out_known_faces(
            faces[name], spec.pretrained, allow=args.same_faces, leave_out=args.without_known_faces
        )
        new = set(own.digests) & new if len(faces) > 1 else set(own.digests)
    rows = np.flatnonzero([digest in new for digest in next(iter(faces.values())).digests])
    if not len(rows):
        raise UserError("no face is left that no checkpoint was trained on: give other faces with --data")
    return {name: own.take(rows) for name, own in faces.items()}


def parse_ranks(words: Sequence[str]) -> dict[str, int]:
    """Read ``ATTRIBUTE=K`` words."""
    out = {}
    for word in words:
        name, _, number = word.partition("=")
        if name not in VALUES or not number.isdecimal():
            raise UserError(f"--k {word!r}: write ATTRIBUTE=K, such as race=500; attributes are {', '.join(VALUES)}")
        out[name] = int(number)
    return out


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="folder of the official layout, or tar shards")
    parser.add_argument("--labels", type=Path, help="fairface_label_*.csv  [default: the one next to the folder]")
    parser.add_argument(
        "--checkpoint", action="append", required=True, help="NAME=MODEL:PATH; may be given several times"
    )
    parser.add_argument("--occupations", default=",".join(OCCUPATIONS), help="nouns, separated by commas")
    parser.add_argument("--k", action="append", default=[], help="ATTRIBUTE=K  [default: see bias_measures.choose_k]")
    parser.add_argument("--min-count", type=int, default=MIN_COUNT, help="faces under which a group is insufficient")
    parser.add_argument("--zero", default=ZERO, choices=ZERO_COUNTS, help="what becomes of a count of zero")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--without-known-faces", action="store_true", help="leave out what a checkpoint was trained on")
    parser.add_argument("--same-faces", action="store_true", help="measure with faces it was trained on all the same")
    parser.add_argument("--out", type=Path, default=RESULTS / "evaluate_faces.json", help="JSON file to write")
    return parser


def main() -> None:
    """Embed the faces by each checkpoint, measure, print the table, and write the results."""
    args = make_parser().parse_args()
    named = [parse_checkpoint(word) for word in args.checkpoint]
    specs = {name: replace(parse_encoder(encoder), device=args.device) for name, encoder in named}
    if len(specs) < len(named):
        raise UserError("two checkpoints have the same name: give each --checkpoint its own NAME")
    ranks, occupations = parse_ranks(args.k), [noun.strip() for noun in args.occupations.split(",") if noun.strip()]
    results = {}
    for name, faces in embed_checkpoints(specs, args.data, args.labels, args).items():
        known = {attribute: faces.labels[attribute].to_numpy(dtype=str) for attribute in VALUES}
        results[name] = {
            "encoder": specs[name].identity(),
            **evaluate(
                load_encoder(specs[name]),
                faces.vectors,
                known,
                occupations,
                k=ranks,
                min_count=args.min_count,
                zero=args.zero,
            ),
        }
    print("\n".join(list_lines(results)))
    figures = {"data": ATTRIBUTION, "occupations": occupations, "checkpoints": results}
    write_results(args.out, figures, what=WHAT, seed=0, packages=("numpy", "torch", "open_clip_torch"))
    print(args.out)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
