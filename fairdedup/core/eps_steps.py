"""Search for an eps one value after the other, where each count is costly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.similarity import MAX_EPS

EXPECTED_STEPS = 6  # after which the search halves its bracket too
LEAST_REMOVED = 1e-6  # share of removed rows, so that no share is divided by 0


@dataclass(frozen=True)
class KeptWithin:
    """Which share of the rows is kept where only rows of one cluster are compared: about how the counts fall.

    Rows of other clusters take some of what is kept then. Their share of it grows as duplicates do: the model is that
    it is proportional to the share of the rows that is removed within clusters.

    Attributes
    ----------
    rows : int
        Number of rows, N.
    shares : mapping of int to float
        Share of the rows that is kept at some values of eps, in ten-thousandths; a sample's will do. At least one.
    """

    rows: int
    shares: Mapping[int, float]

    def at(self, values: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return the shares at any values of eps (n,), between those that are known."""
        known, shares = np.array(sorted(self.shares.items()), np.float64).T
        return np.clip(np.interp(values, known, shares), 1 / self.rows, 1 - LEAST_REMOVED)

    def rate(self, eps: int, kept: int) -> float:
        """Return the rate at which rows of other clusters take what is kept, from the count at an eps."""
        within = float(self.at(np.array([eps]))[0])
        return (1 - kept / self.rows / within) / (1 - within)

    def expect(self, values: NDArray[np.integer], rates: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Return the counts that are expected at values of eps (n,)."""
        within = self.at(values)
        return self.rows * within * (1 - rates * (1 - within))


def find_eps_by_steps(
    count: Callable[[int], int],
    target: int,
    guess: int,
    least: int = 0,
    like: KeptWithin | None = None,
    estimate: Callable[[int], int] | None = None,
) -> int:
    """Find an eps with count(eps) <= K < count(eps - 1 ten-thousandth), one value after the other.

    Where each count costs about as much as the first, as with rounds, this needs fewer of them than windows do. What is
    kept within clusters says where to look next: how much less is kept in all is interpolated between both ends of the
    bracket, and expected to stay while it has one end only.

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
    like : KeptWithin, optional
    estimate : callable, optional
        Returns about what `count` does, for less. With `like`, the guess is improved by it.

    Returns
    -------
    eps : int
        Ten-thousandths: `least`, or the high end of the bracket.
    """
    low, high = least, MAX_EPS
    seen: dict[int, int] = {}
    if least:
        seen[least] = count(least)
        if seen[least] <= target:
            return least
    eps, step = min(max(guess, low + 1), MAX_EPS - 1), 1 if like else max(8, guess // 32)
    if like and estimate:
        eps = min(max(_extrapolate(eps, estimate(eps), target, like), low + 1), MAX_EPS - 1)
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
            expected = _extrapolate(eps, seen[eps], target, like) if like else eps
            eps = max(expected, eps + step) if eps == low else min(expected, eps - step)
            step *= 4 if like else 2
        eps = min(max(eps, low + 1), high - 1)
    return high


def _interpolate(low: int, high: int, seen: Mapping[int, int], target: int, like: KeptWithin | None) -> int:
    """Return the first eps of a bracket that is expected to keep no more than the target."""
    values, ends = np.arange(low + 1, high + 1), (low, high)
    if like:
        expected = like.expect(values, np.interp(values, ends, [like.rate(e, seen[e]) for e in ends]))
    else:
        expected = np.interp(values, ends, [seen[e] for e in ends])
    fits = np.flatnonzero(expected <= target + 1e-6)
    return int(values[fits[0]]) if len(fits) else high


def _extrapolate(eps: int, kept: int, target: int, like: KeptWithin) -> int:
    """Return the first eps of those of `like` that is expected to keep no more than the target, or the nearest end."""
    values = np.arange(min(like.shares), max(like.shares) + 1)
    fits = np.flatnonzero(like.expect(values, like.rate(eps, kept)) <= target)
    return int(values[fits[0] if len(fits) else -1])
