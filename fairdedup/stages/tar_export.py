"""Kept (or removed) samples copied out of the input into new WebDataset shards, byte for byte (`fairdedup export`).

Where the run has collected values, the `.json` of a kept sample is the one file that changes: they are added to it.

The stage named `export`, which writes kept/, is in `results`. A task writes one shard and reads only the samples that
it needs. The record of a shard is written after it; with it, the same command skips the shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.datasets import ImageShard
from fairdedup.datasets.json_values import add_values
from fairdedup.datasets.originals import FileRange, Member, read_originals
from fairdedup.errors import FairdedupError, UserError, format_count
from fairdedup.storage.checked_json import read_json, write_json
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.result_files import result_part
from fairdedup.storage.run_files import atomic_write
from fairdedup.storage.sealed_files import load_rows, load_table
from fairdedup.storage.seals import is_sealed
from fairdedup.storage.shard_groups import Group
from fairdedup.storage.tar_writer import BLOCK, ShardWriter, header
from fairdedup.tasks import Submit, Task

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
        Columns of kept/ whose values are added to the `.json` of each sample.
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


def write_shard(plan: Plan, new: NewShard) -> Written:
    """Write one shard, unless an undamaged one exists.

    Raises
    ------
    UserError
        If the input has changed since the run, or a sample cannot be copied.
    """
    path = plan.folder / new.name
    known = _known(plan, new.name)
    if known is not None and is_sealed(path, known.seal):
        return known
    with atomic_write(path) as aside, ShardWriter(aside) as shard:
        for samples in _read_samples(plan, new):
            _copy(samples, plan.clashing, shard)
        seal = shard.seal()
    written = Written(new.name, new.samples, shard.members, seal)
    write_json(plan.record(new.name), {"made of": plan.made_of, **asdict(written)})
    return written


def _known(plan: Plan, name: str) -> Written | None:
    """Return the record of a shard of the same plan."""
    try:
        known = read_json(plan.record(name))
        return Written(**known) if known.pop("made of") == plan.made_of else None
    except (FairdedupError, TypeError, AttributeError, KeyError):  # missing or damaged: the shard is written again
        return None


@dataclass(frozen=True)
class _Samples:
    """Samples to export of one input shard, and what is added to their `.json`: None where it stays as it is."""

    source: ImageShard
    positions: list[int]
    ids: list[str]
    values: list[dict[str, Any]] | None

    def read(self, clashing: frozenset[str]) -> Iterator[Member]:
        """Yield the files of the samples."""
        found = read_originals(self.source, self.positions, clashing)
        if self.values is None:
            return found
        return add_values(found, dict(zip(self.positions, self.values, strict=True)))


def _read_samples(plan: Plan, new: NewShard) -> Iterator[_Samples]:
    """Yield the samples to export of each input shard."""
    tables = []
    for part in new.parts:
        table = rows_of(plan, part, ["id"])
        low, high = np.searchsorted(table.column("row").to_numpy(), [new.first, new.last + 1])
        table = table.slice(low, high - low)
        if plan.values:  # kept/ has the same rows, in the same order
            kept = result_part(RunDirectory(plan.root), "kept", part, plan.seals)
            added = load_rows(kept, plan.values, int(low), int(high))
            table = table.append_column("values", added.to_struct_array())
        tables.append(table)
    table = pa.concat_tables(tables)
    rows = table.column("row").to_numpy()
    if len(rows) != new.samples:
        raise FairdedupError(
            f"{new.name}: {format_count(len(rows), 'sample')}, not {new.samples}; RUN was changed: try again"
        )
    edges = [*(first for first, _ in new.sources), new.last + 1]
    for (first, source), (start, stop) in zip(
        new.sources, np.searchsorted(rows, np.column_stack((edges[:-1], edges[1:]))), strict=True
    ):
        if stop > start:
            own = table.slice(start, stop - start)
            values = own.column("values").to_pylist() if plan.values else None
            yield _Samples(source, (rows[start:stop] - first).tolist(), own.column("id").to_pylist(), values)


def _copy(samples: _Samples, clashing: frozenset[str], shard: ShardWriter) -> None:
    """Copy samples, each of which must have the id that the run recorded."""
    source, expected = samples.source, dict(zip(samples.positions, samples.ids, strict=True))
    left = set(samples.positions)
    for member in samples.read(clashing):
        if member.id != expected[member.position]:
            raise UserError(
                f"{source.name}: sample {member.position} is {member.id!r}, and was {expected[member.position]!r} when "
                "the run was made: bring the input back as it was"
            )
        left.discard(member.position)
        _write(member, shard)
    if left:
        raise UserError(f"{source.name} no longer holds {expected[min(left)]!r}: bring the input back as it was")


def _write(member: Member, shard: ShardWriter) -> None:
    if isinstance(member.data, FileRange):
        shard.copy(member.name, member.data.path, member.data.offset, member.data.size)
    else:
        shard.add(member.name, member.data)


def sizes_of(plan: Plan, new: NewShard) -> NDArray[np.int64]:
    """Return the number of bytes that each sample of a shard takes in a tar: (n,)."""
    sizes: list[int] = []
    for samples in _read_samples(plan, new):
        own = dict.fromkeys(samples.positions, 0)
        for member in samples.read(plan.clashing):
            size = member.data.size if isinstance(member.data, FileRange) else len(member.data)
            own[member.position] += len(header(member.name, size)) + size + -size % BLOCK
        sizes += own.values()
    return np.array(sizes, np.int64)


def measure_samples(plan: Plan, shards: list[NewShard], submit: Submit) -> NDArray[np.int64]:
    """Return the number of bytes of each sample in a tar, in order: (n,)."""
    own = submit("measure", sizes_of, [_task(plan, new) for new in shards])
    return np.concatenate([*own, np.zeros(0, np.int64)])


def write_shards(plan: Plan, shards: list[NewShard], submit: Submit) -> list[Written]:
    """Write every shard that does not exist yet, and return all of them in order."""
    return submit("reshard", write_shard, [_task(plan, new) for new in shards])


def _task(plan: Plan, new: NewShard) -> Task:
    return Task((plan, new), new.samples, new.name, isolated=True)
