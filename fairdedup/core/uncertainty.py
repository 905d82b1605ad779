"""How uncertain memberships are, for a whole attribute and for each row, to choose the rows that are worth a label.

Least confidence, margin and entropy are those of active learning (Settles 2009, section 3.1). Never reads a label.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.moments import MembershipMoments

LEAST_INFORMATIVE = Fraction(3, 2)  # least mean largest membership of an informative attribute, times its concepts
SCORE_UNIT = 1_000_000  # score of the most uncertain row


def is_uninformative(moments: MembershipMoments) -> bool:
    """Tell whether the memberships of an attribute are uninformative.

    They are if the largest membership is on average under 1.5 / c for c concepts, where absent prototypes do not count:
    a softmax that sees no difference gives 1 / c. A single concept is never uninformative.

    Parameters
    ----------
    moments : MembershipMoments
        Moments of the attribute's memberships over the data set.
    """
    concepts = len(moments.sums)
    return concepts > 1 and moments.mean_largest < LEAST_INFORMATIVE / concepts


def uncertainty(memberships: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return a score for each row: how much a label would add to its memberships.

    The score is a mean over the attributes with two or more concepts. Let p be the memberships divided by their sum. An
    attribute's score is the mean of least confidence (1 - largest p) c / (c - 1), margin 1 - (largest - second p), and
    entropy / ln c, times the sum of the memberships: a row that the attribute does not apply to needs no label.

    Parameters
    ----------
    memberships : sequence of ndarray of shape (n, c), int64
        Memberships in the concepts of each attribute, in units of 1e-9.

    Returns
    -------
    ndarray of shape (n,), int64
        Scores, 0 to 1,000,000.
    """
    several = [q for q in memberships if q.shape[1] > 1]
    total = np.zeros(len(memberships[0]))
    for q in several:
        present = q.sum(axis=1)
        p = q / np.maximum(present, 1)[:, None]
        largest = np.sort(p, axis=1)[:, ::-1]
        concepts = p.shape[1]
        least = (1 - largest[:, 0]) * concepts / (concepts - 1)
        margin = 1 - (largest[:, 0] - largest[:, 1])
        entropy = -(p * np.log(np.where(p > 0, p, 1))).sum(axis=1) / np.log(concepts)
        total += (least + margin + entropy) / 3 * np.minimum(present / 1e9, 1)
    return np.rint(total / max(1, len(several)) * SCORE_UNIT).clip(0, SCORE_UNIT).astype(np.int64)


def apportion(mass: NDArray[np.int64], rows: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """Apportion a number of rows to clusters by their mass, by largest remainders; none gets more than its rows.

    Parameters
    ----------
    mass : ndarray of shape (k,), int64
        Sum of the uncertainty of each cluster's rows.
    rows : ndarray of shape (k,), int64
        Number of rows of each cluster.
    number : int
        Number of rows to apportion.

    Returns
    -------
    ndarray of shape (k,), int64
        Rows of each cluster; together `number`, or all rows of clusters with a mass above 0 if these are fewer.
    """
    room = np.where(mass > 0, rows, 0)
    given = np.zeros(len(mass), np.int64)
    left = min(number, int(room.sum()))
    while left:  # what does not fit into a full cluster goes to the others
        some = np.flatnonzero(given < room)
        masses = mass[some].tolist()
        total = sum(masses)
        quotas = [divmod(m * left, total) for m in masses]  # exact
        whole = np.array([q for q, _ in quotas], np.int64)
        largest_first = sorted(range(len(some)), key=lambda k: (-quotas[k][1], k))
        whole[largest_first[: left - int(whole.sum())]] += 1
        given[some] += np.minimum(whole, room[some] - given[some])
        left = min(number, int(room.sum())) - int(given.sum())
    return given
