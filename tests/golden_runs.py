"""Finished run directories of one version, from which a later version must be able to continue."""

from __future__ import annotations

import functools
import shlex
import shutil
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
from golden_lab import Steps, audited, exported, laboratory, or_failure, write_inputs
from golden_parts import parts_of_run, write_record

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
CONTINUATIONS = """
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
    """Make finished run directories, and record in golden.json how this version continues from them."""
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
    found = dict(continue_runs(folder))
    failed = [parts["failed"] for parts in found.values() if "failed" in parts]
    if failed:
        raise SystemExit("\n".join(failed))
    write_record(folder / "golden.json", found)


def continue_runs(folder: Path) -> Steps:
    """Yield the parts of finished run directories, then each result of continuing from a copy of them."""
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
            for words in CONTINUATIONS.splitlines():
                arguments = shlex.split(words)
                run = arguments[arguments.index("--out") + 1] if "--out" in arguments else arguments[1]
                before = times(copy / run)
                parts = or_failure(functools.partial(lab.made, run, words))
                after = times(copy / run)
                again = [name for name in before if before[name] != after.get(name)]
                yield words, parts | {"embedded or clustered again": again}


def times(run: Path) -> dict[str, int]:
    """Return the time of each array of a run's embeddings and clusters."""
    files = [*run.glob("embeddings/img_emb/*.npy"), *run.glob("clusters/*.npy")]
    return {str(file.relative_to(run)): file.stat().st_mtime_ns for file in sorted(files)}
