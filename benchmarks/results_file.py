"""Reads and writes the benchmarks' result files: figures, and the hardware, versions, seed and command behind them.

Files from earlier versions stay unchanged. Their `hardware` may have `cpu` instead of `processor`, and no
`instructions`.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import fairdedup

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
HEADER = ("what", "command", "seed", "hardware", "versions")


def processor_name() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def list_instructions() -> list[str]:
    """Return which of the instructions that decide the speed of products the processor has."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return []
    return [name for name in INSTRUCTIONS if name in flags]


def describe_hardware(threads: int | None = None) -> dict[str, Any]:
    """Return the processor, its instructions, the cores and, if the benchmark set it, the number of threads."""
    found: dict[str, Any] = {"processor": processor_name(), "cores": os.cpu_count()}
    if instructions := list_instructions():
        found["instructions"] = instructions
    return found if threads is None else found | {"threads": threads}


def command_line() -> str:
    """Return the command of this process, without the folders of this machine."""
    return "python benchmarks/" + " ".join([Path(sys.argv[0]).name, *map(_shorten_path, sys.argv[1:])])


def _shorten_path(word: str) -> str:
    head, colon, path = word.rpartition(":")
    return f"{head}{colon}{'/'.join(Path(path).parts[-2:])}" if "/" in word else word


def add_to_results(path: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of a result file, to which others of the same options, machine and version are added.

    Parameters
    ----------
    path : Path
        Result file; without it there are no figures.
    options : mapping of str to object
        Options that the figures depend on.

    Raises
    ------
    SystemExit
        If the file was written with other options, by another version or on another machine.
    """
    if not path.is_file():
        return {}
    known = json.loads(path.read_text(encoding="utf-8"))
    here = {
        **options,
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "version of fairdedup": fairdedup.__version__,
    }
    there = {**known, **known["hardware"], "version of fairdedup": known["versions"]["fairdedup"]}
    for name, value in here.items():
        if there.get(name) != value:
            raise SystemExit(
                f"{path.name} has figures for {name} {there.get(name)!r}, not {value!r}: "
                "leave out --add, which replaces them, or name another file by --out"
            )
    return {name: value for name, value in known.items() if name not in HEADER}


def write_results(
    path: Path,
    figures: Mapping[str, Any],
    *,
    what: str,
    seed: int,
    threads: int | None = None,
    packages: Sequence[str] = ("numpy",),
) -> None:
    """Write a result file.

    Parameters
    ----------
    path : Path
        JSON file to write; its folder is created if necessary.
    figures : mapping of str to object
        The results, and the options that a reader should see.
    what : str
        Description of the figures, with their unit.
    seed : int
        Seed of all random numbers.
    threads : int or None
        Number of threads, if the benchmark set it.
    packages : sequence of str
        Further packages whose versions are recorded, besides Python and fairdedup.
    """
    versions = {"python": platform.python_version(), "fairdedup": fairdedup.__version__}
    header = {
        "what": what,
        "command": command_line(),
        "seed": seed,
        "hardware": describe_hardware(threads),
        "versions": versions | {name: version(name) for name in packages},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**header, **figures}, indent=2) + "\n", encoding="utf-8")


def read_results(name: str) -> dict[str, Any]:
    """Return the content of a committed result file, by its name without extension."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
