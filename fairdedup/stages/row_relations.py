"""Who stands for one row of a finished run, and for whom it stands. A task reads one part of the decisions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fairdedup.storage.sealed_files import Seal, load_table, read_schema

EARLIER = ("representative_run", "representative_id")  # columns of a run against earlier ones


class Represented(NamedTuple):
    """Removed rows that one row represents.

    Attributes
    ----------
    number : int
    rows : ndarray of shape (m,), int64
        Some of them: those with the highest cosines, and at the end the one with the least.
    cosines : ndarray of shape (m,), float64
    """

    number: int
    rows: NDArray[np.int64]
    cosines: NDArray[np.float64]


def find_represented(part: Seal, row: int, most: int) -> Represented:
    """Return the removed rows of a part of the decisions that a row represents.

    Parameters
    ----------
    part : Seal
        Part of the decisions.
    row : int
    most : int
        Number of rows to return, at least 2.
    """
    table = load_table(part, ["row", "kept", "representative", "similarity"])
    own = pc.and_(pc.equal(table.column("representative"), row), pc.invert(table.column("kept")))
    table = table.filter(own)
    return join_represented(
        [Represented(table.num_rows, table.column("row").to_numpy(), table.column("similarity").to_numpy())], most
    )


def join_represented(found: list[Represented], most: int) -> Represented:
    """Return what several parts have found as one.

    Parameters
    ----------
    found : list of Represented
        At least one.
    most : int
        Number of rows to return, at least 2.
    """
    rows = np.concatenate([part.rows for part in found])
    cosines = np.concatenate([part.cosines for part in found])
    order = np.lexsort((rows, -cosines))
    if len(order) > most:
        order = np.append(order[: most - 1], order[-1])
    return Represented(sum(part.number for part in found), rows[order], cosines[order])


def read_earlier_representative(part: Seal, row: int) -> tuple[str, str] | None:
    """Return the run and the id of the sample of an earlier run that represents a row; None if none does.

    Parameters
    ----------
    part : Seal
        Part of the decisions that has the row.
    row : int
    """
    if not set(EARLIER) <= set(read_schema(part).names):
        return None
    table = load_table(part, ["row", *EARLIER])
    line = table.filter(pc.equal(table.column("row"), pa.scalar(row))).to_pylist()[0]
    run, name = (line[column] for column in EARLIER)
    return None if name is None else (run, name)
