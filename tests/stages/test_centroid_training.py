"""k-means of a run is the training of the same sample in memory, in one task or in pieces on any workers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import Here
from runs import UNUSABLE

from fairdedup.core import kmeans
from fairdedup.progress import StageProgress
from fairdedup.stages.clustering import ClusterOptions
from fairdedup.stages.clustering.centroid_training import train_on_workers
from fairdedup.storage.contents import load_embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.tasks import Task
from fairdedup.workers import Workers


@pytest.fixture
def embedded(again: Path) -> Any:
    """Embeddings of 240 rows in shards, of which three have no vector."""
    RunDirectory(again).centroids.unlink()
    return load_embedded(RunDirectory(again))


def expected(run: RunDirectory, shards: int, clusters: int, seed: int) -> np.ndarray:
    """Return the centroids of the whole sample in memory."""
    unit = np.concatenate([np.load(run.vectors(k)) for k in range(shards)])
    rows = np.setdiff1d(np.arange(240), list(UNUSABLE))
    chosen = kmeans.training_rows([rows], clusters, seed)
    return kmeans.train(unit[np.searchsorted(rows, chosen)], clusters, seed)


class Twice(Here):
    """Runs every task twice, as after the loss of a worker, and the later ones first."""

    def submit(self, stage: str, function: Callable[..., Any], tasks: Sequence[Task]) -> list[Any]:
        before = [function(*task.arguments) for task in reversed(tasks)]
        assert super().submit(stage, function, tasks) == before[::-1]
        return before[::-1]


@pytest.mark.parametrize("piece", [1000, 100, 17])
def test_pieces_of_any_size_train_the_same_centroids(embedded: Any, piece: int) -> None:
    run, options = embedded.directory, ClusterOptions(seed=3)
    train_on_workers(run.root, embedded.records, 6, options, Twice().submit, piece)
    centroids = np.load(run.centroids)
    assert centroids.dtype == np.float32
    assert np.array_equal(centroids, expected(run, len(embedded.records), 6, 3))
    assert not run.training.exists()


def test_pieces_of_a_sample_are_trained_alike(embedded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmeans, "POINTS_PER_CENTROID", 9)
    run = embedded.directory
    train_on_workers(run.root, embedded.records, 11, ClusterOptions(), Here().submit, 20)
    assert np.array_equal(np.load(run.centroids), expected(run, len(embedded.records), 11, 0))


def test_dask_workers_train_the_same_centroids(embedded: Any, scheduler: str) -> None:
    run = embedded.directory
    with Workers(StageProgress(quiet=True), scheduler) as workers:
        train_on_workers(run.root, embedded.records, 6, ClusterOptions(seed=3), workers.submit, 50)
    assert np.array_equal(np.load(run.centroids), expected(run, len(embedded.records), 6, 3))


def test_a_training_that_fails_leaves_nothing_and_one_that_is_done_is_not_repeated(embedded: Any) -> None:
    run, calls = embedded.directory, []

    def fail(stage: str, function: Callable[..., Any], tasks: Sequence[Task]) -> list[Any]:
        calls.append(function.__name__)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return Here().submit(stage, function, tasks)

    with pytest.raises(KeyboardInterrupt):
        train_on_workers(run.root, embedded.records, 6, ClusterOptions(), fail, 50)
    assert not run.centroids.exists() and not run.training.exists()
    train_on_workers(run.root, embedded.records, 6, ClusterOptions(), fail, 50)
    calls.clear()
    run.training.mkdir()  # as a command leaves it that is killed at the very end
    train_on_workers(run.root, embedded.records, 6, ClusterOptions(), fail, 50)
    assert calls == ["train_centroids"] and not run.training.exists()
    assert json.loads(run.centroids.with_suffix(".json").read_text())
