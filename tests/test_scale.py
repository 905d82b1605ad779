"""The tasks of a large run receive and keep only their own rows, never the whole data set."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from runs import UNUSABLE, manifest, prototype_vectors

from fairdedup.commands.prune import prune_run
from fairdedup.config import RunConfig
from fairdedup.core import kmeans
from fairdedup.core.row_hash import row_hash
from fairdedup.progress import StageProgress
from fairdedup.stages.clustering.centroid_training import Training, train_centroids
from fairdedup.stages.results import GroupDecisions
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.records import Rejection, ShardRecord
from fairdedup.storage.run_files import write_array
from fairdedup.storage.seals import seal
from fairdedup.tasks import Task


class Here:
    """Replaces Dask: tasks run in this process, and the arrays that each task of a step receives are recorded."""

    def __init__(self) -> None:
        self.progress = StageProgress(quiet=True)
        self.handed: dict[str, list[NDArray[Any]]] = {}

    def submit(self, stage: str, function: Callable[..., Any], tasks: Sequence[Task]) -> list[Any]:
        arguments = [argument for task in tasks for argument in task.arguments]
        rows = [a.readmitted if isinstance(a, GroupDecisions) else a for a in arguments]
        self.handed[stage] = [array for array in rows if isinstance(array, np.ndarray)]
        return [function(*task.arguments) for task in tasks]


@pytest.mark.parametrize("rule", ["balanced", "semdedup", "random"])
def test_no_row_of_a_decision_is_handed_to_two_tasks_of_a_step(again, prototypes, rule):
    workers: Any = Here()
    config = RunConfig(out=again, rule=rule, keep=0.5, reserve=0.3, prototypes=prototypes, published=True)
    readmitted = prune_run(config, workers).counts.readmitted
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
    protected = np.arange(40, 50)
    (tmp_path / "ids.txt").write_text("".join(f"k{row}\n" for row in protected))
    for seats in (len(protected), 60, 240 - len(UNUSABLE)):
        flags = ("--keep", seats / (240 - len(UNUSABLE)), "--rule", "random", "--always-keep", tmp_path / "ids.txt")
        decisions = prune(*flags).decisions
        rows = decisions["row"].to_numpy()
        order = sorted(rows.tolist(), key=lambda row: (row not in protected, row_hash(np.array([row]), 0)[0], row))
        assert rows[decisions["kept"]].tolist() == sorted(order[:seats])


# The rows that k-means is trained on


@contextmanager
def changed(**values: Any) -> Iterator[None]:
    """Change names of core/kmeans.py for an example of Hypothesis."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setattr(kmeans, name, value)
        yield


def cut(rows: NDArray[np.int64], sizes: Sequence[int]) -> list[NDArray[np.int64]]:
    """Cut rows into shards of the given sizes, and one with the rest."""
    return np.split(rows, np.cumsum(sizes))


SIZES = st.lists(st.integers(0, 40), max_size=25)


@given(gaps=st.lists(st.integers(1, 9), max_size=300), sizes=SIZES, wanted=st.integers(1, 60), seed=st.integers(0, 9))
def test_rows_chosen_shard_by_shard_are_those_chosen_of_all_rows_at_once(gaps, sizes, wanted, seed):
    rows = np.cumsum(gaps, dtype=np.int64)
    with changed(POINTS_PER_CENTROID=1):
        chosen = kmeans.training_rows(cut(rows, sizes), wanted, seed)
    if len(rows) > wanted:
        rows = np.sort(rows[np.argpartition(row_hash(rows, seed), wanted)[:wanted]])
    assert chosen.dtype == np.int64 and np.array_equal(chosen, rows)


@given(number=st.integers(0, 300), sizes=SIZES, wanted=st.integers(1, 60), different=st.integers(1, 50))
def test_of_rows_with_the_same_hash_the_lower_is_chosen_wherever_shards_end(number, sizes, wanted, different):
    def few(rows: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
        return row_hash(rows, seed) % different

    rows = np.arange(number) * 3
    with changed(POINTS_PER_CENTROID=1, row_hash=few):
        chosen = kmeans.training_rows(cut(rows, sizes), wanted, 0).tolist()
    hashes = dict(zip(rows.tolist(), few(rows, 0).tolist(), strict=True))
    assert chosen == sorted(sorted(hashes, key=lambda row: (hashes[row], row))[:wanted])


def test_training_keeps_its_sample_and_little_else_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards, rows, width, clusters = 100, 20_000, 8, 100
    run, records = RunDirectory(tmp_path), []
    for k in range(shards):
        write_array(run.vectors(k), np.full((rows - 1, width), k, np.float16))
        rejected = [Rejection(k, "an id", "a source", "a reason")]
        record = ShardRecord(
            number=k,
            name=f"{k}",
            fingerprint="",
            input=rows,
            valid=rows - 1,
            rejected=rejected,
            seals={"vectors": seal(run.vectors(k))},
        )
        records.append(record)
    seen: list[NDArray[Any]] = []

    def train(sample: NDArray[Any], clusters: int, *more: Any) -> NDArray[np.float32]:
        seen.append(sample)
        return np.zeros((clusters, width), np.float32)

    monkeypatch.setattr(kmeans, "train", train)
    tracemalloc.start()
    try:
        train_centroids(Training(tmp_path, clusters * kmeans.POINTS_PER_CENTROID, clusters, 1), records, 1, "")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    (sample,) = seen
    assert sample.shape == (clusters * kmeans.POINTS_PER_CENTROID, width)
    every = np.array([k * rows + p for k in range(shards) for p in range(rows) if p != k])
    chosen = np.sort(every[np.argsort(row_hash(every, 1))[: len(sample)]])
    assert np.array_equal(sample[:, 0], chosen // rows)
    # While it chooses it holds twice as many rows as it wants, and a shard; a number for each of all rows is 16 MB.
    assert most < sample.nbytes + 64 * (2 * len(sample) + 2 * rows) < 7e6
