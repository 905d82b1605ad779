"""How little memberships say: of a whole attribute, and of single rows, so that the rows worth a label can be chosen.

Least confidence, margin and entropy are those of active learning (Settles 2009, section 3.1); no label is known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.moments import MembershipMoments

SAYS_LITTLE = Fraction(3, 2)
SCORE_UNIT = 1_000_000


def says_nothing(moments: MembershipMoments) -> bool:
    """Tell whether the memberships of an attribute are uninformative.

    They are if the mean largest membership, of what is not absent, is under 1.5 / c for c concepts: 1 / c is what a
    softmax gives that sees no difference. One concept alone has nothing to tell apart.

    Parameters
    ----------
    moments : MembershipMoments
        Of the attribute over the data set.
    """
    concepts = len(moments.sums)
    return concepts > 1 and moments.mean_largest < SAYS_LITTLE / concepts


def uncertainty(memberships: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return how much a label would say of each row that its memberships do not.

    Of each attribute with two or more concepts, p being the memberships divided by their sum: the mean of least
    confidence (1 - largest p) c / (c - 1), margin 1 - (largest - second p), and entropy / ln c, times the sum of the
    memberships (what is absent needs no label). The score is the mean over these attributes.

    Parameters
    ----------
    memberships : sequence of ndarray of shape (n, c), int64
        Of each attribute, in units of 1e-9.

    Returns
    -------
    ndarray of shape (n,), int64
        0 to 1,000,000.
    """
    told = [q for q in memberships if q.shape[1] > 1]
    total = np.zeros(len(memberships[0]))
    for q in told:
        present = q.sum(axis=1)
        p = q / np.maximum(present, 1)[:, None]
        largest = np.sort(p, axis=1)[:, ::-1]
        concepts = p.shape[1]
        least = (1 - largest[:, 0]) * concepts / (concepts - 1)
        margin = 1 - (largest[:, 0] - largest[:, 1])
        entropy = -(p * np.log(np.where(p > 0, p, 1))).sum(axis=1) / np.log(concepts)
        total += (least + margin + entropy) / 3 * np.minimum(present / 1e9, 1)
    return np.rint(total / max(1, len(told)) * SCORE_UNIT).clip(0, SCORE_UNIT).astype(np.int64)


def spread(mass: NDArray[np.int64], rows: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """Share a number of rows among clusters by their mass, by largest remainders; none gives more than it has.

    Parameters
    ----------
    mass : ndarray of shape (k,), int64
        Sum of the uncertainty of each cluster's rows.
    rows : ndarray of shape (k,), int64
        Rows that each may give.
    number : int

    Returns
    -------
    ndarray of shape (k,), int64
        Adds up to `number`, or to all rows of a mass above 0 where these are fewer.
    """
    room = np.where(mass > 0, rows, 0)
    given = np.zeros(len(mass), np.int64)
    left = min(number, int(room.sum()))
    while left:  # what a full cluster cannot give goes to the others
        some = np.flatnonzero(given < room)
        held = mass[some].tolist()
        total = sum(held)
        quotas = [divmod(m * left, total) for m in held]  # exact
        whole = np.array([q for q, _ in quotas], np.int64)
        largest_first = sorted(range(len(some)), key=lambda k: (-quotas[k][1], k))
        whole[largest_first[: left - int(whole.sum())]] += 1
        given[some] += np.minimum(whole, room[some] - given[some])
        left = min(number, int(room.sum())) - int(given.sum())
    return given
