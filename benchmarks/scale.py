"""Run whole jobs on generated embeddings, out of core: time, disk, memory of the largest process, and what Dask costs.

    python benchmarks/scale.py --sizes 100000,400000,1000000,4000000 --dim 512

- sizes: a job for each number of rows, in the clusters of k-means, and the exponent b of seconds = a rows^b.
- giant: a job with a planted giant cluster.
- tiny: a job with many tiny shards.
- dask: the same job on one Dask worker, and with its tasks called in a loop.

--jobs chooses among them. Results are written after each job, and --add keeps what the file has of others, so that
sizes can be measured one by one. A job of 4,000,000 x 512 needs 18 GB of disk, which is checked first.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from generated_shards import check_disk, write_shards
from measured_jobs import COMMANDS, measure_dask, measure_job, sum_stages, sum_stages_of
from results_file import RESULTS, add_to_results, command_line, write_results

LARGEST_PROCESS = 2048  # MiB; no process may use more
LARGEST_EXPONENT = 1.1
LARGEST_OVERHEAD = 0.15  # of Dask, beside a loop
JOBS = ("sizes", "giant", "tiny", "dask")
OPTIONS = ("rows", "dim", "shards", "giant", "tiny_shards", "rule", "workers")
MOST = "most resident MiB of any process"
WHAT = (
    "seconds, memory and disk of the stages on generated float16 embeddings; memory is the largest "
    "resident set of any one process, mapped files included"
)


def fit_exponents(sizes: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return b of seconds = a rows^b, by least squares of logarithms, for all stages together and for each command."""
    rows = sorted(map(int, sizes))
    if len(rows) < 2:
        return {}
    reports = [sizes[str(number)] for number in rows]
    measured = {"all stages": [sum_stages(report) for report in reports]}
    measured |= {c: [sum_stages_of(report, c) for report in reports] for c in COMMANDS}
    measured["largest two"] = measured["all stages"]
    slopes = {}
    for name, seconds in measured.items():
        last = slice(-2, None) if name == "largest two" else slice(None)
        slopes[name] = round(float(np.polyfit(np.log(rows[last]), np.log(seconds[last]), 1)[0]), 3)
    return slopes


def measure(job: str, folder: Path, args: argparse.Namespace, figures: dict[str, Any], rows: int) -> None:
    """Measure one job in a folder, and put it into the figures."""
    options = {"rule": args.rule, "workers": args.workers}
    shards = args.tiny_shards if job == "tiny" else args.shards
    giant = args.giant if job == "giant" else 0
    centres = write_shards(folder / "x", rows, args.dim, shards, giant, args.seed)
    if job == "dask":
        measured = measure_dask(folder / "x", folder, args.rule, args.repeats)
        figures["dask"] = {"command": command_line(), "rows": rows, **measured}
        return
    planted = {"clusters": len(centres), "centres": centres} if giant else {"clusters": "auto"}
    report = {"command": command_line(), **measure_job(folder / "x", folder / "run", **planted, **options)}
    if job == "sizes":
        sizes = {**figures.get("sizes", {}), str(rows): report}
        figures["sizes"] = {number: sizes[number] for number in sorted(sizes, key=int)}
        figures["exponents"] = fit_exponents(figures["sizes"])
    else:
        figures[{"giant": "with a giant cluster", "tiny": "in tiny shards"}[job]] = report
    print(json.dumps(report, indent=2), flush=True)


def list_failures(figures: dict[str, Any]) -> list[str]:
    """Return the goals that were missed."""
    reports = {f"{rows} rows": report for rows, report in figures.get("sizes", {}).items()} | figures
    failed = [
        f"{name}: {own[MOST]} MiB, over {LARGEST_PROCESS}"
        for name, own in reports.items()
        if isinstance(own, dict) and own.get(MOST, 0) > LARGEST_PROCESS
    ]
    for name in ("all stages", "largest two"):
        exponent = figures.get("exponents", {}).get(name, 0)
        if exponent > LARGEST_EXPONENT:
            failed.append(f"exponent of {name}: {exponent}, over {LARGEST_EXPONENT}")
    overhead = figures.get("dask", {}).get("overhead", 0)
    if overhead > LARGEST_OVERHEAD:
        failed.append(f"Dask costs {overhead:.1%} more than a loop, over {LARGEST_OVERHEAD:.0%}")
    return failed


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", default=",".join(JOBS), help="names, separated by commas")
    parser.add_argument("--sizes", default="100000,400000,1000000,4000000", help="rows of the jobs of `sizes`")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the giant job; the tiny one has a tenth")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--giant", type=int, default=200_000, help="rows of the planted cluster")
    parser.add_argument("--tiny-shards", type=int, default=10_000)
    parser.add_argument("--dask-rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5, help="of the comparison of Dask with a loop")
    parser.add_argument("--rule", default="semdedup")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where there is room  [default: the folder for temporary files]")
    parser.add_argument("--add", action="store_true", help="keep the other jobs and sizes that the results have")
    parser.add_argument("--out", type=Path, default=RESULTS / "scale.json")
    args = parser.parse_args()
    args.folder = args.folder or Path(tempfile.gettempdir())
    unknown = [name for name in args.jobs.split(",") if name not in JOBS]
    if unknown:
        raise SystemExit(f"--jobs {unknown[0]!r} is unknown: choose among {', '.join(JOBS)}")
    return args


def main() -> None:
    args = parse_arguments()
    options = {name: getattr(args, name) for name in OPTIONS}
    figures: dict[str, Any] = add_to_results(args.out, {**options, "seed": args.seed}) if args.add else {}
    rows_of = {"sizes": 0, "giant": args.rows, "tiny": args.rows // 10, "dask": args.dask_rows}
    todo = [(job, rows_of[job]) for job in args.jobs.split(",") if job != "sizes"]
    if "sizes" in args.jobs.split(","):
        todo = [*(("sizes", int(rows)) for rows in args.sizes.split(",")), *todo]
    check_disk(args.folder, max(rows for _, rows in todo), args.dim)
    known: tuple[int, float] | None = None
    for job, rows in todo:
        started = time.perf_counter()
        guess = f": about {known[1] * (rows / known[0]) ** LARGEST_EXPONENT:,.0f} s" if known and job == "sizes" else ""
        print(f"{job}, {rows:,} rows{guess}", flush=True)
        with tempfile.TemporaryDirectory(dir=args.folder) as place:
            measure(job, Path(place), args, figures, rows)
        known = rows, time.perf_counter() - started
        write_results(args.out, {**options, **figures}, what=WHAT, seed=args.seed)
    print(json.dumps({name: figures[name] for name in ("exponents",) if name in figures}))
    failed = list_failures(figures)
    if failed:
        raise SystemExit("goals that were missed: " + "; ".join(failed))


if __name__ == "__main__":
    main()
