"""A list of ids on disk, in which the tasks of a command look up the ids of their rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fairdedup.storage.run_files import read_table, write_table


def write_ids(path: Path, ids: pa.Array) -> None:
    """Write a list of ids that every worker can read."""
    write_table(path, pa.table({"id": ids}))


def find_ids(path: Path, ids: Any) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which of some ids (n,) are in the list at a path, and their places in it; none if there is no list."""
    try:
        known = read_table(path).column("id").combine_chunks()
    except FileNotFoundError:
        return np.zeros(len(ids), np.bool_), np.zeros(0, np.int64)
    found = pc.index_in(pa.chunked_array([ids]) if isinstance(ids, pa.Array) else ids, value_set=known)
    return pc.is_valid(found).to_numpy().astype(bool), pc.drop_null(found).to_numpy().astype(np.int64)


def unknown_ids(ids: pa.Array, found: list[NDArray[np.int64]], what: str) -> list[str]:
    """Return a warning with the number of ids that no shard has, and the first of them; no warning if all were found.

    Parameters
    ----------
    ids : Array
        All ids of the list.
    found : list of ndarray of int64
        For each task, the places of the ids that it has found.
    what : str
        Option and file, for the message.
    """
    unknown = np.delete(np.arange(len(ids)), np.unique(np.concatenate(found)))
    if not len(unknown):
        return []
    first = ids[int(unknown[0])].as_py()
    return [f"{what}: {len(unknown)} of {len(ids)} ids are not in the run; the first is {first!r}"]
