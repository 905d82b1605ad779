"""The stage after the results: writes to state/ what a later run starts from, a task for each group of shards.

A task reads the group's decisions and its sorted vectors, so a finished run is enough to make the state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from fairdedup.core.moments import Moments
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.similarity import Vectors, quantised
from fairdedup.prototype_files import read_prototypes
from fairdedup.storage.contents import Embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.nearby_clusters import load_nearby
from fairdedup.storage.result_files import result_part
from fairdedup.storage.run_files import write_array
from fairdedup.storage.run_state import KeptRun, identify_run, read_run_state, state_file
from fairdedup.storage.sealed_files import Unsealed, load_array, load_table
from fairdedup.storage.seals import seal
from fairdedup.storage.shard_files import open_sorted
from fairdedup.storage.shard_groups import Group
from fairdedup.storage.state_directory import Segment, StateDirectory
from fairdedup.storage.within_values import read_group_codes
from fairdedup.tasks import Submit, map_groups

BLOCK = 1 << 14  # rows whose similarities are in memory at a time


@dataclass(frozen=True)
class StateInputs:
    """What the state of a run is computed from, besides its decisions.

    Attributes
    ----------
    clusters : int
        Number of clusters.
    prototypes : Prototypes or None
    moments : Moments or None
        Moments that standardise similarities to the prototypes; None leaves them as they are.
    nearby : int
        Number of other clusters that a row can reach; 0 if rows are compared within clusters only.
    within : str or None
        Column within whose values rows are compared.
    """

    clusters: int
    prototypes: Prototypes | None
    moments: Moments | None
    nearby: int
    within: str | None


def write_group_state(
    group: Group, root: Path, folder: Path, inputs: StateInputs, decisions: Mapping[str, str]
) -> dict[str, str]:
    """Write the segment of consecutive shards and its sums over each cluster; return the seals of the segment.

    Parameters
    ----------
    group : Group
    root : Path
        Run directory.
    folder : Path
        Folder of the run in state/.
    inputs : StateInputs
    decisions : mapping of str to str
        Seal of each part of the decisions, by path below the run directory.
    """
    clusters, prototypes, moments = inputs.clusters, inputs.prototypes, inputs.moments
    run = RunDirectory(root)
    columns = ["row", "id", "cluster", "kept", "centroid_similarity"]
    table = load_table(result_part(run, "decisions", group.number, decisions), columns)
    decided, cluster = table.column("row").to_numpy(), table.column("cluster").to_numpy()
    kept = table.column("kept").to_numpy().astype(bool)
    rows, unit = open_sorted(run, group.number, "rows", "vectors")
    stays = np.flatnonzero(np.isin(rows, decided[kept]))
    places = np.searchsorted(decided, rows[stays])
    offsets = np.concatenate(([0], np.cumsum(np.bincount(cluster[kept], minlength=clusters)))).astype(np.int64)
    ids = table.column("id").combine_chunks().take(pa.array(places))
    nearby = None
    if inputs.nearby:
        most = min(inputs.nearby, clusters - 1)
        nearby = load_nearby(run, group)[stays, :most] if len(stays) else np.zeros((0, most, 2), np.int32)
    own, codes = np.asarray(rows[stays]), None
    if inputs.within is not None:
        codes = read_group_codes(run, group, inputs.within)[np.searchsorted(group.rows(), own)]
    seals = Segment(folder, group.number).write(np.asarray(unit[stays]), offsets, own, ids, nearby, codes)

    sizes = np.zeros((clusters, 2), np.int64)
    np.add.at(sizes, (cluster, 0), 1)
    np.add.at(sizes, (cluster, 1), quantised(table.column("centroid_similarity").to_numpy()))
    write_array(_sums_path(folder, "sizes", group.number), sizes)
    concepts = np.zeros((clusters, 2, 0 if prototypes is None else len(prototypes.concepts)), np.int64)
    valid = np.flatnonzero(np.isin(rows, decided)) if prototypes is not None else np.zeros(0, np.int64)
    for start in range(0, len(valid), BLOCK):
        own = valid[start : start + BLOCK]
        assert prototypes is not None
        similarity = np.concatenate(prototypes.similarity(Vectors.of(unit[own])), axis=1)
        p = quantised(similarity if moments is None else moments.standardise(similarity))
        at = np.searchsorted(decided, rows[own])
        np.add.at(concepts, (cluster[at], 0), p)
        np.add.at(concepts, (cluster[at][kept[at]], 1), p[kept[at]])
    write_array(_sums_path(folder, "concepts", group.number), concepts)
    return seals


def _sums_path(folder: Path, what: str, number: int) -> Path:
    return folder / f".{what}_{number}.npy"


def write_segments(
    embedded: Embedded, inputs: StateInputs, decisions: Mapping[str, str], submit: Submit, *, number: int
) -> KeptRun:
    """Write the folder of this run in its own state, and return its entry for state.json.

    The folder has sums over the decided rows: ``sizes.npy`` int64 (k, 2), the number of rows and their quantised
    centroid similarity; ``concepts.npy`` int64 (k, 2, c), p of `fairdedup` over all rows and over the kept rows.

    Parameters
    ----------
    embedded : Embedded
    inputs : StateInputs
    decisions : mapping of str to str
        Seal of each part of the decisions, by path below the run directory.
    submit : Submit
    number : int
        Place of this run in the line, which is the last.
    """
    root, parts = embedded.directory.root, embedded.groups
    folder = StateDirectory(root).run_folder(number)
    own = {name: sealed for name, sealed in decisions.items() if name.startswith("decisions/")}
    files: dict[str, str] = {}
    for seals in map_groups(submit, "state", write_group_state, parts, root, folder, inputs, own):
        files |= seals
    for what in ("sizes", "concepts"):  # one group at a time: all of them together may be large
        total = np.sum([0])
        for group in parts:
            total = total + load_array(
                Unsealed(_sums_path(folder, what, group.number), "a task of this command has written it")
            )
            _sums_path(folder, what, group.number).unlink()
        write_array(folder / f"{what}.npy", total)
        files[f"{what}.npy"] = seal(folder / f"{what}.npy")
    return KeptRun(run=str(root), identity=identify_run(files), segments=len(parts), files=files)


def read_temperatures(run: RunDirectory, prototypes: Prototypes) -> tuple[float, ...]:
    """Return the temperature of each attribute of a run; empty if the run was decided by other prototypes.

    A run with ``--against`` has the temperatures of the first run, not those that `auto` would find for its own rows.
    """
    state = read_run_state(run.root)
    if state is None or state.prototypes is None:
        return ()
    own = read_prototypes(state_file(run.root, state, "prototypes.parquet")).same_as(prototypes)
    return tuple(state.temperatures) if own else ()
