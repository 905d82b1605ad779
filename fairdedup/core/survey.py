"""What a decision must know about the whole data set before it begins: moments, memberships, targets and prices.

Each step maps a pure function over the parts and combines small results. It never has more than one cluster of a part
in memory at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.memberships import (
    check_target,
    choose_temperatures,
    compute_gaps,
    compute_memberships,
    target_shares,
)
from fairdedup.core.model import Cluster, Inherited, Options, Plan
from fairdedup.core.moments import MembershipMoments, Moments, weights
from fairdedup.core.part import MapParts, Part
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.rules.registry import simplest_rule
from fairdedup.core.similarity import Vectors
from fairdedup.errors import UserError


class SurveyedMemberships(NamedTuple):
    """Memberships of the whole data set.

    Attributes
    ----------
    temperatures : tuple of float
        Temperature of each attribute.
    moments : tuple of MembershipMoments
        Moments of each attribute's memberships.
    """

    temperatures: tuple[float, ...]
    moments: tuple[MembershipMoments, ...]


def _find_scores(part: Part, cluster: Cluster, prototypes: Prototypes) -> list[NDArray[np.float64]]:
    """Return each attribute's scores (n, c + a), the absent prototypes last; they are cached in the memo."""
    known = part.memo.setdefault("scores", {})
    if cluster.number not in known:
        known[cluster.number] = prototypes.scores(Vectors.of(cluster.unit))
    return known[cluster.number]


def find_memberships(
    part: Part, cluster: Cluster, prototypes: Prototypes, temperatures: tuple[float, ...]
) -> list[NDArray[np.int64]]:
    """Return each attribute's memberships (n, c) of a cluster's rows, in units of 1e-9.

    They are cached in the memo of the part for the next pass.

    Parameters
    ----------
    part : Part
        Part that contains the cluster.
    cluster : Cluster
        Cluster of n rows.
    prototypes : Prototypes
        Attributes with c concepts each.
    temperatures : tuple of float
        Temperature of each attribute.
    """
    known = part.memo.setdefault(("memberships", temperatures), {})
    if cluster.number not in known:
        known[cluster.number] = [
            compute_memberships(similarity, temperature, len(attribute.concepts))
            for similarity, temperature, attribute in zip(
                _find_scores(part, cluster, prototypes), temperatures, prototypes.attributes, strict=True
            )
        ]
        del part.memo["scores"][cluster.number]
    return known[cluster.number]


def _survey_gaps(part: Part, prototypes: Prototypes) -> list[NDArray[np.float64]]:
    """Return each attribute's gaps (n,): the automatic temperature is a third of their median."""
    gaps: list[list[NDArray[np.float64]]] = [[] for _ in prototypes.attributes]
    for cluster in part.clusters():
        for values, similarity in zip(gaps, _find_scores(part, cluster, prototypes), strict=True):
            values.append(compute_gaps(similarity))
    return [np.concatenate(values) for values in gaps]


def _survey_membership_moments(
    part: Part, prototypes: Prototypes, temperatures: tuple[float, ...]
) -> list[MembershipMoments]:
    """Return the moments of each attribute's memberships over a part."""
    found = [
        [MembershipMoments.of(q) for q in find_memberships(part, cluster, prototypes, temperatures)]
        for cluster in part.clusters()
    ]
    return [reduce(add, per_attribute) for per_attribute in zip(*found, strict=True)]


def _survey_similarity_moments(part: Part, prototypes: Prototypes) -> Moments:
    """Return the moments of the similarity to each concept over a part."""
    found = (prototypes.similarity(Vectors.of(cluster.unit)) for cluster in part.clusters())
    return reduce(add, (Moments.of(np.concatenate(similarity, axis=1)) for similarity in found))


def survey_memberships(
    parts: Sequence[Part],
    prototypes: Prototypes,
    map_parts: MapParts,
    *,
    temperature: Any = "auto",
    inherited: Inherited | None = None,
) -> SurveyedMemberships:
    """Survey the memberships of the whole data set. The rule does not matter.

    Parameters
    ----------
    parts : sequence of Part
        At least one part; none is empty.
    prototypes : Prototypes
        Attributes and concepts.
    map_parts : MapParts
        Maps the passes over the parts.
    temperature : float, "auto" or mapping attribute -> float
        Temperature of the membership softmax, as in `Options`.
    inherited : Inherited, optional
        What earlier runs hand down: the temperatures are theirs, and their moments are added.

    Returns
    -------
    SurveyedMemberships

    Raises
    ------
    UserError
        If `temperature` names an unknown attribute.
    """

    def gaps() -> list[NDArray[np.float64]]:
        found = map_parts("survey", _survey_gaps, parts, prototypes)
        return [np.concatenate(per_attribute) for per_attribute in zip(*found, strict=True)]

    if inherited is not None:  # sums of memberships can be added only at the same temperature
        temperatures = inherited.temperatures
    else:
        temperatures = choose_temperatures(prototypes, temperature, gaps)
    found = map_parts("survey", _survey_membership_moments, parts, prototypes, temperatures)
    earlier = (inherited.memberships,) if inherited is not None and inherited.memberships else ()
    return SurveyedMemberships(temperatures, tuple(reduce(add, m) for m in zip(*earlier, *found, strict=True)))


def survey(
    parts: Sequence[Part],
    options: Options,
    prototypes: Prototypes | None,
    map_parts: MapParts,
    inherited: Inherited | None = None,
) -> Plan:
    """Collect what the rule needs to know about the whole data set, earlier runs included.

    Parameters
    ----------
    parts : sequence of Part
        The clustered data set.
    options : Options
        Options of the decision.
    prototypes : Prototypes or None
        Prototypes; a rule that does not need them ignores them.
    map_parts : MapParts
        Maps the passes over the parts.
    inherited : Inherited, optional
        What earlier runs hand down.

    Returns
    -------
    Plan

    Raises
    ------
    UserError
        If the rule needs prototypes and there are none, or the target names an unknown attribute.
    """
    rule = options.rule
    if not rule.needs_prototypes:
        return Plan(options)
    if prototypes is None:
        raise UserError(
            f"`rule={rule.name}` needs prototypes and there are none: give `prototypes`, or choose a rule that "
            f"needs none, such as `rule={simplest_rule().name}`"
        )
    plan = Plan(options, prototypes)
    if rule.needs_moments(options):
        known = None if inherited is None else inherited.moments
        moments = known or reduce(add, map_parts("survey", _survey_similarity_moments, parts, prototypes))
        plan = replace(plan, moments=moments)
    if rule.needs_memberships:
        found = survey_memberships(parts, prototypes, map_parts, temperature=options.temperature, inherited=inherited)
        plan = _price_concepts(plan, prototypes, found)
    return plan


def _price_concepts(plan: Plan, prototypes: Prototypes, found: SurveyedMemberships) -> Plan:
    """Return the plan with the target shares and the price of each attribute."""
    target = plan.options.target
    check_target(target, prototypes)
    targets = tuple(
        target_shares(target, attribute, m.sums)
        for attribute, m in zip(prototypes.attributes, found.moments, strict=True)
    )
    terms = tuple(m.term(weights(shares, m.sums)) for m, shares in zip(found.moments, targets, strict=True))
    return replace(plan, temperatures=found.temperatures, memberships=found.moments, targets=targets, terms=terms)
