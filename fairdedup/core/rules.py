"""Who of a neighbourhood is kept: the rules of SemDeDup, FairDeDup and ours, each a small object with one method.

SemDeDup: Abbas et al. 2023, section 3. FairDeDup: Slyman et al. 2024, Algorithm 1. A rule states a preference over
the rows of a cluster; one compiled loop turns preferences into choices, so that no rule sweeps differently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.compiled import njit
from fairdedup.core.leader_sweep import Neighbourhoods
from fairdedup.core.similarity import Vectors

SWEEPING = ("semdedup", "fairdedup", "balanced", "prefer", "random-neighbour")
RULES = (*SWEEPING, "semdedup-chain", "random")
NEEDS_PROTOTYPES = ("fairdedup", "balanced")
LIKENESS_WEIGHT = 60  # of h, the likeness to a neighbourhood's mean, against the price


@dataclass(frozen=True)
class Preference:
    """What a rule wants of the rows of one cluster, in visiting order.

    Of a neighbourhood the member with the largest
    ``price + likeness_weight * h + similarity[:, argmin(sums)]`` is kept, ties to the lowest row.

    Attributes
    ----------
    price : ndarray of shape (n,), int64
    likeness_weight : int
        Weight of h, the quantised product with the mean of the members' vectors.
    similarity : ndarray of shape (n, c), int64
        Quantised similarity to each concept; c = 0 for a rule without concepts.
    sums : ndarray of shape (c,), int64
        What each concept's sum over the kept samples starts from.
    """

    price: NDArray[np.int64]
    likeness_weight: int
    similarity: NDArray[np.int64]
    sums: NDArray[np.int64]


class Rule(Protocol):
    """Chooses who stands for a neighbourhood."""

    def preference(self, rows: NDArray[np.int64]) -> Preference:
        """Return the preference over the rows (n,) of a cluster, given in visiting order."""
        ...


def _no_concepts(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.zeros((n, 0), np.int64), np.zeros(0, np.int64)


@dataclass(frozen=True)
class SemDeDup:
    """Keep the leader: the member farthest from the centroid (Abbas et al. 2023, section 3)."""

    def preference(self, rows: NDArray[np.int64]) -> Preference:
        """Prefer whoever comes first in the visiting order."""
        return Preference(-np.arange(len(rows)), 0, *_no_concepts(len(rows)))


@dataclass(frozen=True)
class RandomNeighbour:
    """Keep one seeded member of each neighbourhood: a baseline."""

    seed: int

    def preference(self, rows: NDArray[np.int64]) -> Preference:
        """Prefer by a hash of seed and row, which no partition of the data changes."""
        return Preference(row_hash(rows, self.seed), 0, *_no_concepts(len(rows)))


@dataclass(frozen=True)
class FairDeDup:
    """Keep the member most similar to the concept least represented so far (Slyman et al. 2024, Algorithm 1).

    Attributes
    ----------
    similarity : ndarray of shape (n, c), int64
        Quantised similarity of the cluster's rows, in visiting order, to each concept.
    start : {"cluster", "zero"}
        Start each concept's sum from the cluster's mean similarity, or from zero.
    """

    similarity: NDArray[np.int64]
    start: str = "cluster"

    def preference(self, rows: NDArray[np.int64]) -> Preference:
        """Prefer by the similarity to whichever concept has the lowest sum at that step."""
        n, concepts = self.similarity.shape
        sums = np.zeros(concepts, np.int64)
        if self.start == "cluster" and n:
            # The sum is exact in int64 and in float64, so the quotient is rounded once.
            sums = np.rint(self.similarity.sum(axis=0) / n).astype(np.int64)
        return Preference(np.zeros(n, np.int64), 0, self.similarity, sums)


@dataclass(frozen=True)
class Balanced:
    """Keep the member with the largest price + 60 h: rare by the data set's shares, yet like its neighbourhood.

    Attributes
    ----------
    price : ndarray of shape (n,), int64
        Quantised price of the cluster's rows, in visiting order.
    """

    price: NDArray[np.int64]

    def preference(self, rows: NDArray[np.int64]) -> Preference:
        """Prefer by price and by likeness to the members' mean."""
        return Preference(self.price, LIKENESS_WEIGHT, *_no_concepts(len(rows)))


@dataclass(frozen=True)
class Prefer:
    """Keep the member with the highest value of a column of the user's: quality, resolution, a score.

    Attributes
    ----------
    values : ndarray of shape (n,), int64
        Of the cluster's rows, in visiting order, as `ordered` gives them.
    """

    values: NDArray[np.int64]

    def preference(self, rows: NDArray[np.int64]) -> Preference:
        """Prefer the highest value."""
        return Preference(self.values, 0, *_no_concepts(len(rows)))


def ordered(values: NDArray[Any], missing: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """Return integers in the order of numbers: greater where these are, equal where these are, the missing last.

    Parameters
    ----------
    values : ndarray of shape (n,), of integers or floats
        NaN is missing; integers beyond 2**63 - 1, up or down, count as that.
    missing : ndarray of shape (n,), bool, optional

    Returns
    -------
    order : ndarray of shape (n,), int64
    """
    most = np.iinfo(np.int64).max
    if values.dtype.kind == "u":
        order = np.minimum(values.astype(np.uint64), np.uint64(most)).astype(np.int64)
    elif values.dtype.kind == "i":
        order = np.maximum(values.astype(np.int64), -most)
    else:
        floats = values.astype(np.float64) + 0.0  # -0 becomes 0
        bits = floats.view(np.int64)
        order = np.where(np.isnan(floats), -most - 1, np.where(bits < 0, bits ^ most, bits))
    if missing is not None:
        order[missing] = -most - 1
    return order


def row_hash(rows: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return a pseudo-random int64 >= 0 for each row: splitmix64 of seed and row (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        z = rows.astype(np.uint64) + np.uint64(seed % 2**64) * np.uint64(0x9E3779B97F4A7C15)
        for _ in range(2):
            z = z + np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(1)).astype(np.int64)


@njit
def _likeness(members, x, mean, out):  # type: ignore[no-untyped-def]
    """Fill out[k] with the quantised product of members[k] with the members' mean vector.

    The sum of the members is exact. The product is accumulated in one fixed order (no fastmath here), and is exact
    while a neighbourhood has fewer than 32 members.
    """
    m, d = members.shape[0], x.shape[1]
    for j in range(d):
        mean[j] = 0.0
    for k in range(m):
        for j in range(d):
            mean[j] += np.float64(x[members[k], j])
    for k in range(m):
        total = 0.0
        for j in range(d):
            total += np.float64(x[members[k], j]) * mean[j]
        out[k] = np.int64(np.rint(total * 1_000_000.0 / m))


@njit
def choose_one(members, rows, x, price, weight, similarity, sums, mean, likeness):  # type: ignore[no-untyped-def]
    """Return which entry of members is kept, and add its similarities to the sums."""
    concept = -1
    for c in range(sums.shape[0]):
        if concept < 0 or sums[c] < sums[concept]:
            concept = c
    if weight != 0 and members.shape[0] > 1:
        _likeness(members, x, mean, likeness)
    best, best_value = 0, np.int64(0)
    for k in range(members.shape[0]):
        j = members[k]
        value = price[j]
        if weight != 0 and members.shape[0] > 1:
            value += weight * likeness[k]
        if concept >= 0:
            value += similarity[j, concept]
        if k == 0 or value > best_value or (value == best_value and rows[j] < rows[members[best]]):
            best, best_value = k, value
    kept = members[best]
    for c in range(sums.shape[0]):
        sums[c] += similarity[kept, c]
    return best


@njit
def _choose_all(starts, members, rows, x, price, weight, similarity, sums, kept):  # type: ignore[no-untyped-def]
    largest = 0
    for s in range(starts.shape[0] - 1):
        largest = max(largest, starts[s + 1] - starts[s])
    mean = np.empty(x.shape[1], np.float64)
    likeness = np.empty(largest, np.int64)
    for s in range(starts.shape[0] - 1):
        group = members[starts[s] : starts[s + 1]]
        kept[s] = group[choose_one(group, rows, x, price, weight, similarity, sums, mean, likeness)]


def choose(
    neighbourhoods: Neighbourhoods, preference: Preference, vectors: Vectors, rows: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Choose the kept member of every neighbourhood, in the order of the sweep.

    Parameters
    ----------
    neighbourhoods : Neighbourhoods of s steps
    preference : Preference
    vectors : Vectors of n rows, in visiting order
    rows : ndarray of shape (n,), int64, in visiting order

    Returns
    -------
    kept : ndarray of shape (s,), int32
        Places in the visiting order.
    """
    kept = np.empty(len(neighbourhoods.leaders), np.int32)
    _choose_all(
        neighbourhoods.starts, neighbourhoods.members, rows, vectors.x, preference.price, preference.likeness_weight,
        preference.similarity, preference.sums.copy(), kept,
    )  # fmt: skip
    return kept
