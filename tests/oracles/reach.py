"""Reach: which rows of different clusters are compared, and whether the values of a column let them be.

Written from the law on duplicates across clusters alone. "Ruling" marks a decision where the text leaves room.

`within`: rows are compared only where the values of a column are equal. So two rows with different values are never
linked: neither in the sweep of a cluster, nor with rows kept before, nor in a conflict, nor in the leftover. Nothing
else changes: the visiting order, the sums of `fairdedup` and every mean are still those of the whole cluster. Rulings:
missing values (None, NaN) are equal to each other and to nothing else; an empty string is a value like any other.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from oracles.arithmetic import Array, cosine_matrix, quantised

Reach = str | float
"""`auto`, or a number; 0 means never across clusters."""


def rho(e: int, d: int, reach: Reach = "auto") -> int:
    """Return the largest gap, in millionths, that reaches at eps = e ten-thousandths.

    For `auto` it is the integer nearest to 10^6 * 4 * sqrt(e / 10^4 / d), halves to even. It is computed exactly: its
    square is the fraction 16 * 10^8 * e / d, so the root is at least r + 1/2 where (2r + 1)^2 * d <= 64 * 10^8 * e.
    Float64 as written gives the same: two integers that differ do so by 1, which keeps the root 2.2e-8 / sqrt(d) or
    more away from a half, while the error of the float is under 2.3e-9 / sqrt(d). A half itself needs a d that 2^14
    divides. A number is rint(10^6 * reach) in float64, as all that is quantised.
    """
    if reach != "auto":
        return int(quantised(float(reach)))
    r = math.isqrt(16 * 10**8 * e // d)
    doubled = (2 * r + 1) ** 2 * d - 64 * 10**8 * e  # below 0: nearer to r + 1
    return r + 1 if doubled < 0 or (doubled == 0 and r % 2) else r


def nearest_clusters(own: Any, similarity: Mapping[Any, int], count: int) -> list[Any]:
    """Return a row's `count` clusters: its own, then by quantised similarity, ties to the lower number."""
    others = sorted((k for k in similarity if k != own), key=lambda k: (-similarity[k], k))
    return [own, *others][:count]


class Reaching:
    """What each row may be compared with, over all rows of a problem (those of earlier runs first).

    Parameters
    ----------
    x16 : (n, d) float16
    labels : (n,) each row's cluster
    centroids : cluster -> (d,) float16. Ruling: all centroids that are given count, also those of clusters without
        a valid row, so that whether two rows are comparable depends on them and on the centroids only.
    reach, clusters : the options `reach` and `reach_clusters`
    """

    def __init__(
        self, x16: Array, labels: Array, centroids: Mapping[int, Array], reach: Reach = "auto", clusters: int = 16
    ) -> None:
        self.labels, self.reach, self.d = labels, reach, x16.shape[1]
        numbers = sorted(int(k) for k in centroids)
        self.column = {k: c for c, k in enumerate(numbers)}
        near = quantised(cosine_matrix(x16, np.stack([centroids[k] for k in numbers])))  # (n, k)
        self.gap = np.zeros(near.shape, dtype=np.int64)
        self.among = np.zeros(near.shape, dtype=bool)
        for i, own in enumerate(labels.tolist()):
            self.gap[i] = near[i, self.column[own]] - near[i]
            for k in nearest_clusters(own, dict(zip(numbers, near[i].tolist(), strict=True)), clusters):
                self.among[i, self.column[k]] = True

    def reaches(self, e: Array) -> Array:
        """Return which row reaches which cluster (n, k), each row at its own e (n,).

        Ruling: with labels that were given a gap may be below 0, and then it reaches at every reach but 0.
        """
        if self.reach == 0:
            return np.zeros(self.gap.shape, dtype=bool)
        limit = np.array([rho(int(own), self.d, self.reach) for own in e])
        return np.asarray(self.among & (self.gap <= limit[:, None]))

    def comparable(self, e: Array) -> Array:
        """Return which rows are comparable (n, n), each row at its own e (n,); a row is so with itself."""
        columns = [self.column[k] for k in self.labels.tolist()]
        to = self.reaches(e)[:, columns]  # row i reaches the cluster of row j
        return np.asarray((self.labels[:, None] == self.labels) | to | to.T)


def group_by_value(values: Sequence[Any]) -> list[Hashable]:
    """Return each value as the group it belongs to: missing ones (None, NaN) have one of their own."""
    missing = ("missing",)
    return [missing if v is None or (isinstance(v, float) and math.isnan(v)) else ("value", v) for v in values]


def same_value(values: Sequence[Any]) -> Array:
    """Return which rows have equal values (n, n) bool."""
    numbers: dict[Hashable, int] = {}
    groups = np.array([numbers.setdefault(g, len(numbers)) for g in group_by_value(values)], dtype=np.int64)
    return np.asarray(groups[:, None] == groups)


def row_hash(row: int, seed: int) -> int:
    """Return h(row, seed) of docs/rules.md, from 0 to 2^63 - 1."""
    whole = 2**64 - 1
    golden = 0x9E3779B97F4A7C15
    z = (row + seed * golden) & whole
    for _ in range(2):
        z = (z + golden) & whole
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & whole
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & whole
        z ^= z >> 31
    return z >> 1
