"""The leftover: how many kept samples still have a kept duplicate, and between which shares that lies.

Rulings, where the text leaves room:

- Re-admitted rows are left aside on both sides: none is in the sample, and none counts as a duplicate.
- The sample is of this run's kept rows: those with the lowest hash of row and seed + 1, ties to the lowest row. (By
  seed itself `random-neighbour` decides who is kept, so a sample by it would be drawn from among its winners.) It is
  compared with all that is kept, by earlier runs of the line too. A pair of two protected rows counts as any other.
- A sample may have duplicates of several kinds, and then it counts for each of them. `comparable` means: comparable,
  and of another cluster; `elsewhere`: of another cluster, and not comparable. Rows with different values of `within`
  are not compared here either.
- The interval is the two-sided one: each tail has 2.5 %, and where none or all are found its end is 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from oracles.arithmetic import Array, cosine_matrix, duplicates
from oracles.reach import row_hash


class Leftover(NamedTuple):
    """Out of `looked_up` kept rows, how many have a kept duplicate of each kind, and of any."""

    looked_up: int
    own: int
    comparable: int
    elsewhere: int
    any: int


def sample_rows(kept: Sequence[int], size: int, seed: int) -> list[int]:
    """Return the seeded sample of kept rows that are looked up, ascending."""
    return sorted(sorted(kept, key=lambda row: (row_hash(row, seed + 1), row))[:size])


def count_leftover(
    x16: Array, labels: Array, comparable: Array, same: Array, e: int, sample: Sequence[int], kept: Sequence[int]
) -> Leftover:
    """Compare each row of `sample` with all of `kept`; rows are numbers in x16, the matrices are (n, n)."""
    own = across = elsewhere = either = 0
    others = np.array(sorted(kept), dtype=np.int64)
    for row in sample:
        near = duplicates(cosine_matrix(x16[[row]], x16[others]), e)[0] & same[row, others] & (others != row)
        found = others[near].tolist()
        in_own = any(labels[i] == labels[row] for i in found)
        in_comparable = any(labels[i] != labels[row] and comparable[row, i] for i in found)
        in_others = any(labels[i] != labels[row] and not comparable[row, i] for i in found)
        own, across, elsewhere = own + in_own, across + in_comparable, elsewhere + in_others
        either += bool(found)
    return Leftover(len(sample), own, across, elsewhere, either)


def interval(found: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Clopper-Pearson interval of a share, by bisection of the binomial's tails (n up to some thousands)."""
    tail = (1 - confidence) / 2

    def at_least(k: int, share: float) -> float:
        if share in (0.0, 1.0):
            return float(k == 0 or share == 1.0)
        logs = [
            math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1)
            + i * math.log(share) + (n - i) * math.log1p(-share)
            for i in range(k, n + 1)
        ]  # fmt: skip
        return math.fsum(math.exp(value) for value in logs)

    def solve(k: int, wanted: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if at_least(k, middle) < wanted else (low, middle)
        return high

    lower = 0.0 if found == 0 else solve(found, tail)
    upper = 1.0 if found == n else solve(found + 1, 1 - tail)
    return lower, upper
