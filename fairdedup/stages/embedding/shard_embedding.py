"""The tasks of the embedding stage: each makes one embedding shard, from bytes or ready vectors to float16 vectors.

The record of a shard is written last; with it, a later run skips the shard.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.core.similarity import reason, unit_float16
from fairdedup.datasets import EmbeddingShard, ImageShard, Sample
from fairdedup.datasets.findings import Findings
from fairdedup.encoders import EncoderSpec
from fairdedup.encoders.batch_encoder import BatchEncoder
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.records import Rejection, ShardRecord, read_shard_record, seal_files, write_shard_record
from fairdedup.storage.run_files import write_array, write_table
from fairdedup.storage.shared_vectors import Copies, load_shared
from fairdedup.tasks import ROWS_TOPIC

REPORT_EVERY = 64  # rows between two reports of progress


class Target(NamedTuple):
    """The embedding shard that a task makes.

    Attributes
    ----------
    number : int
    root : Path
        Run directory.
    fingerprint : str
        Hash of what the shard depends on.
    """

    number: int
    root: Path
    fingerprint: str


class _Valid(NamedTuple):
    """Valid rows of a shard: vectors (n, d) and their metadata."""

    vectors: NDArray[np.float16]
    metadata: pa.Table


def find_finished_shard(target: Target) -> ShardRecord | None:
    """Return the record of a shard that was embedded earlier; None if its files are damaged or of another input."""
    known = read_shard_record(RunDirectory(target.root), target.number, verify=True)
    return known if known is not None and known.fingerprint == target.fingerprint else None


class _Images:
    """The usable images of a shard while they are read: rows, and where the vector of each will be.

    Attributes
    ----------
    rows : list of Sample
        Rows that are not rejected, without their bytes.
    rejected : list of Rejection
    places : dict of int to int
        Place among the encoder's vectors, by position in the input shard.
    """

    def __init__(self, spec: EncoderSpec, copies: Copies, shared: dict[int, NDArray[np.float16]]) -> None:
        self.forward, self.copies, self.shared = BatchEncoder(spec), copies, shared
        self.rows: list[Sample] = []
        self.rejected: list[Rejection] = []
        self.places: dict[int, int] = {}

    def add(self, sample: Sample) -> None:
        """Queue one sample for embedding, or reject it."""
        from fairdedup.datasets.images import BadImage, decode

        if sample.image is None:
            self._reject(sample, sample.error or "no image")
            return
        if sample.position not in self.shared:
            first = self.copies.here.get(sample.position, -1)
            if first in self.places:
                self.places[sample.position] = self.places[first]
            else:
                try:
                    self.places[sample.position] = self.forward.add(decode(sample.image))
                except BadImage as error:
                    self._reject(sample, str(error))
                    return
        self.rows.append(replace(sample, image=None))

    def _reject(self, sample: Sample, why: str) -> None:
        self.rejected.append(Rejection(sample.position, sample.id, sample.source, why))

    def finish(self) -> _Valid:
        """Embed what is still queued, reject the rows whose vectors cannot be used, and return the others."""
        self.forward.flush()
        bad = np.concatenate(self.forward.bad) if self.forward.bad else np.zeros(0, np.int8)
        faulty = {position: int(bad[place]) for position, place in self.places.items() if bad[place]}
        for sample in self.rows:
            if sample.position in faulty:
                self._reject(sample, "encoder: " + reason(faulty[sample.position]))
        rows = [sample for sample in self.rows if sample.position not in faulty]
        unit = np.concatenate(self.forward.unit) if self.forward.unit else np.zeros((0, 0), np.float16)
        width = unit.shape[1] or next((len(vector) for vector in self.shared.values()), 0)
        vectors = np.empty((len(rows), width), np.float16)
        for k, row in enumerate(rows):
            shared = row.position in self.shared
            vectors[k] = self.shared[row.position] if shared else unit[self.places[row.position]]
        return _Valid(vectors, _build_table([{"id": s.id, "caption": s.caption, **s.metadata} for s in rows]))


def embed_images(target: Target, shard: ImageShard, spec: EncoderSpec, copies: Copies) -> ShardRecord:
    """Embed one shard of images, write its files, and return its record.

    Parameters
    ----------
    target : Target
    shard : ImageShard
    spec : EncoderSpec
    copies : Copies
        Images of the shard that take their vector from another image.
    """
    images = _Images(spec, copies, load_shared(target.root, copies))
    findings = Findings()
    count = reported = 0
    for sample in shard.read(findings):
        count += 1
        images.add(sample)
        if count - reported >= REPORT_EVERY:
            _report(count - reported)
            reported = count
    valid = images.finish()
    _report(count - reported)
    return _write(target, shard.name, findings, input_rows=count, valid=valid, rejected=sorted(images.rejected))


def _report(rows: int) -> None:
    """Report finished rows to the Dask scheduler, if there is one."""
    from distributed import get_worker

    if not rows:
        return
    with suppress(ValueError):  # not on a worker
        worker = get_worker()
        worker.log_event(ROWS_TOPIC, {"rows": rows, "task": str(worker.get_current_task())})


def import_vectors(target: Target, shard: EmbeddingShard) -> ShardRecord:
    """Import one shard of ready embeddings, write its files, and return its record."""
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
    valid = _Valid(unit, metadata)
    return _write(target, shard.name, shard.findings(), input_rows=len(bad), valid=valid, rejected=rejected)


def _build_table(samples: list[dict[str, Any]]) -> pa.Table:
    """Return samples as a table: id, caption, then every metadata column that any of them has."""
    names = list(dict.fromkeys(name for sample in samples for name in sample)) or ["id", "caption"]
    columns = {}
    for name in names:
        values = [sample.get(name) for sample in samples]
        try:
            columns[name] = _build_column(values, pa.string() if name in ("id", "caption") else None)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):  # mixed types: text holds them all
            columns[name] = pa.array([None if v is None else str(v) for v in values], pa.string())
    return pa.table(columns)


def _build_column(values: list[Any], kind: pa.DataType | None) -> pa.Array:
    """Return a column of Python's or of Arrow's values; Arrow cannot convert its own empty nested scalars."""
    first = next((value for value in values if value is not None), None)
    if isinstance(first, pa.Scalar) and pa.types.is_nested(first.type):
        return pa.array([None if value is None else value.as_py() for value in values], first.type)
    return pa.array(values, kind)


def _write(
    target: Target, name: str, findings: Findings, *, input_rows: int, valid: _Valid, rejected: list[Rejection]
) -> ShardRecord:
    """Write the files of a shard, and its record last."""
    run, number = RunDirectory(target.root), target.number
    write_array(run.vectors(number), valid.vectors)
    write_table(run.metadata(number), valid.metadata)
    record = ShardRecord(
        number=number,
        name=name,
        fingerprint=target.fingerprint,
        input=input_rows,
        valid=len(valid.vectors),
        rejected=rejected,
        seals=seal_files(run.shard_files(number)),
        unused=dict(sorted(findings.unused.items())),
        damage=findings.damage,
    )
    write_shard_record(run, record)
    return record
