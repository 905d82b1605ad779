"""The columns that the metadata of images is going to have, as the first pass over them has found them."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa

from fairdedup.datasets.column_types import read_schema
from fairdedup.datasets.reserved_columns import PICTURE_COLUMNS, rename_reserved
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.records import read_findings
from fairdedup.storage.schemas import merge_schemas

OWN = pa.schema(
    {
        "id": pa.string(),
        "caption": pa.string(),
        **dict.fromkeys(PICTURE_COLUMNS, pa.int64()),
        "format": pa.string(),
    }.items()
)
"""Columns that every input of images gets."""


class ScannedColumns(NamedTuple):
    """Columns that the metadata of an input is going to have.

    Attributes
    ----------
    names : list of str
    schema : pyarrow.Schema
        Those of one type in all samples. The others become text, unless the odd values are of pictures that cannot be
        read, which only the embedding finds out.
    """

    names: list[str]
    schema: pa.Schema


def list_columns(run: RunDirectory, shards: int) -> ScannedColumns | None:
    """Return the columns that the metadata of an input is going to have.

    Parameters
    ----------
    run : RunDirectory
    shards : int
        Number of shards.

    Returns
    -------
    ScannedColumns or None
        None if an earlier version made the first pass.
    """
    schemas, names, mixed = [OWN], dict.fromkeys(("id", "caption")), set[str]()
    for k in range(shards):
        noted = read_findings(run, k)
        if noted is None or noted.columns is None:
            return None
        renamed = rename_reserved(noted.columns, PICTURE_COLUMNS)
        names |= dict.fromkeys(renamed.values())
        known = pa.schema([]) if noted.schema_of_columns is None else read_schema(noted.schema_of_columns)
        mixed |= {renamed[name] for name in noted.columns if name not in known.names}
        schemas.append(pa.schema([field.with_name(renamed[field.name]) for field in known]))
    merged = merge_schemas(schemas)
    mixed |= {name for name in merged.names if _became_text(name, merged, schemas)}
    return ScannedColumns([*names, *PICTURE_COLUMNS], pa.schema([field for field in merged if field.name not in mixed]))


def _became_text(name: str, merged: pa.Schema, schemas: list[pa.Schema]) -> bool:
    """Tell whether a column is text because the types of shards do not agree."""
    kinds = {schema.field(name).type for schema in schemas if name in schema.names}
    return merged.field(name).type == pa.string() and not kinds <= {pa.string(), pa.null()}
