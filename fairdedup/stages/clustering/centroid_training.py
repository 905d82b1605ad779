"""Trains the centroids of a run: a small sample in one task, a large one in pieces, an iteration at a time.

All of it is in integers (`core/lloyd.py`), so pieces, workers and machines change nothing. Pieces and what each
iteration leaves are in a folder of the run that is removed at the end; nothing large passes through the conductor.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core import kmeans
from fairdedup.core.devices import choose_device
from fairdedup.core.lloyd import (
    ITERATIONS,
    Rounded,
    Start,
    Sums,
    draw_first,
    round_rows,
    training_work,
    update,
)
from fairdedup.core.lloyd_on_torch import assign_and_add_on
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.made_of import is_up_to_date, mark_up_to_date
from fairdedup.storage.marks import WRITTEN
from fairdedup.storage.records import ShardRecord
from fairdedup.storage.run_files import remove_folder, write_array
from fairdedup.storage.sealed_files import Unsealed, load_array, open_array
from fairdedup.storage.seals import seal
from fairdedup.storage.shard_files import open_shard_vectors
from fairdedup.storage.shard_groups import first_rows, hash_of
from fairdedup.tasks import Submit, Task

VERIFIED = "tasks of the same command have verified or written all shards; this one reads a sample of them"
STAGE = "train k-means"


@dataclass(frozen=True)
class ClusterOptions:
    """Options of clustering.

    Attributes
    ----------
    clusters : int or "auto"
        Number of clusters.
    seed : int
    threads : int
        Number of threads of a training in one task. It changes nothing.
    """

    clusters: int | str = "auto"
    seed: int = 0
    threads: int = 1


class Shard(NamedTuple):
    """An embedding shard, and the row at which it begins."""

    record: ShardRecord
    first: int


@dataclass(frozen=True)
class Training:
    """A training in pieces.

    Attributes
    ----------
    root : Path
        Run directory.
    rows : int
        Number of rows of the sample.
    clusters : int
        Number of centroids, k.
    seed : int
    piece : int
        Largest number of rows of a piece.
    """

    root: Path
    rows: int
    clusters: int
    seed: int
    piece: int = kmeans.PIECE

    def write(self, name: str, array: NDArray[Any]) -> None:
        """Write an array into the folder of the training."""
        write_array(self._file(name), array)

    def load(self, name: str) -> Any:
        """Return an array that a task of this training has written, mapped if it is on a disk."""
        return open_array(Unsealed(self._file(name), WRITTEN))

    def load_start(self) -> Start:
        """Return what the training begins with."""
        return Start.of(load_array(Unsealed(self._file("first"), WRITTEN)))

    def remove(self, name: str) -> None:
        """Remove an array."""
        with suppress(OSError):
            self._file(name).unlink()

    def _file(self, name: str) -> Path:
        return RunDirectory(self.root).training / f"{name}.npy"


class Drawn(NamedTuple):
    """The sample of a training in pieces is drawn.

    Attributes
    ----------
    bounds : tuple of int
        First row of each piece, and the row behind the last.
    """

    bounds: tuple[int, ...]


def train_on_workers(
    root: Path,
    records: Sequence[ShardRecord],
    clusters: int,
    options: ClusterOptions,
    submit: Submit,
    piece: int = kmeans.PIECE,
) -> str:
    """Train k-means on the seeded sample of all shards, unless that is done, and return the seal of the centroids.

    Parameters
    ----------
    root : Path
        Run directory.
    records : sequence of ShardRecord
        All shards.
    clusters : int
        Number of centroids.
    options : ClusterOptions
    submit : Submit
    piece : int
        Largest number of rows of a piece.
    """
    run, valid = RunDirectory(root), sum(record.valid for record in records)
    training = Training(root, min(valid, kmeans.POINTS_PER_CENTROID * clusters), clusters, options.seed, piece)
    d = find_dimension(run, records)
    whole = 3 * min(training.rows, piece) * d  # float16 and 8 bits
    memory = whole + 24 * clusters * d  # sums in 64 bits, those of a piece, and centroids
    made_of = hash_of([r.content() for r in records], clusters, asdict(options))
    drawing = Task((training, records, options.threads, made_of), training.rows, memory=memory)
    (found,) = submit(STAGE, train_centroids, [drawing])
    if not isinstance(found, Drawn):
        return found
    try:
        rows = training.rows // (len(found.bounds) - 1)
        pieces = list(enumerate(cut_shards(records, found.bounds)))
        submit(STAGE, round_piece, [Task((training, k, *piece), rows, memory=memory) for k, piece in pieces])
        used = clusters
        for turn in range(ITERATIONS):
            submit(STAGE, add_piece, [Task((training, k, turn), rows, memory=memory) for k, _ in pieces])
            task = Task((training, len(pieces), turn, used), training.rows, memory=memory)
            ((used, changed),) = submit(STAGE, update_centroids, [task])
            if not changed:
                break
        (sealed,) = submit(STAGE, save_centroids, [Task((training, turn + 1, made_of), training.rows)])
        return sealed
    finally:
        with suppress(OSError):
            remove_folder(run.training)


def train_centroids(training: Training, records: Sequence[ShardRecord], threads: int, made_of: str) -> str | Drawn:
    """Draw the sample, and train on it if it is a single piece; return the seal of the centroids once they are there.

    Parameters
    ----------
    training : Training
    records : sequence of ShardRecord
        All shards.
    threads : int
        Number of threads.
    made_of : str
        Hash of what the centroids are made of.
    """
    run = RunDirectory(training.root)
    remove_folder(run.training)  # of a command that was killed
    if is_up_to_date(run.centroids, made_of):
        return seal(run.centroids)
    shards = [Shard(r, int(first)) for r, first in zip(records, first_rows(records), strict=False)]
    chosen = kmeans.training_rows(map(shard_rows, shards), training.clusters, training.seed)
    if len(chosen) <= training.piece:
        sample = gather_rows(run, shards, chosen)
        write_array(run.centroids, kmeans.train(sample, training.clusters, training.seed, threads, "auto"))
        mark_up_to_date(run.centroids, made_of)
        return seal(run.centroids)
    first = draw_first(len(chosen), training.clusters, training.seed)
    order = np.argsort(first)
    vectors = np.empty((len(first), find_dimension(run, records)), np.float16)
    vectors[order] = gather_rows(run, shards, chosen[first[order]])
    training.write("first", vectors)
    training.write("centroids_0", vectors[: training.clusters])
    training.write("rows", chosen)
    pieces = -(-len(chosen) // training.piece)
    starts = [len(chosen) * piece // pieces for piece in range(pieces)]
    return Drawn((*chosen[starts].tolist(), int(chosen[-1]) + 1))


def cut_shards(records: Sequence[ShardRecord], bounds: Sequence[int]) -> list[tuple[list[Shard], int, int]]:
    """Return for each piece the shards that it has rows of, its first row, and the row behind its last."""
    starts = first_rows(records)
    cut = []
    for low, high in zip(bounds, bounds[1:], strict=False):
        begin, end = np.searchsorted(starts, low, side="right") - 1, np.searchsorted(starts, high)
        cut.append(([Shard(records[k], int(starts[k])) for k in range(begin, end)], low, high))
    return cut


def round_piece(training: Training, piece: int, shards: Sequence[Shard], low: int, high: int) -> None:
    """Read the rows of the sample from `low` to before `high`, and write them in 8 bits."""
    rows = training.load("rows")
    begin, end = np.searchsorted(rows, [low, high])
    unit = gather_rows(RunDirectory(training.root), shards, np.asarray(rows[begin:end]))
    rounded = round_rows(unit, training.load_start().mean)
    training.write(f"values_{piece}", rounded.values)
    training.write(f"steps_{piece}", rounded.steps)


def add_piece(training: Training, piece: int, turn: int) -> None:
    """Find the centroids of the rows of a piece, and write their sums."""
    rows = Rounded(training.load(f"values_{piece}"), np.asarray(training.load(f"steps_{piece}")))
    centroids = np.asarray(training.load(f"centroids_{turn}"))
    work = training_work(len(rows.values), *centroids.shape)
    found = assign_and_add_on(choose_device("auto", work), rows, centroids, training.load_start().mean, work)
    training.write(f"sums_{turn}_{piece}", found.sums)
    training.write(f"counts_{turn}_{piece}", found.counts)


def update_centroids(training: Training, pieces: int, turn: int, used: int) -> tuple[int, bool]:
    """Write the next centroids; return how many of the first rows are used, and whether any centroid has changed.

    What the turn before has left is removed. This turn's stays, since the task may run twice.
    """

    def read_sums() -> Iterable[Sums]:
        for piece in range(pieces):
            yield Sums(*(np.asarray(training.load(f"{what}_{turn}_{piece}")) for what in Sums._fields))

    centroids = np.asarray(training.load(f"centroids_{turn}"))
    updated, used = update(read_sums(), centroids, training.load_start(), used)
    training.write(f"centroids_{turn + 1}", updated)
    for piece in range(pieces):
        for what in Sums._fields:
            training.remove(f"{what}_{turn - 1}_{piece}")
    return used, not np.array_equal(updated, centroids)


def save_centroids(training: Training, turn: int, made_of: str) -> str:
    """Write the centroids after some turns as those of the run, and return their seal."""
    run = RunDirectory(training.root)
    write_array(run.centroids, np.asarray(training.load(f"centroids_{turn}")).astype(np.float32))
    mark_up_to_date(run.centroids, made_of)
    return seal(run.centroids)


def gather_rows(run: RunDirectory, shards: Iterable[Shard], rows: NDArray[np.int64]) -> NDArray[np.float16]:
    """Return the vectors of some ascending rows of shards: (m, d); m is 1 or more."""
    found: NDArray[np.float16] | None = None
    for shard in shards:
        low, high = np.searchsorted(rows, [shard.first, shard.first + shard.record.input])
        if high > low:
            vectors = open_array(Unsealed(run.vectors(shard.record.number), VERIFIED))
            if found is None:
                found = np.empty((len(rows), vectors.shape[1]), np.float16)
            found[low:high] = vectors[np.searchsorted(shard_rows(shard), rows[low:high])]
    assert found is not None
    return found


def shard_rows(shard: Shard) -> NDArray[np.int64]:
    """Return the rows of an embedding shard's vectors."""
    return shard.first + shard.record.positions()


def find_dimension(run: RunDirectory, records: Sequence[ShardRecord]) -> int:
    """Return the length of a vector; at least one of the shards must have one."""
    return int(open_shard_vectors(run, next(r for r in records if r.valid)).shape[1])
