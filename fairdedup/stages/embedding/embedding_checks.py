"""Checks of all embedding shards together: rejected rows, one dimension, unique ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.datasets.dataset import Shard
from fairdedup.datasets.duplicate_ids import duplicate_id_error
from fairdedup.errors import UserError, format_count
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.records import ShardRecord
from fairdedup.storage.sealed_files import Unsealed, load_table, open_array

VERIFIED = "a task of the same command has verified or written it"
COMMON_REASONS = 3  # reasons that a message lists


def check_rejected(records: Sequence[ShardRecord], max_rejected: float) -> None:
    """Refuse an input of which nothing, or too little, can be used.

    Parameters
    ----------
    records : sequence of ShardRecord
    max_rejected : float
        Largest fraction of the input that may be rejected, in [0, 1].

    Raises
    ------
    UserError
        If the input is empty, everything is rejected, or more than `max_rejected` is.
    """
    total, valid = sum(r.input for r in records), sum(r.valid for r in records)
    reasons = Counter(x.reason for r in records for x in r.rejected)
    commonest = "; ".join(f"{count:,} x {why}" for why, count in reasons.most_common(COMMON_REASONS))
    if not total:
        raise UserError("the input has no samples: give one with at least one image or vector")
    if not valid:
        raise UserError(
            f"{'the only sample is' if total == 1 else f'all {total:,} samples are'} rejected "
            f"({commonest}): fix the input"
        )
    if total - valid > max_rejected * total:
        raise UserError(
            f"{total - valid:,} of {format_count(total, 'sample')} {'is' if total - valid == 1 else 'are'} rejected, "
            f"more than --max-rejected {max_rejected:g} "
            f"({commonest}): fix the input or raise --max-rejected"
        )


def check_dimension(records: Sequence[ShardRecord], run: RunDirectory) -> None:
    """Refuse shards whose vectors differ in length.

    Raises
    ------
    UserError
        Naming two shards that differ.
    """
    seen: dict[int, str] = {}
    for record in records:
        if record.valid:
            width = open_array(Unsealed(run.vectors(record.number), VERIFIED)).shape[1]
            seen.setdefault(width, record.name)
    if len(seen) > 1:
        (a, first), (b, second) = list(seen.items())[:2]
        raise UserError(
            f"{first} has vectors of {format_count(a, 'value')} and {second} of {b}: "
            "give an input whose vectors all come from one model"
        )


def check_ids(records: Sequence[ShardRecord], run: RunDirectory, shards: Sequence[Shard]) -> None:
    """Refuse duplicate ids; those of images were looked for before embedding.

    Hashes of 8 bytes a row find the candidates; their ids are then compared, so a clash of hashes refuses nothing.

    Raises
    ------
    UserError
        Naming the first duplicate id and its two shards.
    """
    from pandas.util import hash_array  # pandas takes long to load, and most commands do not come here

    hashes = [hash_array(_read_ids(run, r.number), categorize=False) for r in records]
    suspects = _find_repeated(np.concatenate(hashes))
    if not len(suspects):
        return
    seen: dict[str, Shard] = {}
    for record, own, shard in zip(records, hashes, shards, strict=True):
        for name in _select_ids(run, record, np.flatnonzero(np.isin(own, suspects))):
            if name in seen:
                raise duplicate_id_error(name, seen[name], shard)
            seen[name] = shard


def _find_repeated(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the hashes that occur more than once."""
    ordered = np.sort(hashes)
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def _select_ids(run: RunDirectory, record: ShardRecord, places: NDArray[np.int64]) -> Iterator[str]:
    if len(places):
        ids = _read_ids(run, record.number)
        yield from ids[places]


def _read_ids(run: RunDirectory, number: int) -> NDArray[Any]:
    """Return the ids of a shard (n,), as objects."""
    return load_table(Unsealed(run.metadata(number), VERIFIED), ["id"]).column("id").to_numpy().astype(object)
