"""From a fraction to eps and back to an exact count: the search, the re-admission and the reserved seats.

Counts fall with eps, though not strictly, so the search keeps a bracket: more than K at its low end, at most K at
its high end. It is deterministic: the same data, rule and seed look at the same values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.compiled import njit
from fairdedup.core.leader_sweep import MAX_WINDOW
from fairdedup.core.moments import MembershipMoments, at_centre, centred, weights
from fairdedup.core.similarity import EPS_UNIT, MAX_EPS, QUANTUM, quantised
from fairdedup.errors import UserError

COVERAGE_WEIGHT = 40  # of 1 - similarity to the representative, against the price of a seat
FIRST_REACH = 31  # ten-thousandths to either side of a guess that the first pass looks at


def kept_target(fraction: float, valid: int) -> int:
    """Return K = floor(F N + 0.5), the number of samples to keep.

    Raises
    ------
    UserError
        If the fraction is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise UserError(f"keep {fraction:g} is not a fraction: give a number above 0 and up to 1, as in --keep 0.5")
    return math.floor(float(fraction) * valid + 0.5)


def swept_target(target: int, valid: int, reserve: float, least: int) -> int:
    """Return how many of K samples the sweep is to keep: the seats of `balanced` are held back, never below `least`."""
    return target if target >= valid or not reserve else max(least, math.floor(target * (1 - reserve) + 0.5))


def smallest_fraction(least: int, valid: int) -> float:
    """Return the least fraction, to 6 decimals, that keeps so many rows: one of every cluster, and all protected."""
    steps = math.ceil((least - 0.5) / valid * 1e6)
    while kept_target(steps / 1e6, valid) < least:
        steps += 1
    return steps / 1e6


def check_target(fraction: float, valid: int, clusters: int, protected: int = 0) -> None:
    """Refuse a fraction that is below what any eps leaves.

    Parameters
    ----------
    fraction : float
    valid : int
    clusters : int
        Those without a protected row; 0 for a rule that does not sweep.
    protected : int

    Raises
    ------
    UserError
        Naming the smallest fraction that works.
    """
    target, least = kept_target(fraction, valid), max(1, clusters + protected)
    if target >= least:
        return
    what, mend = f"keep {fraction:g} of {valid} rows is", f"keep at least {smallest_fraction(least, valid):g}"
    if protected:
        one_each = f" and one for each of the {clusters} clusters without any" if clusters else ""
        raise UserError(f"{what} {target}, fewer than the {protected} rows always kept{one_each}: {mend}")
    if clusters:
        raise UserError(
            f"{what} {target}, fewer than one for each of {clusters} clusters: {mend} or use fewer clusters"
        )
    raise UserError(f"{what} none: {mend}")


def spaced(first: int, last: int) -> list[int]:
    """Return up to 64 integers spread evenly over first..last, both included."""
    return sorted({int(v) for v in np.linspace(first, last, min(MAX_WINDOW, last - first + 1)).round()})


def find_eps(
    counts: Callable[[list[int]], Sequence[int]],
    target: int,
    guess: int | None = None,
    reach: int = FIRST_REACH,
    tolerance: int = 1,
) -> int:
    """Find an eps with count(eps) <= K < count(eps - 1 ten-thousandth).

    Parameters
    ----------
    counts : callable
        Kept counts at up to 64 ascending values of eps, in ten-thousandths.
    target : int
        K, with number of clusters <= K < number of rows.
    guess : int, optional
        Where to look first.
    reach : int
        How far from the guess the first pass looks.
    tolerance : int
        Width of the bracket to stop at; above 1 the result is near such an eps.

    Returns
    -------
    eps : int
        Ten-thousandths: the high end of the bracket.
    """
    growth = 1
    low, high = 0, MAX_EPS  # all rows are kept at 0, one of each cluster at MAX_EPS
    while high - low > tolerance:
        first, last = low + 1, high - 1
        if guess is not None:
            middle = min(max(guess, first), last)
            first, last = max(first, middle - reach), min(last, middle + reach)
        values = spaced(first, last)
        found = counts(values)
        fits = next((k for k, count in enumerate(found) if count <= target), None)
        if fits is None:
            low = values[-1]
        else:
            high = values[fits]
            low = values[fits - 1] if fits else low
        if guess is not None:
            guess = _next_guess(values, found, target) if fits in (None, 0) else None
            reach *= growth
            growth = 4  # the slope led astray once: look further
    return high


def _next_guess(values: list[int], found: Sequence[int], target: int) -> int | None:
    """Follow the slope of the counts out of a window that does not hold the target; None where it is level."""
    fall = found[0] - found[-1]
    if fall <= 0:
        return None
    k = 0 if found[0] <= target else -1
    return round(values[k] + (found[k] - target) * (values[-1] - values[0]) / fall)


def smallest_eps(counts: Callable[[list[int]], Sequence[int]], most: int, first: int) -> int:
    """Return the smallest eps from `first` on that keeps at most so many rows; the largest eps of all has to.

    Parameters
    ----------
    counts : callable
        Kept counts at up to 64 ascending values of eps, in ten-thousandths.
    most : int
    first : int
        Most often the answer, so it is looked at alone.
    """
    values = [first]
    while True:
        for e, kept in zip(values, counts(values), strict=True):
            if kept <= most:
                return e
        values = list(range(values[-1] + 1, min(values[-1] + MAX_WINDOW, MAX_EPS) + 1))


def parse_eps(eps: float) -> int:
    """Return eps as an integer number of ten-thousandths.

    Raises
    ------
    UserError
        If it is none, or outside 0 to 2.0001.
    """
    units = round(eps * EPS_UNIT) if math.isfinite(eps) else -1
    if not 0 <= units <= MAX_EPS:
        raise UserError(f"eps {eps:g} is out of range: give 0 (removes nothing) to 2, as in --eps 0.05")
    if abs(units / EPS_UNIT - eps) > 1e-9:
        raise UserError(f"eps {eps:g} is not a whole number of ten-thousandths: give {units / EPS_UNIT:g}")
    return units


def readmit(rows: NDArray[np.int64], similarity: NDArray[np.float64], number: int) -> NDArray[np.int64]:
    """Return the removed rows to re-admit: least similar to their representative first, then lowest row.

    Parameters
    ----------
    rows : ndarray of shape (r,), int64
        The removed rows.
    similarity : ndarray of shape (r,), float64
        To their representatives.
    number : int
    """
    return rows[np.lexsort((rows, quantised(similarity)))[:number]]


def fill_seats(
    rows: NDArray[np.int64],
    similarity: NDArray[np.float64],
    memberships: list[NDArray[np.int64]],
    kept_sums: list[tuple[int, ...]],
    targets: Sequence[Sequence[Fraction]],
    moments: Sequence[MembershipMoments],
    seats: int,
) -> NDArray[np.int64]:
    """Give the reserved seats of `balanced` to removed rows of all clusters.

    A row's claim is price' + 40 (1 - similarity to its representative), quantised; ties go to the lowest row. The
    shares that the price rests on are renewed after every 1 % of the seats.

    Parameters
    ----------
    rows : ndarray of shape (r,), int64
        The removed rows.
    similarity : ndarray of shape (r,), float64
        To their representatives.
    memberships : list of ndarray of shape (r, c), int64
        In units of 1e-9, an entry for each attribute.
    kept_sums : list of tuple of int
        Memberships of the samples kept so far, per attribute.
    targets : sequence of sequence of Fraction
        Target shares of each attribute.
    moments : sequence of MembershipMoments
        Of each attribute over the data set: they give the spread at the first seat.
    seats : int

    Returns
    -------
    admitted : ndarray of shape (seats,), int64
    """
    batch = max(1, seats // 100)
    sums = [list(s) for s in kept_sums]
    stds = [m.term(weights(t, s)).std for m, t, s in zip(moments, targets, sums, strict=True)]
    differences = np.concatenate([centred(q, m.centre) for q, m in zip(memberships, moments, strict=True)], axis=1)
    bounds = np.cumsum([0] + [q.shape[1] for q in memberships])
    coverage = COVERAGE_WEIGHT * (1.0 - similarity)
    waiting = np.arange(len(rows))
    admitted: list[NDArray[np.int64]] = []
    left = min(seats, len(rows))
    while left:
        common, each = Fraction(0), np.zeros(bounds[-1])
        for k, (m, t, s, std) in enumerate(zip(moments, targets, sums, stds, strict=True)):
            if std > 0:
                now = weights(t, s)
                common += at_centre(now, m.centre) / Fraction(std)
                each[bounds[k] : bounds[k + 1]] = [float(weight) for weight in now]
        # The claim is common + own. Common is exact and the same for all: an even number of quanta of it is left
        # out, so that rounding the rest to the nearest, halves to even, is rounding the whole.
        quanta = common * QUANTUM
        rest = float(quanta - 2 * (quanta // 2))
        claim = _claims(waiting, coverage, differences, bounds, each, np.array(stds), rest)
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


@njit
def _claims(waiting, coverage, differences, bounds, weights, stds, rest):  # type: ignore[no-untyped-def]
    """Return the claim of each waiting row, less what is common to all; sums in one order, as `from_centre` adds."""
    out = np.empty(waiting.shape[0], np.int64)
    for k in range(waiting.shape[0]):
        i = waiting[k]
        own = coverage[i]
        for a in range(stds.shape[0]):
            if stds[a] > 0.0:
                total = 0.0
                for c in range(bounds[a], bounds[a + 1]):
                    total += differences[i, c] * weights[c]
                own += total / stds[a]
        out[k] = np.int64(np.rint(own * 1_000_000.0 + rest))
    return out
