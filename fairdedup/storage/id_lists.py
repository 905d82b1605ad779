"""A list of ids that the tasks of a command look their shards' rows up in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fairdedup.storage.run_files import read_table, write_table


def write_ids(path: Path, ids: pa.Array) -> None:
    """Write a list of ids where every worker can read it."""
    write_table(path, pa.table({"id": ids}))


def find_ids(path: Path, ids: Any) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which of these ids (n,) the list at a path names, and their places in it; none where there is no list."""
    try:
        known = read_table(path).column("id").combine_chunks()
    except FileNotFoundError:
        return np.zeros(len(ids), np.bool_), np.zeros(0, np.int64)
    found = pc.index_in(pa.chunked_array([ids]) if isinstance(ids, pa.Array) else ids, value_set=known)
    return pc.is_valid(found).to_numpy().astype(bool), pc.drop_null(found).to_numpy().astype(np.int64)


def unknown_ids(ids: pa.Array, found: list[NDArray[np.int64]], what: str) -> list[str]:
    """Return a line that says how many of the ids no shard has found, and names the first; none if all were."""
    unknown = np.delete(np.arange(len(ids)), np.unique(np.concatenate(found)))
    if not len(unknown):
        return []
    first = ids[int(unknown[0])].as_py()
    return [f"{what}: {len(unknown)} of {len(ids)} ids are not in the run; the first is {first!r}"]
