"""The groups of an attribute or an intersection, and the membership in each of them by cluster, as exact integers."""

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
        Numbers of the attributes that are crossed.
    groups : tuple of tuple of int
        For each group, the number of its concept in each of these attributes.
    """

    attributes: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]

    def column(self, weights: Sequence[NDArray[Any]], unit: int, group: int) -> NDArray[np.int64]:
        """Return each row's membership in a group: the product of its memberships in the concepts of the group.

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
    """Add up the memberships in each group by cluster: of all rows, and of the kept rows.

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
        Groups to count; g is their number in all.

    Returns
    -------
    clusters : ndarray of shape (u,), int64, ascending
        Numbers of the clusters that have rows.
    before, after : ndarray of shape (u, g), int64
        Sums over all rows, and over the kept rows, in units of 1 / `unit`.
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
