"""What an audit reads of a finished run, a part of its decisions at a time: counts by cluster, and rows behind them.

Where there are labels they say who belongs to which group; else soft memberships do, computed again from the vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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
from fairdedup.errors import UserError
from fairdedup.storage.layout import Group, RunDirectory
from fairdedup.storage.run_files import read_sealed_table
from fairdedup.storage.vectors import vectors_of_rows

AT_ONCE = 1 << 15  # vectors
Weights = list[NDArray[Any]]
Counts = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Part:
    """One part of the decisions: what a task is given.

    Attributes
    ----------
    run : RunDirectory
    group : Group
        The shards whose rows it holds.
    seal : str
        What it was written with.
    """

    run: RunDirectory
    group: Group
    seal: str

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Return columns of the decisions.

        Raises
        ------
        UserError
            If the part is damaged.
        """
        path = self.run.part("decisions", self.group.number)
        table = read_sealed_table(path, self.seal, columns)
        if table is None:
            raise UserError(f"{path} is missing or damaged: run `fairdedup prune {self.run.root}` again")
        return table


class Source(Protocol):
    """Says who belongs to which group.

    Attributes
    ----------
    unit : int
        What counts as one row.
    """

    @property
    def unit(self) -> int:
        """What counts as one row."""
        ...

    def weights(self, part: Part, table: pa.Table) -> Weights:
        """Return, for each attribute, how much of each row (n, c) belongs to each group, 0 to `unit`."""
        ...


@dataclass(frozen=True)
class ByLabel:
    """Groups by a file of labels."""

    labels: Labels

    @property
    def unit(self) -> int:
        """A row is in one group of an attribute, or in none."""
        return 1

    def lines(self, ids: pa.ChunkedArray) -> NDArray[np.int64]:
        """Return the line of each id (n,) in the file; -1 where the file lacks it."""
        return np.array([self.labels.places.get(name, -1) for name in ids.to_pylist()], np.int64)

    def weights(self, part: Part, table: pa.Table) -> Weights:
        """Return, for each attribute, whether each row (n, c) has each label."""
        lines = self.lines(table.column("id"))
        codes = np.where(lines[:, None] >= 0, self.labels.codes[lines], -1)
        return [codes[:, [a]] == np.arange(len(groups)) for a, groups in enumerate(self.labels.groups)]


@dataclass(frozen=True)
class BySoftMembership:
    """Groups by soft membership, as the rule `balanced` has them."""

    prototypes: Prototypes
    temperatures: tuple[float, ...]

    @property
    def unit(self) -> int:
        """Memberships are in units of 1e-9."""
        return MEMBERSHIP_UNIT

    def weights(self, part: Part, table: pa.Table) -> Weights:
        """Return, for each attribute, the memberships of each row (n, c)."""
        attributes = self.prototypes.attributes
        found: list[Weights] = [
            [
                compute_memberships(s, t, len(a.concepts))
                for s, t, a in zip(block, self.temperatures, attributes, strict=True)
            ]
            for block in _similarities(part, _column(table, "row"), self.prototypes)
        ]
        none = [np.zeros((0, len(a.concepts)), np.int64) for a in attributes]
        return [np.concatenate(own) for own in zip(none, *found, strict=True)]


def _column(table: pa.Table, name: str) -> NDArray[Any]:
    return table.column(name).to_numpy()


def _similarities(part: Part, rows: NDArray[np.int64], prototypes: Prototypes) -> Iterator[list[NDArray[np.float64]]]:
    """Yield each attribute's cosines of some of the rows, those with the absent prototypes behind."""
    for start in range(0, len(rows), AT_ONCE):
        unit = vectors_of_rows(part.run, part.group, rows[start : start + AT_ONCE])
        yield prototypes.similarity(Vectors.of(unit), absent=True)


def gaps_of(part: Part, prototypes: Prototypes) -> list[NDArray[np.float64]]:
    """Return each attribute's gaps (n,): what the temperature `auto` is the median of."""
    blocks = _similarities(part, _column(part.read(["row"]), "row"), prototypes)
    found = [[compute_gaps(s) for s in block] for block in blocks]
    return [np.concatenate(own) for own in zip(*found, strict=True)] or [np.zeros(0)] * len(prototypes.attributes)


def count(part: Part, source: Source, cells: Sequence[GroupCells]) -> Counts:
    """Return the clusters (u,) of a part, and of each group (u, g) in them what there is, and what is kept."""
    table = part.read(["row", "id", "cluster", "kept"])
    return count_by_cluster(
        _column(table, "cluster"), _column(table, "kept"), source.weights(part, table), source.unit, cells
    )


def rows_in(part: Part, source: Source, clusters: NDArray[np.int64]) -> tuple[pa.Table, Weights]:
    """Return the decisions of those rows that lie in some clusters, with what of them belongs to which group."""
    table = part.read(["row", "id", "cluster", "neighbourhood", "kept", "representative", "similarity"])
    table = table.filter(pc.is_in(table.column("cluster"), value_set=pa.array(clusters)))
    return table, source.weights(part, table)


def _unlabelled(part: Part, source: Source, labelled: NDArray[np.int64]) -> tuple[pa.Table, Weights, NDArray[np.int64]]:
    table = part.read(["row", "id", "cluster", "kept"])
    table = table.filter(pa.array(~np.isin(_column(table, "row"), labelled)))
    weights = source.weights(part, table)
    return table, weights, uncertainty(weights)


def uncertain_mass(part: Part, source: Source, labelled: NDArray[np.int64]) -> Counts:
    """Return the clusters (u,) of a part, and the uncertainty and the number of their rows that are not labelled."""
    table, _, score = _unlabelled(part, source, labelled)
    clusters, of = np.unique(_column(table, "cluster"), return_inverse=True)
    mass, rows = np.zeros(len(clusters), np.int64), np.bincount(of, minlength=len(clusters))
    np.add.at(mass, of, score)
    return clusters, mass, rows


def most_uncertain(
    part: Part, source: Source, labelled: NDArray[np.int64], clusters: NDArray[np.int64], seats: NDArray[np.int64]
) -> pa.Table:
    """Return, of each cluster, up to as many of the most uncertain rows of a part as the cluster has seats.

    The columns are row, id, cluster, kept, score, and for each attribute the most likely concept's number.
    """
    table, weights, score = _unlabelled(part, source, labelled)
    table = table.append_column("score", pa.array(score))
    for a, q in enumerate(weights):
        table = table.append_column(f"concept {a}", pa.array(q.argmax(axis=1) if len(q) else [], pa.int64()))
    return first_of_each(table, clusters, seats)


def first_of_each(table: pa.Table, clusters: NDArray[np.int64], seats: NDArray[np.int64]) -> pa.Table:
    """Return the rows with the highest score of each cluster, as many as it has seats; ties to the lower row."""
    cluster = _column(table, "cluster")
    order = np.lexsort((_column(table, "row"), -_column(table, "score"), cluster))
    ordered = cluster[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    place = np.searchsorted(clusters, ordered).clip(max=max(len(clusters) - 1, 0))
    stays = (clusters[place] == ordered) & (rank < seats[place]) if len(clusters) else np.zeros(len(order), np.bool_)
    return table.take(pa.array(order[stays]))
