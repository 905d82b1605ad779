"""The last stage: decisions, kept samples with all their metadata, and rejected rows, as Parquet in input order.

A first task of each group of shards writes decisions and rejected rows, and lists who represents its removed rows. The
kept samples come after all of these, since a kept sample may stand for rows of any group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.core.decision_columns import COLUMNS, DECIDED, EARLIER, RECORD
from fairdedup.core.eps_suggestion import BINS, count_cosines
from fairdedup.errors import FairdedupError, format_count
from fairdedup.stages.values import DecidedTask, Written
from fairdedup.storage.contents import Embedded
from fairdedup.storage.earlier_samples import name_samples
from fairdedup.storage.kept_samples import KeptColumns, list_represented, write_kept
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import NO_COUNTS, Counts
from fairdedup.storage.marks import Marks
from fairdedup.storage.records import ShardRecord
from fairdedup.storage.remedies import decide_again
from fairdedup.storage.represented_rows import RemovedRows, Represented
from fairdedup.storage.run_files import open_table_writer, remove_folder
from fairdedup.storage.schemas import REJECTED_SCHEMA
from fairdedup.storage.sealed_files import Unsealed, open_array
from fairdedup.storage.seals import seal
from fairdedup.storage.shard_files import read_shard_metadata
from fairdedup.storage.shard_groups import Group, first_rows_of_groups
from fairdedup.tasks import Submit, Task

FOLDERS = ("decisions", "kept", "rejected")
DECIDED_BEFORE = "a task of the same command has written it"
DECISIONS_SCHEMA = pa.schema(
    [(c.name, pa.string() if c.dtype == "str" else pa.from_numpy_dtype(np.dtype(c.dtype))) for c in COLUMNS]
)
EARLIER_COLUMNS = ("representative_run", "representative_id")  # what `core.decision_columns.EARLIER` refers to
AGAINST_SCHEMA = pa.schema([*DECISIONS_SCHEMA, *((name, pa.string()) for name in EARLIER_COLUMNS)])


class TaskSlice(NamedTuple):
    """The rows of a group of shards that one prune task decided: a slice of that task's decisions."""

    task: int
    first: int
    last: int


@dataclass(frozen=True)
class GroupDecisions:
    """What the task that writes the decisions of a group needs.

    Attributes
    ----------
    slices : list of TaskSlice
        Where the decisions of the group's rows are.
    readmitted : ndarray of shape (r,), int64, ascending
        Re-admitted rows of the group.
    marks : Marks
        Which rows are excluded.
    columns : KeptColumns
        Columns of kept/, which say what is listed of removed rows.
    starts : ndarray of shape (g + 1,), int64
        First row of every group, and the number of input rows.
    against : bool
        Whether samples of earlier runs may represent a row, which needs the `EARLIER_COLUMNS`.
    """

    slices: list[TaskSlice]
    readmitted: NDArray[np.int64]
    marks: Marks
    columns: KeptColumns
    starts: NDArray[np.int64]
    against: bool


class WrittenGroup(NamedTuple):
    """What the task that writes the decisions of a group returns.

    Attributes
    ----------
    written : Written
        Its counts, and the seals of its parts of decisions/ and rejected/.
    bounds : ndarray of shape (1 + c, g + 1), int64
        As `list_represented` returns them.
    """

    written: Written
    bounds: NDArray[np.int64]


@dataclass(frozen=True)
class _ShardResult:
    """The rows of one shard in decisions/ and rejected/, and their counts."""

    decisions: pa.Table
    rejected: pa.Table
    counts: Counts


def write_group(root: Path, group: Group, decided: GroupDecisions) -> WrittenGroup:
    """Write the parts of decisions/ and rejected/ of consecutive shards, and list who represents the removed rows.

    Parameters
    ----------
    root : Path
        Run directory.
    group : Group
    decided : GroupDecisions

    Raises
    ------
    UserError
        If the metadata of a shard is damaged.
    FairdedupError
        If a row is not decided.
    """
    run = RunDirectory(root)
    records = _read_decided(run, decided.slices)
    excluded = decided.marks.of_group(group.number)
    counts = NO_COUNTS
    paths = {folder: run.part(folder, group.number) for folder in ("decisions", "rejected")}
    with (
        open_table_writer(paths["decisions"], AGAINST_SCHEMA if decided.against else DECISIONS_SCHEMA) as decisions,
        open_table_writer(paths["rejected"], REJECTED_SCHEMA) as rejected,
    ):
        for record, first in group.shards():
            own, out = (_select_rows(each, first, first + record.input) for each in (records, excluded))
            result = _combine(run, record, first, own, out, decided)
            decisions.write_table(result.decisions)
            rejected.write_table(result.rejected)
            counts += result.counts
    stays = records["kept"] | np.isin(records["row"], decided.readmitted)
    removed = RemovedRows.of(records, stays)
    bounds = list_represented(group, run, run, removed, decided.columns, decided.starts)
    seals = {str(path.relative_to(root)): seal(path) for path in paths.values()}
    return WrittenGroup(Written(counts, seals, count_cosines(records["similarity"][~stays])), bounds)


def _combine(
    run: RunDirectory,
    record: ShardRecord,
    first: int,
    own: NDArray[Any],
    excluded: NDArray[Any],
    decided: GroupDecisions,
) -> _ShardResult:
    """Return the result of one shard, whose first row is `first`, from its decisions and its excluded rows."""
    valid = first + record.positions()
    stays = ~np.isin(valid, excluded["row"], assume_unique=True)
    rows = valid[stays]
    if not np.array_equal(own["row"], rows):
        raise FairdedupError(
            f"{record.name}: {len(own)} of {format_count(len(rows), 'row')} "
            f"{'is' if len(own) == 1 else 'are'} decided: {decide_again(run.root)}"
        )
    readmitted = np.isin(rows, decided.readmitted)
    kept = own["kept"] | readmitted
    ids = read_shard_metadata(run, record, ["id"]).column("id")
    rejected = [(first + p, name, source, why) for p, name, source, why in record.rejected]
    if len(excluded):
        names = ids.filter(pa.array(~stays)).to_pylist()
        rejected += [
            (row, name, f"{record.name}[{row - first}]", text)
            for row, name, text in zip(excluded["row"].tolist(), names, decided.marks.texts(excluded), strict=True)
        ]
        ids = ids.filter(pa.array(stays))
    table = _build_decisions(own, ids, kept, readmitted)
    if decided.against:
        for name, values in zip(EARLIER_COLUMNS, name_samples(run.root, own[EARLIER]), strict=True):
            table = table.append_column(name, pa.array(values, pa.string()))
    counts = Counts(
        input=record.input,
        valid=len(rows),
        kept=int(kept.sum()),
        removed=int((~kept).sum()),
        rejected=len(rejected),
        readmitted=int(readmitted.sum()),
        excluded=len(excluded),
    )
    return _ShardResult(table, _build_rejected(rejected), counts)


def _read_decided(run: RunDirectory, slices: list[TaskSlice]) -> NDArray[Any]:
    """Return the decisions of some slices, in the order of their rows, as `RECORD`."""
    parts = [
        np.asarray(open_array(Unsealed(run.decided(task), DECIDED_BEFORE))[first:last]) for task, first, last in slices
    ]
    decided = np.concatenate([np.zeros(0, RECORD), *parts])
    return decided[np.argsort(decided["row"])]


def _select_rows(records: NDArray[Any], first: int, last: int) -> NDArray[Any]:
    """Return the records of the rows from `first` to before `last`; `records` are in the order of their rows."""
    low, high = np.searchsorted(records["row"], [first, last])
    return records[low:high]


def _build_decisions(
    own: NDArray[Any], ids: pa.ChunkedArray, kept: NDArray[np.bool_], readmitted: NDArray[np.bool_]
) -> pa.Table:
    columns: dict[str, Any] = {name: np.ascontiguousarray(own[name]) for name in DECIDED}
    columns |= {"id": ids, "kept": kept, "readmitted": readmitted}
    columns["similarity"] = pa.array(columns["similarity"], from_pandas=True)  # NaN: no representative
    return pa.table([columns[name] for name in DECISIONS_SCHEMA.names], schema=DECISIONS_SCHEMA)


def _build_rejected(rows: list[tuple[int, str, str, str]]) -> pa.Table:
    columns = list(zip(*sorted(rows), strict=True)) or [()] * len(REJECTED_SCHEMA)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, REJECTED_SCHEMA, strict=True)]
    return pa.table(arrays, schema=REJECTED_SCHEMA)


def write_results(
    embedded: Embedded,
    tasks: Sequence[DecidedTask],
    readmitted: NDArray[np.int64],
    marks: Marks,
    columns: KeptColumns,
    submit: Submit,
    *,
    against: bool = False,
) -> Written:
    """Write the results of a run: decisions/, kept/ and rejected/.

    Parameters
    ----------
    embedded : Embedded
    tasks : sequence of DecidedTask
        Decisions that the prune tasks left on disk.
    readmitted : ndarray of shape (r,), int64, ascending
        Re-admitted rows.
    marks : Marks
        Which rows are excluded.
    columns : KeptColumns
        Columns of kept/.
    submit : Submit
    against : bool
        Whether samples of earlier runs may represent a row, which adds columns to decisions/.

    Returns
    -------
    Written

    Raises
    ------
    FairdedupError
        If kept + removed + rejected is not the input; the run then stays unfinished.
    """
    run = embedded.directory
    for folder in FOLDERS:  # an earlier decision of this run may have had other parts
        for stale in (run.root / folder).glob("part-*.parquet"):
            stale.unlink()
    marks = replace(marks, excluded=0, protected=0)  # tasks do not need the counts by cluster
    starts = first_rows_of_groups(embedded.groups)
    tasks_of_groups = []
    for group in embedded.groups:
        low, high = np.searchsorted(readmitted, [group.first, group.first + group.input])
        own = [TaskSlice(task, *map(int, bounds[group.number : group.number + 2])) for task, bounds in tasks]
        own = [each for each in own if each.last > each.first]
        decided = GroupDecisions(own, readmitted[low:high], marks, columns, starts, against)
        tasks_of_groups.append(Task((run.root, group, decided), group.input, group.name))
    counts, cosines = NO_COUNTS, np.zeros(BINS, np.int64)
    seals: dict[str, str] = {}
    found = submit("export", write_group, tasks_of_groups)
    for written, _ in found:
        counts += written.counts
        seals |= written.seals
        cosines += written.cosines
    remove_folder(run.decided(0).parent)
    bounds = np.array([group.bounds for group in found])
    for sealed in submit("write kept", write_kept, _plan_kept(embedded, columns, bounds)):
        seals |= sealed
    remove_folder(run.represented)
    if not counts.add_up:
        raise FairdedupError(f"the counts do not add up ({counts}): the run is not finished; please report this")
    return Written(counts, seals, cosines)


def _plan_kept(embedded: Embedded, columns: KeptColumns, bounds: NDArray[np.int64]) -> list[Task]:
    """Return the tasks that write kept/, once the decisions and the lists of removed rows are written."""
    run, tasks = embedded.directory, []
    for group in embedded.groups:
        represented = Represented.of_group(run.represented, bounds, group.number)
        decisions = Unsealed(run.part("decisions", group.number), DECIDED_BEFORE)
        tasks.append(Task((group, run, run, decisions, columns, represented), group.input, group.name))
    return tasks
