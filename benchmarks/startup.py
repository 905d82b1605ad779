"""How long small commands take from the call to the prompt: start-up, a few hundred rows, the built-in sample.

    python benchmarks/startup.py [--repeats N] [--data DIR]

Each figure is the median over new processes of the seconds that a user waits (`seconds`) and of the processor's
seconds in all their processes (`processor`), with compiled code in numba's cache. `accounted` is the share of the wait
that the stages add up to, the page included (`seconds` of the last event with `--log-json`, in calls of their own); the
rest is the end of the process. `cluster` is the same command with
`--workers`, which starts a Dask cluster. Without the shards of FairFace in DIR, the faces are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from results_file import RESULTS, ROOT, write_results

ROWS, DIMENSION, FACES = 500, 64, 600
IN_MEMORY = """
import numpy as np
from fairdedup import deduplicate
deduplicate(np.load("x.npy"), keep=0.5, rule="semdedup")
"""


def time_command(folder: Path, words: list[str]) -> tuple[float, float, bytes]:
    """Return the seconds that a command takes, those of the processor, and what it writes to stderr."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    ended = subprocess.run([sys.executable, *words], cwd=folder, check=True, capture_output=True)
    seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, ended.stderr


def measure(folder: Path, words: list[str], repeats: int, *, run: str | None = None, fresh: bool = False) -> Any:
    """Return the median times of a command; `run` is its run directory, removed before each call if `fresh`."""
    times, shares = [], []
    for _ in range(repeats):
        if run is not None and fresh:
            shutil.rmtree(folder / run, ignore_errors=True)
        times.append(time_command(folder, words)[:2])
        if run is not None and fresh:
            shutil.rmtree(folder / run)
            seconds, _, events = time_command(folder, [*words, "--log-json"])
            shares.append(sum(json.loads(events.splitlines()[-1])["seconds"].values()) / seconds)
    medians = (round(median(each), 2) for each in zip(*times, strict=True))
    found = dict(zip(("seconds", "processor"), medians, strict=True))
    return found | ({"accounted": round(median(shares), 3)} if shares else {})


def write_vectors(folder: Path) -> None:
    rng = np.random.default_rng(0)
    bases = rng.normal(size=(ROWS // 2, DIMENSION))
    pairs = np.concatenate([bases, bases + 0.05 * rng.normal(size=bases.shape)])
    np.save(folder / "x.npy", pairs.astype(np.float32))


def write_faces(folder: Path, data: Path) -> bool:
    """Copy the first faces of FairFace as files, and tell whether there are any."""
    shards = sorted(data.glob("train96-*.tar"))
    if not shards:
        return False
    (folder / "faces").mkdir()
    with tarfile.open(shards[0]) as tar:
        names = [member for member in tar if member.name.endswith(".jpg")][:FACES]
        for member in names:
            file = tar.extractfile(member)
            assert file is not None
            (folder / "faces" / Path(member.name).name).write_bytes(file.read())
    return True


def measure_all(folder: Path, data: Path, repeats: int) -> dict[str, Any]:
    command, cluster = ["-m", "fairdedup"], ["--workers", str(os.cpu_count() or 1)]
    write_vectors(folder)
    subprocess.run([sys.executable, "-m", "fairdedup.warm_up"], check=True)  # else the first command compiles
    run = [*command, "run", "x.npy", "--keep", "0.5", "--rule", "semdedup", "--out", "vectors"]
    subprocess.run([sys.executable, *run], cwd=folder, check=True, capture_output=True)
    prune = [*command, "prune", "vectors", "--keep", "0.4", "--rule", "semdedup"]
    time_command(folder, prune)  # not counted: it reads the files of the libraries, and compiles what is left
    found = {
        "help": measure(folder, [*command, "--help"], repeats),
        "deduplicate 500 rows": measure(folder, ["-c", IN_MEMORY], repeats),
        "run 500 rows": measure(folder, run, repeats, run="vectors", fresh=True),
        "prune 500 rows": measure(folder, prune, repeats),
        "prune 500 rows, cluster": measure(folder, [*prune, *cluster], repeats),
    }
    if write_faces(folder, data):
        faces = [*command, "run", "faces", "--keep", "0.5", "--out", "of-faces"]
        time_command(folder, faces)
        found["run 600 faces"] = measure(folder, faces, repeats, run="of-faces", fresh=True)
        found["run 600 faces, cluster"] = measure(folder, [*faces, *cluster], repeats, run="of-faces", fresh=True)
    sample = [*command, "run", "--keep", "0.5", "--out", "of-sample"]
    found["run of the sample (2,405 pictures)"] = measure(folder, sample, repeats, run="of-sample", fresh=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "fairface")
    parser.add_argument("--out", type=Path, default=RESULTS / "startup.json")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="fairdedup-startup-") as folder:
        found = measure_all(Path(folder), args.data, args.repeats)
    for name, figures in found.items():
        print(f"{name:<36}", *(f"{key} {value}" for key, value in figures.items()))
    write_results(
        args.out,
        {"repeats": args.repeats, "load before": round(load, 2), "commands": found},
        what="Seconds of small commands, median over new processes: waited for, and of the processor in all processes",
        seed=0,
        packages=("numpy", "numba", "torch", "open_clip_torch", "dask", "pyarrow"),
    )


if __name__ == "__main__":
    main()
