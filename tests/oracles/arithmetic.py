"""Vectors, cosines, memberships and shares of the oracle: float64 and exact sums, one definition after the other.

A sum, a share or a rounding is exact (integers, fractions, 50-digit decimals), so that nothing depends on the order of
a float sum. "Ruling" marks a decision where the text leaves room.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
Target = str | Mapping[str, Mapping[str, float]]

PRECISE = Context(prec=50)
HALF_UNIT = 24  # every float16 is a whole number of 2**-24


def unit16(x: ArrayLike) -> Array:
    """Scale vectors, (d,) or (n, d), to unit length in float64 and round them once to float16.

    Ruling: an exact power of two is taken out first, so that no square overflows or underflows; then the
    division by the float64 norm; then double to half directly. A zero vector (only a centroid may be) stays.
    """
    values = np.asarray(x, dtype=np.float64)
    units = np.zeros(values.shape, dtype=np.float16)
    for row, unit in zip(np.atleast_2d(values), np.atleast_2d(units), strict=True):
        largest = np.abs(row).max()
        if largest > 0:
            scaled = np.ldexp(row, -np.frexp(largest)[1])  # the largest is now in [0.5, 1)
            unit[:] = (scaled / math.sqrt(math.fsum(scaled * scaled))).astype(np.float16)
    return units


def cosine_matrix(a: Array, b: Array) -> Array:
    """Cosine similarities (n, m) float64 of float16 rows.

    Ruling: min(1, dot / sqrt(|a|² |b|²)); the sums are exact in float64 in any order. A zero vector gives 0.
    """
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    squares = np.outer((a64 * a64).sum(axis=1), (b64 * b64).sum(axis=1))
    cosines = np.divide(a64 @ b64.T, np.sqrt(squares), out=np.zeros(squares.shape), where=squares > 0)
    return np.minimum(1.0, cosines)


def duplicates(cosines: Array, e: int) -> Array:
    """Which cosines make semantic duplicates at eps = e ten-thousandths.

    Ruling: cosine > 1.0 - e / 10000 in float64, strict, with e an integer from 0 to 20001.
    """
    return np.asarray(cosines > 1.0 - e / 10000)


def quantised(values: ArrayLike) -> Array:
    """Integer nearest to a million times the value; ruling: float64 product, halves to even."""
    return np.asarray(np.rint(np.asarray(values, dtype=np.float64) * 1e6).astype(np.int64))


def centroids_of_labels(x16: Array, labels: Array) -> dict[int, Array]:
    """Cluster number -> (d,) float16; ruling: the exact sum of its float16 vectors, scaled by `unit16`."""
    x64 = x16.astype(np.float64)  # sums of multiples of 2**-24 are exact below 2**28 rows
    return {int(label): unit16(x64[labels == label].sum(axis=0)) for label in np.unique(labels)}


def assign(x16: Array, centroids16: Array) -> Array:
    """Each row's most similar centroid by float64 cosine; ruling: ties to the lower number."""
    return np.asarray(np.argmax(cosine_matrix(x16, centroids16), axis=1))


def visiting_order(centroid_similarity: Array) -> list[int]:
    """Positions by quantised centroid similarity ascending, then row (positions ascend with the row)."""
    keys = quantised(centroid_similarity)
    return sorted(range(len(keys)), key=lambda i: (keys[i], i))


def root_spread(values: Sequence[int]) -> Decimal:
    """Return n times the population standard deviation; exactly 0 only where all values are equal."""
    n, total = len(values), sum(values)
    with localcontext(PRECISE):
        return Decimal(n * sum(v * v for v in values) - total * total).sqrt()


def standardised(values: Sequence[int], first: int | None = None) -> list[Decimal]:
    """(value - mean) / population standard deviation, of the first so many values or of all.

    Ruling: all 0 where all values are equal, judged exactly.
    """
    over = values[:first]
    n, total, spread = len(over), sum(over), root_spread(over)
    with localcontext(PRECISE):
        return [Decimal(n * v - total) / spread if spread else Decimal(0) for v in values]


def zscores(similarity: Array, first: int | None = None) -> Array:
    """`calibrate: zscore`: float64 similarities (n, c) standardised per concept over the data set, quantised.

    `first`: the mean and the deviation are those of so many rows from the front, the first run's.

    Ruling: population standard deviation; a concept with no spread gives 0.
    """
    columns = []
    for column in similarity.T.tolist():
        ratios = [value.as_integer_ratio() for value in column]
        common = max(denominator for _, denominator in ratios)  # all are powers of two
        exact = [numerator * (common // denominator) for numerator, denominator in ratios]
        with localcontext(PRECISE):
            columns.append([round(z * 10**6) for z in standardised(exact, first)])
    return np.array(columns, dtype=np.int64).T


def temperature_of(similarity: Array) -> float:
    """Automatic temperature from similarities (n, c + m) to concepts and absent prototypes together.

    Ruling: max(rint(median / 3 * 1e4) / 1e4, 0.0001), the median by numpy over rows of (largest - mean).
    """
    gaps = [max(row) - math.fsum(row) / len(row) for row in similarity.tolist()]
    return max(float(np.rint(np.median(gaps) / 3 * 1e4)) / 1e4, 0.0001)


def membership(similarity: Array, concepts: int, temperature: float) -> Array:
    """Memberships q (n, concepts) int64 in units of 1e-9; ruling: rint(q * 1e9) of the exact softmax.

    The softmax runs over all columns, concepts first; the absent prototypes after them are then dropped.
    """
    table = []
    with localcontext(PRECISE):
        for row in similarity.tolist():
            largest = Decimal(max(row))
            weights = [((Decimal(s) - largest) / Decimal(temperature)).exp() for s in row]
            total = sum(weights)
            table.append([round(weight / total * 10**9) for weight in weights[:concepts]])
    return np.array(table, dtype=np.int64)


def shares(q: Array) -> list[Fraction]:
    """Column sums of q over their sum; all 0 where every membership is 0 (the text leaves this open)."""
    sums = q.sum(axis=0).tolist()
    return [Fraction(s, sum(sums)) if any(sums) else Fraction(0) for s in sums]


def utility(q: Array, target: Sequence[Fraction], current: Sequence[Fraction]) -> tuple[list[int], int]:
    """Per row Σ q (target - current), as whole numbers and the common denominator they are over."""
    gaps = [t - s for t, s in zip(target, current, strict=True)]
    common = math.lcm(*(gap.denominator for gap in gaps))
    return (q.astype(object) @ np.array([int(gap * common) for gap in gaps], dtype=object)).tolist(), common


def target_shares(target: Target, attribute: str, names: list[str], q: Array) -> list[Fraction]:
    """Target shares of one attribute.

    Ruling: "uniform" is 1/c, "data" the data's own, otherwise attribute -> {concept: share}. This file's
    reading: a given share is the decimal as written (0.3 is 3/10), so that it can equal the data's exactly.
    """
    if target == "uniform":
        return [Fraction(1, len(names))] * len(names)
    if target == "data":
        return shares(q)
    assert not isinstance(target, str), target
    return [Fraction(str(target[attribute][name])) for name in names]
