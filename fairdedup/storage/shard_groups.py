"""Groups of consecutive embedding shards, which share a sorted file and a part of the result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.storage.records import ShardRecord

GROUP_ROWS = 1 << 18  # most rows of a group of several shards


@dataclass(frozen=True)
class Group:
    """Consecutive embedding shards that share a sorted file and a part of the result.

    Attributes
    ----------
    number : int
    records : tuple of ShardRecord
    first : int
        First row of the first shard.
    """

    number: int
    records: tuple[ShardRecord, ...]
    first: int

    @property
    def name(self) -> str:
        """Names of the first and the last shard."""
        last = f" to {self.records[-1].name}" if len(self.records) > 1 else ""
        return self.records[0].name + last

    @property
    def input(self) -> int:
        """Number of input rows."""
        return sum(r.input for r in self.records)

    @property
    def valid(self) -> int:
        """Number of vectors."""
        return sum(r.valid for r in self.records)

    def shards(self) -> Iterator[tuple[ShardRecord, int]]:
        """Yield each shard with its first row."""
        first = self.first
        for record in self.records:
            yield record, first
            first += record.input

    def rows(self) -> NDArray[np.int64]:
        """Return the rows of the vectors, ascending."""
        return np.concatenate([first + record.positions() for record, first in self.shards()])

    def sources(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the place of each row, for people: shard and position."""
        starts = np.array([first for _, first in self.shards()])
        homes = np.searchsorted(starts, rows, side="right") - 1  # of shards with equal starts, only the last has rows
        return [f"{self.records[h].name}[{row - starts[h]}]" for h, row in zip(homes, rows, strict=True)]


def group_shards(records: Sequence[ShardRecord]) -> list[Group]:
    """Split records into groups of up to `GROUP_ROWS` rows, so that many tiny shards become few files."""
    out: list[Group] = []
    current: list[ShardRecord] = []
    first = rows = 0
    for record in records:
        if current and rows + record.input > GROUP_ROWS:
            out.append(Group(len(out), tuple(current), first))
            current, first, rows = [], first + rows, 0
        current.append(record)
        rows += record.input
    return [*out, Group(len(out), tuple(current), first)] if current else out


def first_rows_of_groups(groups: Sequence[Group]) -> NDArray[np.int64]:
    """Return the first row of each group, and at the end the number of input rows: (g + 1,)."""
    return np.cumsum([0] + [group.input for group in groups]).astype(np.int64)


def first_rows(records: Sequence[ShardRecord]) -> NDArray[np.int64]:
    """Return the first row of each shard, and at the end the number of input rows: (s + 1,)."""
    return np.cumsum([0] + [r.input for r in records]).astype(np.int64)


def hash_of(*known: Any) -> str:
    """Return a hash of what a result is made of, through its JSON."""
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def fingerprint_sorted(group: Group, centroids: str) -> str:
    """Return the hash of what the sorted files of a group are made of.

    Parameters
    ----------
    group : Group
    centroids : str
        Seal of the centroids.
    """
    return hash_of([record.content() for record in group.records], group.first, centroids)
