"""Gathers the figures of a report from the files of a finished run, one part of the decisions at a time."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fairdedup.audit.decision_parts import MapDecisions, list_decision_parts
from fairdedup.report.decision_scan import COLUMNS, UNITS, DecisionScan
from fairdedup.report.embedding_points import Points, choose_groups, project_points
from fairdedup.report.gallery import choose_gallery
from fairdedup.report.group_figures import find_group_source, measure_groups, name_groups
from fairdedup.report.kept_pairs import BELOW, find_kept_pairs
from fairdedup.report.report_figures import Band, EmbeddingMap, Pair, Rejection, ReportFigures, ShownSample
from fairdedup.report.shown_rows import FoundRows, find_rows, read_details, read_texts
from fairdedup.stages.pruning import describe_suggestion, suggest_run_eps
from fairdedup.storage.contents import Clustered
from fairdedup.storage.kept_samples import STANDS_FOR
from fairdedup.storage.manifest import RunManifest
from fairdedup.storage.result_files import result_part
from fairdedup.storage.sealed_files import load_table, read_schema
from fairdedup.tasks import Submit

MOST_CAPTIONS = 30_000  # samples of the map up to which all of them can be found by their captions
MOST_IDS = 32 << 20  # bytes of ids that are tried on a page
REASONS, EXAMPLES = 12, 3
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


def gather_figures(clustered: Clustered, manifest: RunManifest, submit: Submit | None) -> ReportFigures:
    """Return the figures of a finished run.

    Parameters
    ----------
    clustered : Clustered
    manifest : RunManifest
    submit : Submit or None
        Runs the counting of groups on workers; None counts here.

    Raises
    ------
    UserError
        If a file of the run is missing or damaged.
    """
    run, groups = clustered.directory, clustered.groups
    map_decisions = MapDecisions(
        list_decision_parts(clustered.embedded, manifest.files),
        submit,
    )
    scan = _scan(clustered, manifest)
    source = find_group_source(run, manifest, map_decisions)
    few = choose_groups(groups)
    points = project_points(run, few)
    wanted = _list_wanted(scan)
    leaders = scan.chosen()
    found = find_rows(
        map_decisions.parts, np.union1d(wanted, leaders), leaders, points, source, {group.number for group in few}
    )
    names = {} if source is None else {known.attribute: list(known.groups) for known in name_groups(source)}
    figures = measure_groups(run, source, map_decisions, len(clustered.sizes), absent=manifest.absent)
    gallery = choose_gallery(scan, found, names, figures)
    between = _pairs_of_kept(clustered, manifest, points, found)
    shown = {row for each in gallery for row in (each.row, *(member for member, _ in each.members))}
    shown |= {row for pair in between for row in (pair.first, pair.second)} | set(wanted.tolist())
    samples = found.collect(shown)
    bands = _bands(scan, between, manifest.eps, samples)
    read_details(clustered.embedded, samples)
    return ReportFigures(
        name=run.root.name,
        manifest=manifest,
        groups=figures,
        similarities=scan.similarities,
        sizes=scan.sizes,
        gallery=[each for each in gallery if each.row in samples],
        neighbourhoods=scan.neighbourhoods,
        bands=bands,
        outliers=[row for row in scan.outliers.rows.tolist() if row in samples],
        rejections=_read_rejections(clustered, manifest),
        map=_build_map(clustered, points, found, names),
        samples=samples,
        suggestion=describe_suggestion(suggest_run_eps(clustered)),
        sampled=len(few) < len([group for group in groups if group.valid]),
    )


def _scan(clustered: Clustered, manifest: RunManifest) -> DecisionScan:
    run = clustered.directory
    scan = DecisionScan(len(clustered.sizes), manifest.eps)
    for group in clustered.groups:
        table = load_table(result_part(run, "decisions", group.number, manifest.files), COLUMNS)
        kept = result_part(run, "kept", group.number, manifest.files)
        counted = STANDS_FOR in read_schema(kept).names  # runs of earlier versions lack it
        scan.add(table, load_table(kept, [STANDS_FOR]).column(0).to_numpy() if counted else None)
    return scan


def _list_wanted(scan: DecisionScan) -> NDArray[np.int64]:
    """Return the rows that are shown beside the gallery, ascending."""
    bands = [rows for band in scan.bands for rows in (band.rows, band.others)]
    return np.unique(np.concatenate((*bands, scan.outliers.rows)))


def _pairs_of_kept(clustered: Clustered, manifest: RunManifest, points: Points | None, found: FoundRows) -> list[Pair]:
    """Return pairs of kept samples just under the threshold, where samples are compared with all of their cluster."""
    if points is None or manifest.eps is None or manifest.config["prune"].get("within"):
        return []
    return find_kept_pairs(clustered.directory, points, found.points, manifest.eps)


def _bands(
    scan: DecisionScan, between: Sequence[Pair], eps: float | None, samples: dict[int, ShownSample]
) -> list[Band]:
    """Return the bands of cosines: those under the threshold, and then those above it."""
    if eps is None or not len(scan.edges):
        return []
    bands = []
    step = int(scan.edges[1] - scan.edges[0]) if len(scan.edges) > 1 else 5
    threshold = round((1 - eps) * UNITS)
    for below in range(BELOW, 0, -1):
        low, high = (threshold - below * step) / UNITS, (threshold - (below - 1) * step) / UNITS
        own = [p for p in between if low < p.cosine <= high and p.first in samples and p.second in samples]
        bands.append(Band(low, high, None, own))
    while bands and not bands[0].pairs:  # the data may have nothing there
        del bands[0]
    for low, high, drawn in zip(scan.edges[:-1].tolist(), scan.edges[1:].tolist(), scan.bands, strict=True):
        count = int(scan.similarities[low + UNITS + 1 : high + UNITS + 1].sum())
        if not bands or bands[-1].count is None:  # rounded down to the threshold
            count += int(scan.similarities[low + UNITS])
        pairs = []
        for first, second in zip(drawn.rows.tolist(), drawn.others.tolist(), strict=True):
            known = samples.get(first)
            if known is not None and known.similarity is not None and second in samples:
                pairs.append(Pair(first, second, known.similarity, True))
        bands.append(Band(low / UNITS, high / UNITS, count, sorted(pairs, key=lambda pair: (pair.cosine, pair.first))))
    return bands


def _read_rejections(clustered: Clustered, manifest: RunManifest) -> list[Rejection]:
    """Return the reasons of all rejected samples; what a reason quotes does not tell reasons apart."""
    counts: Counter[str] = Counter()
    examples: dict[str, list[tuple[str, str]]] = {}
    for group in clustered.groups if manifest.counts.rejected else ():
        table = load_table(result_part(clustered.directory, "rejected", group.number, manifest.files))
        for reason, number in _count_values(table.column("reason")):
            plain = _QUOTED.sub("…", reason)
            counts[plain] += number
            known = examples.setdefault(plain, []) if len(examples) < 1_000 else examples.get(plain, [])
            if len(known) < EXAMPLES:
                own = table.filter(pc.equal(table.column("reason"), reason)).slice(0, EXAMPLES - len(known))
                known += zip(own.column("id").to_pylist(), own.column("source").to_pylist(), strict=True)
    return [Rejection(reason, number, examples.get(reason, [])) for reason, number in counts.most_common(REASONS)]


def _count_values(column: pa.ChunkedArray) -> list[tuple[str, int]]:
    return [(each["values"], each["counts"]) for each in pc.value_counts(column).to_pylist()[:1_000]]


def _build_map(
    clustered: Clustered, points: Points | None, found: FoundRows, names: dict[str, list[str]]
) -> EmbeddingMap | None:
    table = found.points
    if points is None or not table.num_rows:
        return None
    place = np.searchsorted(points.rows, table.column("row").to_numpy())
    column = table.column("id")
    ids = column.to_pylist() if column.nbytes <= MOST_IDS else None
    captions: list[str] | None = None
    if ids is not None and len(ids) <= MOST_CAPTIONS:
        captions = read_texts(clustered.embedded, table.column("row").to_numpy())
    columns: dict[str, Any] = {
        name: table.column(name).to_numpy() for name in ("row", "kept", "cluster", "representative", "similarity")
    }
    return EmbeddingMap(
        rows=columns["row"],
        x=points.x[place],
        y=points.y[place],
        kept=columns["kept"],
        cluster=columns["cluster"],
        representative=columns["representative"],
        similarity=columns["similarity"].astype(np.float64),
        groups=found.groups,
        names={name: names[name] for name in found.groups},
        ids=ids,
        captions=captions,
        among=clustered.embedded.valid,
        explained=points.explained,
        method=points.method,
        remark=points.remark,
        reach=points.reach,
    )
