"""The metadata of a shard of images as a table: id, caption, the input's columns, and the picture columns.

The rows of each range of a shard become a table first, and the tables of the ranges one with the types of all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from fairdedup.datasets import Sample
from fairdedup.datasets.column_types import build_column
from fairdedup.datasets.dataset import Metadata
from fairdedup.datasets.reserved_columns import PICTURE_COLUMNS, rename_reserved

SOURCE = "source"  # column of a range's table: where each sample is, for people
_OWN = "own "  # before the names of the input's columns in the table of a range
_TYPES = {
    "id": pa.string(),
    "caption": pa.string(),
    SOURCE: pa.string(),
    **dict.fromkeys(PICTURE_COLUMNS, pa.int64()),
    "format": pa.string(),
}


def build_table(samples: Sequence[Sample], pictures: Sequence[Metadata]) -> pa.Table:
    """Return the metadata of the usable samples of a range of a shard.

    Parameters
    ----------
    samples : sequence of Sample
    pictures : sequence of dict
        The values of `PICTURE_COLUMNS` for each of them.
    """
    own = dict.fromkeys(name for sample in samples for name in sample.metadata)
    values: dict[str, list[Any]] = {
        "id": [sample.id for sample in samples],
        "caption": [sample.caption for sample in samples],
        SOURCE: [sample.source for sample in samples],
        **{_OWN + name: [sample.metadata.get(name) for sample in samples] for name in own},
        **{name: [picture[name] for picture in pictures] for name in PICTURE_COLUMNS},
    }
    return pa.table({name: build_column(column, _TYPES.get(name)) for name, column in values.items()})


def join_tables(tables: Sequence[pa.Table]) -> pa.Table:
    """Return the metadata of a shard from the tables of its ranges.

    Columns of the input that have the name of a picture column are renamed: ``width`` becomes ``input_width``.

    Parameters
    ----------
    tables : sequence of pyarrow.Table
        One table or more, as `build_table` returns them.
    """
    found = dict.fromkeys(name for table in tables for name in table.column_names if name.startswith(_OWN))
    renamed = rename_reserved([name.removeprefix(_OWN) for name in found], PICTURE_COLUMNS)
    names = {"id": "id", "caption": "caption"}
    names |= {_OWN + name: new for name, new in renamed.items()} | {name: name for name in PICTURE_COLUMNS}
    return pa.table({new: _join_column(tables, name) for name, new in names.items()})


def _join_column(tables: Sequence[pa.Table], name: str) -> pa.Array:
    """Return a column of all tables: null where a table does not have it, and text if types are mixed."""
    parts = [table.column(name).combine_chunks() if name in table.column_names else None for table in tables]
    kinds = {part.type for part in parts if part is not None and not pa.types.is_null(part.type)}
    if len(kinds) > 1:
        rows = [pa.nulls(len(table)) if part is None else part for table, part in zip(tables, parts, strict=True)]
        return build_column([value for own in rows for value in own.to_pylist()])
    kind = next(iter(kinds), pa.null())
    pairs = zip(tables, parts, strict=True)
    return pa.concat_arrays([pa.nulls(len(t), kind) if p is None or p.type != kind else p for t, p in pairs])
