"""Curation before a decision: which rows take no part in it, which are always kept, and what `prefer` goes by.

A task is a group of shards: it reads the metadata columns that are asked for, a shard at a time, and writes marks in
the order of the group's sorted vectors, so that a prune task reads them as slices too. They go when the command ends.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.core.ordered_integers import to_ordered_integers
from fairdedup.core.similarity import EPS_UNIT, Vectors, most_similar
from fairdedup.datasets.ids import check_ids, read_ids
from fairdedup.errors import UserError, visible
from fairdedup.storage.condition import Condition, condition, holds, parse
from fairdedup.storage.id_lists import find_ids, unknown_ids, write_ids
from fairdedup.storage.layout import Group, RunDirectory, ShardRecord, groups
from fairdedup.storage.marks import EXCLUDED, MARK, Marks
from fairdedup.storage.run_files import clear, read_array, read_schema, write_array
from fairdedup.storage.schemas import conform, merged_schema

DROP, WHERE, NEAR = 0, 1, 2  # reasons; the last that applies to a row is told, except that drop is stronger than where
AT_ONCE = 1 << 14  # rows, and evaluation samples, that are compared at a time
STALE = 24 * 3600  # seconds after which marks are nobody's


@dataclass(frozen=True)
class Evaluation:
    """Samples that no row may be too near to.

    Attributes
    ----------
    root : Path
        The run directory that has them embedded.
    name : str
        What they are called.
    eps : int
        Ten-thousandths: too near is a cosine above 1 - eps, whatever the clusters.
    """

    root: Path
    name: str
    eps: int


@dataclass(frozen=True)
class Wishes:
    """What is asked of the rows before they are decided; None is nothing.

    Attributes
    ----------
    where : str or None
        A condition on metadata columns: rows for which it is not true are excluded.
    drop, always_keep : Path or None
        Files of ids.
    prefer : str or None
        A column of numbers.
    may_leave_none : bool
        Whether no row at all may be left: where new rows are decided beside earlier ones.
    evaluation : Evaluation or None
    """

    where: str | None = None
    drop: Path | None = None
    always_keep: Path | None = None
    prefer: str | None = None
    may_leave_none: bool = False
    evaluation: Evaluation | None = None


@dataclass(frozen=True)
class _Found:
    """What one shard has of the rows and ids that are asked for; ids by their place in the file."""

    excluded: NDArray[np.int64]
    protected: NDArray[np.int64]
    dropped: NDArray[np.int64]
    kept: NDArray[np.int64]
    lost: NDArray[np.int64]
    near: NDArray[np.bool_]


def curate_group(
    root: Path, folder: Path, group: Group, where: Condition | None, prefer: str | None, schema: pa.Schema,
    evaluation: Evaluation | None,
) -> _Found:  # fmt: skip
    """Write the marks of consecutive shards, one after the other, and return what was found of them."""
    run, number = RunDirectory(root), group.number
    shards = [
        _curate_shard(run, folder, record, first, where, prefer, schema, evaluation) for record, first in group.shards()
    ]
    marks = np.concatenate([own for own, _, _ in shards])
    write_array(Marks(folder).excluded_path(number), np.concatenate([excluded for _, excluded, _ in shards]))
    marks = marks[np.searchsorted(group.rows(), read_array(run.sorted("rows", number)))]
    write_array(Marks(folder).path(number), marks)
    bounds = np.asarray(read_array(run.sorted("offsets", number)))
    named = [np.concatenate([found[k] for _, _, found in shards]) for k in range(3)]
    near = np.concatenate([excluded["near"] >= 0 for _, excluded, _ in shards])
    per_cluster = _per_cluster(marks["excluded"], bounds), _per_cluster(marks["protected"], bounds)
    return _Found(*per_cluster, named[0], named[1], named[2], near)


def _curate_shard(
    run: RunDirectory, folder: Path, record: ShardRecord, first: int, where: Condition | None, prefer: str | None,
    schema: pa.Schema, evaluation: Evaluation | None,
) -> tuple[NDArray[Any], NDArray[Any], tuple[NDArray[np.int64], ...]]:  # fmt: skip
    """Return the marks of a shard by row, its excluded rows, and which ids were dropped, kept and lost."""
    own = read_schema(run.metadata(record.number)).names
    metadata = conform(run.read_metadata(record, [n for n in schema.names if n in own]), schema)
    ids = metadata.column("id")
    unusable = pa.array([r[1] for r in record.rejected], pa.string())
    rows = first + record.positions()
    reason = np.full(len(rows), -1)
    if where is not None:
        reason[~holds(where, metadata.select(list(where.columns) or ["id"]))] = WHERE
    dropped, named = find_ids(folder / "drop.parquet", ids)
    reason[dropped] = DROP
    nearest = np.full(len(rows), -1)
    if evaluation is not None and len(rows):
        nearest = too_near(read_array(run.vectors(record.number)), evaluation)
        reason[nearest >= 0] = NEAR
    kept, wanted = find_ids(folder / "always_keep.parquet", ids)
    marks = np.zeros(len(rows), MARK)
    marks["excluded"] = reason >= 0
    marks["protected"] = kept & (reason < 0)
    if prefer is not None:
        marks["value"] = _values(metadata.column(prefer))
    gone = np.flatnonzero(reason >= 0)
    excluded = np.empty(len(gone), EXCLUDED)
    excluded["row"], excluded["reason"], excluded["near"] = rows[gone], reason[gone], nearest[gone]
    _, unusable_dropped = find_ids(folder / "drop.parquet", unusable)
    _, unusable_wanted = find_ids(folder / "always_keep.parquet", unusable)
    lost = find_ids(folder / "always_keep.parquet", ids.filter(pa.array(kept & (reason >= 0))))[1]
    found = (
        np.concatenate((named, unusable_dropped)), np.concatenate((wanted, unusable_wanted)),
        np.concatenate((lost, unusable_wanted)),
    )  # fmt: skip
    return marks, excluded, found


def too_near(unit: NDArray[np.float16], evaluation: Evaluation) -> NDArray[np.int64]:
    """Return the evaluation sample that each vector is too near to, the most similar one (ties: the first); else -1.

    Parameters
    ----------
    unit : ndarray of shape (n, d), float16
    evaluation : Evaluation
    """
    theirs = RunDirectory(evaluation.root)
    found = np.full(len(unit), -1)
    for start in range(0, len(unit), AT_ONCE):
        own = Vectors.of(unit[start : start + AT_ONCE])
        best, place = np.full(len(own), -2.0), np.full(len(own), -1)
        before = 0
        for record in theirs.records():
            others = read_array(theirs.vectors(record.number))
            for first in range(0, record.valid, AT_ONCE):
                nearest, similarity = most_similar(own, Vectors.of(others[first : first + AT_ONCE]))
                more = similarity > best
                best[more], place[more] = similarity[more], before + first + nearest[more]
            before += record.valid
        near = best > 1.0 - evaluation.eps / EPS_UNIT
        found[start : start + AT_ONCE][near] = place[near]
    return found


def _values(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return a column of numbers as integers in their order, nulls first."""
    if not pa.types.is_integer(column.type):
        column = column.cast(pa.float64())
    missing = column.is_null().to_numpy().astype(bool)
    return to_ordered_integers(column.fill_null(0).to_numpy(), missing)


def _per_cluster(marked: NDArray[np.bool_], bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.diff(np.concatenate(([0], np.cumsum(marked)))[bounds])


def check_wishes(wishes: Wishes) -> None:
    """Refuse early what would fail late: a text that is no condition, a file that is not there.

    Raises
    ------
    UserError
        In one line.
    """
    if wishes.where is not None:
        parse(wishes.where)
    for option, file in (("--drop", wishes.drop), ("--always-keep", wishes.always_keep)):
        if file is not None:
            check_ids(file, option)


def is_number(kind: pa.DataType) -> bool:
    """Tell whether a column of this type can be preferred by."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


@contextmanager
def curated(run: RunDirectory, wishes: Wishes, submit: Callable[..., list[Any]]) -> Iterator[Marks]:
    """Mark the rows of a clustered run, for as long as the block takes.

    Raises
    ------
    UserError
        If a column or an id is not there, or nothing is left.
    """
    if wishes == Wishes(may_leave_none=wishes.may_leave_none):
        yield Marks()
        return
    _clear_stale(run)
    folder = run.curated / secrets.token_hex(4)
    try:
        yield _curate(run, wishes, folder, submit)
    finally:
        clear(folder)
        with suppress(OSError):
            run.curated.rmdir()  # others may be at it


def _clear_stale(run: RunDirectory) -> None:
    """Remove what killed commands left; younger ones may still be at work."""
    for left in run.curated.glob("*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE:
                clear(left)


def _curate(run: RunDirectory, wishes: Wishes, folder: Path, submit: Callable[..., list[Any]]) -> Marks:
    records = run.records()
    schema = merged_schema([read_schema(run.metadata(r.number)) for r in records])
    where = None if wishes.where is None else condition(wishes.where, schema)
    if wishes.prefer is not None:
        _check_number(wishes.prefer, schema)
    read = {"id", wishes.prefer, *(where.columns if where else ())}
    schema = pa.schema([f for f in schema if f.name in read])
    named = {}
    for option, file in (("drop", wishes.drop), ("always_keep", wishes.always_keep)):
        if file is not None:
            named[option] = read_ids(file, f"--{option.replace('_', '-')}")
            write_ids(folder / f"{option}.parquet", named[option])
    parts = groups(records)
    found: list[_Found] = submit(
        "curate", curate_group,
        [(run.root, folder, group, where, wishes.prefer, schema, wishes.evaluation) for group in parts],
        [group.input for group in parts], [group.name for group in parts],
    )  # fmt: skip
    excluded, protected = sum(f.excluded for f in found), sum(f.protected for f in found)
    valid = sum(r.valid for r in records)
    if np.sum(excluded) == valid and not wishes.may_leave_none:
        near = ", --exclude-near" if wishes.evaluation else ""
        raise UserError(f"--where{near} and --drop leave none of {valid} rows: ask for less")
    warnings = []
    if "drop" in named:
        warnings += unknown_ids(named["drop"], [f.dropped for f in found], f"--drop {wishes.drop}")
    if "always_keep" in named:
        what = f"--always-keep {wishes.always_keep}"
        missing = unknown_ids(named["always_keep"], [f.kept for f in found], what)
        if missing:
            raise UserError(f"{missing[0]}; take out what is not in the run, or name another file")
        lost = np.unique(np.concatenate([f.lost for f in found]))
        if len(lost):
            first = named["always_keep"][int(lost[0])].as_py()
            warnings.append(f"{what}: {len(lost)} ids are of rejected rows and cannot be kept; the first is {first!r}")
    reasons = (
        f"drop: {visible(wishes.drop.name) if wishes.drop else ''}", f"where: {visible(wishes.where or '')}",
        "too near evaluation sample",
    )  # fmt: skip
    if wishes.evaluation is not None:
        theirs = RunDirectory(wishes.evaluation.root)
        ids = [theirs.read_metadata(r, ["id"]).column("id") for r in theirs.records()]
        write_ids(
            Marks(folder).evaluation,
            pa.concat_arrays([pa.array([], pa.string()), *(chunk for c in ids for chunk in c.chunks)]),
        )
        number = int(sum(np.count_nonzero(f.near) for f in found))
        unread = sum(len(r.rejected) for r in theirs.records())
        blind = f"; {unread:,} of its samples cannot be used and guard nothing" if unread else ""
        warnings.append(f"--exclude-near {wishes.evaluation.name}: {number:,} rows are too near and left out{blind}")
    return Marks(folder, excluded, protected, reasons, warnings)


def _check_number(name: str, schema: pa.Schema) -> None:
    if name not in schema.names:
        raise UserError(f"--prefer {name!r}: the metadata has no such column, but {', '.join(schema.names)}")
    if not is_number(schema.field(name).type):
        numbers = ", ".join(f.name for f in schema if is_number(f.type)) or "none"
        raise UserError(
            f"--prefer {name!r} is {schema.field(name).type}, no number: the columns of numbers are {numbers}"
        )
