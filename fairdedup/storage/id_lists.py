"""A list of ids on disk, in which the tasks of a command look up the ids of their rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fairdedup.errors import UserError, format_count
from fairdedup.storage.run_files import write_table
from fairdedup.storage.sealed_files import Unsealed, load_table

FEW = 3  # ids that a message names


def write_ids(path: Path, ids: pa.Array) -> None:
    """Write a list of ids that every worker can read."""
    write_table(path, pa.table({"id": ids}))


def find_ids(path: Path, ids: Any) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which of some ids (n,) are in the list at a path, and their places in it; none if there is no list."""
    if not path.is_file():
        return np.zeros(len(ids), np.bool_), np.zeros(0, np.int64)
    known = load_table(Unsealed(path, "the same command has written it")).column("id").combine_chunks()
    found = pc.index_in(pa.chunked_array([ids]) if isinstance(ids, pa.Array) else ids, value_set=known)
    return pc.is_valid(found).to_numpy().astype(bool), pc.drop_null(found).to_numpy().astype(np.int64)


def find_unknown(ids: pa.Array, found: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return the places of the ids of a list that no shard has.

    Parameters
    ----------
    ids : Array
        All ids of the list.
    found : list of ndarray of int64
        For each task, the places of the ids that it has found.
    """
    return np.delete(np.arange(len(ids)), np.unique(np.concatenate(found)))


def describe_unknown(ids: pa.Array, unknown: NDArray[np.int64], what: str) -> str:
    """Return in words how many ids of a list no shard has, and the first few of them.

    Parameters
    ----------
    ids : Array
        All ids of the list.
    unknown : ndarray of int64
        Places of those that no shard has; at least one.
    what : str
        Option and file.
    """
    first = ", ".join(repr(name) for name in ids.take(pa.array(unknown[:FEW])).to_pylist())
    few = f"the first is {first}" if len(unknown) == 1 else f"the first are {first}"
    count, verb = format_count(len(ids), "id"), "is" if len(unknown) == 1 else "are"
    return f"{what}: {len(unknown):,} of {count} {verb} not in the run; {few}"


def check_any_known(ids: pa.Array, unknown: NDArray[np.int64], what: str) -> None:
    """Refuse a list none of whose ids is in the run: it is of another data set, or written in another way.

    Parameters
    ----------
    ids : Array
        All ids of the list; an empty list is no mistake.
    unknown : ndarray of int64
        Places of those that no shard has.
    what : str
        Option and file, for the message.

    Raises
    ------
    UserError
        If there are ids and none is known.
    """
    if len(ids) and len(unknown) == len(ids):
        raise UserError(
            f"{describe_unknown(ids, unknown, what)}: give ids as the column id of kept/ and rejected/ has them, "
            "with the shard before the key where --id is shard/key, or leave the option out"
        )
