"""`fairdedup calibrate`: fits the prototypes of a run to a few hundred labels, and memberships to the run's shares.

The file is for `prune --prototypes`. Labels are only used to fit: never is a sample kept because of its label.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.commands.replace import complete_stopped_replacement
from fairdedup.config import RunConfig
from fairdedup.core.calibration import Fit, calibrate, cross_entropy, held_out_entropy, likeliest_temperature
from fairdedup.core.prototypes import ABSENT, Attribute, Prototypes
from fairdedup.core.share_estimate import correct_shares as find_shares
from fairdedup.core.share_estimate import equal_priors
from fairdedup.core.similarity import Vectors
from fairdedup.datasets.labels import Labels, read_labels, write_out_ids
from fairdedup.errors import UserError, format_count
from fairdedup.preparation.prototype_choice import find_run_prototypes
from fairdedup.prototype_files import write_vectors
from fairdedup.storage.config_record import read_config_record
from fairdedup.storage.contents import Embedded, load_embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.shard_files import GroupVectors, read_shard_metadata
from fairdedup.workers import Workers

LEAST_LABELS = 3  # labels that each concept needs
MOST_SAMPLED = 50_000  # rows that shares are estimated by
BLOCK = 8_192  # rows that are read at a time


@dataclass(frozen=True, kw_only=True)
class CalibratedAttribute:
    """What calibration did to one attribute.

    Attributes
    ----------
    attribute : str
        Name of the attribute.
    labels : int
        Number of labelled samples in the fit.
    temperature : float
        Temperature that was written.
    improved : bool
        Whether the fitted prototypes were written. The others predict held-out labels worse than the unfitted ones at
        their likeliest temperature, which were then written.
    before, after : float
        Mean cross entropy, in nats, of the labels by the unfitted prototypes at their likeliest temperature, and of
        held-out labels by fitted prototypes.
    by_chance : float
        Mean cross entropy, in nats, of a random guess among the concepts.
    """

    attribute: str
    labels: int
    temperature: float
    improved: bool
    before: float
    after: float
    by_chance: float

    def to_json(self) -> dict[str, Any]:
        """Return the values under the keys that `--log-json` prints."""
        return {name.replace("_", " "): value for name, value in asdict(self).items()}


class Calibration(NamedTuple):
    """What was found: how well each labelled attribute fits, and the shares of those whose shares were corrected.

    Attributes
    ----------
    fits : list of CalibratedAttribute
    shares : dict of str to dict of str to float
        Attribute -> {concept: its share in the run, as the memberships tell it}.
    """

    fits: list[CalibratedAttribute]
    shares: dict[str, dict[str, float]]


class _Fitted(NamedTuple):
    """Prototypes to write, and of each attribute the shares of the concepts where its memberships are probabilities."""

    vectors: dict[str, dict[str, NDArray[np.float64]]]
    temperatures: dict[str, float]
    priors: dict[str, NDArray[np.float64]]


def calibrate_run(
    config: RunConfig, labels: Path | None, out: Path, workers: Workers, *, correct_shares: bool = False
) -> Calibration:
    """Fit the prototypes of an embedded run to labels of its samples, write them, and return how well they predict.

    Parameters
    ----------
    config : RunConfig
        Names the run; also the prototypes to start from, unless they are the run's own.
    labels : Path or None
        CSV or Parquet file with a column id, and one for each attribute.
    out : Path
        Parquet file to write.
    workers : Workers
        Run the tasks that embed captions.
    correct_shares : bool
        Whether to estimate how common each concept is in the run, and to write offsets that fit.

    Raises
    ------
    UserError
        If the run is not embedded, the labels do not fit it or its prototypes, or there is nothing to do.
    """
    if labels is None and not correct_shares:
        raise UserError("nothing to calibrate by: give --labels FILE, --correct-shares, or both")
    directory = RunDirectory(config.out.absolute())
    embedded = load_embedded(directory)
    complete_stopped_replacement(directory, workers)
    options = read_config_record(directory).options_of("prune")
    known = None if labels is None else read_labels(labels, None)
    for remark in () if known is None else known.remarks:
        workers.progress.say(remark)
    prototypes = find_run_prototypes(config, embedded, options, workers)
    return calibrate_prototypes(embedded, prototypes, known, out, correct_shares=correct_shares)


def calibrate_prototypes(
    embedded: Embedded, prototypes: Prototypes, labels: Labels | None, out: Path, *, correct_shares: bool = False
) -> Calibration:
    """Fit prototypes to the labels of some samples of a run, write them, and return how well they predict.

    Fitted prototypes are written only where they predict held-out labels at least as well as those before.

    Parameters
    ----------
    embedded : Embedded
        Embeddings of a run.
    prototypes : Prototypes
        Prototypes to start from.
    labels : Labels or None
        A column for each attribute to calibrate, with the attribute's name, "perceived" before it or not; values are
        concepts. An attribute without a column is not fitted.
    out : Path
        Parquet file to write, as `prototype_files.read_vectors` reads it.
    correct_shares : bool
        Whether to write offsets by which the memberships fit the shares of the run, for all attributes.

    Raises
    ------
    UserError
        If no column is an attribute, a label is not a concept, or a concept has too few labels.
    """
    fits, fitted = _fit_prototypes(embedded, prototypes, labels)
    of_fits = {fit.attribute for fit in fits}  # a fit is one without offsets
    before = {a.name: a.offsets for a in prototypes.attributes if a.name not in of_fits}
    found = Prototypes.of(fitted.vectors).with_temperatures(fitted.temperatures)
    shares: dict[str, dict[str, float]] = {}
    if correct_shares:
        found, shares = find_shares(found, _score_sample(embedded, found), fitted.priors)
    else:
        found = found.with_offsets(before)
    temperatures = {a.name: a.temperature for a in found.attributes if a.temperature is not None}
    offsets = {a.name: dict(zip(a.concepts, a.offsets, strict=True)) for a in found.attributes if a.offsets}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_vectors(out, fitted.vectors, temperatures, offsets)
    return Calibration(fits, shares)


def _fit_prototypes(
    embedded: Embedded, prototypes: Prototypes, labels: Labels | None
) -> tuple[list[CalibratedAttribute], _Fitted]:
    """Fit each attribute that has a column; the others stay, and are taken to be probabilities at equal shares."""
    columns, lines, vectors = {}, np.empty(0, np.int64), np.empty((0, 0))
    if labels is not None:
        columns = _match_columns(prototypes, labels)
        lines, vectors = _read_labelled_vectors(embedded, labels)
    fits: list[CalibratedAttribute] = []
    fitted = _Fitted({}, {}, equal_priors(prototypes))
    for attribute in prototypes.attributes:
        unit, temperature = _unit(attribute.vectors), attribute.temperature
        if labels is not None and attribute.name in columns:
            codes = _label_codes(attribute, labels, columns[attribute.name])[lines]
            known = codes >= 0
            fit, result = _fit_attribute(attribute, vectors[known], codes[known])
            fits.append(result)
            unit, temperature = fit.vectors, fit.temperature
            if result.improved:
                fitted.priors[attribute.name] = np.bincount(codes[known], minlength=len(unit)) / len(codes[known])
        if temperature is not None:
            fitted.temperatures[attribute.name] = temperature
        absent = {ABSENT: _unit(attribute.absent)} if len(attribute.absent) else {}
        fitted.vectors[attribute.name] = dict(zip(attribute.concepts, unit, strict=True)) | absent
    return fits, fitted


def _score_sample(embedded: Embedded, prototypes: Prototypes) -> list[NDArray[np.float64]]:
    """Return the scores (n, c + a) of each attribute, of `MOST_SAMPLED` random rows of a run, or of all."""
    run, total = embedded.directory, sum(group.valid for group in embedded.groups)
    chosen = np.arange(total)
    if total > MOST_SAMPLED:
        chosen = np.sort(np.random.default_rng(0).choice(total, MOST_SAMPLED, replace=False))
    blocks, start = [], 0
    for group in embedded.groups:
        rows = np.concatenate([first + record.positions() for record, first in group.shards()])
        own = rows[chosen[(chosen >= start) & (chosen < start + len(rows))] - start]
        start += len(rows)
        vectors = GroupVectors(run, group)
        for at in range(0, len(own), BLOCK):
            blocks.append(prototypes.scores(Vectors.of(vectors.read_rows(own[at : at + BLOCK]))))
    if not blocks:
        raise UserError(f"{run.root} has no sample to estimate shares by: give another run")
    return [np.concatenate(own) for own in zip(*blocks, strict=True)]


def _fit_attribute(
    attribute: Attribute, vectors: NDArray[np.float64], codes: NDArray[np.int64]
) -> tuple[Fit, CalibratedAttribute]:
    """Fit one attribute to labelled vectors (n, d), whose concepts are codes (n,), and return the better prototypes."""
    _check_label_counts(attribute, codes)
    unit = _unit(attribute.vectors)
    unfitted = Fit(unit, likeliest_temperature(vectors, codes, unit))
    before, after = cross_entropy(unfitted, vectors, codes), float(held_out_entropy(vectors, codes, unit))
    better = calibrate(vectors, codes, unit) if after <= before else unfitted
    return better, CalibratedAttribute(
        attribute=attribute.name,
        labels=len(codes),
        temperature=better.temperature,
        improved=after <= before,
        before=before,
        after=after,
        by_chance=float(np.log(len(unit))),
    )


def _unit(vectors: NDArray[Any]) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def _plain_name(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split()).removeprefix("perceived ")


def _match_columns(prototypes: Prototypes, labels: Labels) -> dict[str, int]:
    """Return the number of the label column of each attribute that has one."""
    by_name = {_plain_name(name): k for k, name in enumerate(labels.attributes)}
    columns = {a.name: by_name[_plain_name(a.name)] for a in prototypes.attributes if _plain_name(a.name) in by_name}
    if not columns:
        raise UserError(
            f"--labels has columns {', '.join(labels.attributes)}, but the prototypes have no such attribute: rename a "
            f"column to {' or '.join(repr(a.name) for a in prototypes.attributes)}"
        )
    return columns


def _read_labelled_vectors(embedded: Embedded, labels: Labels) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the lines (n,) of the labels whose samples are in the run, and the samples' unit vectors (n, d)."""
    run = embedded.directory
    lines, vectors = [], []
    for group in embedded.groups:
        rows, own = [], []
        for record, first in group.shards():
            ids = read_shard_metadata(run, record, ["id"]).column("id").to_pylist()
            for position, name in zip(record.positions().tolist(), ids, strict=True):
                if str(name) in labels.places:
                    rows.append(first + position)
                    own.append(labels.places[str(name)])
        if rows:
            vectors.append(GroupVectors(run, group).read_rows(np.array(rows, np.int64)))
            lines.append(np.array(own, np.int64))
    found = np.zeros(len(labels.places), np.bool_)
    found[np.concatenate(lines) if lines else []] = True
    spelled = write_out_ids(labels, found)
    if spelled is not None:
        return _read_labelled_vectors(embedded, spelled)
    if not lines:
        first_id = next(iter(labels.places))
        raise UserError(f"--labels: none of its ids is in {run.root}, not even {first_id!r}: give labels of this run")
    return np.concatenate(lines), _unit(np.concatenate(vectors))


def _label_codes(attribute: Attribute, labels: Labels, column: int) -> NDArray[np.int64]:
    """Return the number of the concept on each line of the labels; -1 for an empty or absent one."""
    code = {concept: k for k, concept in enumerate(attribute.concepts)} | {ABSENT: -1}
    for label in labels.groups[column]:
        if label not in code:
            raise UserError(
                f"--labels: {label!r} in column {labels.attributes[column]!r} is not a concept of {attribute.name!r}: "
                f"write {', '.join(attribute.concepts)}, or leave it empty"
            )
    of_label = np.array([code[label] for label in labels.groups[column]] + [-1], np.int64)
    return of_label[labels.codes[:, column]]


def _check_label_counts(attribute: Attribute, codes: NDArray[np.int64]) -> None:
    counts = np.bincount(codes, minlength=len(attribute.concepts))
    if len(counts) < 2:
        raise UserError(f"--labels: {attribute.name!r} has only one concept: leave its column out")
    for concept, count in zip(attribute.concepts, counts, strict=True):
        if count < LEAST_LABELS:
            what = f"{attribute.name}={concept} has {format_count(count, 'label')}"
            raise UserError(f"--labels: {what}: give at least {LEAST_LABELS} of each concept")
