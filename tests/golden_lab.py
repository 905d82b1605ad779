"""A folder with inputs and a small Dask cluster, on which the commands of golden_cli.py and golden_runs.py run."""

from __future__ import annotations

import functools
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from golden_parts import Parts, hash_of_column, parts_of_run, sha256, table_of
from golden_problems import Draw, concepts, planted

ROOT = Path(__file__).resolve().parents[1]
DIMENSION = 32  # of the inputs of the command line
Steps = Iterator[tuple[str, Parts]]


class CommandFailed(Exception):
    """A command that must succeed failed; the message is what it printed."""


class Lab:
    """A folder with inputs, in which commands run on the workers of one Dask scheduler."""

    def __init__(self, folder: Path, scheduler: str) -> None:
        self.folder = folder
        self.scheduler = scheduler

    def do(self, words: str, own_workers: bool = False) -> list[dict[str, Any]]:
        """Run a command such as `run base --keep 0.5 --out here`, and return the events that it logs."""
        arguments = [*shlex.split(self._as_published(words)), "--log-json"]
        if arguments[0] != "sample":
            arguments += ["--workers", "2"] if own_workers else ["--scheduler", self.scheduler]
        else:
            arguments[-1] = "--quiet"
        ended = subprocess.run(
            [sys.executable, "-m", "fairdedup", *arguments],
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
        )
        if ended.returncode:
            raise CommandFailed(f"fairdedup {words}: exit code {ended.returncode}\n{ended.stderr}")
        return [json.loads(line) for line in ended.stderr.splitlines() if line.startswith("{")]

    def _as_published(self, words: str) -> str:
        """Return a command with the procedure that was the default when its result was recorded."""
        command, run = words.split()[:2]
        of_line = "--against" in words or (self.folder / run / "state" / "earlier.json").is_file()
        if command not in ("run", "prune", "sweep") or of_line:  # a line goes on as it began
            return words
        return f"{words} {'--reach 0' if '--cover' in words else '--published'}"

    def ask(self, words: str) -> dict[str, Any]:
        """Run a command, and return the values of its last event."""
        return {name: value for name, value in self.do(words)[-1].items() if name not in ("time", "event", "run")}

    def parts(self, run: str) -> Parts:
        """Return the parts of a run directory."""
        return parts_of_run(self.folder / run)

    def made(self, run: str, words: str, own_workers: bool = False) -> Parts:
        """Run a command, and return the parts of the run directory after it."""
        self.do(words, own_workers)
        return self.parts(run)

    def copy(self, run: str, to: str) -> str:
        """Copy a run directory with the times of its files, and return the copy's name."""
        shutil.rmtree(self.folder / to, ignore_errors=True)
        shutil.copytree(self.folder / run, self.folder / to)
        return to

    @functools.cached_property
    def base(self) -> str:
        """Run with embeddings and clusters, but without decisions."""
        self.do("embed base --out base-run")
        self.do("cluster base-run --clusters 6")
        return "base-run"

    @functools.cached_property
    def day_1(self) -> str:
        """Finished run with which incremental runs begin; copy it before a command changes it."""
        run = self.copy(self.base, "day-1")
        self.do(f"prune {run} --keep 0.5 --cover --prototypes prototypes.npz")
        return run


def environment() -> dict[str, str]:
    """Return the environment of commands: the package of this checkout, and one thread for matrix products."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    return os.environ | threads | {"PYTHONPATH": path, "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False"}


@contextmanager
def laboratory(folder: Path) -> Iterator[Lab]:
    """Start a Dask scheduler with two workers for the commands in a folder, and end them with the block."""
    with tempfile.TemporaryDirectory() as own, open(Path(own) / "log", "wb") as log:
        address = Path(own) / "scheduler.json"
        worker = ["worker", "--no-nanny", "--nthreads", "1", "--no-dashboard", "--death-timeout", "60"]
        commands = [
            ["scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard"],
            *2 * [[*worker, "--local-directory", own]],
        ]
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "dask", *words, "--scheduler-file", str(address)],
                cwd=own,
                env=environment(),
                stdout=log,
                stderr=log,
            )
            for words in commands
        ]
        try:
            for _ in range(1200):
                if address.is_file() and address.stat().st_size:
                    break
                if processes[0].poll() is not None:
                    raise RuntimeError((Path(own) / "log").read_text())
                time.sleep(0.1)
            yield Lab(folder, json.loads(address.read_text())["address"])
        finally:
            for process in processes:
                process.kill()
                process.wait()


def write_inputs(folder: Path) -> None:
    """Write the inputs of commands: Parquet with embeddings, three nights as .npy, and the files that options name."""
    draw = Draw(77)
    counts = {"base": 1500, "night-1": 220, "night-2": 180, "night-3": 200}
    n = sum(counts.values())
    x = planted(draw, n, DIMENSION, offset=0.7)[0].astype(np.float16)
    prototypes = concepts(draw, x.astype(np.float64))
    for row, value in {5: np.nan, 400: 0.0, 401: np.inf, 1120: np.nan, 1555: 0.0, 1800: np.nan}.items():
        x[row] = value
    metadata = pa.table(
        {
            "id": [f"s{k * 7919 % 10007:05d}" for k in range(n)],
            "caption": [f"caption {k}" if k % 6 else None for k in range(n)],
            "width": draw.whole(900, n) + 100,
            "aesthetic": pa.array(np.where(draw.whole(9, n) == 0, np.nan, draw.whole(40, n) / 8), from_pandas=True),
            "language": draw.pick(["en", "de", "fr"], n).tolist(),
        }
    )
    ids = np.array(metadata.column("id").to_pylist())
    (folder / "base").mkdir(parents=True)
    vectors = pa.FixedSizeListArray.from_arrays(x.astype(np.float32).ravel(), DIMENSION)
    for k in range(3):
        table = metadata.append_column("embedding", vectors).slice(500 * k, 500)
        pq.write_table(table, folder / "base" / f"part-{k}.parquet")
    first = counts.pop("base")
    for name, rows in counts.items():
        np.save(folder / f"{name}.npy", x[first : first + rows])
        pq.write_table(metadata.slice(first, rows), folder / f"{name}.parquet")
        first += rows
    np.save(folder / "exam.npy", x[30:1500:37] + draw.pick([0.0, 0.01, 0.3], 40, 1).astype(np.float16))
    for name, rows in (("drop", slice(10, n, 41)), ("keep", slice(20, 1490, 31)), ("gone", slice(0, 1500, 6))):
        (folder / f"{name}.txt").write_text("\n".join(ids[rows]) + "\n", encoding="utf-8")
    (folder / "night-keep.txt").write_text("\n".join(ids[1725:1890:17]) + "\n", encoding="utf-8")
    flat = {f"{a}/{c}": v for a, own in prototypes.items() for c, v in own.items()}
    np.savez(folder / "prototypes.npz", **flat)  # type: ignore[arg-type]
    np.save(folder / "prototypes.npy", np.stack(list(flat.values())[2:5]))
    lines = [(*name.split("/"), row) for name, v in flat.items() for row in np.atleast_2d(v).tolist()]
    listed = {k: [line[i] for line in lines] for i, k in enumerate(("attribute", "concept", "vector"))}
    pq.write_table(pa.table(listed | {"temperature": [0.04] * len(lines)}), folder / "prototypes.parquet")
    groups = [("tone", "light"), ("tone", "dark"), ("age", "young"), ("age", "old")]
    exemplars = [(ids[600 + 9 * k + g], *group) for k in range(6) for g, group in enumerate(groups)]
    columns = map(list, zip(*exemplars, strict=True))
    table = pa.table(dict(zip(("id", "attribute", "concept"), columns, strict=True)))
    pq.write_table(table, folder / "exemplars.parquet")
    labelled = {"id": ids[6:1500:4]}
    for attribute, own in prototypes.items():
        names = [name for name in own if name != "absent"]
        likeness = np.nan_to_num(x[6:1500:4].astype(np.float64)) @ np.stack([own[name] for name in names]).T
        labels = likeness.argmax(axis=1)
        drawn = draw.whole(5, len(labels)) == 0  # a fifth of the labels is random
        labelled[attribute] = np.array(names)[np.where(drawn, draw.whole(len(names), len(labels)), labels)]
    pd.DataFrame(labelled).to_csv(folder / "labels.csv", index=False)
    (folder / "balanced.yaml").write_text(
        "rule: balanced\nprototypes: prototypes.npz\n"
        "target: {age: {young: 0.2, middle: 0.2, old: 0.6}}\ntemperature: {age: 0.03}\n",
        encoding="utf-8",
    )


def audited(lab: Lab, run: str, flags: str) -> Parts:
    """Run an audit, and return a hash for each column of its table."""
    lab.do(f"audit {run} {flags}")
    table = table_of(lab.folder / run / "report")
    return {name: hash_of_column(table.column(name)) for name in table.column_names}


def exported(lab: Lab, run: str) -> Parts:
    """Export the removed ids, and return their hash."""
    lab.do(f"export {run} --to txt --what removed --dest removed.txt")
    return {"ids": sha256((lab.folder / "removed.txt").read_bytes())}


def or_failure(work: Callable[[], Parts]) -> Parts:
    """Return the parts that a function returns, or the message of a command that failed."""
    try:
        return work()
    except CommandFailed as error:
        return {"failed": str(error)}
