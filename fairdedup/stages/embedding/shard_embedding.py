"""The tasks of the embedding stage: each makes one embedding shard, from bytes or ready vectors to float16 vectors.

The record of a shard is written last; with it, a later run skips the shard.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.core.similarity import reason, unit_float16
from fairdedup.datasets import EmbeddingShard, ImageShard, Sample
from fairdedup.datasets.dataset import Metadata
from fairdedup.datasets.findings import Findings
from fairdedup.encoders import EncoderSpec
from fairdedup.encoders.batch_encoder import BatchEncoder
from fairdedup.stages.embedding.metadata_table import build_table
from fairdedup.storage.attempts import note_attempt
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.records import Rejection, ShardRecord, read_shard_record, seal_files, write_shard_record
from fairdedup.storage.run_files import write_array, write_table
from fairdedup.storage.shared_vectors import Copies, load_shared
from fairdedup.tasks import report_rows

if TYPE_CHECKING:
    from fairdedup.datasets.decoders import Decoder
    from fairdedup.datasets.images import Facts

FULL_WHITE = 65535  # of 16-bit pictures that use their whole range
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
    columns : list of dict
        Of each of these rows, the picture columns.
    rejected : list of Rejection
    places : dict of int to int
        Place among the encoder's vectors, by position in the input shard.
    """

    def __init__(
        self, forward: BatchEncoder, decoder: Decoder, copies: Copies, shared: dict[int, NDArray[np.float16]]
    ) -> None:
        self.forward, self.decoder, self.copies, self.shared = forward, decoder, copies, shared
        self.rows: list[Sample] = []
        self.columns: list[Metadata] = []
        self.rejected: list[Rejection] = []
        self.places: dict[int, int] = {}
        self._facts: dict[int, Facts] = {}  # by position, of images that have copies here

    def add(self, sample: Sample) -> None:
        """Queue one sample for embedding, or reject it."""
        from fairdedup.datasets.images import BadImage

        if sample.image is None:
            self._reject(sample, sample.error or "no image")
            return
        try:
            facts = self._queue(sample.position, sample.image)
        except BadImage as error:
            self._reject(sample, str(error))
            return
        self.rows.append(replace(sample, image=None))
        self.columns.append({**asdict(facts), "bytes": len(sample.image)})

    def _queue(self, position: int, data: bytes) -> Facts:
        """Queue an image for embedding unless its vector is known, and return what it is."""
        if position in self.shared:
            return self.decoder.read_facts(data)
        first = self.copies.here.get(position, -1)
        if first in self.places:
            self.places[position] = self.places[first]
            return self._facts[first]
        picture = self.decoder.load(data)
        self.places[position] = self.forward.add(picture.value)
        if position in self._repeated:
            self._facts[position] = picture.facts
        return picture.facts

    @cached_property
    def _repeated(self) -> set[int]:
        return set(self.copies.here.values())

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
        usable = [k for k, sample in enumerate(self.rows) if sample.position not in faulty]
        unit = np.concatenate(self.forward.unit) if self.forward.unit else np.zeros((0, 0), np.float16)
        width = unit.shape[1] or next((len(vector) for vector in self.shared.values()), 0)
        vectors = np.empty((len(usable), width), np.float16)
        for k, place in enumerate(usable):
            position = self.rows[place].position
            shared = position in self.shared
            vectors[k] = self.shared[position] if shared else unit[self.places[position]]
        return _Valid(vectors, build_table([self.rows[k] for k in usable], [self.columns[k] for k in usable]))


def embed_images(
    target: Target, shard: ImageShard, spec: EncoderSpec, copies: Copies, white: int = FULL_WHITE
) -> ShardRecord:
    """Embed one shard of images, write its files, and return its record.

    If the process of an earlier attempt has died, each image is decoded in a child process: one that this process dies
    of is a rejected row.

    Parameters
    ----------
    target : Target
    shard : ImageShard
    spec : EncoderSpec
    copies : Copies
        Images of the shard that take their vector from another image.
    white : int
        Value that becomes white in 16-bit pictures.
    """
    from fairdedup.datasets.decoders import open_decoder

    forward, findings = BatchEncoder(spec), Findings()
    count = reported = 0
    with (
        note_attempt(RunDirectory(target.root).attempt("embed", target.number)) as has_died,
        open_decoder(forward.prepare, white, isolated=has_died) as decoder,
    ):
        images = _Images(forward, decoder, copies, load_shared(target.root, copies))
        for sample in shard.read(findings):
            count += 1
            images.add(sample)
            if count - reported >= REPORT_EVERY:
                report_rows(count - reported)
                reported = count
        valid = images.finish()
        report_rows(count - reported)
        return _write(target, shard.name, findings, input_rows=count, valid=valid, rejected=sorted(images.rejected))


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
