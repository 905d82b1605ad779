"""The embedding stage over all shards of an input: what is done already, what is left, and the checks of the whole."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairdedup.datasets import Dataset, ImageShard
from fairdedup.datasets.dataset import estimate_rows, find_reading_memory
from fairdedup.encoders import REDUCED, EncoderSpec
from fairdedup.stages.embedding.embedding_checks import check_dimension, check_ids, check_rejected
from fairdedup.stages.embedding.shard_embedding import (
    FULL_WHITE,
    Target,
    embed_images,
    find_finished_shard,
    import_vectors,
    join_ranges,
)
from fairdedup.storage.contents import Embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.records import ShardRecord, list_recorded_shards, remove_shards_from
from fairdedup.storage.run_files import remove_folder
from fairdedup.storage.shared_vectors import Copies
from fairdedup.tasks import Submit, Task

RANGES = 32  # of an input, so that a few shards keep many workers busy


@dataclass(frozen=True)
class EmbeddingPlan:
    """How each shard of an input is embedded, and which shards are done.

    Attributes
    ----------
    spec : EncoderSpec or None
        What embeds images; None for ready embeddings.
    fingerprints : sequence of str
        Fingerprint of each shard, as `fingerprint_shards` returns them.
    finished : mapping of int to ShardRecord
        Records of the shards that are done, by number.
    copies : sequence of Copies
        For each shard of images, the vectors that it shares; empty for ready embeddings.
    white : int
        Value that becomes white in 16-bit pictures.
    counts : sequence of int
        Number of images in each shard; empty for ready embeddings.
    decoders : int
        Threads of each worker that decode ahead of the encoder.
    """

    spec: EncoderSpec | None
    fingerprints: Sequence[str]
    finished: Mapping[int, ShardRecord] = field(default_factory=dict)
    copies: Sequence[Copies] = ()
    white: int = FULL_WHITE
    counts: Sequence[int] = ()
    decoders: int = 0


def cut_ranges(shards: Sequence[ImageShard], counts: Sequence[int], batch_size: int) -> list[list[range]]:
    """Return the ranges of each shard that are embedded on their own: one range for a shard that is not cut.

    A range has whole batches. An input has about `RANGES` of them, or fewer if it is small, and at least one a shard.
    The ranges do not depend on the workers, so that another number of them goes on with what is there.

    Parameters
    ----------
    shards : sequence of ImageShard
    counts : sequence of int
        Number of images in each shard.
    batch_size : int
    """
    step = batch_size * max(1, math.ceil(sum(counts) / (RANGES * batch_size)))
    return [
        [range(start, min(start + step, count)) for start in range(0, count, step)]
        if shard.is_seekable and count > step
        else [range(count)]
        for shard, count in zip(shards, counts, strict=True)
    ]


def _embed_images(
    dataset: Dataset, plan: EmbeddingPlan, spec: EncoderSpec, targets: Sequence[Target], submit: Submit
) -> list[ShardRecord]:
    """Embed shards of images, range by range, and return the records of the shards."""
    shards: Any = dataset.shards  # of images
    ranges = cut_ranges(shards, plan.counts, spec.batch_size)
    tasks, joining = [], []
    for target in targets:
        shard, own = shards[target.number], ranges[target.number]
        copies, peak = plan.copies[target.number], find_reading_memory(shard)
        for rows in own:
            what: tuple[Any, ...] = (shard, None, spec, copies)
            if len(own) > 1:
                what = (shard.select(rows.start, rows.stop), rows, spec, copies.select(rows))
            arguments = (target, *what, plan.white, plan.decoders)
            tasks.append(Task(arguments, len(rows), shard.name, peak=peak, isolated=True))
        if len(own) > 1:
            joining.append(Task((target, shard.name, own, copies), None, shard.name))
    found = [record for record in submit("embed", embed_images, tasks) if record is not None]
    return [*found, *submit("join ranges", join_ranges, joining)]


def fingerprint_shards(dataset: Dataset, spec: EncoderSpec | None) -> list[str]:
    """Return a hash of what each embedding shard depends on: input, encoder and how JPEGs are decoded.

    Parameters
    ----------
    dataset : Dataset
    spec : EncoderSpec or None
        None for ready embeddings.
    """
    encoder = {**spec.identity(), "reduced": REDUCED} if spec else None
    known = [{"shard": shard, "encoder": encoder} for shard in dataset.fingerprints.values()]
    return [hashlib.sha256(json.dumps(each, sort_keys=True).encode()).hexdigest() for each in known]


def find_finished_shards(run: RunDirectory, fingerprints: Sequence[str], submit: Submit) -> dict[int, ShardRecord]:
    """Return the records of the shards that were embedded earlier and whose files are undamaged, by number."""
    recorded = list_recorded_shards(run)
    known = [k for k in range(len(fingerprints)) if k in recorded]
    found = submit("verify", find_finished_shard, [Task((Target(k, run.root, fingerprints[k]),)) for k in known])
    return {record.number: record for record in found if record is not None}


def embed_input(
    dataset: Dataset,
    run: RunDirectory,
    plan: EmbeddingPlan,
    submit: Submit,
    *,
    max_rejected: float,
    may_be_empty: bool = False,
) -> Embedded:
    """Embed every shard that is not done yet.

    Parameters
    ----------
    dataset : Dataset
    run : RunDirectory
    plan : EmbeddingPlan
    submit : Submit
    max_rejected : float
        Largest fraction of the input that may be rejected, in [0, 1].
    may_be_empty : bool
        Whether an input without any sample is accepted.

    Returns
    -------
    Embedded

    Raises
    ------
    UserError
        If no sample can be used, too many are rejected, two rows share an id, or the dimensions differ.
    """
    shards = range(len(plan.fingerprints))
    targets = [Target(k, run.root, plan.fingerprints[k]) for k in shards if k not in plan.finished]
    if plan.spec is None:
        tasks = []
        for target in targets:
            shard = dataset.shards[target.number]
            likely = estimate_rows(shard)
            tasks.append(Task((target, shard), shard.rows, shard.name, isolated=True, likely_rows=likely))
        embedded = submit("embed", import_vectors, tasks)
    elif not targets:
        embedded = []
    else:
        embedded = _embed_images(dataset, plan, plan.spec, targets, submit)
    for left in (*run.list_shared_vectors(), *run.list_attempts()):
        left.unlink(missing_ok=True)
    if plan.spec is not None:
        remove_folder(run.ranges)
    known = {**plan.finished, **{record.number: record for record in embedded}}
    records = tuple(known[k] for k in shards)
    remove_shards_from(run, len(records))
    if any(r.input for r in records) or not may_be_empty:
        check_rejected(records, max_rejected)
    check_dimension(records, run)
    check_ids(records, run, dataset.shards)
    return Embedded(run, records)
