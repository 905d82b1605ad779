"""Explains a group's loss: the clusters and neighbourhoods that caused most of it, with removed samples as examples.

Only the rows of these clusters are read, at most 4 million. A cluster that exceeds this limit is named but not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.audit.audit_report import AttributeReport, ClusterLoss, GroupLoss, NeighbourhoodLoss, RemovedSample
from fairdedup.audit.decision_parts import MapDecisions
from fairdedup.audit.measures import LossTerms
from fairdedup.core.representation import decompose
from fairdedup.stages.group_counts import GroupSource, Weights, read_clusters
from fairdedup.stages.results import DECISIONS_SCHEMA

MOST_ROWS = 1 << 22  # rows of all clusters that are read
EXAMPLES = 5  # removed samples that are named for each loss
LEAST_COST = 1e-9  # a smaller cost is a rounding error

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _LostGroup:
    """A sufficient group, and the clusters with its largest losses, largest first."""

    report: GroupLoss
    loss: LossTerms
    g: int
    between: list[int]
    within: list[int]


def explain_losses(
    reports: Sequence[AttributeReport],
    losses: Sequence[LossTerms],
    *,
    top: int,
    source: GroupSource,
    map_decisions: MapDecisions,
    sizes: Ints,
) -> list[str]:
    """Add the causes to the loss of each sufficient group, and return notes.

    Parameters
    ----------
    reports, losses : sequences of AttributeReport and of LossTerms
        Results of `measure_attribute`.
    top : int
        Number of clusters and of neighbourhoods to name for each group.
    source : GroupSource
        Assigns rows to groups.
    map_decisions : MapDecisions
        Maps a function over the parts of the decisions.
    sizes : ndarray of shape (k,), int64
        Number of vectors in each cluster.
    """
    lost = [
        _LostGroup(group.loss, loss, g, _costliest(loss.between[:, g], top), _costliest(loss.within[:, g], top))
        for report, loss in zip(reports, losses, strict=True)
        for g, group in enumerate(report.groups)
        if group.sufficient
    ]
    rankings = [clusters for group in lost for clusters in (group.between, group.within)]
    clusters, notes = _choose_clusters(rankings, sizes)
    rows = _ClusterRows(map_decisions("why", read_clusters, source, clusters) if len(clusters) else [], source.unit)
    weights_of_all = {id(loss): rows.weights_of_all(loss) for loss in losses}
    for group in lost:
        weights = rows.weights(group.loss, group.g)
        group.report.clusters_between = _report_clusters(rows, group, group.between, group.loss.between, weights)
        group.report.clusters_within = _report_clusters(rows, group, group.within, group.loss.within, weights)
        group.report.neighbourhoods = rows.costliest_neighbourhoods(
            weights, weights_of_all[id(group.loss)], [*group.between, *group.within], top
        )
    return notes


def _costliest(cost: Floats, top: int) -> list[int]:
    """Return the positions of the largest costs above 0, largest first; in ties the lower position comes first."""
    order = np.argsort(-cost, kind="stable")[:top]
    return [int(c) for c in order if cost[c] > LEAST_COST]


def _choose_clusters(rankings: list[list[int]], sizes: Ints) -> tuple[Ints, list[str]]:
    """Return the clusters to read, ascending, and notes. Each group's costliest come first, as long as rows fit."""
    ranks = {c: rank for ranking in reversed(rankings) for rank, c in enumerate(ranking)}
    ranked = sorted(ranks.items(), key=lambda item: (item[1], item[0]))
    chosen, rows = [], 0
    for cluster, _ in ranked:
        if rows + sizes[cluster] <= MOST_ROWS:
            rows += int(sizes[cluster])
            chosen.append(cluster)
    left = len(ranked) - len(chosen)
    notes = [f"{left:,} of the costliest clusters are too large to be looked into: no ids of them"] if left else []
    return np.array(sorted(chosen), np.int64), notes


class _ClusterRows:
    """The n rows of all clusters that are read."""

    def __init__(self, parts: Sequence[tuple[pa.Table, Weights]], unit: int) -> None:
        self.unit = unit
        tables = [table for table, _ in parts]
        table = pa.concat_tables(tables).combine_chunks() if tables else DECISIONS_SCHEMA.empty_table()
        self.ids = table.column("id")
        self.row: Ints = table.column("row").to_numpy()
        self.cluster: Ints = table.column("cluster").to_numpy()
        self.neighbourhood: Ints = table.column("neighbourhood").to_numpy()
        self.kept: NDArray[np.bool_] = table.column("kept").to_numpy()
        self.representative: Ints = table.column("representative").to_numpy()
        self.similarity: Floats = table.column("similarity").to_numpy()
        by_attribute = zip(*(weights for _, weights in parts), strict=True)
        self.memberships = [np.concatenate(of_attribute) for of_attribute in by_attribute]  # each (n, c), in units
        self.order = np.argsort(self.cluster, kind="stable")

    def weights(self, loss: LossTerms, g: int) -> Floats:
        """Return the membership of each row in a group (n,)."""
        if not self.memberships:
            return np.zeros(0)
        cells = loss.attribute.cells
        return cells.column(self.memberships, self.unit, int(loss.present[g])) / self.unit

    def weights_of_all(self, loss: LossTerms) -> Floats:
        """Return the membership of each row in all groups of an attribute together (n,)."""
        total = np.zeros(len(self.row))
        for g in range(len(loss.present)):
            total = total + self.weights(loss, g)
        return total

    def places(self, cluster: int) -> Ints:
        """Return the positions of a cluster's rows."""
        ordered = self.cluster[self.order]
        return self.order[slice(*np.searchsorted(ordered, [cluster, cluster + 1]))]

    def removed_samples(self, places: Ints, weights: Floats) -> list[RemovedSample]:
        """Return examples of a group's removed samples, by descending membership, then ascending row."""
        removed = places[~self.kept[places] & (weights[places] > 0)]
        removed = removed[np.lexsort((self.row[removed], -weights[removed]))][:EXAMPLES]
        samples = []
        for place in removed:
            cluster = self.places(int(self.cluster[place]))
            representative = cluster[self.row[cluster] == self.representative[place]]
            samples.append(
                RemovedSample(
                    id=self.ids[int(place)].as_py(),
                    representative=self.ids[int(representative[0])].as_py() if len(representative) else None,
                    similarity=float(self.similarity[place]),
                    membership=float(weights[place]),
                )
            )
        return samples

    def costliest_neighbourhoods(
        self, weights: Floats, weights_of_all: Floats, clusters: list[int], top: int
    ) -> list[NeighbourhoodLoss]:
        """Return the neighbourhoods of some clusters with a group's largest losses, largest first.

        Parameters
        ----------
        weights, weights_of_all : ndarray of shape (n,), float64
            Membership of each row in the group, and in all groups of its attribute together.
        clusters : list of int
            Clusters to examine.
        top : int
            Largest number of neighbourhoods.
        """
        found = [
            costly
            for cluster in sorted(set(clusters))
            for costly in self._costly_neighbourhoods(cluster, weights, weights_of_all, top)
        ]
        found.sort(key=lambda costly: (-costly.cost, costly.loss.neighbourhood))
        return [costly.loss for costly in found[:top]]

    def _costly_neighbourhoods(
        self, cluster: int, weights: Floats, weights_of_all: Floats, top: int
    ) -> list[_CostlyNeighbourhood]:
        places = self.places(cluster)
        if not len(places):
            return []
        names, neighbourhood = np.unique(self.neighbourhood[places], return_inverse=True)
        kept = self.kept[places]
        amounts = (weights[places], weights_of_all[places] - weights[places])  # the group, and the others
        before = np.stack([_sum_by(neighbourhood, amount) for amount in amounts], axis=1)
        after = np.stack([_sum_by(neighbourhood, amount * kept) for amount in amounts], axis=1)
        cost = decompose(before, after)[1][:, 0]
        return [
            _CostlyNeighbourhood(
                float(cost[s]),
                NeighbourhoodLoss(
                    neighbourhood=int(names[s]),
                    cluster=cluster,
                    rows=float(before[s].sum()),
                    kept=float(after[s].sum()),
                    group_rows=float(before[s, 0]),
                    group_kept=float(after[s, 0]),
                    cost=float(cost[s]),
                    lost=self.removed_samples(places[neighbourhood == s], weights),
                ),
            )
            for s in _costliest(cost, top)
        ]


class _CostlyNeighbourhood(NamedTuple):
    cost: float  # unlike the one in the report not rounded, since neighbourhoods are ordered by it
    loss: NeighbourhoodLoss


def _sum_by(group: Ints, values: Floats) -> Floats:
    return np.asarray(np.bincount(group, values), np.float64)


def _report_clusters(
    rows: _ClusterRows, group: _LostGroup, clusters: list[int], cost: Floats, weights: Floats
) -> list[ClusterLoss]:
    loss, g = group.loss, group.g
    return [
        ClusterLoss(
            cluster=cluster,
            rows=float(loss.before[cluster].sum()),
            kept=float(loss.after[cluster].sum()),
            group_rows=float(loss.before[cluster, g]),
            group_kept=float(loss.after[cluster, g]),
            cost=float(cost[cluster, g]),
            lost=rows.removed_samples(rows.places(cluster), weights),
        )
        for cluster in clusters
    ]
