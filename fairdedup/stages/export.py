"""The last stage: decisions, kept samples with all their metadata, and rejected rows, as Parquet in input order."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fairdedup.core.steps import COLUMNS
from fairdedup.errors import FairdedupError
from fairdedup.storage.files import clear, read_array, write_table
from fairdedup.storage.run import RunDirectory, ShardRecord, offsets

FOLDERS = ("decisions", "kept", "rejected")
REJECTED_SCHEMA = pa.schema(
    [("row", pa.int64()), ("id", pa.string()), ("source", pa.string()), ("reason", pa.string())]
)


def merged_schema(schemas: list[pa.Schema]) -> pa.Schema:
    """Return one schema for all shards: numbers are widened; columns that do not agree become text."""
    names = list(dict.fromkeys(name for schema in schemas for name in schema.names))
    fields = []
    for name in names:
        kinds = [pa.schema([schema.field(name).remove_metadata()]) for schema in schemas if name in schema.names]
        try:
            one = pa.unify_schemas(kinds, promote_options="permissive").field(0)
            for kind in kinds:
                pa.nulls(1, kind.field(0).type).cast(one.type)
            fields.append(one)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
            fields.append(pa.field(name, pa.string()))
    return pa.schema(fields)


def _conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        _as(table.column(f.name), f.type) if f.name in table.column_names else pa.nulls(table.num_rows, f.type)
        for f in schema
    ]
    return pa.table(columns, schema=schema)


def _as(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | pa.Array:
    try:
        return column.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        if kind != pa.string():  # a whole number beyond 2**53 among floats: another shard has rounded it before
            return column.cast(kind, safe=False)
        return pa.array([None if v is None else _text(v) for v in column.to_pylist()], kind)


def _text(value: Any) -> str:
    """Return a value that no other column type holds as text: JSON, and bytes that are no text spelt out."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return json.dumps(value, default=str, ensure_ascii=False)


def export_shard(
    root: Path,
    record: ShardRecord,
    first: int,
    tasks: list[int],
    readmitted: NDArray[np.int64],
    schema: pa.Schema,
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
    rows = first + record.positions()
    if not np.array_equal(decided["row"], rows):
        raise FairdedupError(
            f"{record.name}: {len(decided)} of {len(rows)} rows are decided; run `fairdedup prune` again"
        )
    again = np.isin(rows, readmitted)
    kept = decided["kept"] | again
    metadata = pq.read_table(run.metadata(record.number))
    columns: dict[str, Any] = {name: np.ascontiguousarray(decided[name]) for name in COLUMNS}
    columns["kept"] = kept
    columns["similarity"] = pa.array(columns["similarity"], from_pandas=True)  # NaN: no representative
    table = {"row": columns.pop("row"), "id": metadata.column("id"), **columns, "readmitted": again}
    write_table(run.part("decisions", record.number), pa.table(table))
    write_table(run.part("kept", record.number), _conform(metadata.filter(pa.array(kept)), schema))
    rejected = [(first + p, name, source, why) for p, name, source, why in record.rejected]
    write_table(
        run.part("rejected", record.number),
        pa.table([pa.array(c, f.type) for c, f in zip(zip(*rejected, strict=True), REJECTED_SCHEMA, strict=True)]
                 if rejected else [pa.array([], f.type) for f in REJECTED_SCHEMA], schema=REJECTED_SCHEMA),
    )  # fmt: skip
    return {
        "input": record.input, "valid": record.valid, "kept": int(kept.sum()), "removed": int((~kept).sum()),
        "rejected": len(rejected), "readmitted": int(again.sum()),
    }  # fmt: skip


def export(
    run: RunDirectory, tasks: list[int], readmitted: NDArray[np.int64], submit: Callable[..., list[Any]]
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
    arguments = []
    for record, start in zip(records, starts, strict=False):
        own = readmitted[np.searchsorted(readmitted, start) : np.searchsorted(readmitted, start + record.input)]
        arguments.append((run.root, record, int(start), tasks, own, schema))
    counts: dict[str, int] = {}
    for each in submit("export", export_shard, arguments, [r.input for r in records]):
        for name, number in each.items():
            counts[name] = counts.get(name, 0) + number
    clear(run.root / "decisions" / "tasks")
    if counts["kept"] + counts["removed"] + counts["rejected"] != counts["input"]:
        raise FairdedupError(f"the counts do not add up ({counts}): nothing is called finished; please report this")
    return counts
