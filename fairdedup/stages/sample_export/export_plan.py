"""What all exports of samples share: the plan, the cut into shards, and the samples of each, read from the input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from fairdedup.datasets import ImageShard
from fairdedup.datasets.originals import FileRange, Member
from fairdedup.errors import FairdedupError, UserError, format_count
from fairdedup.storage.checked_json import read_json, write_json
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.result_files import result_part
from fairdedup.storage.sealed_files import load_rows, load_table
from fairdedup.storage.shard_groups import Group
from fairdedup.tasks import Task

OWN = ".fairdedup"  # folder of the records, in the output folder


@dataclass(frozen=True)
class Plan:
    """What all tasks of an export share.

    Attributes
    ----------
    root : Path
        Run directory.
    folder : Path
        Where shards are written.
    kept : bool
        Whether to export the kept or the removed samples.
    made_of : str
        Hash of what the shards depend on.
    clashing : frozenset of str
        See `read_originals`.
    seals : mapping of str to str
        Seal of each part of the decisions and, for `values`, of kept/, by path below the run directory.
    values : tuple of str
        Columns of kept/ that are written with each sample: into its `.json`, or as columns of a table.
    """

    root: Path
    folder: Path
    kept: bool
    made_of: str
    clashing: frozenset[str]
    seals: Mapping[str, str] = field(default_factory=dict)
    values: tuple[str, ...] = ()

    def record(self, name: str) -> Path:
        """Return the path of a shard's record."""
        return self.folder / OWN / f"{name}.json"


@dataclass(frozen=True)
class NewShard:
    """A shard to write.

    Attributes
    ----------
    name : str
    first, last : int
        Rows of its first and last sample.
    samples : int
    parts : tuple of int
        Numbers of the parts of decisions/ that have its samples.
    sources : tuple of (int, ImageShard)
        Input shards that have its samples, each with its first row.
    """

    name: str
    first: int
    last: int
    samples: int
    parts: tuple[int, ...]
    sources: tuple[tuple[int, ImageShard], ...]


@dataclass(frozen=True)
class Written:
    """A shard that was written.

    Attributes
    ----------
    name : str
        Name of the file.
    samples, members : int
    seal : str
    """

    name: str
    samples: int
    members: int
    seal: str


def rows_of(plan: Plan, part: int, columns: Sequence[str] = ()) -> pa.Table:
    """Return `row` and these columns of the kept, or of the removed, rows of a part of decisions/."""
    source = result_part(RunDirectory(plan.root), "decisions", part, plan.seals)
    table = load_table(source, ["row", *columns, "kept"])
    flags = table.column("kept").to_numpy()
    return table.drop_columns(["kept"]).filter(pa.array(flags if plan.kept else ~flags))


def plan_shards(
    plan: Plan, parts: Sequence[Group], shards: Sequence[ImageShard], sizes: Iterator[int]
) -> list[NewShard]:
    """Cut the samples, in the order of the input, into shards.

    Parameters
    ----------
    plan : Plan
    parts : sequence of Group
        Groups of all embedding shards.
    shards : sequence of ImageShard
        Input shards.
    sizes : iterator of int
        Number of samples of each new shard; the last shard may have fewer.
    """
    ends: list[tuple[int, int, int, list[int]]] = []  # first row, last row, samples, parts
    wanted = 0
    for part in parts:
        rows = rows_of(plan, part.number).column("row").to_numpy()
        at = 0
        while at < len(rows):
            if not wanted:
                wanted = next(sizes)
                ends.append((int(rows[at]), -1, 0, []))
            taken = min(wanted, len(rows) - at)
            first, _, samples, own = ends[-1]
            ends[-1] = first, int(rows[at + taken - 1]), samples + taken, [*own, part.number]
            at, wanted = at + taken, wanted - taken
    starts = np.array([first for part in parts for _, first in part.shards()])
    digits = max(5, len(str(len(ends) - 1)))
    new = []
    for number, (first, last, samples, own) in enumerate(ends):
        low, high = np.searchsorted(starts, [first, last], side="right")
        sources = tuple((int(starts[k]), shards[k]) for k in range(low - 1, high))
        new.append(NewShard(f"shard-{number:0{digits}d}.tar", first, last, samples, tuple(own), sources))
    return new


@dataclass(frozen=True)
class Samples:
    """Samples to export of one input shard.

    Attributes
    ----------
    source : ImageShard
    positions : list of int
        Their positions in the shard, ascending.
    ids : list of str
    values : Table or None
        The columns `Plan.values` of these samples; None where there are none.
    """

    source: ImageShard
    positions: list[int]
    ids: list[str]
    values: pa.Table | None


def read_samples(plan: Plan, new: NewShard) -> Iterator[Samples]:
    """Yield the samples of a new shard, those of one input shard at a time; their files are not read yet.

    Raises
    ------
    FairdedupError
        If the run has changed.
    """
    tables, values = [], []
    for part in new.parts:
        table = rows_of(plan, part, ["id"])
        low, high = np.searchsorted(table.column("row").to_numpy(), [new.first, new.last + 1])
        tables.append(table.slice(low, high - low))
        if plan.values:  # kept/ has the same rows, in the same order
            kept = result_part(RunDirectory(plan.root), "kept", part, plan.seals)
            values.append(load_rows(kept, plan.values, int(low), int(high)))
    table = pa.concat_tables(tables)
    rows = table.column("row").to_numpy()
    if len(rows) != new.samples:
        raise FairdedupError(
            f"{new.name}: {format_count(len(rows), 'sample')}, not {new.samples}; RUN was changed: try again"
        )
    added = pa.concat_tables(values) if values else None
    edges = [*(first for first, _ in new.sources), new.last + 1]
    for (first, source), (start, stop) in zip(
        new.sources, np.searchsorted(rows, np.column_stack((edges[:-1], edges[1:]))), strict=True
    ):
        if stop > start:
            ids = table.column("id").slice(start, stop - start).to_pylist()
            own = None if added is None else added.slice(start, stop - start)
            yield Samples(source, (rows[start:stop] - first).tolist(), ids, own)


class Writer(Protocol):
    """Where files of samples are written to."""

    def add(self, name: str, data: bytes) -> None:
        """Write a file."""
        ...

    def copy(self, name: str, path: str, offset: int, size: int) -> None:
        """Write a file whose bytes are a range of a local file."""
        ...


def copy_files(samples: Samples, found: Iterator[Member], writer: Writer) -> None:
    """Copy the files of samples, each of which must have the id that the run recorded.

    Parameters
    ----------
    samples : Samples
    found : iterator of Member
        Their files.
    writer : Writer

    Raises
    ------
    UserError
        If the input has changed since the run.
    """
    source, expected = samples.source, dict(zip(samples.positions, samples.ids, strict=True))
    left = set(samples.positions)
    for member in found:
        expect_id(source, member.position, member.id, expected[member.position])
        left.discard(member.position)
        if isinstance(member.data, FileRange):
            writer.copy(member.name, member.data.path, member.data.offset, member.data.size)
        else:
            writer.add(member.name, member.data)
    if left:
        raise lost(source, expected[min(left)])


def expect_id(source: ImageShard, position: int, found: str, expected: str) -> None:
    """Refuse a sample that is not the one that the run recorded at its position."""
    if found != expected:
        raise UserError(
            f"{source.name}: sample {position} is {found!r}, and was {expected!r} when the run was made: bring the "
            "input back as it was"
        )


def lost(source: ImageShard, name: str) -> UserError:
    """Return the error of a sample that the input no longer has."""
    return UserError(f"{source.name} no longer holds {name!r}: bring the input back as it was")


def find_written(plan: Plan, name: str) -> Written | None:
    """Return the record of a shard of the same plan; None where there is none."""
    try:
        known = read_json(plan.record(name))
        return Written(**known) if known.pop("made of") == plan.made_of else None
    except (FairdedupError, TypeError, AttributeError, KeyError):  # missing or damaged: the shard is written again
        return None


def record_written(plan: Plan, written: Written) -> Written:
    """Record a shard that was written, and return it."""
    write_json(plan.record(written.name), {"made of": plan.made_of, **asdict(written)})
    return written


def make_task(plan: Plan, new: NewShard) -> Task:
    """Return the task of a new shard."""
    return Task((plan, new), new.samples, new.name, isolated=True)
