"""The files of embedding shards and of sorted groups, each opened against the seal that its record has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.made_of import marked_file
from fairdedup.storage.records import ShardRecord, SortedRecord
from fairdedup.storage.remedies import cluster_again, embed_again
from fairdedup.storage.sealed_files import Seal, load_table, open_array, read_schema
from fairdedup.storage.shard_groups import Group
from fairdedup.storage.stored_model import read_undamaged


def shard_vectors(directory: RunDirectory, record: ShardRecord) -> Seal:
    """Return the vectors of an embedding shard with their seal."""
    return Seal(directory.vectors(record.number), record.seals.get("vectors"), embed_again(directory.root))


def shard_metadata(directory: RunDirectory, record: ShardRecord) -> Seal:
    """Return the metadata of an embedding shard with their seal."""
    return Seal(directory.metadata(record.number), record.seals.get("metadata"), embed_again(directory.root))


def open_shard_vectors(directory: RunDirectory, record: ShardRecord) -> Any:
    """Return the vectors (n, d) of an embedding shard, as `open_array` does; raises as it."""
    return open_array(shard_vectors(directory, record))


def read_shard_metadata(directory: RunDirectory, record: ShardRecord, columns: list[str] | None = None) -> pa.Table:
    """Return the metadata of an embedding shard: one row for each vector.

    Parameters
    ----------
    directory : RunDirectory
    record : ShardRecord
    columns : list of str, optional
        Names of the columns to read; None reads all.

    Raises
    ------
    DamagedFileError
        If the file is missing or damaged.
    """
    return load_table(shard_metadata(directory, record), columns)


def read_known_columns(directory: RunDirectory, record: ShardRecord, names: list[str]) -> pa.Table:
    """Return those columns of the metadata of an embedding shard that it has; raises as `read_shard_metadata`."""
    source = shard_metadata(directory, record)
    own = read_schema(source).names
    return load_table(source, [name for name in names if name in own])


class GroupVectors:
    """The vectors of a group of embedding shards, each of which is opened once.

    Parameters
    ----------
    directory : RunDirectory
    group : Group
    """

    def __init__(self, directory: RunDirectory, group: Group) -> None:
        self.directory, self.group = directory, group
        self._open: dict[int, Any] = {}

    def read_rows(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """Return the vectors (n, d) of some rows (n,) of the group, in their order; (0, 0) of none."""
        out = np.zeros((0, 0), np.float16)
        for record, first in self.group.shards():
            own = np.flatnonzero((rows >= first) & (rows < first + record.input))
            if len(own):
                if record.number not in self._open:
                    self._open[record.number] = open_shard_vectors(self.directory, record)
                vectors = self._open[record.number]
                out = out if out.size else np.empty((len(rows), vectors.shape[1]), np.float16)
                out[own] = vectors[np.searchsorted(first + record.positions(), rows[own])]
        return out


def centroids_of(directory: RunDirectory) -> Seal:
    """Return the centroids of a run with the seal that their mark has."""
    return marked_file(directory.centroids, cluster_again(directory.root))


def open_sorted(directory: RunDirectory, number: int, *names: str) -> list[Any]:
    """Return files of a sorted group, such as "rows", as arrays; raises as `open_array`."""
    record = read_undamaged(directory.sorted_record(number), SortedRecord)
    seals = {} if record is None else record.seals
    remedy = cluster_again(directory.root)
    return [open_array(Seal(directory.sorted(name, number), seals.get(name), remedy)) for name in names]
