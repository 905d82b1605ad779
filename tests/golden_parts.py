"""What a result is reduced to: a hash or a small value for each of its parts.

Messages may be reworded, so a reason counts by its kind alone, and warnings by their number.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Parts = dict[str, Any]  # name of a part of a result -> its hash, or a small value as it is


def sha256(*data: bytes) -> str:
    """Return the hash of some byte strings, each preceded by its length."""
    whole = hashlib.sha256()
    for part in data:
        whole.update(len(part).to_bytes(8, "little") + part)
    return whole.hexdigest()


def hash_of_column(column: Any) -> str:
    """Return the hash of a column as bool, int64, float64 or else text; NaN and null hash alike.

    Parameters
    ----------
    column : ndarray, pandas.Series or Arrow array
    """
    if not isinstance(column, pa.Array | pa.ChunkedArray):
        column = pa.array(column, from_pandas=True)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        column = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
    kind = column.type
    missing = np.asarray(column.is_null(nan_is_null=pa.types.is_floating(kind)))
    for name, is_kind, dtype in (
        ("bool", pa.types.is_boolean, "u1"),
        ("int64", pa.types.is_integer, "<i8"),
        ("float64", pa.types.is_floating, "<f8"),
    ):
        if is_kind(kind):
            values = np.zeros(len(column), dtype)
            values[~missing] = np.asarray(column.filter(pa.array(~missing))).astype(dtype)
            values += np.zeros(1, dtype)  # makes -0.0 equal to 0.0
            return sha256(name.encode(), missing.tobytes(), values.tobytes())
    return sha256(b"text", json.dumps(column.to_pylist(), default=str).encode())


def kind_of(reason: str) -> str:
    """Return the kind of a reason for rejection, whatever its words: an option, or a fault of the vector."""
    near = re.search(r"evaluation.*'(.*)'", reason)
    if near:
        return f"near {near[1]}"
    for kind in ("drop", "where", "gone"):
        if reason.startswith(f"{kind}:"):
            return kind
    return "zero" if "zero" in reason.lower() else "unusable"


def whole_hash(parts: Parts) -> str:
    """Return one hash for all parts."""
    return sha256(json.dumps(parts, sort_keys=True).encode())


def parts_of_result(result: Any) -> Parts:
    """Return the parts of a result of `deduplicate`."""
    rejected = result.rejected
    return {
        **{f"decisions.{name}": hash_of_column(result.decisions[name]) for name in result.decisions},
        "kept": hash_of_column(result.kept),
        "rejected": [[int(r), str(i), kind_of(why)] for r, i, why in rejected[["row", "id", "reason"]].to_numpy()],
        "eps": result.eps,
        "counts": result.counts,
        "guarantees": result.guarantees,
        "warnings": len(result.warnings),
    }


def table_of(folder: Path) -> pa.Table:
    """Return a table of a run from its Parquet files, in the order of their names."""
    return pa.concat_tables([pq.read_table(part) for part in sorted(folder.glob("*.parquet"))])


def parts_of_run(run: Path) -> Parts:
    """Return the parts of a finished run directory."""
    decisions, kept, rejected = (table_of(run / name) for name in ("decisions", "kept", "rejected"))
    columns = {name: decisions.column(name) for name in decisions.column_names}
    if "representative_run" in columns:  # only the folder's name is the same on every machine
        folders = columns["representative_run"].to_pylist()
        columns["representative_run"] = pa.array([f and Path(f).name for f in folders], pa.string())
    known = json.loads((run / "run.json").read_text(encoding="utf-8"))
    lines = rejected.select(["row", "id", "reason"]).to_pylist()
    why = [f"{line['row']} {line['id']} {kind_of(line['reason'])}" for line in lines]
    drift = known.get("drift")
    return {
        **{f"decisions.{name}": hash_of_column(column) for name, column in columns.items()},
        "kept": hash_of_column(kept.column("id")),
        "metadata": {name: hash_of_column(kept.column(name)) for name in kept.column_names},
        "rejected": hash_of_column(why),
        "eps": known["eps"],
        "counts": known["counts"],
        "clusters": known["clusters"],
        "guarantees": known["guarantees"],
        "warnings": len(known["warnings"]),
        "shares": sha256(json.dumps(known["shares"], sort_keys=True).encode()),
        "against": [Path(folder).name for folder in known.get("against", [])],
        "drift": drift and sha256(json.dumps(drift, sort_keys=True).encode()),
        "replaced": [{**line, "file": Path(line["file"]).name} for line in known.get("replaced", [])],
    }


def write_record(file: Path, found: dict[str, Parts]) -> None:
    """Write a record: one hash for each configuration, and its parts."""
    lines = {name: {"hash": whole_hash(parts), "parts": parts} for name, parts in found.items()}
    file.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")
