"""One cluster in visiting order, as rules see it: its rows, their values, similarity to concepts, and price.

This module computes what rules read. It never chooses a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.leader_sweep import visiting_order
from fairdedup.core.memberships import compute_price
from fairdedup.core.model import Cluster, Plan
from fairdedup.core.part import Part
from fairdedup.core.pinned import PinnedRows, pin_rows
from fairdedup.core.similarity import BLOCK, Vectors, cosine_to_one, quantised
from fairdedup.core.survey import find_memberships


@dataclass(frozen=True)
class ArrangedCluster:
    """The n rows of a cluster in visiting order.

    Attributes
    ----------
    part : Part
        Part that contains the cluster. Its memo is shared by all passes.
    cluster : Cluster
        The cluster, rows ascending.
    order : ndarray of shape (n,), int64
        Entry k is the position in the cluster of the row that is visited as number k.
    rows : ndarray of shape (n,), int64
        Positions in the input.
    centroid_similarity : ndarray of shape (n,), float64
        Cosine to the centroid.
    values : ndarray of shape (n,), int64, or None
        Values that the rule `prefer` compares.
    within : ndarray of shape (n,), int64, or None
        Codes of the values within which rows are compared.
    """

    part: Part
    cluster: Cluster
    order: NDArray[np.int64]
    rows: NDArray[np.int64]
    centroid_similarity: NDArray[np.float64]
    values: NDArray[np.int64] | None
    within: NDArray[np.int64] | None = None

    @cached_property
    def vectors(self) -> Vectors:
        """Vectors in visiting order, read and widened at their first use."""
        return Vectors.of(self.cluster.unit, self.order)

    @cached_property
    def pinned(self) -> PinnedRows:
        """Effect of the rows that are kept before the sweep, which the memo of the part remembers."""
        protected, earlier = self.cluster.is_protected[self.order], self.cluster.earlier
        if earlier is None and not protected.any():
            return PinnedRows.none(len(self.rows))
        memo, name = self.part.memo, ("pinned", self.cluster.number)
        if name not in memo:
            memo[name] = pin_rows(self.vectors, self.rows, protected, earlier, self.within)
        found: PinnedRows = memo[name]
        return found

    @property
    def places(self) -> NDArray[np.int64]:
        """Place of each row in the visiting order: 0 to n - 1."""
        return np.arange(len(self.rows))

    def concept_similarity(self, plan: Plan) -> NDArray[np.int64]:
        """Return the quantised similarity (n, c) to each concept of all attributes, standardised if planned."""
        assert plan.prototypes is not None
        similarity = np.concatenate(plan.prototypes.similarity(self.vectors), axis=1)
        return quantised(similarity if plan.moments is None else plan.moments.standardise(similarity))

    def memberships(self, plan: Plan) -> list[NDArray[np.int64]]:
        """Return each attribute's memberships (n, c), in units of 1e-9."""
        assert plan.prototypes is not None
        found = find_memberships(self.part, self.cluster, plan.prototypes, plan.temperatures)
        return [q[self.order] for q in found]

    def price(self, plan: Plan) -> NDArray[np.int64]:
        """Return the quantised price of each row (n,): the rarer its concepts in the data set, the higher."""
        return compute_price(self.memberships(plan), plan.terms)


def arrange(part: Part, cluster: Cluster) -> ArrangedCluster:
    """Put a cluster of a part in visiting order.

    Parameters
    ----------
    part : Part
        Part that contains the cluster.
    cluster : Cluster
        Cluster of n rows.
    """
    similarity = compare_with_centroid(part, cluster)
    order = visiting_order(similarity, cluster.rows)
    within = None if cluster.within is None else cluster.within[order]
    values = None if cluster.values is None else cluster.values[order]
    return ArrangedCluster(part, cluster, order, cluster.rows[order], similarity[order], values, within)


def compare_with_centroid(part: Part, cluster: Cluster) -> NDArray[np.float64]:
    """Return the cosine of each row of a cluster to the centroid (n,), which the memo of the part remembers."""
    known = part.memo.get(("centroid similarity", cluster.number))
    if known is None:
        known = part.memo["centroid similarity", cluster.number] = _compute_centroid_similarity(cluster)
    return known


def _compute_centroid_similarity(cluster: Cluster) -> NDArray[np.float64]:
    """Return the cosine of each row to the centroid (n,), a block at a time: a widened copy would be large."""
    centroid, similarity = Vectors.of(cluster.centroid[None]), np.empty(len(cluster.rows), np.float64)
    for start in range(0, len(similarity), BLOCK):
        block = Vectors.of(cluster.unit[start : start + BLOCK])
        similarity[start : start + BLOCK] = cosine_to_one(block.x, block.squares, centroid.x[0], centroid.squares[0])
    return similarity
