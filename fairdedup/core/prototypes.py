"""Concepts in embedding space: attributes, their prototypes, and the similarity of rows to these.

FairDeDup (Slyman et al. 2024) section 3.2. This module never turns similarity into memberships: memberships.py does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.similarity import Vectors, cosines, reason, unit_float16
from fairdedup.errors import UserError

ABSENT = "absent"


@dataclass(frozen=True)
class Attribute:
    """Concepts that exclude each other.

    Attributes
    ----------
    name : str
        Name of the attribute.
    concepts : tuple of str
        Names of its c concepts.
    vectors : ndarray of shape (c, d), float16
        Prototype of each concept.
    absent : ndarray of shape (a, d), float16
        Prototypes of pictures that the attribute does not apply to; a may be 0.
    temperature : float or None
        Temperature of the membership softmax that a calibration found; None means that the options decide.
    offsets : tuple of float
        What is added to the cosine to each concept before the softmax, c numbers in units of cosine
        (`core/share_estimate.py`); empty where nothing is.
    """

    name: str
    concepts: tuple[str, ...]
    vectors: NDArray[np.float16]
    absent: NDArray[np.float16]
    temperature: float | None = None
    offsets: tuple[float, ...] = ()


@dataclass(frozen=True)
class Prototypes:
    """Attributes and their prototypes.

    Attributes
    ----------
    attributes : tuple of Attribute
        Attributes in the order of the user's list.
    """

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
        """Read prototypes from an array or a mapping.

        Parameters
        ----------
        prototypes : array-like of shape (c, d), or mapping attribute -> {concept: (d,)}
            An array is one attribute, "concept". The concept "absent" of a mapping is one vector (d,) or several (a,
            d).

        Raises
        ------
        UserError
            If a vector is zero or not finite, dimensions differ, or there is no attribute or concept.
        """
        if isinstance(prototypes, Prototypes):
            return prototypes
        if not isinstance(prototypes, Mapping):
            array = np.asarray(prototypes)
            if array.ndim != 2:
                raise UserError(f"`prototypes` have shape {array.shape}: give (concepts, d) or a dict of attributes")
            prototypes = {"concept": {str(k): v for k, v in enumerate(array)}}
        attributes = []
        for name, members in prototypes.items():
            if not isinstance(members, Mapping):
                raise UserError(f"`prototypes`[{name!r}] must be a dict: give {{concept: vector of d values}}")
            listed = [concept for concept in members if concept != ABSENT]
            if not listed:
                raise UserError(f"`prototypes`[{name!r}] names no concept: give at least one")
            vectors = _unit([members[c] for c in listed], [f"`prototypes`[{name!r}][{c!r}]" for c in listed])
            missing = np.asarray(members.get(ABSENT, np.zeros((0, vectors.shape[1]))), np.float64)
            missing = missing[None] if missing.ndim == 1 else missing
            absent = _unit(list(missing), [f"`prototypes`[{name!r}]['absent']"] * len(missing), vectors.shape[1])
            attributes.append(Attribute(str(name), tuple(map(str, listed)), vectors, absent))
        if not attributes:
            raise UserError("`prototypes` are empty: give at least one attribute with one concept")
        dimensions = {a.vectors.shape[1] for a in attributes} | {a.absent.shape[1] for a in attributes}
        if len(dimensions) > 1:
            raise UserError(f"`prototypes` have {sorted(dimensions)} dimensions: all must come from one model")
        return cls(tuple(attributes))

    def with_temperatures(self, temperatures: Mapping[str, float]) -> Prototypes:
        """Return these prototypes with other temperatures for the attributes that `temperatures` names.

        Parameters
        ----------
        temperatures : mapping attribute -> float
            Temperatures above 0.

        Raises
        ------
        UserError
            If an attribute is unknown, or a temperature is not a number above 0.
        """
        self._expect_names("`temperature` names", temperatures)
        for name, value in temperatures.items():
            if not (isinstance(value, Real) and 0 < float(value) < math.inf):
                raise UserError(f"`temperature`[{name!r}] must be a number above 0; got {value!r}")
        return Prototypes(
            tuple(replace(a, temperature=temperatures.get(a.name, a.temperature)) for a in self.attributes)
        )

    def with_offsets(self, offsets: Mapping[str, Sequence[float]]) -> Prototypes:
        """Return these prototypes with offsets for the attributes that `offsets` names.

        Parameters
        ----------
        offsets : mapping attribute -> sequence of c float
            What is added to the cosine to each concept; none at all where the sequence is empty.

        Raises
        ------
        UserError
            If an attribute is unknown, or its offsets are not one finite number for each concept.
        """
        self._expect_names("offsets are given for", offsets)
        numbers = {a.name: len(a.concepts) for a in self.attributes}
        for name, values in offsets.items():
            number = numbers[name]
            if len(values) not in (0, number) or not all(isinstance(v, Real) and math.isfinite(v) for v in values):
                raise UserError(f"the offsets of {name!r} are {list(values)}: give {number} finite numbers")
        return Prototypes(
            tuple(replace(a, offsets=tuple(map(float, offsets.get(a.name, a.offsets)))) for a in self.attributes)
        )

    def _expect_names(self, what: str, given: Mapping[str, Any]) -> None:
        """Raise UserError if a mapping has an attribute that these prototypes lack."""
        names = [a.name for a in self.attributes]
        for name in given:
            if name not in names:
                raise UserError(f"{what} attribute {name!r}: the prototypes have {', '.join(names)}")

    def same_as(self, other: Prototypes) -> bool:
        """Tell whether other prototypes have the same attributes, concepts, vectors, temperatures and offsets."""
        ours, theirs = (
            [
                (a.name, a.concepts, a.vectors.tolist(), a.absent.tolist(), a.temperature, a.offsets)
                for a in p.attributes
            ]
            for p in (self, other)
        )
        return ours == theirs

    def similarity(self, vectors: Vectors) -> list[NDArray[np.float64]]:
        """Return each attribute's cosines to its concepts.

        Parameters
        ----------
        vectors : Vectors of n rows
            Rows to compare.

        Returns
        -------
        list of ndarray of shape (n, c), float64
        """
        return [cosines(vectors, Vectors.of(a.vectors)) for a in self.attributes]

    def scores(self, vectors: Vectors) -> list[NDArray[np.float64]]:
        """Return what each attribute's memberships are computed from: cosines, with the offsets added.

        Parameters
        ----------
        vectors : Vectors of n rows
            Rows to compare.

        Returns
        -------
        list of ndarray of shape (n, c + a), float64
            The absent prototypes come last; they have no offsets.
        """
        out = []
        for a in self.attributes:
            own = cosines(vectors, Vectors.of(np.concatenate((a.vectors, a.absent))))
            if a.offsets:
                own[:, : len(a.offsets)] += np.array(a.offsets)
            out.append(own)
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
