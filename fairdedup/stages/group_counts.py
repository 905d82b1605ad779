"""What an audit reads of a finished run: group counts by cluster, and the rows behind them.

A task reads one part of the decisions. Labels say who belongs to which group, or else soft memberships that are
computed again from the vectors. Nothing here writes a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fairdedup.core.groups import GroupCells, count_by_cluster
from fairdedup.core.memberships import MEMBERSHIP_UNIT, compute_gaps, compute_memberships
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.similarity import Vectors
from fairdedup.core.uncertainty import uncertainty
from fairdedup.datasets.labels import Labels
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.remedies import decide_again
from fairdedup.storage.sealed_files import Seal, load_table
from fairdedup.storage.shard_files import GroupVectors
from fairdedup.storage.shard_groups import Group

BLOCK = 1 << 15  # vectors whose similarities are in memory at a time
Weights = list[NDArray[Any]]  # for each attribute (n, c): how much of each row belongs to each group


class GroupCounts(NamedTuple):
    """Group counts of one part of the decisions, in units of the source.

    Attributes
    ----------
    clusters : ndarray of shape (u,), int64, ascending
        Clusters that have a row in the part.
    before, after : ndarray of shape (u, g), int64
        All rows, and kept rows, of each group in these clusters.
    """

    clusters: NDArray[np.int64]
    before: NDArray[np.int64]
    after: NDArray[np.int64]


class UncertaintySums(NamedTuple):
    """Uncertainty of the unlabelled rows of one part of the decisions.

    Attributes
    ----------
    clusters : ndarray of shape (u,), int64, ascending
        Clusters that have an unlabelled row in the part.
    mass : ndarray of shape (u,), int64
        Sum of their scores.
    rows : ndarray of shape (u,), int64
        Their number.
    """

    clusters: NDArray[np.int64]
    mass: NDArray[np.int64]
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class DecisionPart:
    """One part of the decisions, which one task reads.

    Attributes
    ----------
    run : RunDirectory
        Directory of the finished run.
    group : Group
        Shards whose rows the part holds.
    seal : str
        Checksum that run.json records for the part.
    trial : RunDirectory or None
        Where the part is instead, if the decision is only tried.
    """

    run: RunDirectory
    group: Group
    seal: str
    trial: RunDirectory | None = None

    @property
    def name(self) -> str:
        """Name in error messages."""
        return self.group.name

    @property
    def input(self) -> int:
        """Number of input rows."""
        return self.group.input

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Return columns of the decisions.

        Parameters
        ----------
        columns : sequence of str
            Names of the columns.

        Raises
        ------
        DamagedFileError
            If the part is missing or damaged.
        """
        path = (self.trial or self.run).part("decisions", self.group.number)
        return load_table(Seal(path, self.seal, decide_again(self.run.root)), columns)


class GroupSource(Protocol):
    """A source of group membership: how much of each row belongs to each group.

    Attributes
    ----------
    unit : int
        Weight of one whole row.
    """

    @property
    def unit(self) -> int:
        """Weight of one whole row."""
        ...

    def weights(self, part: DecisionPart, table: pa.Table) -> Weights:
        """Return, for each attribute, how much of each row (n, c) belongs to each group, 0 to `unit`."""
        ...


@dataclass(frozen=True)
class LabelledGroups:
    """Groups from a file of labels."""

    labels: Labels

    @property
    def unit(self) -> int:
        """Weight of one whole row: 1, since a row is in one group of an attribute or in none."""
        return 1

    def find_lines(self, ids: pa.ChunkedArray) -> NDArray[np.int64]:
        """Return the line of each id (n,) in the file; -1 where the file lacks it."""
        return np.array([self.labels.places.get(name, -1) for name in ids.to_pylist()], np.int64)

    def weights(self, part: DecisionPart, table: pa.Table) -> Weights:
        """Return, for each attribute, whether each row (n, c) has each label."""
        lines = self.find_lines(table.column("id"))
        codes = np.where(lines[:, None] >= 0, self.labels.codes[lines], -1)
        return [codes[:, [a]] == np.arange(len(groups)) for a, groups in enumerate(self.labels.groups)]


@dataclass(frozen=True)
class PerceivedGroups:
    """Groups by soft membership, as the rule `balanced` computes it."""

    prototypes: Prototypes
    temperatures: tuple[float, ...]

    @property
    def unit(self) -> int:
        """Weight of one whole row: memberships are integers in units of 1e-9."""
        return MEMBERSHIP_UNIT

    def weights(self, part: DecisionPart, table: pa.Table) -> Weights:
        """Return, for each attribute, the memberships of each row (n, c)."""
        attributes = self.prototypes.attributes
        blocks: list[Weights] = [
            [
                compute_memberships(s, t, len(a.concepts))
                for s, t, a in zip(block, self.temperatures, attributes, strict=True)
            ]
            for block in _iterate_scores(part, _column(table, "row"), self.prototypes)
        ]
        empty = [np.zeros((0, len(a.concepts)), np.int64) for a in attributes]
        return [np.concatenate(of_attribute) for of_attribute in zip(empty, *blocks, strict=True)]


def _column(table: pa.Table, name: str) -> NDArray[Any]:
    return table.column(name).to_numpy()


def _iterate_scores(
    part: DecisionPart, rows: NDArray[np.int64], prototypes: Prototypes
) -> Iterator[list[NDArray[np.float64]]]:
    """Yield, for each block of the rows, each attribute's scores; those of the absent prototypes come last."""
    vectors = GroupVectors(part.run, part.group)
    for start in range(0, len(rows), BLOCK):
        unit = vectors.read_rows(rows[start : start + BLOCK])
        yield prototypes.scores(Vectors.of(unit))


def measure_gaps(part: DecisionPart, prototypes: Prototypes) -> list[NDArray[np.float64]]:
    """Return each attribute's gaps (n,), whose median gives the temperature `auto`."""
    rows = _column(part.read(["row"]), "row")
    blocks = [[compute_gaps(s) for s in block] for block in _iterate_scores(part, rows, prototypes)]
    if not blocks:
        return [np.zeros(0)] * len(prototypes.attributes)
    return [np.concatenate(of_attribute) for of_attribute in zip(*blocks, strict=True)]


def count_groups(part: DecisionPart, source: GroupSource, cells: Sequence[GroupCells]) -> GroupCounts:
    """Return the rows and the kept rows of each group in each cluster of a part."""
    table = part.read(["row", "id", "cluster", "kept"])
    weights = source.weights(part, table)
    return GroupCounts(
        *count_by_cluster(_column(table, "cluster"), _column(table, "kept"), weights, source.unit, cells)
    )


def read_clusters(part: DecisionPart, source: GroupSource, clusters: NDArray[np.int64]) -> tuple[pa.Table, Weights]:
    """Return the decisions of the rows of some clusters, and their weights."""
    table = part.read(["row", "id", "cluster", "neighbourhood", "kept", "representative", "similarity"])
    table = table.filter(pc.is_in(table.column("cluster"), value_set=pa.array(clusters)))
    return table, source.weights(part, table)


def _score_unlabelled(
    part: DecisionPart, source: GroupSource, labelled: NDArray[np.int64]
) -> tuple[pa.Table, Weights, NDArray[np.int64]]:
    """Return the decisions of the rows that have no label, their weights, and their uncertainty (n,)."""
    table = part.read(["row", "id", "cluster", "kept"])
    table = table.filter(pa.array(~np.isin(_column(table, "row"), labelled)))
    weights = source.weights(part, table)
    return table, weights, uncertainty(weights)


def sum_uncertainty(part: DecisionPart, labelled: NDArray[np.int64], source: GroupSource) -> UncertaintySums:
    """Return the uncertainty and the number of the rows of each cluster of a part that have no label."""
    table, _, score = _score_unlabelled(part, source, labelled)
    clusters, place = np.unique(_column(table, "cluster"), return_inverse=True)
    mass, rows = np.zeros(len(clusters), np.int64), np.bincount(place, minlength=len(clusters))
    np.add.at(mass, place, score)
    return UncertaintySums(clusters, mass, rows)


def select_uncertain(
    part: DecisionPart,
    labelled: NDArray[np.int64],
    source: GroupSource,
    clusters: NDArray[np.int64],
    seats: NDArray[np.int64],
) -> pa.Table:
    """Return the most uncertain rows of each cluster of a part, at most as many as the cluster has seats.

    The columns are row, id, cluster, kept, score, and for each attribute the most likely concept's number.
    """
    table, weights, score = _score_unlabelled(part, source, labelled)
    table = table.append_column("score", pa.array(score))
    for a, q in enumerate(weights):
        table = table.append_column(f"concept {a}", pa.array(q.argmax(axis=1) if len(q) else [], pa.int64()))
    return select_highest(table, clusters, seats)


def select_highest(table: pa.Table, clusters: NDArray[np.int64], seats: NDArray[np.int64]) -> pa.Table:
    """Return the rows with the highest score of each cluster, as many as it has seats; ties to the lower row."""
    cluster = _column(table, "cluster")
    order = np.lexsort((_column(table, "row"), -_column(table, "score"), cluster))
    ordered = cluster[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    place = np.searchsorted(clusters, ordered).clip(max=max(len(clusters) - 1, 0))
    chosen = (clusters[place] == ordered) & (rank < seats[place]) if len(clusters) else np.zeros(len(order), np.bool_)
    return table.take(pa.array(order[chosen]))
