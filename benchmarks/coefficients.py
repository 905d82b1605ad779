"""Write fairdedup/planning/coefficients.py, which `fairdedup plan` scales, from the committed results; or --check it.

python benchmarks/coefficients.py

It writes the examples of docs/sizing.md as well, which are what the command prints by these coefficients.

Seconds of a stage are those of the largest job of benchmarks/results/scale.json times the workers that were busy. Where
each shard costs time of its own, this job and the one with tiny shards give two equations for the two coefficients.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from results_file import ROOT, read_results

from fairdedup.core.reach import AUTOMATIC
from fairdedup.planning.measurement import Cost, MeasuredJob
from fairdedup.planning.stage_work import STAGES, Size, Stage

MODULE = ROOT / "fairdedup" / "planning" / "coefficients.py"
PAGE = ROOT / "docs" / "sizing.md"
EXAMPLE = re.compile(r"(```text\n\$ fairdedup (plan [^\n]+)\n).*?```", re.DOTALL)
FILE = "benchmarks/results/scale.json"
EARLIER = "scale_earlier"  # results of an earlier machine, for jobs that take long
OLD, GIANT, TINY = "as k-means clusters them", "with a giant cluster", "in tiny shards"
MIB = 1 << 20
ACROSS_CLUSTERS = "100 clusters (auto)"  # in benchmarks/results/across.json
HEADER = f'''"""What was measured, in {FILE}: `benchmarks/coefficients.py` writes this module; do not edit it.

A stage that is not here was not measured.
"""

from __future__ import annotations

from fairdedup.planning.measurement import Cost, MeasuredJob
'''


@dataclass(frozen=True)
class Job:
    """A job of the results.

    Attributes
    ----------
    name : str
        Its name in the results.
    report : dict
        What was measured.
    size : Size
    """

    name: str
    report: dict[str, Any]
    size: Size

    def seconds(self, stage: Stage) -> float | None:
        """Return the seconds of all busy workers in a stage; None if it has not run."""
        known = self.report[stage.command]["stages"]
        found = [known[name] for name in stage.measured_as if name in known]
        return sum(found) * min(self.size.workers, stage.tasks(self.size)) if found else None

    def memory(self, command: str, role: str = "worker") -> int:
        """Return the most resident MiB of a process of a command."""
        most = self.report[command]["most resident MiB"]
        return most[role] if role in most else max(most.values())


def read_option(results: dict[str, Any], name: str) -> int:
    """Return a number that the benchmark was given. Results of earlier versions have it in their command alone."""
    if name in results:
        return int(results[name])
    words = shlex.split(results["command"])
    return int(words[words.index(f"--{name.replace('_', '-')}") + 1])


def read_job(results: dict[str, Any], name: str, report: dict[str, Any], shards: int) -> Job:
    """Return a job, with its size."""
    counts = report["prune"]["counts"]
    size = Size(
        rows=counts["valid"],
        dim=read_option(results, "dim"),
        clusters=report["clusters"]["number"],
        kept=counts["kept"],
        shards=shards,
        workers=read_option(results, "workers"),
    )
    return Job(name, report, size)


def read_largest(results: dict[str, Any]) -> Job:
    """Return the largest job whose clusters are those of k-means."""
    sizes = results.get("sizes", {})
    if not sizes:
        return read_job(results, OLD, results[OLD], read_option(results, "shards"))
    rows = max(sizes, key=int)
    return read_job(results, f"sizes, {int(rows):,} rows", sizes[rows], read_option(results, "shards"))


def read_pair(results: dict[str, Any]) -> tuple[Job, Job]:
    """Return the largest job and the one with tiny shards, of one machine: an earlier one if these results lack it."""
    results = results if TINY in results else read_results(EARLIER)
    return read_largest(results), read_job(results, TINY, results[TINY], read_option(results, "tiny_shards"))


def fit_cost(stage: Stage, largest: Job, pair: tuple[Job, Job]) -> Cost | None:
    """Return the coefficients of a stage; None if it was not measured.

    Parameters
    ----------
    stage : Stage
    largest : Job
        Job whose seconds the coefficients give.
    pair : (Job, Job)
        The jobs of one machine that say what each shard costs, as `read_pair` returns them.
    """
    seconds = largest.seconds(stage)
    if seconds is None:
        return None
    work, source = stage.work(largest.size), f"{largest.name}: {stage.command}"
    large, tiny = pair
    many, few = large.seconds(stage), tiny.seconds(stage)
    if stage.has_shard_cost and many is not None and few is not None:
        known = [[stage.work(job.size), job.size.shards] for job in pair]
        unit, shard = np.linalg.solve(known, [many, few])
        rest = seconds - float(shard) * largest.size.shards
        if unit > 0 and shard > 0 and rest > 0:
            return Cost(rest / work, float(shard), f"{source}; {tiny.name}")
    return Cost(seconds / work, 0.0, source)


def measure_row_bytes(job: Job) -> dict[str, float]:
    """Return the bytes on disk for each row, or kept row, beside the vectors, by folder."""
    disk, size = job.report["disk MiB"], job.size
    return {
        "embeddings": max(0.0, disk["embeddings"] * MIB - size.vectors) / size.rows,
        "decisions": disk["decisions"] * MIB / size.rows,
        "kept": disk["kept"] * MIB / size.kept,
        "state": max(0.0, disk["state"] * MIB - 2 * size.kept * size.dim) / size.kept,
    }


def measure_cluster_bytes() -> float:
    """Return the bytes of a worker's memory for each value of the vectors of its largest cluster.

    The giant job takes long, so it may be in a file of its own, of an earlier machine: memory does not depend on that.
    """
    results = read_results("scale")
    results = results if GIANT in results else read_results(EARLIER)
    job, giant = read_largest(results), read_job(results, GIANT, results[GIANT], read_option(results, "shards"))
    more = giant.report["clusters"]["largest"] - job.report["clusters"]["largest"]
    return max(0, giant.memory("prune") - job.memory("prune")) * MIB / more / job.size.dim


def describe_job(results: dict[str, Any], job: Job) -> MeasuredJob:
    """Return what the plan says of the job that it scales."""
    hardware = results["hardware"]
    processor = hardware.get("processor") or hardware["cpu"]
    return MeasuredJob(
        source=f"{FILE}, {job.name}",
        hardware=f"{job.size.workers} workers on {hardware['cores']} cores, {processor}",
        rows=job.size.rows,
        dim=job.size.dim,
        clusters=job.size.clusters,
        largest=job.report["clusters"]["largest"],
    )


def render() -> str:
    """Return the text of the module."""
    results = read_results("scale")
    largest = read_largest(results)
    pair = read_pair(results)
    job = describe_job(results, largest)
    lines = [HEADER, "JOB = MeasuredJob("]
    lines += [f"    {name}={_literal(value)}," for name, value in vars(job).items()]
    lines += [")", "COSTS = {"]
    for stage in STAGES:
        cost = fit_cost(stage, largest, pair)
        if cost is not None:
            lines.append(f'    "{stage.name}": Cost({cost.unit:.3e}, {cost.shard:.3g}, "{cost.source}"),')
    lines += ["}", "ROW_BYTES = {  # on disk, beside the vectors, for each row, or kept row; ids are the only metadata"]
    lines += [f'    "{name}": {value:.3g},' for name, value in measure_row_bytes(largest).items()]
    lines += ["}", "WORKER_MIB = {  # most resident memory of a worker, mapped files included, by command"]
    lines += [f'    "{command}": {largest.memory(command)},' for command in ("embed", "cluster", "prune")]
    most = max(largest.memory(command, "conductor") for command in ("embed", "cluster", "prune"))
    slope = measure_cluster_bytes()
    lines += [
        "}",
        f"CONDUCTOR_MIB = {most}  # most resident memory of the command itself",
        f"CLUSTER_BYTES = {slope:.3g}  # of memory, for each value of the largest cluster; {GIANT}",
        "# Of a row: other clusters that it reaches, duplicates in its own, and in others; by results/across.json",
        *(f"{name} = {value:.3g}" for name, value in count_across().items()),
    ]
    return "\n".join(lines) + "\n"


def count_across() -> dict[str, float]:
    """Return what a row has of visits, pairs and links where rows are compared across clusters, as across.json has it.

    It is counted on generated rows in clusters of the automatic number. Pairs and links count in both directions.
    """
    mixture = read_results("across")["left"]["mixture"]
    within, default = (
        next(each for each in mixture[ACROSS_CLUSTERS] if each["factor"] == factor) for factor in (0, AUTOMATIC)
    )
    pairs = 2 * mixture["duplicate_pairs"] / mixture["rows"]
    own = within["comparable_pairs"]
    return {
        "VISITS": default["clusters_a_row"] - 1,
        "PAIRS": pairs * own,
        "LINKS": pairs * (default["comparable_pairs"] - own),
    }


def _literal(value: str | int) -> str:
    return f'"{value}"' if isinstance(value, str) else f"{value:_}"


def fill_examples(page: str) -> str:
    """Return the page with what the command prints under each of its examples."""

    def run_example(found: re.Match[str]) -> str:
        words = [sys.executable, "-m", "fairdedup", *shlex.split(found[2])]
        printed = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT).stdout
        return found[1] + "".join(f"{line.rstrip()}\n" for line in printed.splitlines()) + "```"

    return EXAMPLE.sub(run_example, page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail if the module differs from the results")
    args = parser.parse_args()
    text = render()
    if not args.check:
        MODULE.write_text(text, encoding="utf-8")
        PAGE.write_text(fill_examples(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    elif MODULE.read_text(encoding="utf-8") != text:
        raise SystemExit(f"{MODULE.name} differs from the results: run python benchmarks/coefficients.py")


if __name__ == "__main__":
    main()
