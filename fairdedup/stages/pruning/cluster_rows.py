"""Unit vectors of one cluster in the sorted files of a run, read when a step needs them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.storage.run_files import release_pages

LARGE = 1 << 25  # bytes of a copy from which the pages that it was read from are released


class ClusterRows:
    """The n unit vectors of a cluster, as `UnitRows`.

    Parameters
    ----------
    pieces : sequence of (ndarray of shape (m, d), slice)
        The sorted vectors of each group of shards, mapped into memory, and where those of the cluster are.
    chosen : ndarray of shape (n,), int64, optional
        Places of the rows among those of all pieces; all if not given.
    """

    def __init__(self, pieces: Sequence[tuple[NDArray[Any], slice]], chosen: NDArray[np.int64] | None = None) -> None:
        self._pieces, self._chosen = pieces, chosen
        self._ends = np.cumsum([own.stop - own.start for _, own in pieces])

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and of dimensions."""
        n = int(self._ends[-1]) if self._chosen is None else len(self._chosen)
        return n, self._pieces[0][0].shape[1]

    @cached_property
    def _parts(self) -> list[NDArray[np.float16]]:
        return [vectors[own] for vectors, own in self._pieces]

    def take(self, places: NDArray[np.int64]) -> ClusterRows:
        """Return some of the rows; nothing is read."""
        return ClusterRows(self._pieces, places if self._chosen is None else self._chosen[places])

    def __getitem__(self, index: Any) -> NDArray[np.float16]:
        places = np.arange(self.shape[0])[index]
        if self._chosen is not None:
            places = self._chosen[places]
        if 2 * len(places) > self._ends[-1]:  # in one go, and in the order of the files
            whole = np.concatenate(self._parts)
            found = whole if isinstance(index, slice) and len(places) == len(whole) else whole[places]
        else:
            found = np.empty((len(places), self.shape[1]), np.float16)
            piece = np.searchsorted(self._ends, places, side="right")
            for k, (part, end) in enumerate(zip(self._parts, self._ends.tolist(), strict=True)):
                own = piece == k
                found[own] = part[places[own] - (end - len(part))]
        if found.nbytes > LARGE:
            for vectors, _ in self._pieces:
                release_pages(vectors)
        return found
