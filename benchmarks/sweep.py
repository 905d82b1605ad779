"""Compare the time of deduplicate() with that of one dense float32 product per cluster, on generated embeddings.

python benchmarks/sweep.py --rows 200000 --dim 512 --clusters 25 --out benchmarks/results/sweep.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
from results_file import write_results

from fairdedup import deduplicate


def generate_embeddings(rows: int, dim: int, clusters: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings (n, d) with near-duplicates at many distances, and the labels (n,) of their clusters."""
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % clusters
    centres = 2 * rng.standard_normal((clusters, dim)).astype(np.float32)
    x = rng.standard_normal((rows, dim), dtype=np.float32)
    # Each row of the second half is near one of the first half, at a random distance.
    half = rows // 2
    x[half : 2 * half] = x[:half] + rng.uniform(0.05, 1.2, (half, 1)).astype(np.float32) * x[half : 2 * half]
    labels[half : 2 * half] = labels[:half]
    return x + centres[labels], labels


def time_dense_products(x: np.ndarray, labels: np.ndarray, clusters: int) -> float:
    """Return the total seconds of one dense product per cluster."""
    total = 0.0
    for k in range(clusters):
        own = x[labels == k]
        start = time.perf_counter()
        own @ own.T
        total += time.perf_counter() - start
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--clusters", type=int, default=25)
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rules", default="semdedup,fairdedup,balanced", help="names of rules, separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file to write; without it the figures are only printed")
    args = parser.parse_args()
    x, labels = generate_embeddings(args.rows, args.dim, args.clusters, args.seed)
    prototypes = np.random.default_rng(args.seed).standard_normal((18, args.dim))
    rules = args.rules.split(",")
    dense: list[float] = []
    seconds: dict[str, list[float]] = {rule: [] for rule in rules}
    for repeat in range(args.repeats + 1):
        dense.append(time_dense_products(x, labels, args.clusters))
        for rule in rules:
            start = time.perf_counter()
            result = deduplicate(
                x, keep=args.keep, rule=rule, prototypes=prototypes, clusters=labels, published=True, leftover=0
            )
            seconds[rule].append(time.perf_counter() - start)
            assert result.counts["kept"] == int(args.keep * args.rows + 0.5)
        if not repeat:  # the first call compiles
            dense, seconds = [], {rule: [] for rule in rules}
    figures = {
        "dense_seconds": dense,
        "seconds": seconds,
        "ratio_of_medians": {r: statistics.median(s) / statistics.median(dense) for r, s in seconds.items()},
    }
    print(json.dumps(figures, indent=2))
    if args.out:
        what = "seconds of deduplicate() beside one dense float32 numpy product per cluster"
        write_results(args.out, figures, what=what, seed=args.seed)


if __name__ == "__main__":
    main()
