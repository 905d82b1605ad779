"""The whole audit of a finished run on one page: who was kept and who was removed, by labels or soft membership.

Decisions are read one part at a time. In memory are a matrix of clusters by groups, the labels, and the rows of the few
clusters that are examined. docs/audit.md has the definitions. An audit never changes the decisions.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from fairdedup.audit.attribute_layout import NamedGroups, lay_out_attributes
from fairdedup.audit.audit_options import AuditOptions
from fairdedup.audit.audit_report import AttributeReport, AuditReport
from fairdedup.audit.causes import explain_losses
from fairdedup.audit.decision_parts import MapDecisions, list_decision_parts, perceived_groups
from fairdedup.audit.label_matching import LabelMatch, describe_mismatches, match_written_out
from fairdedup.audit.measures import AuditedAttribute, LossTerms, MeasureSettings, measure_attribute
from fairdedup.audit.report_files import write_audit_report
from fairdedup.audit.suggestions import suggest_samples
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.representation import CONFIDENCE
from fairdedup.core.rules.registry import find_rule
from fairdedup.datasets.labels import Labels
from fairdedup.errors import format_count
from fairdedup.stages.group_counts import GroupCounts, GroupSource, LabelledGroups, PerceivedGroups, count_groups
from fairdedup.storage.contents import Clustered
from fairdedup.storage.manifest import RunManifest
from fairdedup.tasks import Submit

DRAWS = 1000  # resamplings for an interval
FEW_CLUSTERS = 20  # with fewer clusters the intervals are rough
SAYS_LABELS = "by the labels of {}"
SAYS_PERCEIVED = "by soft membership, not by labels: what the encoder perceives, and no better than it"


def audit_decisions(
    clustered: Clustered,
    manifest: RunManifest,
    options: AuditOptions,
    *,
    labels: Labels | None,
    prototypes: Prototypes | None,
    submit: Submit,
) -> AuditReport:
    """Measure who was kept, write the report files, and return the report.

    Parameters
    ----------
    clustered : Clustered
        Clusters of a finished run.
    manifest : RunManifest
        Content of the run's run.json.
    options : AuditOptions
        What to measure.
    labels : Labels or None
        Labels that assign samples to groups; None counts by soft membership.
    prototypes : Prototypes or None
        Prototypes of the soft memberships; needed without labels, and for suggestions.
    submit : Submit
        Runs tasks.

    Raises
    ------
    UserError
        If an attribute is unknown, no id of the labels is in the run, or the decisions are damaged.
    """
    run, prune = clustered.directory, manifest.config["prune"]
    on_workers = MapDecisions(list_decision_parts(clustered.embedded, manifest.files), submit)
    attributes, notes = lay_out_attributes(_named_groups(labels, prototypes), options)
    perceived, match = None, None
    if prototypes is not None:
        perceived = perceived_groups(run, prototypes, prune.get("temperature", "auto"), on_workers)
    if labels is not None:
        match, labels = match_written_out(on_workers.parts, labels)
        assert options.labels is not None
        notes += describe_mismatches(match, labels, options.labels)
    map_decisions = on_workers if labels is None else MapDecisions(on_workers.parts, None)
    source = _group_source(labels, perceived)
    reports, notes_on_groups = _measure_groups(clustered, manifest, options, attributes, source, map_decisions)
    report = AuditReport(
        source="labels" if labels is not None else "soft membership",
        says=SAYS_PERCEIVED if options.labels is None else SAYS_LABELS.format(options.labels.name),
        rule=prune["rule"],
        counts=manifest.counts.model_dump(),
        min_count=options.min_count,
        confidence=CONFIDENCE,
        draws=DRAWS,
        seed=options.seed,
        notes=[*notes, *notes_on_groups],
        attributes=reports,
    )
    if manifest.leftover is not None:
        report.leftover = manifest.leftover
    if options.suggest:
        assert perceived is not None
        _add_suggestions(report, clustered, options, perceived, match, on_workers)
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
    clustered: Clustered,
    manifest: RunManifest,
    options: AuditOptions,
    attributes: list[AuditedAttribute],
    source: GroupSource,
    map_decisions: MapDecisions,
) -> tuple[list[AttributeReport], list[str]]:
    """Return the report of each attribute, and notes."""
    counts = map_decisions("count", count_groups, source, [attribute.cells for attribute in attributes])
    before, after = add_up_counts(counts, len(clustered.sizes), sum(len(a.labels) for a in attributes))
    prune = manifest.config["prune"]
    of_run = prune.get("target", "uniform") if "target" in find_rule(prune["rule"]).reads else "uniform"
    settings = MeasureSettings(
        unit=source.unit,
        target=options.target or of_run,
        min_count=options.min_count,
        draws=DRAWS,
        seed=options.seed,
        labelled_from=manifest.counts.valid if isinstance(source, LabelledGroups) else None,
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
        notes.append(
            f"intervals come from only {format_count(clusters, 'cluster')}: too few to resample, so take them as rough"
        )
    notes += explain_losses(
        reports, losses, top=options.top, source=source, map_decisions=map_decisions, sizes=clustered.sizes
    )
    return reports, notes


def add_up_counts(
    parts: Iterable[GroupCounts], clusters: int, groups: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows and the kept rows of each group in each cluster (k, g), over all parts.

    Parameters
    ----------
    parts : iterable of GroupCounts
    clusters, groups : int
        Numbers of clusters and of groups.
    """
    before, after = np.zeros((clusters, groups), np.int64), np.zeros((clusters, groups), np.int64)
    for part in parts:
        before[part.clusters] += part.before
        after[part.clusters] += part.after
    return before, after


def _add_suggestions(
    report: AuditReport,
    clustered: Clustered,
    options: AuditOptions,
    perceived: PerceivedGroups,
    match: LabelMatch | None,
    map_decisions: MapDecisions,
) -> None:
    """Write the samples whose labels would be most informative, and add the file to the report."""
    no_rows = [np.zeros(0, np.int64)] * len(map_decisions.parts)
    report.suggested = suggest_samples(
        perceived,
        no_rows if match is None else match.labelled,
        number=options.suggest,
        path=options.suggestions or clustered.directory.report("suggested-labels.csv"),
        clusters=len(clustered.sizes),
        map_decisions=map_decisions,
    )
    if report.suggested.rows < options.suggest:
        report.notes.append(
            f"only {format_count(report.suggested.rows, 'sample is', 'samples are')} left whose label "
            "would be informative"
        )
