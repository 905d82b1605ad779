"""Search for an eps one value after the other, where each count is costly."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.similarity import MAX_EPS

EXPECTED_STEPS = 6  # after which the search halves its bracket too


def find_eps_by_steps(
    count: Callable[[int], int],
    target: int,
    guess: int,
    least: int = 0,
    like: Mapping[int, int] | None = None,
) -> int:
    """Find an eps with count(eps) <= K < count(eps - 1 ten-thousandth), one value after the other.

    Where each count costs about as much as the first, as with rounds, this needs fewer of them than windows do. Other
    counts that fall alike say where to look next: their ratio to the counts that are known is interpolated between both
    ends of the bracket, and taken to be constant while it has one end only.

    Parameters
    ----------
    count : callable
        Returns the number of rows kept at an eps, in ten-thousandths.
    target : int
        K; at most K rows are kept at `MAX_EPS`.
    guess : int
        Eps to try first.
    least : int
        Smallest eps to consider, which is returned if it keeps no more than K; at 0 more than K rows are kept.
    like : mapping of int to int, optional
        Counts at some values of eps that fall about as those of `count` do.

    Returns
    -------
    eps : int
        Ten-thousandths: `least`, or the high end of the bracket.
    """
    low, high, like = least, MAX_EPS, like or {}
    seen: dict[int, int] = {}
    if least:
        seen[least] = count(least)
        if seen[least] <= target:
            return least
    eps, step = min(max(guess, low + 1), MAX_EPS - 1), 1 if like else max(8, guess // 32)
    while high - low > 1:
        seen[eps] = count(eps)
        if seen[eps] <= target:
            high = eps
        else:
            low = eps
        if low in seen and high in seen:
            eps = _interpolate(low, high, seen, target, like)
            if len(seen) > EXPECTED_STEPS and len(seen) % 2:
                eps = (low + high) // 2  # the counts are far from what is expected: halve the bracket every second time
        else:
            expected = _extrapolate(eps, seen[eps], target, like)
            eps = max(expected, eps + step) if eps == low else min(expected, eps - step)
            step *= 4 if like else 2
        eps = min(max(eps, low + 1), high - 1)
    return high


def _columns(like: Mapping[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the values of eps, ascending, and their counts, at least 1."""
    eps, counts = np.array(sorted(like.items()), np.float64).T
    return eps, np.maximum(counts, 1)


def _interpolate(low: int, high: int, seen: Mapping[int, int], target: int, like: Mapping[int, int]) -> int:
    """Return the first eps of a bracket that is expected to keep no more than the target."""
    eps, counts = _columns(like or {0: 1})
    values = np.arange(low + 1, high + 1)
    ratios = [seen[e] / np.interp(e, eps, counts) for e in (low, high)]
    expected = np.interp(values, eps, counts) * np.interp(values, (low, high), ratios)
    return int(values[np.flatnonzero(expected <= target * (1 + 1e-12))[0]])


def _extrapolate(eps: int, kept: int, target: int, like: Mapping[int, int]) -> int:
    """Return the first eps of those of `like` that is expected to keep no more than the target, or the nearest end."""
    if not like:
        return eps
    known, counts = _columns(like)
    values = np.arange(known[0], known[-1] + 1)
    fits = np.flatnonzero(np.interp(values, known, counts) * (kept / np.interp(eps, known, counts)) <= target)
    return int(values[fits[0] if len(fits) else -1])
