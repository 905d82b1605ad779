"""Measures how far the rows of a run have drifted from those of the runs before it: when to cluster again.

It reads the sums that each run of a line leaves in state/; docs/increments.md explains the index. It writes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import Drift
from fairdedup.storage.remedies import decide_in_turn, quote
from fairdedup.storage.run_state import KeptRun
from fairdedup.storage.sealed_files import Seal, load_array
from fairdedup.storage.state_directory import StateDirectory

PSI_LIMIT = 0.25  # population stability index beyond chance that counts as a major shift
SIMILARITY_LIMIT = 0.05  # fall of the mean centroid similarity that counts as a major shift
LEAST_EXPECTED = 10  # least number of expected rows in a cell of the index


class StabilityIndex(NamedTuple):
    """Population stability index of cluster sizes, and its expected value if nothing but chance differs."""

    psi: float
    by_chance: float


def measure_drift(directory: RunDirectory, runs: Sequence[KeptRun]) -> Drift | None:
    """Compare the rows of the last run of a line with those of all before it.

    Parameters
    ----------
    directory : RunDirectory
        Directory of the last run; its state has the sums of all runs of the line.
    runs : sequence of KeptRun
        The runs of the line.

    Returns
    -------
    Drift or None
        None if the last run, or the runs before it, have no row.
    """
    state = StateDirectory(directory.root)
    sums = [  # each (k, 2)
        load_array(
            Seal(
                state.run_folder(k) / "sizes.npy",
                run.files.get("sizes.npy"),
                decide_in_turn([run.run, directory.root]),
            )
        )
        for k, run in enumerate(runs)
    ]
    before, now = np.sum(sums[:-1], axis=0), sums[-1]
    if len(sums) < 2 or not before[:, 0].sum() or not now[:, 0].sum():
        return None
    psi, by_chance = stability_index(before=before[:, 0], now=now[:, 0])
    similarity, similarity_before = (float(s[:, 1].sum() / s[:, 0].sum() / 1e6) for s in (now, before))
    return Drift(
        psi=round(psi, 4),
        psi_by_chance=round(by_chance, 4),
        mean_similarity=round(similarity, 6),
        mean_similarity_before=round(similarity_before, 6),
        refit=bool(psi - by_chance > PSI_LIMIT or similarity_before - similarity > SIMILARITY_LIMIT),
    )


def stability_index(*, before: NDArray[np.int64], now: NDArray[np.int64]) -> StabilityIndex:
    """Return the population stability index of cluster sizes, and its value by chance.

    Clusters with fewer than 10 expected rows are merged, in order, until they have as many: an index over cells that
    are mostly empty means nothing. Half a row is added to each cell, so that none is empty.

    Parameters
    ----------
    before, now : ndarray of shape (k,), int64
        Number of rows of each cluster, in the earlier runs and in this one.
    """
    cells = _merge_small_clusters(before, now)
    a, b = (np.bincount(cells, weights=each, minlength=cells[-1] + 1) + 0.5 for each in (before, now))
    p, q = a / a.sum(), b / b.sum()
    psi = math.fsum(((q - p) * np.log(q / p)).tolist())
    return StabilityIndex(psi, (len(p) - 1) * (1 / a.sum() + 1 / b.sum()))


def _merge_small_clusters(before: NDArray[np.int64], now: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of the cell of each cluster (k,)."""
    total, new = int(before.sum()), int(now.sum())
    cells = np.zeros(len(before), np.int64)
    cell = rows = 0
    for k, size in enumerate(before.tolist()):
        cells[k] = cell
        rows += size
        if rows * min(new, total) >= LEAST_EXPECTED * total:
            cell, rows = cell + 1, 0
    if rows and cell:  # what is left over goes to the cell before it
        cells[cells == cell] = cell - 1
    return cells


def drift_warnings(drift: Drift | None, root: Path) -> list[str]:
    """Return a warning to cluster again, if the drift calls for it.

    Parameters
    ----------
    drift : Drift or None
        As `measure_drift` returns it.
    root : Path
        Run directory, for the command to run.
    """
    if drift is None or not drift.refit:
        return []
    return [
        f"new rows have drifted from the clusters (stability index {drift.psi:.2f}, by chance "
        f"{drift.psi_by_chance:.2f}; mean centroid similarity {drift.mean_similarity:.3f} after "
        f"{drift.mean_similarity_before:.3f}): a new clustering is due: "
        f"`fairdedup refit {quote(root)} --keep F --out NEW`"
    ]
