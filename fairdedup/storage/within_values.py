"""The values of the column within which rows are compared, each as a hash: equal values have equal hashes.

Values are compared as text, whatever their types: the number 1, the number 1.0 and the text "1" are equal. Hashes need
no list of all values, and later runs of a line compare theirs with those that earlier runs stored.
"""

from __future__ import annotations

import datetime
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from fairdedup.errors import UserError
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.records import ShardRecord
from fairdedup.storage.shard_files import read_known_columns
from fairdedup.storage.shard_groups import Group

MISSING = 0  # the code of a missing value; no other value has it


def check_within(name: str, schema: pa.Schema) -> None:
    """Refuse a column that does not exist, or whose values cannot be compared.

    Parameters
    ----------
    name : str
        Value of ``--within``.
    schema : Schema
        Columns of the metadata.

    Raises
    ------
    UserError
        If it is no column, or one of lists or structs.
    """
    columns = ", ".join(field.name for field in schema if not pa.types.is_nested(field.type))
    if name not in schema.names:
        raise UserError(f"--within {name!r}: the metadata has no such column; give one of its columns: {columns}")
    if pa.types.is_nested(schema.field(name).type):
        raise UserError(
            f"--within {name!r} must be a column of text, numbers or dates, and is {schema.field(name).type}: give one "
            f"of {columns}"
        )


def code_values(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return the code of each value of a column (n,): the XXH3 hash of its text, 64 bits, or `MISSING`."""
    codes = [np.zeros(0, np.int64)]
    for chunk in column.chunks:
        encoded = chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode()
        known = np.array([_code(value) for value in encoded.dictionary.to_pylist()] + [MISSING], np.uint64)
        codes.append(known.view(np.int64)[encoded.indices.cast(pa.int64()).fill_null(-1).to_numpy()])
    return np.concatenate(codes)


def _code(value: Any) -> int:
    text = _text(value)
    return MISSING if text is None else xxhash.xxh3_64_intdigest(text) or 1


def _text(value: Any) -> bytes | None:
    """Return the text by which a value is compared, in UTF-8; None if it is missing."""
    if isinstance(value, float | Decimal) and not isinstance(value, bool):
        if math.isnan(value):
            return None
        if math.isfinite(value) and value == int(value):
            return str(int(value)).encode()
        return (repr(value) if isinstance(value, float) else format(value.normalize(), "f")).encode()
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat().encode()
    return (value if isinstance(value, str) else str(value).lower()).encode()


def read_shard_codes(run: RunDirectory, record: ShardRecord, column: str) -> NDArray[np.int64]:
    """Return the code of each row of an embedding shard that has a vector (n,); all are missing without the column.

    Parameters
    ----------
    run : RunDirectory
    record : ShardRecord
    column : str
        Name of a metadata column.
    """
    table = read_known_columns(run, record, [column])
    return code_values(table.column(column)) if column in table.column_names else np.zeros(record.valid, np.int64)


def read_group_codes(run: RunDirectory, group: Group, column: str) -> NDArray[np.int64]:
    """Return the code of each row of a group that has a vector, in the order of the rows; see `read_shard_codes`.

    Parameters
    ----------
    run : RunDirectory
    group : Group
    column : str
        Name of a metadata column.
    """
    return np.concatenate([read_shard_codes(run, record, column) for record, _ in group.shards()])
