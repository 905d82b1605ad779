"""What the tasks of a large run are handed, and what they hold: their own rows, and no more of the data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import oracles
import pytest
from numpy.typing import NDArray
from runs import UNUSABLE, manifest, prototype_vectors

from fairdedup.config import RunConfig
from fairdedup.pipeline import prune_stage
from fairdedup.progress import StageProgress
from fairdedup.storage.run import RunDirectory


class Here:
    """Stands for Dask: tasks run in this process, and what arrays each of a step was handed is noted."""

    def __init__(self) -> None:
        self.progress = StageProgress(quiet=True)
        self.handed: dict[str, list[NDArray[Any]]] = {}

    def submit(
        self, step: str, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], *told: Any
    ) -> list[Any]:
        self.handed[step] = [a for own in arguments for a in own if isinstance(a, np.ndarray)]
        return [function(*own) for own in arguments]


@pytest.mark.parametrize("rule", ["balanced", "semdedup", "random"])
def test_no_row_of_a_decision_is_handed_to_two_tasks_of_a_step(again, prototypes, rule):
    workers: Any = Here()
    config = RunConfig(out=again, rule=rule, keep=0.5, reserve=0.3, prototypes=prototypes)
    readmitted = prune_stage(config, RunDirectory(again), workers)["counts"]["readmitted"]
    assert len(workers.handed["shares"]) > 1 and (readmitted > 30 or rule != "balanced")
    for step in ("decide", "shares", "export"):
        rows = np.concatenate([np.zeros(0, np.int64), *workers.handed[step]])
        assert len(np.unique(rows)) == len(rows) == (0 if step == "decide" else readmitted), step


def test_the_shares_of_the_kept_count_readmitted_rows(prune):
    decided = prune("--keep", 0.5, "--rule", "balanced", "--reserve", 0.3)
    known, kept = manifest(decided.run), decided.decisions["kept"].to_numpy()
    assert known["counts"]["readmitted"] > 30
    for attribute, q in decided.problem("balanced").q.items():
        lines = [line for line in known["shares"] if line["attribute"] == attribute]
        assert [line["group"] for line in lines] == [c for c in prototype_vectors()[attribute] if c != "absent"]
        assert [line["input"] for line in lines] == [float(share) for share in oracles.shares(q)]
        assert [line["kept"] for line in lines] == [float(share) for share in oracles.shares(q[kept])]


def test_random_keeps_protected_rows_and_then_those_of_the_least_hashes(prune, tmp_path):
    from fairdedup.core.rules import row_hash

    protected = np.arange(40, 50)
    (tmp_path / "ids.txt").write_text("".join(f"k{row}\n" for row in protected))
    for seats in (len(protected), 60, 240 - len(UNUSABLE)):
        flags = ("--keep", seats / (240 - len(UNUSABLE)), "--rule", "random", "--always-keep", tmp_path / "ids.txt")
        decisions = prune(*flags).decisions
        rows = decisions["row"].to_numpy()
        order = sorted(rows.tolist(), key=lambda row: (row not in protected, row_hash(np.array([row]), 0)[0], row))
        assert rows[decisions["kept"]].tolist() == sorted(order[:seats])
