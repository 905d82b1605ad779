"""The last stage: decisions, kept samples with all their metadata, and rejected rows, as Parquet in input order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.core.decision_columns import DECIDED, EARLIER, RECORD
from fairdedup.errors import FairdedupError
from fairdedup.storage.layout import Group, RunDirectory, groups
from fairdedup.storage.marks import Marks
from fairdedup.storage.run_files import clear, read_array, read_schema, seal, writing
from fairdedup.storage.run_state import named
from fairdedup.storage.schemas import BESIDE_SCHEMA, DECISIONS_SCHEMA, REJECTED_SCHEMA, conform, merged_schema

COUNTS = ("input", "valid", "kept", "removed", "rejected", "readmitted", "excluded")
FOLDERS = ("decisions", "kept", "rejected")


def export_group(
    root: Path, group: Group, tasks: list[tuple[int, int, int]], readmitted: NDArray[np.int64], schema: pa.Schema,
    marks: Marks, beside: bool,
) -> tuple[dict[str, int], dict[str, str]]:  # fmt: skip
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
    counts = dict.fromkeys(COUNTS, 0)
    paths = {folder: run.part(folder, group.number) for folder in FOLDERS}
    with (
        writing(paths["decisions"], BESIDE_SCHEMA if beside else DECISIONS_SCHEMA) as decisions,
        writing(paths["kept"], schema) as kept_rows,
        writing(paths["rejected"], REJECTED_SCHEMA) as rejected_rows,
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
            metadata = run.read_metadata(record)
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
                for name, values in zip(BESIDE_SCHEMA.names[-2:], named(root, own[EARLIER]), strict=True):
                    table = table.append_column(name, pa.array(values, pa.string()))
            decisions.write_table(table)
            kept_rows.write_table(conform(metadata.filter(pa.array(kept)), schema))
            columns = list(zip(*sorted(rejected), strict=True)) or [()] * len(REJECTED_SCHEMA)
            rejected_rows.write_table(
                pa.table(
                    [pa.array(c, f.type) for c, f in zip(columns, REJECTED_SCHEMA, strict=True)], schema=REJECTED_SCHEMA
                )
            )
            found = (record.input, len(rows), kept.sum(), (~kept).sum(), len(rejected), again.sum(), len(out))
            for name, more in zip(COUNTS, found, strict=True):
                counts[name] += int(more)
    return counts, {str(path.relative_to(root)): seal(path) for path in paths.values()}


def _decided(run: RunDirectory, tasks: list[tuple[int, int, int]]) -> NDArray[Any]:
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


def export(
    run: RunDirectory,
    tasks: list[tuple[int, NDArray[np.int64]]],
    readmitted: NDArray[np.int64],
    submit: Callable[..., list[Any]],
    marks: Marks,
    beside: bool = False,
) -> tuple[dict[str, int], dict[str, str]]:
    """Write the product of a run and return its counts, and the seal of every file; `beside` earlier runs or alone.

    Parameters
    ----------
    tasks : list of (int, ndarray of shape (g + 1,))
        Number of each prune task, and where the rows of each group of shards begin among its own.

    Raises
    ------
    FairdedupError
        If kept + removed + rejected is not the input: nothing is called finished then.
    """
    records = run.records()
    for folder in FOLDERS:  # an earlier decision of this run may have had other parts
        for stale in (run.root / folder).glob("part-*.parquet"):
            stale.unlink()
    schema = merged_schema([read_schema(run.metadata(r.number)) for r in records])
    marks = replace(marks, excluded=0, protected=0)  # what is of each cluster need not travel
    parts, arguments = groups(records), []
    for group in parts:
        low, high = np.searchsorted(readmitted, [group.first, group.first + group.input])
        own = [(task, int(b[group.number]), int(b[group.number + 1])) for task, b in tasks]
        own = [each for each in own if each[2] > each[1]]
        arguments.append((run.root, group, own, readmitted[low:high], schema, marks, beside))
    counts: dict[str, int] = dict.fromkeys(COUNTS, 0)
    seals: dict[str, str] = {}
    for each, sealed in submit("export", export_group, arguments, [g.input for g in parts], [g.name for g in parts]):
        seals.update(sealed)
        for name, more in each.items():
            counts[name] += more
    clear(run.decided(0).parent)
    if counts["kept"] + counts["removed"] + counts["rejected"] != counts["input"]:
        raise FairdedupError(f"the counts do not add up ({counts}): nothing is called finished; please report this")
    return counts, seals
