"""The stage before embedding: exact copies of image files, found by a checksum of their bytes, share a forward pass.

A copy's vector is that of the first image with its bytes. An image that a later shard holds too is *lent*: embedded
once, ahead of the shards, into a file from which its own shard and the others take it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from fairdedup.datasets import Dataset, ImageShard
from fairdedup.encoders import EncoderSpec
from fairdedup.encoders.batch_encoder import BatchEncoder
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.run_files import is_up_to_date, mark_up_to_date, read_array, write_array
from fairdedup.storage.shared_vectors import Copies
from fairdedup.tasks import Submit, Task


def hash_shard(number: int, shard: ImageShard, root: Path, fingerprint: str) -> None:
    """Write the checksum (XXH3, 128 bits) of each image file of a shard, unless that is done; 0 where there is none."""
    path = RunDirectory(root).image_hashes(number)
    if is_up_to_date(path, fingerprint):
        return
    digests = b"".join(
        xxhash.xxh3_128_digest(sample.image) if sample.image is not None else bytes(16) for sample in shard.read()
    )
    write_array(path, np.frombuffer(digests, np.uint64).reshape(-1, 2))
    mark_up_to_date(path, fingerprint)


def find_copies(run: RunDirectory, shards: int) -> tuple[list[Copies], int]:
    """Return what each shard shares, and how many forward passes that saves over all of them."""
    hashes = [read_array(run.image_hashes(k)) for k in range(shards)]
    starts = np.cumsum([0] + [len(h) for h in hashes])
    every = np.concatenate(hashes)
    order = np.lexsort((np.arange(len(every)), every[:, 1], every[:, 0]))
    same = (every[order][1:] == every[order][:-1]).all(axis=1) & (every[order][1:] != 0).any(axis=1)
    # The first of each run of equal checksums is the lowest row: the sort is by row last.
    first = order[np.maximum.accumulate(np.where(np.r_[False, same], 0, np.arange(len(order))))]
    copies = np.flatnonzero(np.r_[False, same])
    own, owner = order[copies], first[copies]
    own_shard = np.searchsorted(starts, own, side="right") - 1
    owner_shard = np.searchsorted(starts, owner, side="right") - 1
    cross_shard = own_shard != owner_shard
    lent_rows = np.unique(owner[cross_shard])
    lent_shard = np.searchsorted(starts, lent_rows, side="right") - 1
    lent = {k: lent_rows[lent_shard == k] for k in np.unique(lent_shard).tolist()}
    found = [Copies(lent=tuple((lent.get(k, lent_rows[:0]) - starts[k]).tolist())) for k in range(shards)]
    for k, rows in lent.items():
        found[k].elsewhere.update({int(row - starts[k]): (k, place) for place, row in enumerate(rows)})
    for row, home, first_row, first_home in zip(own, own_shard, owner, owner_shard, strict=True):
        position = int(row - starts[home])
        place = np.searchsorted(lent.get(int(first_home), lent_rows[:0]), first_row)
        if first_home in lent and place < len(lent[int(first_home)]) and lent[int(first_home)][place] == first_row:
            found[home].elsewhere[position] = (int(first_home), int(place))
        else:
            found[home].here[position] = int(first_row - starts[home])
    return found, len(copies)


def embed_shared(
    number: int, shard: ImageShard, root: Path, spec: EncoderSpec, fingerprint: str, copies: Copies
) -> None:
    """Embed the images that a shard lends, unless that is done; one that cannot be used is a zero vector."""
    from fairdedup.datasets.images import BadImage, decode

    path = RunDirectory(root).lent(number)
    if is_up_to_date(path, fingerprint):
        return
    forward, wanted = BatchEncoder(spec), set(copies.lent)
    places: list[int] = []
    for sample in shard.read():
        if sample.position in wanted:
            try:
                places.append(forward.add(decode(sample.image or b"")))
            except BadImage:
                places.append(-1)
    forward.flush()
    unit = np.concatenate(forward.unit) if forward.unit else np.zeros((0, 1), np.float16)
    vectors = np.zeros((len(places), unit.shape[1]), np.float16)
    usable = np.array(places) >= 0
    vectors[usable] = unit[np.array(places)[usable]]
    write_array(path, vectors)
    mark_up_to_date(path, fingerprint)


def share_copies(
    dataset: Dataset, run: RunDirectory, spec: EncoderSpec, prints: Sequence[str], todo: Sequence[int],
    submit: Submit,
) -> tuple[list[Copies], int]:  # fmt: skip
    """Find the exact copies among all images of an input, and embed those that shards to be done take from others.

    Parameters
    ----------
    prints : sequence of str
        Fingerprint of each shard.
    todo : sequence of int
        Numbers of the shards that are to be embedded.

    Returns
    -------
    copies : list of Copies
        Of each shard.
    saved : int
        Forward passes that the copies do not need.
    """

    def over(stage: str, function: Callable[..., Any], numbers: list[int], more: list[tuple[Any, ...]]) -> None:
        shards = [dataset.shards[k] for k in numbers]
        tasks = [
            Task((k, shard, run.root, *own), shard.rows, shard.name)
            for k, shard, own in zip(numbers, shards, more, strict=True)
        ]
        submit(stage, function, tasks)

    every = list(range(len(dataset.shards)))
    over("find copies", hash_shard, every, [(prints[k],) for k in every])
    copies, saved = find_copies(run, len(every))
    lenders = sorted(set().union(*(copies[k].lenders() for k in todo)))
    over("embed copies", embed_shared, lenders, [(spec, prints[k], copies[k]) for k in lenders])
    return copies, saved
