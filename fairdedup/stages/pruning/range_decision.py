"""The third stage: the decision of core/ over files, a task for each range of clusters.

Each task writes its decisions to disk and returns small statistics and, for re-admission, its removed rows.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.decision import decide
from fairdedup.core.decision_columns import RECORD
from fairdedup.core.model import Inherited, Options, Plan
from fairdedup.core.part import Shared
from fairdedup.core.parts import Decided, decide_part
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.round_state import Trial
from fairdedup.core.round_steps import Keepers, decide_in_part
from fairdedup.stages.pruning.cluster_ranges import ClusterRange, make_map_parts
from fairdedup.stages.pruning.concept_shares import (
    describe_absent_attributes,
    describe_vague_attributes,
    measure_shares,
)
from fairdedup.stages.pruning.decision_ranges import split_for_decision
from fairdedup.stages.pruning.round_files import open_workspace
from fairdedup.stages.pruning.value_counts import count_values
from fairdedup.stages.values import DecidedTask, Pruned
from fairdedup.storage.contents import Clustered
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.marks import Marks
from fairdedup.storage.run_files import write_array
from fairdedup.tasks import Submit


@dataclass
class Stored(Decided):
    """Statistics of decisions whose columns are on disk, in the order of the rows.

    Attributes
    ----------
    bounds : ndarray of shape (g + 1,), int64
        Where the rows of each group of shards begin among the decisions.
    """

    bounds: NDArray[np.int64]


def decide_and_store(part: ClusterRange, eps: int, plan: Plan) -> Stored:
    """Decide a range of clusters, write its decisions in the order of the rows, and return what re-admission needs.

    Parameters
    ----------
    part : ClusterRange
    eps : int
        Ten-thousandths.
    plan : Plan
    """
    return _store(part, decide_part(part, eps, plan))


def decide_across_and_store(
    part: ClusterRange, own: tuple[int, Keepers], trial: Trial, plan: Plan, kept: Shared
) -> Stored:
    """Take the last step of a decision in rounds, and write its decisions as `decide_and_store` does.

    Parameters
    ----------
    part : ClusterRange
    own : (int, Keepers)
        As `decide_in_part` has them.
    trial : Trial
    plan : Plan
    kept : Shared
        Whether each row of the input is kept.
    """
    return _store(part, decide_in_part(part, own, trial, plan, kept))


def _store(part: ClusterRange, decided: Decided) -> Stored:
    order = np.argsort(decided.columns["row"])
    records = np.empty(len(order), RECORD)
    for name in RECORD.names or ():
        records[name] = decided.columns[name][order]
    write_array(RunDirectory(part.root).decided(part.number), records)
    return Stored(**{**vars(decided), "columns": {}}, bounds=np.searchsorted(records["row"], part.starts))


def prune(
    clustered: Clustered,
    marks: Marks,
    options: Options,
    prototypes: Prototypes | None,
    submit: Submit,
    *,
    keep: float | None = None,
    at_most: float | None = None,
    eps: int | None = None,
    inherited: Inherited | None = None,
) -> Pruned:
    """Decide which rows of a clustered run are kept; each task writes its decisions to ``decisions/_tasks``.

    Parameters
    ----------
    clustered : Clustered
    marks : Marks
        Which rows are excluded, and which are always kept.
    options : Options
    prototypes : Prototypes or None
        Some rules need them. With prototypes, the shares of their concepts are measured too.
    submit : Submit
    keep, at_most : float, optional
        Fraction of the valid rows to keep, exactly or at most.
    eps : int, optional
        Ten-thousandths. Give one of `keep`, `at_most` and `eps`, or none with `inherited`.
    inherited : Inherited, optional
        Values that earlier runs hand on; the samples that they kept are in state/.

    Returns
    -------
    Pruned
    """
    across = options.looks_across
    with open_workspace(clustered, options, submit) if across else nullcontext() as workspace:
        parts, clusters, without_rows = split_for_decision(clustered, marks, options, submit, workspace, inherited)
        map_parts = make_map_parts(submit)
        if options.within and eps is None:
            clusters = sum(map_parts("list", count_values, parts))
        decision = decide(
            parts,
            clusters,
            options,
            prototypes,
            map_parts,
            keep=keep,
            at_most=at_most,
            eps=eps,
            decide_step=decide_and_store,
            decide_across_step=decide_across_and_store,
            workspace=workspace,
            protected=marks.always_kept,
            inherited=inherited,
            without_rows=without_rows,
        )
        decision.across = None  # the files of its pairs are removed
    tasks = [DecidedTask(part.number, stored.bounds) for part, stored in zip(parts, decision.parts, strict=True)]
    if prototypes is None:
        return Pruned(decision, tasks, [], [], (), (), [], decision.warnings)
    parts = [replace(part, workspace=None) for part in parts]  # its files are removed
    found = measure_shares(parts, options, prototypes, decision, submit, inherited=inherited)
    doubts = describe_absent_attributes(found) + describe_vague_attributes(options, prototypes, found)
    return Pruned(
        decision,
        tasks,
        found.shares,
        list(found.showing),
        found.temperatures,
        found.moments,
        doubts,
        decision.warnings,
    )
