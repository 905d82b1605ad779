"""Time deduplicate() against one dense float32 product per cluster, on generated embeddings; prints one JSON object.

python benchmarks/sweep.py --rows 200000 --dim 512 --clusters 25 --out benchmarks/results/sweep.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import numpy as np

import fairdedup
from fairdedup import deduplicate


def generate(rows: int, dim: int, clusters: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings with near-duplicates at many distances, and the labels of their clusters."""
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % clusters
    centres = 2 * rng.standard_normal((clusters, dim)).astype(np.float32)
    x = rng.standard_normal((rows, dim), dtype=np.float32)
    # Every second row of a cluster leans on the row before it, at a distance of its own.
    half = rows // 2
    x[half : 2 * half] = x[:half] + rng.uniform(0.05, 1.2, (half, 1)).astype(np.float32) * x[half : 2 * half]
    labels[half : 2 * half] = labels[:half]
    return x + centres[labels], labels


def cpu_model() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--clusters", type=int, default=25)
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rules", default="semdedup,fairdedup,balanced")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    x, labels = generate(args.rows, args.dim, args.clusters, args.seed)
    prototypes = np.random.default_rng(args.seed).standard_normal((18, args.dim))
    rules = args.rules.split(",")
    for rule in rules:  # compiled before anything is timed
        deduplicate(x[:2000], keep=args.keep, rule=rule, prototypes=prototypes, clusters=labels[:2000])
    dense: list[float] = []
    seconds: dict[str, list[float]] = {rule: [] for rule in rules}
    for _ in range(args.repeats):
        total = 0.0
        for k in range(args.clusters):
            own = x[labels == k]
            start = time.perf_counter()
            own @ own.T
            total += time.perf_counter() - start
        dense.append(total)
        for rule in rules:
            start = time.perf_counter()
            result = deduplicate(x, keep=args.keep, rule=rule, prototypes=prototypes, clusters=labels)
            seconds[rule].append(time.perf_counter() - start)
            assert result.counts["kept"] == int(args.keep * args.rows + 0.5)
    report = {
        "what": "seconds of deduplicate() beside one dense float32 numpy product per cluster",
        "command": "python " + " ".join(sys.argv),
        "hardware": {"cpu": cpu_model(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "fairdedup": fairdedup.__version__},
        "seed": args.seed,
        "dense_seconds": dense,
        "seconds": seconds,
        "ratio_of_medians": {r: statistics.median(s) / statistics.median(dense) for r, s in seconds.items()},
    }
    text = json.dumps(report, indent=2)
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
