"""Shares of the concepts before and after a decision, by soft membership; a task reads a range of clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.decision import Decision
from fairdedup.core.model import Inherited, Options
from fairdedup.core.moments import MembershipMoments, shares
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.survey import find_memberships, survey_memberships
from fairdedup.core.uncertainty import LEAST_INFORMATIVE, is_uninformative
from fairdedup.stages.pruning.cluster_ranges import ClusterRange, make_map_parts
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import GroupShare
from fairdedup.storage.sealed_files import Unsealed, load_array
from fairdedup.tasks import Submit


def sum_kept_memberships(
    part: ClusterRange, readmitted: NDArray[np.int64], prototypes: Prototypes, temperatures: tuple[float, ...]
) -> list[tuple[int, ...]]:
    """Return each attribute's sum of memberships over the kept rows of a part, in units of 1e-9.

    Parameters
    ----------
    part : ClusterRange
    readmitted : ndarray of shape (r,), int64
        The re-admitted rows of this part.
    prototypes : Prototypes
    temperatures : tuple of float
    """
    decided = load_array(
        Unsealed(RunDirectory(part.root).decided(part.number), "a task of the same command has written it")
    )
    rows, kept = np.array(decided["row"]), np.array(decided["kept"])  # (n,), rows ascending
    kept[np.searchsorted(rows, readmitted)] = True
    sums = [[0] * len(a.concepts) for a in prototypes.attributes]
    for cluster in part.clusters():
        own = kept[np.searchsorted(rows, cluster.rows)]
        for total, q in zip(sums, find_memberships(part, cluster, prototypes, temperatures), strict=True):
            for c, more in enumerate(q[own].sum(axis=0).tolist()):
                total[c] += more
    return [tuple(total) for total in sums]


class ConceptShares(NamedTuple):
    """Shares of the concepts by soft membership.

    Attributes
    ----------
    shares : list of GroupShare
        Share of each concept among the valid and among the kept samples.
    temperatures : tuple of float
        Temperature of each attribute's memberships.
    moments : tuple of MembershipMoments
        Moments of each attribute's memberships over the valid rows.
    """

    shares: list[GroupShare]
    temperatures: tuple[float, ...]
    moments: tuple[MembershipMoments, ...]


def measure_shares(
    parts: list[ClusterRange],
    options: Options,
    prototypes: Prototypes,
    decision: Decision,
    submit: Submit,
    *,
    inherited: Inherited | None = None,
) -> ConceptShares:
    """Measure each concept's share of the valid and of the kept samples, by soft membership.

    Every rule gets the memberships that `balanced` would use. With `inherited`, earlier runs give the temperatures.
    """
    run_parts = make_map_parts(submit)
    known = None if inherited is None else replace(inherited, memberships=())
    if not parts:
        none = [MembershipMoments.of(np.zeros((0, len(a.concepts)), np.int64)) for a in prototypes.attributes]
        return ConceptShares([], () if known is None else known.temperatures, tuple(none))
    temperatures, moments = survey_memberships(
        parts, prototypes, run_parts, temperature=options.temperature, inherited=known
    )
    again = np.zeros(parts[0].starts[-1], np.bool_)  # (input,)
    again[decision.readmitted] = True
    removed = [decided.removed for decided in decision.parts]
    own = [rows[again[rows]] for rows in removed]
    kept = run_parts("shares", sum_kept_memberships, parts, prototypes, temperatures, own=own)
    lines = []
    for k, (attribute, before) in enumerate(zip(prototypes.attributes, moments, strict=True)):
        after = tuple(sum(own) for own in zip(*(each[k] for each in kept), strict=True))
        for concept, x, y in zip(attribute.concepts, shares(before.sums), shares(after), strict=True):
            lines.append(GroupShare(attribute=attribute.name, group=concept, input=float(x), kept=float(y)))
    return ConceptShares(lines, temperatures, moments)


def describe_vague_attributes(
    options: Options, prototypes: Prototypes, moments: Sequence[MembershipMoments]
) -> list[str]:
    """Return a warning for each attribute whose memberships are uninformative, if the rule needs prototypes."""
    if not options.rule.needs_prototypes:
        return []
    return [
        f"attribute {a.name!r}: its memberships hardly tell its concepts apart (the largest of {len(a.concepts)} is "
        f"{float(m.mean_largest):.2f} in the mean, under {float(LEAST_INFORMATIVE / len(a.concepts)):.2f}): check them "
        "by labels (fairdedup audit RUN --labels FILE), fit them to some hundred labels (fairdedup calibrate RUN "
        "--labels FILE), or name a model that knows these concepts (--model)"
        for a, m in zip(prototypes.attributes, moments, strict=True)
        if m.count and is_uninformative(m)
    ]
