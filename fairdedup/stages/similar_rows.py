"""The rows that are most similar to one vector: exact cosines over all vectors of a run, a block at a time.

A task goes through one group of shards and returns its best rows, so memory holds a block and the best so far.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.similarity import Vectors, cosines
from fairdedup.storage.contents import Embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.run_files import release_pages
from fairdedup.storage.sealed_files import Seal, load_table
from fairdedup.storage.shard_files import GroupVectors, open_shard_vectors
from fairdedup.storage.shard_groups import Group
from fairdedup.tasks import Submit, Task

BLOCK = 1 << 13  # vectors that are widened at a time


class SimilarRows(NamedTuple):
    """Rows and their cosines, the highest cosine first, ties to the lower row.

    Attributes
    ----------
    rows : ndarray of shape (m,), int64
    cosines : ndarray of shape (m,), float64
    """

    rows: NDArray[np.int64]
    cosines: NDArray[np.float64]

    def best(self, most: int) -> SimilarRows:
        """Return the `most` best rows."""
        order = np.lexsort((self.rows, -self.cosines))[:most]
        return SimilarRows(self.rows[order], self.cosines[order])


NOTHING = SimilarRows(np.zeros(0, np.int64), np.zeros(0))


def _join(found: list[SimilarRows], most: int) -> SimilarRows:
    return SimilarRows(*map(np.concatenate, zip(NOTHING, *found, strict=True))).best(most)


def find_similar_in_group(
    group: Group, directory: RunDirectory, unit: NDArray[np.float16], most: int, decisions: Seal | None = None
) -> SimilarRows:
    """Return the rows of a group that are most similar to a vector.

    Parameters
    ----------
    group : Group
    directory : RunDirectory
    unit : ndarray of shape (d,), float16
        Unit vector.
    most : int
        Number of rows to return.
    decisions : Seal, optional
        Decisions of the group, of which only kept rows are compared; without it all rows are.
    """
    query, best = Vectors.of(unit[None, :]), NOTHING
    kept = None
    if decisions is not None:
        table = load_table(decisions, ["row", "kept"])
        kept = table.column("row").to_numpy()[table.column("kept").to_numpy()]
    for record, first in group.shards():
        if not record.valid:
            continue
        vectors, rows = open_shard_vectors(directory, record), first + record.positions()
        for start in range(0, len(rows), BLOCK):
            own, block = rows[start : start + BLOCK], np.asarray(vectors[start : start + BLOCK])
            if kept is not None:
                wanted = np.isin(own, kept, assume_unique=True)
                own, block = own[wanted], block[wanted]
            if len(own):
                best = _join([best, SimilarRows(own, cosines(Vectors.of(block), query)[:, 0])], most)
            release_pages(vectors)
    return best


def find_similar_rows(
    embedded: Embedded,
    unit: NDArray[np.float16],
    most: int,
    submit: Submit,
    decisions: list[Seal] | None = None,
) -> SimilarRows:
    """Return the rows of a run that are most similar to a vector.

    Parameters
    ----------
    embedded : Embedded
    unit : ndarray of shape (d,), float16
        Unit vector of the run's own dimension.
    most : int
        Number of rows to return.
    submit : Submit
    decisions : list of Seal, optional
        Decisions of each group, of which only kept rows are compared; without it all rows are.
    """
    tasks = [
        Task(
            (group, embedded.directory, unit, most, None if decisions is None else decisions[k]),
            group.input,
            group.name,
        )
        for k, group in enumerate(embedded.groups)
    ]
    return _join(submit("search", find_similar_in_group, tasks), most)


def read_vector(embedded: Embedded, row: int) -> NDArray[np.float16]:
    """Return the unit vector (d,) of a row that has one."""
    (group,) = (group for group in embedded.groups if group.first <= row < group.first + group.input)
    return GroupVectors(embedded.directory, group).read_rows(np.array([row], np.int64))[0]
