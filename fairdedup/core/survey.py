"""What a cluster must know of the rest of the data set before it decides: options, parts, and the survey of them.

Each step maps a pure function over parts and combines small results, so that the same code surveys in memory and on a
Dask cluster: only `Run`, which maps, differs. A part gives clusters one at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import reduce
from numbers import Real
from operator import add
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fairdedup.core import prototypes as pt
from fairdedup.core.moments import MembershipMoments, Moments, PriceTerm, weights
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.rules import NEEDS_PROTOTYPES, RULES, SWEEPING
from fairdedup.core.similarity import Vectors
from fairdedup.errors import UserError


@dataclass(frozen=True)
class Options:
    """What is decided, and how; see docs/rules.md for the meaning of each.

    Raises
    ------
    UserError
        If a value is unknown or out of range, or `cover` or protected rows are asked of a rule that has none.
    """

    rule: str = "fairdedup"
    cover: bool = False
    seed: int = 0
    start: str = "cluster"
    calibrate: str = "none"
    target: Any = "uniform"
    temperature: Any = "auto"  # a number, or attribute -> number
    reserve: float = 0.1
    protected: bool = False  # there are rows that are kept whatever the rule is

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise UserError(f"rule {self.rule!r} is unknown: choose one of {', '.join(RULES)}")
        if self.cover and self.rule not in SWEEPING:
            raise UserError(f"cover does not go with rule {self.rule!r}: choose one of {', '.join(SWEEPING)}")
        if self.protected and self.rule == "semdedup-chain":
            raise UserError(
                "always-keep does not go with rule 'semdedup-chain', which reproduces old runs: choose another"
            )
        for name, value, known in (
            ("start", self.start, ("cluster", "zero")),
            ("calibrate", self.calibrate, ("none", "zscore")),
        ):
            if value not in known:
                raise UserError(f"{name} {value!r} is unknown: choose one of {', '.join(known)}")
        if not isinstance(self.target, Mapping) and self.target not in ("uniform", "data"):
            raise UserError(f"target {self.target!r} is unknown: choose uniform, data or {{attribute: shares}}")
        given = self.temperature == "auto" or isinstance(self.temperature, Mapping)
        if not given and not (isinstance(self.temperature, Real) and 0 < float(self.temperature) < math.inf):
            raise UserError(f"temperature {self.temperature!r} is no number above 0: give one, or auto")
        if not 0 <= self.reserve <= 0.3:
            raise UserError(f"reserve {self.reserve:g} is out of range: give 0 to 0.3")


@dataclass(frozen=True)
class Earlier:
    """What earlier runs kept of one cluster: samples that stay kept, and take their duplicates among the rows first.

    Attributes
    ----------
    unit : ndarray of shape (m, d), float16
        In the order that ties go by: by run, then by row.
    names : ndarray of shape (m,), int64, 0 or more
        What the decisions call them.
    sums : ndarray of shape (c,), int64, or None
        Where each concept's sum stands (`fairdedup`); None where no earlier run had a row in the cluster.
    """

    unit: NDArray[np.float16]
    names: NDArray[np.int64]
    sums: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Inherited:
    """What a decision takes over from earlier runs.

    Attributes
    ----------
    eps : int
        Ten-thousandths; the least that is decided at.
    temperatures : tuple of float
        Of each attribute's memberships.
    memberships : tuple of MembershipMoments
        Of each attribute, over the rows of the earlier runs.
    moments : Moments or None
        Of the similarity to each concept (`calibrate: zscore`).
    """

    eps: int
    temperatures: tuple[float, ...] = ()
    memberships: tuple[MembershipMoments, ...] = ()
    moments: Moments | None = None


@dataclass(frozen=True)
class Cluster:
    """The rows of one cluster.

    Attributes
    ----------
    number : int
    rows : ndarray of shape (n,), int64, ascending
    unit : ndarray of shape (n, d), float16
    centroid : ndarray of shape (d,), float16
        Zero where the cluster's sum is zero.
    protected : ndarray of shape (n,), bool, optional
        Rows that are kept whatever the rule is.
    values : ndarray of shape (n,), int64, optional
        What the rule `prefer` goes by, as `rules.ordered` gives it.
    earlier : Earlier, optional
        What earlier runs kept of it.
    """

    number: int
    rows: NDArray[np.int64]
    unit: NDArray[np.float16]
    centroid: NDArray[np.float16]
    protected: NDArray[np.bool_] | None = None
    values: NDArray[np.int64] | None = None
    earlier: Earlier | None = None


class Part(Protocol):
    """Some clusters of the data set, read one at a time.

    Attributes
    ----------
    rows : int
        Rows in it.
    memo : dict
        What a pass may leave for the next in the same process; never needed, only quicker.
    """

    @property
    def rows(self) -> int:
        """Number of rows."""
        ...

    @property
    def memo(self) -> dict[Any, Any]:
        """What a pass may leave for the next in the same process."""
        ...

    def clusters(self) -> Iterator[Cluster]:
        """Yield the clusters, always in the same order."""
        ...


class Run(Protocol):
    """Maps a function over parts and returns the results in the order of the parts."""

    def __call__(self, step: str, function: Callable[..., Any], parts: Sequence[Any], *args: Any) -> list[Any]:
        """Apply ``function(part, *args)`` to each part."""
        ...


@dataclass(frozen=True)
class Plan:
    """Everything that a cluster needs to know of the rest of the data set.

    Attributes
    ----------
    temperatures : tuple of float
        Of each attribute (`balanced`).
    memberships : tuple of MembershipMoments
        Of each attribute over the data set (`balanced`).
    targets : tuple of tuple of Fraction
        Target shares of each attribute.
    terms : tuple of PriceTerm
        The price of each attribute.
    moments : Moments or None
        Of the similarity to each concept (`calibrate: zscore`).
    """

    options: Options
    prototypes: Prototypes | None = None
    temperatures: tuple[float, ...] = ()
    memberships: tuple[MembershipMoments, ...] = ()
    targets: tuple[tuple[Fraction, ...], ...] = ()
    terms: tuple[PriceTerm, ...] = ()
    moments: Moments | None = None


def _similarity(part: Part, cluster: Cluster, plan: Plan) -> list[NDArray[np.float64]]:
    """Return each attribute's cosines (n, c + a), those with the absent prototypes behind; left for the next pass."""
    assert plan.prototypes is not None
    known = part.memo.setdefault("similarity", {})
    if cluster.number not in known:
        known[cluster.number] = plan.prototypes.similarity(Vectors.of(cluster.unit), absent=True)
    return known[cluster.number]


def memberships(part: Part, cluster: Cluster, plan: Plan) -> list[NDArray[np.int64]]:
    """Return each attribute's memberships (n, c) of a cluster's rows in units of 1e-9; left for the next pass."""
    assert plan.prototypes is not None
    known = part.memo.setdefault(("memberships", plan.temperatures), {})
    if cluster.number not in known:
        known[cluster.number] = [
            pt.membership(s, t, len(a.concepts))
            for s, t, a in zip(
                _similarity(part, cluster, plan), plan.temperatures, plan.prototypes.attributes, strict=True
            )
        ]
        del part.memo["similarity"][cluster.number]
    return known[cluster.number]


def survey_gaps(part: Part, plan: Plan) -> list[NDArray[np.float64]]:
    """Return each attribute's gaps (n,): what the temperature `auto` is the median of."""
    assert plan.prototypes is not None
    gaps: list[list[NDArray[np.float64]]] = [[] for _ in plan.prototypes.attributes]
    for cluster in part.clusters():
        for values, s in zip(gaps, _similarity(part, cluster, plan), strict=True):
            values.append(pt.gap(s))
    return [np.concatenate(values) for values in gaps]


def survey_memberships(part: Part, plan: Plan) -> list[MembershipMoments]:
    """Return the moments of each attribute's memberships."""
    found = [[MembershipMoments.of(q) for q in memberships(part, c, plan)] for c in part.clusters()]
    return [reduce(add, per_attribute) for per_attribute in zip(*found, strict=True)]


def survey_moments(part: Part, plan: Plan) -> Moments:
    """Return the moments of the similarity to each concept."""
    assert plan.prototypes is not None
    return reduce(add, (
        Moments.of(np.concatenate(plan.prototypes.similarity(Vectors.of(c.unit), absent=False), axis=1))
        for c in part.clusters()
    ))  # fmt: skip


def survey(
    parts: Sequence[Part], options: Options, prototypes: Prototypes | None, run: Run, inherited: Inherited | None = None
) -> Plan:
    """Collect what the rule needs to know of the whole data set, that of earlier runs included."""
    plan = Plan(options, prototypes if options.rule in NEEDS_PROTOTYPES else None)
    if options.rule in NEEDS_PROTOTYPES and prototypes is None:
        raise UserError(
            f"rule {options.rule!r} needs prototypes and there are none: name the model that made the embeddings "
            "(--model), bring prototype vectors (--prototypes), or use a rule that needs none (--rule semdedup)"
        )
    if options.rule == "fairdedup" and options.calibrate == "zscore":
        known = None if inherited is None else inherited.moments
        return replace(plan, moments=known or reduce(add, run("survey", survey_moments, parts, plan)))
    if options.rule != "balanced":
        return plan
    assert prototypes is not None

    def gaps() -> list[NDArray[np.float64]]:
        return [np.concatenate(g) for g in zip(*run("survey", survey_gaps, parts, plan), strict=True)]

    if inherited is not None:  # sums of memberships of one temperature can be added
        temperatures = inherited.temperatures
    else:
        temperatures = pt.temperatures_of(prototypes, options.temperature, gaps)
    plan = replace(plan, temperatures=temperatures)
    found = run("survey", survey_memberships, parts, plan)
    earlier = (inherited.memberships,) if inherited is not None and inherited.memberships else ()
    moments = tuple(reduce(add, m) for m in zip(*earlier, *found, strict=True))
    _check_target(options.target, prototypes)
    targets = tuple(
        pt.target_shares(options.target, a, m.sums) for a, m in zip(prototypes.attributes, moments, strict=True)
    )
    terms = tuple(m.term(weights(t, m.sums)) for m, t in zip(moments, targets, strict=True))
    return replace(plan, memberships=moments, targets=targets, terms=terms)


def _check_target(target: Any, prototypes: Prototypes) -> None:
    if isinstance(target, Mapping):
        names = [a.name for a in prototypes.attributes]
        for name in target:
            if name not in names:
                raise UserError(f"target names attribute {name!r}: the prototypes have {', '.join(names)}")
