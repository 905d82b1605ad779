"""Zero-shot classification of faces: accuracy by group, and how often a face is taken for a harmful class.

The most similar caption is the guess; ties go to the first caption. It loads no model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from bias_measures import SHORT, measure_accuracy
from face_prompts import harm_captions, probe_captions, prototype_captions
from faces import VALUES, scale_to_unit
from numpy.typing import NDArray

from fairdedup.errors import UserError

Text = Callable[[list[str]], NDArray[np.float32]]
Vectors = NDArray[np.float64]
Labels = dict[str, NDArray[np.str_]]


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
