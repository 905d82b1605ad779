"""Kept (or removed) samples copied out of the input into new WebDataset shards, byte for byte (`fairdedup export`).

Where the run has collected values, the `.json` of a kept sample is the one file that changes: they are added to it.

The stage named `export`, which writes kept/, is in `results`. A task writes one shard and reads only the samples that
it needs. The record of a shard is written after it; with it, the same command skips the shard.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fairdedup.datasets.json_values import add_values
from fairdedup.datasets.originals import FileRange, Member, read_originals
from fairdedup.stages.sample_export.export_plan import (
    NewShard,
    Plan,
    Samples,
    Written,
    copy_files,
    find_written,
    make_task,
    read_samples,
    record_written,
)
from fairdedup.storage.run_files import atomic_write
from fairdedup.storage.seals import is_sealed
from fairdedup.storage.tar_writer import BLOCK, ShardWriter, header
from fairdedup.tasks import Submit


def write_shard(plan: Plan, new: NewShard) -> Written:
    """Write one shard, unless an undamaged one exists.

    Raises
    ------
    UserError
        If the input has changed since the run, or a sample cannot be copied.
    """
    path = plan.folder / new.name
    known = find_written(plan, new.name)
    if known is not None and is_sealed(path, known.seal):
        return known
    with atomic_write(path) as aside, ShardWriter(aside) as shard:
        for samples in read_samples(plan, new):
            copy_files(samples, _read_files(plan, samples), shard)
        seal = shard.seal()
    return record_written(plan, Written(new.name, new.samples, shard.members, seal))


def _read_files(plan: Plan, samples: Samples) -> Iterator[Member]:
    """Yield the files of samples, with the values that are added to their `.json`."""
    found = read_originals(samples.source, samples.positions, plan.clashing)
    if samples.values is None:
        return found
    return add_values(found, dict(zip(samples.positions, samples.values.to_pylist(), strict=True)))


def sizes_of(plan: Plan, new: NewShard) -> NDArray[np.int64]:
    """Return the number of bytes that each sample of a shard takes in a tar: (n,)."""
    sizes: list[int] = []
    for samples in read_samples(plan, new):
        own = dict.fromkeys(samples.positions, 0)
        for member in _read_files(plan, samples):
            size = member.data.size if isinstance(member.data, FileRange) else len(member.data)
            own[member.position] += len(header(member.name, size)) + size + -size % BLOCK
        sizes += own.values()
    return np.array(sizes, np.int64)


def measure_samples(plan: Plan, shards: list[NewShard], submit: Submit) -> NDArray[np.int64]:
    """Return the number of bytes of each sample in a tar, in order: (n,)."""
    own = submit("measure", sizes_of, [make_task(plan, new) for new in shards])
    return np.concatenate([*own, np.zeros(0, np.int64)])


def write_shards(plan: Plan, shards: list[NewShard], submit: Submit) -> list[Written]:
    """Write every shard that does not exist yet, and return all of them in order."""
    return submit("reshard", write_shard, [make_task(plan, new) for new in shards])
