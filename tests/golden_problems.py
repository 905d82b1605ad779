"""Embeddings, labels and prototypes that are the same on every machine: only integers and exact steps make them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Draw:
    """Random values from PCG64's raw bits, whose stream never changes, by integers and exact steps only."""

    def __init__(self, *seed: int) -> None:
        self._bits = np.random.PCG64(list(seed))

    def whole(self, below: int, *shape: int) -> NDArray[np.int64]:
        """Return integers from 0 to below - 1."""
        raw = self._bits.random_raw(int(np.prod(shape, dtype=np.int64)))
        return ((raw >> np.uint64(11)) % np.uint64(below)).astype(np.int64).reshape(shape)

    def noise(self, *shape: int) -> NDArray[np.float64]:
        """Return roughly normal values: sums of four uniform ones."""
        return (self.whole(2001, 4, *shape).sum(axis=0) - 4000) / 1000

    def pick(self, values: Any, *shape: int) -> NDArray[Any]:
        """Return values drawn uniformly from those given."""
        return np.asarray(values)[self.whole(len(values), *shape)]


def planted(draw: Draw, n: int, d: int, offset: float = 0.0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return n vectors with duplicates at many distances (also exact copies), and the number of each one's base."""
    bases = draw.noise(max(1, n // 5), d) + offset * draw.noise(d)
    own = draw.whole(len(bases), n)
    spread = draw.pick([0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5], n)
    return bases[own] + draw.noise(n, d) * spread[:, None], own


def concepts(draw: Draw, x: NDArray[np.float64]) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Return prototypes of two attributes, near some of the vectors; one attribute has absent prototypes."""

    def near(*rows: int) -> NDArray[np.float64]:
        return np.stack([x[row] + draw.noise(x.shape[1]) for row in rows])

    n = len(x)
    light, dark, young, middle, old = near(0, n // 7, n // 5, n // 3, n // 2)
    return {
        "tone": {"light": light, "dark": dark},
        "age": {"young": young, "middle": middle, "old": old, "absent": near(n - 1, n - 2)},
    }


@dataclass(frozen=True)
class Problem:
    """Embeddings with labels, and the values that options need."""

    x: NDArray[Any]
    labels: NDArray[np.int64]
    prototypes: dict[str, dict[str, NDArray[np.float64]]]
    numbers: NDArray[Any]
    protected: NDArray[np.bool_]
    ids: NDArray[Any] | None = None


@functools.cache
def problem(name: str) -> Problem:
    """Return a problem by its name."""
    number = PROBLEMS.index(name)  # also the seed
    n, d, clusters = [
        (1200, 32, 8), (3000, 48, 12), (900, 8, 5), (800, 24, 4), (700, 16, 150), (1500, 40, 1), (600, 32, 6),
        (500, 12, 7), (2000, 32, 9),
    ][number]  # fmt: skip
    draw = Draw(number, 2024)
    x, own = planted(draw, n, d, offset=2.0 if name == "offset" else 0.5)
    labels = np.where(draw.whole(10, n) == 0, draw.whole(clusters, n), own % clusters)
    prototypes = concepts(draw, x)
    numbers = np.where(draw.whole(8, n) == 0, np.nan, draw.whole(60, n) / 4)
    protected, ids = draw.whole(25, n) == 0, None
    if name == "ties":
        x, numbers = np.rint(x), draw.whole(4, n)
    elif name == "copies":
        rows = draw.whole(n // 3, n)
        x, labels = x[rows], labels[rows]
    elif name == "many":
        labels = labels * 7919 + np.where(labels % 2, 2**62, 0)  # labels need not be consecutive
    elif name == "bad":
        x[3], x[77], x[301] = np.nan, 0.0, np.inf
        protected[77] = True
        ids = np.array([f"id-{k * 7919 % 10007:05d}" for k in range(n)])
    elif name == "wild":  # antipodes, and lengths from very short to very long, in float32
        x = x * draw.pick([-1.0, 1.0], n, 1) * draw.pick([2.0**-40, 2.0**-9, 0.75, 3.0, 2.0**50], n, 1)
    return Problem(x.astype(np.float32 if name == "wild" else np.float16), labels, prototypes, numbers, protected, ids)


PROBLEMS = ["plain", "offset", "ties", "copies", "many", "one", "bad", "wild", "trained"]
