"""Soft memberships in concepts, their temperature, the target shares, and the price of a row. Ours.

What is computed from the cosines has the same bits on every machine: fixed order, and never a library's exponential.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.compiled import njit
from fairdedup.core.moments import PriceTerm, shares
from fairdedup.core.prototypes import Attribute, Prototypes
from fairdedup.core.similarity import quantised
from fairdedup.errors import UserError

MEMBERSHIP_UNIT = 1_000_000_000
LEAST_TEMPERATURE = 0.0001

_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # Cody and Waite's split of ln 2


@njit
def exp(x):  # type: ignore[no-untyped-def]
    """Return e**x for a number x <= 0, to about one unit in the last place, with the same bits on every machine.

    Libraries' exponentials differ in the last bit between processors. This one uses only IEEE 754 products and sums
    in a fixed order: reduction by ln 2, then Taylor's polynomial of degree 14.
    """
    x = max(x, -700.0)
    k = np.rint(x * 1.4426950408889634)
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    total = 1.0
    for n in range(14, 0, -1):
        total = total * (r / n) + 1.0
    return math.ldexp(total, int(k))


@njit
def _softmax(similarity, temperature, q):  # type: ignore[no-untyped-def]
    """Fill q (n, c) with the first c entries of each row's softmax of similarity (n, c + a), in units of 1e-9."""
    n, columns = similarity.shape
    weight = np.empty(columns)
    for i in range(n):
        largest = similarity[i, 0]
        for c in range(1, columns):
            largest = max(largest, similarity[i, c])
        total = 0.0
        for c in range(columns):
            weight[c] = exp((similarity[i, c] - largest) / temperature)
            total += weight[c]
        for c in range(q.shape[1]):
            q[i, c] = np.int64(np.rint(weight[c] / total * MEMBERSHIP_UNIT))


def _sum_columns(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum of the columns of values (n, c): (n,)."""
    total = np.zeros(len(values))
    for column in values.T:  # in a fixed order: numpy's own may depend on the machine
        total = total + column
    return total


def compute_gaps(similarity: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each row's gap: its largest similarity minus the mean one.

    Parameters
    ----------
    similarity : ndarray of shape (n, c), float64
        Cosines to the prototypes of an attribute.

    Returns
    -------
    ndarray of shape (n,), float64
    """
    return similarity.max(axis=1) - _sum_columns(similarity) / similarity.shape[1]


def auto_temperature(gaps: NDArray[np.float64]) -> float:
    """Return a third of the median gap, rounded to 4 decimals and at least `LEAST_TEMPERATURE`.

    Parameters
    ----------
    gaps : ndarray of shape (n,), float64
        Gaps of all rows; without rows, the result is `LEAST_TEMPERATURE`.
    """
    if not len(gaps):
        return LEAST_TEMPERATURE
    return max(float(np.rint(np.median(gaps) / 3 * 1e4)) / 1e4, LEAST_TEMPERATURE)


def choose_temperatures(
    prototypes: Prototypes, temperature: Any, gaps: Callable[[], Sequence[NDArray[np.float64]]]
) -> tuple[float, ...]:
    """Return each attribute's temperature: the option's if it is set, else its own, else the automatic one.

    Parameters
    ----------
    prototypes : Prototypes
        Attributes, some of which may have a temperature of their own.
    temperature : float, "auto" or mapping attribute -> float
        A number applies to all attributes, a mapping to those that it names; the others are "auto".
    gaps : callable
        Function that returns the gaps of each attribute. It is called only if a temperature is automatic.

    Raises
    ------
    UserError
        If a mapping names an unknown attribute, or a temperature is not a number above 0.
    """
    if isinstance(temperature, Mapping):
        prototypes, temperature = prototypes.with_temperatures(temperature), "auto"
    if temperature != "auto":
        return (float(temperature),) * len(prototypes.attributes)
    own = [a.temperature for a in prototypes.attributes]
    if None not in own:
        return tuple(float(t) for t in own if t is not None)
    return tuple(auto_temperature(g) if t is None else float(t) for t, g in zip(own, gaps(), strict=True))


def compute_memberships(similarity: NDArray[np.float64], temperature: float, concepts: int) -> NDArray[np.int64]:
    """Return the softmax of similarity / temperature, in units of 1e-9, for the first `concepts` columns.

    Parameters
    ----------
    similarity : ndarray of shape (n, c + a), float64
        Cosines to the concepts, then to the absent prototypes, which count in the softmax but are not returned.
    temperature : float
        Temperature of the softmax.
    concepts : int
        Number of concepts, c.

    Returns
    -------
    q : ndarray of shape (n, c), int64, 0 to 10**9
        Memberships.
    """
    q = np.empty((len(similarity), concepts), np.int64)
    _softmax(similarity, float(temperature), q)
    return q


def target_shares(target: Any, attribute: Attribute, sums: tuple[int, ...]) -> tuple[Fraction, ...]:
    """Return the shares that an attribute's concepts should have.

    Parameters
    ----------
    target : {"uniform", "data"} or mapping attribute -> {concept: share}
        An attribute that a mapping does not name is uniform. A share is read as the decimal that is written.
    attribute : Attribute
        Attribute with c concepts.
    sums : tuple of c int
        Sum of the memberships in each concept over the data set.

    Returns
    -------
    tuple of c Fraction

    Raises
    ------
    UserError
        If a concept is missing or unknown, or the shares do not add up to 1.
    """
    if target == "data":
        return shares(sums)
    if target == "uniform" or attribute.name not in target:
        return (Fraction(1, len(attribute.concepts)),) * len(attribute.concepts)
    given = target[attribute.name]
    if not isinstance(given, Mapping) or set(given) != set(attribute.concepts):
        given = given if isinstance(given, Mapping) else [given]
        raise UserError(f"`target`[{attribute.name!r}] names {sorted(given)}: give {sorted(attribute.concepts)}")
    numbers = [float(given[c]) for c in attribute.concepts]
    if not all(map(math.isfinite, numbers)):
        raise UserError(f"`target`[{attribute.name!r}] holds {numbers}: shares must be finite numbers")
    out = tuple(Fraction(str(number)) for number in numbers)
    if not (min(out) >= 0 and abs(float(sum(out)) - 1) <= 1e-6):
        total = float(sum(out))
        raise UserError(f"`target`[{attribute.name!r}] adds up to {total:g}: shares must be >= 0 and add up to 1")
    return out


def compute_price(memberships: list[NDArray[np.int64]], terms: Sequence[PriceTerm]) -> NDArray[np.int64]:
    """Return the price of each row: the standardised prices of its attributes, added up and quantised.

    Parameters
    ----------
    memberships : list of ndarray of shape (n, c), int64
        Memberships in units of 1e-9, an entry for each attribute.
    terms : sequence of PriceTerm
        Price of each attribute; a price without spread adds 0.

    Returns
    -------
    price : ndarray of shape (n,), int64
    """
    total = np.zeros(len(memberships[0]))
    for q, term in zip(memberships, terms, strict=True):
        total = total + term.standardise(q)
    return quantised(total)


def check_target(target: Any, prototypes: Prototypes) -> None:
    """Refuse a mapping that names an attribute which the prototypes do not have.

    Parameters
    ----------
    target : {"uniform", "data"} or mapping attribute -> {concept: share}
        Shares to aim at.
    prototypes : Prototypes
        Attributes that exist.

    Raises
    ------
    UserError
        If an attribute is unknown. The message lists those that exist.
    """
    if isinstance(target, Mapping):
        names = [a.name for a in prototypes.attributes]
        for name in target:
            if name not in names:
                raise UserError(f"`target` names attribute {name!r}: the prototypes have {', '.join(names)}")
