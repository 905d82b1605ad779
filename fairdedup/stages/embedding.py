"""The first stage: input shards to embedding shards in clip-retrieval's layout, and the rejected rows' reasons.

A task owns one shard from bytes to float16 vectors; its record, written last, lets a later run skip it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.core.similarity import reason, unit_float16
from fairdedup.datasets import Dataset, EmbeddingShard, ImageShard, Sample
from fairdedup.encoders import EncoderSpec
from fairdedup.encoders.batch_encoder import BatchEncoder
from fairdedup.errors import UserError
from fairdedup.storage.contents import Embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.records import (
    Rejection,
    ShardRecord,
    list_recorded_shards,
    read_shard_record,
    remove_shards_from,
    seal_files,
    write_shard_record,
)
from fairdedup.storage.run_files import read_array, read_table, write_array, write_table
from fairdedup.storage.shared_vectors import Copies, load_shared
from fairdedup.tasks import ROWS_TOPIC, Submit, Task

REPORT_EVERY = 64  # rows
COMMON_REASONS = 3


def shard_fingerprint(shard: str, encoder: dict[str, Any] | None) -> str:
    """Return what an embedding shard depends on: the input's fingerprint and the encoder's identity, as a hash."""
    known = {"shard": shard, "encoder": encoder}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def find_finished_shard(number: int, root: Path, fingerprint: str) -> ShardRecord | None:
    """Return the record of a shard that was embedded before, if its files are undamaged and of the same input."""
    known = read_shard_record(RunDirectory(root), number, verify=True)
    return known if known is not None and known.fingerprint == fingerprint else None


def embed_images(
    number: int, shard: ImageShard, root: Path, fingerprint: str, spec: EncoderSpec, copies: Copies
) -> ShardRecord:
    """Embed one shard of images, write its files, and return its record."""
    from fairdedup.datasets.images import BadImage, decode

    forward, ready = BatchEncoder(spec), load_shared(root, copies)
    places: dict[int, int] = {}  # of vectors, by position
    rows: list[Sample] = []
    rejected: list[Rejection] = []
    count = reported = 0
    for sample in shard.read():
        count += 1
        first = copies.here.get(sample.position, -1)
        if sample.image is None:
            rejected.append(Rejection(sample.position, sample.id, sample.source, sample.error or "no image"))
            continue
        if sample.position not in ready:
            if first in places:
                places[sample.position] = places[first]
            else:
                try:
                    places[sample.position] = forward.add(decode(sample.image))
                except BadImage as error:
                    rejected.append(Rejection(sample.position, sample.id, sample.source, str(error)))
                    continue
        rows.append(replace(sample, image=None))
        if count - reported >= REPORT_EVERY:
            _report(count - reported)
            reported = count
    forward.flush()
    bad = np.concatenate(forward.bad) if forward.bad else np.zeros(0, np.int8)
    faulty = {p: int(bad[place]) for p, place in places.items() if bad[place]}
    rejected += [
        Rejection(s.position, s.id, s.source, "encoder: " + reason(faulty[s.position]))
        for s in rows
        if s.position in faulty
    ]
    rows = [s for s in rows if s.position not in faulty]
    unit = np.concatenate(forward.unit) if forward.unit else np.zeros((0, 0), np.float16)
    width = unit.shape[1] or next((len(v) for v in ready.values()), 0)
    matrix = np.empty((len(rows), width), np.float16)
    for k, s in enumerate(rows):
        matrix[k] = ready[s.position] if s.position in ready else unit[places[s.position]]
    _report(count - reported)
    table = _table([{"id": s.id, "caption": s.caption, **s.metadata} for s in rows])
    return _write(number, shard.name, root, fingerprint, count, matrix, table, sorted(rejected))


def _report(rows: int) -> None:
    """Tell the scheduler, where there is one, of rows that are done."""
    from distributed import get_worker

    if not rows:
        return
    with suppress(ValueError):  # not on a worker
        worker = get_worker()
        worker.log_event(ROWS_TOPIC, {"rows": rows, "task": str(worker.get_current_task())})


def import_vectors(number: int, shard: EmbeddingShard, root: Path, fingerprint: str) -> ShardRecord:
    """Take in one shard of ready embeddings, write its files, and return its record."""
    unit, bad = unit_float16(shard.vectors())
    metadata = shard.metadata()
    rejected = []
    if bad.any():
        ids, known = metadata.column("id"), shard.faults()
        rejected = [
            Rejection(int(k), str(ids[int(k)].as_py()), f"{shard.name}[{k}]", known.get(int(k), reason(int(bad[k]))))
            for k in np.flatnonzero(bad)
        ]
        metadata = metadata.filter(pa.array(bad == 0))
        unit = unit[bad == 0]
    return _write(number, shard.name, root, fingerprint, len(bad), unit, metadata, rejected)


def _table(samples: list[dict[str, Any]]) -> pa.Table:
    """Return samples as a table: id, caption, then every metadata column that any of them has."""
    names = list(dict.fromkeys(name for sample in samples for name in sample)) or ["id", "caption"]
    columns = {}
    for name in names:
        values = [sample.get(name) for sample in samples]
        try:
            columns[name] = _array(values, pa.string() if name in ("id", "caption") else None)
        except (
            pa.ArrowException,
            TypeError,
            ValueError,
            OverflowError,
        ):  # the samples disagree on the type: text holds all
            columns[name] = pa.array([None if v is None else str(v) for v in values], pa.string())
    return pa.table(columns)


def _array(values: list[Any], kind: pa.DataType | None) -> pa.Array:
    """Return a column of Python's or of Arrow's values; Arrow cannot take back its own lists of nothing."""
    first = next((value for value in values if value is not None), None)
    if isinstance(first, pa.Scalar) and pa.types.is_nested(first.type):
        return pa.array([None if value is None else value.as_py() for value in values], first.type)
    return pa.array(values, kind)


def _write(
    number: int,
    name: str,
    root: Path,
    fingerprint: str,
    count: int,
    matrix: NDArray[np.float16],
    metadata: pa.Table,
    rejected: list[Rejection],
) -> ShardRecord:
    run = RunDirectory(root)
    write_array(run.vectors(number), matrix)
    write_table(run.metadata(number), metadata)
    record = ShardRecord(
        number=number,
        name=name,
        fingerprint=fingerprint,
        input=count,
        valid=len(matrix),
        rejected=rejected,
        seals=seal_files(run.shard_files(number)),
    )
    write_shard_record(run, record)
    return record


def fingerprints(dataset: Dataset, spec: EncoderSpec | None) -> list[str]:
    """Return what each embedding shard depends on, as a hash."""
    encoder = spec.identity() if spec else None
    return [shard_fingerprint(shard, encoder) for shard in dataset.fingerprints.values()]


def find_finished_shards(run: RunDirectory, prints: Sequence[str], submit: Submit) -> dict[int, ShardRecord]:
    """Return the records of the shards that were embedded before and whose files are undamaged, by number."""
    recorded = list_recorded_shards(run)
    before = [k for k in range(len(prints)) if k in recorded]
    found = submit("verify", find_finished_shard, [Task((k, run.root, prints[k])) for k in before])
    return {record.number: record for record in found if record is not None}


def embed_input(
    dataset: Dataset,
    run: RunDirectory,
    spec: EncoderSpec | None,
    prints: Sequence[str],
    known: dict[int, ShardRecord],
    copies: Sequence[Copies],
    max_rejected: float,
    submit: Submit,
    may_be_empty: bool = False,
) -> Embedded:
    """Embed every shard that is not known yet.

    Parameters
    ----------
    dataset : Dataset
    run : RunDirectory
    spec : EncoderSpec or None
        None for ready embeddings.
    prints : sequence of str
        Fingerprint of each shard.
    known : dict of int to ShardRecord
        Of the shards that are done.
    copies : sequence of Copies
        What each shard of images shares.
    max_rejected : float
        Largest share of the input that may be rejected.
    submit : Submit
    may_be_empty : bool
        Whether an input without any sample will do.

    Returns
    -------
    Embedded

    Raises
    ------
    UserError
        If nothing could be used, too much is rejected, two rows share an id, or the dimensions differ.
    """
    todo = [k for k in range(len(prints)) if k not in known]
    tasks = []
    for k in todo:
        shard = dataset.shards[k]
        more = () if spec is None else (spec, copies[k])
        tasks.append(Task((k, shard, run.root, prints[k], *more), shard.rows, shard.name))
    embedded = submit("embed", embed_images if spec else import_vectors, tasks)
    for lent in run.all_lent():
        lent.unlink()
    known = known | {record.number: record for record in embedded}
    done = [known[k] for k in range(len(prints))]
    remove_shards_from(run, len(done))
    if any(r.input for r in done) or not may_be_empty:
        _check_rejected(done, max_rejected)
    _check_dimension(done, run)
    _check_ids(done, run)
    return Embedded(run, tuple(done))


def _check_rejected(records: list[ShardRecord], most: float) -> None:
    total, valid = sum(r.input for r in records), sum(r.valid for r in records)
    reasons = pd.Series([x.reason for r in records for x in r.rejected], dtype=object).value_counts()
    commonest = "; ".join(f"{count:,} x {why}" for why, count in reasons.head(COMMON_REASONS).items())
    if not total:
        raise UserError("the input holds no samples: give one with at least one image or vector")
    if not valid:
        raise UserError(f"all {total:,} samples are rejected ({commonest}): mend the input")
    if total - valid > most * total:
        raise UserError(
            f"{total - valid:,} of {total:,} samples are rejected, more than --max-rejected {most:g} ({commonest}): "
            "mend the input or raise --max-rejected"
        )


def _check_dimension(records: list[ShardRecord], run: RunDirectory) -> None:
    seen: dict[int, str] = {}
    for record in records:
        if record.valid:
            seen.setdefault(read_array(run.vectors(record.number)).shape[1], record.name)
    if len(seen) > 1:
        (a, first), (b, second) = list(seen.items())[:2]
        raise UserError(f"{first} has vectors of {a} values and {second} of {b}: all must come from one model")


def _check_ids(records: list[ShardRecord], run: RunDirectory) -> None:
    """Refuse ids that stand twice, by 8 bytes of hash a row; a clash of hashes is looked up before it counts."""
    hashes = [pd.util.hash_array(_ids(run, r.number).to_numpy().astype(object), categorize=False) for r in records]
    every = np.concatenate(hashes)
    order = np.argsort(every, kind="stable")
    again = order[1:][every[order][1:] == every[order][:-1]]
    if not len(again):
        return
    seen: dict[str, str] = {}
    suspects = set(every[again].tolist())
    for record, own in zip(records, hashes, strict=True):
        names = None
        for k in np.flatnonzero(np.isin(own, list(suspects))):
            names = _ids(run, record.number) if names is None else names
            name = names.iloc[k]
            if name in seen:
                raise UserError(
                    f"id {name!r} stands twice, in {seen[name]} and {record.name}: make ids unique, or add "
                    "--id shard/key"
                )
            seen[name] = record.name


def _ids(run: RunDirectory, number: int) -> pd.Series:
    return read_table(run.metadata(number), ["id"]).column("id").to_pandas()
