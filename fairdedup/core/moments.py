"""Sums, means and spreads over a whole data set that no order of addition, part or machine can change.

Floats are added as integers: the partial sums of parts combine by integer addition, and only the final quotient is
rounded. Never holds more than a block of the values it is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

_HIGH, _LOW = 30, 80  # a value is split into multiples of 2**-30 and of 2**-80, each exact in int64
_BLOCK = 8192


def exact_sums(values: NDArray[np.float64]) -> list[int]:
    """Return the sum of each column of values (n, c), |value| < 2**13, in units of 2**-80."""
    totals = [0] * values.shape[1]
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK]
        high = np.rint(block * 2.0**_HIGH)
        low = np.rint((block - high * 2.0**-_HIGH) * 2.0**_LOW)
        highs, lows = high.astype(np.int64).sum(axis=0), low.astype(np.int64).sum(axis=0)
        for c, (h, rest) in enumerate(zip(highs.tolist(), lows.tolist(), strict=True)):
            totals[c] += (h << (_LOW - _HIGH)) + rest
    return totals


@dataclass(frozen=True)
class Moments:
    """Count, sums and sums of squares of c columns; combine with ``+``."""

    count: int
    sums: tuple[int, ...]
    squares: tuple[int, ...]
    least: tuple[float, ...]
    largest: tuple[float, ...]

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Moments:
        """Take the moments of each column of values (n, c), n >= 1."""
        return cls(
            len(values), tuple(exact_sums(values)), tuple(exact_sums(values * values)),
            tuple(values.min(axis=0).tolist()), tuple(values.max(axis=0).tolist()),
        )  # fmt: skip

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count,
            tuple(a + b for a, b in zip(self.sums, other.sums, strict=True)),
            tuple(a + b for a, b in zip(self.squares, other.squares, strict=True)),
            tuple(map(min, self.least, other.least)),
            tuple(map(max, self.largest, other.largest)),
        )

    def mean(self) -> NDArray[np.float64]:
        """Return the mean of each column."""
        return np.array([s / (self.count << _LOW) for s in self.sums])

    def std(self) -> NDArray[np.float64]:
        """Return the population standard deviation of each column; exactly 0 where all values are equal."""
        out = []
        for s, q, low, high in zip(self.sums, self.squares, self.least, self.largest, strict=True):
            variance = Fraction(q, self.count << _LOW) - Fraction(s, self.count << _LOW) ** 2
            out.append(float(variance) ** 0.5 if high > low and variance > 0 else 0.0)
        return np.array(out)


@dataclass(frozen=True)
class MembershipMoments:
    """Sums and products of the memberships of one attribute, as exact integers; combine with ``+``.

    Whatever price is put on the concepts, its mean and spread over the data set follow from these.
    """

    count: int
    sums: tuple[int, ...]  # c, in units of 1e-9
    products: tuple[tuple[int, ...], ...]  # c x c, in units of 1e-18

    @classmethod
    def of(cls, q: NDArray[np.int64]) -> MembershipMoments:
        """Take the moments of memberships q (n, c), 0 to 10**9."""
        c = q.shape[1]
        products = [[0] * c for _ in range(c)]
        for start in range(0, len(q), 1 << 20):
            # Halves of 15 bits: their products, added over a block, stay exact in float64.
            block = q[start : start + (1 << 20)]
            high, low = (block >> 15).astype(np.float64), (block & 0x7FFF).astype(np.float64)
            hh, hl, ll = high.T @ high, high.T @ low, low.T @ low
            for a in range(c):
                for b in range(c):
                    products[a][b] += (int(hh[a, b]) << 30) + (int(hl[a, b] + hl[b, a]) << 15) + int(ll[a, b])
        return cls(len(q), tuple(q.sum(axis=0).tolist()), tuple(map(tuple, products)))

    def __add__(self, other: MembershipMoments) -> MembershipMoments:
        return MembershipMoments(
            self.count + other.count,
            tuple(a + b for a, b in zip(self.sums, other.sums, strict=True)),
            tuple(
                tuple(a + b for a, b in zip(mine, theirs, strict=True))
                for mine, theirs in zip(self.products, other.products, strict=True)
            ),
        )

    def mean_and_std(self, weights: NDArray[np.float64]) -> tuple[float, float]:
        """Return mean and population standard deviation of q @ weights, q in units of 1e-9."""
        w = [Fraction(float(v)) for v in weights]
        mean = sum((a * s for a, s in zip(w, self.sums, strict=True)), Fraction(0)) / self.count
        square = Fraction(0)
        for a, line in zip(w, self.products, strict=True):
            for b, product in zip(w, line, strict=True):
                square += a * b * product
        variance = square / self.count - mean**2
        return float(mean), float(variance) ** 0.5


def shares(sums: tuple[int, ...]) -> NDArray[np.float64]:
    """Return each sum divided by all of them; zeros where all are zero."""
    total = sum(sums)
    return np.array([s / total if total else 0.0 for s in sums])
