"""Embeds the images of a shard, or of a range of it: decodes, prepares and encodes them batch by batch.

Batch k of a shard has the images at positions k·b to (k + 1)·b - 1, without those that need no forward pass (b is the
batch size). So the vectors are the same however a shard is cut into ranges of whole batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.similarity import reason
from fairdedup.datasets import Sample
from fairdedup.datasets.dataset import Metadata
from fairdedup.datasets.decoders import Decoder
from fairdedup.datasets.decoding_ahead import map_ahead
from fairdedup.datasets.images import BadImage, Facts
from fairdedup.encoders.batch_encoder import BatchEncoder
from fairdedup.stages.embedding.embedded_rows import EmbeddedRows
from fairdedup.stages.embedding.metadata_table import build_table
from fairdedup.storage.records import Rejection
from fairdedup.storage.shared_vectors import Copies


class _Decoded(NamedTuple):
    """A sample without its bytes, and what they were."""

    sample: Sample
    facts: Metadata | None = None  # the picture columns; None if the sample is rejected
    value: Any = None  # the prepared picture; None if it needs no forward pass
    error: str = ""


def embed_rows(
    samples: Iterator[Sample],
    forward: BatchEncoder,
    decoder: Decoder,
    copies: Copies,
    shared: dict[int, NDArray[np.float16]],
    *,
    start: int,
    threads: int,
    report: Callable[[int], None],
) -> EmbeddedRows:
    """Embed consecutive rows of a shard.

    Parameters
    ----------
    samples : iterator of Sample
        The rows, from position `start` on.
    forward : BatchEncoder
    decoder : Decoder
        A decoder that several threads may use, if there are any.
    copies : Copies
        Images of the shard that take their vector from another image.
    shared : dict of int to ndarray
        Vector (d,) of each position that has one in a file.
    start : int
        A multiple of the batch size.
    threads : int
        Number of threads that decode ahead of the encoder.
    report : callable
        Gets the number of rows that are done since the last report.
    """

    def decode(sample: Sample) -> _Decoded:
        bare = replace(sample, image=None)
        if sample.image is None:
            return _Decoded(bare, error=sample.error or "no image")
        try:
            if sample.position in shared or sample.position in copies.here:
                facts: Facts = decoder.read_facts(sample.image)
                value = None
            else:
                value, facts = decoder.load(sample.image)
        except BadImage as error:
            return _Decoded(bare, error=str(error))
        return _Decoded(bare, {**asdict(facts), "bytes": len(sample.image)}, value)

    size, count, reported = forward.batch_size, 0, 0
    rows: list[_Decoded] = []
    rejected: list[Rejection] = []
    places: dict[int, int] = {}  # place among the encoder's vectors, by position in the shard
    for found in map_ahead(decode, samples, threads, size + threads):
        if count % size == 0:
            forward.flush()
            report(count - reported)
            reported = count
        count += 1
        sample = found.sample
        if found.facts is None:
            rejected.append(_reject(sample, found.error))
            continue
        if found.value is not None:
            places[sample.position] = forward.add(found.value)
        rows.append(found._replace(value=None))
    forward.flush()
    report(count - reported)
    faults = forward.collect_faults()
    bad = {position: faults[place] for position, place in places.items() if faults[place]}
    faulty = [row.sample for row in rows if row.sample.position in bad]
    rejected += [_reject(sample, "encoder: " + reason(bad[sample.position])) for sample in faulty]
    usable = [row for row in rows if row.sample.position not in bad]
    unit = forward.collect_vectors()
    width = unit.shape[1] or next((len(vector) for vector in shared.values()), 0)
    vectors = np.zeros((len(usable), width), np.float16)
    for k, row in enumerate(usable):
        position = row.sample.position
        if position in places:
            vectors[k] = unit[places[position]]
        elif position in shared:
            vectors[k] = shared[position]
    table = build_table([row.sample for row in usable], [row.facts or {} for row in usable])
    return EmbeddedRows(start, count, vectors, table, sorted(rejected))


def _reject(sample: Sample, why: str) -> Rejection:
    return Rejection(sample.position, sample.id, sample.source, why)
