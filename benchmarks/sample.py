"""Compare the rules on the drawn sample with the built-in encoder: which groups are kept, at the same kept count.

    python benchmarks/sample.py --repeats 10

Each repeat clusters with another seed, and figures are paired with those of `semdedup --published` for the same
seed. Planted copies are searched among the nearest neighbours. All pictures are drawn, so the figures show that the
rules work as described, not how well they work on photographs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from results_file import RESULTS, write_results

from fairdedup import deduplicate
from fairdedup.datasets import open_input
from fairdedup.datasets.images import BadImage, decode
from fairdedup.encoders import builtin_spec, load_encoder
from fairdedup.prototype_files import default_prototypes
from fairdedup.sample import write_sample
from fairdedup.stages.caption_embedding import embed_captions, read_captions

PUBLISHED = {"published": True}  # the papers' own procedure; the others have cover and look across clusters
RULES: dict[str, dict[str, Any]] = {
    "random": {"rule": "random"},
    **{f"{rule} --published": {"rule": rule, **PUBLISHED} for rule in ("semdedup", "fairdedup", "balanced")},
    **{rule: {"rule": rule} for rule in ("semdedup", "fairdedup", "balanced")},
}
BASE = "semdedup --published"
ALL_KEPT = 100_000  # rows that are looked up for duplicates left: more than the sample has
GROUPS = {  # groups that are rare in the sample, and larger ones that are minorities too
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
    """Return, for each kind of copy, how often the original is near the copy, and their smallest cosine.

    Parameters
    ----------
    vectors : ndarray of shape (n, d)
        Embeddings of the sample.
    ids : list of str
        Their ids.
    truth : DataFrame
        The sample's truth.parquet: id, copy_of and kind of each planted copy.
    """
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    place = {name: k for k, name in enumerate(ids)}
    found: dict[str, list[tuple[bool, float]]] = {}
    for line in truth.itertuples():
        copy, original = place[line.id], place[line.copy_of]
        similarity = unit @ unit[copy]
        own = float(similarity[original])
        similarity[copy] = -1
        # The five nearest count, not only the nearest one, since other shots of the scene are near as well.
        nearest = own >= float(np.partition(similarity, -5)[-5])
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


def compare_shares(
    vectors: np.ndarray, labels: pd.DataFrame, prototypes: Any, *, keep: float, repeats: int
) -> dict[str, Any]:
    """Return what each rule keeps, in percent, as the mean over the repeats.

    For each group: its share of all people and of those kept. For each rule: the kept samples with a kept duplicate.
    """
    people = (labels.skin_tone != "none").to_numpy()
    shares: dict[str, dict[str, list[float]]] = {rule: {group: [] for group in GROUPS} for rule in RULES}
    left: dict[str, list[float]] = {}
    for seed in range(repeats):
        for rule, options in RULES.items():
            result = deduplicate(vectors, keep=keep, prototypes=prototypes, seed=seed, leftover=ALL_KEPT, **options)
            if result.leftover:  # `random` has no eps, so it has no duplicates
                left.setdefault(rule, []).append(100 * result.leftover.any / result.leftover.looked_up)
            kept = result.decisions["kept"].to_numpy() & people
            for group, is_member in GROUPS.items():
                shares[rule][group].append(100 * float(is_member(labels[kept]).mean()))
    table: dict[str, Any] = {}
    for group, is_member in GROUPS.items():
        table[group] = {"before": 100 * float(is_member(labels[people]).mean())}
        for rule in RULES:
            share = np.array(shares[rule][group])
            gain = share - np.array(shares[BASE][group])
            error = float(gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else None
            table[group][rule] = {"share": float(share.mean()), "gain": float(gain.mean()), "standard error": error}
    return {"groups": table, "duplicates left": {rule: float(np.mean(own)) for rule, own in left.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "sample.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sample = Path(folder) / "sample"
        write_sample(sample, seed=args.seed)
        vectors, ids = embed_sample(sample)
        labels = pd.read_parquet(sample / "labels.parquet").set_index("id").loc[ids]
        truth = pd.read_parquet(sample / "truth.parquet")
    encoder = builtin_spec(batch_size=32, device="cpu", dtype="float32", threads=1)
    prototypes = embed_captions(read_captions(default_prototypes()), encoder)
    figures = {
        "repeats": args.repeats,
        "keep": args.keep,
        "base": BASE,
        **compare_shares(vectors, labels, prototypes, keep=args.keep, repeats=args.repeats),
        "planted copies": recall_of_copies(vectors, ids, truth),
    }
    what = (
        "percent of kept people of a drawn group, points gained over the base at the same kept count, and percent "
        "of kept samples (re-admitted ones aside) that still have a kept duplicate"
    )
    write_results(args.out, figures, what=what, seed=args.seed)
    print(json.dumps({name: figures[name] for name in ("groups", "duplicates left", "planted copies")}, indent=2))


if __name__ == "__main__":
    main()
