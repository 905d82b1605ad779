"""Exact sums, means and spreads over a whole data set: they do not depend on the order, the parts or the machine.

Values are added as integers: the sums of parts combine by integer addition, and only the final quotient is rounded.
This module never copies more than a block of the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

_POINT = 60  # similarities are added in units of 2**-60
_LIMB = 20  # integers are multiplied in limbs of 20 bits, so that the sum of a block's products fits into int64
_BLOCK = 1 << 20  # rows whose moments are taken at a time


def _limbs(integers: NDArray[np.int64], number: int) -> list[NDArray[np.int64]]:
    """Return the limbs of integers, lowest first; the highest carries the sign."""
    low = [(integers >> (_LIMB * k)) & ((1 << _LIMB) - 1) for k in range(number - 1)]
    return [*low, integers >> (_LIMB * (number - 1))]


def _sum_of_products(a: list[NDArray[np.int64]], b: list[NDArray[np.int64]]) -> int:
    """Return the exact sum over rows of the product of two columns, given as limbs."""
    return sum(int((x * y).sum()) << (_LIMB * (j + k)) for j, x in enumerate(a) for k, y in enumerate(b))


@dataclass(frozen=True)
class Moments:
    """Count, sums and sums of squares of c columns of cosines; combine with ``+``.

    Attributes
    ----------
    count : int
        Number of rows.
    sums : tuple of int
        Sum of each column, in units of 2**-60.
    squares : tuple of int
        Sum of the squares of each column, in units of 2**-120.
    """

    count: int
    sums: tuple[int, ...]
    squares: tuple[int, ...]

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Moments:
        """Return the moments of each column of values (n, c), |value| <= 1."""
        sums, squares = [0] * values.shape[1], [0] * values.shape[1]
        for start in range(0, len(values), _BLOCK):
            fixed = np.rint(values[start : start + _BLOCK] * 2.0**_POINT).astype(np.int64)
            for c, column in enumerate(fixed.T):
                limbs = _limbs(column, 4)
                sums[c] += sum(int(limb.sum()) << (_LIMB * k) for k, limb in enumerate(limbs))
                squares[c] += _sum_of_products(limbs, limbs)
        return cls(len(values), tuple(sums), tuple(squares))

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count,
            tuple(a + b for a, b in zip(self.sums, other.sums, strict=True)),
            tuple(a + b for a, b in zip(self.squares, other.squares, strict=True)),
        )

    def standardise(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (value - mean) / standard deviation in each column of values (n, c); 0 in a column without spread."""
        out = np.zeros_like(values)
        for c, (total, square) in enumerate(zip(self.sums, self.squares, strict=True)):
            mean = Fraction(total, self.count << _POINT)
            std = _root(Fraction(square, self.count << (2 * _POINT)) - mean**2)
            if std > 0:
                high = float(mean)  # the difference to it is exact for values near it
                out[:, c] = ((values[:, c] - high) - float(mean - Fraction(high))) / std
        return out


def _root(variance: Fraction) -> float:
    """Return the square root of a variance, scaled first so that a tiny one does not underflow."""
    if variance <= 0:
        return 0.0
    shift = max(0, (variance.denominator.bit_length() - variance.numerator.bit_length()) // 2)
    return float(variance * (1 << (2 * shift))) ** 0.5 / 2.0**shift


def subtract_centre(q: NDArray[np.int64], centre: Sequence[int]) -> NDArray[np.float64]:
    """Return memberships (n, c) minus a centre (c,) near their mean: exact, since the differences are small."""
    return (q - np.array(centre, np.int64)).astype(np.float64)


def from_centre(differences: NDArray[np.float64], weights: Sequence[Fraction]) -> NDArray[np.float64]:
    """Return differences (n, c) @ weights (c,), added up in the same order on every machine."""
    total = np.zeros(len(differences))
    for column, weight in zip(differences.T, weights, strict=True):
        total = total + column * float(weight)
    return total


def at_centre(weights: Sequence[Fraction], centre: Sequence[int]) -> Fraction:
    """Return centre (c,) @ weights (c,), exactly."""
    return sum((w * m for w, m in zip(weights, centre, strict=True)), Fraction(0))


@dataclass(frozen=True)
class PriceTerm:
    """The price of one attribute's memberships, and its mean and spread over the data set.

    Attributes
    ----------
    weights : tuple of Fraction
        Price of each concept: target share minus share.
    centre : tuple of int
        Integer near the mean membership in each concept, which is subtracted before floats are used.
    mean : Fraction
        Mean of q @ weights over the data set, q in units of 1e-9.
    std : float
        Population standard deviation of q @ weights; may be 0.
    """

    weights: tuple[Fraction, ...]
    centre: tuple[int, ...]
    mean: Fraction
    std: float

    def standardise(self, q: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (q @ weights - mean) / std of memberships q (n, c), in units of 1e-9; 0 if std is 0."""
        if self.std == 0:
            return np.zeros(len(q))
        above = float(self.mean - at_centre(self.weights, self.centre))
        return (from_centre(subtract_centre(q, self.centre), self.weights) - above) / self.std


@dataclass(frozen=True)
class MembershipMoments:
    """Sums and products of the memberships in one attribute, as exact integers; combine with ``+``.

    For any price of the concepts, its mean and spread over the data set can be computed from them.

    Attributes
    ----------
    count : int
        Number of rows.
    sums : tuple of int
        Sum of the memberships in each of c concepts, in units of 1e-9.
    products : tuple of tuple of int
        Sum of the products of the memberships in each pair of concepts (c x c), in units of 1e-18.
    largest : int
        Sum of each row's largest membership, in units of 1e-9.
    """

    count: int
    sums: tuple[int, ...]
    products: tuple[tuple[int, ...], ...]
    largest: int = 0

    @classmethod
    def of(cls, q: NDArray[np.int64]) -> MembershipMoments:
        """Return the moments of memberships q (n, c), 0 to 10**9."""
        c = q.shape[1]
        products = [[0] * c for _ in range(c)]
        for start in range(0, len(q), _BLOCK):
            limbs = [_limbs(column, 2) for column in q[start : start + _BLOCK].T]
            for a in range(c):
                for b in range(a, c):
                    products[a][b] += _sum_of_products(limbs[a], limbs[b])
                    products[b][a] = products[a][b]
        largest = int(q.max(axis=1, initial=0).sum())
        return cls(len(q), tuple(q.sum(axis=0).tolist()), tuple(map(tuple, products)), largest)

    def __add__(self, other: MembershipMoments) -> MembershipMoments:
        return MembershipMoments(
            self.count + other.count,
            tuple(a + b for a, b in zip(self.sums, other.sums, strict=True)),
            tuple(
                tuple(a + b for a, b in zip(mine, theirs, strict=True))
                for mine, theirs in zip(self.products, other.products, strict=True)
            ),
            self.largest + other.largest,
        )

    @property
    def mean_largest(self) -> Fraction:
        """Sum of the rows' largest memberships divided by the sum of all memberships; 0 if all are 0."""
        total = sum(self.sums)
        return Fraction(self.largest, total) if total else Fraction(0)

    @property
    def centre(self) -> tuple[int, ...]:
        """Integer near the mean membership in each concept."""
        return tuple(s // self.count for s in self.sums)

    def term(self, weights: Sequence[Fraction]) -> PriceTerm:
        """Return the term of the price with these weights (c,), one for each concept."""
        mean = sum((a * s for a, s in zip(weights, self.sums, strict=True)), Fraction(0)) / self.count
        square = Fraction(0)
        for a, line in zip(weights, self.products, strict=True):
            for b, product in zip(weights, line, strict=True):
                square += a * b * product
        return PriceTerm(tuple(weights), self.centre, mean, _root(square / self.count - mean**2))


def shares(sums: Sequence[int]) -> tuple[Fraction, ...]:
    """Return each sum divided by the total; zeros if the total is zero."""
    total = sum(sums)
    return tuple(Fraction(s, total) if total else Fraction(0) for s in sums)


def weights(target: Sequence[Fraction], sums: Sequence[int]) -> tuple[Fraction, ...]:
    """Return target shares (c,) minus the shares of a set whose memberships have these sums (c,)."""
    return tuple(t - s for t, s in zip(target, shares(sums), strict=True))
