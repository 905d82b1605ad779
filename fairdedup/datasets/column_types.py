"""The types of metadata columns: of one column of values, and of an input that is read sample by sample.

So a condition on the columns is checked against their types before anything is embedded.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from fairdedup.datasets.dataset import Metadata
from fairdedup.errors import is_text

ROWS_AT_ONCE = 1_000


def build_column(values: Sequence[Any], kind: pa.DataType | None = None) -> pa.Array:
    """Return a column of Python's or of Arrow's values; text if their types are mixed.

    Parameters
    ----------
    values : sequence
        A value of each row; None where it is missing.
    kind : pyarrow.DataType or None
        Type of the column; None to take that of the values.
    """
    try:
        return _convert(values, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):  # mixed types: text holds them all
        return pa.array([None if value is None else str(value) for value in values], pa.string())


def _convert(values: Sequence[Any], kind: pa.DataType | None) -> pa.Array:
    first = next((value for value in values if value is not None), None)
    if isinstance(first, pa.Scalar) and pa.types.is_nested(first.type):  # Arrow cannot convert its own empty ones
        return pa.array([None if value is None else value.as_py() for value in values], first.type)
    return pa.array(values, kind)


class ColumnTypes:
    """The types of the columns of samples that come one after the other; some of the samples are in memory."""

    def __init__(self) -> None:
        self._waiting: list[Metadata] = []
        self._kinds: dict[str, pa.DataType | None] = {}

    def add(self, metadata: Metadata) -> None:
        """Take the columns of the next sample."""
        self._waiting.append(metadata)
        if len(self._waiting) == ROWS_AT_ONCE:
            self._look()

    def find_schema(self) -> pa.Schema:
        """Return the columns whose values are all of one type, or are missing."""
        self._look()
        known = [(name, kind) for name, kind in self._kinds.items() if kind is not None and is_text(name)]
        return pa.schema(known)

    def _look(self) -> None:
        """Note the types of the samples that wait; None for a column whose values are of several."""
        names = dict.fromkeys(name for metadata in self._waiting for name in metadata)
        for name in names:
            known = self._kinds.get(name, pa.null())
            if known is None:
                continue
            try:
                kind = _convert([metadata.get(name) for metadata in self._waiting], None).type
            except (pa.ArrowException, TypeError, ValueError, OverflowError):
                kind = None
            if kind is None or pa.null() in (known, kind):
                self._kinds[name] = known if kind == pa.null() else kind
            else:
                self._kinds[name] = kind if kind == known else None
        self._waiting.clear()


def write_schema(schema: pa.Schema) -> str:
    """Return a schema as text."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode("ascii")


def read_schema(text: str) -> pa.Schema:
    """Return the schema that `write_schema` wrote."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))
