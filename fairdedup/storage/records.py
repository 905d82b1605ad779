"""Records of embedding shards and of sorted groups: written after their files, which they prove complete."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, model_validator

from fairdedup.errors import UserError
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.remedies import embed_again
from fairdedup.storage.run_files import list_sizes
from fairdedup.storage.seals import has_sealed_size, is_sealed, seal, sealed_size
from fairdedup.storage.stored_model import StoredFile, read_stored_files, read_undamaged


class Rejection(NamedTuple):
    """A sample that could not be used."""

    position: int  # in the input shard
    id: str
    source: str  # where the sample is, for people
    reason: str


class Record(StoredFile):
    """A record of files. One with unknown keys counts as damaged, and its files are made again."""

    model_config = ConfigDict(extra="forbid")

    def content(self) -> dict[str, Any]:
        """Return the record for hashes: without the version of the format, and without what later versions added."""
        return self.model_dump(mode="json", exclude={"version"}, exclude_defaults=True)


class ShardRecord(Record):
    """Contents of an embedding shard.

    Attributes
    ----------
    number : int
    name : str
        Name of the input shard.
    fingerprint : str
        Hash of the input shard's bytes and the encoder.
    input, valid : int
        Number of samples in the input shard, and of vectors in the embedding shard.
    rejected : list of Rejection
    seals : dict of str to str
        Seal of each file, by the names of `RunDirectory.shard_files`.
    unused : dict of str to int
        How many files or members no sample uses, by ending.
    damage : str or None
        Where and how the input shard is damaged, if part of it was left out.
    """

    number: int
    name: str
    fingerprint: str
    input: int
    valid: int
    rejected: list[Rejection]
    seals: dict[str, str]
    unused: dict[str, int] = {}
    damage: str | None = None

    @model_validator(mode="after")
    def _check_counts(self) -> ShardRecord:
        """Refuse a record whose numbers contradict each other, since a digit of them was altered."""
        rejected = {rejection.position for rejection in self.rejected}
        if self.valid + len(self.rejected) != self.input or len(rejected) < len(self.rejected):
            raise ValueError("the valid and the rejected samples are not the input")
        if rejected and not 0 <= min(rejected) <= max(rejected) < self.input:
            raise ValueError("a rejected sample has a position outside the input")
        return self

    def positions(self) -> NDArray[np.int64]:
        """Return the position in the input shard of every vector: (valid,)."""
        rejected = np.array([r.position for r in self.rejected], np.int64)
        return np.delete(np.arange(self.input), rejected)


class FindingsRecord(Record):
    """What reading an input shard has found besides its samples.

    Attributes
    ----------
    fingerprint : str
        Hash of the input shard and of how it was read.
    unused, damage
        As in `ShardRecord`.
    columns : list of str or None
        Names of the samples' own columns; None in records of earlier versions.
    schema_of_columns : str or None
        The columns whose values are all of one type, as `datasets.column_types` writes a schema.
    """

    fingerprint: str
    unused: dict[str, int] = {}
    damage: str | None = None
    columns: list[str] | None = None
    schema_of_columns: str | None = None


class SortedRecord(Record):
    """Contents of a sorted group: the vectors of consecutive embedding shards, by cluster.

    Attributes
    ----------
    number : int
    fingerprint : str
        Hash of the embedding shards' records and the centroids.
    seals : dict of str to str
        Seal of each file, by the names of `RunDirectory.sorted_files`.
    """

    number: int
    fingerprint: str
    seals: dict[str, str]


def seal_files(files: Mapping[str, Path]) -> dict[str, str]:
    """Return the seal of each file."""
    return {name: seal(path) for name, path in files.items()}


def write_shard_record(directory: RunDirectory, record: ShardRecord) -> None:
    """Write the record of an embedding shard, after its files."""
    record.write(directory.record(record.number))


def read_shard_record(directory: RunDirectory, number: int, *, verify: bool = False) -> ShardRecord | None:
    """Return the record of an embedding shard, or None if it or a file of the shard is missing or damaged.

    Parameters
    ----------
    directory : RunDirectory
    number : int
    verify : bool
        Whether to read the files and compare their checksums; otherwise only their sizes are compared.
    """
    record = read_undamaged(directory.record(number), ShardRecord)
    check = is_sealed if verify else has_sealed_size
    return record if record and _match(directory.shard_files(number), record.seals, check) else None


def read_findings(directory: RunDirectory, number: int) -> FindingsRecord | None:
    """Return what reading an input shard has found, or None if the record is missing or damaged."""
    return read_undamaged(directory.scan_findings(number), FindingsRecord)


def write_sorted_record(directory: RunDirectory, record: SortedRecord) -> None:
    """Write the record of a sorted group, after its files."""
    record.write(directory.sorted_record(record.number))


def read_sorted_record(directory: RunDirectory, number: int) -> SortedRecord | None:
    """Return the record of a sorted group, or None if it or a file of the group is missing or damaged."""
    record = read_undamaged(directory.sorted_record(number), SortedRecord)
    return record if record and _match(directory.sorted_files(number), record.seals, is_sealed) else None


def read_shard_records(directory: RunDirectory, shards: int) -> list[ShardRecord]:
    """Return the records of all embedding shards, in order; the sizes of their files are compared.

    Parameters
    ----------
    directory : RunDirectory
    shards : int
        Number of shards.

    Raises
    ------
    UserError
        If a record or a file is missing or damaged.
    """
    paths = [directory.record(number) for number in range(shards)]
    sizes = {name: list_sizes(path.parent) for name, path in directory.shard_files(0).items()}
    records = []
    for number, record in enumerate(read_stored_files(paths, ShardRecord)):
        if record is None or record.number != number:
            raise _damaged_shard(directory, directory.record(number))
        for name, path in directory.shard_files(number).items():
            if str(sizes[name].get(path.name)) != sealed_size(record.seals.get(name, "")):
                raise _damaged_shard(directory, path)
        records.append(record)
    return records


def list_recorded_shards(directory: RunDirectory) -> set[int]:
    """Return the numbers of the embedding shards that have a record, by one listing."""
    found = (re.fullmatch(r"record_([0-9]+)\.json", name) for name in list_sizes(directory.record(0).parent))
    return {int(match[1]) for match in found if match}


def remove_shards_from(directory: RunDirectory, number: int) -> None:
    """Remove the embedding shards from this number on, which are left from a longer input."""
    for stale in sorted(known for known in list_recorded_shards(directory) if known >= number):
        directory.record(stale).unlink()
        for path in directory.shard_files(stale).values():
            path.unlink(missing_ok=True)


def remove_sorted_from(directory: RunDirectory, number: int) -> None:
    """Remove the sorted groups from this number on, which are left from an earlier clustering."""
    while (record := directory.sorted_record(number)).is_file():
        record.unlink()
        nearby = directory.sorted("nearby", number)
        for path in (*directory.sorted_files(number).values(), nearby, nearby.with_suffix(".json")):
            path.unlink(missing_ok=True)
        number += 1


def _match(files: Mapping[str, Path], seals: Mapping[str, str], check: Any) -> bool:
    return files.keys() == seals.keys() and all(check(path, seals[name]) for name, path in files.items())


def _damaged_shard(directory: RunDirectory, path: Path) -> UserError:
    return UserError(f"{path} is missing or damaged: {embed_again(directory.root)}")
