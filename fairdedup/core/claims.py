"""The first step of each round: open rows that are linked to kept samples are removed, before any sweep.

Each row goes to the most similar of these. Ties go to samples of earlier runs first, in their order, then to the lowest
row. This module never decides which samples are kept.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.arranged import ArrangedCluster
from fairdedup.core.earlier_links import EarlierLinks
from fairdedup.core.nearest import most_similar
from fairdedup.core.pair_graph import PairGraph
from fairdedup.core.parts import compare_rows
from fairdedup.core.round_state import ClusterState, encode_earlier
from fairdedup.core.similarity import EPS_UNIT, cosine_of_pairs

_FIRST = 1 << 62  # places samples of earlier runs before all rows in a tie


class Removed(NamedTuple):
    """Open rows that are linked to rows that are kept in other clusters; a row may occur several times.

    Attributes
    ----------
    rows, keepers : ndarrays of shape (m,), int64
    unit : ndarray of shape (m, d), float16
        Unit vectors of the keepers.
    """

    rows: NDArray[np.int64]
    keepers: NDArray[np.int64]
    unit: NDArray[np.float16]


NOTHING_REMOVED = Removed(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 0), np.float16))


class Claims(NamedTuple):
    """Kept samples that remove rows of a cluster.

    Attributes
    ----------
    places : ndarray of shape (m,), int64
        Place of each row in the visiting order; it may occur several times.
    similarity : ndarray of shape (m,), float64
        Cosine of the row to the kept sample.
    ties : ndarray of shape (m,), int64
        Of two equally similar samples the one with the lower number goes first.
    keepers : ndarray of shape (m,), int64
        The kept sample, as `ClusterState.keeper` has it.
    """

    places: NDArray[np.int64]
    similarity: NDArray[np.float64]
    ties: NDArray[np.int64]
    keepers: NDArray[np.int64]


def remove_first(arranged: ArrangedCluster, state: ClusterState, eps: int, removed: Removed, old: EarlierLinks) -> None:
    """Remove the rows that are linked to pinned rows and to samples of earlier runs, before the first round.

    Parameters
    ----------
    arranged : ArrangedCluster
        The cluster.
    state : ClusterState
        Its state; all rows are open.
    eps : int
        Ten-thousandths.
    removed : Removed
        Rows of any clusters that are linked to pinned rows of other clusters.
    old : EarlierLinks
        For rows of any clusters, the sample of another cluster that represents it at eps.
    """
    pinned = arranged.pinned
    visited = pinned.needed <= eps
    state.keeper[visited] = _name_pinned(arranged, pinned.keeper[visited])
    state.leader[visited] = state.keeper[visited]
    claims = [_claim_removed(arranged, state, removed), _claim_earlier(state, old)]
    contested = np.unique(np.concatenate([each.places for each in claims]))
    if len(contested):
        _settle(state, [_claim_pinned(arranged, contested[visited[contested]]), *claims])


def remove_linked(
    arranged: ArrangedCluster, state: ClusterState, eps: int, removed: Removed, graph: PairGraph | None
) -> None:
    """Remove the open rows that are linked to rows that were kept in earlier rounds.

    Parameters
    ----------
    arranged : ArrangedCluster
        The cluster.
    state : ClusterState
        Its state.
    eps : int
        Ten-thousandths.
    removed : Removed
        Open rows of any clusters that are linked to rows that are kept in other clusters.
    graph : PairGraph or None
        Duplicates of the cluster at eps or above it; None if they are not known.
    """
    _settle(state, [_claim_removed(arranged, state, removed), _claim_kept(arranged, state, eps, graph)])


def _claim_kept(arranged: ArrangedCluster, state: ClusterState, eps: int, graph: PairGraph | None) -> Claims:
    """Return the claims of the kept rows of the cluster on its open rows."""
    opened, is_kept = np.flatnonzero(state.is_open), state.keeper == state.rows
    if graph is not None:
        starts, sizes = graph.pairs.starts[opened], np.diff(graph.pairs.starts)[opened]
        pairs = np.repeat(starts - np.concatenate(([0], np.cumsum(sizes)[:-1])), sizes) + np.arange(sizes.sum())
        opened, others = np.repeat(opened, sizes), graph.pairs.neighbours[pairs].astype(np.int64)
        linked = is_kept[others] & (graph.pairs.needed[pairs] <= eps)
        opened, others = opened[linked], others[linked]
        unit = arranged.cluster.unit
        similarity = compare_rows(unit[arranged.order[opened]], unit[arranged.order[others]])
        return Claims(opened, similarity, state.rows[others], state.rows[others])
    kept = np.flatnonzero(is_kept)
    kept = kept[np.argsort(state.rows[kept])]
    if not len(kept):
        return Claims(kept, np.zeros(0), kept, kept)
    codes = None if arranged.within is None else (arranged.within[opened], arranged.within[kept])
    nearest, similarity = most_similar(arranged.vectors.take(opened), arranged.vectors.take(kept), codes)
    linked = similarity > 1.0 - eps / EPS_UNIT
    rows = state.rows[kept[nearest[linked]]]
    return Claims(opened[linked], similarity[linked], rows, rows)


def _settle(state: ClusterState, claims: list[Claims]) -> None:
    """Give each claimed row to the first of the samples that claim it."""
    places, similarity, ties, keepers = (np.concatenate(column) for column in zip(*claims, strict=True))
    order = np.lexsort((ties, -similarity, places))
    first = order[np.flatnonzero(np.diff(places[order], prepend=-1))]
    state.keeper[places[first]] = state.leader[places[first]] = keepers[first]


def _find_places(state: ClusterState, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where rows of the cluster are among some rows, and the place of each in the visiting order."""
    own = np.flatnonzero(np.isin(rows, state.rows)) if len(rows) else rows
    by_row = np.argsort(state.rows)
    return own, by_row[np.searchsorted(state.rows[by_row], rows[own])]


def _claim_removed(arranged: ArrangedCluster, state: ClusterState, removed: Removed) -> Claims:
    own, places = _find_places(state, removed.rows)
    if not len(own):
        return Claims(own, np.zeros(0), own, own)
    similarity = compare_rows(arranged.cluster.unit[arranged.order[places]], removed.unit[own])
    return Claims(places, similarity, removed.keepers[own], removed.keepers[own])


def _claim_earlier(state: ClusterState, old: EarlierLinks) -> Claims:
    own, places = _find_places(state, old.rows)
    return Claims(places, old.similarity[own], old.order[own] - _FIRST, encode_earlier(old.names[own]))


def _claim_pinned(arranged: ArrangedCluster, places: NDArray[np.int64]) -> Claims:
    """Return the claims of the pinned rows, and samples of earlier runs, of the cluster itself."""
    keeper, n = arranged.pinned.keeper[places], len(arranged.rows)
    similarity, ties = np.empty(len(places)), np.empty(len(places), np.int64)
    old = keeper >= n
    x, squares = arranged.vectors.x, arranged.vectors.squares
    similarity[~old], ties[~old] = cosine_of_pairs(x, squares, places[~old], keeper[~old]), arranged.rows[keeper[~old]]
    if old.any():
        earlier = arranged.cluster.earlier
        assert earlier is not None
        unit = arranged.cluster.unit[arranged.order[places[old]]]
        similarity[old] = compare_rows(unit, earlier.unit[keeper[old] - n])
        ties[old] = earlier.order[keeper[old] - n] - _FIRST
    return Claims(places, similarity, ties, _name_pinned(arranged, keeper))


def _name_pinned(arranged: ArrangedCluster, keeper: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return pinned rows, and samples of earlier runs, as `ClusterState.keeper` has them."""
    n, earlier = len(arranged.rows), arranged.cluster.earlier
    old = keeper >= n
    named = arranged.rows[np.where(old, 0, keeper)]
    if old.any():
        assert earlier is not None
        named[old] = encode_earlier(earlier.names[keeper[old] - n])
    return named
