"""Shares of the concepts before and after a decision, by soft membership; a task reads a range of clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.decision import Decision
from fairdedup.core.model import Inherited, Options
from fairdedup.core.moments import MembershipMoments, shares
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.survey import find_memberships, survey_memberships
from fairdedup.core.uncertainty import is_uninformative
from fairdedup.errors import format_count
from fairdedup.stages.pruning.cluster_ranges import ClusterRange, make_map_parts
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import GroupShare
from fairdedup.storage.sealed_files import Unsealed, load_array
from fairdedup.tasks import Submit

HALF = 500_000_000  # a membership of a half
LEAST_SHOWN = Fraction(1, 20)  # least share of the rows that show an attribute, for its shares to say anything


class MembershipSums(NamedTuple):
    """Sums over the rows of a part.

    Attributes
    ----------
    kept : list of tuple of int
        For each attribute, the sum of the memberships in each concept over the kept rows, in units of 1e-9.
    showing : list of int
        For each attribute, the number of rows, kept or not, that are rather one of its concepts than none.
    """

    kept: list[tuple[int, ...]]
    showing: list[int]


def sum_memberships(
    part: ClusterRange, readmitted: NDArray[np.int64], prototypes: Prototypes, temperatures: tuple[float, ...]
) -> MembershipSums:
    """Return each attribute's sums of memberships over the rows of a part.

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
    showing = [0] * len(sums)
    for cluster in part.clusters():
        own = kept[np.searchsorted(rows, cluster.rows)]
        for k, q in enumerate(find_memberships(part, cluster, prototypes, temperatures)):  # (n, c)
            showing[k] += int(np.count_nonzero(q.sum(axis=1) >= HALF))
            for c, more in enumerate(q[own].sum(axis=0).tolist()):
                sums[k][c] += more
    return MembershipSums([tuple(total) for total in sums], showing)


class ConceptShares(NamedTuple):
    """Shares of the concepts by soft membership.

    Attributes
    ----------
    shares : list of GroupShare
        Share of each concept among the valid and among the kept samples, of attributes that samples show.
    showing : dict of str to int
        For each attribute that hardly any sample shows, how many do: the others are nearer to its absent prototypes.
    temperatures : tuple of float
        Temperature of each attribute's memberships.
    moments : tuple of MembershipMoments
        Moments of each attribute's memberships over the valid rows.
    """

    shares: list[GroupShare]
    showing: dict[str, int]
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
        return ConceptShares([], {}, () if known is None else known.temperatures, tuple(none))
    temperatures, moments = survey_memberships(
        parts, prototypes, run_parts, temperature=options.temperature, inherited=known
    )
    again = np.zeros(parts[0].starts[-1], np.bool_)  # (input,)
    again[decision.readmitted] = True
    removed = [decided.removed for decided in decision.parts]
    own = [rows[again[rows]] for rows in removed]
    found = run_parts("shares", sum_memberships, parts, prototypes, temperatures, own=own)
    lines, absent = [], {}
    for k, (attribute, before) in enumerate(zip(prototypes.attributes, moments, strict=True)):
        showing = sum(each.showing[k] for each in found)
        if showing < LEAST_SHOWN * before.count:
            absent[attribute.name] = showing
            continue
        after = tuple(sum(own) for own in zip(*(each.kept[k] for each in found), strict=True))
        for concept, x, y in zip(attribute.concepts, shares(before.sums), shares(after), strict=True):
            lines.append(GroupShare(attribute=attribute.name, group=concept, input=float(x), kept=float(y)))
    return ConceptShares(lines, absent, temperatures, moments)


def describe_absent_attributes(found: ConceptShares) -> list[str]:
    """Return a sentence that names the attributes that hardly any sample shows, if there are any."""
    if not found.showing:
        return []
    shown = ", ".join(f"{name} ({number:,})" for name, number in found.showing.items())
    return [
        f"Of {format_count(found.moments[0].count, 'sample')}, hardly any shows what these attributes are about, as "
        f"the encoder perceives them, so their shares are left out: {shown}"
    ]


def _enumerate(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def describe_vague_attributes(options: Options, prototypes: Prototypes, found: ConceptShares) -> list[str]:
    """Return a warning that names the attributes of uninformative memberships, if the rule needs prototypes."""
    vague = [
        (attribute, moments)
        for attribute, moments in zip(prototypes.attributes, found.moments, strict=True)
        if moments.count and is_uninformative(moments) and attribute.name not in found.showing
    ]
    if not vague or not options.rule.needs_prototypes:
        return []
    groups = "; ".join(
        f"{_enumerate(a.concepts)} (mean top probability {float(m.mean_largest):.2f}, chance {1 / len(a.concepts):.2f})"
        for a, m in vague
    )
    return [
        f"The encoder barely separates {groups}; treat the shares of {_enumerate([repr(a.name) for a, _ in vague])} as "
        "unreliable. Check them by labels (fairdedup audit RUN --labels FILE), fit them to a few hundred labels "
        "(fairdedup calibrate RUN --labels FILE), or name a model that knows these concepts (--model)."
    ]
