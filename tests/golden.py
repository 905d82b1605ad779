"""Records hashes of decisions, and checks that a change of the code changes none of them.

The recorded values are what the code decided then; whether that is right is for the oracles (tests/oracles) to say.
Only the public entry points are used: `deduplicate` and the command line.

    python tests/golden.py --out FILE           record every configuration
    python tests/golden.py --check FILE         compare with a record: a line for each; exit code 1 if one differs
    python tests/golden.py --out FILE --only balanced sweep       only the names that contain one of these words
    python tests/golden.py --pin                write golden.json, with which test_golden.py compares
    python tests/golden.py --runs DIR           make finished run directories for later versions
    python tests/golden.py --check-runs DIR     continue from a copy of them with this version, and compare

golden.json has only configurations in Python whose labels are given (golden_api.py): they do not depend on the machine.
All others depend on k-means or on an encoder, so compare their records on one machine, with the same packages. A
record has a hash or a value for each part of a result, so that a line can name the parts that differ.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from golden_api import calls, pinned
from golden_cli import command_line
from golden_lab import ROOT, CommandFailed, Steps, environment, laboratory, write_inputs
from golden_parts import Parts, whole_hash, write_record
from golden_runs import continue_runs, make_runs

PINNED = Path(__file__).with_name("golden.json")


def results(only: list[str]) -> Steps:
    """Yield the result of every configuration whose name matches `only`; a failure ends its configuration."""
    python = {name: call for name, call in calls().items() if is_chosen(name, only)}
    commands = {f"cli/{name}": run for name, run in command_line().items() if is_chosen(f"cli/{name}", only)}
    for name, call in python.items():
        yield name, call.parts()
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


def is_chosen(name: str, only: list[str]) -> bool:
    """Tell whether a name contains one of the words, or matches one as a pattern."""
    return not only or any(word in name or fnmatch.fnmatch(name, word) for word in only)


def timed(steps: Steps) -> Iterator[tuple[str, Parts, float]]:
    """Yield each result with the seconds that it took."""
    began = time.monotonic()
    for name, parts in steps:
        now = time.monotonic()
        yield name, parts, now - began
        began = now


def record(file: Path, only: list[str]) -> int:
    """Write a record of what the code decides, and return the exit code."""
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
    """Print a line for each configuration, and return the exit code: 1 if one differs, fails or is missing."""
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


def pin() -> int:
    """Write golden.json from the present code, and return the exit code."""
    found = {name: whole_hash(call.parts()) for name, call in pinned().items()}
    PINNED.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"{len(found)} configurations pinned")
    return 0


def main() -> int:
    """Run the chosen action, and return the exit code."""
    parser = argparse.ArgumentParser(description="Record hashes of decisions, or compare with a record.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--out", type=Path, metavar="FILE", help="record what the code decides")
    action.add_argument("--check", type=Path, metavar="FILE", help="compare with a record")
    action.add_argument("--pin", action="store_true", help="write golden.json from the present code")
    action.add_argument("--runs", type=Path, metavar="DIR", help="make finished run directories")
    action.add_argument("--check-runs", type=Path, metavar="DIR", help="continue from a copy of them, and compare")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only names that contain one of these")
    arguments = parser.parse_args()
    os.environ.update({k: v for k, v in environment().items() if k.endswith("_NUM_THREADS")})
    sys.path.insert(0, str(ROOT))  # the package of this checkout, not an installed one
    import fairdedup

    print(f"the code: {Path(fairdedup.__file__).parent}", flush=True)
    if arguments.out:
        return record(arguments.out, arguments.only)
    if arguments.check:
        return compare(results(arguments.only), arguments.check, partly=bool(arguments.only))
    if arguments.check_runs:
        return compare(continue_runs(arguments.check_runs.resolve()), arguments.check_runs / "golden.json")
    if arguments.runs:
        make_runs(arguments.runs.resolve())
        return 0
    return pin()


if __name__ == "__main__":
    sys.exit(main())
