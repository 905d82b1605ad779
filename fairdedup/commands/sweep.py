"""`fairdedup sweep`: finds the eps and the counts of several keep fractions, or the counts of several eps.

It writes no decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fairdedup.commands.evaluation import read_evaluation
from fairdedup.config import RunConfig
from fairdedup.core.eps_search import search_eps, search_eps_across
from fairdedup.core.keep_fraction import check_target, kept_target, parse_eps, swept_target
from fairdedup.core.model import Plan
from fairdedup.core.part import MapParts
from fairdedup.core.parts import count_kept
from fairdedup.core.rounds import AcrossClusters
from fairdedup.core.rules.registry import find_rule
from fairdedup.core.similarity import EPS_UNIT
from fairdedup.core.survey import survey
from fairdedup.errors import UserError
from fairdedup.preparation.prototype_choice import choose_prototypes
from fairdedup.preparation.recorded_runs import list_recorded_runs
from fairdedup.preparation.request import Request, read_clustered_request
from fairdedup.preparation.rule_choice import explain_rule, settle_rule
from fairdedup.preparation.run_checks import build_curation_options, build_options
from fairdedup.stages.curation import check_curation_options, mark_rows
from fairdedup.stages.named_rows import read_row_ids
from fairdedup.stages.pruning import (
    BorderPair,
    WorkspaceOnDisk,
    choose_border_pair,
    count_values,
    describe_suggestion,
    find_border_pair,
    find_border_pair_across,
    make_map_parts,
    open_workspace,
    split_clusters,
    suggest_run_eps,
)
from fairdedup.stages.pruning.cluster_ranges import ClusterRange
from fairdedup.storage.config_record import read_config_record
from fairdedup.storage.contents import Clustered, Embedded, load_clustered, load_embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.marks import Marks
from fairdedup.storage.remedies import quote
from fairdedup.workers import Workers

GRID = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # fractions that are tried if none is named
EXAMPLE_RULE = "semdedup"  # its neighbourhoods are those of the other rules without cover, and it needs no survey


@dataclass(frozen=True)
class SweptFraction:
    """Eps and counts of a decision at one keep fraction, or at one eps.

    Attributes
    ----------
    keep : float
        Fraction of the valid rows; rounded to 4 decimals where an eps was given.
    kept : int
        Number of rows that would be kept.
    eps : float
        Eps that the decision would use.
    readmitted : int
        Number of kept rows that would be re-admitted, including those on seats of `balanced`.
    """

    keep: float
    kept: int
    eps: float
    readmitted: int


@dataclass(frozen=True)
class BorderExample:
    """The least similar pair that is linked at an eps, of which one is removed for the other.

    Attributes
    ----------
    eps : float
    removed, representative : str
        Ids of both.
    cosine : float
    """

    eps: float
    removed: str
    representative: str
    cosine: float


@dataclass(frozen=True)
class Sweep:
    """What a sweep has found.

    Attributes
    ----------
    lines : list of SweptFraction
        One for each fraction or eps, in their order.
    examples : list of BorderExample
        One for each eps at which a sample is removed.
    remarks : list of str
        Fractions of the grid that were left out.
    """

    lines: list[SweptFraction]
    examples: list[BorderExample]
    remarks: list[str]


def sweep_run(
    config: RunConfig,
    fractions: Sequence[float],
    workers: Workers,
    *,
    eps: Sequence[float] = (),
    examples: bool = True,
) -> Sweep:
    """Return the eps and the counts of a decision at each keep fraction or eps.

    Parameters
    ----------
    config : RunConfig
        Names the run, and the options of the decision.
    fractions : sequence of float
        Keep fractions, in (0, 1]; those of `GRID` that are possible if it is empty and no eps is given.
    workers : Workers
        Run the tasks that count.
    eps : sequence of float
        Values of eps, whole numbers of ten-thousandths.
    examples : bool
        Whether to find an example pair at each eps, which takes a decision there.

    Raises
    ------
    UserError
        If the run is not clustered, its eps is that of earlier runs, or the rule has no eps.
    """
    units = [parse_eps(value) for value in eps]
    directory = RunDirectory(config.out.absolute())
    clustered = load_clustered(load_embedded(directory), workers.submit)
    if list_recorded_runs(directory):
        raise UserError(
            f"{directory.root} was made --against other runs and has their eps, so there is nothing to sweep: limit it "
            f"with `fairdedup prune {quote(directory.root)} --at-most F`"
        )
    record = read_config_record(directory)
    assert record.input is not None
    request = settle_rule(read_clustered_request(config), record.input.kind, record)
    options = build_options(request.config)
    if not options.rule.has_eps:
        raise UserError(f"--rule {options.rule.name} has no eps to sweep: choose another --rule")
    curation = build_curation_options(request.config)
    check_curation_options(curation)
    explain_rule(config, request, workers.progress.say)
    curation = replace(curation, evaluation=read_evaluation(request, clustered.embedded, workers))
    _suggest(clustered, workers)
    with (
        mark_rows(clustered.embedded, curation, workers.submit) as marks,
        open_workspace(clustered, options, workers.submit) if options.looks_across else nullcontext() as workspace,
    ):
        counter = _open_counter(request, clustered, marks, workers, workspace)
        wanted, remarks = list(fractions), []
        if not wanted and not units:
            wanted = [fraction for fraction in GRID if kept_target(fraction, counter.valid) >= counter.least]
            if len(wanted) < len(GRID):
                remarks.append(f"every eps keeps at least {counter.least:,} samples, so smaller fractions are left out")
        return counter.sweep(wanted, units, clustered.embedded if examples else None, remarks)


def _suggest(clustered: Clustered, workers: Workers) -> None:
    """Say which eps the data suggest, if they do."""
    suggested = describe_suggestion(suggest_run_eps(clustered))
    if suggested:
        workers.progress.say(suggested)


@dataclass(frozen=True)
class _Counter:
    """What counts at an eps need.

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
    """

    parts: Sequence[ClusterRange]
    plan: Plan
    map_parts: MapParts
    across: AcrossClusters | None
    valid: int
    clusters: int
    always_kept: int

    @property
    def least(self) -> int:
        """Number of rows that every eps keeps."""
        return max(1, self.clusters + self.always_kept)

    def sweep(
        self, fractions: Sequence[float], units: Sequence[int], embedded: Embedded | None, remarks: list[str]
    ) -> Sweep:
        """Return the lines of some fractions and eps, with examples if the embeddings are given for their ids."""
        lines, pairs = dict[int, SweptFraction](), dict[int, BorderPair]()
        count = len(fractions)
        largest_first = sorted(range(len(units)), key=lambda k: -units[k])  # so that pairs are looked for once
        for k in [*range(count), *(count + k for k in largest_first)]:
            eps, lines[k] = self._at_fraction(fractions[k]) if k < count else self._at_eps(units[k - count])
            pair = self._find_example(eps) if embedded is not None and eps not in pairs else None
            if pair is not None:
                pairs[eps] = pair
        ids = dict[int, str]()
        if embedded is not None:
            ids = read_row_ids(embedded, [row for pair in pairs.values() for row in (pair.row, pair.representative)])
        examples = [
            BorderExample(eps / EPS_UNIT, ids[pair.row], ids[pair.representative], pair.similarity)
            for eps, pair in sorted(pairs.items())
        ]
        return Sweep([lines[k] for k in sorted(lines)], examples, remarks)

    def _count(self, eps: int) -> int:
        if self.across is not None:
            return self.across.at(eps).count()
        return int(np.sum(self.map_parts("count", count_kept, self.parts, [eps], self.plan)))

    def _at_fraction(self, fraction: float) -> tuple[int, SweptFraction]:
        options = self.plan.options
        target = kept_target(fraction, self.valid)
        check_target(fraction, self.valid, self.clusters, self.always_kept, within=options.within)
        reserve = options.reserve if options.rule.reserves_seats else 0.0
        searched = swept_target(target, self.valid, reserve, self.clusters + self.always_kept)
        if self.across is None:
            eps = search_eps(self.parts, self.plan, searched, self.valid, self.map_parts)
        else:
            eps = search_eps_across(self.across, searched, self.valid)
        return eps, SweptFraction(fraction, target, eps / EPS_UNIT, target - self._count(eps))

    def _at_eps(self, eps: int) -> tuple[int, SweptFraction]:
        kept = self._count(eps)
        return eps, SweptFraction(round(kept / self.valid, 4), kept, eps / EPS_UNIT, 0)

    def _find_example(self, eps: int) -> BorderPair | None:
        """Return the pair at the border of an eps; None if no pair is linked there."""
        if self.across is not None:
            decided: list[Any] = self.across.at(eps).decide()  # what `find_border_pair_across` returns of each part
            return choose_border_pair(each.pair for each in decided)
        plan = self.plan
        if not plan.options.cover and plan.options.rule.needs_prototypes:  # there was no survey
            plan = Plan(replace(plan.options, rule=find_rule(EXAMPLE_RULE)))
        return choose_border_pair(self.map_parts("decide", find_border_pair, self.parts, eps, plan))


def _open_counter(
    request: Request, clustered: Clustered, marks: Marks, workers: Workers, workspace: WorkspaceOnDisk | None
) -> _Counter:
    """Return what counts; across clusters if there is a workspace."""
    options = build_options(request.config)
    folder = None if workspace is None else workspace.folder
    parts, clusters, _ = split_clusters(clustered, marks, within=options.within, workspace=folder)
    map_parts = make_map_parts(workers.submit)
    if options.within:
        clusters = sum(map_parts("list", count_values, parts))
    plan = Plan(options)
    if options.cover or workspace is not None:  # otherwise no count depends on a survey
        plan = survey(parts, options, choose_prototypes(request.config, clustered.embedded, workers), map_parts)
    across = None
    if workspace is not None:
        across = AcrossClusters(parts, plan, map_parts, workspace, find_border_pair_across)
    valid = sum(part.rows for part in parts)
    return _Counter(parts, plan, map_parts, across, valid, clusters, marks.always_kept)
