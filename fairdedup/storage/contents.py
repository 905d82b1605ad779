"""Results of the finished stages of a run, as values that are read once and passed from stage to stage."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.errors import UserError
from fairdedup.storage.config_record import read_config_record
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.records import ShardRecord, read_shard_records, read_sorted_record
from fairdedup.storage.remedies import quote
from fairdedup.storage.run_files import read_array, read_json, read_schema
from fairdedup.storage.schemas import merge_schemas
from fairdedup.storage.shard_groups import Group, group_shards
from fairdedup.tasks import Submit, map_groups


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
        filled = next((record.number for record in self.records if record.valid), None)
        return None if filled is None else int(read_array(self.directory.vectors(filled)).shape[1])

    @cached_property
    def schema(self) -> pa.Schema:
        """Schema that holds the metadata of all shards."""
        return merge_schemas([read_schema(self.directory.metadata(record.number)) for record in self.records])

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

    @property
    def directory(self) -> RunDirectory:
        """The run directory."""
        return self.embedded.directory

    @property
    def groups(self) -> list[Group]:
        """Groups of consecutive shards, in order."""
        return self.embedded.groups


def load_embedded(directory: RunDirectory) -> Embedded:
    """Return the embeddings of a run.

    Raises
    ------
    UserError
        If the embed stage is not finished, or a file is missing or damaged.
    """
    shards = read_config_record(directory).done.embed
    if shards is None:
        root = directory.root
        raise UserError(f"{root} holds no finished embeddings: run `fairdedup embed INPUT --out {quote(root)}`")
    return Embedded(directory, tuple(read_shard_records(directory, shards)))


def load_clustered(embedded: Embedded, submit: Submit | None = None) -> Clustered:
    """Return the clusters of a run.

    Parameters
    ----------
    embedded : Embedded
    submit : Submit, optional
        Runs the tasks that verify the checksums of the sorted files; with None they are not verified.

    Raises
    ------
    UserError
        If there are no clusters of these embeddings, or a file is missing or damaged.
    """
    directory = embedded.directory
    sizes = read_json(directory.sizes)
    if sizes is None or read_config_record(directory).done.cluster != embedded.fingerprint:
        root = directory.root
        raise UserError(f"{root} holds no finished clustering: run `fairdedup cluster {quote(root)}` first")
    if submit is not None:
        map_groups(submit, "verify", check_sorted, embedded.groups, directory)
    return Clustered(embedded, np.array(sizes, np.int64))


def check_sorted(group: Group, directory: RunDirectory) -> None:
    """Verify the checksums of a sorted group.

    Raises
    ------
    UserError
        If a file is missing or damaged.
    """
    if read_sorted_record(directory, group.number) is None:
        path = directory.sorted("vectors", group.number)
        raise UserError(
            f"{path} or another file of its group is missing or damaged: run `fairdedup cluster "
            f"{quote(directory.root)}` again, with its own options"
        )
