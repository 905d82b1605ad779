"""After the decision: what a later run goes on from, written to state/ by a task for each group of shards.

The task reads the group's decisions and its sorted vectors, so the state can be made from a finished run alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from fairdedup.core.moments import Moments
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.similarity import Vectors, quantised
from fairdedup.prototype_files import read_prototypes
from fairdedup.storage.contents import Embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.run_files import read_array, read_table, write_array
from fairdedup.storage.run_state import KeptRun, identify_run, read_run_state
from fairdedup.storage.seals import seal
from fairdedup.storage.shard_groups import Group
from fairdedup.storage.state_directory import Segment, StateDirectory
from fairdedup.tasks import Submit, map_groups

BLOCK = 1 << 14  # rows whose similarities are held at a time


def write_group_state(
    group: Group, root: Path, folder: Path, clusters: int, prototypes: Prototypes | None, moments: Moments | None
) -> dict[str, str]:
    """Write the segment of consecutive shards, and beside it its sums over each cluster; return the segment's seals."""
    run = RunDirectory(root)
    columns = ["row", "id", "cluster", "kept", "centroid_similarity"]
    table = read_table(run.part("decisions", group.number), columns)
    decided, cluster = table.column("row").to_numpy(), table.column("cluster").to_numpy()
    kept = table.column("kept").to_numpy().astype(bool)
    rows = np.asarray(read_array(run.sorted("rows", group.number)))
    unit = read_array(run.sorted("vectors", group.number))
    stays = np.flatnonzero(np.isin(rows, decided[kept]))
    places = np.searchsorted(decided, rows[stays])
    offsets = np.concatenate(([0], np.cumsum(np.bincount(cluster[kept], minlength=clusters)))).astype(np.int64)
    ids = table.column("id").combine_chunks().take(pa.array(places))
    seals = Segment(folder, group.number).write(np.asarray(unit[stays]), offsets, np.asarray(rows[stays]), ids)

    sizes = np.zeros((clusters, 2), np.int64)
    np.add.at(sizes, (cluster, 0), 1)
    np.add.at(sizes, (cluster, 1), quantised(table.column("centroid_similarity").to_numpy()))
    write_array(_sums(folder, "sizes", group.number), sizes)
    concepts = np.zeros((clusters, 2, 0 if prototypes is None else len(prototypes.concepts)), np.int64)
    valid = np.flatnonzero(np.isin(rows, decided)) if prototypes is not None else np.zeros(0, np.int64)
    for start in range(0, len(valid), BLOCK):
        own = valid[start : start + BLOCK]
        assert prototypes is not None
        similarity = np.concatenate(prototypes.similarity(Vectors.of(unit[own]), absent=False), axis=1)
        p = quantised(similarity if moments is None else moments.standardise(similarity))
        at = np.searchsorted(decided, rows[own])
        np.add.at(concepts, (cluster[at], 0), p)
        np.add.at(concepts, (cluster[at][kept[at]], 1), p[kept[at]])
    write_array(_sums(folder, "concepts", group.number), concepts)
    return seals


def _sums(folder: Path, what: str, number: int) -> Path:
    return folder / f".{what}_{number}.npy"


def write_segments(
    embedded: Embedded, number: int, clusters: int, prototypes: Prototypes | None, moments: Moments | None,
    submit: Submit,
) -> KeptRun:  # fmt: skip
    """Write the folder of this run in its own state, the last of the line, and return what state.json says of it.

    Its sums, over the rows that were decided: ``sizes.npy`` int64 (k, 2), rows and their quantised centroid
    similarity; ``concepts.npy`` int64 (k, 2, c), p of `fairdedup` over all and over the kept ones.
    """
    root, parts = embedded.directory.root, embedded.groups
    folder = StateDirectory(root).run_folder(number)
    files: dict[str, str] = {}
    for seals in map_groups(submit, "state", write_group_state, parts, root, folder, clusters, prototypes, moments):
        files |= seals
    for what in ("sizes", "concepts"):  # one after the other: all of them at once may be large
        total = np.sum([0])
        for group in parts:
            total = total + np.asarray(read_array(_sums(folder, what, group.number)))
            _sums(folder, what, group.number).unlink()
        write_array(folder / f"{what}.npy", total)
        files[f"{what}.npy"] = seal(folder / f"{what}.npy")
    return KeptRun(run=str(root), identity=identify_run(files), segments=len(parts), files=files)


def read_temperatures(run: RunDirectory, prototypes: Prototypes) -> tuple[float, ...]:
    """Return the temperature of each attribute that a run's memberships had; () if it was decided by other prototypes.

    A run --against others has those of the first run, not what `auto` would make of its own rows.
    """
    state = read_run_state(run.root)
    if state is None or state.prototypes is None:
        return ()
    own = read_prototypes(StateDirectory(run.root).prototypes).same_as(prototypes)
    return tuple(state.temperatures) if own else ()
