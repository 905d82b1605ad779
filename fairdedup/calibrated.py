"""Calibrated prototypes for a run: its own prototypes, fitted to a few hundred labels of its samples, as a file.

The file goes into `prune --prototypes`. Labels are used to fit, never to decide: no sample is kept for its label.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.calibration import Fit, calibrate, cross_entropy, held_out_entropy, likeliest_temperature
from fairdedup.core.prototypes import ABSENT, Attribute, Prototypes
from fairdedup.datasets.labels import Labels
from fairdedup.errors import UserError
from fairdedup.prototype_files import write_vectors
from fairdedup.storage.layout import RunDirectory, groups
from fairdedup.storage.run_files import read_table
from fairdedup.storage.vectors import vectors_of_rows

LEAST_LABELS = 3  # of each concept


def calibrate_prototypes(run: RunDirectory, prototypes: Prototypes, labels: Labels, out: Path) -> list[dict[str, Any]]:
    """Fit prototypes to the labels of some samples of a run, write them, and tell how much better they predict.

    Parameters
    ----------
    labels : Labels
        A column for each attribute that is to be calibrated, named as the prototypes name it, with or without
        "perceived" before it; values are concepts. An attribute without a column stays as it is.
    out : Path
        Parquet, as `prototype_files.read_vectors` reads it.

    Returns
    -------
    list of dict
        For each attribute: labels, temperature, and the mean cross entropy of labels that the fit has not seen,
        before and after. ``before`` has the likeliest temperature already.

    Raises
    ------
    UserError
        If no column is an attribute, a label is no concept, or a concept has too few labels.
    """
    columns = _columns(prototypes, labels)
    found, vectors = _labelled(run, labels)
    told: list[dict[str, Any]] = []
    written: dict[str, dict[str, NDArray[np.float64]]] = {}
    temperatures: dict[str, float] = {}
    for attribute in prototypes.attributes:
        unit = _unit(attribute.vectors)
        if attribute.name in columns:
            codes = _codes(attribute, labels, columns[attribute.name])[found]
            known = codes >= 0
            _check_numbers(attribute, codes[known])
            x, y = vectors[known], codes[known]
            fit = calibrate(x, y, unit)
            before = cross_entropy(Fit(unit, likeliest_temperature(x, y, unit)), x, y)
            after = held_out_entropy(x, y, unit)
            told.append({
                "attribute": attribute.name, "labels": len(y), "temperature": fit.temperature, "before": before,
                "after": after, "by chance": float(np.log(len(unit))),
            })  # fmt: skip
            unit, temperatures[attribute.name] = fit.vectors, fit.temperature
        elif attribute.temperature is not None:
            temperatures[attribute.name] = attribute.temperature
        own = dict(zip(attribute.concepts, unit, strict=True))
        written[attribute.name] = own | ({ABSENT: _unit(attribute.absent)} if len(attribute.absent) else {})
    out.parent.mkdir(parents=True, exist_ok=True)
    write_vectors(out, written, temperatures)
    return told


def _unit(vectors: NDArray[Any]) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split()).removeprefix("perceived ")


def _columns(prototypes: Prototypes, labels: Labels) -> dict[str, int]:
    """Return which column of the labels belongs to which attribute."""
    by_name = {_plain(name): k for k, name in enumerate(labels.attributes)}
    columns = {a.name: by_name[_plain(a.name)] for a in prototypes.attributes if _plain(a.name) in by_name}
    if not columns:
        raise UserError(
            f"--labels has columns {', '.join(labels.attributes)}, none of them an attribute of the prototypes: name "
            f"one {' or '.join(repr(a.name) for a in prototypes.attributes)}"
        )
    return columns


def _labelled(run: RunDirectory, labels: Labels) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the lines (n,) of the labels whose samples the run has, and their unit vectors (n, d)."""
    lines, vectors = [], []
    for group in groups(run.records()):
        rows, own = [], []
        for record, first in group.shards():
            ids = read_table(run.metadata(record.number), ["id"]).column("id").to_pylist()
            for position, name in zip(record.positions().tolist(), ids, strict=True):
                if str(name) in labels.places:
                    rows.append(first + position)
                    own.append(labels.places[str(name)])
        if rows:
            vectors.append(vectors_of_rows(run, group, np.array(rows, np.int64)))
            lines.append(np.array(own, np.int64))
    if not lines:
        first_id = next(iter(labels.places))
        raise UserError(f"--labels: none of its ids is in {run.root}, not even {first_id!r}: give labels of this run")
    return np.concatenate(lines), _unit(np.concatenate(vectors))


def _codes(attribute: Attribute, labels: Labels, column: int) -> NDArray[np.int64]:
    """Return the concept of each line of the labels, -1 where it has none or is absent."""
    number = {concept: k for k, concept in enumerate(attribute.concepts)} | {ABSENT: -1}
    for label in labels.groups[column]:
        if label not in number:
            raise UserError(
                f"--labels: {label!r} in column {labels.attributes[column]!r} is no concept of {attribute.name!r}: "
                f"write {', '.join(attribute.concepts)}, or leave it empty"
            )
    of_label = np.array([number[label] for label in labels.groups[column]] + [-1], np.int64)
    return of_label[labels.codes[:, column]]


def _check_numbers(attribute: Attribute, codes: NDArray[np.int64]) -> None:
    numbers = np.bincount(codes, minlength=len(attribute.concepts))
    if len(numbers) < 2:
        raise UserError(f"--labels: {attribute.name!r} has one concept alone: leave its column out")
    for concept, number in zip(attribute.concepts, numbers, strict=True):
        if number < LEAST_LABELS:
            what = f"{attribute.name}={concept} has {number} labels"
            raise UserError(f"--labels: {what}: give at least {LEAST_LABELS} of each concept")
