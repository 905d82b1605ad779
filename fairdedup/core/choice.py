"""Choose the kept member of each neighbourhood by a rule's preference, in one compiled loop for all rules."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.compiled import njit
from fairdedup.core.leader_sweep import Neighbourhoods
from fairdedup.core.rules.base import Preference
from fairdedup.core.similarity import Vectors


class Scratch(NamedTuple):
    """Working memory of `choose_one`.

    Attributes
    ----------
    mean : ndarray of shape (d,), float64
        Mean vector of the members.
    likeness : ndarray, int64
        Likeness of each member to the mean; at least as long as the largest neighbourhood.
    """

    mean: NDArray[np.float64]
    likeness: NDArray[np.int64]


@njit
def _measure_likeness(members, x, scratch):  # type: ignore[no-untyped-def]
    """Fill the scratch with the quantised product of each member with the members' mean vector.

    The sum of the members is exact. The product is accumulated in one fixed order (no fastmath here), and is exact
    while a neighbourhood has fewer than 32 members.
    """
    m, d = members.shape[0], x.shape[1]
    mean, likeness = scratch
    for j in range(d):
        mean[j] = 0.0
    for k in range(m):
        for j in range(d):
            mean[j] += np.float64(x[members[k], j])
    for k in range(m):
        total = 0.0
        for j in range(d):
            total += np.float64(x[members[k], j]) * mean[j]
        likeness[k] = np.int64(np.rint(total * 1_000_000.0 / m))


@njit
def choose_one(members, rows, x, preference, sums, scratch):  # type: ignore[no-untyped-def]
    """Return the index in members of the row that is kept, and add its similarities to the sums."""
    concept = -1
    for c in range(sums.shape[0]):
        if concept < 0 or sums[c] < sums[concept]:
            concept = c
    price, likeness_weight, similarity = preference.price, preference.likeness_weight, preference.similarity
    likeness = scratch.likeness
    weighs_likeness = likeness_weight != 0 and members.shape[0] > 1
    if weighs_likeness:
        _measure_likeness(members, x, scratch)
    best, best_value = 0, np.int64(0)
    for k in range(members.shape[0]):
        j = members[k]
        value = price[j]
        if weighs_likeness:
            value += likeness_weight * likeness[k]
        if concept >= 0:
            value += similarity[j, concept]
        if k == 0 or value > best_value or (value == best_value and rows[j] < rows[members[best]]):
            best, best_value = k, value
    kept = members[best]
    for c in range(sums.shape[0]):
        sums[c] += similarity[kept, c]
    return best


@njit
def _choose_all(starts, members, rows, x, preference, sums, scratch, kept):  # type: ignore[no-untyped-def]
    for s in range(starts.shape[0] - 1):
        group = members[starts[s] : starts[s + 1]]
        kept[s] = group[choose_one(group, rows, x, preference, sums, scratch)]


def choose(
    neighbourhoods: Neighbourhoods, preference: Preference, vectors: Vectors, rows: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Choose the kept member of every neighbourhood, in the order of the sweep.

    Parameters
    ----------
    neighbourhoods : Neighbourhoods of s steps
        Steps of the sweep.
    preference : Preference
        Preference of the rule.
    vectors : Vectors of n rows
        Vectors in visiting order.
    rows : ndarray of shape (n,), int64
        Rows in visiting order.

    Returns
    -------
    kept : ndarray of shape (s,), int32
        Kept row of each step, as a place in the visiting order.
    """
    starts = neighbourhoods.starts
    largest = int(np.diff(starts).max(initial=0))
    scratch = Scratch(np.empty(vectors.x.shape[1]), np.empty(largest, np.int64))
    kept = np.empty(len(neighbourhoods.leaders), np.int32)
    _choose_all(starts, neighbourhoods.members, rows, vectors.x, preference, preference.sums.copy(), scratch, kept)
    return kept
