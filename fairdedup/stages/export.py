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
from fairdedup.errors import FairdedupError, UserError
from fairdedup.storage.files import clear, is_sealed, read_array, seal, writing
from fairdedup.storage.run import RunDirectory, ShardRecord, groups, offsets

COUNTS = ("input", "valid", "kept", "removed", "rejected", "readmitted")
FOLDERS = ("decisions", "kept", "rejected")
REJECTED_SCHEMA = pa.schema(
    [("row", pa.int64()), ("id", pa.string()), ("source", pa.string()), ("reason", pa.string())]
)
DECISIONS_SCHEMA = pa.schema([
    ("row", pa.int64()), ("id", pa.string()), ("cluster", pa.int64()), ("neighbourhood", pa.int64()),
    ("kept", pa.bool_()), ("representative", pa.int64()), ("similarity", pa.float64()),
    ("centroid_similarity", pa.float64()), ("readmitted", pa.bool_()),
])  # fmt: skip


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


def export_group(
    root: Path,
    number: int,
    records: list[ShardRecord],
    first: int,
    tasks: list[int],
    readmitted: NDArray[np.int64],
    schema: pa.Schema,
) -> tuple[dict[str, int], dict[str, str]]:
    """Write the parts of decisions/, kept/ and rejected/ of consecutive shards; return their counts and seals.

    Raises
    ------
    UserError
        If the metadata of a shard is damaged.
    FairdedupError
        If a row is not decided.
    """
    run = RunDirectory(root)
    starts = first + offsets(records)
    decided = _decided(run, tasks, first, int(starts[-1]))
    counts = dict.fromkeys(COUNTS, 0)
    paths = {folder: run.part(folder, number) for folder in FOLDERS}
    with (
        writing(paths["decisions"], DECISIONS_SCHEMA) as decisions,
        writing(paths["kept"], schema) as kept_rows,
        writing(paths["rejected"], REJECTED_SCHEMA) as rejected_rows,
    ):
        for record, start in zip(records, starts, strict=False):
            low, high = np.searchsorted(decided["row"], [start, start + record.input])
            own = decided[low:high]
            rows = start + record.positions()
            if not np.array_equal(own["row"], rows):
                raise FairdedupError(
                    f"{record.name}: {len(own)} of {len(rows)} rows are decided; run `fairdedup prune` again"
                )
            again = np.isin(rows, readmitted)
            kept = own["kept"] | again
            metadata = _metadata(run, record)
            decisions.write_table(_decisions(own, metadata.column("id"), kept, again))
            kept_rows.write_table(_conform(metadata.filter(pa.array(kept)), schema))
            rejected = [(int(start) + p, name, source, why) for p, name, source, why in record.rejected]
            columns = list(zip(*rejected, strict=True)) or [()] * len(REJECTED_SCHEMA)
            rejected_rows.write_table(
                pa.table(
                    [pa.array(c, f.type) for c, f in zip(columns, REJECTED_SCHEMA, strict=True)], schema=REJECTED_SCHEMA
                )
            )
            found = (record.input, record.valid, kept.sum(), (~kept).sum(), len(rejected), again.sum())
            for name, more in zip(COUNTS, found, strict=True):
                counts[name] += int(more)
    return counts, {str(path.relative_to(root)): seal(path) for path in paths.values()}


def _decided(run: RunDirectory, tasks: list[int], first: int, last: int) -> NDArray[Any]:
    """Return the decisions of the rows from first to before last, of all tasks, by row."""
    slices = []
    for task in tasks:
        records = read_array(run.decided(task))
        low, high = np.searchsorted(records["row"], [first, last])
        slices.append(np.asarray(records[low:high]))
    decided = np.concatenate(slices)
    return decided[np.argsort(decided["row"])]


def _metadata(run: RunDirectory, record: ShardRecord) -> pa.Table:
    path = run.metadata(record.number)
    if not is_sealed(path, record.seals["metadata"]):
        raise UserError(f"{path} is missing or damaged: run `fairdedup embed` with --out {run.root} again")
    return pq.read_table(path)


def _decisions(own: NDArray[Any], ids: pa.ChunkedArray, kept: NDArray[np.bool_], again: NDArray[np.bool_]) -> pa.Table:
    columns: dict[str, Any] = {name: np.ascontiguousarray(own[name]) for name in COLUMNS}
    columns |= {"id": ids, "kept": kept, "readmitted": again}
    columns["similarity"] = pa.array(columns["similarity"], from_pandas=True)  # NaN: no representative
    return pa.table([columns[name] for name in DECISIONS_SCHEMA.names], schema=DECISIONS_SCHEMA)


def export(
    run: RunDirectory, tasks: list[int], readmitted: NDArray[np.int64], submit: Callable[..., list[Any]]
) -> tuple[dict[str, int], dict[str, str]]:
    """Write the product of a run and return its counts, and the seal of every file.

    Raises
    ------
    FairdedupError
        If kept + removed + rejected is not the input: nothing is called finished then.
    """
    records = run.records()
    for folder in FOLDERS:  # an earlier decision of this run may have had other parts
        for stale in (run.root / folder).glob("part-*.parquet"):
            stale.unlink()
    schema = merged_schema([pq.read_schema(run.metadata(r.number)) for r in records])
    arguments, names, first = [], [], 0
    for number, group in enumerate(groups(records)):
        last = first + sum(r.input for r in group)
        own = readmitted[np.searchsorted(readmitted, first) : np.searchsorted(readmitted, last)]
        arguments.append((run.root, number, group, first, tasks, own, schema))
        names.append(f"{group[0].name} to {group[-1].name}")
        first = last
    counts, seals = dict.fromkeys(COUNTS, 0), {}
    for each, sealed in submit("export", export_group, arguments, [sum(r.input for r in a[2]) for a in arguments],
                               names):  # fmt: skip
        seals.update(sealed)
        for name, more in each.items():
            counts[name] += more
    clear(run.root / "decisions" / "tasks")
    if counts["kept"] + counts["removed"] + counts["rejected"] != counts["input"]:
        raise FairdedupError(f"the counts do not add up ({counts}): nothing is called finished; please report this")
    return counts, seals
