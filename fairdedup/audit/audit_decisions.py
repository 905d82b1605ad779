"""The audit of a finished run on one page: who was kept and who was removed, by labels or by soft membership.

Decisions are read a part at a time. In memory are a matrix of clusters by groups, the labels, and the rows of the few
clusters that are looked into. docs/audit.md has the definitions. The decisions are never changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.audit.attribute_layout import NamedGroups, lay_out_attributes
from fairdedup.audit.audit_options import AuditOptions
from fairdedup.audit.audit_report import AttributeReport, AuditReport
from fairdedup.audit.causes import explain_losses
from fairdedup.audit.decision_parts import MapDecisions, Submit, list_decision_parts, perceived_groups
from fairdedup.audit.label_matching import LabelMatch, describe_mismatches, match_labels
from fairdedup.audit.measures import AuditedAttribute, LossTerms, MeasureSettings, measure_attribute
from fairdedup.audit.report_files import write_audit_report
from fairdedup.audit.suggestions import suggest_samples
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.representation import CONFIDENCE
from fairdedup.core.rules.registry import find_rule
from fairdedup.datasets.labels import Labels
from fairdedup.stages.group_counts import GroupCounts, GroupSource, LabelledGroups, PerceivedGroups, count_groups
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.run_files import read_json

DRAWS = 1000  # resamplings for an interval
FEW_CLUSTERS = 20  # fewer give rough intervals
SAYS_LABELS = "by the labels of {}"
SAYS_PERCEIVED = "by soft membership, not by labels: what the encoder perceives, and no better than it"


def audit_decisions(
    run: RunDirectory,
    manifest: dict[str, Any],
    options: AuditOptions,
    *,
    labels: Labels | None,
    prototypes: Prototypes | None,
    submit: Submit,
) -> AuditReport:
    """Measure who was kept, write the report files, and return what they say.

    Parameters
    ----------
    run : RunDirectory
        Directory of a finished run.
    manifest : dict
        Its run.json.
    options : AuditOptions
        What to measure.
    labels : Labels or None
        Labels that say who belongs to which group; None counts by soft membership.
    prototypes : Prototypes or None
        Prototypes of the soft memberships; needed without labels, and for suggestions.
    submit : Submit
        Runs tasks.

    Raises
    ------
    UserError
        If an attribute is unknown, no id of the labels is in the run, or the decisions are damaged.
    """
    prune = manifest["config"]["prune"]
    on_workers = MapDecisions(list_decision_parts(run, manifest["files"]), submit)
    attributes, notes = lay_out_attributes(_named_groups(labels, prototypes), options)
    perceived, match = None, None
    if prototypes is not None:
        perceived = perceived_groups(run, prototypes, prune.get("temperature", "auto"), on_workers)
    if labels is not None:
        match = match_labels(on_workers.parts, labels)
        assert options.labels is not None
        notes += describe_mismatches(match, labels, options.labels)
    map_decisions = on_workers if labels is None else MapDecisions(on_workers.parts, None)
    source = _group_source(labels, perceived)
    reports, notes_on_groups = _measure_groups(run, manifest, options, attributes, source, map_decisions)
    report = AuditReport(
        source="labels" if labels is not None else "soft membership",
        says=SAYS_PERCEIVED if options.labels is None else SAYS_LABELS.format(options.labels.name),
        rule=prune["rule"],
        counts=manifest["counts"],
        min_count=options.min_count,
        confidence=CONFIDENCE,
        draws=DRAWS,
        seed=options.seed,
        notes=[*notes, *notes_on_groups],
        attributes=reports,
    )
    if options.suggest:
        assert perceived is not None
        _add_suggestions(report, run, options, perceived, match, on_workers)
    write_audit_report(run, report)
    return report


def _named_groups(labels: Labels | None, prototypes: Prototypes | None) -> list[NamedGroups]:
    if labels is not None:
        return [NamedGroups(name, groups) for name, groups in zip(labels.attributes, labels.groups, strict=True)]
    assert prototypes is not None
    return [NamedGroups(attribute.name, attribute.concepts) for attribute in prototypes.attributes]


def _group_source(labels: Labels | None, perceived: PerceivedGroups | None) -> GroupSource:
    if labels is not None:
        return LabelledGroups(labels)
    assert perceived is not None
    return perceived


def _measure_groups(
    run: RunDirectory,
    manifest: dict[str, Any],
    options: AuditOptions,
    attributes: list[AuditedAttribute],
    source: GroupSource,
    map_decisions: MapDecisions,
) -> tuple[list[AttributeReport], list[str]]:
    """Return the report of each attribute, and notes."""
    counts = map_decisions("count", count_groups, source, [attribute.cells for attribute in attributes])
    before, after = _add_up(counts, len(read_json(run.sizes)), sum(len(a.labels) for a in attributes))
    prune = manifest["config"]["prune"]
    of_run = prune.get("target", "uniform") if "target" in find_rule(prune["rule"]).reads else "uniform"
    settings = MeasureSettings(
        unit=source.unit,
        target=options.target or of_run,
        min_count=options.min_count,
        draws=DRAWS,
        seed=options.seed,
        labelled_from=int(manifest["counts"]["valid"]) if isinstance(source, LabelledGroups) else None,
    )
    reports: list[AttributeReport] = []
    losses: list[LossTerms] = []
    for attribute in attributes:
        own = attribute.columns
        report, loss = measure_attribute(attribute, before[:, own], after[:, own], settings)
        reports.append(report)
        losses.append(loss)
    notes = []
    clusters = int(np.count_nonzero(before.sum(axis=1)))
    if clusters < FEW_CLUSTERS:
        notes.append(f"intervals come from only {clusters} clusters: too few to resample, so take them as rough")
    notes += explain_losses(reports, losses, top=options.top, source=source, map_decisions=map_decisions, run=run)
    return reports, notes


def _add_up(parts: Iterable[GroupCounts], clusters: int, groups: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows and the kept rows of each group in each cluster (k, g), over all parts."""
    before, after = np.zeros((clusters, groups), np.int64), np.zeros((clusters, groups), np.int64)
    for part in parts:
        before[part.clusters] += part.before
        after[part.clusters] += part.after
    return before, after


def _add_suggestions(
    report: AuditReport,
    run: RunDirectory,
    options: AuditOptions,
    perceived: PerceivedGroups,
    match: LabelMatch | None,
    map_decisions: MapDecisions,
) -> None:
    """Write the samples that are worth a label, and say so in the report."""
    nobody = [np.zeros(0, np.int64)] * len(map_decisions.parts)
    report.suggested = suggest_samples(
        run,
        perceived,
        nobody if match is None else match.labelled,
        number=options.suggest,
        path=options.suggestions or run.report("suggested-labels.csv"),
        map_decisions=map_decisions,
    )
    if report.suggested.rows < options.suggest:
        report.notes.append(f"only {report.suggested.rows:,} samples are left whose label would say anything")
