"""The leftover of `deduplicate()`: a sample of the kept rows is looked up among all of them.

It reads a decision and changes nothing; core/leftover.py compares the rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.decision import Decision
from fairdedup.core.leftover import (
    KINDS,
    KeptRows,
    Leftover,
    Sample,
    choose_sample,
    count_leftover,
    find_duplicates,
)
from fairdedup.core.reach import Visits
from fairdedup.core.similarity import BLOCK
from fairdedup.in_memory import ClusterInMemory
from fairdedup.row_inputs import RowInputs


def measure_leftover(
    given: RowInputs, parts: Sequence[ClusterInMemory], decision: Decision, size: int, seed: int
) -> Leftover | None:
    """Measure how many kept rows still have a kept duplicate.

    Parameters
    ----------
    given : RowInputs
        The rows.
    parts : sequence of ClusterInMemory
        The clusters.
    decision : Decision
        The decision over these parts.
    size : int
        Number of rows to look up; 0 for none.
    seed : int
        Seed of the sample.

    Returns
    -------
    Leftover or None
        None if nothing is looked up, or the rule has no eps.
    """
    if not size or decision.eps is None:
        return None
    clusters, stays = np.empty(len(given.rows), np.int64), np.zeros(len(given.rows), np.bool_)
    for part, decided in zip(parts, decision.parts, strict=True):
        clusters[part.members] = part.index if part.across is None else part.across.place
        kept = decided.columns["row"][decided.columns["kept"]]
        stays[np.searchsorted(given.rows, kept)] = True
    stays[np.searchsorted(given.rows, decision.readmitted)] = False
    places = np.flatnonzero(stays)
    reached = np.empty((len(places), 0), np.int32)
    if parts[0].across is not None:
        reached = _list_reached(parts[0].across.visits, decision.eps, places)

    def take(wanted: NDArray[np.int64]) -> KeptRows:
        own = places[wanted]
        return KeptRows(given.rows[own], given.unit[own], clusters[own], given.codes(given.rows[own]))

    chosen = choose_sample(given.rows[places], size, seed)
    sample = Sample(take(chosen), reached[chosen])
    found = np.zeros((len(chosen), len(KINDS)), np.bool_)
    for start in range(0, len(places), BLOCK):  # not all at once, which would copy the vectors
        wanted = np.arange(start, min(start + BLOCK, len(places)))
        block = reached[wanted]
        found |= find_duplicates(sample, take(wanted), block.__getitem__, decision.eps)
    return count_leftover(found, len(places))


def _list_reached(visits: Visits, eps: int, places: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the clusters that the rows at some ascending places reach at an eps: (n, r), -1 in empty places."""
    there = (visits.needed <= eps) & np.isin(visits.rows, places)
    clusters = np.repeat(np.arange(len(visits.starts) - 1, dtype=np.int32), np.diff(visits.starts))[there]
    order = np.argsort(visits.rows[there], kind="stable")
    own, clusters = np.searchsorted(places, visits.rows[there][order]), clusters[order]
    starts = np.searchsorted(own, np.arange(len(places) + 1))
    reached = np.full((len(places), int(np.diff(starts).max(initial=0))), -1, np.int32)
    reached[own, np.arange(len(own)) - starts[own]] = clusters
    return reached
