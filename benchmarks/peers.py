"""Compare fairdedup with other tools on generated vectors with planted duplicates: time, memory and recall.

    python benchmarks/peers.py --rows 100000 --python semhash=PEERS/bin/python --python imagededup=PEERS/bin/python
    python benchmarks/peers.py --vectors faces.npy --eps 0.05 --out faces.json

Each tool runs in a process of its own, with a limit of time and memory, and in the Python that --python names for it
(default: this one). One that is not installed there is skipped, and the results say so; none is a dependency.

- fairdedup: `deduplicate` with the rule semdedup, across clusters.
- semhash: SemHash.from_embeddings and self_deduplicate.
- faiss: range search in a flat index; each row in turn removes the later rows that are found.
- imagededup: the search of its CNN method, on the vectors.
- published: SemDeDup's procedure, dense, written from the paper.

datasketch and text-dedup compare sets of tokens, not vectors, so they are not here.

All get the same unit vectors and the same eps. Of each: seconds after a warm-up; most resident memory; recall, the
share of the pairs above the threshold of which at most one is kept, of all and of the planted ones; and how many kept
rows still have a kept duplicate. Results are written after each tool; --add keeps the file's figures of other tools.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from across import find_all_pairs
from generated_shards import list_planted_pairs, write_shards
from numpy.typing import NDArray
from peer_search import SEARCHES
from process_memory import ProcessMemory
from results_file import RESULTS, add_to_results, write_results

SCRIPT = Path(__file__).with_name("peer_search.py")
OPTIONS = ("rows", "dim", "shards", "eps", "threads", "time_limit")
WHAT = (
    "seconds to remove duplicates among unit vectors in memory, most resident MiB, recall of pairs, and kept "
    "rows with a kept duplicate; each tool in a process of its own, after a warm-up; medians of the repeats"
)
GOAL = 20  # times as fast as SemHash

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


def generate_vectors(folder: Path, rows: int, dim: int, shards: int, seed: int) -> NDArray[np.float16]:
    """Return the vectors of benchmarks/scale.py in float16, in the order of their shards."""
    write_shards(folder, rows, dim, shards, 0, seed)
    return np.concatenate([np.load(folder / "img_emb" / f"img_emb_{number}.npy") for number in range(shards)])


def find_planted_pairs(x: NDArray[np.float16], shards: int, eps: float) -> Pairs:
    """Return the planted pairs with a cosine above 1 - eps."""
    first, second = list_planted_pairs(len(x), shards)
    a, b = x[first].astype(np.float32), x[second].astype(np.float32)
    cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return first[cosine > 1 - eps], second[cosine > 1 - eps]


def measure_kept(kept: NDArray[np.int64], rows: int, planted: Pairs | None, pairs: Pairs) -> dict[str, Any]:
    """Return the recall of what a tool kept, and how many kept rows still have a kept duplicate."""
    mask = np.zeros(rows, np.bool_)
    mask[kept] = True
    both = mask[pairs[0]] & mask[pairs[1]]
    left = len(np.union1d(pairs[0][both], pairs[1][both]))
    recall = {"recall of all pairs": float(1 - both.mean())}
    if planted is not None:
        recall["recall of planted pairs"] = float(1 - (mask[planted[0]] & mask[planted[1]]).mean())
    return {"kept": int(mask.sum()), **recall, "kept with a kept duplicate": left}


def run_tool(name: str, python: str, vectors: Path, kept: Path, rows: int, args: argparse.Namespace) -> dict[str, Any]:
    """Run a tool in a process of its own, and return its seconds and memory, or why there are none."""
    words = [python, SCRIPT, name, vectors, kept, "--eps", args.eps, "--warm-up", max(200, rows // 10)]
    words += ["--repeats", args.repeats]
    threads = {f"{library}_NUM_THREADS": str(args.threads) for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
    began, timed_out = time.perf_counter(), threading.Event()
    with tempfile.TemporaryFile("w+") as errors:
        try:
            process = subprocess.Popen(
                list(map(str, [*words, "--memory", int(args.memory * 2**30)])),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, **threads},
                start_new_session=True,  # so that its own children end with it
            )
        except OSError as error:
            return {"skipped": f"{python} cannot be started: {error.strerror}"}

        def end() -> None:
            timed_out.set()
            with suppress(ProcessLookupError):  # it has just ended
                os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(args.time_limit, end)
        timer.start()
        try:
            with process, ProcessMemory(process) as memory:
                event = _follow(process, rows)
                process.wait()
        finally:
            timer.cancel()
        errors.seek(0)
        last = ([line.strip() for line in errors if line.strip()] or ["no message"])[-1]
    if timed_out.is_set():
        return {"skipped": f"not done after {args.time_limit:,.0f} s"}
    if event["event"] == "missing":
        return {"skipped": event["reason"]}
    if event["event"] != "done":
        return {"skipped": f"ended with {process.returncode} after {time.perf_counter() - began:.0f} s: {last[:300]}"}
    measured = {name: event[name] for name in ("version", "seconds", "repeats")}
    return measured | {"most resident MiB": round(memory.together)}


def _follow(process: subprocess.Popen[str], rows: int) -> dict[str, Any]:
    """Read the events of a tool, print how long it may take, and return the last event."""
    event: dict[str, Any] = {"event": "none"}
    assert process.stdout is not None
    for line in process.stdout:
        try:
            event = json.loads(line)
        except ValueError:  # a tool prints too
            continue
        if event["event"] == "warm":
            factor = rows / event["rows"]
            least, most = event["seconds"] * factor, event["seconds"] * factor**2
            warm = f"{event['rows']:,} rows in {event['seconds']:.2f} s"
            print(f"  {warm}: all of them in {least:,.0f} to {most:,.0f} s", flush=True)
    return event


def compare_speed(tools: dict[str, Any]) -> dict[str, Any]:
    """Return how many times as fast fairdedup is as each other tool, and the difference in recall."""
    own = tools.get("fairdedup", {})
    return {
        name: {
            "times as fast": report["seconds"] / own["seconds"],
            "recall beyond it": own["recall of all pairs"] - report["recall of all pairs"],
        }
        for name, report in tools.items()
        if name != "fairdedup" and "seconds" in report and "seconds" in own
    }


def parse_pythons(words: list[str]) -> dict[str, str]:
    """Return the Python of each tool that is named as NAME=PATH."""
    found = {}
    for word in words:
        name, separator, path = word.partition("=")
        if not separator or name not in SEARCHES:
            raise SystemExit(f"--python must be NAME=PATH with a name of {', '.join(SEARCHES)}; got {word!r}")
        found[name] = path
    return found


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=Path, help=".npy file to use in place of generated vectors")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--shards", type=int, default=100, help="planted pairs are in the same shard")
    parser.add_argument("--eps", type=float, default=0.2)
    parser.add_argument("--peers", default=",".join(SEARCHES), help="names, separated by commas")
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH", help="Python that has this tool")
    parser.add_argument("--repeats", type=int, default=5, help="of each tool; fewer once it has taken minutes")
    parser.add_argument("--time-limit", type=float, default=1800, help="seconds of each tool, its warm-up included")
    parser.add_argument("--memory", type=float, help="GiB that a process may hold  [default: 3/4 of what is free]")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--add", action="store_true", help="keep the other tools that the results have")
    parser.add_argument("--folder", type=Path, help="where vectors are written  [default: for temporary files]")
    parser.add_argument("--out", type=Path, default=RESULTS / "peers.json")
    args = parser.parse_args()
    unknown = [name for name in args.peers.split(",") if name not in SEARCHES]
    if unknown:
        raise SystemExit(f"--peers {unknown[0]!r} is unknown: choose among {', '.join(SEARCHES)}")
    args.memory = args.memory or 0.75 * psutil.virtual_memory().available / 2**30
    return args


def main() -> None:
    args = parse_arguments()
    pythons, names = parse_pythons(args.python), args.peers.split(",")
    options = {name: getattr(args, name) for name in OPTIONS}
    if args.vectors is not None:
        options |= dict(zip(("rows", "dim"), np.load(args.vectors, mmap_mode="r").shape, strict=True), shards=None)
    figures = {"tools": {}, **(add_to_results(args.out, {**options, "seed": args.seed}) if args.add else {})}
    with tempfile.TemporaryDirectory(dir=args.folder) as place:
        folder = Path(place)
        planted: Pairs | None = None
        if args.vectors is None:
            x = generate_vectors(folder / "shards", args.rows, args.dim, args.shards, args.seed)
            planted = find_planted_pairs(x, args.shards, args.eps)
            figures["planted pairs"] = len(planted[0])
        else:
            x = np.load(args.vectors).astype(np.float16)
        np.save(folder / "vectors.npy", x)
        started = time.perf_counter()
        pairs = find_all_pairs(x, args.eps)
        figures["all pairs"] = len(pairs[0])
        print(f"{len(pairs[0]):,} pairs, found in {time.perf_counter() - started:.0f} s", flush=True)
        for number, name in enumerate(names):
            most = args.time_limit * (len(names) - number)
            print(f"{name}, {number + 1} of {len(names)}; all that are left take at most {most:,.0f} s", flush=True)
            kept = folder / f"{name}.npy"
            report = run_tool(name, pythons.get(name, sys.executable), folder / "vectors.npy", kept, len(x), args)
            if "seconds" in report:
                report |= measure_kept(np.load(kept), len(x), planted, pairs)
            print(f"  {json.dumps(report)}", flush=True)
            figures["tools"][name] = report
            figures["fairdedup beside"] = compare_speed(figures["tools"])
            write_results(args.out, {**options, **figures}, what=WHAT, seed=args.seed, packages=("numpy", "numba"))
    beside = figures["fairdedup beside"].get("semhash")
    if beside:
        print(f"{beside['times as fast']:.1f} times as fast as SemHash; the goal is {GOAL}")


if __name__ == "__main__":
    main()
