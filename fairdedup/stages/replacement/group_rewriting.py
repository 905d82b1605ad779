"""The tasks of a replacement: each reads one group of shards, and writes its new parts to a folder of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.core.similarity import Vectors, cosine_of_pairs
from fairdedup.storage.id_lists import find_ids
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.result_files import result_part
from fairdedup.storage.run_files import write_table
from fairdedup.storage.sealed_files import Unsealed, load_array, load_table, open_array
from fairdedup.storage.seals import seal
from fairdedup.storage.shard_files import GroupVectors
from fairdedup.storage.shard_groups import Group

WRITTEN = "the same command has written it"
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class DecidedGroup:
    """A group of shards whose decisions are on disk.

    Attributes
    ----------
    run : RunDirectory
    group : Group
    seals : mapping of str to str
        Seals of the group's parts, by path below the run directory.
    """

    run: RunDirectory
    group: Group
    seals: Mapping[str, str]

    @property
    def number(self) -> int:
        """Number of the group."""
        return self.group.number

    @property
    def name(self) -> str:
        """Name in error messages."""
        return self.group.name

    @property
    def input(self) -> int:
        """Number of input rows."""
        return self.group.input

    def read_decisions(self) -> pa.Table:
        """Return the decisions of the group's rows."""
        return load_table(result_part(self.run, "decisions", self.number, self.seals))

    def read_rejected(self) -> pa.Table:
        """Return the rejected rows of the group."""
        return load_table(result_part(self.run, "rejected", self.number, self.seals))

    def slice_of(self, rows: Rows) -> slice:
        """Return where the group's rows are among some ascending rows."""
        return slice(*np.searchsorted(rows, [self.group.first, self.group.first + self.group.input]))

    def read_vectors(self, rows: Rows) -> NDArray[np.float16]:
        """Return the vectors of some rows of the group, in the order of the rows."""
        return GroupVectors(self.run, self.group).read_rows(rows)


@dataclass(frozen=True)
class GatheredVectors:
    """Vectors from all groups, in a file that tasks compare their rows with.

    Attributes
    ----------
    rows : ndarray of shape (m,), int64, ascending
    path : Path
        Array float16 (m, d).
    """

    rows: Rows
    path: Path

    def load(self) -> NDArray[np.float16]:
        """Return all of them."""
        vectors: NDArray[np.float16] = load_array(Unsealed(self.path, WRITTEN))
        return vectors

    def similarity(self, unit: NDArray[np.float16], rows: Rows) -> NDArray[np.float64]:
        """Return the cosine of each vector (n, d) with the gathered vector of the row at its place (n,)."""
        if not len(rows):
            return np.zeros(0)
        other = np.asarray(open_array(Unsealed(self.path, WRITTEN))[np.searchsorted(self.rows, rows)])
        both = Vectors.of(np.concatenate((unit, other)))
        places = np.arange(len(rows))
        return cosine_of_pairs(both.x, both.squares, places, len(rows) + places)


class GoneRows(NamedTuple):
    """Rows of a group whose ids are in the list of vanished samples.

    Attributes
    ----------
    rows : ndarray of shape (g,), int64, ascending
    kept : ndarray of shape (g,), bool
    representative : ndarray of shape (g,), int64
    found : ndarray of int64
        Places in the list of the ids that are in the group, those of rejected rows among them.
    """

    rows: Rows
    kept: NDArray[np.bool_]
    representative: Rows
    found: Rows


class Orphans(NamedTuple):
    """Rows of a group that stay and whose representative has vanished.

    Attributes
    ----------
    rows : ndarray of shape (n,), int64, ascending
    back : ndarray of shape (n,), int64
        Row that each goes back to, as `promotion.trace_back` returns it.
    similarity : ndarray of shape (n,), float64
        Cosine with that row.
    kept : ndarray of shape (n,), bool
    """

    rows: Rows
    back: Rows
    similarity: NDArray[np.float64]
    kept: NDArray[np.bool_]


class RewrittenGroup(NamedTuple):
    """A group whose new decisions and rejected rows are written.

    Attributes
    ----------
    changes : dict of str to int
        How each of the manifest's counts changes.
    least : float
        Least similarity of an orphan to its new representative; 1 without orphans.
    seals : dict of str to str
        Seal of each new part, by its path below the run directory.
    """

    changes: dict[str, int]
    least: float
    seals: dict[str, str]


def find_gone(group: DecidedGroup, ids: Path) -> GoneRows:
    """Return the rows of a group whose ids are in the list at a path."""
    table = group.read_decisions().select(["row", "id", "kept", "representative"])
    gone, named = find_ids(ids, table.column("id"))
    rejected = group.read_rejected()
    _, before = find_ids(ids, rejected.column("id"))
    rows, kept, representative = (get_column(table, name)[gone] for name in ("row", "kept", "representative"))
    return GoneRows(rows, kept, representative, np.concatenate((named, before)))


def find_orphans(group: DecidedGroup, gone: Rows, back_of_gone: Rows, gathered: GatheredVectors) -> Orphans:
    """Return the rows of a group whose representative has vanished."""
    table = group.read_decisions()
    rows, representative = get_column(table, "row"), get_column(table, "representative")
    own = np.isin(representative, gone) & ~np.isin(rows, gone)
    back = back_of_gone[np.searchsorted(gone, representative[own])]
    similarity = gathered.similarity(group.read_vectors(rows[own]), back)
    return Orphans(rows[own], back, similarity, get_column(table, "kept")[own])


def gather_vectors(group: DecidedGroup, rows: Rows) -> NDArray[np.float16]:
    """Return the vectors of those of some ascending rows that are in a group, in order."""
    return group.read_vectors(rows[group.slice_of(rows)])


class GroupChange(NamedTuple):
    """How a replacement changes a group.

    Attributes
    ----------
    gone : ndarray of shape (g,), int64, ascending
        Vanished rows of the group.
    orphans : ndarray of shape (n,), int64, ascending
        Orphans of the group.
    representative : ndarray of shape (n,), int64
        Their new representatives.
    """

    gone: Rows
    orphans: Rows
    representative: Rows


def rewrite_group(
    group: DecidedGroup, aside: Path, change: GroupChange, reason: str, gathered: GatheredVectors
) -> RewrittenGroup:
    """Write the new decisions and rejected rows of a group.

    Parameters
    ----------
    group : DecidedGroup
    aside : Path
        Folder of the new parts.
    change : GroupChange
    reason : str
        Why the vanished rows are rejected.
    gathered : GatheredVectors
        Vectors of the representatives.
    """
    gone, orphans, representative = change
    number, parts = group.number, RunDirectory(aside)
    before = group.read_decisions()
    left = np.isin(get_column(before, "row"), gone)
    table = before.filter(pa.array(~left))
    rows = get_column(table, "row")
    similarity = gathered.similarity(group.read_vectors(orphans), representative)
    table = _set_representatives(table, np.searchsorted(rows, orphans), orphans, representative, similarity)
    write_table(parts.part("decisions", number), table)
    rejected = group.read_rejected()
    out = _reject(before.filter(pa.array(left)), group, reason)
    write_table(parts.part("rejected", number), pa.concat_tables([rejected, out.cast(rejected.schema)]).sort_by("row"))
    written = [parts.part(folder, number) for folder in ("decisions", "rejected")]
    seals = {str(path.relative_to(aside)): seal(path) for path in written}
    old, new = _count(before), _count(table)
    changes = {name: new[name] - old[name] for name in new} | {"rejected": len(out)}
    return RewrittenGroup(changes, float(similarity[representative != orphans].min(initial=1.0)), seals)


def _set_representatives(
    table: pa.Table, places: Rows, orphans: Rows, representative: Rows, similarity: NDArray[np.float64]
) -> pa.Table:
    """Return decisions in which the orphans, at these places, have new representatives."""
    columns = {name: get_column(table, name).copy() for name in ("kept", "representative", "similarity")}
    columns["kept"][places] |= representative == orphans
    columns["representative"][places] = representative
    columns["similarity"][places] = np.where(representative == orphans, 1.0, similarity)
    for name, values in columns.items():
        index = table.column_names.index(name)
        table = table.set_column(index, name, pa.array(values, from_pandas=name == "similarity"))
    return table


def _reject(decisions: pa.Table, group: DecidedGroup, reason: str) -> pa.Table:
    """Return the lines of rejected/ for some decisions."""
    out = decisions.select(["row", "id"])
    out = out.append_column("source", pa.array(group.group.sources(get_column(out, "row")), pa.string()))
    return out.append_column("reason", pa.array([reason] * len(out), pa.string()))


def _count(table: pa.Table) -> dict[str, int]:
    kept = get_column(table, "kept")
    return {
        "valid": len(kept),
        "kept": int(kept.sum()),
        "removed": int((~kept).sum()),
        "readmitted": int(get_column(table, "readmitted").sum()),
    }


def get_column(table: pa.Table, name: str) -> NDArray[Any]:
    """Return a column of a table as an array."""
    return table.column(name).to_numpy()
