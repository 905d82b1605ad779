"""Estimate how common each concept is in a data set, and offsets that make memberships fit these shares.

A softmax over captions, or one that was fitted to labels, takes concepts to be as common as where it comes from. Where
one of them is much more common in the data, memberships are too small for it and too large for all others. EM finds the
shares without labels (Saerens, Latinne and Decaestecker 2002, equations 2.9 and 4). Its result is saved, since its
floats may differ between machines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.memberships import auto_temperature, compute_gaps
from fairdedup.core.prototypes import Prototypes

STRENGTH = 5.0  # rows added to each concept, so that no share becomes 0
MOST_STEPS = 30
SETTLED = 1e-6  # largest change of a share at which EM ends
DECIMALS = 6  # of an offset


def estimate_shares(q: NDArray[np.float64], prior: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the shares of the concepts under which memberships of this prior are most probable.

    Parameters
    ----------
    q : ndarray of shape (n, c), float64
        Memberships of n rows. A row may add up to less than 1: the rest is that the attribute does not apply.
    prior : ndarray of shape (c,), float64
        Shares of the concepts, all above 0, where the memberships are probabilities.

    Returns
    -------
    ndarray of shape (c,), float64
        Shares, all above 0.
    """
    rest = np.clip(1.0 - q.sum(axis=1, keepdims=True), 0.0, 1.0)
    found = prior
    for _ in range(MOST_STEPS):
        weighted = q * (found / prior)
        total = weighted.sum(axis=1, keepdims=True) + rest
        mass = np.divide(weighted, total, out=np.zeros_like(weighted), where=total > 0).sum(axis=0) + STRENGTH
        known, found = found, mass / mass.sum()
        if np.abs(found - known).max() < SETTLED:
            break
    return found


def correct_shares(
    prototypes: Prototypes, scores: Sequence[NDArray[np.float64]], priors: Mapping[str, NDArray[np.float64]]
) -> tuple[Prototypes, dict[str, dict[str, float]]]:
    """Return prototypes with offsets by which memberships fit the shares of some rows, and these shares.

    Parameters
    ----------
    prototypes : Prototypes
        Prototypes without offsets. An attribute without a temperature gets the automatic one of these rows.
    scores : sequence of ndarray of shape (n, c + a), float64
        What `Prototypes.scores` returns of the rows, an entry for each attribute.
    priors : mapping of str to ndarray of shape (c,), float64
        Shares of each attribute's concepts, all above 0, where memberships without offsets are probabilities.

    Returns
    -------
    corrected : Prototypes
        An offset is temperature · ln(share / prior), to 6 decimals.
    shares : dict of str to dict of str to float
        Attribute -> {concept: share}.
    """
    temperatures, offsets, shares = {}, {}, {}
    for attribute, own in zip(prototypes.attributes, scores, strict=True):
        prior, temperature = priors[attribute.name], attribute.temperature or auto_temperature(compute_gaps(own))
        weight = np.exp((own - own.max(axis=1, keepdims=True)) / temperature)
        found = estimate_shares((weight / weight.sum(axis=1, keepdims=True))[:, : len(prior)], prior)
        temperatures[attribute.name] = temperature
        offsets[attribute.name] = [round(v, DECIMALS) for v in (temperature * np.log(found / prior)).tolist()]
        shares[attribute.name] = dict(zip(attribute.concepts, found.tolist(), strict=True))
    return prototypes.with_temperatures(temperatures).with_offsets(offsets), shares


def equal_priors(prototypes: Prototypes) -> dict[str, NDArray[np.float64]]:
    """Return equal shares of each attribute's concepts."""
    return {a.name: np.full(len(a.concepts), 1 / len(a.concepts)) for a in prototypes.attributes}
