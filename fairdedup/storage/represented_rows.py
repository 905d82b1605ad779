"""Which removed rows each kept row stands for: lists of removed rows by representative, one for each group of shards.

A removed row and its representative may lie in different groups. So a task of each group lists its removed rows by
representative, and a later task of each group reads, from every list, the slice about its own rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fairdedup.storage.run_files import write_array
from fairdedup.storage.sealed_files import Unsealed, open_array

MOST_VALUES = 100  # values that are collected for a kept row
WRITTEN = "a task of the same command has written it, and the command removes it when it ends"
COUNT = np.dtype([("representative", "<i8"), ("removed", "<i8")])
ENTRY = np.dtype(  # a value of a removed row; its text is the slice of the texts from `start` to `stop`
    [("representative", "<i8"), ("row", "<i8"), ("similarity", "<f8"), ("start", "<i8"), ("stop", "<i8")]
)
COLLECTED = pa.list_(pa.string())  # type of the collected values of a kept row
COUNTS, ENTRIES, TEXTS = "counts", "entries", "texts"
Rows = NDArray[np.int64]


class RemovedRows(NamedTuple):
    """Removed rows that a row of the run represents.

    Attributes
    ----------
    row, representative : ndarray of shape (n,), int64
        Each row, ascending, and the row that represents it.
    similarity : ndarray of shape (n,), float64
        Cosine of the two.
    """

    row: Rows
    representative: Rows
    similarity: NDArray[np.float64]

    @classmethod
    def of(cls, columns: Any, kept: NDArray[np.bool_]) -> RemovedRows:
        """Return the rows that are not kept and that a row of the run represents.

        Parameters
        ----------
        columns : structured array, or mapping of str to ndarray of shape (n,)
            Decisions: row, representative, similarity.
        kept : ndarray of shape (n,), bool
            Whether each row is kept, re-admitted rows included.
        """
        own = np.flatnonzero(~kept & (columns["representative"] >= 0))
        return cls(columns["row"][own], columns["representative"][own], columns["similarity"][own])


@dataclass(frozen=True)
class Values:
    """Values of removed rows in one column, as text.

    Attributes
    ----------
    removed : RemovedRows
        The rows, in any order.
    text : LargeStringArray of length n
        Their values; null where a value is missing.
    """

    removed: RemovedRows
    text: pa.LargeStringArray

    def keep_distinct(self) -> Values:
        """Return the distinct values of each representative, by representative, then the most similar row first.

        At most `MOST_VALUES` remain for a representative. Applied to parts and then to what is left of them, it gives
        the same values as applied to all at once.
        """
        places = np.flatnonzero(pc.is_valid(self.text).to_numpy(zero_copy_only=False))
        row, owner, similarity = (column[places] for column in self.removed)
        order = np.lexsort((row, -similarity, owner))
        places, owner = places[order], owner[order]
        text = self.text.take(pa.array(places))
        code = text.dictionary_encode().indices.to_numpy()
        by_pair = np.lexsort((code, owner))  # it is stable, so the most similar of equal values comes first
        repeated = (owner[by_pair][1:] == owner[by_pair][:-1]) & (code[by_pair][1:] == code[by_pair][:-1])
        first = np.sort(by_pair[np.concatenate((np.ones(min(1, len(places)), np.bool_), ~repeated))])
        rank = np.arange(len(first)) - np.searchsorted(owner[first], owner[first])
        first = first[rank < MOST_VALUES]
        kept = RemovedRows(*(column[places[first]] for column in self.removed))
        return Values(kept, text.take(pa.array(first)))

    @classmethod
    def join(cls, parts: Sequence[Values]) -> Values:
        """Return the values of several parts."""
        columns = [np.concatenate(column) for column in zip(*(part.removed for part in parts), strict=True)]
        return cls(RemovedRows(*columns), pa.concat_arrays([part.text for part in parts]))


def list_path(folder: Path, what: str, number: int, column: int = 0) -> Path:
    """Return the path of a file of the list of a group: its counts, or the entries or texts of a column."""
    return folder / (f"{what}_{number}.npy" if what == COUNTS else f"{what}_{column}_{number}.npy")


def write_list(folder: Path, number: int, removed: RemovedRows, texts: Sequence[pa.Array], starts: Rows) -> Rows:
    """Write the list of a group's removed rows by representative.

    Parameters
    ----------
    folder : Path
        Folder of the lists.
    number : int
        Number of the group.
    removed : RemovedRows
        Removed rows of the group.
    texts : sequence of LargeStringArray of length n
        For each column that is collected the values of these rows.
    starts : ndarray of shape (g + 1,), int64
        First row of every group, and the number of input rows.

    Returns
    -------
    ndarray of shape (1 + c, g + 1), int64
        Where the rows of each group begin among the representatives: in the counts, and in the entries of each column.
    """
    rows, counts = np.unique(removed.representative, return_counts=True)
    table = np.empty(len(rows), COUNT)
    table["representative"], table["removed"] = rows, counts
    write_array(list_path(folder, COUNTS, number), table)
    bounds = [np.searchsorted(rows, starts)]
    for column, text in enumerate(texts):
        found = Values(removed, text).keep_distinct()
        entries = np.empty(len(found.text), ENTRY)
        for name in ("row", "representative", "similarity"):
            entries[name] = getattr(found.removed, name)
        offsets, data = _open_text(found.text)
        entries["start"], entries["stop"] = offsets[:-1], offsets[1:]
        write_array(list_path(folder, ENTRIES, number, column), entries)
        write_array(list_path(folder, TEXTS, number, column), data)
        bounds.append(np.searchsorted(found.removed.representative, starts))
    return np.stack(bounds).astype(np.int64)


def _open_text(text: pa.LargeStringArray) -> tuple[Rows, NDArray[np.uint8]]:
    """Return offsets (n + 1,) and bytes of texts without nulls, as views."""
    if not len(text):
        return np.zeros(1, np.int64), np.zeros(0, np.uint8)
    _, offsets, data = text.buffers()
    ends = np.frombuffer(offsets, np.int64, len(text) + 1, 8 * text.offset)
    whole = np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
    return ends - ends[0], whole[ends[0] : ends[-1]]


@dataclass(frozen=True)
class Represented:
    """What the lists of all groups say about the rows of one group.

    Attributes
    ----------
    folder : Path
        Folder of the lists.
    groups : ndarray of shape (m,), int64
        Groups whose lists have removed rows that the rows of this group represent.
    slices : ndarray of shape (m, 1 + c, 2), int64
        Which slice of the counts, and of the entries of each column, is about this group.
    """

    folder: Path
    groups: Rows
    slices: Rows

    @classmethod
    def of_group(cls, folder: Path, bounds: Rows, number: int) -> Represented:
        """Return what is about a group.

        Parameters
        ----------
        folder : Path
        bounds : ndarray of shape (g, 1 + c, g + 1), int64
            What `write_list` returned for each group.
        number : int
            Number of the group.
        """
        slices = bounds[:, :, number : number + 2]
        groups = np.flatnonzero(slices[:, 0, 1] > slices[:, 0, 0])
        return cls(folder, groups, slices[groups])

    def count(self, rows: Rows) -> Rows:
        """Return how many removed rows each of some ascending rows (n,) of the group represents: (n,)."""
        total = np.zeros(len(rows), np.int64)
        for place in range(len(self.groups)):
            table = self._open(COUNTS, place)
            at, known = _find(rows, table["representative"])
            total[at] += table["removed"][known]  # a representative occurs once in each list
        return total

    def measure(self, rows: Rows, column: int) -> Rows:
        """Return how many bytes the entries of each of some ascending rows (n,) take, with their texts: (n,)."""
        total = np.zeros(len(rows), np.int64)
        for place in range(len(self.groups)):
            table = self._open(ENTRIES, place, column)
            at, known = _find(rows, table["representative"])
            np.add.at(total, at, (table["stop"] - table["start"])[known] + ENTRY.itemsize)
        return total

    def collect(self, rows: Rows, column: int) -> pa.ListArray:
        """Return the values of a column that each of some ascending rows (n,) of the group stands for: n lists."""
        parts = [self._read(place, column, rows) for place in range(len(self.groups) if len(rows) else 0)]
        if not parts:
            return pa.array([[]] * len(rows), COLLECTED)
        found = Values.join(parts).keep_distinct()
        offsets = np.searchsorted(found.removed.representative, np.append(rows, np.iinfo(np.int64).max))
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), found.text.cast(pa.string()))

    def _read(self, place: int, column: int, rows: Rows) -> Values:
        """Return the values that one list has for some ascending rows."""
        table = self._open(ENTRIES, place, column)
        low, high = np.searchsorted(table["representative"], [rows[0], rows[-1] + 1])
        table = table[low:high]
        start, stop = (int(table["start"][0]), int(table["stop"][-1])) if len(table) else (0, 0)
        path = list_path(self.folder, TEXTS, int(self.groups[place]), column)
        data = np.ascontiguousarray(open_array(Unsealed(path, WRITTEN))[start:stop])
        offsets = np.append(table["start"], stop) - start  # the texts follow each other
        text = pa.LargeStringArray.from_buffers(len(table), pa.py_buffer(offsets), pa.py_buffer(data))
        _, known = _find(rows, table["representative"])  # in `semdedup-chain` a representative may be removed itself
        return Values(RemovedRows(*(table[name][known] for name in RemovedRows._fields)), text.take(pa.array(known)))

    def _open(self, what: str, place: int, column: int = 0) -> NDArray[Any]:
        first, last = self.slices[place, 0 if what == COUNTS else 1 + column].tolist()
        path = list_path(self.folder, what, int(self.groups[place]), column)
        return np.asarray(open_array(Unsealed(path, WRITTEN))[first:last])


def _find(rows: Rows, wanted: Rows) -> tuple[Rows, Rows]:
    """Return the places in ascending rows (n,) of those wanted (m,) that are there, and their places in `wanted`."""
    at = np.searchsorted(rows, wanted).clip(max=max(len(rows) - 1, 0))
    known = np.flatnonzero(rows[at] == wanted) if len(rows) else np.zeros(0, np.int64)
    return at[known], known
