"""Spherical k-means by Lloyd's algorithm on rows rounded to 8 bits, in integers, so that it is the same on any machine.

Products, scores and sums are integers below 2**53: no order, thread count, processor or device changes them. The sample
may lie in pieces; a piece returns its sums. Rounding moves only rows that are about as near to two centroids. Nothing
here decides the cluster of a row for good: that is `kmeans.assign`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.compiled import njit
from fairdedup.core.fast_arithmetic import int8_is_worth_it, multiply_int8
from fairdedup.core.row_hash import row_hash
from fairdedup.core.similarity import unit_float16

ITERATIONS = 20
STEP_BITS = 20  # steps are multiples of 2**-20
VALUE_BITS = 24  # float16 values of at most 1 are multiples of 2**-24
PADDING = -(2.0**60)  # score of a centroid that only pads
_ROWS = 1024  # rows that are multiplied at a time
_LANES = 64  # centroids whose largest score is found at a time
# Every operation below is exact, so the compiler may reorder them.
_EXACT = {"reassoc", "contract", "nnan", "ninf", "nsz"}


class Rounded(NamedTuple):
    """Vectors less a common mean, in 8 bits: x - mean is about values * steps / 2**20.

    Attributes
    ----------
    values : ndarray of shape (n, d), int8
        At most `count_levels(d)` in absolute value.
    steps : ndarray of shape (n,), int64
        Step of each row, 1 or more.
    """

    values: NDArray[np.int8]
    steps: NDArray[np.int64]


class Sums(NamedTuple):
    """What the rows of one piece add to the next centroids.

    Attributes
    ----------
    sums : ndarray of shape (k, d), int64
        For each cluster the sum of values * steps over its rows.
    counts : ndarray of shape (k,), int64
        Number of its rows.
    """

    sums: NDArray[np.int64]
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class Start:
    """What training begins with.

    Attributes
    ----------
    first : ndarray of shape (s, d), float16
        Rows of the sample in the order of their hashes: the first k centroids, then replacements of empty clusters.
    mean : ndarray of shape (d,), float16
        Their mean, from which all rows are rounded.
    """

    first: NDArray[np.float16]
    mean: NDArray[np.float16]

    @classmethod
    def of(cls, first: NDArray[np.float16]) -> Start:
        """Compute the mean of the first rows; its sum is exact."""
        return cls(first, (first.sum(axis=0, dtype=np.float64) / len(first)).astype(np.float16))


def draw_first(rows: int, clusters: int, seed: int) -> NDArray[np.int64]:
    """Return the places of the rows of a sample that `Start` begins with: those of the lowest hashes, in that order.

    Parameters
    ----------
    rows : int
        Number of rows of the sample.
    clusters : int
        Number of centroids, k.
    seed : int

    Returns
    -------
    ndarray of shape (min(2 k, rows),), int64
    """
    return np.argsort(row_hash(np.arange(rows), seed), kind="stable")[: 2 * clusters]


def training_work(rows: int, clusters: int, d: int) -> float:
    """Return the multiply-adds of the training on some rows of d values, all iterations together."""
    return float(ITERATIONS) * rows * clusters * d


def count_levels(d: int) -> int:
    """Return the largest absolute value of rounded vectors of d values: their products are below 2**24."""
    return min(127, math.isqrt((2**24 - 1) // d))


@njit
def _round(x, mean, levels, values, steps):  # type: ignore[no-untyped-def]
    """Round x - mean (n, d) to integers of at most `levels` steps, with a step for each row."""
    for i in range(x.shape[0]):
        largest = 0.0
        for j in range(x.shape[1]):
            largest = max(largest, abs(np.float64(x[i, j]) - mean[j]))
        step = max(1.0, np.ceil(largest * 1048576.0 / levels))
        steps[i] = np.int64(step)
        for j in range(x.shape[1]):
            values[i, j] = np.int8(np.rint((np.float64(x[i, j]) - mean[j]) * 1048576.0 / step))


def round_rows(unit: NDArray[np.float16], mean: NDArray[np.float16]) -> Rounded:
    """Round vectors to 8 bits around a mean.

    Parameters
    ----------
    unit : ndarray of shape (n, d), float16
        Unit vectors.
    mean : ndarray of shape (d,), float16
        What is subtracted of each.
    """
    n, d = unit.shape
    rounded = Rounded(np.empty((n, d), np.int8), np.empty(n, np.int64))
    for rows in _blocks(n):
        _round(
            unit[rows].astype(np.float32), mean.astype(np.float64), float(count_levels(d)), *(a[rows] for a in rounded)
        )
    return rounded


@njit(fastmath=_EXACT)
def _find_nearest(products, steps, near, labels):  # type: ignore[no-untyped-def]
    """Write for each row of products (n, k) the first centroid of the largest product * step * scale + offset."""
    for i in range(products.shape[0]):
        row, step = products[i], np.float64(steps[i])
        best, place = -1e300, 0
        for first in range(0, row.shape[0], _LANES):
            lanes = slice(first, first + _LANES)
            some, scales, offsets = row[lanes], near.scales[lanes], near.offsets[lanes]
            top = -1e300
            for c in range(_LANES):
                score = np.float64(some[c]) * scales[c] * step + offsets[c]
                top = score if score > top else top
            if top > best:
                best, place = top, first
        while np.float64(row[place]) * near.scales[place] * step + near.offsets[place] < best:
            place += 1
        labels[i] = place


@njit
def _add(values, steps, labels, sums, counts):  # type: ignore[no-untyped-def]
    """Add each row to the sum of its cluster."""
    for i in range(values.shape[0]):
        label, step = labels[i], steps[i]
        counts[label] += 1
        for j in range(values.shape[1]):
            sums[label, j] += step * np.int64(values[i, j])


class Near(NamedTuple):
    """Centroids, rounded, and what turns a product with one into a score; padded to a multiple of 64 centroids.

    Attributes
    ----------
    values : ndarray of shape (p, d), int8
    scales : ndarray of shape (p,), float64
        Their steps, whole numbers.
    offsets : ndarray of shape (p,), float64
        Product of each centroid with the mean in units of 2**-40, a whole number; very low for padding.
    """

    values: NDArray[np.int8]
    scales: NDArray[np.float64]
    offsets: NDArray[np.float64]

    @classmethod
    def of(cls, centroids: NDArray[np.float16], mean: NDArray[np.float16]) -> Near:
        """Round centroids (k, d) around the mean (d,) of the rows."""
        values, steps = round_rows(centroids, mean)
        # The sum is exact in float64, in any order: products of float16 values are multiples of 2**-48.
        with_mean = centroids.astype(np.float64) @ mean.astype(np.float64)
        offsets = np.rint(np.ldexp(with_mean, 2 * STEP_BITS))
        more = -len(values) % _LANES
        return cls(
            np.pad(values, ((0, more), (0, 0))),
            np.pad(steps, (0, more)).astype(np.float64),
            np.pad(offsets, (0, more), constant_values=PADDING),
        )


def assign_and_add(rows: Rounded, centroids: NDArray[np.float16], mean: NDArray[np.float16], work: float) -> Sums:
    """Find the centroid of each row of a piece by rounded products, and add the rows up by centroid.

    Parameters
    ----------
    rows : Rounded of n rows
        A piece of the sample.
    centroids : ndarray of shape (k, d), float16
        Unit vectors; one may be zero.
    mean : ndarray of shape (d,), float16
        Mean around which the rows are rounded.
    work : float
        Multiply-adds of this process in the whole training: many may pay for loading torch.
    """
    near = Near.of(centroids, mean)
    multiply = _Products(near.values, work)
    labels = np.empty(_ROWS, np.int64)
    found = Sums(np.zeros(centroids.shape, np.int64), np.zeros(len(centroids), np.int64))
    for block in _blocks(len(rows.values)):
        values, steps = np.array(rows.values[block]), rows.steps[block]
        _find_nearest(multiply(values), steps, near, labels)
        _add(values, steps, labels, *found)
    return found


class _Products:
    """Multiplies blocks of rounded rows with all centroids, exactly, into one buffer."""

    def __init__(self, values: NDArray[np.int8], work: float) -> None:
        """Prepare for centroids (k, d)."""
        self.rounded = int8_is_worth_it(work)
        self.other: NDArray[Any] = values if self.rounded else np.ascontiguousarray(values.T, dtype=np.float32)
        self.out: NDArray[Any] = np.empty((_ROWS, len(values)), np.int32 if self.rounded else np.float32)

    def __call__(self, rows: NDArray[np.int8]) -> NDArray[Any]:
        """Return the products of n rows (n, k), int32 or float32; the next call writes over them."""
        out = self.out[: len(rows)]
        if self.rounded:
            return multiply_int8(rows, self.other, out)
        return np.matmul(rows.astype(np.float32), self.other, out=out)


def update(
    parts: Iterable[Sums], centroids: NDArray[np.float16], start: Start, used: int
) -> tuple[NDArray[np.float16], int]:
    """Return the next centroids, and how many of the first rows are used.

    Parameters
    ----------
    parts : iterable of Sums
        What each piece adds; one at a time is in memory.
    centroids : ndarray of shape (k, d), float16
        Present centroids; one stays if its cluster is empty and no first row is left.
    start : Start
    used : int
        Number of first rows that have been centroids.

    Returns
    -------
    centroids : ndarray of shape (k, d), float16
    used : int
    """
    sums, counts = np.zeros(centroids.shape, np.int64), np.zeros(len(centroids), np.int64)
    for part in parts:
        sums += part.sums
        counts += part.counts
    sums <<= VALUE_BITS - STEP_BITS
    sums += counts[:, None] * np.ldexp(start.mean.astype(np.float64), VALUE_BITS).astype(np.int64)
    updated, bad = unit_float16(sums.astype(np.float64))
    for cluster in np.flatnonzero(bad):  # empty, but for vectors that cancel each other
        updated[cluster] = start.first[used] if used < len(start.first) else centroids[cluster]
        used = min(used + 1, len(start.first))
    return updated, used


def _blocks(n: int) -> Iterator[slice]:
    """Yield slices of rows that are handled at a time."""
    for first in range(0, n, _ROWS):
        yield slice(first, min(n, first + _ROWS))
