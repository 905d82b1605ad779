"""The parts of kept/: the metadata of the kept samples, and what each of them stands for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.represented_rows import COLLECTED, RemovedRows, Represented, write_list
from fairdedup.storage.run_files import open_table_writer
from fairdedup.storage.schemas import conform, to_text
from fairdedup.storage.sealed_files import Seal, Unsealed, load_table
from fairdedup.storage.seals import seal
from fairdedup.storage.shard_files import read_known_columns, read_shard_metadata
from fairdedup.storage.shard_groups import Group

STANDS_FOR = "stands_for"
COLLECTED_SUFFIX = "_collected"
WINDOW = 1 << 26  # bytes of collected values that are in memory at a time, where a single row has fewer


@dataclass(frozen=True)
class KeptColumns:
    """The columns of kept/.

    Attributes
    ----------
    metadata : Schema
        Columns of the metadata, as the embeddings have them.
    names : tuple of str
        Their names in kept/.
    collect : tuple of str, or None
        Columns whose values of the removed rows are collected. With None there is no `stands_for` either, as in runs of
        earlier versions.
    """

    metadata: pa.Schema
    names: tuple[str, ...]
    collect: tuple[str, ...] | None = ()

    @property
    def collected(self) -> tuple[str, ...]:
        """The columns that are collected."""
        return self.collect or ()

    @property
    def has_counts(self) -> bool:
        """Whether there is a column `stands_for`."""
        return self.collect is not None

    @cached_property
    def schema(self) -> pa.Schema:
        """Schema of kept/."""
        fields = [field.with_name(name) for field, name in zip(self.metadata, self.names, strict=True)]
        if self.has_counts:
            fields.append(pa.field(STANDS_FOR, pa.int64()))
        return pa.schema([*fields, *(pa.field(name_collected(name), COLLECTED) for name in self.collected)])


def name_collected(column: str) -> str:
    """Return the name of the column of kept/ with the collected values of a metadata column."""
    return f"{column}{COLLECTED_SUFFIX}"


def list_represented(
    group: Group,
    run: RunDirectory,
    target: RunDirectory,
    removed: RemovedRows,
    columns: KeptColumns,
    starts: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Write the list of a group's removed rows by representative, with their values in the collected columns.

    Parameters
    ----------
    group : Group
    run : RunDirectory
        The run, whose metadata is read.
    target : RunDirectory
        Where the list is written.
    removed : RemovedRows
        Removed rows of the group.
    columns : KeptColumns
    starts : ndarray of shape (g + 1,), int64
        First row of every group, and the number of input rows.

    Returns
    -------
    ndarray of shape (1 + c, g + 1), int64
        As `write_list` returns it.
    """
    schema = pa.schema([columns.metadata.field(name) for name in columns.collected])
    texts: list[list[pa.Array]] = [[] for _ in schema]
    for record, first in group.shards() if schema.names else ():
        own = slice(*np.searchsorted(removed.row, [first, first + record.input]))
        places = pa.array(np.searchsorted(first + record.positions(), removed.row[own]))
        table = conform(read_known_columns(run, record, schema.names), schema)
        for column, parts in zip(table.columns, texts, strict=True):
            parts.append(to_text(column.take(places)))
    return write_list(target.represented, group.number, removed, [pa.concat_arrays(parts) for parts in texts], starts)


def write_kept(
    group: Group,
    run: RunDirectory,
    target: RunDirectory,
    decisions: Seal | Unsealed,
    columns: KeptColumns,
    represented: Represented | None,
) -> dict[str, str]:
    """Write the part of kept/ of a group, and return its seal by its path below the target.

    Parameters
    ----------
    group : Group
    run : RunDirectory
        The run, whose metadata is read.
    target : RunDirectory
        Where the part is written.
    decisions : Seal or Unsealed
        The decisions of the group.
    columns : KeptColumns
    represented : Represented or None
        What the group's rows stand for; None where `columns` has no counts.
    """
    table = load_table(decisions, ["row", "kept"])
    rows = table.column("row").to_numpy()[table.column("kept").to_numpy()]
    path = target.part("kept", group.number)
    added = None if represented is None else _AddedColumns(represented, rows, len(columns.collected))
    with open_table_writer(path, columns.schema) as writer:
        for record, first in group.shards():
            start, stop = np.searchsorted(rows, [first, first + record.input]).tolist()
            stays = np.isin(first + record.positions(), rows[start:stop], assume_unique=True)
            metadata = conform(read_shard_metadata(run, record).filter(pa.array(stays)), columns.metadata)
            if added is None:
                writer.write_table(pa.table(metadata.columns, schema=columns.schema))
                continue
            for low, high in added.cut(start, stop):
                own = metadata.slice(low - start, high - low).columns
                writer.write_table(pa.table([*own, *added.read(low, high)], schema=columns.schema))
    return {str(path.relative_to(target.root)): seal(path)}


class _AddedColumns:
    """What some ascending rows (n,) of a group stand for, read in windows of at most `WINDOW` bytes, in order."""

    def __init__(self, represented: Represented, rows: NDArray[np.int64], columns: int) -> None:
        self._represented, self._rows, self._columns = represented, rows, columns
        self._counts = represented.count(rows)
        sizes = sum((represented.measure(rows, column) for column in range(columns)), np.zeros(len(rows), np.int64))
        self._edges = _cut_windows(sizes)
        self._window, self._lists = (0, 0), [pa.array([], COLLECTED)] * columns

    def cut(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the places from `start` to before `stop` as ranges, none of which is in two windows."""
        inner = [edge for edge in self._edges if start < edge < stop]
        yield from zip([start, *inner], [*inner, stop], strict=True)

    def read(self, low: int, high: int) -> Sequence[pa.Array]:
        """Return the added columns of the places from `low` to before `high`, all in one window."""
        if high > self._window[1]:
            at = int(np.searchsorted(self._edges, low, side="right"))
            self._window = self._edges[at - 1], self._edges[at]
            own = self._rows[slice(*self._window)]
            self._lists = [self._represented.collect(own, column) for column in range(self._columns)]
        places = low - self._window[0], high - low
        return [pa.array(self._counts[low:high]), *(column.slice(*places) for column in self._lists)]


def _cut_windows(sizes: NDArray[np.int64]) -> list[int]:
    """Return where windows of places (n,) of at most `WINDOW` bytes begin, and n; a larger place is a window alone."""
    ends, edges = np.cumsum(sizes), [0]
    while edges[-1] < len(sizes):
        before = ends[edges[-1] - 1] if edges[-1] else 0
        edges.append(max(edges[-1] + 1, int(np.searchsorted(ends, before + WINDOW, side="right"))))
    return edges
