"""The most similar of some vectors, exactly: low precision finds those that may be it, and float64 chooses.

On a GPU only what is near the maximum of a row comes back. This module never stores all products.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.compiled import njit
from fairdedup.core.device_search import DeviceSearch
from fairdedup.core.devices import choose_product_device
from fairdedup.core.similarity import Vectors, cosine, margin
from fairdedup.core.within import hide_other_values

PRODUCTS = 1 << 22  # products that are in memory at a time


class VectorArrays(NamedTuple):
    """Arrays of `Vectors`, for compiled code."""

    x: NDArray[np.float32]
    squares: NDArray[np.float64]


def scale_to_length(vectors: Vectors) -> NDArray[np.float32]:
    """Return the vectors (n, d) divided by their lengths. A zero vector stays zero, and so do its products."""
    lengths = np.sqrt(vectors.squares)
    return np.asarray(vectors.x / np.where(lengths == 0, 1, lengths).astype(np.float32)[:, None])


def multiply_scaled(queries: VectorArrays, scaled: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cosines (n, m), in float32, of queries (n, d) with what `scale_to_length` has returned (m, d)."""
    products = queries.x @ scaled.T
    products /= np.sqrt(queries.squares).astype(np.float32)[:, None]
    return np.asarray(products)


def split_rows(n: int, step: int) -> Iterator[slice]:
    """Yield slices of n rows, each of `step` rows but for the last; of one row if `step` is less."""
    for start in range(0, n, max(1, step)):
        yield slice(start, min(n, start + max(1, step)))


def open_search(others: Vectors, queries: int) -> DeviceSearch | None:
    """Return a search of some vectors on a device; None if the CPU is to search them.

    Parameters
    ----------
    others : Vectors of m rows
        Vectors to search.
    queries : int
        Number of vectors to search for.
    """
    device = choose_product_device(float(queries) * others.x.size)
    return None if device == "cpu" else DeviceSearch.put(scale_to_length(others), device)


@njit
def _settle(i, places, queries, others, best, best_similarity):  # type: ignore[no-untyped-def]
    """Choose for row i the exactly most similar of the others at some ascending places; ties go to the first."""
    chosen, similarity = -1, -2.0
    for k in places:
        s = cosine(queries.x[i], others.x[k], queries.squares[i], others.squares[k])
        if s > similarity:
            chosen, similarity = k, s
    best[i], best_similarity[i] = chosen, similarity


@njit
def _settle_products(products, queries, others, slack, best, best_similarity):  # type: ignore[no-untyped-def]
    """Choose among the columns of each row whose product is near the maximum."""
    places = np.empty(products.shape[1], np.int32)
    for i in range(products.shape[0]):
        top = -np.inf
        for k in range(products.shape[1]):
            top = max(top, products[i, k])
        near = 0
        for k in range(products.shape[1]):
            if products[i, k] >= top - slack and top > -np.inf:
                places[near] = k
                near += 1
        _settle(i, places[:near], queries, others, best, best_similarity)


@njit
def _settle_candidates(starts, columns, queries, others, best, best_similarity):  # type: ignore[no-untyped-def]
    """Choose among the columns of each row that a device has found."""
    for i in range(starts.shape[0] - 1):
        _settle(i, columns[starts[i] : starts[i + 1]], queries, others, best, best_similarity)


def most_similar(
    queries: Vectors, others: Vectors, within: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find for every query the most similar of the others, exactly; ties go to the lower position.

    Parameters
    ----------
    queries : Vectors of n rows
        Vectors to find the most similar one for.
    others : Vectors of m rows, m >= 1
        Vectors to search.
    within : (ndarray of shape (n,), ndarray of shape (m,)), int64, optional
        Only a query and another of the same number are compared.

    Returns
    -------
    position : ndarray of shape (n,), int64
        Position of the most similar vector; -1 if there is none to compare with.
    similarity : ndarray of shape (n,), float64
        Cosine to it; -2 if there is none.
    """
    n, m, d = len(queries), len(others), queries.x.shape[1]
    position, similarity = np.empty(n, np.int64), np.empty(n, np.float64)
    slack = 4 * margin(d)  # twice the error of a product of scaled vectors, or more
    arrays = VectorArrays(others.x, others.squares)
    search = open_search(others, n)
    scaled = None if search is not None else scale_to_length(others)
    for rows in split_rows(n, PRODUCTS // m if search is None else search.step):
        own = VectorArrays(queries.x[rows], queries.squares[rows])
        codes = None if within is None else (within[0][rows], within[1])
        out = position[rows], similarity[rows]
        if search is not None:
            found = search.find_near_best(*own, 1, slack, codes)
            _settle_candidates(found.starts(slice(0, len(own.x))), found.columns, own, arrays, *out)
            continue
        assert scaled is not None
        products = multiply_scaled(own, scaled)
        if codes is not None:
            hide_other_values(products, *codes)
        _settle_products(products, own, arrays, slack, *out)
    return position, similarity
