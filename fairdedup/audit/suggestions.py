"""Suggests samples to label: those with the least certain memberships, from all clusters, as CSV for annotators."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.audit.audit_report import SuggestionReport
from fairdedup.audit.decision_parts import MapDecisions
from fairdedup.core.uncertainty import SCORE_UNIT, apportion
from fairdedup.stages.group_counts import (
    PerceivedGroups,
    UncertaintySums,
    select_highest,
    select_uncertain,
    sum_uncertainty,
)
from fairdedup.storage.csv_cells import neutralise_cell
from fairdedup.storage.run_files import atomic_write


def suggest_samples(
    source: PerceivedGroups,
    labelled: Sequence[NDArray[np.int64]],
    *,
    number: int,
    path: Path,
    clusters: int,
    map_decisions: MapDecisions,
) -> SuggestionReport:
    """Write the samples whose labels would be most informative, highest score first.

    Parameters
    ----------
    source : PerceivedGroups
        Soft memberships of the samples.
    labelled : sequence of ndarray of int64
        For each part of the decisions, the rows that already have a label.
    number : int
        Number of samples to suggest.
    path : Path
        CSV file to write.
    clusters : int
        Number of clusters of the run.
    map_decisions : MapDecisions
        Maps a function over the parts of the decisions.
    """
    mass, rows = np.zeros(clusters, np.int64), np.zeros(clusters, np.int64)
    sums: list[UncertaintySums] = map_decisions("weigh", sum_uncertainty, source, each=labelled)
    for part in sums:
        mass[part.clusters] += part.mass
        rows[part.clusters] += part.rows
    seats = apportion(mass, rows, number)
    chosen = np.flatnonzero(seats)
    candidates = map_decisions("suggest", select_uncertain, source, chosen, seats[chosen], each=labelled)
    samples = select_highest(pa.concat_tables(candidates), chosen, seats[chosen])
    _write_samples(path, samples.sort_by([("score", "descending"), ("row", "ascending")]), source)
    return SuggestionReport(file=str(path), rows=len(samples), clusters=len(chosen))


def _write_samples(path: Path, samples: pa.Table, source: PerceivedGroups) -> None:
    attributes = source.prototypes.attributes
    names = [a.name if a.name.startswith("perceived ") else f"perceived {a.name}" for a in attributes]
    with atomic_write(path) as aside, open(aside, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(map(neutralise_cell, ["id", "cluster", "kept", "score", *names]))
        for sample in samples.to_pylist():
            concepts = [a.concepts[sample[f"concept {k}"]] for k, a in enumerate(attributes)]
            kept, score = "true" if sample["kept"] else "false", f"{sample['score'] / SCORE_UNIT:.6f}"
            cells = [sample["id"], sample["cluster"], kept, score, *concepts]
            writer.writerow(map(neutralise_cell, cells))
