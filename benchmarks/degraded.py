"""Measure how much of each rule's gain on FairFace remains with bad prototypes: swapped, noisy, offset or scaled.

    python benchmarks/degraded.py fairface/val --encoder fairdedup-small:face-encoder.safetensors --skew

- swapped: each concept's prototype moves towards that of the next concept; at level 1 every label is wrong
- noisy: a random direction is added, `level` times as long as the concept's difference from the attribute's mean
- offset: each concept's similarity to every face is shifted, by `level` times the spread of true similarities
- scaled: prototypes move together until a face's similarities to an attribute's concepts differ by at most `level`

The results say for each level whether a run would warn that memberships are uninformative.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
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
from faces import VALUES, Faces, scale_to_unit
from results_file import RESULTS, write_results

from fairdedup.core.memberships import choose_temperatures, compute_gaps, compute_memberships
from fairdedup.core.moments import MembershipMoments
from fairdedup.core.prototypes import Attribute, Prototypes
from fairdedup.core.similarity import Vectors, unit_float16
from fairdedup.core.uncertainty import is_uninformative
from fairdedup.errors import UserError

COMPARED = ("fairdedup --published", "fairdedup", "balanced --reserve 0.1", "balanced --reserve 0.2")
WHAT = (
    "points over the base at the same kept count when the prototypes are made worse; `warned of` names the "
    "attributes whose memberships, the run would warn, say nothing"
)
LEVELS: dict[str, tuple[float, ...]] = {
    "swapped": (0.5, 1.0),
    "noisy": (1.0, 4.0),
    "offset": (0.5, 1.0, 4.0),
    "scaled": (0.03, 0.001),
}


def similarity_range(vectors: np.ndarray, faces: np.ndarray) -> float:
    """Return the median, over faces (n, d), of the range of similarities to the concepts (c, d)."""
    similarity = faces @ scale_to_unit(vectors).T
    return float(np.median(np.ptp(similarity, axis=1)))


def degrade_attribute(
    attribute: Attribute, how: str, level: float, *, faces: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return worse prototypes (c, d) of one attribute.

    Parameters
    ----------
    attribute : Attribute
        The attribute with its present prototypes.
    how : str
        A key of LEVELS.
    level : float
        How much worse to make them.
    faces : ndarray of shape (n, d)
        Unit embeddings of the faces.
    rng : numpy.random.Generator
        Source of noise.
    """
    p = scale_to_unit(attribute.vectors.astype(np.float64))
    apart = p - p.mean(0)
    if how == "swapped":
        return scale_to_unit((1 - level) * p + level * np.roll(p, 1, axis=0))
    if how == "noisy":
        noise = scale_to_unit(rng.standard_normal(p.shape))
        return scale_to_unit(p + level * np.linalg.norm(apart, axis=1, keepdims=True) * noise)
    if how == "offset":
        common = scale_to_unit(faces.mean(0))
        shift = level * np.std(faces @ p.T) * rng.standard_normal((len(p), 1))
        return scale_to_unit(p + shift * common / float((faces @ common).mean()))
    if how == "scaled":
        low, high = 0.0, 1.0
        for _ in range(40):  # bisection: the range grows with the scale
            middle = (low + high) / 2
            low, high = (middle, high) if similarity_range(p.mean(0) + middle * apart, faces) < level else (low, middle)
        return scale_to_unit(p.mean(0) + high * apart)
    raise UserError(f"{how!r} is not a way to degrade prototypes: choose one of {', '.join(LEVELS)}")


def degrade_prototypes(prototypes: Prototypes, how: str, level: float, *, faces: Faces, seed: int) -> Prototypes:
    """Return worse prototypes, as `degrade_attribute` makes them for each attribute."""
    rng, unit = np.random.default_rng(seed), scale_to_unit(faces.vectors.astype(np.float64))
    worse = {
        a.name: dict(zip(a.concepts, degrade_attribute(a, how, level, faces=unit, rng=rng), strict=True))
        for a in prototypes.attributes
    }
    return Prototypes.of(worse)


def uninformative_attributes(faces: Faces, prototypes: Prototypes) -> list[str]:
    """Return the attributes for which a run on all faces would warn that memberships are uninformative."""
    similarity = prototypes.scores(Vectors.of(unit_float16(faces.vectors)[0]))
    temperatures = choose_temperatures(prototypes, "auto", lambda: [compute_gaps(s) for s in similarity])
    return [
        a.name
        for a, s, t in zip(prototypes.attributes, similarity, temperatures, strict=True)
        if is_uninformative(MembershipMoments.of(compute_memberships(s, t, len(a.concepts))))
    ]


def gain_in_share(line: dict[str, Any], rule: str, attribute: str) -> float:
    """Return the points that a rule gains over BASE in the share of non-majority groups."""
    return float(line["rules"][rule][f"share {attribute}"]["over base"]["mean"])


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS / "degraded.json")
    args = parser.parse_args()
    loaded = load_faces(args)
    sets = draw_faces(loaded.faces, args)
    rules = {name: RULES[name] for name in (BASE, *COMPARED)}
    table: list[dict[str, Any]] = []
    for how, level in (("not at all", 0.0), *((how, level) for how, levels in LEVELS.items() for level in levels)):
        worse = loaded.prototypes
        if how != "not at all":
            worse = degrade_prototypes(worse, how, level, faces=loaded.faces, seed=args.seed)
        report = summarise(compare_rules(sets, rules, worse, args, loaded.priors))
        warned = uninformative_attributes(loaded.faces, worse)
        table.append({"how": how, "level": level, "warned of": warned, "rules": report})
        gains = "  ".join(
            f"{rule} " + " / ".join(f"{gain_in_share(table[-1], rule, a):+.2f}" for a in VALUES) for rule in COMPARED
        )
        print(f"{how} {level:g}: {gains}{'  warned of ' + ', '.join(warned) if warned else ''}", flush=True)
    setting = describe_setting(args, sets, loaded.trained_on)
    write_results(args.out, {**setting, "table": table}, what=WHAT, seed=args.seed)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
