"""The embedding stage over all shards of an input: what is done already, what is left, and the checks of the whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fairdedup.datasets import Dataset
from fairdedup.datasets.dataset import estimate_rows, find_reading_memory
from fairdedup.encoders import EncoderSpec
from fairdedup.stages.embedding.embedding_checks import check_dimension, check_ids, check_rejected
from fairdedup.stages.embedding.shard_embedding import (
    FULL_WHITE,
    Target,
    embed_images,
    find_finished_shard,
    import_vectors,
)
from fairdedup.storage.contents import Embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.records import ShardRecord, list_recorded_shards, remove_shards_from
from fairdedup.storage.shared_vectors import Copies
from fairdedup.tasks import Submit, Task


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
    """

    spec: EncoderSpec | None
    fingerprints: Sequence[str]
    finished: Mapping[int, ShardRecord] = field(default_factory=dict)
    copies: Sequence[Copies] = ()
    white: int = FULL_WHITE


def fingerprint_shards(dataset: Dataset, spec: EncoderSpec | None) -> list[str]:
    """Return a hash of what each embedding shard depends on: its input and the encoder's identity.

    Parameters
    ----------
    dataset : Dataset
    spec : EncoderSpec or None
        None for ready embeddings.
    """
    encoder = spec.identity() if spec else None
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
    tasks = []
    for k in shards:
        if k not in plan.finished:
            shard = dataset.shards[k]
            more = () if plan.spec is None else (plan.spec, plan.copies[k], plan.white)
            target = Target(k, run.root, plan.fingerprints[k])
            peak = find_reading_memory(shard) if plan.spec else 0
            likely = estimate_rows(shard)
            arguments = (target, shard, *more)
            tasks.append(Task(arguments, shard.rows, shard.name, peak=peak, isolated=True, likely_rows=likely))
    embedded = submit("embed", embed_images if plan.spec else import_vectors, tasks)
    for left in (*run.list_shared_vectors(), *run.list_attempts()):
        left.unlink(missing_ok=True)
    known = {**plan.finished, **{record.number: record for record in embedded}}
    records = tuple(known[k] for k in shards)
    remove_shards_from(run, len(records))
    if any(r.input for r in records) or not may_be_empty:
        check_rejected(records, max_rejected)
    check_dimension(records, run)
    check_ids(records, run, dataset.shards)
    return Embedded(run, records)
