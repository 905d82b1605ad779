"""Run a whole job on generated embeddings, out of core, and measure time, disk and the memory of the largest process.

    python benchmarks/scale.py --rows 1000000 --dim 512 --giant 200000 --tiny-shards 10000

It runs three jobs: with the clusters of k-means, with a planted giant cluster, and with many tiny shards.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from results_file import RESULTS, write_results

from fairdedup.core import kmeans
from fairdedup.stages.clustering import ClusterOptions
from fairdedup.storage.contents import load_embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.made_of import mark_up_to_date
from fairdedup.storage.run_files import write_array
from fairdedup.storage.shard_groups import hash_of

MIB = 1 << 20
LARGEST_PROCESS = 2048  # MiB; no process may use more
WHAT = (
    "seconds, memory and disk of the stages on generated float16 embeddings; memory is the largest "
    "resident set of any one process, mapped files included"
)


def write_shards(folder: Path, rows: int, dim: int, shards: int, giant: int, seed: int) -> np.ndarray:
    """Write embeddings in clip-retrieval's layout, half of them near-duplicates, and return the planted centres.

    The first centre has `giant` rows, and the others share the rest.
    """
    rng = np.random.default_rng(seed)
    others = max(1, (rows - giant) // 1000)
    centres = rng.standard_normal((1 + others, dim)).astype(np.float32)
    (folder / "img_emb").mkdir(parents=True)
    labels = np.concatenate([np.zeros(giant, np.int64), rng.integers(1, 1 + others, rows - giant)])
    labels = rng.permutation(labels)
    for number, own in enumerate(np.array_split(labels, shards)):
        x = 0.8 * rng.standard_normal((len(own), dim), dtype=np.float32)
        half = len(own) // 2  # each row of the second half of a shard is near one of the first
        scale = rng.uniform(0.05, 1.0, (half, 1)).astype(np.float32)
        x[half : 2 * half] = x[:half] + scale * x[half : 2 * half]
        own[half : 2 * half] = own[:half]
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", (x + centres[own]).astype(np.float16))
    return centres


def plant_centres(run: Path, centres: np.ndarray, clusters: int) -> None:
    """Replace the trained centroids by the planted centres, so that the giant cluster is not split."""
    directory = RunDirectory(run)
    options = ClusterOptions(clusters, 0, 1)
    write_array(directory.centroids, centres / np.linalg.norm(centres, axis=1, keepdims=True))
    embedded = load_embedded(directory)
    records = [record.content() for record in embedded.records]
    mark_up_to_date(directory.centroids, hash_of(records, clusters, asdict(options)))
    assert len(centres) == kmeans.check_clusters(clusters, embedded.valid)


def measure_command(*words: object) -> dict[str, Any]:
    """Run a command and return its seconds, and the largest resident memory of any of its processes, in MiB."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "fairdedup", *map(str, words), "--log-json"], stderr=subprocess.PIPE, text=True
    )
    largest: dict[str, float] = {}

    def watch() -> None:
        while process.poll() is None:
            try:
                root = psutil.Process(process.pid)
                for each in (root, *root.children(recursive=True)):
                    role = "conductor" if each.pid == process.pid else "worker"
                    own = each.memory_info()
                    largest[role] = max(largest.get(role, 0), own.rss / MIB)
            except psutil.Error:
                pass
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, err = process.communicate()
    watcher.join()
    events = [json.loads(line) for line in err.splitlines()]
    if process.returncode:
        raise SystemExit(events[-1]["text"])
    stages: dict[str, float] = {}
    for event in events:
        if event["event"] == "stage":
            stages[event["stage"]] = round(stages.get(event["stage"], 0) + event["seconds"], 1)
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "stages": stages,
        "most resident MiB": {role: round(value) for role, value in largest.items()},
        "counts": next((e["counts"] for e in events if "counts" in e), None),
    }


def disk_usage(folder: Path) -> int:
    """Return the size of a folder in MiB."""
    return round(sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / MIB)


def measure_job(
    source: Path, run: Path, *, rule: str, workers: int, clusters: int | str, centres: np.ndarray | None = None
) -> dict[str, Any]:
    """Embed, cluster and prune, and return the time, memory and disk space of each stage.

    Parameters
    ----------
    source, run : Path
        Embeddings to read, and run directory to write.
    rule : str
        Rule to prune by.
    workers : int
        Number of Dask workers.
    clusters : int or "auto"
        Number of clusters.
    centres : ndarray of shape (clusters, d), optional
        Centroids to use in place of trained ones.
    """
    dask = ("--workers", workers)
    report = {"embed": measure_command("embed", source, "--out", run, *dask)}
    if centres is not None:
        plant_centres(run, centres, clusters)
    report["cluster"] = measure_command("cluster", run, "--clusters", clusters, *dask)
    report["prune"] = measure_command("prune", run, "--keep", 0.5, "--rule", rule, *dask)
    sizes = json.loads((run / "clusters" / "sizes.json").read_text())["sizes"]
    report["clusters"] = {"number": len(sizes), "largest": max(sizes)}
    report["files"] = {
        "sorted": len(list((run / "clusters").glob("vectors_*.npy"))),
        "parts of kept": len(list((run / "kept").glob("*"))),
    }
    report["disk MiB"] = {
        "input": disk_usage(source),
        **{p.name: disk_usage(p) for p in sorted(run.iterdir()) if p.is_dir()},
    }
    report["most resident MiB of any process"] = max(
        v for stage in ("embed", "cluster", "prune") for v in report[stage]["most resident MiB"].values()
    )
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--giant", type=int, default=200_000, help="rows of the planted cluster")
    parser.add_argument("--tiny-shards", type=int, default=10_000)
    parser.add_argument("--rule", default="semdedup")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--folder", type=Path, help="folder with enough room  [default: the folder for temporary files]"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "scale.json")
    args = parser.parse_args()
    job = {"rule": args.rule, "workers": args.workers}
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        centres = write_shards(folder / "x", args.rows, args.dim, args.shards, args.giant, args.seed)
        figures["as k-means clusters them"] = measure_job(folder / "x", folder / "a", clusters="auto", **job)
        print(json.dumps(figures, indent=2), flush=True)
        figures["with a giant cluster"] = measure_job(
            folder / "x", folder / "b", clusters=len(centres), centres=centres, **job
        )
        print(json.dumps(figures["with a giant cluster"], indent=2), flush=True)
        write_shards(folder / "tiny", args.rows // 10, args.dim, args.tiny_shards, 0, args.seed)
        figures["in tiny shards"] = measure_job(folder / "tiny", folder / "c", clusters="auto", **job)
    options = {
        name: getattr(args, name) for name in ("rows", "dim", "shards", "giant", "tiny_shards", "rule", "workers")
    }
    write_results(args.out, {**options, **figures}, what=WHAT, seed=args.seed)
    print(json.dumps(figures["in tiny shards"], indent=2))
    over = [name for name, own in figures.items() if own["most resident MiB of any process"] > LARGEST_PROCESS]
    if over:
        raise SystemExit(f"over 2 GiB: {', '.join(over)}")


if __name__ == "__main__":
    main()
