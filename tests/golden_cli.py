"""The configurations of the command line that are recorded, each a function that yields named results."""

from __future__ import annotations

import functools
from collections.abc import Callable

from golden_lab import Lab, Steps, audited, exported

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


def prune_of(words: str, lab: Lab) -> Steps:
    """Prune the base run with some flags."""
    run = lab.copy(lab.base, "pruned")
    yield "", lab.made(run, f"prune {run} {words}")


def run_with_own_workers(lab: Lab) -> Steps:
    """Run all stages on a local cluster, as users do."""
    yield "", lab.made("whole", "run base --rule semdedup --keep 0.5 --clusters 6 --out whole", own_workers=True)


def prune_again(lab: Lab) -> Steps:
    """Prune one run three times: nothing of an earlier decision may remain."""
    run = lab.copy(lab.base, "again")
    for words in (
        "--rule balanced --keep 0.3 --cover --prototypes prototypes.npz --drop drop.txt",
        "--rule random --keep 0.6",
        "--rule fairdedup --keep 0.5 --prototypes prototypes.npz",
    ):
        yield words, lab.made(run, f"prune {run} {words}")


def run_nights(lab: Lab) -> Steps:
    """Run three nights after a first run, prune the last one again, and refit them all."""
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


def run_branches(lab: Lab) -> Steps:
    """Run two nights against one run, a third against both, and a night after a replacement."""
    run = lab.copy(lab.day_1, "trunk")
    for k in (1, 2):
        lab.do(f"run night-{k}.npy --against {run} --out branch-{k}")
    yield "joined", lab.made("joined", "run night-3.npy --against branch-1 --against branch-2 --out joined")
    yield "replaced", lab.made(run, f"replace {run} --gone gone.txt")
    yield (
        "after a replacement",
        lab.made("after-replacement", f"run night-1.npy --against {run} --out after-replacement"),
    )


def run_night_by_rule(rule: str, begin: str, night: str, lab: Lab) -> Steps:
    """Prune a first run by another rule, and run a night against it."""
    run = lab.copy(lab.base, f"{rule}-1")
    lab.do(f"prune {run} {begin}")
    yield "day 2", lab.made(f"{rule}-2", f"run night-1.npy --against {run} --out {rule}-2 {night}")


def replace_after(words: str, lab: Lab) -> Steps:
    """Replace lost samples of a run that was pruned with some flags, twice."""
    run = lab.copy(lab.base, "replacing")
    lab.do(f"prune {run} {words}")
    yield "once", lab.made(run, f"replace {run} --gone gone.txt")
    yield "twice", lab.made(run, f"replace {run} --gone drop.txt")
    if "balanced" in words:  # lost samples do not come back
        yield "decided again", lab.made(run, f"prune {run} --rule semdedup --keep 0.5")


def sweep_fractions(lab: Lab) -> Steps:
    """Sweep several fractions."""
    for words in (
        "--rule semdedup",
        "--rule balanced --cover --prototypes prototypes.npz",
        "--rule semdedup-chain",
        "--rule fairdedup --always-keep keep.txt --drop drop.txt --prototypes prototypes.npz",
    ):
        yield words, lab.ask(f"sweep {lab.base} --keep 0.3,0.5,0.8 --no-examples {words}")


def use_labels(lab: Lab) -> Steps:
    """Fit prototypes to labels, prune by them, audit the result and export the removed ids."""
    run = lab.copy(lab.day_1, "labelled")
    event = lab.ask(f"calibrate {run} --labels labels.csv --out fitted.parquet --prototypes prototypes.npz")
    yield "calibrate", {"attributes": event["attributes"]}
    yield (
        "prune",
        lab.made(run, f"prune {run} --rule balanced --keep 0.5 --cover --reserve 0.2 --prototypes fitted.parquet"),
    )
    yield "audit", audited(lab, run, "--labels labels.csv --prototypes fitted.parquet")
    yield "export", exported(lab, run)


def run_pictures(lab: Lab) -> Steps:
    """Run drawn pictures with the built-in model, and prototypes from captions of people."""
    lab.do("sample pictures --rows 600")
    yield "fairdedup", lab.made("pictured", "run pictures --keep 0.5 --clusters 3 --out pictured")
    yield "balanced", lab.made("pictured", "prune pictured --rule balanced --keep 0.4 --cover")
    yield "zscore", lab.made("pictured", "prune pictured --eps 0.05 --calibrate zscore")


def command_line() -> dict[str, Callable[[Lab], Steps]]:
    """Return the configurations by name; a function with several steps yields one result for each."""
    known = "--prototypes prototypes.npz"
    begun = {
        "semdedup": ("--rule semdedup --keep 0.5", "--cover"),
        "balanced": (f"--rule balanced --keep 0.5 --cover {known}", "--at-most 0.3"),
        "prefer": ("--prefer aesthetic --at-most 0.5 --cover", "--drop drop.txt"),
        "random-neighbour": ("--rule random-neighbour --eps 0.1", ""),
        "fairdedup": (
            f"--rule fairdedup --keep 0.4 --calibrate zscore --always-keep keep.txt {known}",
            "--exclude-near exam.npy --at-most 0.3",
        ),
    }
    replaced = (
        f"--rule balanced --keep 0.5 {known}",
        "--rule semdedup --keep 0.4 --cover",
        "--rule semdedup-chain --keep 0.4",
        "--rule random --keep 0.4",
    )
    return {
        **{f"prune {words}": functools.partial(prune_of, words) for words in PRUNES.splitlines()},
        "run by workers of its own": run_with_own_workers,
        "prune again": prune_again,
        "line": run_nights,
        "line in branches": run_branches,
        **{f"line by {rule}": functools.partial(run_night_by_rule, rule, *words) for rule, words in begun.items()},
        **{f"replace after {words}": functools.partial(replace_after, words) for words in replaced},
        "sweep": sweep_fractions,
        "labels": use_labels,
        "sample": run_pictures,
    }
