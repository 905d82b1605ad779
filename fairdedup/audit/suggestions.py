"""Which samples are worth a label: the least certain ones, spread over the clusters, as CSV for whoever labels them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.core.prototypes import Prototypes
from fairdedup.core.uncertainty import SCORE_UNIT, apportion
from fairdedup.stages.group_counts import Part, Source, first_of_each, most_uncertain, uncertain_mass
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.run_files import read_json, whole


def suggest(
    run: RunDirectory, parts: list[Part], source: Source, prototypes: Prototypes, labelled: list[NDArray[np.int64]],
    number: int, place: Path, submit: Callable[..., list[Any]],
) -> dict[str, Any]:  # fmt: skip
    """Write the samples whose labels would say most, highest score first, and return where and how many.

    Parameters
    ----------
    run : RunDirectory
    parts : list of Part
    source : Source
        Of soft memberships.
    prototypes : Prototypes
    labelled : list of ndarray of int64
        Of each part, the rows that have a label.
    number : int
        How many samples.
    place : Path
        Of the CSV.
    submit : callable
    """
    sizes = [part.group.input for part in parts]

    def over(step: str, function: Callable[..., Any], *args: Any) -> list[Any]:
        pairs = zip(parts, labelled, strict=True)
        return submit(step, function, [(part, source, known, *args) for part, known in pairs], sizes)

    clusters = len(read_json(run.sizes))
    mass, rows = np.zeros(clusters, np.int64), np.zeros(clusters, np.int64)
    for some, more, many in over("weigh", uncertain_mass):
        mass[some] += more
        rows[some] += many
    seats = apportion(mass, rows, number)
    some = np.flatnonzero(seats)
    found = first_of_each(pa.concat_tables(over("suggest", most_uncertain, some, seats[some])), some, seats[some])
    found = found.sort_by([("score", "descending"), ("row", "ascending")])
    _write(place, found, prototypes)
    return {"file": str(place), "rows": len(found), "clusters": len(some)}


def _write(place: Path, found: pa.Table, prototypes: Prototypes) -> None:
    names = [a.name if a.name.startswith("perceived ") else f"perceived {a.name}" for a in prototypes.attributes]
    with whole(place) as aside, open(aside, "w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["id", "cluster", "kept", "score", *names])
        for line in found.to_pylist():
            likely = [a.concepts[line[f"concept {k}"]] for k, a in enumerate(prototypes.attributes)]
            kept = "true" if line["kept"] else "false"
            lines.writerow([line["id"], line["cluster"], kept, f"{line['score'] / SCORE_UNIT:.6f}", *likely])
