"""The ids that a caller of `deduplicate()` gives: one for each row, unique, and returned as the very objects they are.

NumPy drops the trailing zeros of bytes, and makes text of all entries of a list if one is text. So a list is never
handed to it: its entries become an array of objects. Only plain numbers, which cannot change, become numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import ItemsView, Iterable, KeysView, Sequence, ValuesView
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairdedup.errors import UserError, format_count

_LISTS = (Sequence, deque, KeysView, ValuesView, ItemsView)
_NO_LISTS = (str, bytes, bytearray, memoryview)


def to_array(values: Any) -> NDArray[Any]:
    """Return values of any container as an array whose entries are the values, of the same types.

    Parameters
    ----------
    values : array-like
        From NumPy, torch, pandas or Arrow, or a list. The entries of a list, and values that NumPy has no type for,
        become an array of objects; a list of int, or of float, becomes an array of int64 or float64. Masked entries
        are None.

    Returns
    -------
    ndarray
        Of any shape; not a copy if `values` is an array.
    """
    library = type(values).__module__.partition(".")[0]
    if isinstance(values, np.ma.MaskedArray):
        hidden = np.ma.getmaskarray(values)
        return _as_objects(values.tolist()) if hidden.any() and values.ndim == 1 else values.data
    if library == "torch":
        return np.asarray(values.detach().cpu())
    if library == "pyarrow":
        return _from_arrow(values)
    if isinstance(values, np.ndarray):
        return values
    if library == "pandas" and pd.api.types.is_extension_array_dtype(values) and np.any(pd.isna(values)):
        return np.asarray(values.to_numpy(dtype=object))  # as numbers, the others would be rounded
    if hasattr(values, "to_numpy"):
        return np.asarray(values.to_numpy())
    if isinstance(values, _LISTS) and not isinstance(values, _NO_LISTS):
        return _from_list(list(values))
    return np.asarray(values)


def _from_arrow(values: Any) -> NDArray[Any]:
    import pyarrow as pa

    if isinstance(values, (pa.Table, pa.RecordBatch)):
        return np.empty((values.num_rows, values.num_columns), object)  # refused for its shape
    if isinstance(values, pa.Scalar):
        return np.asarray(values.as_py())
    kind, plain = values.type, (pa.types.is_integer, pa.types.is_floating)
    if not values.null_count and any(test(kind) for test in plain):
        return np.asarray(values.to_numpy(zero_copy_only=False) if isinstance(values, pa.Array) else values.to_numpy())
    if pa.types.is_timestamp(kind) and kind.tz is None:  # Python's own dates have no nanoseconds
        return np.asarray(values.to_numpy(zero_copy_only=False) if isinstance(values, pa.Array) else values.to_numpy())
    return _as_objects(values.to_pylist())


def _from_list(items: list[Any]) -> NDArray[Any]:
    kinds = set(map(type, items))
    if len(kinds) == 1:
        kind = kinds.pop()
        if kind is float or issubclass(kind, (np.integer, np.floating)):
            return np.array(items)
        if kind is int and min(items) >= -(2**63) and max(items) < 2**63:
            return np.array(items, np.int64)
    return _as_objects([None if item is np.ma.masked else item for item in items])


def _as_objects(items: Iterable[Any]) -> NDArray[Any]:
    listed = list(items)
    out = np.empty(len(listed), object)
    for place, item in enumerate(listed):  # an assignment of all would look into tuples and arrays
        out[place] = item
    return out


def find_missing(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where an array (n,) has None, NaN, NaT or NA."""
    if array.dtype.kind not in "fcmMO":
        return np.zeros(array.shape, np.bool_)
    try:
        return np.asarray(pd.isna(array))
    except ArithmeticError:  # a signalling NaN of decimal
        return np.array([_is_missing(item) for item in array.ravel()]).reshape(array.shape)


def _is_missing(item: Any) -> bool:
    try:
        return bool(np.all(pd.isna(item)))
    except ArithmeticError:
        return True


def as_ids(ids: Any, n: int) -> NDArray[Any]:
    """Return unique ids (n,), the row numbers if `ids` is None.

    Parameters
    ----------
    ids : array-like of shape (n,), or None
        IDs from NumPy, torch, pandas or Arrow, or a list of any hashable objects.
    n : int
        Number of rows.

    Returns
    -------
    ndarray of shape (n,)
        As `to_array` returns them.

    Raises
    ------
    UserError
        If there is not exactly one id for each row, one is missing (None, NaN, masked), one cannot be an id, or one is
        a duplicate.
    """
    if ids is None:
        return np.arange(n)
    names = to_array(ids)
    if names.shape != (n,):
        raise UserError(
            f"`ids` have shape {names.shape}: give one for each of {format_count(n, 'row')}, in a list or an array"
        )
    missing = find_missing(names)
    if missing.any():
        row = int(np.argmax(missing))
        raise UserError(f"`ids` has no id at row {row} ({_shown(names[row])}): give one for each row")
    _check_unique(names.tolist())
    return names


def _check_unique(names: list[Any]) -> None:
    try:
        if len(set(names)) == len(names):
            return
    except TypeError:
        row, item = next((row, item) for row, item in enumerate(names) if not is_hashable(item))
        raise UserError(
            f"`ids` holds a {type(item).__name__} at row {row}, which cannot be an id: give text, numbers or tuples"
        ) from None
    seen: set[Any] = set()
    first = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
    raise UserError(f"`ids` holds the duplicate id {_shown(first)}: give unique ones")


def is_hashable(item: Any) -> bool:
    """Tell whether an object can be an id: a tuple that holds a list cannot."""
    try:
        hash(item)
    except TypeError:
        return False
    return True


def _shown(item: Any) -> str:
    """Return an id as its user wrote it, on one line."""
    if isinstance(item, (np.datetime64, np.timedelta64)):
        return str(item)
    return repr(item.item() if isinstance(item, np.generic) else item).replace("\n", " ")


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
        If it is a mask of another shape, an entry is missing, or an id is not that of a row.
    """
    given = to_array(list(always_keep) if isinstance(always_keep, (set, frozenset)) else always_keep)
    if given.shape == ():  # one id
        given = _as_objects([given.item() if isinstance(always_keep, np.ndarray) else always_keep])
    missing = find_missing(given)
    if missing.any():
        place = int(np.argmax(missing.ravel()))
        raise UserError(f"`always_keep` has nothing at place {place}: give ids alone, or a mask of True and False")
    if _is_mask(given):
        if given.shape != names.shape:
            raise UserError(f"`always_keep` is a mask of shape {given.shape}: give {names.shape}, or ids")
        return given.astype(np.bool_)
    wanted, rows = _comparable(given.ravel(), names), _comparable(names, names)
    known = set(rows)
    for item in wanted:
        if not is_hashable(item) or item not in known:
            raise UserError(f"`always_keep` names {_shown(item)}, which is not the id of a row: give ids of the data")
    chosen = set(wanted)
    return np.fromiter((name in chosen for name in rows), np.bool_, len(rows))


def _is_mask(given: NDArray[Any]) -> bool:
    if not given.size:
        return False
    return given.dtype == bool or (
        given.dtype == object and all(isinstance(item, (bool, np.bool_)) for item in given.ravel())
    )


def _comparable(array: NDArray[Any], names: NDArray[Any]) -> list[Any]:
    """Return ids as objects that are equal where they mean the same id among `names`."""
    if names.dtype.kind in "mM":
        return list(pd.Series(array).astype(object)) if array.dtype.kind in "mM" else list(map(_as_pandas, array))
    items: list[Any] = [item.item() if isinstance(item, np.void) else item for item in array.tolist()]
    if names.dtype.kind == "S":  # an array of bytes does not know its trailing zeros
        return [item.rstrip(b"\0") if isinstance(item, bytes) else item for item in items]
    return items


def _as_pandas(item: Any) -> Any:
    if isinstance(item, np.datetime64):
        return pd.Timestamp(item)
    return pd.Timedelta(item) if isinstance(item, np.timedelta64) else item


def as_column(names: NDArray[Any]) -> pd.Series:
    """Return ids as a column of a table. Objects stay the objects that they are: pandas would make text or dates.

    Parameters
    ----------
    names : ndarray of shape (n,)
        IDs, as `as_ids` returns them.
    """
    if names.dtype.kind in "OSV":
        return pd.Series(_as_objects(names.tolist()), dtype=object)
    try:
        return pd.Series(names)
    except (ValueError, TypeError, OverflowError):  # dates that pandas cannot hold
        return pd.Series(_as_objects(names.tolist()), dtype=object)
