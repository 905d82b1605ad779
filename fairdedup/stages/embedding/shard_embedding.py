"""The tasks of the embedding stage: each makes one embedding shard, from bytes or ready vectors to float16 vectors.

The record of a shard is written last; with it, a later run skips the shard.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from fairdedup.core.similarity import reason, unit_float16
from fairdedup.datasets import EmbeddingShard, ImageShard
from fairdedup.datasets.findings import Findings
from fairdedup.encoders import EncoderSpec
from fairdedup.encoders.batch_encoder import BatchEncoder
from fairdedup.errors import FairdedupError
from fairdedup.stages.embedding.embedded_rows import EmbeddedRows, join_rows
from fairdedup.storage.attempts import note_attempt
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.records import (
    Rejection,
    ShardRecord,
    read_findings,
    read_shard_record,
    seal_files,
    write_shard_record,
)
from fairdedup.storage.remedies import embed_again
from fairdedup.storage.run_files import write_array, write_table
from fairdedup.storage.sealed_files import DamagedFileError, Seal, load_array, load_table
from fairdedup.storage.shared_vectors import Copies, load_shared
from fairdedup.tasks import report_rows

FULL_WHITE = 65535  # of 16-bit pictures that use their whole range


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


def find_finished_shard(target: Target) -> ShardRecord | None:
    """Return the record of a shard that was embedded earlier; None if its files are damaged or of another input."""
    known = read_shard_record(RunDirectory(target.root), target.number, verify=True)
    return known if known is not None and known.fingerprint == target.fingerprint else None


def embed_images(
    target: Target,
    shard: ImageShard,
    rows: range | None,
    spec: EncoderSpec,
    copies: Copies,
    white: int = FULL_WHITE,
    threads: int = 0,
) -> ShardRecord | None:
    """Embed a shard, write its files, and return its record; or write the files of a range of it, and return None.

    A range that an earlier try has written is used again. If the process of an earlier attempt has died, each image is
    decoded in a child process: one that this process dies of is a rejected row.

    Parameters
    ----------
    target : Target
    shard : ImageShard
        The shard, or its part with the range.
    rows : range or None
        The range, which starts at a multiple of the batch size; None for a whole shard.
    spec : EncoderSpec
    copies : Copies
        Images of the shard that take their vector from another image, which may be in another range.
    white : int
        Value that becomes white in 16-bit pictures.
    threads : int
        Number of threads that decode ahead of the encoder.
    """
    from fairdedup.datasets.decoders import open_decoder
    from fairdedup.stages.embedding.image_rows import embed_rows

    run = RunDirectory(target.root)
    if rows is not None and _read_range(target, rows) is not None:
        report_rows(len(rows))
        return None
    start = 0 if rows is None else rows.start
    forward = BatchEncoder(spec)
    with (
        note_attempt(run.attempt("embed", target.number, start)) as has_died,
        open_decoder(forward.prepare, white, forward.detail, isolated=has_died) as decoder,
    ):
        found = embed_rows(
            shard.read(Findings()),
            forward,
            decoder,
            copies,
            load_shared(target.root, copies),
            start=start,
            threads=0 if has_died else threads,
            report=report_rows,
        )
        if rows is None:
            return _write_shard(target, shard.name, join_rows([found], copies))
        _write_range(target, shard.name, rows, found)
        return None


def join_ranges(target: Target, name: str, ranges: Sequence[range], copies: Copies) -> ShardRecord:
    """Put the ranges of a shard together, write its files, and return its record.

    Parameters
    ----------
    target : Target
    name : str
        Name of the input shard.
    ranges : sequence of range
        All ranges of the shard, in order.
    copies : Copies
        Images of the shard that take their vector from another image.

    Raises
    ------
    FairdedupError
        If a range is missing or damaged.
    """
    found = []
    for rows in ranges:
        own = _read_range(target, rows)
        if own is None:
            folder = RunDirectory(target.root).ranges_of(target.number).root
            raise FairdedupError(f"{folder} is missing or damaged: {embed_again(target.root)}")
        found.append(own)
    return _write_shard(target, name, join_rows(found, copies))


def _hash_range(target: Target, rows: range) -> str:
    return hashlib.sha256(f"{target.fingerprint} rows {rows.start} to {rows.stop}".encode()).hexdigest()


def _read_range(target: Target, rows: range) -> EmbeddedRows | None:
    """Return a range of a shard that was written; None if it or a file of it is missing, damaged or of other input."""
    directory = RunDirectory(target.root).ranges_of(target.number)
    record = read_shard_record(directory, rows.start)
    if record is None or record.fingerprint != _hash_range(target, rows):
        return None
    try:
        vectors = load_array(Seal(directory.vectors(rows.start), record.seals["vectors"], ""))
        table = load_table(Seal(directory.metadata(rows.start), record.seals["metadata"], ""))
    except DamagedFileError:
        return None
    rejected = [each._replace(position=each.position + rows.start) for each in record.rejected]
    return EmbeddedRows(rows.start, record.input, vectors, table, rejected)


def _write_range(target: Target, name: str, rows: range, found: EmbeddedRows) -> None:
    """Write a range as a shard of its own, whose number is its first row."""
    own = Target(rows.start, RunDirectory(target.root).ranges_of(target.number).root, _hash_range(target, rows))
    rejected = [each._replace(position=each.position - rows.start) for each in found.rejected]
    _write(own, name, Findings(), found._replace(rejected=rejected))


def _write_shard(target: Target, name: str, found: EmbeddedRows) -> ShardRecord:
    """Write a shard of images; the first pass has found what else is in it."""
    run = RunDirectory(target.root)
    known = read_findings(run, target.number)
    if known is None:
        file = run.scan_findings(target.number)
        raise FairdedupError(f"{file} is missing or damaged: {embed_again(target.root)}")
    return _write(target, name, Findings(Counter(known.unused), known.damage), found)


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
    found = EmbeddedRows(0, len(bad), unit, metadata, rejected)
    return _write(target, shard.name, shard.findings(), found)


def _write(target: Target, name: str, findings: Findings, found: EmbeddedRows) -> ShardRecord:
    """Write the files of a shard, and its record last."""
    run, number = RunDirectory(target.root), target.number
    write_array(run.vectors(number), found.vectors)
    write_table(run.metadata(number), found.metadata)
    record = ShardRecord(
        number=number,
        name=name,
        fingerprint=target.fingerprint,
        input=found.input,
        valid=len(found.vectors),
        rejected=found.rejected,
        seals=seal_files(run.shard_files(number)),
        unused=dict(sorted(findings.unused.items())),
        damage=findings.damage,
    )
    write_shard_record(run, record)
    return record
