"""The metadata of a shard of images as a table: id, caption, the input's columns, and the picture columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from fairdedup.datasets import Sample
from fairdedup.datasets.dataset import Metadata
from fairdedup.datasets.reserved_columns import PICTURE_COLUMNS, rename_reserved

_TYPES = {
    "id": pa.string(),
    "caption": pa.string(),
    **dict.fromkeys(PICTURE_COLUMNS, pa.int64()),
    "format": pa.string(),
}


def build_table(samples: Sequence[Sample], pictures: Sequence[Metadata]) -> pa.Table:
    """Return the metadata of the usable samples of a shard.

    Columns of the input that have the name of a picture column are renamed: ``width`` becomes ``input_width``.

    Parameters
    ----------
    samples : sequence of Sample
    pictures : sequence of dict
        The values of `PICTURE_COLUMNS` for each of them.
    """
    own = dict.fromkeys(name for sample in samples for name in sample.metadata)
    renamed = rename_reserved(own, PICTURE_COLUMNS)
    names = {"id": "id", "caption": "caption", **renamed}
    columns = {}
    for name, new in names.items():
        if name in ("id", "caption"):
            values = [sample.id if name == "id" else sample.caption for sample in samples]
        else:
            values = [sample.metadata.get(name) for sample in samples]
        columns[new] = _build_column(values, _TYPES.get(new))
    for name in PICTURE_COLUMNS:
        columns[name] = _build_column([picture[name] for picture in pictures], _TYPES[name])
    return pa.table(columns)


def _build_column(values: list[Any], kind: pa.DataType | None) -> pa.Array:
    """Return a column of Python's or of Arrow's values; text if their types are mixed."""
    try:
        first = next((value for value in values if value is not None), None)
        if isinstance(first, pa.Scalar) and pa.types.is_nested(first.type):  # Arrow cannot convert its own empty ones
            return pa.array([None if value is None else value.as_py() for value in values], first.type)
        return pa.array(values, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):  # mixed types: text holds them all
        return pa.array([None if value is None else str(value) for value in values], pa.string())
