"""Fit prototypes and a temperature to a few hundred labels, so that a softmax over captions becomes a probability.

Captions of a contrastive model favour some concepts, and are too confident or not confident enough (Guo et al. 2017).
The fit moves the prototypes on the unit sphere towards the labels; a ridge term keeps them near the captions. It is
never used without labels. Its result is saved, since its floats may differ between machines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.memberships import LEAST_TEMPERATURE
from fairdedup.errors import UserError

RIDGE = 1.0  # weight of the squared distance to the given prototypes; mean cross entropy is the other term
FOLDS = 5


@dataclass(frozen=True)
class Fit:
    """Calibrated prototypes of one attribute.

    Attributes
    ----------
    vectors : ndarray of shape (c, d), float64, unit rows
        Prototype of each concept.
    temperature : float
        Temperature of the softmax, to 4 decimals.
    """

    vectors: NDArray[np.float64]
    temperature: float

    def log_probabilities(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the logarithm of each concept's probability.

        Parameters
        ----------
        vectors : ndarray of shape (n, d), unit rows
            Samples.

        Returns
        -------
        ndarray of shape (n, c), float64
        """
        return _log_softmax(vectors @ self.vectors.T / self.temperature)


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    logits = logits - logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def calibrate(
    vectors: NDArray[np.float64], labels: NDArray[np.integer], prototypes: NDArray[np.float64], ridge: float = RIDGE
) -> Fit:
    """Fit the prototypes of one attribute and their temperature to labelled samples.

    L-BFGS, started from the given prototypes, minimises the mean cross entropy of softmax(x @ p / temperature) plus
    `ridge` times the squared distance of the prototypes from the given ones.

    Parameters
    ----------
    vectors : ndarray of shape (n, d), unit rows
        Vectors of the labelled samples.
    labels : ndarray of shape (n,), integers 0 to c - 1
        Concept of each sample.
    prototypes : ndarray of shape (c, d), unit rows
        Prototypes to start from.
    ridge : float
        Weight of the ridge term, 0 or more.

    Returns
    -------
    Fit
        Calibrated prototypes and their temperature.

    Raises
    ------
    UserError
        If there are fewer than two concepts, or one has no label.
    """
    from scipy.optimize import minimize

    c, d = prototypes.shape
    if c < 2:
        raise UserError("an attribute with one concept cannot be calibrated: choose attributes with two or more")
    missing = sorted(set(range(c)) - set(labels.tolist()))
    if missing:
        raise UserError(f"concept {missing[0]} has no label: label some samples of each concept")
    n = len(labels)
    true = np.zeros((n, c))
    true[np.arange(n), labels] = 1

    def loss(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        w, scale = x[:-1].reshape(c, d), math.exp(x[-1])
        length = np.linalg.norm(w, axis=1, keepdims=True)
        p = w / length
        similarity = vectors @ p.T
        logp = _log_softmax(scale * similarity)
        miss = (np.exp(logp) - true) / n
        by_p = scale * miss.T @ vectors
        by_w = (by_p - (by_p * p).sum(axis=1, keepdims=True) * p) / length + 2 * ridge * (w - prototypes)
        value = -float(logp[np.arange(n), labels].mean()) + ridge * float(((w - prototypes) ** 2).sum())
        return value, np.append(by_w, scale * float((miss * similarity).sum()))

    start = np.append(prototypes, math.log(1 / likeliest_temperature(vectors, labels, prototypes)))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    w = found[:-1].reshape(c, d)
    temperature = max(round(math.exp(-found[-1]), 4), LEAST_TEMPERATURE)
    return Fit(w / np.linalg.norm(w, axis=1, keepdims=True), temperature)


def likeliest_temperature(
    vectors: NDArray[np.float64], labels: NDArray[np.integer], prototypes: NDArray[np.float64]
) -> float:
    """Return the temperature, of 40 between `LEAST_TEMPERATURE` and 1, at which the labels are most probable.

    Parameters
    ----------
    vectors : ndarray of shape (n, d), unit rows
        Vectors of the labelled samples.
    labels : ndarray of shape (n,), integers 0 to c - 1
        Concept of each sample.
    prototypes : ndarray of shape (c, d), unit rows
        Prototype of each concept.
    """
    grid = np.geomspace(LEAST_TEMPERATURE, 1.0, 40)
    return float(min(grid, key=lambda t: cross_entropy(Fit(prototypes, t), vectors, labels)))


def cross_entropy(fit: Fit, vectors: NDArray[np.float64], labels: NDArray[np.integer]) -> float:
    """Return the mean cross entropy of labelled samples, in nats.

    Parameters
    ----------
    fit : Fit
        Prototypes and temperature.
    vectors : ndarray of shape (n, d), unit rows
        Vectors of the labelled samples.
    labels : ndarray of shape (n,), integers 0 to c - 1
        Concept of each sample.
    """
    return -float(fit.log_probabilities(vectors)[np.arange(len(labels)), labels].mean())


def held_out_entropy(
    vectors: NDArray[np.float64], labels: NDArray[np.integer], prototypes: NDArray[np.float64]
) -> float:
    """Return the mean cross entropy, in nats, of samples that the fit has not seen, by cross-validation.

    There are `FOLDS` folds. A concept without a label in the other folds keeps its prototype.

    Parameters
    ----------
    vectors : ndarray of shape (n, d), unit rows
        Vectors of the labelled samples.
    labels : ndarray of shape (n,), integers 0 to c - 1
        Concept of each sample.
    prototypes : ndarray of shape (c, d), unit rows
        Prototype of each concept.
    """
    fold = np.random.default_rng(0).permutation(len(labels)) % FOLDS
    total = 0.0
    for k in range(FOLDS):
        seen, unseen = fold != k, fold == k
        present = np.unique(labels[seen])
        own = prototypes.copy()
        temperature = likeliest_temperature(vectors[seen], labels[seen], prototypes)
        if len(present) > 1:
            fit = calibrate(vectors[seen], np.searchsorted(present, labels[seen]), prototypes[present])
            own[present], temperature = fit.vectors, fit.temperature
        total += cross_entropy(Fit(own, temperature), vectors[unseen], labels[unseen]) * np.count_nonzero(unseen)
    return total / len(labels)
