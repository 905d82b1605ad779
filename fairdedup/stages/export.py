"""The last stage: decisions, kept samples with all their metadata, and rejected rows, as Parquet in input order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fairdedup.core.steps import COLUMNS
from fairdedup.errors import FairdedupError
from fairdedup.storage.files import clear, read_array, write_table
from fairdedup.storage.marks import Marks
from fairdedup.storage.run import RunDirectory, ShardRecord, offsets
from fairdedup.storage.schemas import conform, merged_schema

FOLDERS = ("decisions", "kept", "rejected")
REJECTED_SCHEMA = pa.schema(
    [("row", pa.int64()), ("id", pa.string()), ("source", pa.string()), ("reason", pa.string())]
)


def export_shard(
    root: Path,
    record: ShardRecord,
    first: int,
    tasks: list[int],
    readmitted: NDArray[np.int64],
    schema: pa.Schema,
    marks: Marks,
) -> dict[str, int]:
    """Write one shard's parts of decisions/, kept/ and rejected/, and return their counts."""
    run = RunDirectory(root)
    slices = []
    for task in tasks:
        records = read_array(run.decided(task))
        low, high = np.searchsorted(records["row"], [first, first + record.input])
        slices.append(np.asarray(records[low:high]))
    decided = np.concatenate(slices)
    decided = decided[np.argsort(decided["row"])]
    metadata = pq.read_table(run.metadata(record.number))
    excluded = marks.of_shard(record.number)
    every = first + record.positions()
    stays = ~np.isin(every, excluded["row"], assume_unique=True)
    out = [
        (row, name, f"{record.name}[{row - first}]", marks.reasons[why])
        for (row, why), name in zip(excluded.tolist(), _ids(metadata, ~stays), strict=True)
    ]
    rows = every[stays]
    if out:
        metadata = metadata.filter(pa.array(stays))
    if not np.array_equal(decided["row"], rows):
        raise FairdedupError(
            f"{record.name}: {len(decided)} of {len(rows)} rows are decided; run `fairdedup prune` again"
        )
    again = np.isin(rows, readmitted)
    kept = decided["kept"] | again
    columns: dict[str, Any] = {name: np.ascontiguousarray(decided[name]) for name in COLUMNS}
    columns["kept"] = kept
    columns["similarity"] = pa.array(columns["similarity"], from_pandas=True)  # NaN: no representative
    table = {"row": columns.pop("row"), "id": metadata.column("id"), **columns, "readmitted": again}
    write_table(run.part("decisions", record.number), pa.table(table))
    write_table(run.part("kept", record.number), conform(metadata.filter(pa.array(kept)), schema))
    rejected = sorted([*((first + p, name, source, why) for p, name, source, why in record.rejected), *out])
    write_table(
        run.part("rejected", record.number),
        pa.table([pa.array(c, f.type) for c, f in zip(zip(*rejected, strict=True), REJECTED_SCHEMA, strict=True)]
                 if rejected else [pa.array([], f.type) for f in REJECTED_SCHEMA], schema=REJECTED_SCHEMA),
    )  # fmt: skip
    return {
        "input": record.input, "valid": len(rows), "kept": int(kept.sum()), "removed": int((~kept).sum()),
        "rejected": len(rejected), "readmitted": int(again.sum()), "excluded": len(out),
    }  # fmt: skip


def _ids(metadata: pa.Table, chosen: NDArray[np.bool_]) -> list[str]:
    return metadata.column("id").filter(pa.array(chosen)).to_pylist()


def export(
    run: RunDirectory,
    tasks: list[int],
    readmitted: NDArray[np.int64],
    submit: Callable[..., list[Any]],
    marks: Marks,
) -> dict[str, int]:
    """Write the product of a run and return its counts.

    Raises
    ------
    FairdedupError
        If kept + removed + rejected is not the input: nothing is called finished then.
    """
    records = run.records()
    for folder in FOLDERS:  # an earlier decision of this run may have had other parts
        for stale in (run.root / folder).glob("part-*.parquet"):
            stale.unlink()
    starts = offsets(records)
    schema = merged_schema([pq.read_schema(run.metadata(r.number)) for r in records])
    arguments, marks = [], replace(marks, excluded=0, protected=0)  # what is of each cluster need not travel
    for record, start in zip(records, starts, strict=False):
        own = readmitted[np.searchsorted(readmitted, start) : np.searchsorted(readmitted, start + record.input)]
        arguments.append((run.root, record, int(start), tasks, own, schema, marks))
    counts: dict[str, int] = {}
    for each in submit("export", export_shard, arguments, [r.input for r in records]):
        for name, number in each.items():
            counts[name] = counts.get(name, 0) + number
    clear(run.root / "decisions" / "tasks")
    if counts["kept"] + counts["removed"] + counts["rejected"] != counts["input"]:
        raise FairdedupError(f"the counts do not add up ({counts}): nothing is called finished; please report this")
    return counts
