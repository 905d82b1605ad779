"""Cosines of samples to their nearest neighbour, in a seeded sample of clusters: an eps is suggested from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.eps_suggestion import BINS, count_cosines, suggest_eps
from fairdedup.core.row_hash import row_hash
from fairdedup.storage.contents import Clustered
from fairdedup.storage.shard_files import open_sorted

MOST_ROWS, MOST_OF_CLUSTER = 6_000, 2_000  # vectors that are read, in all and of one cluster
MOST_GROUPS = 4  # sorted groups; the clusters of a larger data set lie in more files than a page should read


def suggest_run_eps(clustered: Clustered) -> float | None:
    """Return the eps where the cosines to nearest neighbours bend, None if they do not.

    Parameters
    ----------
    clustered : Clustered
        Clusters of the run.
    """
    return suggest_eps(count_nearest_cosines(clustered))


def describe_suggestion(eps: float | None) -> str:
    """Return the suggestion as a sentence, empty if there is none.

    Parameters
    ----------
    eps : float or None
        As `suggest_run_eps` returns it.
    """
    if eps is None:
        return ""
    return (
        f"Near-duplicates stand out: the cosines of samples to their nearest neighbour have a gap near {1 - eps:.2f}. "
        f"To remove only near-duplicates: --eps {eps:.2f}"
    )


def count_nearest_cosines(clustered: Clustered) -> NDArray[np.int64]:
    """Return the number of samples by the cosine to their nearest neighbour in their cluster.

    Parameters
    ----------
    clustered : Clustered
        Clusters of the run.

    Returns
    -------
    ndarray of shape (201,), int64
        As `count_cosines` returns it; all 0 for a data set of too many files.
    """
    counts, read = np.zeros(BINS, np.int64), 0
    groups = [group.number for group in clustered.groups if group.valid]
    if len(groups) > MOST_GROUPS:
        return counts
    files = [open_sorted(clustered.directory, number, "vectors", "offsets") for number in groups]
    numbers = np.flatnonzero(clustered.sizes > 1)
    for number in numbers[np.argsort(row_hash(numbers, 0), kind="stable")].tolist():
        if read >= MOST_ROWS:
            break
        own = [np.asarray(vectors[int(at[number]) : int(at[number + 1])]) for vectors, at in files]
        x = np.concatenate(own)[:MOST_OF_CLUSTER].astype(np.float32)  # (n, d)
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        cosines = x @ x.T
        np.fill_diagonal(cosines, -2)
        counts += count_cosines(cosines.max(axis=1))
        read += len(x)
    return counts
