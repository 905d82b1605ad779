"""How far the rows of a run have drifted from the clusters of the runs before it: when clustering anew is due."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import Drift
from fairdedup.storage.run_files import read_array
from fairdedup.storage.run_state import RunState
from fairdedup.storage.state_directory import StateDirectory

PSI_LIMIT = 0.25  # of the population stability index beyond chance: what is called a major shift
SIMILARITY_LIMIT = 0.05  # by which the mean centroid similarity may fall


def drift_of(directory: RunDirectory, known: RunState) -> Drift | None:
    """Compare the rows of the last run of a line with those of all before it; None where either has no row."""
    state = StateDirectory(directory.root)
    sizes = [np.asarray(read_array(state.run_folder(k) / "sizes.npy")) for k in range(len(known.runs))]
    before, now = np.sum(sizes[:-1], axis=0), sizes[-1]
    if len(sizes) < 2 or not before[:, 0].sum() or not now[:, 0].sum():
        return None
    psi, chance = stability(before[:, 0], now[:, 0])
    means = [float(s[:, 1].sum() / s[:, 0].sum() / 1e6) for s in (now, before)]
    due = psi - chance > PSI_LIMIT or means[1] - means[0] > SIMILARITY_LIMIT
    return Drift(
        psi=round(psi, 4),
        psi_by_chance=round(chance, 4),
        mean_similarity=round(means[0], 6),
        mean_similarity_before=round(means[1], 6),
        refit=bool(due),
    )


def stability(before: NDArray[np.int64], now: NDArray[np.int64]) -> tuple[float, float]:
    """Return the population stability index of cluster sizes, and what it would be by chance.

    Clusters of less than 10 expected rows are put together, in order, until they have as many: an index over cells that
    are mostly empty says nothing. A cell counts half a row more than it has.

    Parameters
    ----------
    before, now : ndarray of shape (k,), int64
        Rows of each cluster, in the earlier runs and in this one.
    """
    cells = _cells(before, now)
    a, b = (np.bincount(cells, weights=each, minlength=cells[-1] + 1) + 0.5 for each in (before, now))
    p, q = a / a.sum(), b / b.sum()
    psi = math.fsum(((q - p) * np.log(q / p)).tolist())
    return psi, (len(p) - 1) * (1 / a.sum() + 1 / b.sum())


def _cells(before: NDArray[np.int64], now: NDArray[np.int64]) -> NDArray[np.int64]:
    total, new = int(before.sum()), int(now.sum())
    cells = np.zeros(len(before), np.int64)
    cell = held = 0
    for k, size in enumerate(before.tolist()):
        cells[k] = cell
        held += size
        if held * min(new, total) >= 10 * total:
            cell, held = cell + 1, 0
    if held and cell:  # what is left over goes to the cell before it
        cells[cells == cell] = cell - 1
    return cells


def warnings_of(found: Drift | None, root: Path) -> list[str]:
    """Return a line that says that clustering anew is due, if it is."""
    if found is None or not found.refit:
        return []
    return [
        f"new rows have drifted from the clusters (stability index {found.psi:.2f}, by chance "
        f"{found.psi_by_chance:.2f}; mean centroid similarity {found.mean_similarity:.3f} after "
        f"{found.mean_similarity_before:.3f}): a new clustering is due: `fairdedup refit {root}`"
    ]
