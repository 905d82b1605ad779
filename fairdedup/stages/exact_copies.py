"""The stage before embedding: exact copies of image files, found by a checksum of their bytes, share a forward pass.

A copy takes the vector of the first image with its bytes. The vector of an image that has copies in later shards is
*shared*: it is computed once, before the shards, and written to a file that its own shard and the others read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fairdedup.datasets import Dataset, ImageShard
from fairdedup.datasets.dataset import estimate_rows, find_reading_memory
from fairdedup.datasets.findings import Findings
from fairdedup.encoders import EncoderSpec
from fairdedup.encoders.batch_encoder import BatchEncoder
from fairdedup.storage.attempts import note_attempt
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.made_of import is_up_to_date, mark_up_to_date, marked_file
from fairdedup.storage.remedies import embed_again
from fairdedup.storage.run_files import write_array
from fairdedup.storage.sealed_files import open_array
from fairdedup.storage.shared_vectors import Copies
from fairdedup.tasks import Submit, Task


class FoundCopies(NamedTuple):
    """Exact copies among the images of an input.

    Attributes
    ----------
    by_shard : list of Copies
        Copies of each shard.
    saved : int
        Number of forward passes that the copies do not need.
    """

    by_shard: list[Copies]
    saved: int


def find_copies(run: RunDirectory, shards: int) -> FoundCopies:
    """Find the exact copies among the images of all shards, by their checksums.

    Parameters
    ----------
    run : RunDirectory
        Run whose shards `image_scan` has hashed.
    shards : int
        Number of shards.
    """
    remedy = embed_again(run.root)
    hashes = [open_array(marked_file(run.image_hashes(k), remedy)) for k in range(shards)]  # each (n, 2) uint64
    starts = np.cumsum([0] + [len(h) for h in hashes])
    every = np.concatenate(hashes)
    order = np.lexsort((np.arange(len(every)), every[:, 1], every[:, 0]))
    same = (every[order][1:] == every[order][:-1]).all(axis=1) & (every[order][1:] != 0).any(axis=1)
    # The sort is by row last, so the first of equal checksums is the lowest row: it owns the vector.
    first = order[np.maximum.accumulate(np.where(np.r_[False, same], 0, np.arange(len(order))))]
    places = np.flatnonzero(np.r_[False, same])
    copies, owners = order[places], first[places]  # (m,) rows
    copy_shards = np.searchsorted(starts, copies, side="right") - 1
    owner_shards = np.searchsorted(starts, owners, side="right") - 1
    shared_rows = np.unique(owners[copy_shards != owner_shards])
    shared_by_shard = np.searchsorted(starts, shared_rows, side="right") - 1
    shared = {k: shared_rows[shared_by_shard == k] for k in np.unique(shared_by_shard).tolist()}
    none = shared_rows[:0]
    found = [Copies(shared=tuple((shared.get(k, none) - starts[k]).tolist())) for k in range(shards)]
    for k, rows in shared.items():
        found[k].elsewhere.update({int(row - starts[k]): (k, place) for place, row in enumerate(rows)})
    for copy, home, owner, owner_home in zip(copies, copy_shards, owners, owner_shards, strict=True):
        position, rows = int(copy - starts[home]), shared.get(int(owner_home), none)
        place = int(np.searchsorted(rows, owner))
        if place < len(rows) and rows[place] == owner:
            found[home].elsewhere[position] = (int(owner_home), place)
        else:
            found[home].here[position] = int(owner - starts[home])
    return FoundCopies(found, len(copies))


def embed_shared(
    number: int,
    shard: ImageShard,
    root: Path,
    spec: EncoderSpec,
    fingerprint: str,
    copies: Copies,
    white: int,
) -> None:
    """Write the shared vectors of a shard, unless that is done; an image that cannot be used has a zero vector."""
    from fairdedup.datasets.decoders import open_decoder
    from fairdedup.datasets.images import BadImage

    run = RunDirectory(root)
    path = run.shared_vectors(number)
    if is_up_to_date(path, fingerprint):
        return
    forward, wanted = BatchEncoder(spec), set(copies.shared)
    places: list[int] = []
    with (
        note_attempt(run.attempt("share", number)) as has_died,
        open_decoder(forward.prepare, white, forward.detail, isolated=has_died) as decoder,
    ):
        for sample in shard.read(Findings()):
            if sample.position in wanted:
                try:
                    places.append(forward.add(decoder.load(sample.image or b"").value))
                except BadImage:
                    places.append(-1)
        forward.flush()
        unit = forward.collect_vectors()
        vectors = np.zeros((len(places), max(1, unit.shape[1])), np.float16)
        usable = np.array(places) >= 0
        vectors[usable] = unit[np.array(places)[usable]]
        write_array(path, vectors)
        mark_up_to_date(path, fingerprint)


def share_copies(
    dataset: Dataset,
    run: RunDirectory,
    spec: EncoderSpec,
    submit: Submit,
    *,
    fingerprints: Sequence[str],
    todo: Sequence[int],
    white: int,
) -> FoundCopies:
    """Find the exact copies among all images of an input, and embed the images that the shards to embed share.

    Parameters
    ----------
    dataset : Dataset
    run : RunDirectory
        Run whose shards `image_scan` has hashed.
    spec : EncoderSpec
    submit : Submit
    fingerprints : sequence of str
        Fingerprint of each shard.
    todo : sequence of int
        Numbers of the shards that are not embedded yet.
    white : int
        Value that becomes white in 16-bit pictures.
    """
    shards = dataset.shards
    found = find_copies(run, len(shards))
    owners = sorted(set().union(*(found.by_shard[k].owners() for k in todo)))
    embedding = [
        Task(
            (k, shards[k], run.root, spec, fingerprints[k], found.by_shard[k], white),
            shards[k].rows,
            shards[k].name,
            peak=find_reading_memory(shards[k]),
            isolated=True,
            likely_rows=estimate_rows(shards[k]),
        )
        for k in owners
    ]
    submit("embed copies", embed_shared, embedding)
    return found
