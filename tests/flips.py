"""Damages one file of a run, runs a command that may read it, and says whether the damage went through.

Every command must end in one line that names damage, or give the result of undamaged files, byte for byte.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from runs import command, done, write_prototypes

Damage = Callable[[bytes, np.random.Generator], bytes]
DECIDE = ("--keep", 0.5, "--rule", "fairdedup")
GONE = ("--drop", "@night-0/gone/gone_0.parquet")  # a list that the user names, so it is not a file of the run here
TIMES = ("stages", "checksum")  # keys of run.json and config.json that differ between equal runs
RAW = re.compile(r"Traceback|Error:|Exception|ZSTD|Arrow|Errno|tokeni[sz]|\bmagic\b", re.IGNORECASE)


def flip_bit(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip one bit."""
    place = int(rng.integers(8 * len(data)))
    changed = bytearray(data)
    changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


def cut_end(data: bytes, rng: np.random.Generator) -> bytes:
    """Remove the last byte."""
    return data[:-1]


def zero_block(data: bytes, rng: np.random.Generator) -> bytes:
    """Set some bytes to zero, as a block that was never written."""
    start = int(rng.integers(len(data)))
    size = min(64, len(data) - start)
    return data[:start] + bytes(size) + data[start + size :]


DAMAGES: dict[str, Damage] = {"flip": flip_bit, "cut": cut_end, "zero": zero_block}
SWAP = "swap"  # the bytes of another file of the same size


def swap(path: Path, whole: bytes) -> bytes:
    """Return the bytes of another file of the same kind and size; these bytes where there is none."""
    others = (other for other in sorted(path.parent.parent.rglob(f"*{path.suffix}")) if other != path)
    return next((data for other in others if len(data := other.read_bytes()) == len(whole) and data != whole), whole)


@dataclass(frozen=True)
class Place:
    """A folder with runs and inputs at fixed paths, made new from a copy before each damage.

    Attributes
    ----------
    work, pristine : Path
        The folder, and the copy of what it holds at first.
    scheduler : str
    """

    work: Path
    pristine: Path
    scheduler: str

    def renew(self) -> None:
        """Make the folder new."""
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.pristine, self.work, symlinks=True)


@dataclass(frozen=True)
class Job:
    """A command, and where its results are.

    Attributes
    ----------
    words : tuple
        Its words; ``@name`` is a path in the folder.
    damaged : str
        The run whose files are damaged.
    uses_workers : bool
        Whether it takes ``--scheduler``.
    """

    words: tuple[object, ...]
    damaged: str
    uses_workers: bool = True


@dataclass
class Outcome:
    """What a command did: its exit code, what it printed, and every file that is there after it."""

    code: int
    out: str
    err: str
    files: dict[str, bytes] = field(default_factory=dict)


def jobs(kind: str) -> dict[str, Job]:
    """Return the commands that may read a run of a kind, by name."""
    if kind == "images":
        run = "images"
        return {
            "prune": Job(("prune", "@images", *DECIDE), run),
            "run again": Job(("run", "@shards", *DECIDE, *IMAGE_MODEL, "--out", "@images"), run),
            "export webdataset": Job(("export", "@images", "--to", "webdataset", "--dest", "@out"), run),
            "export folder": Job(("export", "@images", "--to", "folder", "--copy", "--dest", "@tree"), run),
            "export hf": Job(("export", "@images", "--to", "hf", "--dest", "@hf"), run),
            "audit": Job(("audit", "@images"), run),
            "sweep": Job(("sweep", "@images", "--keep", "0.4,0.6", "--rule", "semdedup"), run),
            "embed": Job(("embed", "@shards", *IMAGE_MODEL[:-2], "--out", "@images"), run),
            "cluster": Job(("cluster", "@images", "--clusters", 3), run),
            "export csv": Job(("export", "@images", "--to", "csv", "--dest", "@table.csv"), run),
            "replace": Job(("replace", "@images", "--gone", "@gone-images.txt"), run),
            "report": Job(("report", "@images"), run),
            "compare": Job(("compare", "@images", "--rules", "semdedup,balanced"), run),
            "search": Job(("search", "@images", "--text", "a photo"), run),
            "explain": Job(("explain", "@images", "--id", "0005"), run),
        }
    both = {
        "prune": Job(("prune", "@RUN", *DECIDE, "--prototypes", "@prototypes.npz"), "RUN"),
        "export txt": Job(("export", "@RUN", "--to", "txt", "--what", "removed", "--dest", "@ids.txt"), "RUN"),
        "export csv": Job(("export", "@RUN", "--to", "csv", "--dest", "@table.csv"), "RUN"),
        "audit by labels": Job(("audit", "@RUN", "--labels", "@labels.csv"), "RUN"),
        "audit by memberships": Job(("audit", "@RUN"), "RUN"),
        "gate": Job(("gate", "@RUN", "--max-rejected", 1), "RUN", uses_workers=False),
        "report": Job(("report", "@RUN"), "RUN"),
        "search": Job(("search", "@RUN", "--id", "dDAY-9", "--top", 5), "RUN"),
        "explain": Job(("explain", "@RUN", "--id", "dDAY-9"), "RUN"),
        "replace": Job(("replace", "@RUN", "--gone", "@gone-RUN.txt"), "RUN"),
        "refit": Job(("refit", "@RUN", "--out", "@refit", "--keep", 0.5, "--clusters", 4, *GONE), "RUN"),
        "next night": Job(("run", "@in/day2.npy", "--against", "@RUN", "--out", "@next"), "RUN"),
        "exclude near": Job(
            ("run", "@in/day2.npy", "--eps", 0.1, "--rule", "semdedup", "--clusters", 2, "--exclude-near", "@RUN",
             "--exclude-near-eps", 0.001, "--max-rejected", 1, "--out", "@near"), "RUN",
        ),
    }  # fmt: skip
    if kind == "vectors":
        both |= {
            "cluster": Job(("cluster", "@RUN", "--clusters", 4), "RUN"),
            "embed": Job(("embed", "@in/day0.npy", "--out", "@RUN"), "RUN"),
            "sweep": Job(("sweep", "@RUN", "--keep", "0.4,0.6", "--rule", "semdedup"), "RUN"),
            "calibrate": Job(("calibrate", "@RUN", "--labels", "@labels.csv", "--out", "@fit.parquet"), "RUN"),
            "compare": Job(("compare", "@RUN", "--rules", "semdedup,random", "--labels", "@labels.csv"), "RUN"),
            "run again": Job(
                ("run", "@in/day0.npy", *DECIDE, "--prototypes", "@prototypes.npz", "--clusters", 4, "--out", "@RUN"),
                "RUN",
            ),
        }
        name = "night-0"
    else:
        both |= {
            "calibrate": Job(("calibrate", "@RUN", "--labels", "@labels.csv", "--out", "@fit.parquet"), "RUN"),
            "prune": Job(("prune", "@RUN"), "RUN"),
            "run again": Job(("run", "@in/day1.npy", "--against", "@night-0", "--out", "@RUN"), "RUN"),
            "prune, the night before damaged": Job(("prune", "@night-1"), "night-0"),
            "refit, the night before damaged": Job(
                ("refit", "@night-1", "--out", "@refit", "--keep", 0.5, "--clusters", 4, *GONE), "night-0"
            ),
        }
        name = "night-1"
    named = lambda word: (  # noqa: E731
        word.replace("RUN", name).replace("dDAY", f"d{name[-1]}") if isinstance(word, str) else word
    )
    return {each: Job(tuple(map(named, job.words)), named(job.damaged), job.uses_workers) for each, job in both.items()}


IMAGE_MODEL = ("--model", "fairdedup-small", "--pretrained", "@small.safetensors", "--batch-size", 4, "--clusters", 2)


def build(place: Place, kind: str, shards: Path | None = None, weights: Path | None = None) -> None:
    """Make the runs of a kind in the folder, and the copy of it."""
    work = place.work
    (work / "in").mkdir(parents=True)

    def run(*words: object) -> None:
        done(*expand(place, words), "--scheduler", place.scheduler, "--quiet")

    if kind == "images":
        assert shards is not None and weights is not None
        shutil.copytree(shards, work / "shards")
        shutil.copy(weights, work / "small.safetensors")
        run("run", "@shards", *DECIDE, *IMAGE_MODEL, "--out", "@images")
        (work / "gone-images.txt").write_text("0003\n0010\n0017\n0020\n")
    else:
        rng = np.random.default_rng(7)
        bases = rng.normal(size=(30, 16)) + 1.5 * rng.normal(size=16)
        for day, rows in enumerate((110, 60, 50)):
            x = bases[rng.integers(len(bases), size=rows)] + rng.normal(size=(rows, 16)) * 0.2
            x[:3] = x[3:6]
            np.save(work / "in" / f"day{day}.npy", x.astype(np.float32))
            (work / "in" / f"day{day}.ids.txt").write_text("".join(f"d{day}-{row}\n" for row in range(rows)))
        write_prototypes(work / "prototypes.npz")
        lines = [f"d{day}-{row},{'light' if row % 3 else 'dark'}\n" for day in (0, 1) for row in range(110)]
        (work / "labels.csv").write_text("id,tone\n" + "".join(lines))
        for night in (0, 1):
            (work / f"gone-night-{night}.txt").write_text("".join(f"d{night}-{row}\n" for row in range(0, 60, 9)))
        (work / "first.txt").write_text("d0-4\nd0-40\n")
        run("run", "@in/day0.npy", *DECIDE, "--prototypes", "@prototypes.npz", "--clusters", 4, "--out", "@night-0")
        run("replace", "@night-0", "--gone", "@first.txt")
        if kind == "line":
            run("run", "@in/day1.npy", "--against", "@night-0", "--out", "@night-1")
    shutil.copytree(work, place.pristine, symlinks=True)


def expand(place: Place, words: tuple[object, ...]) -> list[object]:
    """Return the words of a command with paths for names."""
    return [place.work / word[1:] if isinstance(word, str) and word.startswith("@") else word for word in words]


def perform(place: Place, job: Job) -> Outcome:
    """Run a command, and return what it did."""
    workers = ("--scheduler", place.scheduler) if job.uses_workers else ()
    finished = command(*expand(place, job.words), *workers, "--quiet")
    found = Outcome(finished.code, finished.out, finished.err)
    for path in sorted(place.work.rglob("*")):
        name = str(path.relative_to(place.work))
        if path.is_file() and not path.name.startswith("."):
            found.files[name] = _without_times(path)
    return found


def _without_times(path: Path) -> bytes:
    data = path.read_bytes()
    if path.name not in ("run.json", "config.json"):
        return data
    try:
        content = json.loads(data)
    except ValueError:  # it is the damaged file
        return data
    return json.dumps({key: value for key, value in content.items() if key not in TIMES}, sort_keys=True).encode()


def list_files(place: Place, run: str) -> list[str]:
    """Return the names of the files of a run, in the folder, that a command may read."""
    names = (str(p.relative_to(place.pristine)) for p in (place.pristine / run).rglob("*") if p.is_file())
    return sorted(name for name in names if (place.pristine / name).stat().st_size)


def judge(place: Place, job: Job, victim: str, damaged: bytes, found: Outcome, expected: Outcome) -> str | None:
    """Return what is wrong with how a command took damage; None if nothing is."""
    if found.code:
        lines = found.err.rstrip("\n").split("\n")
        if len(lines) != 1 or not lines[0].startswith("fairdedup: error: "):
            return f"not one line: {found.err!r}"
        if RAW.search(lines[0].removeprefix("fairdedup: error: ").replace(str(place.work / victim), "")):
            return f"a raw error: {lines[0]}"
        linked = victim.split("/", 1)[1] if "/state/run-" in victim else None  # into the run that is made
        if str(place.work / job.damaged) not in lines[0] and not (linked and linked in lines[0]):
            return f"names no file of the run: {lines[0]}"
        return None
    differ = [name for name in found.files.keys() | expected.files.keys() if _differs(name, found, expected)]
    if victim in differ and _same_damage(place.work / victim, damaged):
        differ.remove(victim)  # which the command did not read
    if differ:
        return f"other results: {sorted(differ)[:4]}"
    if _plain(found.out) != _plain(expected.out):
        return f"printed something else: {found.out!r}"
    return None


def _differs(name: str, found: Outcome, expected: Outcome) -> bool:
    return found.files.get(name) != expected.files.get(name)


def _same_damage(path: Path, damaged: bytes) -> bool:
    return path.is_file() and path.read_bytes() == damaged


def _plain(text: str) -> str:
    return re.sub(r"[0-9.]+ ?(s|min)\b", "", text)


@dataclass(frozen=True)
class Case:
    """One damage: kind of run, command, file, kind of damage and seed."""

    kind: str
    job: str
    victim: str
    damage: str
    seed: int


def draw_cases(place: Place, kind: str, number: int, seed: int) -> Iterator[Case]:
    """Yield cases of a kind in a seeded order; every file and every command come up before any is repeated."""
    rng = np.random.default_rng([seed, len(kind)])
    all_jobs = jobs(kind)
    names = list(all_jobs)
    files = {run: list_files(place, run) for run in {job.damaged for job in all_jobs.values()}}
    victims = {run: [own[k] for k in rng.permutation(len(own))] for run, own in files.items()}
    for n in range(number):
        job = names[n % len(names)]
        named = {str(word).removeprefix("@") for word in all_jobs[job].words}  # files that the user names
        own = [name for name in victims[all_jobs[job].damaged] if name not in named]
        turn = n // len(names) + n % len(names) * 7  # another file each time, for each command
        damage = ("flip", "flip", "cut", "zero", SWAP)[int(rng.integers(5))]
        yield Case(kind, job, own[turn % len(own)], damage, int(rng.integers(1 << 30)))


def try_case(place: Place, case: Case, expected: dict[str, Outcome]) -> str | None:
    """Damage a file, run the command, and return what is wrong; None if nothing is."""
    place.renew()
    path = place.work / case.victim
    rng, whole = np.random.default_rng(case.seed), path.read_bytes()
    damaged = swap(path, whole) if case.damage == SWAP else DAMAGES[case.damage](whole, rng)
    damaged = flip_bit(whole, rng) if damaged == whole else damaged
    time = path.stat().st_mtime_ns
    path.write_bytes(damaged)
    os.utime(path, ns=(time, time))
    job = jobs(case.kind)[case.job]
    found = perform(place, job)
    wrong = judge(place, job, case.victim, damaged, found, expected[case.job])
    return None if wrong is None else f"{case}: {wrong}"


def expect(place: Place, kind: str, names: set[str] | None = None) -> dict[str, Outcome]:
    """Return what each command does with undamaged files."""
    expected: dict[str, Any] = {}
    for name, job in jobs(kind).items():
        if names is None or name in names:
            place.renew()
            expected[name] = perform(place, job)
            assert expected[name].code == 0, (name, expected[name].err)
    return expected
