"""Concepts in embedding space: prototypes, calibrated similarity, soft membership and the price of a row.

FairDeDup (Slyman et al. 2024) section 3.2 for prototypes; membership and price are ours. Everything after the cosine
is computed so that it is the same on any machine: fixed order, no library exponential.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.compiled import njit
from fairdedup.core.moments import PriceTerm, shares
from fairdedup.core.similarity import Vectors, cosines, quantised, reason, unit_float16
from fairdedup.errors import UserError

ABSENT = "absent"
MEMBERSHIP_UNIT = 1_000_000_000
LEAST_TEMPERATURE = 0.0001

_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # Cody and Waite's split of ln 2


@dataclass(frozen=True)
class Attribute:
    """Concepts that exclude each other.

    Attributes
    ----------
    name : str
    concepts : tuple of str
    vectors : ndarray of shape (c, d), float16
        A prototype for each concept.
    absent : ndarray of shape (a, d), float16
        Prototypes of pictures that the attribute does not apply to; a may be 0.
    temperature : float or None
        Of the membership softmax, where a calibration has found it; None: as the options say.
    """

    name: str
    concepts: tuple[str, ...]
    vectors: NDArray[np.float16]
    absent: NDArray[np.float16]
    temperature: float | None = None


@dataclass(frozen=True)
class Prototypes:
    """The attributes, in the order in which they were listed."""

    attributes: tuple[Attribute, ...]

    @property
    def dimension(self) -> int:
        """Number of values of each prototype."""
        return self.attributes[0].vectors.shape[1]

    @property
    def concepts(self) -> list[str]:
        """Concepts of all attributes, as ``attribute=concept``."""
        return [f"{a.name}={c}" for a in self.attributes for c in a.concepts]

    @classmethod
    def of(cls, prototypes: Any) -> Prototypes:
        """Read prototypes from an array (c, d), or a mapping attribute -> {concept: (d,)}.

        A mapping's concept ``absent`` holds one vector (d,) or several (a, d).

        Raises
        ------
        UserError
            If a vector is zero or not finite, or the dimensions differ, or there is nothing in it.
        """
        if isinstance(prototypes, Prototypes):
            return prototypes
        if not isinstance(prototypes, Mapping):
            array = np.asarray(prototypes)
            if array.ndim != 2:
                raise UserError(f"prototypes have shape {array.shape}: give (concepts, d) or a dict of attributes")
            prototypes = {"concept": {str(k): v for k, v in enumerate(array)}}
        attributes = []
        for name, members in prototypes.items():
            if not isinstance(members, Mapping):
                raise UserError(f"prototypes[{name!r}] is no dict: give {{concept: vector of d values}}")
            listed = [concept for concept in members if concept != ABSENT]
            if not listed:
                raise UserError(f"prototypes[{name!r}] names no concept: give at least one")
            vectors = _unit([members[c] for c in listed], [f"prototypes[{name!r}][{c!r}]" for c in listed])
            missing = np.asarray(members.get(ABSENT, np.zeros((0, vectors.shape[1]))), np.float64)
            missing = missing[None] if missing.ndim == 1 else missing
            absent = _unit(list(missing), [f"prototypes[{name!r}]['absent']"] * len(missing), vectors.shape[1])
            attributes.append(Attribute(str(name), tuple(map(str, listed)), vectors, absent))
        if not attributes:
            raise UserError("prototypes are empty: give at least one attribute with one concept")
        dimensions = {a.vectors.shape[1] for a in attributes} | {a.absent.shape[1] for a in attributes}
        if len(dimensions) > 1:
            raise UserError(f"prototypes have {sorted(dimensions)} dimensions: all must come from one model")
        return cls(tuple(attributes))

    def at(self, temperatures: Mapping[str, float]) -> Prototypes:
        """Return these prototypes with the temperatures of the attributes that are named.

        Raises
        ------
        UserError
            If there is no such attribute, or a temperature is no number above 0.
        """
        names = [a.name for a in self.attributes]
        for name, value in temperatures.items():
            if name not in names:
                raise UserError(f"temperature names attribute {name!r}: the prototypes have {', '.join(names)}")
            if not (isinstance(value, Real) and 0 < float(value) < math.inf):
                raise UserError(f"temperature[{name!r}] is {value!r}: give a number above 0")
        return Prototypes(
            tuple(replace(a, temperature=temperatures.get(a.name, a.temperature)) for a in self.attributes)
        )

    def same_as(self, other: Prototypes) -> bool:
        """Return whether the other's attributes, concepts, vectors and temperatures are these."""
        ours, theirs = (
            [(a.name, a.concepts, a.vectors.tolist(), a.absent.tolist(), a.temperature) for a in p.attributes]
            for p in (self, other)
        )
        return ours == theirs

    def similarity(self, vectors: Vectors, absent: bool) -> list[NDArray[np.float64]]:
        """Return each attribute's cosines (n, c), or (n, c + a) with the absent prototypes behind."""
        out = []
        for a in self.attributes:
            own = np.concatenate((a.vectors, a.absent)) if absent else a.vectors
            out.append(cosines(vectors, Vectors.of(own)))
        return out


def _unit(vectors: list[Any], places: list[str], dimension: int = 0) -> NDArray[np.float16]:
    if not vectors:
        return np.zeros((0, dimension), np.float16)
    arrays = [np.asarray(v, np.float64) for v in vectors]
    for array, place in zip(arrays, places, strict=True):
        if array.shape != arrays[0].shape or array.ndim != 1 or not array.size:
            raise UserError(f"{place} has shape {array.shape}: every prototype is one vector of the same d values")
    unit, bad = unit_float16(np.stack(arrays))
    for code, place in zip(bad, places, strict=True):
        if code:
            raise UserError(f"{place}: {reason(int(code))}; give a vector of the encoder that made the embeddings")
    return unit


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


def _sum_of_columns(values: NDArray[np.float64]) -> NDArray[np.float64]:
    total = np.zeros(len(values))
    for column in values.T:  # one order everywhere, whatever numpy does for speed
        total = total + column
    return total


def gap(similarity: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each row's largest minus mean similarity to the prototypes of an attribute (n, c)."""
    return similarity.max(axis=1) - _sum_of_columns(similarity) / similarity.shape[1]


def auto_temperature(gaps: NDArray[np.float64]) -> float:
    """Return a third of the median gap, to 4 decimals and at least 0.0001; that, too, where there are no gaps."""
    if not len(gaps):
        return LEAST_TEMPERATURE
    return max(float(np.rint(np.median(gaps) / 3 * 1e4)) / 1e4, LEAST_TEMPERATURE)


def temperatures_of(
    prototypes: Prototypes, asked: Any, gaps: Callable[[], Sequence[NDArray[np.float64]]]
) -> tuple[float, ...]:
    """Return each attribute's temperature: the one that is asked for, else its own, else the automatic one.

    Parameters
    ----------
    prototypes : Prototypes
    asked : float, "auto" or mapping attribute -> float
        A mapping is for the attributes that it names, "auto" for the others.
    gaps : callable
        Gives the gaps of each attribute; called only if one needs them.
    """
    if isinstance(asked, Mapping):
        prototypes, asked = prototypes.at(asked), "auto"
    if asked != "auto":
        return (float(asked),) * len(prototypes.attributes)
    own = [a.temperature for a in prototypes.attributes]
    if None not in own:
        return tuple(float(t) for t in own if t is not None)
    return tuple(auto_temperature(g) if t is None else float(t) for t, g in zip(own, gaps(), strict=True))


def membership(similarity: NDArray[np.float64], temperature: float, concepts: int) -> NDArray[np.int64]:
    """Return the softmax of similarity / temperature, in units of 1e-9, for the first `concepts` columns.

    Parameters
    ----------
    similarity : ndarray of shape (n, c + a), float64
        Concepts first, then the absent prototypes, which take their part of the softmax and are dropped.
    temperature : float
    concepts : int
        c.

    Returns
    -------
    q : ndarray of shape (n, c), int64, 0 to 10**9
    """
    q = np.empty((len(similarity), concepts), np.int64)
    _softmax(similarity, float(temperature), q)
    return q


def target_shares(target: Any, attribute: Attribute, sums: tuple[int, ...]) -> tuple[Fraction, ...]:
    """Return the shares that an attribute's concepts should have.

    Parameters
    ----------
    target : {"uniform", "data"} or mapping attribute -> {concept: share}
        An attribute that a mapping does not name is uniform. A share counts as the decimal that is written.
    attribute : Attribute
    sums : tuple of int
        Memberships of the whole data set.

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
        raise UserError(f"target[{attribute.name!r}] names {sorted(given)}: give {sorted(attribute.concepts)}")
    numbers = [float(given[c]) for c in attribute.concepts]
    if not all(map(math.isfinite, numbers)):
        raise UserError(f"target[{attribute.name!r}] holds {numbers}: give shares that are numbers")
    out = tuple(Fraction(str(number)) for number in numbers)
    if not (min(out) >= 0 and abs(float(sum(out)) - 1) <= 1e-6):
        raise UserError(f"target[{attribute.name!r}] adds up to {float(sum(out)):g}: shares are >= 0 and add up to 1")
    return out


def price(memberships: list[NDArray[np.int64]], terms: Sequence[PriceTerm]) -> NDArray[np.int64]:
    """Return the price of each row: u per attribute, standardised over the data set, added up, quantised.

    Parameters
    ----------
    memberships : list of ndarray of shape (n, c), int64
        In units of 1e-9, an entry for each attribute.
    terms : sequence of PriceTerm
        Of each attribute; one with no spread gives 0.
    """
    total = np.zeros(len(memberships[0]))
    for q, term in zip(memberships, terms, strict=True):
        total = total + term.standardised(q)
    return quantised(total)
