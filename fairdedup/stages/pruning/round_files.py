"""What a decision in rounds leaves on disk for its own later steps, in a folder of the run that it removes at its end.

Tasks run in any process, so the visits between clusters, the flags of all rows and the states of the clusters go
through files. A name is written once, and a task that runs twice writes the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.core import kmeans
from fairdedup.core.model import Options
from fairdedup.core.reach import Nearby, Visits, assign_and_find_nearby, reach_limits
from fairdedup.storage.contents import Clustered
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.marks import WRITTEN
from fairdedup.storage.nearby_clusters import has_nearby, load_nearby, write_nearby
from fairdedup.storage.object_stores import RemotePath
from fairdedup.storage.packed_arrays import pack_arrays, unpack_arrays
from fairdedup.storage.remedies import cluster_again
from fairdedup.storage.run_files import remove_folder, write_array
from fairdedup.storage.sealed_files import Seal, Unsealed, load_array, open_array
from fairdedup.storage.shard_files import open_sorted
from fairdedup.storage.shard_groups import Group
from fairdedup.tasks import Submit, map_groups

VISITS = ("starts", "rows", "needed")  # arrays of `Visits`


@dataclass(frozen=True)
class ReachedClusters:
    """Which clusters the rows of a run may reach, and where that is listed.

    Attributes
    ----------
    root : Path
        Run directory.
    folder : Path
        Folder of the lists.
    centroids : str
        Seal of the centroids.
    options : Options
        `reach` and `reach_clusters`.
    """

    root: Path
    folder: Path
    centroids: str
    options: Options


def list_visits_of_group(group: Group, reached: ReachedClusters, eps: int) -> None:
    """List which rows of a sorted group reach each cluster at an eps, as places in the group.

    Parameters
    ----------
    group : Group
    reached : ReachedClusters
    eps : int
        Ten-thousandths.
    """
    run, options = RunDirectory(reached.root), reached.options
    vectors, offsets = open_sorted(run, group.number, "vectors", "offsets")
    found = read_nearby(run, group, reached.centroids, options.reach_clusters)
    limits = reach_limits(options.reach, vectors.shape[1])
    visits = Visits.of(Nearby(found[..., 0], found[..., 1]), limits, len(offsets) - 1, eps)
    write_visits(reached.folder, _name_visits(eps), group.number, visits)


def read_nearby(run: RunDirectory, group: Group, centroids: str, reach_clusters: int) -> NDArray[np.int32]:
    """Return the other clusters that the rows of a sorted group may reach, and the gaps to them: (n, r - 1, 2).

    Parameters
    ----------
    run : RunDirectory
    group : Group
    centroids : str
        Seal of the centroids.
    reach_clusters : int
        Number of clusters that a row can reach, its own included.
    """
    most = max(reach_clusters, kmeans.NEARBY)
    if not has_nearby(run, group, centroids, most):  # as after an earlier version, or with more of them
        known = kmeans.unit_centroids(load_array(Seal(run.centroids, centroids, cluster_again(run.root))))
        vectors = np.asarray(open_sorted(run, group.number, "vectors")[0])
        nearby = assign_and_find_nearby(vectors, known, most)[1]
        write_nearby(run, group, centroids, nearby.clusters, nearby.gaps, most)
    found: NDArray[np.int32] = load_nearby(run, group)[:, : reach_clusters - 1]
    return found


def _name_visits(eps: int) -> str:
    return f"visits_{eps}"


def write_visits(folder: Path, name: str, number: int, visits: Visits) -> None:
    """Write visits under a name and a number."""
    for array in VISITS:
        write_array(folder / f"{name}_{array}_{number}.npy", getattr(visits, array), durable=False)


def open_visits(folder: Path, name: str, number: int) -> Visits:
    """Return what `write_visits` has written, mapped into memory."""
    return Visits(*(open_array(Unsealed(folder / f"{name}_{array}_{number}.npy", WRITTEN)) for array in VISITS))


def open_visits_of_group(folder: Path, eps: int, number: int) -> Visits:
    """Return the visits of the rows of a group, up to an eps."""
    return open_visits(folder, _name_visits(eps), number)


def save_arrays(folder: Path, name: str, number: int, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays under a name and the number of a task, as one file."""
    write_array(folder / f"{name}.{number}.npy", pack_arrays(arrays), durable=False)


def load_arrays(folder: Path, name: str, number: int) -> dict[str, NDArray[Any]] | None:
    """Return the arrays that `save_arrays` has written, read-only; None if there are none."""
    path = folder / f"{name}.{number}.npy"
    if not path.is_file():
        return None
    load = load_array if isinstance(folder, RemotePath) else open_array
    return unpack_arrays(load(Unsealed(path, WRITTEN)))


@dataclass(frozen=True)
class SharedFile:
    """An array in a file, which every task of a step reads."""

    path: Path

    def read(self) -> NDArray[Any]:
        """Return the array, read-only."""
        return np.asarray(open_array(Unsealed(self.path, WRITTEN)))


class WorkspaceOnDisk:
    """A `Workspace` in a folder of the run.

    Parameters
    ----------
    clustered : Clustered
    folder : Path
        Folder of the files.
    options : Options
        `reach` and `reach_clusters`.
    submit : Submit
        Runs the tasks that list visits.

    Attributes
    ----------
    folder : Path
        Folder of the files.
    """

    def __init__(self, clustered: Clustered, folder: Path, options: Options, submit: Submit) -> None:
        self._clustered, self._submit = clustered, submit
        self._shared = 0
        centroids = clustered.centroids.expected or ""
        self._reached = ReachedClusters(clustered.directory.root, folder, centroids, options)
        self.folder = folder

    @property
    def input(self) -> int:
        """Number of rows of the input."""
        return self._clustered.embedded.input

    def share(self, array: NDArray[Any]) -> SharedFile:
        """Write an array where every task can read it; the one before is removed."""
        folder = self.folder
        (folder / f"shared_{self._shared}.npy").unlink(missing_ok=True)
        self._shared += 1
        path = folder / f"shared_{self._shared}.npy"
        write_array(path, array, durable=False)
        return SharedFile(path)

    def list_visits(self, eps: int) -> None:
        """List the visits at any eps up to one, and remove those that were listed before.

        Parameters
        ----------
        eps : int
            Ten-thousandths.
        """
        self.forget("visits_")
        map_groups(self._submit, "reach", list_visits_of_group, self._clustered.groups, self._reached, eps)

    def forget(self, prefix: str) -> None:
        """Remove the files whose names begin like this."""
        for path in self.folder.glob(f"{prefix}*"):
            path.unlink(missing_ok=True)


@contextmanager
def open_workspace(clustered: Clustered, options: Options, submit: Submit) -> Iterator[WorkspaceOnDisk]:
    """Yield a workspace on disk for the block; what a killed command left there is removed first."""
    folder = clustered.directory.rounds
    remove_folder(folder)
    try:
        yield WorkspaceOnDisk(clustered, folder, options, submit)
    finally:
        with suppress(OSError):
            remove_folder(folder)
