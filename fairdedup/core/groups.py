"""The groups of an attribute or of an intersection, and what belongs to each in every cluster, as exact integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class GroupCells:
    """The groups of one attribute, or of the intersection of several.

    Attributes
    ----------
    attributes : tuple of int
        Numbers of the attributes.
    groups : tuple of tuple of int
        Concept of each of these attributes, for each group.
    """

    attributes: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]

    def column(self, weights: Sequence[NDArray[Any]], unit: int, group: int) -> NDArray[np.int64]:
        """Return how much of each row belongs to a group: the product of its memberships.

        Parameters
        ----------
        weights : sequence of ndarray of shape (n, c)
            Memberships in the concepts of every attribute, 0 to `unit`.
        unit : int
            Membership that counts as one row.
        group : int
            Number of the group.

        Returns
        -------
        ndarray of shape (n,), int64, 0 to `unit`
        """
        first, *others = zip(self.attributes, self.groups[group], strict=True)
        column = weights[first[0]][:, first[1]].astype(np.int64)
        for attribute, concept in others:
            column = (column * weights[attribute][:, concept] + unit // 2) // unit
        return column


def count_by_cluster(
    cluster: NDArray[np.int64],
    kept: NDArray[np.bool_],
    weights: Sequence[NDArray[Any]],
    unit: int,
    cells: Sequence[GroupCells],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Add up, in each cluster, what belongs to each group: of all rows, and of the kept ones.

    Parameters
    ----------
    cluster : ndarray of shape (n,), int64
        Cluster of each row.
    kept : ndarray of shape (n,), bool
        Mask of the kept rows.
    weights : sequence of ndarray of shape (n, c)
        Memberships in the concepts of every attribute, 0 to `unit`.
    unit : int
        Membership that counts as one row.
    cells : sequence of GroupCells
        Groups to count, g together.

    Returns
    -------
    clusters : ndarray of shape (u,), int64, ascending
        Numbers of the clusters that have a row.
    before, after : ndarray of shape (u, g), int64
        Sums over all rows, and over the kept ones, in units of 1 / `unit`.
    """
    order = np.argsort(cluster, kind="stable")
    clusters, starts = np.unique(cluster[order], return_index=True)
    stays, ordered = kept[order], [w[order] for w in weights]
    before = np.zeros((len(clusters), sum(len(c.groups) for c in cells)), np.int64)
    after = np.zeros_like(before)
    columns = ((c, k) for c in cells for k in range(len(c.groups)))
    for g, (own, k) in enumerate(columns if len(order) else ()):
        column = own.column(ordered, unit, k)
        before[:, g] = np.add.reduceat(column, starts)
        after[:, g] = np.add.reduceat(column * stays, starts)
    return clusters, before, after
