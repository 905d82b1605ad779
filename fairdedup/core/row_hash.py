"""Pseudo-random numbers for rows that depend on the seed and the row alone, never on how the data is divided."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def row_hash(rows: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return a pseudo-random number for each row: splitmix64 of seed and row (Steele et al. 2014).

    Parameters
    ----------
    rows : ndarray of shape (n,), int64
        Positions in the input.
    seed : int
        Seed, reduced modulo 2**64.

    Returns
    -------
    ndarray of shape (n,), int64, 0 or more
    """
    with np.errstate(over="ignore"):
        z = rows.astype(np.uint64) + np.uint64(seed % 2**64) * np.uint64(0x9E3779B97F4A7C15)
        for _ in range(2):
            z = z + np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(1)).astype(np.int64)
