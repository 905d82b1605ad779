"""Check and measure everything that runs on a GPU, in one call; on a machine without one by the same code.

    python benchmarks/gpu.py --out benchmarks/results/gpu.json
    python benchmarks/gpu.py --device cpu --small --out small.json
    python benchmarks/gpu.py --device cpu --parts same --out benchmarks/results/torch_on_cpu.json

- same: a decision with k-means, across clusters, by the CPU and by the device: whether all columns have the same bytes.
- embedding: pictures per second of an embedding task; of a plain loop (PIL, DataLoader, the model in the same number
  format); of the bare forward pass, at its best batch size.
- kmeans, assignment, prune: seconds, and the seconds of the same number of multiply-adds as products in bfloat16 that
  do nothing else (the floor). prune is `semdedup` with half kept, with cover and as published.
- profile: what takes the time of a batch of pictures and of the pairs of a large cluster.

Each part is written as soon as it is done, so that what was measured stays if a later part fails. At the end the goals
that were missed are printed, and the exit code is 1: the bytes of the CPU anywhere; on a GPU at full size also 3 times
the plain loop, half of the bare forward's rate, and at most 2 times the floor.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gpu_embedding import measure_embedding, profile_batch
from numpy.typing import NDArray
from results_file import RESULTS, write_results

from fairdedup import deduplicate
from fairdedup.core import kmeans
from fairdedup.core.devices import sees_gpu, use_device
from fairdedup.core.pair_graph import find_pairs
from fairdedup.core.reach import assign_and_find_nearby
from fairdedup.core.similarity import Vectors, unit_float16

WHAT = (
    "what a GPU does: whether decisions have the bytes of the CPU's; pictures per second; seconds of k-means, of the "
    "assignment and of a decision, with the seconds of bare products in bfloat16 (the floor)"
)
GENERATED = 1 << 18  # rows that are generated, and assigned, at a time
FLOOR_ROWS = 1 << 16
FLOOR_TIMES = 16
OF_FLOOR = "of the floor"
TIMES_PLAIN, FORWARD_SHARE, TIMES_FLOOR = 3.0, 0.5, 2.0  # goals of a GPU at full size
Rows = NDArray[np.float16]


@dataclass(frozen=True)
class Sizes:
    """Sizes of the problems: rows, dimensions and clusters; rows of `same`; pictures; batch sizes of the forward."""

    rows: int
    dim: int
    clusters: int
    same: int
    pictures: int
    batches: tuple[int, ...]


LARGE = Sizes(10_000_000, 512, 3162, 100_000, 8192, (64, 256, 512, 1024, 2048))
SMALL = Sizes(1_500, 32, 6, 1_200, 24, (4, 8))


def generate_unit_rows(rows: int, dim: int, topics: int, device: str, seed: int) -> Rows:
    """Return unit vectors of topics; half of them are near another one, at a random distance."""
    import torch

    torch.manual_seed(seed)
    centres = torch.randn(topics, dim, device=device)
    out = np.empty((rows, dim), np.float16)
    for first in range(0, rows, GENERATED):
        n = min(GENERATED, rows - first)
        own = centres[torch.randint(topics, (n,), device=device)] + 0.8 * torch.randn(n, dim, device=device)
        half, distance = n // 2, torch.rand(n // 2, 1, device=device)
        own[half : 2 * half] = own[:half] + distance * torch.randn(half, dim, device=device)
        own = own[torch.randperm(n, device=device)]
        out[first : first + n] = (own / own.norm(dim=1, keepdim=True)).half().cpu().numpy()
    return out


def measure_floor(multiply_adds: float, clusters: int, dim: int, device: str) -> float:
    """Return the seconds of bare products in bfloat16 with so many multiply-adds, from some that are timed."""
    import torch

    rows = FLOOR_ROWS if device == "cuda" else 256
    x = torch.randn(rows, dim, device=device).bfloat16()
    y = torch.randn(clusters, dim, device=device).bfloat16().t()
    out = torch.empty(rows, clusters, dtype=torch.bfloat16, device=device)

    def multiply() -> None:
        for _ in range(FLOOR_TIMES):
            torch.mm(x, y, out=out)

    multiply()
    return measure(multiply, device) * multiply_adds / (float(FLOOR_TIMES) * rows * clusters * dim)


def measure(function: Callable[[], Any], device: str) -> float:
    """Return the seconds of a call, all work of the device included."""
    import torch

    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    started = time.perf_counter()
    function()
    wait()
    return time.perf_counter() - started


def add_ratio(seconds: float, floor: float) -> dict[str, float]:
    """Return the figures of a part beside its floor."""
    return {"seconds": round(seconds, 4), "floor": round(floor, 4), OF_FLOOR: round(seconds / floor, 2)}


class Search:
    """The parts that need generated rows, which are generated once.

    Parameters
    ----------
    sizes : Sizes
    device : {"cpu", "cuda"}
    seed : int
    """

    def __init__(self, sizes: Sizes, device: str, seed: int) -> None:
        self.sizes, self.device, self.seed = sizes, device, seed
        self.engine = "cuda" if device == "cuda" else "torch:cpu"
        self._rows: Rows | None = None
        self._centroids: Rows | None = None

    @property
    def rows(self) -> Rows:
        """Unit rows, generated at their first use."""
        if self._rows is None:
            sizes = self.sizes
            self._rows = generate_unit_rows(sizes.rows, sizes.dim, 2 * sizes.clusters, self.device, self.seed)
        return self._rows

    @property
    def centroids(self) -> Rows:
        """Unit centroids; of the first rows where nothing was trained."""
        if self._centroids is None:
            self._centroids = unit_float16(self.rows[: self.sizes.clusters].astype(np.float32))[0]
        return self._centroids

    def same(self) -> dict[str, Any]:
        """Tell whether a decision has the same bytes on the CPU and on the device."""
        x = generate_unit_rows(self.sizes.same, self.sizes.dim, 20, self.device, self.seed + 1)
        clusters = max(4, len(x) // kmeans.ROWS_PER_CLUSTER)
        figures: dict[str, Any] = {"rows": len(x), "clusters": clusters}
        found, seconds = {}, {}
        for device in ("cpu", self.engine):
            with use_device(device):
                deduplicate(x[:1000], keep=0.5, rule="semdedup", clusters=4, seed=self.seed)  # loads and compiles
                started = time.perf_counter()
                found[device] = deduplicate(x, keep=0.5, rule="semdedup", clusters=clusters, seed=self.seed)
                seconds[device] = round(time.perf_counter() - started, 3)
        first, second = (each.decisions for each in found.values())
        for name in first.columns:
            figures[f"same {name}"] = bool(first[name].equals(second[name]))
        return figures | {"seconds": seconds, "kept": len(found["cpu"].kept)}

    def kmeans(self) -> dict[str, Any]:
        """Return the seconds of a training."""
        clusters, dim = self.sizes.clusters, self.sizes.dim
        chosen = kmeans.training_rows([np.arange(len(self.rows))], clusters, self.seed)
        sample, threads = self.rows[chosen], os.cpu_count() or 1
        kmeans.train(sample[:512], 4, self.seed, threads, self.engine)  # loads and compiles
        found: list[Any] = []
        seconds = measure(
            lambda: found.append(kmeans.train(sample, clusters, self.seed, threads, self.engine)), self.device
        )
        self._centroids = kmeans.unit_centroids(found[0])
        work = float(kmeans.ITERATIONS) * len(sample) * clusters * dim
        return {"rows": len(sample)} | add_ratio(seconds, measure_floor(work, clusters, dim, self.device))

    def assignment(self) -> dict[str, Any]:
        """Return the seconds in which all rows get their cluster and the nearby ones, in a thread for each core."""
        rows, centroids = self.rows, self.centroids

        def assign(first: int) -> None:
            with use_device(self.engine):
                assign_and_find_nearby(rows[first : first + GENERATED], centroids, kmeans.NEARBY)

        def assign_all() -> None:
            with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
                list(pool.map(assign, range(0, len(rows), GENERATED)))

        assign_and_find_nearby(rows[:256], centroids, kmeans.NEARBY)  # compiles
        work = float(rows.size) * len(centroids)
        floor = measure_floor(work, len(centroids), rows.shape[1], self.device)
        return {"rows": len(rows)} | add_ratio(measure(assign_all, self.device), floor)

    def prune(self) -> dict[str, Any]:
        """Return the seconds of a decision whose clusters are given."""
        rows = self.rows
        with use_device(self.engine):
            labels = np.concatenate(
                [kmeans.assign(rows[k : k + GENERATED], self.centroids) for k in range(0, len(rows), GENERATED)]
            )
        sizes = np.unique(labels, return_counts=True)[1].astype(np.float64)
        floor = measure_floor(float(np.square(sizes).sum()) / 2 * rows.shape[1], 4096, rows.shape[1], self.device)
        figures: dict[str, Any] = {"rows": len(rows), "clusters": len(sizes), "largest": int(sizes.max())}
        for name, published in (("with cover", False), ("as published", True)):

            def decide(published: bool = published) -> None:
                deduplicate(rows, keep=0.5, rule="semdedup", clusters=labels, published=published, leftover=0)

            with use_device(self.engine):
                figures[name] = add_ratio(measure(decide, self.device), floor)
        return figures

    def profile(self) -> dict[str, Any]:
        """Return what takes the time of the pairs of one cluster."""
        n = min(16_384, self.sizes.rows)
        vectors = Vectors.of(generate_unit_rows(n, self.sizes.dim, 4, self.device, self.seed + 2))
        with use_device(self.engine):
            find_pairs(vectors, 300)
            return {"rows": n, "pairs of a cluster": profile_call(lambda: find_pairs(vectors, 300), self.device)}


def profile_call(function: Callable[[], Any], device: str) -> list[dict[str, Any]]:
    """Return the ten operations of torch that took the longest in a call."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
    with profile(activities=activities) as found:
        function()
    of = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    events = sorted(found.key_averages(), key=lambda event: -getattr(event, of))[:10]
    return [
        {"name": event.key[:100], "calls": event.count, "milliseconds": round(getattr(event, of) / 1000, 3)}
        for event in events
    ]


def describe_device(device: str) -> dict[str, Any]:
    """Return what the device is."""
    import torch

    if device == "cpu":
        return {"device": "cpu"}
    known = torch.cuda.get_device_properties(0)
    return {"device": known.name, "memory GiB": round(known.total_memory / 2**30, 1), "CUDA": torch.version.cuda}


def list_failures(figures: dict[str, Any]) -> list[str]:
    """Return the parts that failed and the goals that were missed; a part that was not measured misses none."""
    parts = {name: figures[name] for name in PARTS if name in figures}
    failed = [f"{name}: {own['failed']}" for name, own in parts.items() if "failed" in own]
    differ = [name.removeprefix("same ") for name, value in parts.get("same", {}).items() if value is False]
    if differ:
        failed.append(f"same: not the bytes of the CPU in {', '.join(differ)}")
    if figures.get("device") == "cpu" or figures.get("small"):
        return failed
    for name, least in (("times the plain loop", TIMES_PLAIN), ("share of the forward", FORWARD_SHARE)):
        value = parts.get("embedding", {}).get(name)
        if value is not None and not value >= least:
            failed.append(f"embedding: {name} {value}, under {least:g}")
    prune = {f"prune {name}": own for name, own in parts.get("prune", {}).items() if isinstance(own, dict)}
    for name, own in (parts | prune).items():
        value = own.get(OF_FLOOR)
        if value is not None and not value <= TIMES_FLOOR:
            failed.append(f"{name}: {value} times the floor, over {TIMES_FLOOR:g}")
    return failed


PARTS = ("same", "embedding", "kmeans", "assignment", "prune", "profile")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes that take seconds on a CPU")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rows", type=int, help="generated rows; 10,000,000 without --small")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.json")
    args = parser.parse_args(arguments)
    if args.device == "cuda" and not sees_gpu():
        parser.error("torch sees no GPU here: give --device cpu --small, which runs the same code on torch's CPU")
    sizes = SMALL if args.small else LARGE
    if args.rows:
        sizes = Sizes(args.rows, sizes.dim, min(sizes.clusters, args.rows), sizes.same, sizes.pictures, sizes.batches)
    search = Search(sizes, args.device, args.seed)
    figures: dict[str, Any] = describe_device(args.device) | {"small": args.small, "dim": sizes.dim}
    packages = ("numpy", "numba", "torch", "open_clip_torch", "pillow")
    for part in args.parts:
        print(part, "...", flush=True)
        try:
            if part == "embedding":
                figures[part] = measure_embedding(args.device, sizes.pictures, sizes.batches, small=args.small)
            elif part == "profile":
                batch = profile_batch(args.device, sizes.batches[-1], profile_call, small=args.small)
                figures[part] = search.profile() | {"a batch of pictures": batch}
            else:
                figures[part] = getattr(search, part)()
        except Exception:
            figures[part] = {"failed": traceback.format_exc().splitlines()[-1]}
            traceback.print_exc()
        print(json.dumps({part: figures[part]}, indent=2), flush=True)
        write_results(args.out, figures, what=WHAT, seed=args.seed, packages=packages)
    failed = list_failures(figures)
    if failed:
        print("goals that were missed: " + "; ".join(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
