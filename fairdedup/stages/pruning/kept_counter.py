"""How many rows a decision would keep at an eps, and the eps of a fraction, without a decision that is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fairdedup.core.eps_search import count_over, search_eps, search_eps_across, search_eps_from
from fairdedup.core.keep_fraction import check_cap, check_target, kept_target, swept_target
from fairdedup.core.model import Inherited, Options, Plan
from fairdedup.core.part import MapParts
from fairdedup.core.parts import count_kept
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.rounds import AcrossClusters
from fairdedup.core.rules.registry import find_rule
from fairdedup.core.survey import survey
from fairdedup.stages.pruning.border_pairs import (
    BorderPair,
    choose_border_pair,
    find_border_pair,
    find_border_pair_across,
)
from fairdedup.stages.pruning.cluster_ranges import ClusterRange, make_map_parts
from fairdedup.stages.pruning.decision_ranges import split_for_decision
from fairdedup.stages.pruning.round_files import WorkspaceOnDisk
from fairdedup.stages.pruning.value_counts import count_values
from fairdedup.storage.contents import Clustered
from fairdedup.storage.marks import Marks
from fairdedup.tasks import Submit

EXAMPLE_RULE = "semdedup"  # its neighbourhoods are those of the other rules without cover, and it needs no survey


@dataclass(frozen=True)
class KeptCounter:
    """What counts at an eps.

    Attributes
    ----------
    parts : list
        Ranges of clusters.
    plan : Plan
    map_parts : MapParts
    across : AcrossClusters or None
        What decides across clusters.
    valid, clusters, always_kept : int
        Rows, clusters (or values in clusters) of which one is always kept, and rows that are always kept.
    first_eps : int or None
        Eps of the earlier runs in ten-thousandths, the smallest that new rows may have; None without earlier runs.
    """

    parts: Sequence[ClusterRange]
    plan: Plan
    map_parts: MapParts
    across: AcrossClusters | None
    valid: int
    clusters: int
    always_kept: int
    first_eps: int | None

    @property
    def least(self) -> int:
        """Number of rows that every eps keeps."""
        found = self.clusters + self.always_kept
        return max(1, found) if self.first_eps is None else found

    def count(self, eps: int) -> int:
        """Return how many rows an eps keeps."""
        if self.across is not None:
            return self.across.at(eps).count()
        return int(np.sum(self.map_parts("count", count_kept, self.parts, [eps], self.plan)))

    def find_eps(self, fraction: float) -> int:
        """Return the eps of a fraction: of what is kept exactly or, after earlier runs, at most.

        Raises
        ------
        UserError
            If the fraction is too small.
        """
        options = self.plan.options
        if self.first_eps is not None:
            most = check_cap(fraction, self.valid, self.least, within=options.within)
            counts = self.across or count_over(self.parts, self.plan, self.map_parts)
            return search_eps_from(counts, most, self.first_eps)
        check_target(fraction, self.valid, self.clusters, self.always_kept, within=options.within)
        reserve = options.reserve if options.rule.reserves_seats else 0.0
        target = kept_target(fraction, self.valid)
        searched = swept_target(target, self.valid, reserve, self.clusters + self.always_kept)
        if self.across is None:
            return search_eps(self.parts, self.plan, searched, self.valid, self.map_parts)
        return search_eps_across(self.across, searched, self.valid)

    def find_example(self, eps: int) -> BorderPair | None:
        """Return the pair at the border of an eps; None if no pair is linked there."""
        if self.across is not None:
            decided: list[Any] = self.across.at(eps).decide()  # what `find_border_pair_across` returns of each part
            return choose_border_pair(each.pair for each in decided)
        plan = self.plan
        if not plan.options.cover and plan.options.rule.needs_prototypes:  # there was no survey
            plan = Plan(replace(plan.options, rule=find_rule(EXAMPLE_RULE)))
        return choose_border_pair(self.map_parts("decide", find_border_pair, self.parts, eps, plan))


def open_counter(
    clustered: Clustered,
    marks: Marks,
    options: Options,
    find_prototypes: Callable[[], Prototypes | None],
    submit: Submit,
    *,
    workspace: WorkspaceOnDisk | None = None,
    inherited: Inherited | None = None,
) -> KeptCounter:
    """Return what counts in a clustered run.

    Parameters
    ----------
    clustered : Clustered
    marks : Marks
        Which rows are excluded, and which are always kept.
    options : Options
    find_prototypes : callable
        Returns the prototypes, if any count depends on them.
    submit : Submit
    workspace : WorkspaceOnDisk, optional
        Needed where rows are compared across clusters.
    inherited : Inherited, optional
        Values that earlier runs hand on; the samples that they kept are in state/.
    """
    map_parts = make_map_parts(submit)
    parts, clusters, without_rows = split_for_decision(clustered, marks, options, submit, workspace, inherited)
    if options.within:
        clusters = sum(map_parts("list", count_values, parts))
    plan, across = Plan(options), None
    if parts and (options.cover or workspace is not None):  # otherwise no count depends on a survey
        plan = survey(parts, options, find_prototypes(), map_parts, inherited)
    if workspace is not None:
        with_earlier = [] if inherited is None else [*parts, *without_rows]
        across = AcrossClusters(parts, plan, map_parts, workspace, find_border_pair_across, with_earlier)
    valid = sum(part.rows for part in parts)
    first = None if inherited is None else inherited.eps
    return KeptCounter(parts, plan, map_parts, across, valid, clusters, marks.always_kept, first)
