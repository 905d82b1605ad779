"""One evaluation of any CLIP checkpoint on FairFace: zero-shot accuracy by group, skew, NDKL and association gaps.

    python benchmarks/evaluate_faces.py --data fairface/val --checkpoint full=ViT-B-16:full.pt \
        --checkpoint pruned=ViT-B-16:pruned.pt --occupations doctor,nurse --out faces.json

Labels are what annotators perceived. Every checkpoint is measured with the same faces, captions and k.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    measure_accuracy,
    measure_chance,
    measure_rankings,
)
from face_prompts import (
    OCCUPATION_TEMPLATES,
    harm_captions,
    neutral_captions,
    occupation_captions,
    probe_captions,
    prototype_captions,
)
from faces import VALUES, scale_to_unit
from numpy.typing import NDArray
from paired_seeds import BY_CHANCE

from fairdedup.encoders import Encoder
from fairdedup.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

Text = Callable[[list[str]], NDArray[np.float32]]
Vectors = NDArray[np.float64]
Labels = dict[str, NDArray[np.str_]]
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


def to_unit(vectors: NDArray[Any], what: str) -> Vectors:
    """Return rows of unit length in float64.

    Raises
    ------
    UserError
        If a row is not finite or has no direction.
    """
    wide = np.asarray(vectors, dtype=np.float64)
    bad = ~np.isfinite(wide).all(axis=1) | ~wide.any(axis=1)
    if bad.any():
        raise UserError(f"the vector of {what} {int(bad.argmax())} is zero or not finite: the checkpoint is damaged")
    return np.asarray(scale_to_unit(wide))


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
        ``zero-shot by prototypes``: the same with the captions of fairface.yaml. ``ranking``: for each attribute, k, the
        groups, and the measures of ``neutral`` and ``occupation`` queries beside those of random rankings. ``harm``: how
        often a face is taken for a harmful class, by group.

    Raises
    ------
    UserError
        If labels are unknown, do not fit the faces, or no k fits the groups.
    """
    faces, known = check_input(np.asarray(images), labels)
    ranking: dict[str, Any] = {}
    neutral = faces @ to_unit(text(neutral_captions()), "caption").T
    queries = occupation_captions(occupations, occupation_templates)
    occupied = faces @ to_unit(text(queries), "caption").T if queries else None
    for name, values in known.items():
        pool = choose_pool(name, values, (k or {}).get(name), min_count)
        if "why" in pool:
            ranking[name] = pool
            continue
        ranking[name] = rank_attribute(pool, neutral, occupied, occupations, zero)
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


def classify(name: str, faces: Vectors, labels: Labels, text: Text, min_count: int) -> dict[str, Any]:
    """Return the accuracy of the most similar caption of one attribute, overall and by the groups of each attribute."""
    captions = probe_captions(name)
    by = score_guesses(name, faces @ to_unit(text(captions), "caption").T, labels, min_count)
    own = by.pop(name)
    return {"captions": captions, **own, "by other attributes": by}


def classify_by_prototypes(name: str, faces: Vectors, labels: Labels, text: Text, min_count: int) -> dict[str, Any]:
    """Return the accuracy of the most similar mean of the captions of fairface.yaml, as the rules perceive groups."""
    means = [to_unit(text(captions), "caption").mean(axis=0) for captions in prototype_captions(name)]
    return score_guesses(name, faces @ to_unit(np.stack(means), "prototype").T, {name: labels[name]}, min_count)[name]


def score_guesses(name: str, similar: Vectors, labels: Labels, min_count: int) -> dict[str, dict[str, Any]]:
    """Return the accuracy of the most similar label (n, labels) by groups of each attribute; ties go to the first."""
    right = np.array(VALUES[name])[similar.argmax(axis=1)] == labels[name]
    return {other: order_groups(other, measure_accuracy(right, own, min_count)) for other, own in labels.items()}


def order_groups(name: str, accuracy: dict[str, Any]) -> dict[str, Any]:
    """Return an accuracy with its groups in FairFace's order."""
    groups = {group: accuracy["groups"][group] for group in VALUES[name] if group in accuracy["groups"]}
    return {**accuracy, "groups": groups}


def measure_harm(faces: Vectors, labels: Labels, text: Text, min_count: int) -> dict[str, Any]:
    """Return how often a face is taken for a harmful class of CLIP's section 7.1, for all faces and by group."""
    kinds = harm_captions()
    names = np.array([kind for kind, captions in kinds.items() for _ in captions])
    captions = [caption for own in kinds.values() for caption in own]
    guesses = names[(faces @ to_unit(text(captions), "caption").T).argmax(axis=1)]
    out: dict[str, Any] = {"note": "a measure of harm to report, not one to tune for"}
    for kind in ("crime", "not human"):
        taken = guesses == kind
        out[kind] = {"rate": float(taken.mean())}
        for name, values in labels.items():
            out[kind][name] = {}
            for group in VALUES[name]:
                own = taken[values == group]
                enough = len(own) >= max(min_count, 1)
                out[kind][name][group] = float(own.mean()) if enough else SHORT
    return out


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
        Encodes captions, and faces if they are pictures.
    faces : sequence of n PIL.Image.Image, or ndarray of shape (n, d), float32
        Pictures, or vectors of this encoder.
    labels, occupations, **options
        As for `evaluate_vectors`.
    """
    images = faces if isinstance(faces, np.ndarray) else encoder.encode_images(list(faces))
    return evaluate_vectors(images, encoder.encode_texts, labels, occupations=occupations, **options)


def parse_checkpoint(text: str) -> tuple[str, str]:
    """Read ``NAME=MODEL:PATH``, and return the name and ``MODEL:PATH``."""
    name, equals, encoder = text.partition("=")
    if not equals or not name or not encoder:
        raise UserError(f"--checkpoint {text!r}: write NAME=MODEL:PATH, such as full=ViT-B-16:full.pt")
    return name, encoder


def main() -> None:
    raise SystemExit("not yet")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
