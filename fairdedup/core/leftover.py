"""The leftover: how many of a sample of kept rows still have a kept duplicate, and in which cluster that lies.

The sample is compared exactly with all kept rows, a block at a time. So the result of any decision is measured, also
what a published method leaves across clusters. Nothing here decides a row, and no matrix of all pairs is in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.cross_links import iterate_pairs
from fairdedup.core.row_hash import row_hash
from fairdedup.core.similarity import BLOCK
from fairdedup.errors import UserError

SIZE = 1000  # rows that are looked up unless the user says otherwise
LARGEST = 100_000
KINDS = ("own", "comparable", "elsewhere")  # columns of what `find_duplicates` returns
CONFIDENCE = 0.95
ALL_HASHES = 2**63 - 1
_ROWS = 1 << 10  # rows of the sample that are widened at a time
_OWN, _COMPARABLE, _ELSEWHERE = range(len(KINDS))
ReachOf = Callable[[NDArray[np.int64]], NDArray[np.integer]]  # places (m,) -> clusters that the rows reach (m, r)


def check_size(size: int) -> None:
    """Refuse a size of the sample that is out of range.

    Parameters
    ----------
    size : int
        Number of kept rows to look up.

    Raises
    ------
    UserError
        If it is negative or above 100,000.
    """
    if not 0 <= size <= LARGEST:
        raise UserError(f"`leftover` must be 0 (off) to {LARGEST}; got {size}: give 1000, or 0 to look up nothing")


@dataclass(frozen=True)
class Leftover:
    """How many of a sample of kept rows still have a kept duplicate. Re-admitted rows count on neither side.

    Attributes
    ----------
    looked_up : int
        Rows of the sample.
    among : int
        Kept rows that each was compared with, itself included; those that earlier runs kept too.
    own, comparable, elsewhere : int
        Rows of the sample with a kept duplicate in their own cluster, in a comparable one, and in any other one. A row
        may have duplicates of several kinds.
    any : int
        Rows of the sample with a kept duplicate.
    """

    looked_up: int
    among: int
    own: int
    comparable: int
    elsewhere: int
    any: int

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % interval of the share of all kept rows that have a duplicate of each kind, and of any kind."""
        counts = {**{kind: getattr(self, kind) for kind in KINDS}, "any": self.any}
        return {kind: find_interval(count, self.looked_up) for kind, count in counts.items()}


def find_interval(found: int, looked_up: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the Clopper-Pearson interval of a share, with half of the rest in each tail.

    Parameters
    ----------
    found, looked_up : int
        Rows of the sample that have a property, and all rows of the sample.
    confidence : float
        Level of the interval.

    Returns
    -------
    (float, float)
        0 and 1 are the ends where none and where all are found.

    References
    ----------
    Clopper and Pearson 1934, The use of confidence or fiducial limits illustrated in the case of the binomial.
    """
    tail, missed = (1 - confidence) / 2, looked_up - found
    if not looked_up:
        return 0.0, 1.0
    if not (found and missed):  # the usual case, in closed form: scipy takes long to load
        far = -math.expm1(math.log(tail) / looked_up)
        return (1 - far, 1.0) if found else (0.0, far)
    from scipy.special import betaincinv

    low = float(betaincinv(found, missed + 1, tail))
    high = float(betaincinv(found + 1, missed, 1 - tail))
    return low, high


def hash_for_sample(rows: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return the hashes by which rows are drawn (n,): of another seed than the rules', one of which keeps by hash."""
    return row_hash(rows, seed + 1)


def choose_sample(rows: NDArray[np.int64], size: int, seed: int) -> NDArray[np.int64]:
    """Return the places of the rows to look up: those with the lowest `hash_for_sample`, ties to the lowest row.

    The choices of several parts, joined and chosen from again, are the choice from all rows.

    Parameters
    ----------
    rows : ndarray of shape (n,), int64
        Kept rows, as positions in the input.
    size : int
        Largest number of rows to choose.
    seed : int
        Seed of the run.

    Returns
    -------
    ndarray of shape (min(size, n),), int64, ascending
    """
    return np.sort(np.lexsort((rows, hash_for_sample(rows, seed)))[:size]).astype(np.int64)


def bound_hashes(size: int, kept: int) -> int:
    """Return a hash that at least `size` of the kept rows do not exceed, but for a chance below 10^-12.

    Parameters
    ----------
    size : int
        Size of the sample.
    kept : int
        Number of kept rows.
    """
    wanted = size + 8 * math.isqrt(size) + 64  # 8 standard deviations more
    return ALL_HASHES if wanted >= kept else ALL_HASHES // kept * wanted


class KeptRows(NamedTuple):
    """Kept rows.

    Attributes
    ----------
    rows : ndarray of shape (n,), int64
        Positions in the input; -1 for samples of earlier runs.
    unit : ndarray of shape (n, d), float16
        Unit vectors.
    clusters : ndarray of shape (n,), int64
        Numbers of their clusters.
    within : ndarray of shape (n,), int64, or None
        Codes of the values within which rows are compared.
    """

    rows: NDArray[np.int64]
    unit: NDArray[np.float16]
    clusters: NDArray[np.int64]
    within: NDArray[np.int64] | None = None

    def take(self, places: NDArray[np.int64] | slice) -> KeptRows:
        """Return the rows at these places."""
        within = None if self.within is None else self.within[places]
        return KeptRows(self.rows[places], self.unit[places], self.clusters[places], within)


class Sample(NamedTuple):
    """Kept rows that are looked up.

    Attributes
    ----------
    kept : KeptRows of s rows
    reached : ndarray of shape (s, r), int
        Numbers of the other clusters that each of them reaches, -1 in empty places; r is 0 if rows are never compared
        across clusters.
    """

    kept: KeptRows
    reached: NDArray[np.integer]


def find_duplicates(sample: Sample, kept: KeptRows, reach_of: ReachOf, eps: int) -> NDArray[np.bool_]:
    """Tell which rows of the sample have a duplicate of each kind among some kept rows.

    Parameters
    ----------
    sample : Sample of s rows
    kept : KeptRows of n rows
    reach_of : callable
        Returns the numbers of the clusters that kept rows reach, as `Sample.reached`, given their places in `kept`. It
        is called where that decides, and never if `sample.reached` has no column.
    eps : int
        Ten-thousandths.

    Returns
    -------
    ndarray of shape (s, 3), bool
        One column for each of `KINDS`.
    """
    found = np.zeros((len(sample.kept.rows), len(KINDS)), np.bool_)
    for first in range(0, len(kept.rows), BLOCK):
        block = kept.take(slice(first, first + BLOCK))
        for start in range(0, len(found), _ROWS):
            own = slice(start, start + _ROWS)
            queries = Sample(sample.kept.take(own), sample.reached[own])
            _compare(queries, block, reach_from(reach_of, first), eps, found[own])
    return found


def reach_from(reach_of: ReachOf, first: int) -> ReachOf:
    """Return the function that takes places among the rows from `first` on."""
    return lambda places: reach_of(first + places)


def _compare(sample: Sample, kept: KeptRows, reach_of: ReachOf, eps: int, found: NDArray[np.bool_]) -> None:
    """Mark the rows of a sample (s, 3) that have a duplicate among some kept rows."""
    for a, b, _ in iterate_pairs(sample.kept.unit, kept.unit, eps, (sample.kept.within, kept.within)):
        _mark_kinds(sample, kept, reach_of, (a, b), found)


def _mark_kinds(
    sample: Sample, kept: KeptRows, reach_of: ReachOf, pairs: tuple[Any, Any], found: NDArray[np.bool_]
) -> None:
    """Mark what kind of duplicates some pairs are: places in the sample, and among the kept rows."""
    a, b = pairs
    others = kept.rows[b] != sample.kept.rows[a]
    a, b = a[others], b[others]
    mine, theirs = sample.kept.clusters[a], kept.clusters[b]
    own = mine == theirs
    found[a[own], _OWN] = True
    open_ = ~own & ~(found[a, _COMPARABLE] & found[a, _ELSEWHERE])
    a, b, mine, theirs = a[open_], b[open_], mine[open_], theirs[open_]
    if not sample.reached.shape[1]:
        found[a, _ELSEWHERE] = True
        return
    comparable = (sample.reached[a] == theirs[:, None]).any(axis=1)
    left = np.flatnonzero(~comparable)
    if len(left):
        places, which = np.unique(b[left], return_inverse=True)
        comparable[left] = (reach_of(places)[which] == mine[left, None]).any(axis=1)
    found[a[comparable], _COMPARABLE] = True
    found[a[~comparable], _ELSEWHERE] = True


def count_leftover(found: NDArray[np.bool_], among: int) -> Leftover:
    """Return the counts of what `find_duplicates` has found.

    Parameters
    ----------
    found : ndarray of shape (s, 3), bool
        All that was found.
    among : int
        Number of kept rows that the sample was compared with.
    """
    own, comparable, elsewhere = map(int, found.sum(axis=0))
    return Leftover(len(found), among, own, comparable, elsewhere, int(found.any(axis=1).sum()))
