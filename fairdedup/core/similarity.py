"""Exact cosine thresholds over tiles: float32 products find candidates, float64 decides those near a threshold.

Every vector is a unit vector rounded to float16, so that products and sums of two of them are exact in float64 in
any order. This module never stores all pairs of a cluster.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairdedup.core.compiled import njit
from fairdedup.core.fast_arithmetic import widen
from fairdedup.core.unit_rows import UnitRows

EPS_UNIT = 10_000  # eps is an integer number of ten-thousandths
MAX_EPS = 2 * EPS_UNIT + 1  # at 1 - eps = -1.0001 every pair is a pair of duplicates
BLOCK = 1 << 14  # rows that are widened to float32 at a time
QUANTUM = 1_000_000  # a value is quantised to the integer nearest to a million times itself

REASON_NOT_FINITE = "vector has a value that is not finite"
REASON_ZERO = "vector is zero"
_REASONS = ("", REASON_NOT_FINITE, REASON_ZERO)


def quantised(values: ArrayLike) -> NDArray[np.int64]:
    """Return the integer nearest to a million times each value; halves go to even."""
    return np.rint(np.asarray(values, np.float64) * QUANTUM).astype(np.int64)


@njit
def _scale_rows(x, out, bad):  # type: ignore[no-untyped-def]
    """Write the unit rows of x (n, d) as float16 bits to out, and the codes of `reason` (0: usable) to bad."""
    n, d = x.shape
    unit = np.empty(d, np.float64)
    bits = unit.view(np.uint64)
    for i in range(n):
        largest = 0.0
        finite = True
        for j in range(d):
            v = abs(np.float64(x[i, j]))
            if not np.isfinite(v):
                finite = False
            if v > largest:
                largest = v
        if not finite or largest == 0.0:
            bad[i] = 1 if not finite else 2
            out[i, :] = 0
            continue
        # An exact power of two first: the squares of huge or tiny vectors would leave float64's range. In two
        # factors, since the whole of it may itself be out of range.
        exponent = -int(np.floor(np.log2(largest)))
        first = 2.0 ** (exponent // 2)
        second = 2.0 ** (exponent - exponent // 2)
        total = 0.0
        lost = 0.0  # what each addition rounds away (Knuth's two-sum): the sum is right to the last bit
        for j in range(d):
            unit[j] = np.float64(x[i, j]) * first * second
            square = unit[j] * unit[j]
            after = total + square
            part = after - total
            lost += (total - (after - part)) + (square - part)
            total = after
        norm = np.sqrt(total + lost)
        for j in range(d):
            unit[j] /= norm
        for j in range(d):
            # One rounding, double to half, halves to even.
            magnitude = bits[j] & np.uint64(0x7FFFFFFFFFFFFFFF)
            sign = (bits[j] >> np.uint64(48)) & np.uint64(0x8000)
            if magnitude >= np.uint64(0x3F10000000000000):  # 2**-14, the least normal float16
                odd = (magnitude >> np.uint64(42)) & np.uint64(1)
                half = ((magnitude + np.uint64(0x1FFFFFFFFFF) + odd) >> np.uint64(42)) - np.uint64(1008 << 10)
            else:
                half = np.uint64(np.rint(abs(unit[j]) * 16777216.0))  # in units of 2**-24
            out[i, j] = np.uint16(sign | half)


def unit_float16(x: NDArray[np.floating]) -> tuple[NDArray[np.float16], NDArray[np.int8]]:
    """Scale every vector to unit length in float64 and round it to float16.

    Parameters
    ----------
    x : ndarray of shape (n, d), float16, float32 or float64
        Vectors of any length.

    Returns
    -------
    unit : ndarray of shape (n, d), float16
        Unit vectors; zero for a vector that cannot be used.
    bad : ndarray of shape (n,), int8
        0 for a usable vector, otherwise a code that `reason` explains.
    """
    n, d = x.shape
    unit = np.empty((n, d), np.float16)
    bad = np.zeros(n, np.int8)
    step = max(1, (1 << 20) // max(d, 1))  # widens a few MiB at a time
    for start in range(0, n, step):
        block = np.ascontiguousarray(x[start : start + step])
        if block.dtype not in (np.float32, np.float64):
            block = block.astype(np.float32 if block.dtype == np.float16 else np.float64)
        _scale_rows(block, unit[start : start + step].view(np.uint16), bad[start : start + step])
    return unit, bad


def reason(code: int) -> str:
    """Return why a vector with this code of `unit_float16` cannot be used."""
    return _REASONS[code]


@dataclass(frozen=True)
class Vectors:
    """Unit float16 vectors, widened for arithmetic.

    Attributes
    ----------
    x : ndarray of shape (n, d), float32
        The float16 values, exactly.
    squares : ndarray of shape (n,), float64
        Squared lengths, exactly.
    """

    x: NDArray[np.float32]
    squares: NDArray[np.float64]

    @classmethod
    def of(cls, unit: UnitRows, order: NDArray[np.integer] | None = None) -> Vectors:
        """Widen unit vectors without another copy.

        Parameters
        ----------
        unit : UnitRows of shape (n, d)
            Unit vectors.
        order : ndarray of shape (m,), int, optional
            Positions to take, in this order; all if not given.
        """
        n = unit.shape[0] if order is None else len(order)
        x = np.empty((n, unit.shape[1]), np.float32)
        if order is None:
            widen(unit[:], x)
        else:
            for start in range(0, n, BLOCK):
                widen(unit[order[start : start + BLOCK]], x[start : start + BLOCK])
        return cls(x, squared_lengths(x))

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: NDArray[np.integer]) -> Vectors:
        """Return the vectors at these positions."""
        return Vectors(self.x[index], self.squares[index])


# Sums of products of float16 values are exact in float64, so the compiler may reorder them.
_EXACT = {"reassoc", "contract", "nsz"}


@njit(fastmath=_EXACT)
def dot(a, b):  # type: ignore[no-untyped-def]
    """Return the exact product of two rows with float16 values, in float64."""
    total = 0.0
    for j in range(a.shape[0]):
        total += np.float64(a[j]) * np.float64(b[j])
    return total


@njit
def cosine(a, b, a_square, b_square):  # type: ignore[no-untyped-def]
    """Return a.b / sqrt(|a|^2 |b|^2) in float64, at most 1; 0 where either vector is zero."""
    scale = a_square * b_square
    if scale == 0.0:
        return 0.0
    return min(1.0, dot(a, b) / np.sqrt(scale))


@njit
def squared_lengths(x):  # type: ignore[no-untyped-def]
    """Return the exact squared length of each row."""
    out = np.empty(x.shape[0], np.float64)
    for i in range(x.shape[0]):
        out[i] = dot(x[i], x[i])
    return out


@njit
def cosine_to_one(x, squares, other, other_square):  # type: ignore[no-untyped-def]
    """Return the cosine of every row of x (n, d) with one vector (d,)."""
    out = np.empty(x.shape[0], np.float64)
    for i in range(x.shape[0]):
        out[i] = cosine(x[i], other, squares[i], other_square)
    return out


@njit
def cosine_of_pairs(x, squares, first, second):  # type: ignore[no-untyped-def]
    """Return the cosine of x[first[k]] with x[second[k]] for every k."""
    out = np.empty(first.shape[0], np.float64)
    for k in range(first.shape[0]):
        i, j = first[k], second[k]
        out[k] = cosine(x[i], x[j], squares[i], squares[j])
    return out


def cosines(a: Vectors, b: Vectors) -> NDArray[np.float64]:
    """Return the exact cosine similarities of a (n, d) with b (m, d): float64 of shape (n, m)."""
    out = np.empty((len(a), len(b)))
    other = b.x.astype(np.float64)
    for start in range(0, len(a), 4096):
        rows = slice(start, start + 4096)
        # Products and sums of float16 values are exact in float64, so any matrix product gives the same bits.
        scale = np.outer(a.squares[rows], b.squares)
        products = a.x[rows].astype(np.float64) @ other.T
        out[rows] = np.minimum(1.0, products / np.sqrt(np.where(scale == 0.0, 1.0, scale)))
    return out


def margin(d: int) -> float:
    """Return the largest error of a float32 product of two unit vectors of d values, as a cosine.

    The products of float16 values are exact in float32. The error of their sum, in any order, is at most
    d u / (1 - d u) times the lengths, with u = 2**-24 (Higham 2002, section 3.1). Scaling adds four roundings.
    """
    u = 2.0**-24
    return (d + 4) * u / (1 - (d + 4) * u)


@njit
def eps_needed(similarity):  # type: ignore[no-untyped-def]
    """Return the least eps, in ten-thousandths, at which a pair of this cosine are duplicates.

    That is the least integer e with similarity > 1 - e / 10000 in float64. A similarity above 1 counts as 1.
    """
    similarity = min(similarity, 1.0)
    e = int((1.0 - similarity) * 10000.0)
    while e > 0 and similarity > 1.0 - (e - 1) / 10000.0:
        e -= 1
    while not similarity > 1.0 - e / 10000.0:
        e += 1
    return e


@njit
def eps_needed_by(similarities):  # type: ignore[no-untyped-def]
    """Return `eps_needed` of each of similarities (n,): int64 of shape (n,)."""
    out = np.empty(similarities.shape[0], np.int64)
    for k in range(similarities.shape[0]):
        out[k] = eps_needed(similarities[k])
    return out
