"""Results of the finished stages of a run, as values that are read once and passed from stage to stage."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.errors import FairdedupError, UserError
from fairdedup.storage.checked_json import read_json, write_json
from fairdedup.storage.config_record import check_run_exists, read_config_record
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.records import ShardRecord, read_shard_records, read_sorted_record
from fairdedup.storage.remedies import MAKE_AGAIN, cluster_again, quote
from fairdedup.storage.schemas import merge_schemas
from fairdedup.storage.sealed_files import Seal, Unsealed, read_schema
from fairdedup.storage.shard_files import centroids_of, open_shard_vectors, open_sorted, shard_metadata, shard_vectors
from fairdedup.storage.shard_groups import Group, fingerprint_sorted, group_shards
from fairdedup.tasks import Submit, map_groups

SCHEMA_REASON = "the rows of the same file are verified where they are read, before anything is made of them"


@dataclass(frozen=True)
class Embedded:
    """A run directory whose embeddings are complete. Tasks get its groups, never the value itself.

    Attributes
    ----------
    directory : RunDirectory
    records : tuple of ShardRecord
        Records of all embedding shards, in order.
    """

    directory: RunDirectory
    records: tuple[ShardRecord, ...]

    @cached_property
    def groups(self) -> list[Group]:
        """Groups of consecutive shards, in order."""
        return group_shards(self.records)

    @property
    def input(self) -> int:
        """Number of samples in the input."""
        return sum(record.input for record in self.records)

    @property
    def valid(self) -> int:
        """Number of vectors."""
        return sum(record.valid for record in self.records)

    @cached_property
    def dimension(self) -> int | None:
        """Length of a vector; None where there is no vector."""
        filled = next((record for record in self.records if record.valid), None)
        return None if filled is None else int(open_shard_vectors(self.directory, filled).shape[1])

    @cached_property
    def schema(self) -> pa.Schema:
        """Schema that holds the metadata of all shards."""
        sources = (shard_metadata(self.directory, record) for record in self.records)
        return merge_schemas([read_schema(Unsealed(s.path, SCHEMA_REASON, s.remedy)) for s in sources])

    @property
    def fingerprint(self) -> str:
        """Hash of what the vectors were made of, which the clusters depend on."""
        return hashlib.sha256("\n".join(record.fingerprint for record in self.records).encode()).hexdigest()


@dataclass(frozen=True)
class Clustered:
    """A run directory whose embeddings are clustered.

    Attributes
    ----------
    embedded : Embedded
    sizes : ndarray of shape (k,), int64
        Number of vectors in each cluster.
    """

    embedded: Embedded
    sizes: NDArray[np.int64]

    @cached_property
    def centroids(self) -> Seal:
        """The centroids with their seal: float32 (k, d)."""
        return centroids_of(self.directory)

    @property
    def directory(self) -> RunDirectory:
        """The run directory."""
        return self.embedded.directory

    @property
    def groups(self) -> list[Group]:
        """Groups of consecutive shards, in order."""
        return self.embedded.groups


def load_embedded(
    directory: RunDirectory, submit: Submit | None = None, files: Sequence[str] = ("vectors", "metadata")
) -> Embedded:
    """Return the embeddings of a run.

    Parameters
    ----------
    directory : RunDirectory
    submit : Submit, optional
        Runs the tasks that verify the checksums of all shards; with None whoever reads a shard verifies it.
    files : sequence of str
        Which files of each shard these tasks verify.

    Raises
    ------
    UserError
        If the embed stage is not finished, or a file is missing or damaged.
    """
    shards = read_config_record(directory).done.embed
    if shards is None:
        root = directory.root
        check_run_exists(root)
        raise UserError(f"{root} holds no finished embeddings: run `fairdedup embed INPUT --out {quote(root)}`")
    embedded = Embedded(directory, tuple(read_shard_records(directory, shards)))
    if submit is not None:
        map_groups(submit, "verify", check_embedded, embedded.groups, directory, files)
    return embedded


def check_embedded(group: Group, directory: RunDirectory, files: Sequence[str]) -> None:
    """Verify the checksums of a group of embedding shards.

    Parameters
    ----------
    group : Group
    directory : RunDirectory
    files : sequence of str
        Which files of each shard: "vectors", "metadata".

    Raises
    ------
    DamagedFileError
        If a file is missing or damaged.
    """
    sources = {"vectors": shard_vectors, "metadata": shard_metadata}
    for record in group.records:
        for name in files:
            sources[name](directory, record).verify()


def load_clustered(embedded: Embedded, submit: Submit | None = None) -> Clustered:
    """Return the clusters of a run.

    Parameters
    ----------
    embedded : Embedded
    submit : Submit, optional
        Runs the tasks that verify the checksums of the sorted files, once for all tasks of the command that read ranges
        of clusters; with None they are not verified.

    Raises
    ------
    UserError
        If there are no clusters of these embeddings, or a file is missing or damaged.
    """
    directory = embedded.directory
    sizes, finished = read_sizes(directory), read_config_record(directory).done.cluster == embedded.fingerprint
    root = directory.root
    if not finished or (sizes is None and not directory.sizes.is_file()):
        raise UserError(f"{root} holds no finished clustering: run `fairdedup cluster {quote(root)}` first")
    if sizes is None:
        raise _damaged_sizes(directory)
    clustered = Clustered(embedded, sizes)
    if submit is not None:
        clustered.centroids.verify()
        counts = map_groups(submit, "verify", check_sorted, embedded.groups, directory, clustered.centroids.expected)
        if counts and not np.array_equal(np.sum(counts, axis=0), sizes):
            raise _damaged_sizes(directory)
    return clustered


def read_sizes(directory: RunDirectory) -> NDArray[np.int64] | None:
    """Return the number of vectors in each cluster (k,); None if the file is missing or damaged."""
    try:
        known = read_json(directory.sizes)
    except FairdedupError:
        return None
    sizes = known.get("sizes") if isinstance(known, dict) else known  # a plain list in earlier versions
    if not isinstance(sizes, list) or not all(type(size) is int and 0 <= size < 1 << 62 for size in sizes):
        return None
    return np.array(sizes, np.int64)


def write_sizes(directory: RunDirectory, sizes: NDArray[np.int64]) -> None:
    """Write the number of vectors in each cluster, once all groups are sorted."""
    write_json(directory.sizes, {"sizes": sizes.tolist()})


def _damaged_sizes(directory: RunDirectory) -> UserError:
    return UserError(f"{directory.sizes} is damaged: {cluster_again(directory.root)}")


def check_sorted(group: Group, directory: RunDirectory, centroids: str) -> NDArray[np.int64]:
    """Verify the checksums of a sorted group, and return the number of its rows in each cluster (k,).

    Parameters
    ----------
    group : Group
    directory : RunDirectory
    centroids : str
        Seal of the centroids.

    Raises
    ------
    UserError
        If a file is missing or damaged, or the records of the embeddings are not those that were clustered.
    """
    record = read_sorted_record(directory, group.number)
    if record is None:
        path = directory.sorted("vectors", group.number)
        raise UserError(f"{path} or another file of its group is missing or damaged: {cluster_again(directory.root)}")
    if record.fingerprint != fingerprint_sorted(group, centroids):
        names = directory.record(group.records[0].number), directory.sorted_record(group.number)
        raise UserError(f"{names[0]} and {names[1]} contradict each other, so one was altered: {MAKE_AGAIN}")
    return np.diff(open_sorted(directory, group.number, "offsets")[0])
