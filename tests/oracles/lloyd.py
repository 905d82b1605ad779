"""Training of k-means in Python's own integers, from its definition in docs/rules.md."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from oracles.arithmetic import Array, unit16
from oracles.reach import row_hash

ITERATIONS = 20


def rounded(x16: Array, mean16: Array) -> tuple[list[list[int]], list[int]]:
    """Integers and steps of vectors (n, d) less the mean: Python's division and round are correctly rounded."""
    levels = min(127, math.isqrt((2**24 - 1) // x16.shape[1]))
    rows, steps = [], []
    for row in x16:
        less = [(Fraction(float(v)) - Fraction(float(m))) * 2**20 for v, m in zip(row, mean16, strict=True)]
        step = max(1, math.ceil(float(max(map(abs, less)) / levels)))
        rows.append([round(float(v / step)) for v in less])
        steps.append(step)
    return rows, steps


def train(sample16: Array, k: int, seed: int) -> Array:
    """Centroids (k, d) float16 after 20 iterations, or once none changes."""
    m = len(sample16)
    order = sorted(range(m), key=lambda place: (row_hash(place, seed), place))[: 2 * k]
    first = [sample16[place] for place in order]
    mean = (np.sum(first, axis=0, dtype=np.float64) / len(first)).astype(np.float16)
    mean_units = [int(Fraction(float(v)) * 2**24) for v in mean]
    rows, steps = rounded(sample16, mean)
    centroids, spare = np.array(first[:k]), list(first[k:])
    for _ in range(ITERATIONS):
        near, scales = rounded(centroids, mean)
        offsets = [
            round(sum(Fraction(float(a)) * Fraction(float(b)) for a, b in zip(mean, c, strict=True)) * 2**40)
            for c in centroids
        ]
        sums = [[0] * len(mean) for _ in range(k)]
        for q, s in zip(rows, steps, strict=True):
            scores = [
                s * t * sum(a * b for a, b in zip(q, p, strict=True)) + offset
                for p, t, offset in zip(near, scales, offsets, strict=True)
            ]
            own = sums[scores.index(max(scores))]
            for j, value in enumerate(q):
                own[j] += mean_units[j] + 2**4 * s * value
        updated = unit16(np.array(sums, np.float64))
        for c in range(k):
            if not any(sums[c]):
                updated[c] = spare.pop(0) if spare else centroids[c]
        if np.array_equal(updated, centroids):
            break
        centroids = updated
    return centroids
