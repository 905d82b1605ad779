"""Hashes of decisions, to see that a change of the code changes none of them.

The expected values are what the code decided when they were recorded. They pin, and do not judge: the slow twins
(oracles.py) say what is right. Only the public ways in are used, `deduplicate` and the command line.

    python tests/golden.py --out FILE           record every configuration
    python tests/golden.py --check FILE         compare with the record: a line for each; exit code 1 if one differs
    python tests/golden.py --out FILE --only balanced sweep       those whose name has one of these words in it
    python tests/golden.py --pin                write golden.json again, which test_golden.py compares with
    python tests/golden.py --runs DIR           make finished run directories, for later versions to go on from
    python tests/golden.py --check-runs DIR     go on from them with this version, on a copy, and compare

Configurations in Python whose labels are given do not depend on the machine: golden.json has their hashes. The others
rest on k-means or on an encoder, so compare them on one machine, with the same packages. A record has a value or a
hash for each part of a result, so that a line can name the parts that differ. Messages may be reworded: of reasons
only the kind counts, of warnings only the number.
"""

from __future__ import annotations

import argparse
import fnmatch
import functools
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
PINNED = Path(__file__).with_name("golden.json")
DIMENSION = 32  # of the inputs of the command line
Parts = dict[str, Any]  # name of a part of a result -> its hash, or a small value as it is

# What a result is reduced to


def sha256(*data: bytes) -> str:
    """Return the hash of these bytes, each with its length before it."""
    whole = hashlib.sha256()
    for part in data:
        whole.update(len(part).to_bytes(8, "little") + part)
    return whole.hexdigest()


def hash_of_column(column: Any) -> str:
    """Return the hash of a column: bool, int64 or float64, else text; NaN and null are the same.

    Parameters
    ----------
    column : ndarray, pandas.Series or Arrow array
    """
    if not isinstance(column, pa.Array | pa.ChunkedArray):
        column = pa.array(column, from_pandas=True)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        column = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
    kind = column.type
    missing = np.asarray(column.is_null(nan_is_null=pa.types.is_floating(kind)))
    for name, is_kind, dtype in (
        ("bool", pa.types.is_boolean, "u1"), ("int64", pa.types.is_integer, "<i8"),
        ("float64", pa.types.is_floating, "<f8"),
    ):  # fmt: skip
        if is_kind(kind):
            values = np.zeros(len(column), dtype)
            values[~missing] = np.asarray(column.filter(pa.array(~missing))).astype(dtype)
            values += np.zeros(1, dtype)  # -0.0 is 0.0
            return sha256(name.encode(), missing.tobytes(), values.tobytes())
    return sha256(b"text", json.dumps(column.to_pylist(), default=str).encode())


def kind_of(reason: str) -> str:
    """Return why a row was rejected, whatever the words: what asked for it, or what the vector is."""
    near = re.search(r"evaluation.*'(.*)'", reason)
    if near:
        return f"near {near[1]}"
    for kind in ("drop", "where", "gone"):
        if reason.startswith(f"{kind}:"):
            return kind
    return "zero" if "zero" in reason.lower() else "unusable"


def whole_hash(parts: Parts) -> str:
    """Return one hash of all parts."""
    return sha256(json.dumps(parts, sort_keys=True).encode())


def parts_of_result(result: Any) -> Parts:
    """Return what `deduplicate` gave."""
    rejected = result.rejected
    return {
        **{f"decisions.{name}": hash_of_column(result.decisions[name]) for name in result.decisions},
        "kept": hash_of_column(result.kept),
        "rejected": [[int(r), str(i), kind_of(why)] for r, i, why in rejected[["row", "id", "reason"]].to_numpy()],
        "eps": result.eps,
        "counts": result.counts,
        "guarantees": result.guarantees,
        "warnings": len(result.warnings),
    }


def table_of(folder: Path) -> pa.Table:
    """Return all parts of a table of a run, in order."""
    return pa.concat_tables([pq.read_table(part) for part in sorted(folder.glob("*.parquet"))])


def parts_of_run(run: Path) -> Parts:
    """Return what a finished run directory says."""
    decisions, kept, rejected = (table_of(run / name) for name in ("decisions", "kept", "rejected"))
    columns = {name: decisions.column(name) for name in decisions.column_names}
    if "representative_run" in columns:  # where that run lay says nothing
        folders = columns["representative_run"].to_pylist()
        columns["representative_run"] = pa.array([f and Path(f).name for f in folders], pa.string())
    known = json.loads((run / "run.json").read_text(encoding="utf-8"))
    why = [f"{row} {name} {kind_of(reason)}" for row, name, reason in zip(
        *(rejected.column(c).to_pylist() for c in ("row", "id", "reason")), strict=True)]  # fmt: skip
    drift = known.get("drift")
    return {
        **{f"decisions.{name}": hash_of_column(column) for name, column in columns.items()},
        "kept": hash_of_column(kept.column("id")),
        "metadata": {name: hash_of_column(kept.column(name)) for name in kept.column_names},
        "rejected": hash_of_column(why),
        "eps": known["eps"],
        "counts": known["counts"],
        "clusters": known["clusters"],
        "guarantees": known["guarantees"],
        "warnings": len(known["warnings"]),
        "shares": sha256(json.dumps(known["shares"], sort_keys=True).encode()),
        "against": [Path(folder).name for folder in known.get("against", [])],
        "drift": drift and sha256(json.dumps(drift, sort_keys=True).encode()),
        "replaced": [{**line, "file": Path(line["file"]).name} for line in known.get("replaced", [])],
    }


# Problems, the same on every machine


class Draw:
    """Random values by whole numbers and exact steps alone: the stream is PCG64's own, which never changes."""

    def __init__(self, *seed: int) -> None:
        self._bits = np.random.PCG64(list(seed))

    def whole(self, below: int, *shape: int) -> NDArray[np.int64]:
        """Return whole numbers from 0 to below - 1."""
        raw = self._bits.random_raw(int(np.prod(shape, dtype=np.int64)))
        return ((raw >> np.uint64(11)) % np.uint64(below)).astype(np.int64).reshape(shape)

    def noise(self, *shape: int) -> NDArray[np.float64]:
        """Return values about as a normal distribution has them: sums of four even ones."""
        return (self.whole(2001, 4, *shape).sum(axis=0) - 4000) / 1000

    def pick(self, values: Any, *shape: int) -> NDArray[Any]:
        """Return some of these values, all as likely."""
        return np.asarray(values)[self.whole(len(values), *shape)]


def planted(draw: Draw, n: int, d: int, offset: float = 0.0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return n vectors with planted duplicates at every distance, copies among them, and the base of each."""
    bases = draw.noise(max(1, n // 5), d) + offset * draw.noise(d)
    own = draw.whole(len(bases), n)
    spread = draw.pick([0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5], n)
    return bases[own] + draw.noise(n, d) * spread[:, None], own


def concepts(draw: Draw, x: NDArray[np.float64]) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Return two attributes of prototypes among the vectors; one has absent prototypes."""

    def near(*rows: int) -> NDArray[np.float64]:
        return np.stack([x[row] + draw.noise(x.shape[1]) for row in rows])

    n = len(x)
    light, dark, young, middle, old = near(0, n // 7, n // 5, n // 3, n // 2)
    return {
        "tone": {"light": light, "dark": dark},
        "age": {"young": young, "middle": middle, "old": old, "absent": near(n - 1, n - 2)},
    }


@dataclass(frozen=True)
class Problem:
    """Embeddings with labels, and what options may ask for."""

    x: NDArray[Any]
    labels: NDArray[np.int64]
    prototypes: dict[str, dict[str, NDArray[np.float64]]]
    numbers: NDArray[Any]
    protected: NDArray[np.bool_]
    ids: NDArray[Any] | None = None


@functools.cache
def problem(name: str) -> Problem:
    """Return the problem of this name."""
    number = PROBLEMS.index(name)
    n, d, clusters = [
        (1200, 32, 8), (3000, 48, 12), (900, 8, 5), (800, 24, 4), (700, 16, 150), (1500, 40, 1), (600, 32, 6),
        (500, 12, 7), (2000, 32, 9),
    ][number]  # fmt: skip
    draw = Draw(number, 2024)
    x, own = planted(draw, n, d, offset=2.0 if name == "offset" else 0.5)
    labels = np.where(draw.whole(10, n) == 0, draw.whole(clusters, n), own % clusters)
    prototypes = concepts(draw, x)
    numbers = np.where(draw.whole(8, n) == 0, np.nan, draw.whole(60, n) / 4)
    protected, ids = draw.whole(25, n) == 0, None
    if name == "ties":
        x, numbers = np.rint(x), draw.whole(4, n)
    elif name == "copies":
        rows = draw.whole(n // 3, n)
        x, labels = x[rows], labels[rows]
    elif name == "many":
        labels = labels * 7919 + np.where(labels % 2, 2**62, 0)  # numbers need not follow each other
    elif name == "bad":
        x[3], x[77], x[301] = np.nan, 0.0, np.inf
        protected[77] = True
        ids = np.array([f"id-{k * 7919 % 10007:05d}" for k in range(n)])
    elif name == "wild":  # antipodes, and lengths from very short to very long, in float32
        x = x * draw.pick([-1.0, 1.0], n, 1) * draw.pick([2.0**-40, 2.0**-9, 0.75, 3.0, 2.0**50], n, 1)
    return Problem(x.astype(np.float32 if name == "wild" else np.float16), labels, prototypes, numbers, protected, ids)


PROBLEMS = ["plain", "offset", "ties", "copies", "many", "one", "bad", "wild", "trained"]


# Configurations in Python

SHARES = {"age": {"young": 0.2, "middle": 0.2, "old": 0.6}}
TEMPERATURES = {"age": 0.03}


@dataclass(frozen=True)
class Call:
    """A call of `deduplicate`.

    In `options`, an `always_keep` of "mask" or "ids" is the problem's, `prototypes="array"` gives one attribute as an
    array, and `form` is what the embeddings are passed as.
    """

    problem: str
    options: dict[str, Any]

    @property
    def name(self) -> str:
        words = [self.problem, self.options["rule"]]
        for name, value in self.options.items():
            if name != "rule":
                words.append(name if value is True else f"{name}={'given' if isinstance(value, dict) else value}")
        return "python/" + " ".join(words)

    @property
    def anywhere(self) -> bool:
        """Whether the result is the same on every machine."""
        return "clusters" not in self.options

    def parts(self) -> Parts:
        """Decide, and reduce the result; a mistake of the user's is a result as well."""
        from fairdedup import UserError, deduplicate

        own, options = problem(self.problem), dict(self.options)
        form = options.pop("form", "numpy")
        x = pa.FixedSizeListArray.from_arrays(own.x.ravel(), own.x.shape[1]) if form == "arrow" else own.x
        x = pd.Series(list(own.x)) if form == "pandas" else x
        if options["rule"] in ("fairdedup", "balanced"):
            array = options.pop("prototypes", None) == "array"
            options["prototypes"] = np.stack(list(own.prototypes["age"].values())[:3]) if array else own.prototypes
        if options["rule"] == "prefer":
            options["prefer"] = own.numbers
        if options.get("always_keep") == "mask":
            options["always_keep"] = own.protected
        elif options.get("always_keep") == "ids":
            names = np.arange(len(own.x)) if own.ids is None else own.ids
            options["always_keep"] = names[own.protected]
        options.setdefault("clusters", own.labels)
        try:
            return parts_of_result(deduplicate(x, ids=own.ids, **options))
        except UserError:
            return {"refused": True}


def calls() -> dict[str, Call]:
    """Return all of them by name."""
    found: dict[str, Call] = {}

    def add(where: str, rules: str, **options: Any) -> None:
        for words in rules.split():
            rule, _, cover = words.partition("+")
            given = {"rule": rule, **({"cover": True} if cover else {}), **options}
            made = Call(where, given)
            assert made.name not in found, made.name
            found[made.name] = made

    plain = "semdedup fairdedup balanced prefer random-neighbour"
    covered = " ".join(f"{rule}+cover" for rule in plain.split())
    add("plain", f"{plain} {covered} semdedup-chain random", keep=0.5)
    add("plain", "semdedup fairdedup+cover balanced balanced+cover prefer semdedup-chain random", at_most=0.4)
    add("plain", f"{plain} fairdedup+cover semdedup-chain", eps=0.1)
    add("plain", "random random-neighbour+cover", keep=0.3, seed=5)
    add("plain", "fairdedup", keep=1.0)
    add("plain", "fairdedup balanced+cover semdedup-chain", eps=0.0)
    add("plain", "semdedup prefer+cover", eps=2.0001)
    add("offset", f"{plain} balanced+cover fairdedup+cover semdedup-chain", keep=0.4)
    add("ties", f"{plain} {covered} semdedup-chain", keep=0.55)
    add("copies", "semdedup fairdedup+cover balanced semdedup-chain", keep=0.9)
    add("copies", "semdedup random-neighbour+cover balanced", at_most=0.6)
    add("many", "semdedup fairdedup balanced+cover prefer", keep=0.6)
    add("one", "semdedup+cover fairdedup balanced+cover random-neighbour", keep=0.35)
    add("wild", "semdedup fairdedup+cover balanced", keep=0.5)
    for form in ("arrow", "pandas"):
        add("plain", "semdedup", keep=0.6, form=form)
    # What is always kept, and rows that cannot be used.
    add("plain", f"{plain} balanced+cover prefer+cover random", keep=0.5, always_keep="mask")
    add("ties", "semdedup+cover fairdedup balanced", at_most=0.5, always_keep="ids")
    add("many", "random-neighbour+cover fairdedup", eps=0.15, always_keep="ids")
    add("bad", f"{plain} semdedup-chain random", keep=0.5)
    add("bad", "semdedup fairdedup+cover balanced random", keep=0.5, always_keep="ids")
    # Options of `fairdedup` and `balanced`.
    add("plain", "fairdedup fairdedup+cover", keep=0.5, start="zero")
    add("plain", "fairdedup fairdedup+cover", keep=0.5, calibrate="zscore")
    add("offset", "fairdedup", keep=0.5, calibrate="zscore", start="zero", always_keep="mask")
    add("plain", "balanced balanced+cover", keep=0.5, target="data")
    add("plain", "balanced", keep=0.5, target=SHARES)
    add("plain", "balanced", keep=0.5, temperature=0.02)
    add("plain", "balanced+cover", keep=0.5, temperature=TEMPERATURES)
    add("plain", "balanced", keep=0.5, reserve=0.0)
    add("offset", "balanced balanced+cover", keep=0.5, reserve=0.3)
    add("bad", "balanced+cover", keep=0.4, reserve=0.25, target=SHARES, temperature=TEMPERATURES, always_keep="mask")
    add("one", "fairdedup balanced", keep=0.5, prototypes="array")
    # Refused.
    add("many", "semdedup", keep=0.1)
    add("plain", "semdedup-chain", keep=0.5, always_keep="mask")
    add("plain", "random", eps=0.1)
    add("plain", "random+cover semdedup-chain+cover", keep=0.5)
    # Those that train clusters.
    add("trained", "semdedup fairdedup balanced+cover random", keep=0.5, clusters="auto", device="cpu")
    add("trained", "semdedup+cover fairdedup", at_most=0.5, clusters=7, seed=3, device="cpu")
    return found


# Configurations of the command line


class CommandFailed(Exception):
    """A command that had to succeed has not; the message has what it printed."""


class Lab:
    """A folder with inputs, where commands are run on the workers of one Dask scheduler."""

    def __init__(self, folder: Path, scheduler: str) -> None:
        self.folder = folder
        self.scheduler = scheduler

    def do(self, words: str, own_workers: bool = False) -> list[dict[str, Any]]:
        """Run a command, as `run base --keep 0.5 --out here`; return the events that it logs."""
        asked = [*shlex.split(words), "--log-json"]
        if asked[0] != "sample":
            asked += ["--workers", "2"] if own_workers else ["--scheduler", self.scheduler]
        else:
            asked[-1] = "--quiet"
        ended = subprocess.run(
            [sys.executable, "-m", "fairdedup", *asked],
            cwd=self.folder, env=environment(), capture_output=True, text=True,
        )  # fmt: skip
        if ended.returncode:
            raise CommandFailed(f"fairdedup {words}: exit code {ended.returncode}\n{ended.stderr}")
        return [json.loads(line) for line in ended.stderr.splitlines() if line.startswith("{")]

    def ask(self, words: str) -> dict[str, Any]:
        """Run a command, and return what its last event tells."""
        return {name: value for name, value in self.do(words)[-1].items() if name not in ("time", "event", "run")}

    def parts(self, run: str) -> Parts:
        """Return what a run directory says."""
        return parts_of_run(self.folder / run)

    def made(self, run: str, words: str, own_workers: bool = False) -> Parts:
        """Run a command, and return what the run directory says then."""
        self.do(words, own_workers)
        return self.parts(run)

    def copy(self, run: str, to: str) -> str:
        """Copy a run directory, with the times of its files."""
        shutil.rmtree(self.folder / to, ignore_errors=True)
        shutil.copytree(self.folder / run, self.folder / to)
        return to

    @functools.cached_property
    def base(self) -> str:
        """A run whose embeddings are clustered, and nothing is decided yet."""
        self.do("embed base --out base-run")
        self.do("cluster base-run --clusters 6")
        return "base-run"

    @functools.cached_property
    def day_1(self) -> str:
        """The finished run that lines begin with; copy it before it is changed."""
        run = self.copy(self.base, "day-1")
        self.do(f"prune {run} --keep 0.5 --cover --prototypes prototypes.npz")
        return run


def environment() -> dict[str, str]:
    """Return the environment of commands: the package beside this file, one thread for each product."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    return os.environ | threads | {"PYTHONPATH": path, "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False"}


@contextmanager
def laboratory(folder: Path) -> Iterator[Lab]:
    """Start a Dask scheduler with two workers for commands in a folder; they end with the block."""
    with tempfile.TemporaryDirectory() as own, open(Path(own) / "log", "wb") as log:
        address = Path(own) / "scheduler.json"
        worker = ["worker", "--no-nanny", "--nthreads", "1", "--no-dashboard", "--death-timeout", "60"]
        asked = [
            ["scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard"],
            *2 * [[*worker, "--local-directory", own]],
        ]
        processes = [
            subprocess.Popen([sys.executable, "-m", "dask", *words, "--scheduler-file", str(address)],
                             cwd=own, env=environment(), stdout=log, stderr=log)
            for words in asked
        ]  # fmt: skip
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
    """Write what commands are given: Parquet of embeddings, three nights as .npy, and the files of options."""
    draw = Draw(77)
    counts = {"base": 1500, "night-1": 220, "night-2": 180, "night-3": 200}
    n = sum(counts.values())
    x = planted(draw, n, DIMENSION, offset=0.7)[0].astype(np.float16)
    prototypes = concepts(draw, x.astype(np.float64))
    for row, value in {5: np.nan, 400: 0.0, 401: np.inf, 1120: np.nan, 1555: 0.0, 1800: np.nan}.items():
        x[row] = value
    metadata = pa.table({
        "id": [f"s{k * 7919 % 10007:05d}" for k in range(n)],
        "caption": [f"caption {k}" if k % 6 else None for k in range(n)],
        "width": draw.whole(900, n) + 100,
        "aesthetic": pa.array(np.where(draw.whole(9, n) == 0, np.nan, draw.whole(40, n) / 8), from_pandas=True),
        "language": draw.pick(["en", "de", "fr"], n).tolist(),
    })  # fmt: skip
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
    pq.write_table(pa.table(dict(zip(("id", "attribute", "concept"), map(list, zip(*exemplars, strict=True)),
                                     strict=True))), folder / "exemplars.parquet")  # fmt: skip
    labelled = {"id": ids[6:1500:4]}
    for attribute, own in prototypes.items():
        names = [name for name in own if name != "absent"]
        likeness = np.nan_to_num(x[6:1500:4].astype(np.float64)) @ np.stack([own[name] for name in names]).T
        told = likeness.argmax(axis=1)
        told = np.where(draw.whole(5, len(told)) == 0, draw.whole(len(names), len(told)), told)  # a fifth by lot
        labelled[attribute] = np.array(names)[told]
    pd.DataFrame(labelled).to_csv(folder / "labels.csv", index=False)
    (folder / "balanced.yaml").write_text(
        "rule: balanced\nprototypes: prototypes.npz\n"
        "target: {age: {young: 0.2, middle: 0.2, old: 0.6}}\ntemperature: {age: 0.03}\n",
        encoding="utf-8",
    )


PRUNES = """
--rule semdedup --keep 0.5
--rule semdedup --at-most 0.4 --cover
--rule semdedup --eps 0.1
--rule fairdedup --keep 0.5 --prototypes prototypes.npz
--rule fairdedup --at-most 0.4 --cover --prototypes prototypes.npy
--rule fairdedup --keep 0.4 --calibrate zscore --start zero --prototypes prototypes.parquet
--rule fairdedup --keep 0.5 --cover --calibrate zscore --prototypes exemplars.parquet
--rule balanced --keep 0.5 --prototypes prototypes.npz
--rule balanced --keep 0.4 --cover --reserve 0.2 --target data --prototypes prototypes.parquet
--rule balanced --eps 0.1 --temperature 0.05 --prototypes prototypes.npz
--config balanced.yaml --keep 0.5 --always-keep keep.txt
--prefer aesthetic --keep 0.5
--prefer width --at-most 0.5 --cover
--rule random-neighbour --keep 0.4
--rule random-neighbour --eps 0.2 --cover --seed 3
--rule semdedup-chain --keep 0.4
--rule semdedup-chain --eps 0.1 --drop drop.txt
--rule random --keep 0.3
--rule random --at-most 0.4 --always-keep keep.txt --seed 9
--rule semdedup --keep 0.5 --cover --where "width >= 256 AND language <> 'fr'"
--rule fairdedup --keep 0.4 --always-keep keep.txt --drop drop.txt --prototypes prototypes.npz
--rule semdedup --keep 0.5 --exclude-near exam.npy --exclude-near-eps 0.05
--prefer aesthetic --eps 0.05 --cover --where "aesthetic > 1" --drop drop.txt --always-keep keep.txt \
--exclude-near exam.npy
""".strip()

Steps = Iterator[tuple[str, Parts]]


def prune_of(words: str, lab: Lab) -> Steps:
    """Decide the base run by these flags."""
    run = lab.copy(lab.base, "pruned")
    yield "", lab.made(run, f"prune {run} {words}")


def run_with_workers_of_its_own(lab: Lab) -> Steps:
    """Run all stages on a local cluster, as a user does."""
    yield "", lab.made("whole", "run base --rule semdedup --keep 0.5 --clusters 6 --out whole", own_workers=True)


def decided_again(lab: Lab) -> Steps:
    """Decide one run three times: nothing of the decision before may be left."""
    run = lab.copy(lab.base, "again")
    for words in ("--rule balanced --keep 0.3 --cover --prototypes prototypes.npz --drop drop.txt",
                  "--rule random --keep 0.6", "--rule fairdedup --keep 0.5 --prototypes prototypes.npz"):  # fmt: skip
        yield words, lab.made(run, f"prune {run} {words}")


def line_of_fairdedup(lab: Lab) -> Steps:
    """Decide three nights after a first run, the last one again, and all of it anew."""
    yield "day 1", lab.parts(lab.day_1)
    yield "day 2", lab.made("day-2", "run night-1.npy --against day-1 --out day-2")
    yield (
        "day 3",
        lab.made("day-3", "run night-2.npy --against day-2 --at-most 0.2 --always-keep night-keep.txt --out day-3"),
    )
    yield "day 4", lab.made("day-4", "run night-3.npy --against day-3 --where \"language <> 'de'\" --out day-4")
    yield "day 4 decided again", lab.made("day-4", "prune day-4 --at-most 0.1")
    yield (
        "day 4 by another rule",
        lab.made("day-4", "prune day-4 --rule semdedup --no-cover --drop drop.txt --exclude-near exam.npy"),
    )
    yield "refit", lab.made("refitted", "refit day-4 --keep 0.4 --clusters 5 --out refitted")
    yield (
        "after the refit",
        lab.made("refitted-2", "run night-1.npy --against refitted --id shard/key --out refitted-2"),
    )


def branches(lab: Lab) -> Steps:
    """Decide two nights beside one run, a third beside both, and a night after a replacement."""
    run = lab.copy(lab.day_1, "trunk")
    for k in (1, 2):
        lab.do(f"run night-{k}.npy --against {run} --out branch-{k}")
    yield "joined", lab.made("joined", "run night-3.npy --against branch-1 --against branch-2 --out joined")
    yield "replaced", lab.made(run, f"replace {run} --gone gone.txt")
    yield (
        "after a replacement",
        lab.made("after-replacement", f"run night-1.npy --against {run} --out after-replacement"),
    )


def line_of(rule: str, begin: str, night: str, lab: Lab) -> Steps:
    """Decide a first run by another rule, and a night."""
    run = lab.copy(lab.base, f"{rule}-1")
    lab.do(f"prune {run} {begin}")
    yield "day 2", lab.made(f"{rule}-2", f"run night-1.npy --against {run} --out {rule}-2 {night}")


def replacement(words: str, lab: Lab) -> Steps:
    """Take samples out of a run that was decided by these flags, and more of them after that."""
    run = lab.copy(lab.base, "mended")
    lab.do(f"prune {run} {words}")
    yield "once", lab.made(run, f"replace {run} --gone gone.txt")
    yield "twice", lab.made(run, f"replace {run} --gone drop.txt")
    if "balanced" in words:  # who has gone does not come back
        yield "decided again", lab.made(run, f"prune {run} --rule semdedup --keep 0.5")


def sweeps(lab: Lab) -> Steps:
    """Ask what several fractions would keep."""
    for words in ("--rule semdedup", "--rule balanced --cover --prototypes prototypes.npz", "--rule semdedup-chain",
                  "--rule fairdedup --always-keep keep.txt --drop drop.txt --prototypes prototypes.npz"):  # fmt: skip
        yield words, lab.ask(f"sweep {lab.base} --keep 0.3,0.5,0.8 {words}")


def labels_put_to_use(lab: Lab) -> Steps:
    """Fit prototypes to labels, decide by them, and give the audit and the ids of those removed."""
    run = lab.copy(lab.day_1, "labelled")
    told = lab.ask(f"calibrate {run} --labels labels.csv --out fitted.parquet --prototypes prototypes.npz")
    yield "calibrate", {"attributes": told["attributes"]}
    yield (
        "prune",
        lab.made(run, f"prune {run} --rule balanced --keep 0.5 --cover --reserve 0.2 --prototypes fitted.parquet"),
    )
    yield "audit", audited(lab, run, "--labels labels.csv --prototypes fitted.parquet")
    yield "export", exported(lab, run)


def audited(lab: Lab, run: str, flags: str) -> Parts:
    """Return the numbers of an audit."""
    lab.do(f"audit {run} {flags}")
    table = table_of(lab.folder / run / "report")
    return {name: hash_of_column(table.column(name)) for name in table.column_names}


def exported(lab: Lab, run: str) -> Parts:
    """Return the ids of those removed, as an export has them."""
    lab.do(f"export {run} --to txt --what removed --dest removed.txt")
    return {"ids": sha256((lab.folder / "removed.txt").read_bytes())}


def pictures(lab: Lab) -> Steps:
    """Decide drawn pictures by the built-in model and the captions of people."""
    lab.do("sample pictures --rows 600")
    yield "fairdedup", lab.made("pictured", "run pictures --keep 0.5 --clusters 3 --out pictured")
    yield "balanced", lab.made("pictured", "prune pictured --rule balanced --keep 0.4 --cover")
    yield "zscore", lab.made("pictured", "prune pictured --eps 0.05 --calibrate zscore")


def command_line() -> dict[str, Callable[[Lab], Steps]]:
    """Return what is done by the command line, by name; each gives one configuration or several, step by step."""
    known = "--prototypes prototypes.npz"
    begun = {
        "semdedup": ("--rule semdedup --keep 0.5", "--cover"),
        "balanced": (f"--rule balanced --keep 0.5 --cover {known}", "--at-most 0.3"),
        "prefer": ("--prefer aesthetic --at-most 0.5 --cover", "--drop drop.txt"),
        "random-neighbour": ("--rule random-neighbour --eps 0.1", ""),
        "fairdedup": (f"--rule fairdedup --keep 0.4 --calibrate zscore --always-keep keep.txt {known}",
                      "--exclude-near exam.npy --at-most 0.3"),
    }  # fmt: skip
    replaced = (f"--rule balanced --keep 0.5 {known}", "--rule semdedup --keep 0.4 --cover",
                "--rule semdedup-chain --keep 0.4", "--rule random --keep 0.4")  # fmt: skip
    return {
        **{f"prune {words}": functools.partial(prune_of, words) for words in PRUNES.splitlines()},
        "run by workers of its own": run_with_workers_of_its_own,
        "prune again": decided_again,
        "line": line_of_fairdedup,
        "line in branches": branches,
        **{f"line by {rule}": functools.partial(line_of, rule, *words) for rule, words in begun.items()},
        **{f"replace after {words}": functools.partial(replacement, words) for words in replaced},
        "sweep": sweeps,
        "labels": labels_put_to_use,
        "sample": pictures,
    }


# Run directories for later versions

OLD_RUNS = """
run base --rule semdedup --keep 0.5 --clusters 6 --out plain
run base --rule balanced --keep 0.5 --cover --clusters 6 --prototypes prototypes.npz --out line/day-1
run night-1.npy --against line/day-1 --out line/day-2
run night-2.npy --against line/day-2 --at-most 0.2 --out line/day-3
run --keep 0.5 --out sample
run base --prefer aesthetic --keep 0.5 --clusters 6 --where "width >= 256 AND language <> 'fr'" \
--always-keep old-keep.txt --drop drop.txt --out curated
run base --rule semdedup-chain --keep 0.4 --clusters 6 --out replaced
replace replaced --gone gone.txt
embed base --out begun
cluster begun --clusters 6
""".strip()
FINISHED = ("plain", "line/day-1", "line/day-2", "line/day-3", "sample", "curated", "replaced")
GOING_ON = """
run base --rule semdedup --keep 0.5 --clusters 6 --out plain
prune plain --rule random-neighbour --keep 0.4
replace plain --gone gone.txt
run night-3.npy --against line/day-3 --out line/day-4
prune line/day-3 --at-most 0.1
prune line/day-2 --rule fairdedup --no-cover
refit line/day-3 --keep 0.5 --clusters 5 --out refitted
run --keep 0.5 --out sample
prune sample --rule balanced --keep 0.4 --cover
prune curated --rule semdedup --keep 0.5
replace replaced --gone drop.txt
prune replaced --keep 0.5 --prototypes prototypes.npz
prune begun --rule semdedup --eps 0.1
""".strip()


def make_runs(folder: Path) -> None:
    """Make finished run directories, and record beside them what this version makes of them."""
    if folder.exists() and any(folder.iterdir()):
        raise SystemExit(f"{folder} is not empty: name a new folder")
    write_inputs(folder)
    allowed = pq.read_table(folder / "base", columns=["id", "width", "language"]).to_pylist()[20:1490:31]
    kept = [line["id"] for line in allowed if line["width"] >= 256 and line["language"] != "fr"]
    (folder / "old-keep.txt").write_text("\n".join(kept) + "\n", encoding="utf-8")
    with laboratory(folder) as lab:
        for words in OLD_RUNS.splitlines():
            print(words, flush=True)
            lab.do(words)
    found = dict(going_on(folder))
    failed = [parts["failed"] for parts in found.values() if "failed" in parts]
    if failed:
        raise SystemExit("\n".join(failed))
    write_record(folder / "golden.json", found)


def going_on(folder: Path) -> Steps:
    """Read finished run directories, then go on from them in a copy, and give each result."""
    for run in FINISHED:
        yield f"as it is: {run}", parts_of_run(folder / run)
    with tempfile.TemporaryDirectory() as own:
        copy = Path(own).resolve() / folder.name
        shutil.copytree(folder, copy)
        with laboratory(copy) as lab:
            for name, ask in (
                ("sweep plain", lambda: lab.ask("sweep plain --rule semdedup --keep 0.3,0.5")),
                ("export plain", lambda: exported(lab, "plain")),
                ("audit sample", lambda: audited(lab, "sample", "--labels sample/sample/labels.parquet")),
            ):
                yield name, or_failure(ask)
            for words in GOING_ON.splitlines():
                asked = shlex.split(words)
                run = asked[asked.index("--out") + 1] if "--out" in asked else asked[1]
                before = times(copy / run)
                parts = or_failure(functools.partial(lab.made, run, words))
                after = times(copy / run)
                again = [name for name in before if before[name] != after.get(name)]
                yield words, parts | {"embedded or clustered again": again}


def or_failure(work: Callable[[], Parts]) -> Parts:
    """Return what the work gives, or that a command of it has failed."""
    try:
        return work()
    except CommandFailed as error:
        return {"failed": str(error)}


def times(run: Path) -> dict[str, int]:
    """Return when each array of a run's embeddings and clusters was written."""
    files = [*run.glob("embeddings/img_emb/*.npy"), *run.glob("clusters/*.npy")]
    return {str(file.relative_to(run)): file.stat().st_mtime_ns for file in sorted(files)}


# Records, and their comparison


def results(only: list[str]) -> Steps:
    """Give every configuration that is asked for, one after the other; what fails gives no more than that."""
    python = {name: own for name, own in calls().items() if wanted(name, only)}
    commands = {f"cli/{name}": own for name, own in command_line().items() if wanted(f"cli/{name}", only)}
    for name, own in python.items():
        yield name, own.parts()
    if not commands:
        return
    with tempfile.TemporaryDirectory() as folder:
        lab_folder = Path(folder).resolve() / "lab"
        write_inputs(lab_folder)
        with laboratory(lab_folder) as lab:
            for name, steps in commands.items():
                try:
                    for step, parts in steps(lab):
                        yield f"{name}: {step}" if step else name, parts
                except CommandFailed as error:
                    yield name, {"failed": str(error)}


def wanted(name: str, only: list[str]) -> bool:
    """Say whether a name has one of the words in it, or fits one as a pattern."""
    return not only or any(word in name or fnmatch.fnmatch(name, word) for word in only)


def timed(steps: Steps) -> Iterator[tuple[str, Parts, float]]:
    """Give each result with the seconds that it took."""
    began = time.monotonic()
    for name, parts in steps:
        now = time.monotonic()
        yield name, parts, now - began
        began = now


def write_record(file: Path, found: dict[str, Parts]) -> None:
    """Write a record: of each configuration one hash, and its parts."""
    told = {name: {"hash": whole_hash(parts), "parts": parts} for name, parts in found.items()}
    file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def record(file: Path, only: list[str]) -> int:
    """Record what the code decides, and return the exit code."""
    found = {}
    for name, parts, seconds in timed(results(only)):
        if "failed" in parts:
            print(parts["failed"])
            return 1
        found[name] = parts
        print(f"{len(found):4} {seconds:6.2f} s  {name}", flush=True)
    write_record(file, found)
    return 0


def compare(steps: Steps, file: Path, partly: bool = False) -> int:
    """Print a line for each configuration, and return the exit code: 1 where one differs, or is missing."""
    known = json.loads(file.read_text(encoding="utf-8"))
    left, wrong = dict.fromkeys(known), 0
    for name, parts, seconds in timed(steps):
        left.pop(name, None)
        if "failed" in parts:
            verdict, wrong = f"FAILED: {parts['failed']}", wrong + 1
        elif name not in known:
            verdict = "not in the record"
        else:
            before, now = known[name]["parts"], json.loads(json.dumps(parts))
            names = [part for part in {**before, **now} if before.get(part) != now.get(part)]
            verdict = f"DIFFERS in {', '.join(names)}" if names else "ok"
            wrong += bool(names)
        print(f"{seconds:6.2f} s  {name}: {verdict}", flush=True)
    for name in () if partly else left:
        print(f"{name}: MISSING", flush=True)
        wrong += 1
    print(f"{wrong} of {len(known)} differ, fail or are missing" if wrong else "all the same")
    return 1 if wrong else 0


def pinned() -> dict[str, Call]:
    """Return the configurations whose results are the same on every machine."""
    return {name: own for name, own in calls().items() if own.anywhere}


def pin() -> int:
    """Write golden.json from the code as it is, and return the exit code."""
    found = {name: whole_hash(own.parts()) for name, own in pinned().items()}
    PINNED.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"{len(found)} configurations pinned")
    return 0


def main() -> int:
    """Do what is asked on the command line, and return the exit code."""
    parser = argparse.ArgumentParser(description="Record hashes of decisions, or compare with a record.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, metavar="FILE", help="record what the code decides")
    what.add_argument("--check", type=Path, metavar="FILE", help="compare with a record")
    what.add_argument("--pin", action="store_true", help="write golden.json again")
    what.add_argument("--runs", type=Path, metavar="DIR", help="make finished run directories")
    what.add_argument("--check-runs", type=Path, metavar="DIR", help="go on from them, in a copy, and compare")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="those with a word in their name")
    asked = parser.parse_args()
    os.environ.update({k: v for k, v in environment().items() if k.endswith("_NUM_THREADS")})
    sys.path.insert(0, str(ROOT))  # the package beside this file, whatever is installed
    import fairdedup

    print(f"the code: {Path(fairdedup.__file__).parent}", flush=True)
    if asked.out:
        return record(asked.out, asked.only)
    if asked.check:
        return compare(results(asked.only), asked.check, partly=bool(asked.only))
    if asked.check_runs:
        return compare(going_on(asked.check_runs.resolve()), asked.check_runs / "golden.json")
    if asked.runs:
        make_runs(asked.runs.resolve())
        return 0
    return pin()


if __name__ == "__main__":
    sys.exit(main())
