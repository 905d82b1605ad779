"""The sweep with cover: a kept sample removes only its own unvisited duplicates, so removed rows are near kept ones.

Each step depends on what the rule chose in the steps before it. The sweep walks the graph of the cluster's
duplicates (pair_graph.py). If that graph would be too large, cosines are computed when they are needed: slower, but
still in O(n) memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.choice import Scratch, choose_one
from fairdedup.core.compiled import njit
from fairdedup.core.pair_graph import PairGraph, Pairs
from fairdedup.core.pinned import PinnedRows
from fairdedup.core.rules.base import Preference
from fairdedup.core.similarity import MAX_EPS, Vectors, cosine
from fairdedup.core.within import codes_or_zeros

_NO_PAIRS = Pairs(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int16))
_NO_VECTORS = Vectors(np.zeros((0, 0), np.float32), np.zeros(0))


class _Walk(NamedTuple):
    """One walk over a cluster at one eps.

    Attributes
    ----------
    eps : int
        Ten-thousandths.
    x, squares : ndarrays of shape (n, d) and (n,)
        Vectors in visiting order, and their squared lengths.
    rows : ndarray of shape (n,), int64
        Rows in visiting order.
    has_graph : bool
        Whether `pairs` has the duplicates; otherwise cosines are computed.
    pairs : Pairs
        Duplicates of each row.
    within : ndarray of shape (n,), int64
        Rows are duplicates only of rows of the same number; the graph has no others.
    own_only : bool
        Whether the kept row removes its own duplicates, as with `cover`; otherwise the leader's.
    visited : ndarray of shape (n,), bool
        Mask of the visited rows; updated.
    leader, keeper : ndarrays of shape (n,), int32
        Leader of the step that visited each row, and the row that is kept for it; filled by the walk.
    """

    eps: int
    x: NDArray[np.float32]
    squares: NDArray[np.float64]
    rows: NDArray[np.int64]
    has_graph: bool
    pairs: Pairs
    within: NDArray[np.int64]
    own_only: bool
    visited: NDArray[np.bool_]
    leader: NDArray[np.int32]
    keeper: NDArray[np.int32]


def _forbid_writing(pairs: Pairs) -> Pairs:
    """Return read-only views: pairs from files are read-only, and each kind would be compiled for itself."""
    views = Pairs(pairs.starts.view(), pairs.neighbours.view(), pairs.needed.view())
    for view in views:
        view.flags.writeable = False
    return views


@njit
def _list_unvisited(i, walk, out):  # type: ignore[no-untyped-def]
    """Write the unvisited duplicates of row i, itself included, to out, and return their number."""
    x, squares, within, visited = walk.x, walk.squares, walk.within, walk.visited
    starts, neighbours, needed = walk.pairs.starts, walk.pairs.neighbours, walk.pairs.needed
    eps, found = walk.eps, 0
    if walk.has_graph:
        for k in range(starts[i], starts[i + 1]):
            if needed[k] <= eps and not visited[neighbours[k]]:
                out[found] = neighbours[k]
                found += 1
    else:
        threshold = 1.0 - eps / 10000.0
        for j in range(visited.shape[0]):
            if j == i or visited[j] or within[i] != within[j]:
                continue
            if cosine(x[i], x[j], squares[i], squares[j]) > threshold:
                out[found] = j
                found += 1
    if not visited[i]:
        out[found] = i
        found += 1
    return found


@njit
def _visit_all(walk, preference, sums, scratch):  # type: ignore[no-untyped-def]
    """Fill in the leader and the keeper of the unvisited rows."""
    x, rows, visited, leader, keeper = walk.x, walk.rows, walk.visited, walk.leader, walk.keeper
    members = np.empty(rows.shape[0], np.int32)
    for i in range(rows.shape[0]):
        if visited[i]:
            continue
        m = _list_unvisited(i, walk, members)
        kept = members[choose_one(members[:m], rows, x, preference, sums, scratch)]
        if walk.own_only:
            m = _list_unvisited(np.int64(kept), walk, members)
        for k in range(m):
            visited[members[k]] = True
            leader[members[k]] = i
            keeper[members[k]] = kept


def cover_sweep(
    vectors: Vectors | None,
    rows: NDArray[np.int64],
    eps: int,
    preference: Preference,
    graph: PairGraph | None,
    pinned: PinnedRows | None = None,
    *,
    own_only: bool = True,
    within: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Sweep one cluster with `cover` at one eps.

    Parameters
    ----------
    vectors : Vectors of n rows, or None
        Vectors in visiting order; None if there is a graph and the preference weighs no likeness.
    rows : ndarray of shape (n,), int64
        Rows in visiting order.
    eps : int
        Ten-thousandths; at most the eps of the graph.
    preference : Preference
        Preference of the rule.
    graph : PairGraph or None
        Duplicates of the cluster; if None, cosines are computed when they are needed.
    pinned : PinnedRows, optional
        Rows that are kept before the sweep, and the rows that these remove.
    own_only : bool
        Whether a kept row removes its own duplicates only. False is the sweep without `cover`, over any graph.
    within : ndarray of shape (n,), int64, optional
        Only rows of the same number are duplicates, in the graph too.

    Returns
    -------
    leader : ndarray of shape (n,), int32
        Leader of the step that visited each row, as a place in the visiting order; for a row that was visited before
        the sweep, the pinned row that visited it.
    keeper : ndarray of shape (n,), int32
        Row that is kept for each row: itself if it is kept.

    Raises
    ------
    ValueError
        If `eps` is out of range, or larger than the eps of the graph.
    """
    if not 0 <= eps <= MAX_EPS or (graph is not None and eps > graph.eps):
        raise ValueError(f"eps {eps} is out of range 0 to {MAX_EPS if graph is None else graph.eps}")
    n, vectors = len(rows), _NO_VECTORS if vectors is None else vectors
    leader, keeper = np.empty(n, np.int32), np.empty(n, np.int32)
    visited: NDArray[Any] = np.zeros(n, np.bool_)
    if pinned is not None:
        visited = pinned.needed <= eps
        leader[visited] = keeper[visited] = pinned.keeper[visited]
    walk = _Walk(
        eps,
        vectors.x,
        vectors.squares,
        rows,
        has_graph=graph is not None,
        pairs=_forbid_writing(_NO_PAIRS if graph is None else graph.pairs),
        within=codes_or_zeros(within, n),
        own_only=own_only,
        visited=visited,
        leader=leader,
        keeper=keeper,
    )
    _visit_all(walk, preference, preference.sums.copy(), Scratch(np.empty(vectors.x.shape[1]), np.empty(n, np.int64)))
    return leader, keeper
