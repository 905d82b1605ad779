"""Shares by EM: by hand, on data of known shares, and as the most probable ones among others."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fairdedup.core.memberships import compute_memberships
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.share_estimate import STRENGTH, correct_shares, equal_priors, estimate_shares
from fairdedup.core.similarity import Vectors, unit_float16


def test_sure_memberships_are_counted_and_each_concept_has_some_rows_beforehand() -> None:
    q = np.repeat(np.eye(3), [70, 30, 0], axis=0)
    expected = (np.array([70, 30, 0]) + STRENGTH) / (100 + 3 * STRENGTH)
    np.testing.assert_allclose(estimate_shares(q, np.full(3, 1 / 3)), expected, atol=1e-12)
    np.testing.assert_allclose(estimate_shares(np.zeros((0, 3)), np.array([0.5, 0.3, 0.2])), 1 / 3, atol=1e-12)


def test_rows_without_the_attribute_count_for_nothing() -> None:
    q = np.concatenate([np.repeat(np.eye(2), [60, 40], axis=0), np.zeros((1000, 2))])
    np.testing.assert_allclose(estimate_shares(q, np.full(2, 0.5)), np.array([65, 45]) / 110, atol=1e-12)


def log_posterior(q: np.ndarray, prior: np.ndarray, shares: np.ndarray) -> float:
    rest = 1 - q.sum(axis=1)
    return float(np.log(q @ (shares / prior) + rest).sum() + STRENGTH * np.log(shares).sum())


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), c=st.integers(2, 6))
def test_no_other_shares_are_much_more_probable(seed: int, c: int) -> None:
    rng = np.random.default_rng(seed)
    q = rng.dirichlet(rng.uniform(0.2, 2, c), 300)
    prior = rng.dirichlet(np.full(c, 5.0))
    found = estimate_shares(q, prior)
    assert np.isclose(found.sum(), 1)
    for other in rng.dirichlet(100 * found, 20):
        assert log_posterior(q, prior, np.maximum(other, 1e-9)) < log_posterior(q, prior, found) + 0.5


def test_corrected_memberships_have_the_shares_of_the_data_and_the_others_do_not() -> None:
    rng = np.random.default_rng(0)
    d, truth, noise = 16, np.array([0.8, 0.15, 0.05]), 0.4
    prototypes = Prototypes.of({"tone": dict(zip("abc", np.eye(d)[:3], strict=True))})
    rows = np.repeat(np.arange(3), (4000 * truth).astype(int))
    unit, _ = unit_float16(np.eye(d)[rows] + noise * rng.normal(size=(len(rows), d)))
    # At equal shares, the log odds of two concepts are the difference of cosines times |x| / noise**2.
    length = np.sqrt(1 + d * noise**2)
    known = prototypes.with_temperatures({"tone": round(noise**2 / length, 4)})
    found, shares = correct_shares(known, known.scores(Vectors.of(unit)), equal_priors(known))
    np.testing.assert_allclose(list(shares["tone"].values()), truth, atol=0.02)

    def measure(own: Prototypes) -> np.ndarray:
        (scores,) = own.scores(Vectors.of(unit))
        return compute_memberships(scores, own.attributes[0].temperature or 0, 3).mean(axis=0) / 1e9

    np.testing.assert_allclose(measure(found), truth, atol=0.02)
    assert np.abs(measure(known) - truth).max() > 0.05
    assert found.attributes[0].vectors is known.attributes[0].vectors


def test_an_attribute_without_a_temperature_gets_the_automatic_one() -> None:
    rng = np.random.default_rng(1)
    prototypes = Prototypes.of({"tone": {"a": rng.normal(size=8), "b": rng.normal(size=8)}})
    unit, _ = unit_float16(rng.normal(size=(50, 8)))
    found, _ = correct_shares(prototypes, prototypes.scores(Vectors.of(unit)), equal_priors(prototypes))
    (before,), (after,) = prototypes.scores(Vectors.of(unit)), found.scores(Vectors.of(unit))
    assert found.attributes[0].temperature is not None
    np.testing.assert_array_equal(after, before + np.array(found.attributes[0].offsets))
    np.testing.assert_array_equal(found.similarity(Vectors.of(unit))[0], before)
