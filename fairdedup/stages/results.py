"""The last stage: decisions, kept samples with all their metadata, and rejected rows, as Parquet in input order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.core.decision_columns import DECIDED, EARLIER, RECORD
from fairdedup.errors import FairdedupError
from fairdedup.stages.values import DecidedTask, Written
from fairdedup.storage.contents import Embedded
from fairdedup.storage.earlier_samples import name_samples
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import NO_COUNTS, Counts
from fairdedup.storage.marks import Marks
from fairdedup.storage.records import read_shard_metadata
from fairdedup.storage.run_files import open_table_writer, read_array, remove_folder, seal
from fairdedup.storage.schemas import BESIDE_SCHEMA, DECISIONS_SCHEMA, REJECTED_SCHEMA, conform
from fairdedup.storage.shard_groups import Group
from fairdedup.tasks import Submit, Task

FOLDERS = ("decisions", "kept", "rejected")


class TaskSlice(NamedTuple):
    """Where the rows of a group of shards are among those that a prune task decided."""

    task: int
    first: int
    last: int


def write_group(
    root: Path, group: Group, tasks: list[TaskSlice], readmitted: NDArray[np.int64], schema: pa.Schema,
    marks: Marks, beside: bool,
) -> Written:  # fmt: skip
    """Write the parts of decisions/, kept/ and rejected/ of consecutive shards; return their counts and seals.

    `tasks` says of each prune task that decided some of their rows where these begin and end among its own.

    Raises
    ------
    UserError
        If the metadata of a shard is damaged.
    FairdedupError
        If a row is not decided.
    """
    run = RunDirectory(root)
    decided = _decided(run, tasks)
    excluded = marks.of_group(group.number)
    counts = NO_COUNTS
    paths = {folder: run.part(folder, group.number) for folder in FOLDERS}
    with (
        open_table_writer(paths["decisions"], BESIDE_SCHEMA if beside else DECISIONS_SCHEMA) as decisions,
        open_table_writer(paths["kept"], schema) as kept_rows,
        open_table_writer(paths["rejected"], REJECTED_SCHEMA) as rejected_rows,
    ):
        for record, first in group.shards():
            own = _between(decided, first, first + record.input)
            out = _between(excluded, first, first + record.input)
            every = first + record.positions()
            stays = ~np.isin(every, out["row"], assume_unique=True)
            rows = every[stays]
            if not np.array_equal(own["row"], rows):
                raise FairdedupError(
                    f"{record.name}: {len(own)} of {len(rows)} rows are decided; run `fairdedup prune` again"
                )
            again = np.isin(rows, readmitted)
            kept = own["kept"] | again
            metadata = read_shard_metadata(run, record)
            rejected = [(first + p, name, source, why) for p, name, source, why in record.rejected]
            if len(out):
                names = metadata.column("id").filter(pa.array(~stays)).to_pylist()
                rejected += [
                    (row, name, f"{record.name}[{row - first}]", text)
                    for row, name, text in zip(out["row"].tolist(), names, marks.texts(out), strict=True)
                ]
                metadata = metadata.filter(pa.array(stays))
            table = _decisions(own, metadata.column("id"), kept, again)
            if beside:
                for name, values in zip(BESIDE_SCHEMA.names[-2:], name_samples(root, own[EARLIER]), strict=True):
                    table = table.append_column(name, pa.array(values, pa.string()))
            decisions.write_table(table)
            kept_rows.write_table(conform(metadata.filter(pa.array(kept)), schema))
            columns = list(zip(*sorted(rejected), strict=True)) or [()] * len(REJECTED_SCHEMA)
            rejected_rows.write_table(
                pa.table(
                    [pa.array(c, f.type) for c, f in zip(columns, REJECTED_SCHEMA, strict=True)], schema=REJECTED_SCHEMA
                )
            )
            counts += Counts(
                input=record.input,
                valid=len(rows),
                kept=int(kept.sum()),
                removed=int((~kept).sum()),
                rejected=len(rejected),
                readmitted=int(again.sum()),
                excluded=len(out),
            )
    return Written(counts, {str(path.relative_to(root)): seal(path) for path in paths.values()})


def _decided(run: RunDirectory, tasks: list[TaskSlice]) -> NDArray[Any]:
    """Return slices of the decisions of tasks, by row."""
    slices = [np.asarray(read_array(run.decided(task))[first:last]) for task, first, last in tasks]
    decided = np.concatenate([np.zeros(0, RECORD), *slices])
    return decided[np.argsort(decided["row"])]


def _between(records: NDArray[Any], first: int, last: int) -> NDArray[Any]:
    low, high = np.searchsorted(records["row"], [first, last])
    return records[low:high]


def _decisions(own: NDArray[Any], ids: pa.ChunkedArray, kept: NDArray[np.bool_], again: NDArray[np.bool_]) -> pa.Table:
    columns: dict[str, Any] = {name: np.ascontiguousarray(own[name]) for name in DECIDED}
    columns |= {"id": ids, "kept": kept, "readmitted": again}
    columns["similarity"] = pa.array(columns["similarity"], from_pandas=True)  # NaN: no representative
    return pa.table([columns[name] for name in DECISIONS_SCHEMA.names], schema=DECISIONS_SCHEMA)


def write_results(
    embedded: Embedded,
    tasks: Sequence[DecidedTask],
    readmitted: NDArray[np.int64],
    marks: Marks,
    submit: Submit,
    *,
    beside: bool = False,
) -> Written:
    """Write the product of a run.

    Parameters
    ----------
    embedded : Embedded
    tasks : sequence of DecidedTask
        What the prune tasks have left.
    readmitted : ndarray of shape (r,), int64, ascending
    marks : Marks
        Which rows are excluded.
    submit : Submit
    beside : bool
        Whether earlier runs' samples may represent a row, which needs more columns.

    Returns
    -------
    Written

    Raises
    ------
    FairdedupError
        If kept + removed + rejected is not the input: nothing is called finished then.
    """
    run, schema = embedded.directory, embedded.schema
    for folder in FOLDERS:  # an earlier decision of this run may have had other parts
        for stale in (run.root / folder).glob("part-*.parquet"):
            stale.unlink()
    marks = replace(marks, excluded=0, protected=0)  # what is of each cluster need not travel
    tasks_of_groups = []
    for group in embedded.groups:
        low, high = np.searchsorted(readmitted, [group.first, group.first + group.input])
        own = [TaskSlice(task, *map(int, bounds[group.number : group.number + 2])) for task, bounds in tasks]
        own = [each for each in own if each.last > each.first]
        arguments = (run.root, group, own, readmitted[low:high], schema, marks, beside)
        tasks_of_groups.append(Task(arguments, group.input, group.name))
    counts = NO_COUNTS
    seals: dict[str, str] = {}
    for written in submit("export", write_group, tasks_of_groups):
        counts += written.counts
        seals |= written.seals
    remove_folder(run.decided(0).parent)
    if not counts.add_up:
        raise FairdedupError(f"the counts do not add up ({counts}): nothing is called finished; please report this")
    return Written(counts, seals)
