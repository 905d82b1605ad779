"""The duplicates of each cluster of a part, found once and remembered for every smaller eps."""

from __future__ import annotations

import numpy as np

from fairdedup.core.arranged import ArrangedCluster
from fairdedup.core.pair_graph import PairGraph, Pairs, find_pairs
from fairdedup.core.part import Part

MOST_PAIRS = 128  # duplicates that a part remembers for each of its rows, on average: 768 bytes


class RememberedPairs:
    """The duplicates of the clusters of a part, up to an eps.

    Parameters
    ----------
    part : Part
        At least one cluster.
    most : int
        Largest eps that any step may need, in ten-thousandths.
    """

    def __init__(self, part: Part, most: int) -> None:
        self._part, self._most, self._name = part, most, f"pairs-{most}"
        self._new: dict[int, Pairs] = {}
        self._room = MOST_PAIRS * part.rows
        self._saved: dict[int, Pairs] = {}
        saved = part.load(self._name)
        if saved is not None:
            ends = np.concatenate((np.zeros((1, 2), np.int64), np.cumsum(saved["sizes"], axis=0)))
            for k, number in enumerate(saved["clusters"].tolist()):
                row, pair = (slice(*ends[k : k + 2, column].tolist()) for column in (0, 1))
                self._saved[number] = Pairs(saved["starts"][row], saved["neighbours"][pair], saved["needed"][pair])

    def of(self, cluster: ArrangedCluster, eps: int) -> PairGraph | None:
        """Return the duplicates of a cluster at an eps, or up to a larger one.

        Parameters
        ----------
        cluster : ArrangedCluster
            The n rows in visiting order.
        eps : int
            Ten-thousandths.

        Returns
        -------
        PairGraph or None
            None if there are too many pairs.
        """
        number = cluster.cluster.number
        saved = self._saved.get(number)
        if saved is not None:
            return PairGraph(self._most, saved)
        found = find_pairs(cluster.vectors, self._most, within=cluster.within)
        if found is None:
            return find_pairs(cluster.vectors, eps, within=cluster.within)
        if len(found.pairs.neighbours) <= self._room:
            self._room -= len(found.pairs.neighbours)
            self._new[number] = found.pairs
        return found

    def save(self) -> None:
        """Save what was found for the later steps; the first step calls it, which comes to every cluster."""
        if self._saved or not self._new:
            return
        found = list(self._new.values())
        sizes = np.array([(len(pairs.starts), len(pairs.neighbours)) for pairs in found], np.int64)
        joined = {name: np.concatenate([getattr(pairs, name) for pairs in found]) for name in Pairs._fields}
        self._part.save(self._name, {"clusters": np.array(list(self._new), np.int64), "sizes": sizes, **joined})
