"""Reads the image files of a few samples of a shard, without their captions and columns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from fairdedup.datasets.dataset import ImageShard
from fairdedup.datasets.filesystem import Unreadable, to_valid_text
from fairdedup.datasets.folder_shards import FolderShard
from fairdedup.datasets.images import MAX_IMAGE_BYTES
from fairdedup.datasets.parquet_shards import ParquetImageShard
from fairdedup.datasets.tar import DamagedTar
from fairdedup.datasets.tar_members import read_groups
from fairdedup.datasets.tar_samples import choose_certain, split_group
from fairdedup.datasets.webdataset import TarShard


def read_chosen_images(shard: ImageShard, positions: list[int]) -> Iterator[tuple[int, str, bytes]]:
    """Yield the position, the id and the image file of some samples of a shard; those without an image are left out.

    Parameters
    ----------
    shard : ImageShard
    positions : list of int
        Positions of the samples. Files are read in this order where that is as quick, else in the shard's.
    """
    wanted, last = frozenset(positions), max(positions, default=-1)
    if isinstance(shard, TarShard):
        yield from _read_tar(shard, wanted, last)
    elif isinstance(shard, FolderShard):
        yield from _read_folder(shard, positions)
    else:
        samples = shard.read(wanted=wanted) if isinstance(shard, ParquetImageShard) else shard.read()
        for sample in samples:
            if sample.position in wanted and sample.image is not None:
                yield sample.position, sample.id, sample.image
            if sample.position >= last:
                return


def _read_tar(shard: TarShard, wanted: frozenset[int], last: int) -> Iterator[tuple[int, str, bytes]]:
    position = 0
    with suppress(DamagedTar):  # samples behind the damage were rejected
        for group in read_groups(shard.fs, shard.path, shard.column):
            samples = split_group(group, shard.column, shard.name)
            if not group.complete:
                samples, _ = choose_certain(group, samples, shard.column)
            for sample in samples:
                content = None if sample.image is None else sample.image.content
                if position in wanted and sample.error is None and content is not None:
                    yield position, to_valid_text(shard.make_id(sample.key)), content.read()
                position += 1
            if position > last:
                return


def _read_folder(shard: FolderShard, positions: list[int]) -> Iterator[tuple[int, str, bytes]]:
    with shard.reader() as read:
        for position in positions:
            if position >= len(shard.files):
                continue
            listed = shard.files[position]
            with suppress(Unreadable):
                yield position, shard.make_id(listed.path), read(listed.path, MAX_IMAGE_BYTES)
