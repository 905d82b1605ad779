"""Time the training of k-means and its alternatives on generated vectors, and measure the objective of each.

    python benchmarks/kmeans.py --out benchmarks/results/kmeans.json

The objective is the mean cosine of rows that nothing was trained on to their most similar centroid. All figures are
from one process; ratios are to FAISS on one thread, which trained before.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import numpy as np
from across import generate_mixture
from numpy.typing import NDArray
from results_file import RESULTS, write_results
from threadpoolctl import threadpool_limits

from fairdedup.core import kmeans, lloyd
from fairdedup.core.fast_arithmetic import limit_product_threads
from fairdedup.core.similarity import unit_float16

BLOCK = 1 << 16  # rows that are generated at a time
LOOKED_AT = 50_000  # rows that the objective is measured on
LONG = 120.0  # seconds; a training that takes longer is timed once
WHAT = (
    "seconds of training spherical k-means on a sample that is in memory (median of `times` runs; torch is loaded and "
    "code is compiled before), seconds that all its threads have computed, the objective (mean cosine of 50,000 other "
    "rows to their most similar centroid), and each as a ratio to FAISS on one thread"
)
Sample = NDArray[np.float16]


def train_by_faiss(sample: Sample, clusters: int, threads: int, iterations: int = 20) -> NDArray[np.float32]:
    """Train as fairdedup did before: FAISS in float32."""
    import faiss

    faiss.omp_set_num_threads(threads)
    trainer = faiss.Kmeans(
        sample.shape[1],
        clusters,
        niter=iterations,
        spherical=True,
        seed=0,
        min_points_per_centroid=1,
        max_points_per_centroid=kmeans.POINTS_PER_CENTROID,
    )
    trainer.train(sample.astype(np.float32))
    return np.asarray(trainer.centroids)


def train_in_float32_products(sample: Sample, clusters: int, threads: int) -> NDArray[np.float32]:
    """Train in integers with products in float32, as on a processor that does not multiply 8-bit integers fast."""
    fast = lloyd.int8_is_worth_it
    lloyd.int8_is_worth_it = lambda work: False
    try:
        return kmeans.train(sample, clusters, 0, threads)
    finally:
        lloyd.int8_is_worth_it = fast


def train_in_bfloat16(sample: Sample, clusters: int, threads: int) -> NDArray[np.float32]:
    """Train by Lloyd's algorithm with products of torch in bfloat16, whose results are bfloat16 too."""
    import torch

    torch.set_num_threads(threads)
    rows = torch.from_numpy(sample).bfloat16()
    first = lloyd.draw_first(len(sample), clusters, 0)[:clusters]
    centroids = torch.from_numpy(sample[first]).float()
    out = torch.empty((1024, clusters), dtype=torch.bfloat16)
    for _ in range(20):
        near = centroids.bfloat16().t()
        sums = torch.zeros_like(centroids)
        for block in rows.split(1024):
            labels = torch.mm(block, near, out=out[: len(block)]).argmax(1)
            sums.index_add_(0, labels, block.float())
        length = sums.norm(dim=1, keepdim=True)
        centroids = torch.where(length > 0, sums / length, centroids)
    return np.asarray(centroids)


def train_by_mini_batches(sample: Sample, clusters: int, threads: int) -> NDArray[np.float32]:
    """Train by mini-batches (Sculley 2010) of 10,000 rows in float32: 50 of them, a tenth of 20 full iterations."""
    rng = np.random.default_rng(0)
    centroids = sample[lloyd.draw_first(len(sample), clusters, 0)[:clusters]].astype(np.float32)
    counts = np.zeros(clusters)
    with threadpool_limits(threads, user_api="blas"):
        for _ in range(50):
            batch = sample[rng.choice(len(sample), min(10_000, len(sample)), replace=False)].astype(np.float32)
            labels = (batch @ centroids.T).argmax(1)
            own = np.bincount(labels, minlength=clusters)
            sums = np.zeros_like(centroids)
            filled = own > 0
            sums[filled] = np.add.reduceat(batch[np.argsort(labels)], (np.cumsum(own) - own)[filled])
            counts += own
            share = np.divide(1, counts, out=np.zeros(clusters), where=counts > 0)[:, None].astype(np.float32)
            centroids += share * (sums - own[:, None].astype(np.float32) * centroids)
            centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    return centroids


def measure_pruning(sample: Sample, clusters: int) -> dict[str, float]:
    """Return which share of products Hamerly's bounds would have saved in some iterations of Lloyd's algorithm."""
    x = sample[:20_000].astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    start = lloyd.Start.of(sample[lloyd.draw_first(len(sample), clusters, 0)])
    centroids, used = start.first[:clusters], clusters
    pieces = [lloyd.round_rows(sample[k : k + BLOCK], start.mean) for k in range(0, len(sample), BLOCK)]
    saved = {}
    for turn in range(1, lloyd.ITERATIONS + 1):
        before = centroids
        parts = [lloyd.assign_and_add(piece, before, start.mean, 1e20) for piece in pieces]
        centroids, used = lloyd.update(parts, before, start, used)
        if turn not in (2, 5, 10, 20):
            continue
        old, new = before.astype(np.float64), centroids.astype(np.float64)
        distance = np.sqrt(np.maximum(0, 2 - 2 * x @ old.T))
        own = distance.argmin(1)
        nearest, second = np.partition(distance, 1, axis=1)[:, :2].T
        moved = np.linalg.norm(new - old, axis=1)
        apart = np.sqrt(np.maximum(0, 2 - 2 * new @ new.T)) + 4 * np.eye(clusters)
        bound = np.maximum(second - moved.max(), apart.min(1)[own] / 2)
        saved[f"iteration {turn}"] = round(float((nearest + moved[own] < bound).mean()), 4)
    return saved


def train_in_integers(sample: Sample, clusters: int, threads: int, points: int | None = None) -> NDArray[np.float32]:
    """Train as fairdedup does, on the first so many rows a centroid or on all."""
    with limit_product_threads():  # else torch computes one thread's products on all cores
        return kmeans.train(sample[: None if points is None else points * clusters], clusters, 0, threads)


Candidate = tuple[Callable[..., NDArray[np.float32]], dict[str, Any]]
CANDIDATES: dict[str, Candidate] = {
    "FAISS, 1 thread (before)": (train_by_faiss, {"threads": 1}),
    "integers, 1 thread": (train_in_integers, {"threads": 1}),
    "integers, 2 threads": (train_in_integers, {"threads": 2}),
    "FAISS, 2 threads": (train_by_faiss, {"threads": 2}),
    "integers, 2 threads, 64 rows a centroid": (train_in_integers, {"threads": 2, "points": 64}),
    "integers, products in float32, 2 threads": (train_in_float32_products, {"threads": 2}),
    "mini-batches in float32, 2 threads": (train_by_mini_batches, {"threads": 2}),
    "bfloat16 by torch, 2 threads": (train_in_bfloat16, {"threads": 2}),
}


def generate_unit_rows(rows: int, dim: int, seed: int) -> Sample:
    """Return the mixture of benchmarks/across.py as unit rows, in a random order."""
    mixture = generate_mixture(rows, dim, seed)
    np.random.default_rng(seed).shuffle(mixture)
    unit = np.empty(mixture.shape, np.float16)
    for start in range(0, rows, BLOCK):
        unit[start : start + BLOCK] = unit_float16(mixture[start : start + BLOCK])[0]
    return unit


def measure_objective(rows: Sample, centroids: NDArray[np.float32]) -> float:
    """Return the mean cosine of rows to their most similar centroid, as fairdedup treats both."""
    near = kmeans.unit_centroids(centroids).astype(np.float32)
    near /= np.maximum(np.linalg.norm(near, axis=1, keepdims=True), 1e-9)
    x = rows.astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return float(np.mean([(block @ near.T).max(1).mean(dtype=np.float64) for block in np.array_split(x, 16)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--clusters", type=int, default=1_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--note", help="what the results file says of the machine's other work")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "kmeans.json")
    args = parser.parse_args()
    import torch  # noqa: F401  # before anything is timed

    unit = generate_unit_rows(args.rows, args.dim, args.seed)
    chosen = kmeans.training_rows([np.arange(args.rows)], args.clusters, args.seed)
    others = np.setdiff1d(np.arange(args.rows), chosen)[-LOOKED_AT:]
    sample, others = unit[chosen], unit[others]
    del unit
    report: dict[str, Any] = {
        **({"note": args.note} if args.note else {}),
        "rows": args.rows,
        "dim": args.dim,
        "clusters": args.clusters,
        "trained on": len(sample),
        "trainings": {},
    }
    faiss = packages_distributions().get("faiss", [])[:1]  # faiss-gpu or faiss-cpu
    packages = ("numpy", "numba", "torch", *faiss)
    figures, before = report["trainings"], {}
    for name, (train, more) in CANDIDATES.items():
        train(sample[:4096], 16, **more)  # loads and compiles
        taken: list[float] = []
        used: list[float] = []
        while not taken or (len(taken) < args.repeats and max(taken) < LONG):
            started, worked = time.perf_counter(), time.process_time()
            centroids = train(sample, args.clusters, **more)
            taken.append(time.perf_counter() - started)
            used.append(time.process_time() - worked)
        own = {
            "seconds": statistics.median(taken),
            "seconds of processors": statistics.median(used),
            "objective": measure_objective(others, centroids),
        }
        before = before or own
        ratios = {f"{key}, of before": own[key] / before[key] for key in own}
        figures[name] = {key: round(value, 4) for key, value in (own | ratios).items()} | {"times": len(taken)}
        print(name, figures[name], flush=True)
        write_results(args.out, report, what=WHAT, seed=args.seed, packages=packages)  # also if it is interrupted
    saved = report["share of rows that Hamerly's bounds spare"] = measure_pruning(sample, args.clusters)
    print("rows that Hamerly's bounds spare:", saved, flush=True)
    write_results(args.out, report, what=WHAT, seed=args.seed, packages=packages)


if __name__ == "__main__":
    main()
