"""How much work each stage of a run has, in how many tasks: formulas of the size of the data, and nothing measured.

docs/sizing.md has them in words. `benchmarks/coefficients.py` divides measured seconds by the same formulas.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fairdedup.core.decision_columns import RECORD
from fairdedup.core.kmeans import NEARBY, PIECE, POINTS_PER_CENTROID
from fairdedup.core.leftover import SIZE
from fairdedup.core.lloyd import ITERATIONS
from fairdedup.stages.embedding.input_embedding import RANGES
from fairdedup.stages.pruning.cluster_ranges import ROWS_A_TASK, TASKS
from fairdedup.storage.shard_groups import GROUP_ROWS

PAGE = 4096  # bytes that a disk reads at least
NEARBY_BYTES = 8 * (NEARBY - 1)  # a row of clusters/nearby_N.npy
HASH_BYTES = 32  # a row of embeddings/copies/
PASSES = 4  # over the sorted vectors at most: three for eps, one for the decision
CONCEPT_PASSES = 4  # over them at most: three for the temperatures and moments, one for the shares

Command = Literal["embed", "cluster", "prune"]


@dataclass(frozen=True)
class Size:
    """The size of a run.

    Attributes
    ----------
    rows, dim : int
        Number of vectors, n, and of their values, d.
    clusters : int
        k.
    kept : int
        Number of rows that are kept.
    shards : int
        Number of shards of the input, s.
    workers : int
        Number of workers, w.
    """

    rows: int
    dim: int
    clusters: int
    kept: int
    shards: int
    workers: int

    @property
    def vectors(self) -> int:
        """Bytes of all vectors in float16."""
        return 2 * self.rows * self.dim

    @property
    def sample(self) -> int:
        """Rows that k-means is trained on, m."""
        return min(self.rows, POINTS_PER_CENTROID * self.clusters)

    @property
    def pieces(self) -> int:
        """Pieces of that sample, each of which is a task of an iteration."""
        return math.ceil(self.sample / PIECE)

    @property
    def groups(self) -> int:
        """Groups of shards, each with a sorted file and a part of the result."""
        return min(self.shards, math.ceil(self.rows / GROUP_ROWS))

    @property
    def ranges(self) -> int:
        """Ranges of clusters."""
        return min(self.clusters, max(TASKS, self.rows // ROWS_A_TASK))

    @property
    def training_disk(self) -> int:
        """Bytes of clusters/_training/, which is removed at the end; a training in one piece has none."""
        if self.pieces == 1:
            return 0
        return self.sample * (self.dim + 8) + 16 * self.clusters * self.dim * self.pieces


@dataclass(frozen=True)
class Stage:
    """A stage of a run.

    Attributes
    ----------
    name : str
        Name in the plan.
    command : str
        Command whose workers run it, of which memory was measured.
    measured_as : tuple of str
        Names under which its seconds are measured and shown.
    work : callable
        Units of work, which the seconds are proportional to.
    formula : str
        The same in words.
    tasks : callable
        Number of tasks; more workers than tasks are of no use.
    read, written : callable, optional
        Bytes at most; None where nobody has counted them.
    disk : callable
        Bytes of the files that stay, apart from what `coefficients.ROW_BYTES` has of each row.
    has_shard_cost : bool
        Whether each shard costs time of its own.
    one_task_for_shards : bool
        Whether a single task goes through all shards.
    """

    name: str
    command: Command
    measured_as: tuple[str, ...]
    work: Callable[[Size], float]
    formula: str
    tasks: Callable[[Size], int]
    read: Callable[[Size], float] | None
    written: Callable[[Size], float] | None
    disk: Callable[[Size], float] = lambda size: 0
    has_shard_cost: bool = False
    one_task_for_shards: bool = False


def _training_traffic(size: Size, *, read: bool) -> float:
    """Return the bytes that the iterations of a training in pieces read or write."""
    if size.pieces == 1:
        return 0
    sums = 8 * size.clusters * size.dim * size.pieces
    rows = size.sample * (size.dim + 8)
    return ITERATIONS * (rows + sums) if read else rows + ITERATIONS * sums


def _sorted_bytes(size: Size) -> float:
    """Return the bytes of the sorted vectors, their rows, offsets and nearby clusters."""
    return size.vectors + (8 + NEARBY_BYTES) * size.rows + 8 * (size.clusters + 1) * size.groups


EMBED = Stage(
    name="embed",
    command="embed",
    measured_as=("embed",),
    work=lambda size: size.rows * size.dim,
    formula="n d",
    tasks=lambda size: size.shards,
    read=lambda size: size.vectors,
    written=lambda size: size.vectors,
    disk=lambda size: size.vectors,
    has_shard_cost=True,
)
TRAIN = Stage(
    name="train k-means",
    command="cluster",
    measured_as=("train k-means",),
    work=lambda size: ITERATIONS * size.sample * size.clusters * size.dim,
    formula="20 m k d",
    tasks=lambda size: size.pieces,
    read=lambda size: min(size.vectors, size.sample * max(2 * size.dim, PAGE)) + _training_traffic(size, read=True),
    written=lambda size: 4 * size.clusters * size.dim + _training_traffic(size, read=False),
    disk=lambda size: 4 * size.clusters * size.dim,
    has_shard_cost=True,
    one_task_for_shards=True,
)
ASSIGN = Stage(
    name="assign",
    command="cluster",
    measured_as=("assign",),
    work=lambda size: size.rows * size.clusters * size.dim,
    formula="n k d",
    tasks=lambda size: size.groups,
    read=lambda size: size.vectors,
    written=_sorted_bytes,
    disk=_sorted_bytes,
    has_shard_cost=True,
)
VERIFY = Stage(
    name="verify",
    command="prune",
    measured_as=("verify",),
    work=lambda size: size.rows * size.dim,
    formula="n d",
    tasks=lambda size: size.groups,
    read=_sorted_bytes,
    written=lambda size: 0,
    has_shard_cost=True,
)
CONCEPTS = Stage(
    name="concepts",
    command="prune",
    measured_as=("survey", "shares"),
    work=lambda size: size.rows * size.dim,
    formula="n d",
    tasks=lambda size: size.ranges,
    read=lambda size: CONCEPT_PASSES * size.vectors,
    written=lambda size: 0,
)
DECIDE = Stage(
    name="decide in clusters",
    command="prune",
    measured_as=("list", "sample", "search", "decide"),
    work=lambda size: size.rows**2 / size.clusters * size.dim,
    formula="n² d / k",
    tasks=lambda size: size.ranges,
    read=lambda size: PASSES * (size.vectors + 8 * size.rows),
    written=lambda size: RECORD.itemsize * size.rows,
)
ACROSS = Stage(
    name="decide across",
    command="prune",
    measured_as=("reach", "round", "links", "cards"),
    work=lambda size: size.rows**2 / size.clusters * size.dim,
    formula="n² d / k",
    tasks=lambda size: size.ranges,
    read=None,  # round_bytes.py has both, by what was counted of the data
    written=None,
)
RESULTS = Stage(
    name="write results",
    command="prune",
    measured_as=("export", "write kept"),
    work=lambda size: size.rows,
    formula="n",
    tasks=lambda size: size.groups,
    read=lambda size: RECORD.itemsize * size.rows,
    written=lambda size: 0,
    has_shard_cost=True,
)
STATE = Stage(
    name="state",
    command="prune",
    measured_as=("state",),
    work=lambda size: size.kept * size.dim,
    formula="K d",
    tasks=lambda size: size.groups,
    read=lambda size: size.vectors,
    written=lambda size: 2 * size.kept * size.dim,
    disk=lambda size: 2 * size.kept * size.dim,
    has_shard_cost=True,
)
LEFTOVER = Stage(
    name="leftover",
    command="prune",
    measured_as=("leftover",),
    work=lambda size: SIZE * size.kept * size.dim,
    formula="1,000 K d",
    tasks=lambda size: size.groups,
    read=lambda size: size.vectors,
    written=lambda size: 0,
)
STAGES = (EMBED, TRAIN, ASSIGN, VERIFY, CONCEPTS, DECIDE, ACROSS, RESULTS, STATE, LEFTOVER)


def count_image_tasks(size: Size) -> int:
    """Return into how many tasks images are cut: shards, or ranges of them where there are few shards."""
    return max(size.shards, RANGES)
