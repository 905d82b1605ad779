"""`fairdedup sweep`: finds the eps and the counts of several keep fractions. It writes no decision."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np

from fairdedup.commands.evaluation import read_evaluation
from fairdedup.config import RunConfig
from fairdedup.core.eps_search import search_eps, search_eps_across
from fairdedup.core.keep_fraction import check_target, kept_target, swept_target
from fairdedup.core.model import Plan
from fairdedup.core.parts import count_kept
from fairdedup.core.rounds import AcrossClusters
from fairdedup.core.similarity import EPS_UNIT
from fairdedup.core.survey import survey
from fairdedup.errors import UserError
from fairdedup.preparation.prototype_choice import choose_prototypes
from fairdedup.preparation.recorded_runs import list_recorded_runs
from fairdedup.preparation.request import Request, read_clustered_request
from fairdedup.preparation.rule_choice import explain_rule, settle_rule
from fairdedup.preparation.run_checks import build_curation_options, build_options
from fairdedup.stages.curation import check_curation_options, mark_rows
from fairdedup.stages.pruning import (
    WorkspaceOnDisk,
    count_values,
    describe_suggestion,
    make_map_parts,
    open_workspace,
    split_clusters,
    suggest_run_eps,
)
from fairdedup.storage.config_record import read_config_record
from fairdedup.storage.contents import Clustered, load_clustered, load_embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.marks import Marks
from fairdedup.storage.remedies import quote
from fairdedup.workers import Workers


@dataclass(frozen=True)
class SweptFraction:
    """Eps and counts of a decision at one keep fraction.

    Attributes
    ----------
    keep : float
        Fraction of the valid rows.
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


def sweep_run(config: RunConfig, fractions: Sequence[float], workers: Workers) -> list[SweptFraction]:
    """Return the eps and the counts of a decision at each keep fraction.

    Parameters
    ----------
    config : RunConfig
        Names the run, and the options of the decision.
    fractions : sequence of float
        Keep fractions, in (0, 1].
    workers : Workers
        Run the tasks that count.

    Raises
    ------
    UserError
        If the run is not clustered, its eps is that of earlier runs, or the rule has no eps.
    """
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
    rule = build_options(request.config).rule
    if not rule.has_eps:
        raise UserError(f"--rule {rule.name} has no eps to sweep: choose another --rule")
    curation = build_curation_options(request.config)
    check_curation_options(curation)
    explain_rule(config, request, workers.progress.say)
    curation = replace(curation, evaluation=read_evaluation(request, clustered.embedded, workers))
    _suggest(clustered, workers)
    with mark_rows(clustered.embedded, curation, workers.submit) as marks:
        return _sweep(request, clustered, marks, fractions, workers)


def _suggest(clustered: Clustered, workers: Workers) -> None:
    """Say which eps the data suggest, if they do."""
    suggested = describe_suggestion(suggest_run_eps(clustered))
    if suggested:
        workers.progress.say(suggested)


def _sweep(
    request: Request, clustered: Clustered, marks: Marks, fractions: Sequence[float], workers: Workers
) -> list[SweptFraction]:
    options = build_options(request.config)
    with open_workspace(clustered, options, workers.submit) if options.looks_across else nullcontext() as workspace:
        return _sweep_parts(request, clustered, marks, fractions, workers, workspace)


def _sweep_parts(
    request: Request,
    clustered: Clustered,
    marks: Marks,
    fractions: Sequence[float],
    workers: Workers,
    workspace: WorkspaceOnDisk | None,
) -> list[SweptFraction]:
    """Search the eps of each fraction; across clusters if there is a workspace."""
    options = build_options(request.config)
    folder = None if workspace is None else workspace.folder
    parts, clusters, _ = split_clusters(clustered, marks, within=options.within, workspace=folder)
    valid = sum(part.rows for part in parts)
    map_parts = make_map_parts(workers.submit)
    if options.within:
        clusters = sum(map_parts("list", count_values, parts))
    plan = Plan(options)
    if options.cover or workspace is not None:  # otherwise no count depends on a survey
        plan = survey(parts, options, choose_prototypes(request.config, clustered.embedded, workers), map_parts)
    least = clusters + marks.always_kept
    reserve = options.reserve if options.rule.reserves_seats else 0.0
    across = None if workspace is None else AcrossClusters(parts, plan, map_parts, workspace)
    results = []
    for fraction in fractions:
        target = kept_target(fraction, valid)
        check_target(fraction, valid, clusters, marks.always_kept, within=options.within)
        searched = swept_target(target, valid, reserve, least)
        if across is None:
            eps = search_eps(parts, plan, searched, valid, map_parts)
            swept = int(np.sum(map_parts("count", count_kept, parts, [eps], plan)))
        else:
            eps = search_eps_across(across, searched, valid)
            swept = across.at(eps).count()
        results.append(SweptFraction(fraction, target, eps / EPS_UNIT, target - swept))
    return results
