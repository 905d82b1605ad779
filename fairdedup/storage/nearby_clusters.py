"""The clusters that the rows of a sorted group may reach: a file of a group, made where it is clustered or later."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.made_of import is_up_to_date, mark_up_to_date, marked_file
from fairdedup.storage.remedies import cluster_again
from fairdedup.storage.run_files import write_array
from fairdedup.storage.sealed_files import load_array
from fairdedup.storage.shard_groups import Group, fingerprint_sorted, hash_of


def write_nearby(
    run: RunDirectory, group: Group, centroids: str, clusters: NDArray[np.int32], gaps: NDArray[np.int32], most: int
) -> None:
    """Write which other clusters the rows of a sorted group may reach, and mark what that was made of.

    Parameters
    ----------
    run : RunDirectory
    group : Group
    centroids : str
        Seal of the centroids.
    clusters, gaps : ndarrays of shape (n, r - 1), int32
        The clusters, and the gaps to them, in the order of the sorted rows.
    most : int
        Number of clusters that a row can reach, its own included.
    """
    path = run.sorted("nearby", group.number)
    write_array(path, np.stack((clusters, gaps), axis=-1))
    mark_up_to_date(path, _made_of(group, centroids, most))


def has_nearby(run: RunDirectory, group: Group, centroids: str, most: int) -> bool:
    """Return whether what `write_nearby` writes is there and undamaged."""
    return is_up_to_date(run.sorted("nearby", group.number), _made_of(group, centroids, most))


def load_nearby(run: RunDirectory, group: Group) -> Any:
    """Return the clusters and the gaps of a group: (n, r - 1, 2), int32; raises as `load_array`."""
    return load_array(marked_file(run.sorted("nearby", group.number), cluster_again(run.root)))


def _made_of(group: Group, centroids: str, most: int) -> str:
    return hash_of("nearby", fingerprint_sorted(group, centroids), most)
