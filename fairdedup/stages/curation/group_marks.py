"""The tasks of curation: each marks the rows of one group of shards.

A task reads the metadata columns that the options need, a shard at a time. It writes the marks in the order of the
group's sorted vectors, so that a prune task reads the marks of a cluster as a slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fairdedup.core.ordered_integers import to_ordered_integers
from fairdedup.stages.curation.evaluation_samples import EvaluationVectors, find_too_near
from fairdedup.storage.condition import Condition, evaluate_condition
from fairdedup.storage.id_lists import find_ids
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.marks import EXCLUDED, MARK, Marks
from fairdedup.storage.records import ShardRecord
from fairdedup.storage.run_files import write_array
from fairdedup.storage.schemas import conform
from fairdedup.storage.shard_files import open_shard_vectors, open_sorted, read_known_columns
from fairdedup.storage.shard_groups import Group
from fairdedup.storage.within_values import read_shard_codes

DROP, WHERE, NEAR = 0, 1, 2  # a row has one reason: NEAR before DROP before WHERE


@dataclass(frozen=True)
class Criteria:
    """What the tasks mark rows by.

    Attributes
    ----------
    folder : Path
        Folder of the marks and of the lists of ids.
    where : Condition or None
        Rows for which it is not true are excluded.
    prefer : tuple of str
        Columns of numbers whose product is preferred; empty without the option.
    within : str or None
        Column within whose values rows are compared.
    schema : Schema
        Types of the metadata columns that are read.
    evaluation : EvaluationVectors or None
        Samples that no row may be too near to.
    """

    folder: Path
    where: Condition | None
    prefer: tuple[str, ...]
    within: str | None
    schema: pa.Schema
    evaluation: EvaluationVectors | None

    @property
    def drop(self) -> Path:
        """Path of the ids of ``--drop``; no file without the option."""
        return self.folder / "drop.parquet"

    @property
    def always_keep(self) -> Path:
        """Path of the ids of ``--always-keep``; no file without the option."""
        return self.folder / "always_keep.parquet"


class FoundIds(NamedTuple):
    """Ids of the lists that some shards have, each by its place in its list.

    Attributes
    ----------
    dropped, kept : ndarray of int64
        Ids of ``--drop`` and of ``--always-keep``, those of rejected samples among them.
    lost : ndarray of int64
        Ids of ``--always-keep`` whose rows are rejected or excluded.
    """

    dropped: NDArray[np.int64]
    kept: NDArray[np.int64]
    lost: NDArray[np.int64]


class GroupMarks(NamedTuple):
    """Counts of what a task has marked.

    Attributes
    ----------
    excluded, protected : ndarray of shape (k,), int64
        Number of excluded and of protected rows in each cluster.
    ids : FoundIds
    near : int
        Number of rows that are excluded as too near to an evaluation sample.
    """

    excluded: NDArray[np.int64]
    protected: NDArray[np.int64]
    ids: FoundIds
    near: int


class _ShardMarks(NamedTuple):
    """Marks of a shard: of every row as `MARK`, of its excluded rows as `EXCLUDED`."""

    marks: NDArray[Any]
    excluded: NDArray[Any]
    ids: FoundIds


def mark_group(group: Group, root: Path, criteria: Criteria) -> GroupMarks:
    """Write the marks of consecutive shards and return their counts.

    Parameters
    ----------
    group : Group
    root : Path
        Run directory.
    criteria : Criteria
    """
    run, number = RunDirectory(root), group.number
    shards = [_mark_shard(run, record, first, criteria) for record, first in group.shards()]
    excluded = np.concatenate([shard.excluded for shard in shards])
    write_array(Marks(criteria.folder).excluded_path(number), excluded)
    marks = np.concatenate([shard.marks for shard in shards])
    sorted_rows, bounds = open_sorted(run, number, "rows", "offsets")
    marks = marks[np.searchsorted(group.rows(), sorted_rows)]
    write_array(Marks(criteria.folder).path(number), marks)
    return GroupMarks(
        excluded=_count_by_cluster(marks["excluded"], bounds),
        protected=_count_by_cluster(marks["protected"], bounds),
        ids=FoundIds(*(np.concatenate(places) for places in zip(*(s.ids for s in shards), strict=True))),
        near=int(np.count_nonzero(excluded["near"] >= 0)),
    )


def _mark_shard(run: RunDirectory, record: ShardRecord, first: int, criteria: Criteria) -> _ShardMarks:
    """Return the marks of a shard whose first row is `first`."""
    metadata = _read_columns(run, record, criteria.schema)
    ids, rows = metadata.column("id"), first + record.positions()
    reason = np.full(len(rows), -1)
    if criteria.where is not None:
        columns = list(criteria.where.columns) or ["id"]
        reason[~evaluate_condition(criteria.where, metadata.select(columns))] = WHERE
    is_dropped, dropped = find_ids(criteria.drop, ids)
    reason[is_dropped] = DROP
    nearest = np.full(len(rows), -1)
    if criteria.evaluation is not None and len(rows):
        nearest = find_too_near(open_shard_vectors(run, record), criteria.evaluation)
        reason[nearest >= 0] = NEAR
    is_kept, kept = find_ids(criteria.always_keep, ids)
    marks = np.zeros(len(rows), MARK)
    marks["excluded"] = reason >= 0
    marks["protected"] = is_kept & (reason < 0)
    if criteria.prefer:
        marks["value"] = _order_values(_multiply([metadata.column(name) for name in criteria.prefer]))
    if criteria.within is not None:
        marks["within"] = read_shard_codes(run, record, criteria.within)
    places = np.flatnonzero(reason >= 0)
    excluded = np.empty(len(places), EXCLUDED)
    excluded["row"], excluded["reason"], excluded["near"] = rows[places], reason[places], nearest[places]
    rejected = pa.array([r.id for r in record.rejected], pa.string())
    _, rejected_dropped = find_ids(criteria.drop, rejected)
    _, rejected_kept = find_ids(criteria.always_keep, rejected)
    _, lost = find_ids(criteria.always_keep, ids.filter(pa.array(is_kept & (reason >= 0))))
    found = FoundIds(
        dropped=np.concatenate((dropped, rejected_dropped)),
        kept=np.concatenate((kept, rejected_kept)),
        lost=np.concatenate((lost, rejected_kept)),
    )
    return _ShardMarks(marks, excluded, found)


def _read_columns(run: RunDirectory, record: ShardRecord, schema: pa.Schema) -> pa.Table:
    return conform(read_known_columns(run, record, schema.names), schema)


def _multiply(columns: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    """Return the product of columns of numbers, missing where any of them is; a single column as it is."""
    if len(columns) == 1:
        return columns[0]
    return reduce(pc.multiply, [column.cast(pa.float64()) for column in columns])


def _order_values(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return a column of numbers as integers in the same order, nulls first."""
    if not pa.types.is_integer(column.type):
        column = column.cast(pa.float64())
    missing = column.is_null().to_numpy().astype(bool)
    return to_ordered_integers(column.fill_null(0).to_numpy(), missing)


def _count_by_cluster(marked: NDArray[np.bool_], bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.diff(np.concatenate(([0], np.cumsum(marked)))[bounds])
