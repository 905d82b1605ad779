"""Schemas of a run's tables: one schema for shards whose metadata differ, and the schema of rejected/.

Stages declare the schema of decisions/, since its columns are those of `core.decision_columns`.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

REJECTED_SCHEMA = pa.schema(
    [("row", pa.int64()), ("id", pa.string()), ("source", pa.string()), ("reason", pa.string())]
)


def merge_schemas(schemas: list[pa.Schema]) -> pa.Schema:
    """Return one schema for all shards: numbers are widened; a column whose types do not agree becomes text."""
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


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with the columns and types of a schema; a missing column becomes nulls."""
    columns = [
        _as(table.column(f.name), f.type) if f.name in table.column_names else pa.nulls(table.num_rows, f.type)
        for f in schema
    ]
    return pa.table(columns, schema=schema)


def _as(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | pa.Array:
    try:
        return column.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        if kind != pa.string():  # an integer beyond 2**53 in a column of floats: the cast rounds it
            return column.cast(kind, safe=False)
        return pa.array([None if v is None else _text(v) for v in column.to_pylist()], kind)


def to_text(column: pa.ChunkedArray) -> pa.LargeStringArray:
    """Return a column as text, and null where a value is missing: null, or not a number."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    text = _as(column, pa.string()).cast(pa.large_string())
    return text.combine_chunks() if isinstance(text, pa.ChunkedArray) else text


def _text(value: Any) -> str:
    """Return a value as text: nested values as JSON, bytes that are not UTF-8 with escapes."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return json.dumps(value, default=str, ensure_ascii=False)
