"""Converts the arguments of `deduplicate()` from NumPy, torch, pandas and Arrow to arrays, or says what is wrong.

It never changes a value, except that integers and half precision are widened.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairdedup.errors import UserError


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
    try:
        array = np.asarray(embeddings)
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


def _stack(rows: NDArray[Any]) -> NDArray[Any]:
    return np.stack([np.asarray(row, np.float64) for row in rows]) if len(rows) else np.zeros((0, 0))


def _from_arrow(column: Any) -> NDArray[Any]:
    """Return an Arrow list column, or a table with a single column, as a matrix."""
    import pyarrow as pa

    if isinstance(column, (pa.Table, pa.RecordBatch)):
        if column.num_columns != 1:
            raise UserError(f"the Arrow table has {column.num_columns} columns: give the one that holds the embeddings")
        column = column.column(0)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks)
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if column.null_count or not any(is_kind(column.type) for is_kind in kinds):
        raise UserError(
            f"the Arrow column is {column.type} with {column.null_count} nulls: give lists of floats, no nulls"
        )
    values = column.flatten()
    lengths = np.unique(column.value_lengths().to_numpy(zero_copy_only=False)) if len(column) else np.zeros(1, int)
    if len(lengths) != 1:
        raise UserError(
            f"the Arrow lists have {lengths.min()} to {lengths.max()} values: all must have the same length"
        )
    return values.to_numpy(zero_copy_only=False).reshape(len(column), int(lengths[0]))


def as_ids(ids: Any, n: int) -> NDArray[Any]:
    """Return unique ids (n,), the row numbers if `ids` is None.

    Parameters
    ----------
    ids : array-like of shape (n,), or None
        IDs from NumPy, pandas or Arrow.
    n : int
        Number of rows.

    Raises
    ------
    UserError
        If there is not exactly one id for each row, or one is a duplicate.
    """
    if ids is None:
        return np.arange(n)
    names = ids.to_numpy(zero_copy_only=False) if type(ids).__module__.startswith("pyarrow") else np.asarray(ids)
    if names.shape != (n,):
        raise UserError(f"`ids` have shape {names.shape}: give one for each of {n} rows")
    repeated = pd.Series(names).duplicated()
    if repeated.any():
        first = names[int(np.argmax(repeated))]
        first = first.item() if isinstance(first, np.generic) else first
        raise UserError(f"`ids` holds the duplicate id {first!r}: give unique ones")
    return names


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
        If there is not exactly one label for each row, or a label is not such an integer.
    """
    if type(labels).__module__.partition(".")[0] == "torch":
        labels = labels.detach().cpu().numpy()
    array = np.asarray(labels)
    if array.shape != (n,) or array.dtype.kind not in "iu":
        raise UserError(
            f"`clusters` are {array.dtype} of shape {array.shape}: give a number, auto, or {n} integer labels"
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


def as_numbers(values: Any, n: int) -> NDArray[Any]:
    """Return the values to prefer by: integers or floats of shape (n,).

    Parameters
    ----------
    values : array-like of shape (n,)
        Numbers; NaN is missing.
    n : int
        Number of rows.

    Raises
    ------
    UserError
        If there is not exactly one number for each row.
    """
    array = np.asarray(values)
    if array.shape != (n,) or array.dtype.kind not in "iuf":
        raise UserError(f"`prefer` is {array.dtype} of shape {array.shape}: give a number for each of {n} rows")
    return array


def as_mask(always_keep: Any, names: NDArray[Any]) -> NDArray[np.bool_]:
    """Return a mask (n,) of the rows that are always kept.

    Parameters
    ----------
    always_keep : array-like
        A mask of shape (n,), or ids.
    names : ndarray of shape (n,)
        The ids of all rows.

    Raises
    ------
    UserError
        If it is a mask of another shape, or an id is not that of a row.
    """
    array = np.asarray(always_keep)
    if array.dtype == bool and array.size:
        if array.shape != names.shape:
            raise UserError(f"`always_keep` is a mask of shape {array.shape}: give {names.shape}, or ids")
        return array
    given = pd.Index(np.atleast_1d(array).ravel())
    unknown = ~given.isin(names)
    if unknown.any():
        first = given[int(np.argmax(unknown))]
        first = first.item() if isinstance(first, np.generic) else first
        raise UserError(f"`always_keep` names {first!r}, which is not the id of a row: give ids of the data")
    return pd.Index(names).isin(given)
