"""An eps is suggested where the histogram of nearest-neighbour cosines has a valley under the near-duplicates."""

from __future__ import annotations

import numpy as np
import pytest

from fairdedup.core.eps_suggestion import count_cosines, suggest_eps


def mixture(near: int, others: int, centre: float = 0.75, spread: float = 0.03) -> np.ndarray:
    """Return cosines of near-duplicates over 0.97 and of other samples around a smaller value."""
    rng = np.random.default_rng(0)
    return np.concatenate((rng.uniform(0.97, 1.0, near), rng.normal(centre, spread, others)))


@pytest.mark.parametrize(("near", "others"), [(50, 500), (300, 300), (20, 1000)])
def test_the_threshold_is_between_near_duplicates_and_the_others(near, others):
    cosines = mixture(near, others)
    eps = suggest_eps(count_cosines(cosines))
    assert eps is not None
    assert np.count_nonzero(cosines > 1 - eps) == near


@pytest.mark.parametrize("cosines", [
    mixture(0, 1000), mixture(1, 1000), mixture(1000, 0), mixture(5, 10), mixture(1000, 5, 0.68, 0.01),
    np.zeros(0), np.full(100, np.nan),
    np.random.default_rng(1).uniform(0.5, 1, 5000),
])  # fmt: skip
def test_where_nothing_stands_out_nothing_is_suggested(cosines):
    assert suggest_eps(count_cosines(cosines)) is None


def test_cosines_are_counted_in_hundredths():
    counts = count_cosines(np.array([-1.0, 0.0, 0.949999, 0.95, 1.0, np.nan]))
    assert counts.sum() == 5 and len(counts) == 201
    assert [int(k) - 100 for k in np.flatnonzero(counts)] == [-100, 0, 94, 95, 100]
