"""From ids to rows and back, by the metadata of the embedding shards. A task looks through one group of shards."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fairdedup.errors import UserError
from fairdedup.storage.contents import Embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.shard_files import read_shard_metadata
from fairdedup.storage.shard_groups import Group
from fairdedup.tasks import Submit, map_groups


def find_rows_of_id(group: Group, directory: RunDirectory, name: str) -> list[int]:
    """Return the rows of a group whose id is `name`: one at most, unless the run was made of damaged files.

    Parameters
    ----------
    group : Group
    directory : RunDirectory
    name : str
        The id.
    """
    found: list[int] = []
    for record, first in group.shards():
        if record.valid:
            ids = read_shard_metadata(directory, record, ["id"]).column("id")
            places = np.flatnonzero(pc.equal(ids, name).to_numpy(zero_copy_only=False))
            found += (first + record.positions()[places]).tolist()
    return found


def find_row(embedded: Embedded, name: str, submit: Submit) -> int:
    """Return the row of the sample with an id.

    Parameters
    ----------
    embedded : Embedded
    name : str
        The id.
    submit : Submit
        Runs the tasks that look for it.

    Raises
    ------
    UserError
        If no sample with a vector has the id.
    """
    found = map_groups(submit, "look up", find_rows_of_id, embedded.groups, embedded.directory, name)
    rows = [row for own in found for row in own]
    if rows:
        return rows[0]
    for record in embedded.records:
        for rejection in record.rejected:
            if rejection.id == name:
                raise UserError(
                    f"--id {name!r} is a rejected sample without a vector ({rejection.reason}): give another id"
                )
    raise UserError(
        f"--id {name!r} is not in {embedded.directory.root}: give an id as the column id of kept/ or decisions/ has it"
    )


def read_row_ids(embedded: Embedded, rows: Iterable[int]) -> dict[int, str]:
    """Return the ids of some rows that have vectors. Only the shards that hold them are read.

    Parameters
    ----------
    embedded : Embedded
    rows : iterable of int
        Positions in the input.
    """
    wanted, found = np.array(sorted(set(rows)), np.int64), dict[int, str]()
    for group in embedded.groups:
        for record, first in group.shards():
            low, high = np.searchsorted(wanted, [first, first + record.input])
            if low < high:
                ids = read_shard_metadata(embedded.directory, record, ["id"]).column("id")
                places = np.searchsorted(first + record.positions(), wanted[low:high])
                names = ids.take(pa.array(places)).to_pylist()
                found |= dict(zip(wanted[low:high].tolist(), names, strict=True))
    return found
