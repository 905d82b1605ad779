"""Converts the arguments of `deduplicate()` from NumPy, torch, pandas and Arrow to arrays, or says what is wrong.

It never changes a value, except that integers and half precision are widened. What a mask of NumPy hides is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairdedup.errors import UserError, format_count
from fairdedup.id_arrays import find_missing, is_hashable, to_array


def as_matrix(embeddings: Any) -> NDArray[np.floating]:
    """Return embeddings as a float array of shape (n, d), from NumPy, torch, pandas or Arrow.

    Parameters
    ----------
    embeddings : array-like of shape (n, d)
        Floats or integers. Rows may also be the entries of a list, a pandas series or an Arrow list column.

    Returns
    -------
    ndarray of shape (n, d), float16, float32 or float64

    Raises
    ------
    UserError
        If they are not a matrix of numbers with at least one row and one column.
    """
    if type(embeddings).__module__.partition(".")[0] == "torch":
        tensor = embeddings.detach().cpu()
        embeddings = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    elif type(embeddings).__module__.partition(".")[0] == "pyarrow":
        embeddings = _from_arrow(embeddings)
    elif isinstance(embeddings, pd.Series):
        embeddings = embeddings.to_numpy()
    elif isinstance(embeddings, pd.DataFrame):
        embeddings = _from_table(embeddings)
    try:
        array = _without_masks(embeddings)
        if array.dtype == object:
            array = _stack(array)
        if array.dtype.kind in "iub":
            array = array.astype(np.float64)
    except (ValueError, TypeError):
        raise UserError("`embeddings` must be numbers in rows of one length: give an (n, d) array") from None
    if array.dtype.kind != "f" or array.ndim != 2:
        raise UserError(f"`embeddings` are {array.dtype} of shape {array.shape}: give an (n, d) array of floats")
    if 0 in array.shape:
        raise UserError(f"`embeddings` have shape {array.shape}: give at least one row of at least one value")
    return array if array.dtype.itemsize <= 8 else array.astype(np.float64)


def _without_masks(values: Any) -> NDArray[Any]:
    """Return vectors as an array, with NaN where a value is masked."""
    if isinstance(values, (list, tuple)) and any(isinstance(row, np.ma.MaskedArray) for row in values):
        return np.stack([_without_masks(row) for row in values])
    if not isinstance(values, np.ma.MaskedArray):
        return np.asarray(values)
    hidden = np.ma.getmaskarray(values)
    if not hidden.any():
        return values.data
    return np.where(hidden, np.nan, values.data.astype(np.float64 if values.dtype.kind in "iub" else values.dtype))


def open_masks(values: Any) -> Any:
    """Return vectors, or nested mappings of vectors, with NaN where a value is masked; other values stay the same.

    Parameters
    ----------
    values : array-like, or mapping of str to such values
        Prototypes.
    """
    if isinstance(values, Mapping):
        return {name: open_masks(each) for name, each in values.items()}
    is_list = isinstance(values, (list, tuple)) and any(isinstance(each, np.ma.MaskedArray) for each in values)
    return _without_masks(values) if is_list or isinstance(values, np.ma.MaskedArray) else values


def _from_table(table: pd.DataFrame) -> NDArray[Any]:
    """Return the values of a table, with NaN where a column of numbers has none."""
    values = table.to_numpy()
    if values.dtype == object and all(map(pd.api.types.is_numeric_dtype, table.dtypes)):
        return table.to_numpy(np.float64, na_value=np.nan)
    return values


def _stack(rows: NDArray[Any]) -> NDArray[Any]:
    return np.stack([_without_masks(row).astype(np.float64) for row in rows]) if len(rows) else np.zeros((0, 0))


def _from_arrow(column: Any) -> NDArray[Any]:
    """Return an Arrow list column, or a table with a single column, as a matrix."""
    import pyarrow as pa

    if isinstance(column, (pa.Table, pa.RecordBatch)):
        if column.num_columns != 1:
            raise UserError(f"the Arrow table has {column.num_columns} columns: give the one that holds the embeddings")
        column = column.column(0)
    if not isinstance(column, (pa.Array, pa.ChunkedArray)):
        raise UserError(f"`embeddings` are a {type(column).__name__} of Arrow: give an (n, d) array, or a list column")
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks)
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if column.null_count or not any(is_kind(column.type) for is_kind in kinds):
        raise UserError(
            f"the Arrow column is {column.type} with {format_count(column.null_count, 'null')}: "
            "give lists of floats, no nulls"
        )
    values = column.flatten()
    lengths = np.unique(column.value_lengths().to_numpy(zero_copy_only=False)) if len(column) else np.zeros(1, int)
    if len(lengths) != 1:
        raise UserError(
            f"the Arrow lists have {lengths.min()} to {lengths.max()} values: all must have the same length"
        )
    return values.to_numpy(zero_copy_only=False).reshape(len(column), int(lengths[0]))


def as_labels(labels: Any, n: int) -> NDArray[np.int64]:
    """Return the labels of a clustering (n,).

    Parameters
    ----------
    labels : array-like of shape (n,)
        Integers from 0 to 2**63 - 1.
    n : int
        Number of rows.

    Raises
    ------
    UserError
        If there is not exactly one label for each row, or a label is missing or is not such an integer.
    """
    array, missing = _split_missing(labels)
    if array.shape != (n,) or array.dtype.kind not in "iu":
        raise UserError(
            f"`clusters` are {array.dtype} of shape {array.shape}: give a number, "
            f"auto, or {format_count(n, 'integer label')}"
        )
    if missing.any():
        raise UserError(
            f"`clusters` has no label at row {int(missing.argmax())}: give each row one; give noise rows labels of "
            "their own"
        )
    if n and array.min() < 0:
        raise UserError(
            f"`clusters` has label {array.min()} at row {int(array.argmin())}: labels must be 0 or more; give noise "
            "rows labels of their own"
        )
    if n and array.max() > np.iinfo(np.int64).max:
        row = int(array.argmax())
        raise UserError(f"`clusters` has label {array[row]} at row {row}: give labels below 2**63")
    return array.astype(np.int64)


def as_numbers(values: Any, n: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the values to prefer by, and which of them are missing.

    Parameters
    ----------
    values : array-like of shape (n,)
        Numbers; NaN, None and masked entries are missing.
    n : int
        Number of rows.

    Returns
    -------
    values : ndarray of shape (n,), of integers or floats
        Any number where one is missing.
    missing : ndarray of shape (n,), bool

    Raises
    ------
    UserError
        If there is not exactly one number, or a missing one, for each row.
    """
    array, missing = _split_missing(values)
    if array.shape != (n,) or array.dtype.kind not in "iuf":
        raise UserError(
            f"`prefer` is {array.dtype} of shape {array.shape}: give a number for each of {format_count(n, 'row')}"
        )
    return array, missing


def as_codes(values: Any, n: int) -> NDArray[np.int64]:
    """Return a number for each distinct value within which rows are compared (n,); missing ones share one, 0.

    Parameters
    ----------
    values : array-like of shape (n,)
        Any hashable values; NaN, None, NaT, NA and masked entries are missing.
    n : int
        Number of rows.

    Raises
    ------
    UserError
        If there is not exactly one value, or a missing one, for each row, or one is not hashable.
    """
    array = to_array(values)
    if array.shape != (n,):
        raise UserError(
            f"`within` has shape {array.shape}: give one value, such as a class, for each of {format_count(n, 'row')}"
        )
    missing = find_missing(array)
    items = array.tolist()
    for row in np.flatnonzero(~missing).tolist() if array.dtype == object else ():
        if not is_hashable(items[row]):
            raise UserError(
                f"`within` has a {type(items[row]).__name__} at row {row}, which cannot be compared: give text, "
                "numbers or tuples"
            )
    numbers: dict[Any, int] = {}
    pairs = zip(items, missing.tolist(), strict=True)
    codes = (0 if none else numbers.setdefault(item, 1 + len(numbers)) for item, none in pairs)
    return np.fromiter(codes, np.int64, n)


def _split_missing(values: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return numbers, with any number where one is missing, and a mask of the missing ones; of other values a mask."""
    if isinstance(values, np.ma.MaskedArray):
        return values.data, np.ma.getmaskarray(values)
    try:
        array = to_array(values)
    except ValueError:  # ragged
        array = np.empty((), object)
    missing = find_missing(array)
    if array.dtype == object and array.ndim == 1:
        there = array[~missing].tolist()
        if all(isinstance(item, Decimal) for item in there):
            there = [float(item) for item in there]
        numbers = _as_numeric(there)
        if numbers.dtype.kind in "iuf":
            array = np.zeros(len(missing), numbers.dtype)
            array[~missing] = numbers
    return array, missing


def _as_numeric(items: list[Any]) -> NDArray[Any]:
    """Return plain numbers as an array of numbers, and anything else as an array of objects."""
    if all(isinstance(item, (int, float, np.integer, np.floating)) and not isinstance(item, bool) for item in items):
        return np.array(items, np.float64 if not items else None)
    return np.empty(len(items), object)
