"""Ids of a list without the shard, such as a list of removed samples, in a run whose ids have it (``--id shard/key``).

Only embeddings in the layout of clip-retrieval, which that of a run is, are looked through: `refit` reads them.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fairdedup.errors import UserError
from fairdedup.storage.contents import Embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.records import ShardRecord
from fairdedup.storage.shard_files import read_shard_metadata
from fairdedup.storage.shard_groups import Group
from fairdedup.tasks import Submit, map_groups

ARRAY, GONE, EMBEDDINGS = ".npy", "gone", "embeddings"


class FoundKeys(NamedTuple):
    """Keys of a list that the shards of a group have.

    Attributes
    ----------
    places : ndarray of shape (n,), int64
        Place of each key in the list.
    ids : list of str
        Id of the sample with this key: the shard, then the key.
    shards : list of str
        Name of its shard.
    """

    places: NDArray[np.int64]
    ids: list[str]
    shards: list[str]


def find_keys(group: Group, root: Path, keys: pa.Array) -> FoundKeys:
    """Return which keys the shards of a group have.

    Parameters
    ----------
    group : Group
    root : Path
        Run directory.
    keys : Array of string
        Ids without the shard.
    """
    places, ids, shards = [np.zeros(0, np.int64)], [], []
    for record, _ in group.shards():
        own = _list_ids(RunDirectory(root), record)
        prefix = f"{record.name.removesuffix(ARRAY)}/"
        own = own.filter(pc.starts_with(own, prefix))
        found = pc.index_in(pc.utf8_slice_codeunits(own, len(prefix)), value_set=keys)
        places.append(pc.drop_null(found).to_numpy(zero_copy_only=False).astype(np.int64))
        ids += own.filter(pc.is_valid(found)).to_pylist()
        shards += [record.name] * len(places[-1])
    return FoundKeys(np.concatenate(places), ids, shards)


def _list_ids(run: RunDirectory, record: ShardRecord) -> pa.Array:
    """Return the ids of all samples of a shard, those of rejected ones last; none of one in another layout."""
    if not record.name.endswith(ARRAY):
        return pa.array([], pa.string())
    ids = read_shard_metadata(run, record, ["id"]).column("id").cast(pa.string())
    rejected = pa.array([each.id for each in record.rejected], pa.string())
    return pa.concat_arrays([*ids.chunks, rejected])


def name_shards(
    ids: pa.Array, unknown: NDArray[np.int64], file: Path, option: str, embedded: Embedded, submit: Submit
) -> pa.Array | None:
    """Return a list of ids in which the unknown ones that are keys have the shard before them.

    A list of removed samples, RUN/gone/gone_N.parquet, names samples of RUN only.

    Parameters
    ----------
    ids : Array of string
        The list.
    unknown : ndarray of int64
        Places of the ids that no sample has.
    file : Path
        The user's file.
    option : str
        The option that names it, for messages.
    embedded : Embedded
    submit : Submit

    Returns
    -------
    Array of string or None
        The new list, without repetitions; None if nothing changes.

    Raises
    ------
    UserError
        If several samples have such a key, and the file does not say which is meant.
    """
    keys = ids.take(pa.array(unknown))
    found = map_groups(submit, "curate", find_keys, embedded.groups, embedded.directory.root, keys)
    by_place: dict[int, list[tuple[str, str]]] = {}
    for each in found:
        for place, id_, shard in zip(each.places.tolist(), each.ids, each.shards, strict=True):
            by_place.setdefault(place, []).append((id_, shard))
    if not by_place:
        return None
    texts, own = ids.to_pylist(), _find_own_shards(file, [record.name for record in embedded.records])
    for place, samples in by_place.items():
        fitting = [id_ for id_, shard in samples if shard in own] if own else [id_ for id_, _ in samples]
        if len(fitting) > 1:
            raise UserError(
                f"{option} {file}: {keys[place].as_py()!r} may be {fitting[0]!r} or {fitting[1]!r}: write the ids to "
                "another file, with the shard before the key"
            )
        if fitting:
            texts[int(unknown[place])] = fitting[0]
    return pc.unique(pa.array(texts, pa.string()))


def _find_own_shards(file: Path, names: Sequence[str]) -> frozenset[str]:
    """Return the shards of the run whose list of removed samples a file is; none if it is another file."""
    folder = posixpath.dirname(str(file.absolute()))
    if posixpath.basename(folder) != GONE:
        return frozenset()
    place = posixpath.join(posixpath.dirname(folder), EMBEDDINGS)
    runs = {posixpath.dirname(name) for name in names} - {""}
    fitting = [run for run in runs if place.endswith(f"/{run}")]
    return frozenset(name for name in names if [posixpath.dirname(name)] == fitting)
