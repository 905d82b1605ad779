"""The reserved seats of `balanced`: removed rows of all clusters that are re-admitted because they are rare. Ours.

A row's claim is price' + 40 (1 - similarity to its representative), quantised; ties go to the lowest row. The shares
that the price depends on are updated after every 1 % of the seats. docs/rules.md has the definition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.compiled import njit
from fairdedup.core.moments import MembershipMoments, at_centre, subtract_centre, weights
from fairdedup.core.similarity import QUANTUM

COVERAGE_WEIGHT = 40  # weight of 1 - similarity to the representative, relative to the price


@dataclass(frozen=True)
class Claimants:
    """The r removed rows, which claim the seats.

    Attributes
    ----------
    rows : ndarray of shape (r,), int64
        Positions in the input.
    similarity : ndarray of shape (r,), float64
        Cosine to their representatives.
    memberships : sequence of ndarray of shape (r, c), int64
        Memberships of the rows in units of 1e-9, an entry for each attribute.
    """

    rows: NDArray[np.int64]
    similarity: NDArray[np.float64]
    memberships: Sequence[NDArray[np.int64]]

    def sum_kept(self, moments: Sequence[MembershipMoments]) -> list[list[int]]:
        """Return the sums of each attribute's memberships over the rows that are not removed.

        Parameters
        ----------
        moments : sequence of MembershipMoments
            Moments of each attribute over the data set.
        """
        return [
            [int(total) - int(removed) for total, removed in zip(m.sums, q.sum(axis=0), strict=True)]
            for m, q in zip(moments, self.memberships, strict=True)
        ]


class _Claims(NamedTuple):
    """Values from which the claims of all rows are computed.

    Attributes
    ----------
    coverage : ndarray of shape (r,), float64
        The part of each claim that never changes.
    differences : ndarray of shape (r, c), float64
        Memberships in the concepts of all attributes, minus a centre near their mean.
    bounds : ndarray of shape (a + 1,), int64
        Where the concepts of each attribute begin.
    stds : ndarray of shape (a,), float64
        Standard deviation of each attribute's price at the first seat; may be 0.
    """

    coverage: NDArray[np.float64]
    differences: NDArray[np.float64]
    bounds: NDArray[np.int64]
    stds: NDArray[np.float64]


def fill_seats(
    claimants: Claimants,
    seats: int,
    *,
    targets: Sequence[Sequence[Fraction]],
    moments: Sequence[MembershipMoments],
) -> NDArray[np.int64]:
    """Give the reserved seats to removed rows of all clusters.

    Parameters
    ----------
    claimants : Claimants of r rows
        All removed rows.
    seats : int
        Number of seats; if there are at least r, all rows are seated.
    targets : sequence of sequence of Fraction
        Target shares of each attribute.
    moments : sequence of MembershipMoments
        Moments of each attribute over the data set, from which the spread at the first seat is computed.

    Returns
    -------
    admitted : ndarray of shape (min(seats, r),), int64
        Rows in the order in which they are seated.
    """
    rows, memberships = claimants.rows, claimants.memberships
    batch = max(1, seats // 100)
    sums = claimants.sum_kept(moments)
    claims = _Claims(
        coverage=COVERAGE_WEIGHT * (1.0 - claimants.similarity),
        differences=np.concatenate(
            [subtract_centre(q, m.centre) for q, m in zip(memberships, moments, strict=True)], axis=1
        ),
        bounds=np.cumsum([0] + [q.shape[1] for q in memberships]),
        stds=np.array([m.term(weights(t, s)).std for m, t, s in zip(moments, targets, sums, strict=True)]),
    )
    waiting = np.arange(len(rows))
    admitted: list[NDArray[np.int64]] = []
    left = min(seats, len(rows))
    while left:
        prices = [weights(t, s) for t, s in zip(targets, sums, strict=True)]
        claim = _find_claims(waiting, claims, prices, moments)
        number = min(batch, left)
        # Only rows at or above the number-th claim can be chosen; sort those alone.
        at_least = np.partition(claim, len(claim) - number)[len(claim) - number]
        near = np.flatnonzero(claim >= at_least)
        chosen = near[np.lexsort((rows[waiting[near]], -claim[near]))[:number]]
        for q, kept in zip(memberships, sums, strict=True):
            for c, more in enumerate(q[waiting[chosen]].sum(axis=0).tolist()):
                kept[c] += more
        admitted.append(rows[waiting[chosen]])
        waiting = np.delete(waiting, chosen)
        left -= number
    return np.concatenate(admitted) if admitted else np.empty(0, np.int64)


def _find_claims(
    waiting: NDArray[np.int64],
    claims: _Claims,
    prices: Sequence[Sequence[Fraction]],
    moments: Sequence[MembershipMoments],
) -> NDArray[np.int64]:
    """Return the claim of each waiting row, minus a constant; `prices` has a price for each concept."""
    common, each = Fraction(0), np.zeros(claims.bounds[-1])
    for k, (price, m, std) in enumerate(zip(prices, moments, claims.stds.tolist(), strict=True)):
        if std > 0:
            common += at_centre(price, m.centre) / Fraction(std)
            each[claims.bounds[k] : claims.bounds[k + 1]] = [float(weight) for weight in price]
    # A claim is common + own. Common is exact and the same for all rows. An even number of quanta is subtracted from
    # it: rounding the rest to the nearest, halves to even, then gives the same order as rounding the whole.
    quanta = common * QUANTUM
    return _add_claims(waiting, claims, each, float(quanta - 2 * (quanta // 2)))


@njit
def _add_claims(waiting, claims, weights, rest):  # type: ignore[no-untyped-def]
    """Return the claim of each waiting row, added up in the same order as by `from_centre`."""
    stds, bounds, differences = claims.stds, claims.bounds, claims.differences
    out = np.empty(waiting.shape[0], np.int64)
    for k in range(waiting.shape[0]):
        i = waiting[k]
        own = claims.coverage[i]
        for a in range(stds.shape[0]):
            if stds[a] > 0.0:
                total = 0.0
                for c in range(bounds[a], bounds[a + 1]):
                    total += differences[i, c] * weights[c]
                own += total / stds[a]
        out[k] = np.int64(np.rint(own * 1_000_000.0 + rest))
    return out
