"""Find candidates fast: products of low precision, with a rigorous bound on the distance from the exact cosine.

Pairs within the bound of a threshold are settled in float64 by similarity.py, so every precision gives the same result
on every machine. There are two: float32, where the error is that of the summation; and 8-bit integers around the
cluster's mean, where it is that of the rounding. These are three to five times as fast on processors with VNNI or AMX,
and 1.6 times with AVX2 alone. On a GPU products are float32 (device_products.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.compiled import njit
from fairdedup.core.device_products import DeviceVectors
from fairdedup.core.devices import choose_product_device
from fairdedup.core.fast_arithmetic import int8_is_worth_it, multiply_int8
from fairdedup.core.similarity import Vectors, margin

INT8_ROWS = 1024  # rounding does not pay for smaller clusters
MOVED = 1 << 12  # rows that `move_up` moves at a time
ARITHMETIC = 2e-6  # covers the float32 arithmetic of the bound itself
_work = 0.0  # float32 multiply-adds of this process so far


class ErrorTerms(NamedTuple):
    """Terms that turn a product of low precision into a cosine, for each of n rows.

    cos(i, j) is within ``error[i] + error[j]`` of
    ``(product * scale[i] * scale[j] + base[i] + base[j]) / (length[i] * length[j])``.

    Attributes
    ----------
    length, scale, base, error : ndarrays of shape (n,), float64
        Length of the exact vector, step of the rounding, offset of the products, and the row's part of the bound.
    """

    length: NDArray[np.float64]
    scale: NDArray[np.float64]
    base: NDArray[np.float64]
    error: NDArray[np.float64]


@dataclass(frozen=True)
class ApproximateVectors:
    """Vectors in low precision.

    Attributes
    ----------
    values : ndarray of shape (n, d), float32 or int8
        Values to multiply.
    terms : ErrorTerms of n rows
        Terms that turn a product of them into a cosine.
    """

    values: NDArray[Any]
    terms: ErrorTerms

    def __len__(self) -> int:
        return len(self.values)

    @property
    def rounded(self) -> bool:
        """Whether the values are 8-bit integers."""
        return self.values.dtype == np.int8

    def take(self, index: NDArray[np.integer] | slice) -> ApproximateVectors:
        """Return the rows at these positions."""
        return replace(self, values=self.values[index], terms=ErrorTerms(*(term[index] for term in self.terms)))

    def move_up(self, index: NDArray[np.int64]) -> ApproximateVectors:
        """Return the rows at these ascending positions, moved to the front of this object's own arrays."""
        for start in range(0, len(index), MOVED):
            rows = index[start : start + MOVED]
            for array in (self.values, *self.terms):
                array[start : start + len(rows)] = array[rows]
        return self.take(slice(len(index)))

    def multiply(self, other: ApproximateVectors) -> NDArray[Any]:
        """Return the products of all pairs of rows.

        Parameters
        ----------
        other : ApproximateVectors of m rows
            Rows in the same precision.

        Returns
        -------
        ndarray of shape (n, m), float32 or int32
        """
        global _work
        if self.rounded:
            return multiply_int8(self.values, other.values)
        _work += float(len(self)) * len(other) * self.values.shape[1]
        return self.values @ other.values.T


def approximate_in_float32(vectors: Vectors) -> ApproximateVectors:
    """Return the vectors unchanged, with the error of a float32 product."""
    n, d = vectors.x.shape
    half = margin(d) / 2 + ARITHMETIC
    return ApproximateVectors(
        vectors.x, ErrorTerms(np.sqrt(vectors.squares), np.ones(n), np.zeros(n), np.full(n, half))
    )


@njit
def _round(x, mean, levels, values, terms):  # type: ignore[no-untyped-def]
    """Round x - mean to 8 bits with a scale for each row, and return an upper bound of the rows' lengths.

    terms.error becomes the length of the rounding error of each row.
    """
    d = x.shape[1]
    centre = 0.0
    for j in range(d):
        centre += mean[j] * mean[j]
    longest = 0.0
    for i in range(x.shape[0]):
        largest = 0.0
        for j in range(d):
            largest = max(largest, abs(np.float64(x[i, j]) - mean[j]))
        step = largest / levels if largest > 0.0 else 1.0
        lost = 0.0
        size = 0.0
        along = 0.0
        for j in range(d):
            y = np.float64(x[i, j]) - mean[j]
            q = np.rint(y / step)
            values[i, j] = np.int8(q)
            lost += (y - step * q) ** 2
            size += y * y
            along += np.float64(x[i, j]) * mean[j]
        terms.scale[i] = step
        terms.base[i] = along - centre / 2
        terms.error[i] = np.sqrt(lost)
        longest = max(longest, np.sqrt(size) + terms.error[i])
    return longest


def approximate_in_int8(vectors: Vectors) -> ApproximateVectors:
    """Return the vectors as 8-bit integers around their mean.

    With y = x - mean = s q + r: y_i y_j - s_i s_j q_i q_j = s_i q_i r_j + r_i y_j, at most (|y| + |r|)(|r_i| + |r_j|).
    """
    n, d = vectors.x.shape
    mean = vectors.x.mean(axis=0, dtype=np.float64)
    values = np.empty((n, d), np.int8)
    length = np.sqrt(vectors.squares)
    terms = ErrorTerms(length, np.empty(n), np.empty(n), np.empty(n))
    levels = min(127, math.isqrt((2**31 - 1) // d))  # the sum of d products fits into 32 bits
    longest = _round(vectors.x, mean, float(levels), values, terms)
    error = terms.error * (longest / np.square(length.min())) + ARITHMETIC
    return ApproximateVectors(values, terms._replace(error=error))


def approximate(vectors: Vectors, partners: int | None = None) -> ApproximateVectors | DeviceVectors:
    """Return vectors in the precision that suits the cluster and this machine; on a GPU where one is used.

    A process that has not loaded torch loads it only after float32 work that takes longer than the loading.

    Parameters
    ----------
    vectors : Vectors of n rows
        Vectors of a cluster.
    partners : int, optional
        Least number of rows that a row is multiplied by; n if not given. Rounding pays by them.
    """
    n, d = vectors.x.shape
    device = choose_product_device(float(n) * (n if partners is None else partners) * d, _work)
    if device != "cpu":
        known = DeviceVectors.put(vectors.x, approximate_in_float32(vectors).terms, device)
        if known is not None:
            return known
    multiplied = n if partners is None else 2 * partners
    if multiplied >= INT8_ROWS and int8_is_worth_it(_work):
        return approximate_in_int8(vectors)
    return approximate_in_float32(vectors)


class ColumnBounds(NamedTuple):
    """Coefficients from which `mark_reaching` tells whether the cosine of a column may be above its floor.

    Attributes
    ----------
    first, second, third : ndarrays of shape (m,), float32
        Coefficients of the entries of `RowBounds`.
    """

    first: NDArray[np.float32]
    second: NDArray[np.float32]
    third: NDArray[np.float32]


class RowBounds(NamedTuple):
    """Coefficients of a row, by which `mark_reaching` multiplies those of the columns."""

    a: np.float32
    b: np.float32
    c: np.float32


@njit
def bound_columns(floor, terms):  # type: ignore[no-untyped-def]
    """Return the coefficients of columns; column c is marked where its cosine may be above floor[c]."""
    length, scale, base, error = terms
    m = length.shape[0]
    first, second, third = np.empty(m, np.float32), np.empty(m, np.float32), np.empty(m, np.float32)
    for c in range(m):
        first[c] = (floor[c] - error[c]) * length[c] / scale[c]
        second[c] = base[c] / scale[c]
        third[c] = 1.0 / scale[c]
    return ColumnBounds(first, second, third)


@njit
def take_terms(terms, r):  # type: ignore[no-untyped-def]
    """Return the ErrorTerms of row r alone."""
    return ErrorTerms(terms.length[r], terms.scale[r], terms.base[r], terms.error[r])


@njit
def bound_row(row):  # type: ignore[no-untyped-def]
    """Return the coefficients of a row, given its terms. Lengths are at most 1.001: vectors are unit float16 ones."""
    return RowBounds(
        np.float32(row.length / row.scale),
        np.float32(1.0 / row.scale),
        np.float32((row.base + 1.01 * row.error) / row.scale),
    )


@njit(fastmath={"reassoc", "contract", "nnan", "ninf", "nsz"})
def mark_reaching(products, columns, row, marks):  # type: ignore[no-untyped-def]
    """Mark the columns of a row that may be above their floor. Few are, so callers test eight marks as one word."""
    first, second, third = columns.first, columns.second, columns.third
    a, b, c = row.a, row.b, row.c
    for k in range(products.shape[0]):
        marks[k] = (np.float32(products[k]) - first[k] * a + second[k] * b + third[k] * c) >= np.float32(0.0)


@njit
def read_cosine(product, row, column):  # type: ignore[no-untyped-def]
    """Return the cosine that a product approximates, and the bound of its distance from the exact one.

    `row` and `column` are the ErrorTerms of one vector each: numbers, because numba would count references to arrays in
    every turn of a loop.
    """
    scaled = product * row.scale * column.scale + row.base + column.base
    return scaled / (row.length * column.length), row.error + column.error


def no_marks(width: int) -> NDArray[np.uint8]:
    """Return cleared marks for `width` columns, rounded up to whole words of eight."""
    return np.zeros((width + 7) // 8 * 8, np.uint8)
