"""Measure what duplicates in different clusters cost to find, and how many are left, with reach and without.

python benchmarks/across.py --out benchmarks/results/across.json --clip ../shared/data/clip/flickr8k_vit_b32_1000.npy \
    --faces RUN/embeddings/img_emb --run-rows 1000000

`--faces` is a folder of the vectors of face images, such as `fairdedup embed FACES --out RUN` writes. All pairs of rows
are compared, so what is left is not measured by clusters. Rows are decided by `semdedup` with cover.
`--run-rows` times the commands on Dask as well, on that many rows: these need about 4 GB of disk for a million.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measured_jobs import measure_command
from numpy.typing import NDArray
from results_file import write_results

from fairdedup import deduplicate
from fairdedup.core import kmeans
from fairdedup.core.reach import assign_and_find_nearby, reach_limits
from fairdedup.core.similarity import unit_float16

BLOCK = 4096  # rows that are compared with all others at a time
FACTORS = (0, 2, 4, 6)  # of the standard deviation of a random component; 4 is `reach: auto`
DECISION = ("sample", "list", "search", "reach", "round", "links", "cards", "decide")  # stages of prune
OPTIONS = {"rule": "semdedup", "cover": True, "leftover": 0}


def generate_mixture(rows: int, dim: int, seed: int) -> NDArray[np.float32]:
    """Return vectors of topics within topics, of very different sizes; half of the rows are near one of the others."""
    rng = np.random.default_rng(seed)
    topics = rng.standard_normal((20, dim), dtype=np.float32)
    topics = topics[rng.integers(20, size=400)] + 0.8 * rng.standard_normal((400, dim), dtype=np.float32)
    share = rng.dirichlet(np.full(400, 0.5))
    half = rows // 2
    bases = topics[rng.choice(400, size=half, p=share)] + 0.8 * rng.standard_normal((half, dim), dtype=np.float32)
    distance = rng.uniform(0.05, 1.0, (rows - half, 1)).astype(np.float32)
    near = bases[rng.integers(half, size=rows - half)]
    return np.concatenate([bases, near + distance * rng.standard_normal(near.shape, dtype=np.float32)])


def find_all_pairs(unit: NDArray[np.float16], eps: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return every pair of rows with a cosine above 1 - eps, by float32 products of all rows."""
    x = unit.astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    found = []
    for start in range(0, len(x), BLOCK):
        a, b = np.nonzero(x[start : start + BLOCK] @ x[start:].T > 1 - eps)
        later = b > a
        found.append((a[later] + start, b[later] + start))
    first, second = zip(*found, strict=True)
    return np.concatenate(first), np.concatenate(second)


def share_comparable(
    unit: NDArray[np.float16], clusters: int, eps: int, factor: int, pairs: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> tuple[float, float]:
    """Return which share of the pairs is comparable, and in how many clusters a row is compared on average."""
    rows = kmeans.training_rows([np.arange(len(unit))], clusters, 0)
    centroids = kmeans.unit_centroids(kmeans.train(unit[rows], clusters, 0))
    labels, nearby = assign_and_find_nearby(unit, centroids, 16)
    first, second = pairs
    same = labels[first] == labels[second]
    if not factor:
        return float(same.mean()), 1.0
    limit = reach_limits("auto", unit.shape[1])[eps] * factor / 4
    reaches = np.zeros((len(unit), clusters), np.bool_)
    near = (nearby.clusters >= 0) & (nearby.gaps <= limit)
    places = np.nonzero(near)
    reaches[places[0], nearby.clusters[near]] = True
    across = reaches[first, labels[second]] | reaches[second, labels[first]]
    return float((same | across).mean()), 1 + float(near.sum(axis=1).mean())


def measure_left(x: NDArray[np.floating]) -> dict[str, Any]:
    """Measure a data set at several numbers of clusters."""
    unit, n = unit_float16(x)[0], len(x)
    eps = deduplicate(x, keep=0.5, reach="auto", **OPTIONS).eps
    assert eps is not None
    pairs = find_all_pairs(unit, eps)
    out: dict[str, Any] = {"rows": n, "dimension": x.shape[1], "eps": eps, "duplicate_pairs": len(pairs[0])}
    auto = kmeans.auto_clusters(n)
    for clusters in sorted({max(2, n // 5000), max(2, auto), max(2, n // 500), max(2, n // 100)}):
        lines = []
        for factor in FACTORS:
            reach = "auto" if factor == 4 else factor * math.sqrt(eps / x.shape[1])
            result = deduplicate(x, eps=eps, clusters=clusters, reach=reach, **OPTIONS)
            kept = np.zeros(n, np.bool_)
            kept[result.kept] = True
            both = kept[pairs[0]] & kept[pairs[1]]
            left = len(np.union1d(pairs[0][both], pairs[1][both]))
            share, visited = share_comparable(unit, clusters, round(eps * 10_000), factor, pairs)
            lines.append(
                {
                    "factor": factor,
                    "comparable_pairs": share,
                    "clusters_a_row": visited,
                    "kept": int(kept.sum()),
                    "kept_with_a_kept_duplicate": left,
                    "share": left / int(kept.sum()),
                }
            )
            print(n, clusters, lines[-1], flush=True)
        out[f"{clusters} clusters" + (" (auto)" if clusters == auto else "")] = lines
    return out


def measure_cost(x: NDArray[np.floating], repeats: int) -> dict[str, Any]:
    """Time whole calls of `deduplicate` and their processor time, without reach and with it, in turn."""
    found: dict[str, list[tuple[float, float]]] = {"0": [], "auto": []}
    for _ in range(repeats):
        for name, own in found.items():
            start, used = time.perf_counter(), time.process_time()
            deduplicate(x, keep=0.5, reach="auto" if name == "auto" else 0, **OPTIONS)
            own.append((time.perf_counter() - start, time.process_time() - used))
    medians = {name: [statistics.median(column) for column in zip(*own, strict=True)] for name, own in found.items()}
    ratio = [b / a for a, b in zip(medians["0"], medians["auto"], strict=True)]
    return {"seconds_and_processor_seconds": found, "medians": medians, "ratio_wall": ratio[0], "ratio_cpu": ratio[1]}


def measure_run(x: NDArray[np.floating], repeats: int, folder: Path | None) -> dict[str, Any]:
    """Time a run on Dask, out of core: embed and cluster once, then prune without reach and with it, in turn."""
    found: dict[str, list[dict[str, Any]]] = {"0": [], "auto": []}
    with tempfile.TemporaryDirectory(dir=folder) as name:
        source, run = Path(name) / "x", Path(name) / "run"
        (source / "img_emb").mkdir(parents=True)
        for number, shard in enumerate(np.array_split(x, 100)):
            np.save(source / "img_emb" / f"img_emb_{number}.npy", shard.astype(np.float16))
        before = [measure_command("embed", source, "--out", run), measure_command("cluster", run)]
        for _ in range(repeats):
            for reach, own in found.items():
                words = ("--keep", 0.5, "--rule", "semdedup", "--cover", "--reach", reach)
                own.append(measure_command("prune", run, *words))
                print(reach, own[-1], flush=True)
    earlier = sum(own["seconds"] for own in before)

    def median(reach: str, *stages: str) -> float:
        return statistics.median(
            sum(own["stages"].get(stage, 0) for stage in stages) if stages else own["seconds"] for own in found[reach]
        )

    return {
        "rows": len(x),
        "embed": before[0],
        "cluster": before[1],
        "prune": found,
        "ratio of sample, search and decide": median("auto", *DECISION) / median("0", *DECISION),
        "ratio of prune": median("auto") / median("0"),
        "ratio of embed, cluster and prune": (earlier + median("auto")) / (earlier + median("0")),
        "most resident MiB of any process": max(
            value for own in (*before, *found["0"], *found["auto"]) for value in own["most resident MiB"].values()
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the generated data set")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--clip", type=Path, help="an .npy file of CLIP vectors")
    parser.add_argument("--faces", type=Path, help="a folder of .npy files of vectors of faces")
    parser.add_argument("--repeats", type=int, default=5, help="of the measurement of cost; 0 leaves it out")
    parser.add_argument("--run-rows", type=int, default=0, help="rows of the run on Dask; 0 leaves it out")
    parser.add_argument("--folder", type=Path, help="where the run has room  [default: the folder for temporary files]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file to write; without it the figures are only printed")
    args = parser.parse_args()
    mixture = generate_mixture(args.rows, args.dim, args.seed)
    sets: dict[str, NDArray[np.floating]] = {"mixture": mixture}
    if args.clip is not None:
        sets["clip"] = np.load(args.clip)
    if args.faces is not None:
        sets["faces"] = np.concatenate([np.load(path) for path in sorted(args.faces.glob("*.npy"))])
    figures: dict[str, Any] = {"left": {name: measure_left(x) for name, x in sets.items()}}
    if args.repeats:
        figures["cost"] = {"mixture": measure_cost(mixture, args.repeats)}
    if args.repeats and args.run_rows:
        rows = generate_mixture(args.run_rows, args.dim, args.seed)
        figures["run"] = measure_run(rows, args.repeats, args.folder)
    print(json.dumps(figures, indent=2))
    if args.out:
        what = "duplicates left in different clusters, and seconds of deduplicate(), by semdedup with cover at half"
        write_results(args.out, figures, what=what, seed=args.seed, packages=("numpy", "numba", "torch"))


if __name__ == "__main__":
    main()
