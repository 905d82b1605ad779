"""Cover: the kept sample takes only its own unvisited neighbours with it, so every removed row is near a kept one.

Here the sweep depends on the rule, step by step. The pairs of a cluster that are duplicates at the largest eps of
interest are found once, as a sparse graph; every smaller eps is then a walk over it. Where that graph would be too
large, rows of it are computed when they are needed: slower, still O(n) memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.approximate import column_bounds, finder, mark_reaching, no_marks, row_bounds
from fairdedup.core.compiled import njit
from fairdedup.core.pinned import Beforehand
from fairdedup.core.rules import Preference, choose_one
from fairdedup.core.similarity import MAX_EPS, Vectors, cosine, eps_needed

TILE = 512
MAX_PAIRS = 1 << 25  # per cluster; up to 22 bytes each while the graph is built, 12 once it is walked


@dataclass(frozen=True)
class Graph:
    """Every pair of a cluster that are duplicates at `eps`, in both directions, by row.

    Attributes
    ----------
    eps : int
        Ten-thousandths.
    starts : ndarray of shape (n + 1,), int64
    neighbours : ndarray of shape (m,), int32
    needed : ndarray of shape (m,), int16
        The least eps at which the pair are duplicates.
    """

    eps: int
    starts: NDArray[np.int64]
    neighbours: NDArray[np.int32]
    needed: NDArray[np.int16]


@njit
def _collect(  # type: ignore[no-untyped-def]
    products, first_row, first_column, row, column, triangle, x, squares, eps, marks, out_a, out_b, out_eps
):
    """Write the pairs of a tile that are duplicates at eps; return how many there are, written or not."""
    found = 0
    width = products.shape[1]
    words = marks.view(np.uint64)
    length, scale, base, error = column
    floor = np.full(width, 1.0 - eps / 10000.0)
    first, second, third = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    column_bounds(floor, length, scale, base, error, first, second, third)
    for r in range(products.shape[0]):
        i = first_row + r
        begin = max(0, i + 1 - first_column) if triangle else 0
        a, b, c = row_bounds(row[0][r], row[1][r], row[2][r], row[3][r])
        mark_reaching(products[r], first, second, third, a, b, c, marks[:width])
        for word in range(begin // 8, words.shape[0]):
            if words[word] == 0:
                continue
            for k in range(max(begin, 8 * word), min(width, 8 * word + 8)):
                if marks[k] == 0:
                    continue
                j = first_column + k
                similarity = (products[r, k] * row[1][r] * scale[k] + row[2][r] + base[k]) / (row[0][r] * length[k])
                slack = row[3][r] + error[k]
                needed = eps_needed(similarity - slack)
                if needed != eps_needed(similarity + slack):
                    needed = eps_needed(cosine(x[i], x[j], squares[i], squares[j]))
                if needed <= eps:
                    if found < out_a.shape[0]:
                        out_a[found] = i
                        out_b[found] = j
                        out_eps[found] = needed
                    found += 1
    return found


@njit
def _both_directions(n, a, b, needed):  # type: ignore[no-untyped-def]
    starts = np.zeros(n + 1, np.int64)
    for k in range(a.shape[0]):
        starts[a[k] + 1] += 1
        starts[b[k] + 1] += 1
    for i in range(n):
        starts[i + 1] += starts[i]
    fill = starts[:-1].copy()
    neighbours = np.empty(2 * a.shape[0], np.int32)
    eps = np.empty(2 * a.shape[0], np.int16)
    for k in range(a.shape[0]):
        i, j = a[k], b[k]
        neighbours[fill[i]], eps[fill[i]] = j, needed[k]
        neighbours[fill[j]], eps[fill[j]] = i, needed[k]
        fill[i] += 1
        fill[j] += 1
    return starts, neighbours, eps


def graph(vectors: Vectors, eps: int, max_pairs: int = MAX_PAIRS) -> Graph | None:
    """Find every pair of a cluster that are duplicates at an eps; None where they are more than `max_pairs`.

    Parameters
    ----------
    vectors : Vectors of n rows, in visiting order
    eps : int
        Ten-thousandths.
    """
    n = len(vectors)
    size = TILE * TILE
    buffer: tuple[NDArray[Any], ...] = (np.empty(size, np.int32), np.empty(size, np.int32), np.empty(size, np.int16))
    parts: tuple[list[NDArray[Any]], ...] = ([], [], [])
    pairs = 0
    known = finder(vectors)
    for first in range(0, n, TILE):
        block = known.take(slice(first, first + TILE))
        for second in range(first, n, TILE):
            other = known.take(slice(second, second + TILE))
            found = _collect(
                block.products(other), first, second, block.terms(), other.terms(), first == second, vectors.x,
                vectors.squares, eps, no_marks(len(other)), *buffer,
            )  # fmt: skip
            pairs += found
            if pairs > max_pairs:
                return None
            for part, column in zip(parts, buffer, strict=True):
                part.append(column[:found].copy())
    columns = []
    for part in parts:
        columns.append(np.concatenate(part))
        part.clear()  # 10 bytes a pair here, and 12 for both directions
    return Graph(eps, *_both_directions(n, *columns))


@njit
def _unvisited_neighbours(i, eps, threshold, visited, x, squares, has_graph, starts, neighbours, needed, out):  # type: ignore[no-untyped-def]
    """Write the unvisited rows that are duplicates of row i, itself among them, and return how many."""
    found = 0
    if has_graph:
        for k in range(starts[i], starts[i + 1]):
            if needed[k] <= eps and not visited[neighbours[k]]:
                out[found] = neighbours[k]
                found += 1
    else:
        for j in range(visited.shape[0]):
            if j != i and not visited[j] and cosine(x[i], x[j], squares[i], squares[j]) > threshold:
                out[found] = j
                found += 1
    if not visited[i]:
        out[found] = i
        found += 1
    return found


@njit
def _walk(  # type: ignore[no-untyped-def]
    eps, x, squares, rows, has_graph, starts, neighbours, needed, price, weight, similarity, sums, visited, leader_of,
    keeper,
):  # fmt: skip
    """Fill the leader of each row's step and the row that is kept for it, of the rows that are not visited yet."""
    n = x.shape[0]
    threshold = 1.0 - eps / 10000.0
    members = np.empty(n, np.int32)
    mean = np.empty(x.shape[1], np.float64)
    likeness = np.empty(n, np.int64)
    for i in range(n):
        if visited[i]:
            continue
        m = _unvisited_neighbours(
            i, eps, threshold, visited, x, squares, has_graph, starts, neighbours, needed, members
        )
        kept = members[choose_one(members[:m], rows, x, price, weight, similarity, sums, mean, likeness)]
        m = _unvisited_neighbours(
            kept, eps, threshold, visited, x, squares, has_graph, starts, neighbours, needed, members
        )
        for k in range(m):
            visited[members[k]] = True
            leader_of[members[k]] = i
            keeper[members[k]] = kept


def cover_sweep(
    vectors: Vectors,
    rows: NDArray[np.int64],
    eps: int,
    preference: Preference,
    pairs: Graph | None,
    before: Beforehand | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Sweep one cluster with `cover` at one eps.

    Parameters
    ----------
    vectors : Vectors of n rows, in visiting order
    rows : ndarray of shape (n,), int64, in visiting order
    eps : int
        Ten-thousandths, at most the graph's.
    preference : Preference
    pairs : Graph or None
        None: similarities are computed when needed.
    before : Beforehand, optional
        What is kept, and visited, before the sweep.

    Returns
    -------
    leader : ndarray of shape (n,), int32
        The first unvisited row of the step that visited each row, as a place in the visiting order; for a row that was
        visited beforehand, the row that visited it.
    kept : ndarray of shape (n,), int32
        The row that is kept for each row (itself where it is kept).

    Raises
    ------
    ValueError
        If `eps` is out of range or larger than the graph's.
    """
    if not 0 <= eps <= MAX_EPS or (pairs is not None and eps > pairs.eps):
        raise ValueError(f"eps {eps} is out of range 0 to {MAX_EPS if pairs is None else pairs.eps}")
    n = len(vectors)
    leader, keeper = np.empty(n, np.int32), np.empty(n, np.int32)
    visited = np.zeros(n, np.bool_)
    if before is not None:
        visited = before.needed <= eps
        leader[visited] = keeper[visited] = before.keeper[visited]
    none = (np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int16))
    starts, neighbours, needed = none if pairs is None else (pairs.starts, pairs.neighbours, pairs.needed)
    _walk(
        eps, vectors.x, vectors.squares, rows, pairs is not None, starts, neighbours, needed, preference.price,
        preference.likeness_weight, preference.similarity, preference.sums.copy(), visited, leader, keeper,
    )  # fmt: skip
    return leader, keeper


def closest_kept_pair_is_distinct(vectors: Vectors, eps: int, judged: int | None = None) -> bool:
    """Tell whether no two of these rows are duplicates at eps; stops at the first pair that are.

    Parameters
    ----------
    vectors : Vectors of k rows
        The kept rows of one cluster, those that were kept beforehand behind the others.
    eps : int
        Ten-thousandths.
    judged : int, optional
        How many of them, from the front, were not kept beforehand: pairs without one of these are left out.
    """
    judged = len(vectors) if judged is None else judged
    if eps == 0:
        return True
    none = (np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.int16))
    known = finder(vectors)
    for first in range(0, judged, TILE):
        block = known.take(slice(first, min(first + TILE, judged)))
        for second in range(first, len(vectors), 8 * TILE):
            other = known.take(slice(second, second + 8 * TILE))
            if _collect(
                block.products(other), first, second, block.terms(), other.terms(), second == first, vectors.x,
                vectors.squares, eps, no_marks(len(other)), *none,
            ):  # fmt: skip
                return False
    return True
