"""Search for the eps that keeps a number of rows: over counts, and over the parts of a clustered data set.

Counts need not fall at every step of eps, so the search keeps a bracket: more than K rows are kept at its low end, at
most K at its high end. It is deterministic: the same data, rule and seed try the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from fairdedup.core.eps_steps import KeptWithin, find_eps_by_steps
from fairdedup.core.model import Plan
from fairdedup.core.part import MapParts, Part
from fairdedup.core.parts import count_kept
from fairdedup.core.rounds import AcrossClusters
from fairdedup.core.row_hash import row_hash
from fairdedup.core.similarity import MAX_EPS
from fairdedup.core.swept import count_neighbourhoods
from fairdedup.core.visits import MAX_WINDOW

FIRST_REACH = 31  # ten-thousandths that the first pass covers to either side of a guess
SAMPLE_ROWS = 4096  # least number of rows of the sample of whole clusters that gives the first guess of eps
SAMPLE_PARTS = 8
SAMPLE_REACH = 320  # ten-thousandths that the larger sample covers to either side of the small sample's eps
SAMPLE_TOLERANCE = 12  # ten-thousandths; width of the bracket that a sample stops at
SAMPLE_FROM = 8 * SAMPLE_ROWS  # below this number of rows, all clusters are as quick as a sample

Counts = Callable[[list[int]], Sequence[int]]
"""Function that returns the kept counts at up to 64 ascending values of eps, in ten-thousandths."""


def search_eps(parts: Sequence[Part], plan: Plan, target: int, valid: int, map_parts: MapParts) -> int:
    """Find the eps that keeps a number of rows: at most that many, and more at the next smaller eps.

    Parameters
    ----------
    parts : sequence of Part
        The clustered data set.
    plan : Plan
        Plan of the decision. Without `cover`, only its options are read.
    target : int
        Number of rows to keep.
    valid : int
        Number of valid rows.
    map_parts : MapParts
        Maps the passes over the parts.

    Returns
    -------
    eps : int
        Ten-thousandths.
    """
    options = plan.options
    if target >= valid:
        return 0
    if options.rule.sweeps and not options.cover:
        return _search_plain(parts, target, valid, options.seed, map_parts)
    # With cover the counts depend on the rule, but the eps of the plain sweep is near.
    guess = _search_plain(parts, target, valid, options.seed, map_parts) if options.cover else None
    return find_eps(count_over(parts, plan, map_parts), target, guess)


def search_eps_across(across: AcrossClusters, target: int, valid: int) -> int:
    """Find the eps that keeps a number of rows, where rows of different clusters are compared.

    Parameters
    ----------
    across : AcrossClusters
        The data set.
    target : int
        Number of rows to keep.
    valid : int
        Number of valid rows.

    Returns
    -------
    eps : int
        Ten-thousandths.
    """
    if target >= valid:
        return 0
    parts, seed, map_parts = across.parts, across.plan.options.seed, across.map_parts
    seen: dict[int, float] = {}
    guess = _guess(parts, target, valid, seed, map_parts, seen)
    if guess is None:  # so few rows that a pass over all of them is as good
        guess = _search_plain(parts, target, valid, seed, map_parts, seen)
    like = KeptWithin(valid, seen)
    return find_eps_by_steps(
        lambda eps: across.at(eps).count(), target, guess, like=like, estimate=lambda eps: across.at(eps).estimate()
    )


def search_eps_from(counts: Counts | AcrossClusters, most: int, first: int) -> int:
    """Find the smallest eps, from that of earlier runs on, that keeps at most a number of new rows.

    Parameters
    ----------
    counts : Counts or AcrossClusters
        What counts the kept rows, within clusters or across.
    most : int
        Largest count. `MAX_EPS` must keep no more.
    first : int
        Eps of the earlier runs, in ten-thousandths.

    Returns
    -------
    eps : int
        Ten-thousandths.
    """
    if not isinstance(counts, AcrossClusters):
        return smallest_eps(counts, most=most, first=first)
    across = counts
    return find_eps_by_steps(lambda e: across.at(e).count(), most, first + max(8, first // 32), least=first)


def count_over(parts: Sequence[Part], plan: Plan, map_parts: MapParts) -> Counts:
    """Return the function that counts what the rule keeps over all parts.

    Parameters
    ----------
    parts : sequence of Part
        The clustered data set.
    plan : Plan
        What is known about the whole data set.
    map_parts : MapParts
        Maps the counting over the parts.
    """
    return lambda eps: np.sum(map_parts("search", count_kept, parts, eps, plan), axis=0).tolist()


def _count_plain(
    parts: Sequence[Part], eps: list[int], *, map_parts: MapParts, step: str, seen: dict[int, float] | None = None
) -> list[int]:
    counts = np.sum(map_parts(step, count_neighbourhoods, parts, eps), axis=0)
    if seen is not None:
        rows = sum(part.rows for part in parts)
        seen.update(zip(eps, (counts / rows).tolist(), strict=True))
    return list(counts.tolist())


def _search_plain(
    parts: Sequence[Part],
    target: int,
    valid: int,
    seed: int,
    map_parts: MapParts,
    seen: dict[int, float] | None = None,
) -> int:
    """Find the eps of the sweep without `cover`, whose counts are the same for every rule that sweeps.

    The shares that are kept at each eps that is tried are added to `seen`.
    """
    guess = _guess(parts, target, valid, seed, map_parts)
    counts = partial(_count_plain, parts, map_parts=map_parts, step="search", seen=seen)
    return find_eps(counts, target, guess)


def _guess(
    parts: Sequence[Part],
    target: int,
    valid: int,
    seed: int,
    map_parts: MapParts,
    seen: dict[int, float] | None = None,
) -> int | None:
    """Return about the eps of a seeded sample of parts; None if the data set is small.

    The shares that the larger sample keeps at each eps that is tried are added to `seen`.
    """
    if valid < SAMPLE_FROM or len(parts) < 4:
        return None
    order = np.argsort(row_hash(np.arange(len(parts)), seed), kind="stable")
    sizes = np.array([part.rows for part in parts])[order]
    within = np.cumsum(sizes)
    number = min(SAMPLE_PARTS, int(np.searchsorted(within, valid / 4, side="right")))
    number = max(number, int(np.searchsorted(within, SAMPLE_ROWS)) + 1)
    rough = max(1, int(np.searchsorted(within, SAMPLE_ROWS)) + 1)
    if 2 * within[number - 1] > valid:
        return None
    guess: int | None = None
    # A small sample first, so that the larger one need not try values of eps that are far off.
    for few, reach in ((rough, 0), (number, SAMPLE_REACH)):
        chosen, rows = [parts[k] for k in order[:few]], int(within[few - 1])
        counts = partial(_count_plain, chosen, map_parts=map_parts, step="sample", seen=seen if reach else None)
        guess = find_eps(counts, max(1, round(target * rows / valid)), guess, reach=reach, tolerance=SAMPLE_TOLERANCE)
    return guess


def _space(first: int, last: int) -> list[int]:
    """Return up to 64 integers spread evenly over first..last, both included."""
    return sorted({int(v) for v in np.linspace(first, last, min(MAX_WINDOW, last - first + 1)).round()})


def find_eps(
    counts: Counts,
    target: int,
    guess: int | None = None,
    *,
    reach: int = FIRST_REACH,
    tolerance: int = 1,
) -> int:
    """Find an eps with count(eps) <= K < count(eps - 1 ten-thousandth).

    Parameters
    ----------
    counts : Counts
        Function that counts the kept rows.
    target : int
        K, with number of clusters <= K < number of rows.
    guess : int, optional
        Eps to try first, in ten-thousandths.
    reach : int
        Ten-thousandths that the first pass covers to either side of the guess.
    tolerance : int
        Width of the bracket to stop at, in ten-thousandths. Above 1, the result is only near such an eps.

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
        values = _space(first, last)
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
            growth = 4  # the slope was wrong once: look further
    return high


def _next_guess(values: list[int], found: Sequence[int], target: int) -> int | None:
    """Extrapolate the counts of a window to the target, which is outside it; None if the counts do not fall."""
    fall = found[0] - found[-1]
    if fall <= 0:
        return None
    k = 0 if found[0] <= target else -1
    return round(values[k] + (found[k] - target) * (values[-1] - values[0]) / fall)


def smallest_eps(counts: Counts, *, most: int, first: int) -> int:
    """Return the smallest eps from `first` on that keeps at most `most` rows.

    Parameters
    ----------
    counts : Counts
        Function that counts the kept rows.
    most : int
        Largest count. `MAX_EPS` must keep no more.
    first : int
        Smallest eps to consider, in ten-thousandths. It is usually the answer, so it is tried alone.

    Returns
    -------
    eps : int
        Ten-thousandths.
    """
    values = [first]
    while True:
        for e, kept in zip(values, counts(values), strict=True):
            if kept <= most:
                return e
        values = list(range(values[-1] + 1, min(values[-1] + MAX_WINDOW, MAX_EPS) + 1))
