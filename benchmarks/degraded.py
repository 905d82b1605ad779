"""What is left of each rule's gain on FairFace when the prototypes are bad: swapped, noisy, offset, or all alike.

    python benchmarks/degraded.py fairface/val --encoder fairdedup-small:face-encoder.safetensors --skew

- swapped: each concept's prototype turns into that of the next concept; at 1 every label is wrong
- noisy: a random direction is added, `level` times as long as what tells the concept from the attribute's others
- offset: each concept's similarity to every face is shifted, by `level` times the spread of true similarities
- scaled: prototypes draw together until a face's similarities to an attribute's concepts lie within `level`

Whether a run would warn that memberships say nothing is noted beside each figure.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from faces import VALUES, Faces, unit
from fairface import BASE, ROOT, RULES, compare, draws, figures_header, load, panels_of, parser_of, report_of

from fairdedup.core.memberships import choose_temperatures, compute_gaps, compute_memberships
from fairdedup.core.moments import MembershipMoments
from fairdedup.core.prototypes import Attribute, Prototypes
from fairdedup.core.similarity import Vectors, unit_float16
from fairdedup.core.uncertainty import is_uninformative
from fairdedup.errors import UserError

COMPARED = ("fairdedup", "fairdedup zscore", "balanced reserve 0.1", "balanced cover reserve 0.2")
LEVELS: dict[str, tuple[float, ...]] = {
    "swapped": (0.25, 0.5, 0.75, 1.0),
    "noisy": (0.5, 1.0, 2.0, 4.0),
    "offset": (0.5, 1.0, 2.0, 4.0),
    "scaled": (0.1, 0.03, 0.01, 0.001),
}


def spread(vectors: np.ndarray, faces: np.ndarray) -> float:
    """Return the median over faces of the largest minus the smallest similarity to the concepts."""
    similarity = faces @ unit(vectors).T
    return float(np.median(np.ptp(similarity, axis=1)))


def degrade(attribute: Attribute, how: str, level: float, faces: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return worse prototypes (c, d) of one attribute; `faces` are unit embeddings (n, d)."""
    p = unit(attribute.vectors.astype(np.float64))
    apart = p - p.mean(0)
    if how == "swapped":
        return unit((1 - level) * p + level * np.roll(p, 1, axis=0))
    if how == "noisy":
        noise = unit(rng.standard_normal(p.shape))
        return unit(p + level * np.linalg.norm(apart, axis=1, keepdims=True) * noise)
    if how == "offset":
        common = unit(faces.mean(0))
        shift = level * np.std(faces @ p.T) * rng.standard_normal((len(p), 1))
        return unit(p + shift * common / float((faces @ common).mean()))
    if how == "scaled":
        low, high = 0.0, 1.0
        for _ in range(40):  # the spread grows with the scale
            middle = (low + high) / 2
            low, high = (middle, high) if spread(p.mean(0) + middle * apart, faces) < level else (low, middle)
        return unit(p.mean(0) + high * apart)
    raise UserError(f"{how!r} is no way to degrade prototypes: choose among {', '.join(LEVELS)}")


def degraded(prototypes: Prototypes, how: str, level: float, known: Faces, seed: int) -> dict[str, Any]:
    rng, faces = np.random.default_rng(seed), unit(known.vectors.astype(np.float64))
    return {
        a.name: dict(zip(a.concepts, degrade(a, how, level, faces, rng), strict=True)) for a in prototypes.attributes
    }


def vague(known: Faces, prototypes: Prototypes) -> list[str]:
    """Return the attributes of which a run on all these faces would warn that memberships say nothing."""
    similarity = prototypes.similarity(Vectors.of(unit_float16(known.vectors)[0]), absent=True)
    temperatures = choose_temperatures(prototypes, "auto", lambda: [compute_gaps(s) for s in similarity])
    return [
        a.name
        for a, s, t in zip(prototypes.attributes, similarity, temperatures, strict=True)
        if is_uninformative(MembershipMoments.of(compute_memberships(s, t, len(a.concepts))))
    ]


def gain_of(line: dict[str, Any], rule: str, attribute: str) -> float:
    return float(line["rules"][rule][f"share {attribute}"][f"over {BASE}"]["mean"])


def plot(table: list[dict[str, Any]], file: Path, title: str) -> None:
    """Draw the gain of each rule, averaged over the attributes, as the prototypes get worse."""
    figure, panels = panels_of(len(LEVELS), 4, sharey=True)
    for panel, how in zip(panels, LEVELS, strict=True):
        lines = [line for line in table if line["how"] in ("not at all", how)]
        for rule in COMPARED:
            gains = [np.mean([gain_of(line, rule, a) for a in VALUES]) for line in lines]
            panel.plot(range(len(lines)), gains, marker="o", label=rule)
        panel.set_xticks(range(len(lines)), ["none", *(f"{line['level']:g}" for line in lines[1:])])
        panel.axhline(0, color="black", linewidth=0.5)
        panel.set_title(how)
        for k, line in enumerate(lines):
            if line["warned of"]:
                panel.axvspan(k - 0.3, k + 0.3, color="orange", alpha=0.2, label="the run warns" if k == 1 else None)
    panels[0].set_ylabel("share of non-majority groups, mean of\nthree attributes, points over semdedup")
    panels[-1].legend(fontsize=7)
    figure.suptitle(title)
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "degraded.json")
    args = parser.parse_args()
    known, prototypes, trained_on = load(args)
    sets = draws(known, args)
    rules = {name: RULES[name] for name in (BASE, *COMPARED)}
    table: list[dict[str, Any]] = []
    for how, level in (("not at all", 0.0), *((how, level) for how, levels in LEVELS.items() for level in levels)):
        worse = prototypes if how == "not at all" else Prototypes.of(degraded(prototypes, how, level, known, args.seed))
        report = report_of(compare(sets, rules, worse, args))
        warned = vague(known, worse)
        table.append({"how": how, "level": level, "warned of": warned, "rules": report})
        gains = "  ".join(
            f"{rule} " + " / ".join(f"{gain_of(table[-1], rule, a):+.2f}" for a in VALUES) for rule in COMPARED
        )
        print(f"{how} {level:g}: {gains}{'  warned of ' + ', '.join(warned) if warned else ''}", flush=True)
    header = {
        "what": "points over semdedup at the same kept count when the prototypes are made worse; `warned of` names the "
        "attributes whose memberships, the run would warn, say nothing",
        **figures_header(args, sets, trained_on),
    }
    args.out.write_text(json.dumps({**header, "table": table}, indent=1) + "\n", encoding="utf-8")
    plot(table, args.out.with_suffix(".svg"), f"FairFace, {header['setting']}: prototypes degraded")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
