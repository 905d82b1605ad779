"""Rows of a prototypes file in Parquet: one for each concept and each absent prototype."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.core.prototypes import ABSENT
from fairdedup.errors import UserError
from fairdedup.storage.run_files import write_table


class PrototypeRow(NamedTuple):
    """The prototype of a concept, or an absent one, with the temperature of its attribute and its own offset."""

    attribute: str
    concept: str
    vector: NDArray[Any]
    temperature: float | None = None
    offset: float | None = None


@dataclass
class AttributeRows:
    """The rows of one attribute.

    Attributes
    ----------
    concepts : dict of str to ndarray of shape (d,)
        The vector of each concept, in the order of the file.
    absent : list of ndarray of shape (d,)
        Absent prototypes.
    temperature : float or None
        The temperature from a calibration, if there was one.
    offsets : dict of str to float
        The offset of each concept that has one.
    """

    concepts: dict[str, NDArray[Any]] = field(default_factory=dict)
    absent: list[NDArray[Any]] = field(default_factory=list)
    temperature: float | None = None
    offsets: dict[str, float] = field(default_factory=dict)

    def list_offsets(self) -> tuple[float, ...]:
        """Return an offset for each concept, 0 for those without; nothing if none has one."""
        return tuple(self.offsets.get(concept, 0.0) for concept in self.concepts) if self.offsets else ()


def write_rows(path: Path, rows: list[PrototypeRow], number: pa.DataType, *, always: Sequence[str] = ()) -> None:
    """Write rows as a Parquet file.

    Parameters
    ----------
    path : Path
        The file to write.
    rows : list of PrototypeRow
    number : pyarrow.DataType
        Type of the values of the vectors.
    always : sequence of str
        Which of the columns `temperature` and `offset` are written even if no row has a value.
    """
    columns = [("attribute", pa.string()), ("concept", pa.string()), ("vector", pa.list_(number))]
    for name in ("temperature", "offset"):
        if name in always or any(getattr(row, name) is not None for row in rows):
            columns.append((name, pa.float64()))
    lines = [row._asdict() | {"vector": row.vector.tolist()} for row in rows]
    write_table(path, pa.Table.from_pylist(lines, pa.schema(columns)))


def read_rows(table: pa.Table, dtype: type[np.floating[Any]]) -> Iterable[PrototypeRow]:
    """Yield the rows of a table, their vectors as arrays of a type."""
    for line in table.to_pylist():
        vector = np.array(line["vector"], dtype)
        yield PrototypeRow(line["attribute"], line["concept"], vector, line.get("temperature"), line.get("offset"))


def group_rows(rows: Iterable[PrototypeRow], file: Path) -> dict[str, AttributeRows]:
    """Return the rows of each attribute, in the order of the file."""
    out: dict[str, AttributeRows] = {}
    for row in rows:
        own = out.setdefault(row.attribute, AttributeRows())
        if row.temperature is not None:
            if own.temperature not in (None, row.temperature):
                raise UserError(f"prototypes {str(file)!r}: {row.attribute} has several temperatures; give it one")
            own.temperature = row.temperature
        if row.concept == ABSENT:
            own.absent.append(row.vector)
        elif row.concept in own.concepts:
            raise UserError(
                f"prototypes {str(file)!r}: {row.attribute}, {row.concept} has two vectors; give one for each concept"
            )
        else:
            own.concepts[row.concept] = row.vector
            if row.offset is not None:
                own.offsets[row.concept] = row.offset
    return out
