"""Runs commands of fairdedup as processes, and measures their time, disk and memory: single ones and whole jobs."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from process_memory import ProcessMemory

from fairdedup.core import kmeans
from fairdedup.stages.clustering import ClusterOptions
from fairdedup.storage.contents import load_embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.made_of import mark_up_to_date
from fairdedup.storage.run_files import write_array
from fairdedup.storage.shard_groups import hash_of

MIB = 1 << 20
COMMANDS = ("embed", "cluster", "prune")
STARTING = ("start", "start workers", "stop workers", "other")  # of the progress, where no task runs
LOOP = Path(__file__).with_name("run_in_loop.py")
ONE_THREAD = {  # what Dask sets for its workers, so that a loop has no more threads
    **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")},
    "MALLOC_TRIM_THRESHOLD_": "65536",
}


def plant_centres(run: Path, centres: np.ndarray, clusters: int) -> None:
    """Replace the trained centroids by the planted centres, so that the giant cluster is not split."""
    directory = RunDirectory(run)
    options = ClusterOptions(clusters, 0, 1)
    write_array(directory.centroids, centres / np.linalg.norm(centres, axis=1, keepdims=True))
    embedded = load_embedded(directory)
    records = [record.content() for record in embedded.records]
    mark_up_to_date(directory.centroids, hash_of(records, clusters, asdict(options)))
    assert len(centres) == kmeans.check_clusters(clusters, embedded.valid)


def measure_command(*words: object, loop: bool = False) -> dict[str, Any]:
    """Run a command, and return its seconds and the largest resident memory of any of its processes, in MiB.

    Parameters
    ----------
    *words
        Words of the command.
    loop : bool
        Whether its tasks are called in a loop, on one thread, in place of Dask.
    """
    started = time.perf_counter()
    program = [LOOP] if loop else ["-m", "fairdedup"]
    process = subprocess.Popen(
        [sys.executable, *map(str, program), *map(str, words), "--log-json"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(ONE_THREAD if loop else {})},
    )
    with ProcessMemory(process) as memory:
        _, err = process.communicate()
    events = [json.loads(line) for line in err.splitlines()]
    if process.returncode:
        raise SystemExit(events[-1]["text"])
    stages: dict[str, float] = {}
    for event in events:
        if event["event"] == "stage":
            stages[event["stage"]] = round(stages.get(event["stage"], 0) + event["seconds"], 2)
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "processor seconds": round(memory.processor_seconds, 1),
        "stages": stages,
        "most resident MiB": {role: round(value) for role, value in memory.largest.items()},
        "counts": next((e["counts"] for e in events if "counts" in e), None),
    }


def disk_usage(folder: Path) -> float:
    """Return the size of a folder in MiB."""
    return round(sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / MIB, 2)


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


def sum_stages(report: dict[str, Any]) -> float:
    """Return the seconds of all stages of a job in which tasks run."""
    return sum(sum_stages_of(report, command) for command in COMMANDS)


def sum_stages_of(report: dict[str, Any], command: str) -> float:
    """Return the seconds of the stages of one command in which tasks run, without the start of processes."""
    return sum(seconds for stage, seconds in report[command]["stages"].items() if stage not in STARTING)


def measure_dask(source: Path, folder: Path, rule: str, repeats: int) -> dict[str, Any]:
    """Run a job on one Dask worker and with its tasks in a loop, in turn, and compare the seconds of their stages."""
    found: dict[str, list[dict[str, Any]]] = {"dask": [], "loop": []}
    for turn in range(repeats):
        for way, own in found.items():
            run, loop = folder / f"{way}-{turn}", way == "loop"
            dask = () if loop else ("--workers", 1)
            own.append(
                {
                    "embed": measure_command("embed", source, "--out", run, *dask, loop=loop),
                    "cluster": measure_command("cluster", run, *dask, loop=loop),
                    "prune": measure_command("prune", run, "--keep", 0.5, "--rule", rule, *dask, loop=loop),
                }
            )
            print(f"  {way}, {turn + 1} of {repeats}: {sum_stages(own[-1]):.1f} s", flush=True)
            shutil.rmtree(run)
    medians = {way: statistics.median(map(sum_stages, own)) for way, own in found.items()}
    spent = {
        way: statistics.median(sum(report[command]["processor seconds"] for command in COMMANDS) for report in own)
        for way, own in found.items()
    }
    return {
        "seconds of all stages": medians,
        "overhead": round(medians["dask"] / medians["loop"] - 1, 3),
        "processor seconds of the commands": spent,  # with the start of all processes
        "reports": found,
    }
