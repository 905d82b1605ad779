"""Shares of groups before and after a decision, with intervals: of an audit of the run, or else counted here.

The groups are those of the run's own prototypes, or of the labels that the built-in sample was drawn with.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from fairdedup.audit.attribute_layout import NamedGroups, lay_out_attributes
from fairdedup.audit.audit_options import AuditOptions
from fairdedup.audit.audit_report import AuditReport
from fairdedup.audit.decision_parts import MapDecisions, perceived_groups
from fairdedup.audit.report_files import read_audit_report
from fairdedup.core.representation import compute_intervals, resample_clusters
from fairdedup.datasets.labels import Labels
from fairdedup.errors import UserError
from fairdedup.prototype_files import read_prototypes
from fairdedup.report.report_figures import AttributeFigure, GroupFigure, GroupFigures
from fairdedup.stages.group_counts import GroupSource, LabelledGroups, PerceivedGroups, count_groups
from fairdedup.stages.sample_shares import COLUMNS, labels_of
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import RunManifest
from fairdedup.storage.run_state import read_run_state, state_file
from fairdedup.storage.sealed_files import load_table

DRAWS = 400  # resamplings for an interval
MIN_CLUSTERS = 20  # with fewer clusters an interval would say little
FEWEST = 30  # samples of a group below which it has no interval
DRAWN = "by the labels that the sample was drawn with"
PERCEIVED = "as the encoder perceives them, by soft membership: these are not labels, and no better than the encoder"
NO_GROUP = "none"


def find_group_source(run: RunDirectory, manifest: RunManifest, map_decisions: MapDecisions) -> GroupSource | None:
    """Return what assigns the samples of a run to groups; None where the run knows of no groups.

    Parameters
    ----------
    run : RunDirectory
    manifest : RunManifest
    map_decisions : MapDecisions
        Maps a function over the parts of the decisions.
    """
    if manifest.input.format == "sample":
        return LabelledGroups(_read_sample_labels(run))
    state = read_run_state(run.root)
    if state is None or state.prototypes is None:
        return None
    prototypes = read_prototypes(state_file(run.root, state, "prototypes.parquet"))
    return perceived_groups(run, prototypes, manifest.config["prune"].get("temperature", "auto"), map_decisions)


def _read_sample_labels(run: RunDirectory) -> Labels:
    """Return the labels of the built-in sample; nobody is in a group "none"."""
    table = load_table(labels_of(run))
    groups, codes = [], []
    for name in COLUMNS:
        values = table.column(name).to_pylist()
        known = sorted({value for value in values if value != NO_GROUP})
        place = {value: number for number, value in enumerate(known)}
        groups.append(tuple(known))
        codes.append([place.get(value, -1) for value in values])
    places = {name: line for line, name in enumerate(table.column("id").to_pylist())}
    attributes = tuple(name.replace("_", " ") for name in COLUMNS)
    return Labels(places, attributes, tuple(groups), np.array(codes, np.int32).T)


def name_groups(source: GroupSource) -> list[NamedGroups]:
    """Return the attributes of a source, with the names of their groups."""
    if isinstance(source, LabelledGroups):
        return [NamedGroups(*pair) for pair in zip(source.labels.attributes, source.labels.groups, strict=True)]
    assert isinstance(source, PerceivedGroups)
    return [NamedGroups(attribute.name, attribute.concepts) for attribute in source.prototypes.attributes]


def measure_groups(
    run: RunDirectory,
    source: GroupSource | None,
    map_decisions: MapDecisions,
    clusters: int,
    *,
    absent: Collection[str] = (),
) -> GroupFigures | None:
    """Return the shares of all groups; those of an audit of the same decisions are preferred.

    Parameters
    ----------
    run : RunDirectory
    source : GroupSource or None
        What assigns samples to groups.
    map_decisions : MapDecisions
        Maps a function over the parts of the decisions.
    clusters : int
        Number of clusters, k.
    absent : collection of str
        Attributes that hardly any sample shows, as the encoder perceives them; they have no shares.
    """
    try:
        audited = read_audit_report(run)
    except UserError:  # it is damaged, and only a help here
        audited = None
    if audited is not None:
        return _read_audited(audited)
    if source is None:
        return None
    attributes, _ = lay_out_attributes(name_groups(source), AuditOptions(intersections=()))
    total = sum(len(attribute.labels) for attribute in attributes)
    before, after = np.zeros((clusters, total), np.int64), np.zeros((clusters, total), np.int64)
    for part in map_decisions("count", count_groups, source, [attribute.cells for attribute in attributes]):
        before[part.clusters] += part.before
        after[part.clusters] += part.after
    some = before.sum(axis=1) > 0
    rows, kept = before[some] / source.unit, after[some] / source.unit
    figures = []
    for attribute in attributes:
        own = attribute.columns
        names = [attribute.group_name(group) for group in range(len(attribute.labels))]
        figures.append(AttributeFigure(attribute.names[0], _measure(names, rows[:, own], kept[:, own])))
    labelled = isinstance(source, LabelledGroups)
    shown = [a for a in figures if a.groups and (labelled or a.attribute not in absent)]
    return GroupFigures(DRAWN if labelled else PERCEIVED, not labelled, shown)


def _measure(names: list[str], rows: np.ndarray, kept: np.ndarray) -> list[GroupFigure]:
    """Return the shares of the groups of an attribute from their rows and kept rows in each cluster (k, g)."""
    n, k = rows.sum(axis=0), kept.sum(axis=0)
    if not k.sum():
        return []
    intervals = None
    if len(rows) >= MIN_CLUSTERS:
        sufficient = n >= FEWEST
        intervals = compute_intervals(*resample_clusters(rows, kept, DRAWS, 0), sufficient)["shift"]
    figures = []
    for g, name in enumerate(names):
        if n[g]:
            known = intervals is not None and n[g] >= FEWEST and not np.isnan(intervals[g]).any()
            interval = (float(intervals[g][0]), float(intervals[g][1])) if known and intervals is not None else None
            figures.append(GroupFigure(name, float(n[g] / n.sum()), float(k[g] / k.sum()), interval))
    return figures


def _read_audited(report: AuditReport) -> GroupFigures | None:
    figures = []
    for attribute in report.attributes:
        groups = [
            GroupFigure(group.group, group.share_before, group.share_after, group.shift_interval)
            for group in attribute.groups
            if group.share_before is not None and group.share_after is not None
        ]
        if groups and not attribute.intersection:
            figures.append(AttributeFigure(attribute.attribute, groups))
    if not figures:
        return None
    perceived = report.source != "labels"
    return GroupFigures(PERCEIVED if perceived else f"{report.says}, in the last audit", perceived, figures)
