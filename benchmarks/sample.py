"""Compare the rules on the drawn sample with the built-in encoder: who is kept at the same count, against the truth.

    python benchmarks/sample.py --repeats 10

Each repeat clusters with another seed; figures are paired with `semdedup` of the same seed. Planted copies are looked
for among the nearest neighbours. Everything here is drawn: it shows that the rules do what they say, not how they
fare on photographs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from sweep import cpu_model

import fairdedup
from fairdedup import deduplicate
from fairdedup.datasets import open_input
from fairdedup.datasets.images import BadImage, decode
from fairdedup.encoders import builtin_spec, load_encoder
from fairdedup.prototype_files import default_prototypes
from fairdedup.sample import write_sample
from fairdedup.stages.caption_embedding import embed_captions, read_captions

RULES = ("random", "semdedup", "fairdedup", "balanced")
GROUPS = {  # rare in the sample, and the larger ones that are in the minority all the same
    "dark skin tone (rare)": lambda t: t.skin_tone == "dark",
    "older (rare)": lambda t: t.age == "older",
    "dark or older (any rare)": lambda t: (t.skin_tone == "dark") | (t.age == "older"),
    "medium skin tone": lambda t: t.skin_tone == "medium",
    "women": lambda t: t.perceived_gender == "woman",
}


def embed_sample(folder: Path) -> tuple[np.ndarray, list[str]]:
    """Return the vector and the id of every readable picture."""
    encoder = load_encoder(builtin_spec(batch_size=32, device="cpu", dtype="float32", threads=1))
    vectors, ids = [], []
    for shard in open_input(str(folder)).shards:
        images = []
        for sample in shard.read():
            try:
                images.append(decode(sample.image or b""))
            except BadImage:
                continue
            ids.append(sample.id)
        vectors.append(encoder.encode_images(images))
    return np.concatenate(vectors), ids


def recall_of_copies(vectors: np.ndarray, ids: list[str], truth: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return, by kind of copy, how often its original is among its five nearest, or very near, and the least cosine."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    place = {name: k for k, name in enumerate(ids)}
    found: dict[str, list[tuple[bool, float]]] = {}
    for line in truth.itertuples():
        copy, original = place[line.id], place[line.copy_of]
        similarity = unit @ unit[copy]
        own = float(similarity[original])
        similarity[copy] = -1
        nearest = own >= float(np.partition(similarity, -5)[-5])  # among the five nearest: shots of one scene are near
        found.setdefault(line.kind, []).append((nearest, own))
    return {
        kind: {
            "copies": len(pairs),
            "recall among the five nearest": float(np.mean([p[0] for p in pairs])),
            "recall at cosine above 0.98": float(np.mean([p[1] > 0.98 for p in pairs])),
            "least cosine": min(p[1] for p in pairs),
        }
        for kind, pairs in sorted(found.items())
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "sample.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sample = Path(folder) / "sample"
        write_sample(sample, seed=args.seed)
        vectors, ids = embed_sample(sample)
        labels = pd.read_parquet(sample / "labels.parquet").set_index("id").loc[ids]
        truth = pd.read_parquet(sample / "truth.parquet")
    prototypes = embed_captions(
        read_captions(default_prototypes()), builtin_spec(batch_size=32, device="cpu", dtype="float32", threads=1)
    )
    people = (labels.skin_tone != "none").to_numpy()
    shares: dict[str, dict[str, list[float]]] = {rule: {g: [] for g in GROUPS} for rule in RULES}
    for seed in range(args.repeats):
        for rule in RULES:
            result = deduplicate(vectors, keep=args.keep, rule=rule, prototypes=prototypes, seed=seed)
            kept = result.decisions["kept"].to_numpy() & people
            for group, member in GROUPS.items():
                shares[rule][group].append(100 * float(member(labels[kept]).mean()))
    table = {}
    for group, member in GROUPS.items():
        line = {"before": 100 * float(member(labels[people]).mean())}
        base = np.array(shares["semdedup"][group])
        for rule in RULES:
            own = np.array(shares[rule][group])
            gain = own - base
            error = float(gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else None
            line[rule] = {"share": float(own.mean()), "gain": float(gain.mean()), "standard error": error}
        table[group] = line
    report = {
        "what": "percent of kept people of a drawn group, and points gained over semdedup at the same kept count",
        "command": "python " + " ".join(sys.argv),
        "hardware": {"cpu": cpu_model(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "fairdedup": fairdedup.__version__},
        "seed": args.seed,
        "repeats": args.repeats,
        "keep": args.keep,
        "groups": table,
        "planted copies": recall_of_copies(vectors, ids, truth),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps({k: report[k] for k in ("groups", "planted copies")}, indent=2))


if __name__ == "__main__":
    main()
