"""Embedded rows of a shard, and how the ranges of a shard become its vectors and its metadata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.stages.embedding.metadata_table import SOURCE, join_tables
from fairdedup.storage.records import Rejection
from fairdedup.storage.shared_vectors import Copies


class EmbeddedRows(NamedTuple):
    """Rows of a shard, or all of them.

    Attributes
    ----------
    start, input : int
        Position of the first row, and number of rows.
    vectors : ndarray of shape (n, d), float16
        Of the rows that are not rejected; a copy of another image of the shard has a zero vector until `join_rows`. d
        is 0 if no row has a vector of its own.
    metadata : pyarrow.Table
        Of the same rows, as `build_table` returns it.
    rejected : list of Rejection
        In the order of their positions in the shard.
    """

    start: int
    input: int
    vectors: NDArray[np.float16]
    metadata: pa.Table
    rejected: list[Rejection]

    @property
    def positions(self) -> NDArray[np.int64]:
        """Position in the shard of every vector: (n,)."""
        rejected = np.array([each.position for each in self.rejected], np.int64)
        return np.setdiff1d(np.arange(self.start, self.start + self.input), rejected, assume_unique=True)


def join_rows(ranges: Sequence[EmbeddedRows], copies: Copies) -> EmbeddedRows:
    """Return the rows of a shard, whose metadata is the table that is written.

    A copy gets the vector of its first image, or is rejected for the same reason.

    Parameters
    ----------
    ranges : sequence of EmbeddedRows
        All ranges of the shard, in order.
    copies : Copies
        Images of the shard that take their vector from another image.
    """
    width = max(own.vectors.shape[1] for own in ranges)
    vectors = np.zeros((sum(len(own.vectors) for own in ranges), width), np.float16)
    at = 0
    for own in ranges:
        vectors[at : at + len(own.vectors), : own.vectors.shape[1]] = own.vectors
        at += len(own.vectors)
    rejected = [each for own in ranges for each in own.rejected]
    reasons = {each.position: each.reason for each in rejected}
    positions = np.concatenate([own.positions for own in ranges])
    place = {int(position): k for k, position in enumerate(positions)}
    is_usable = np.ones(len(positions), bool)
    ids = [name for own in ranges for name in own.metadata.column("id").to_pylist()] if copies.here else []
    sources = [name for own in ranges for name in own.metadata.column(SOURCE).to_pylist()] if copies.here else []
    for position, first in copies.here.items():
        if position not in place:
            continue
        k = place[position]
        if first in place:
            vectors[k] = vectors[place[first]]
        else:
            is_usable[k] = False
            rejected.append(Rejection(position, ids[k], sources[k], reasons[first]))
    table = join_tables([own.metadata for own in ranges])
    if not is_usable.all():
        vectors, table = vectors[is_usable], table.filter(pa.array(is_usable))
    return EmbeddedRows(0, sum(own.input for own in ranges), vectors, table, sorted(rejected))
