"""Pairs of duplicates in different clusters: the rows of a cluster against the rows of others that reach it.

A pair has one least eps at which it is linked, since both conditions are monotone in eps. So pairs are searched for
once, among the rows that any step asks for, and every smaller eps takes its own of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.approximate import approximate
from fairdedup.core.pair_graph import Compared, Found, collect_tile, tile_size
from fairdedup.core.part import Part, Shared
from fairdedup.core.similarity import Vectors
from fairdedup.core.within import codes_or_zeros, take_codes

Codes = tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]


class Links(NamedTuple):
    """Pairs of rows.

    Attributes
    ----------
    first, second : ndarrays of shape (m,), int64
        The two rows.
    needed : ndarray of shape (m,), int64
        The least eps at which they are linked, in ten-thousandths.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    needed: NDArray[np.int64]

    @classmethod
    def concatenate(cls, parts: list[Links]) -> Links:
        """Return the pairs of several lists, one after the other."""
        if not parts:
            return cls(*(np.zeros(0, np.int64) for _ in range(3)))
        return cls(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    @classmethod
    def join(cls, parts: list[Links]) -> Links:
        """Return the pairs of several lists, sorted; a pair that occurs twice is linked from the lower eps on."""
        first, second, needed = cls.concatenate(parts)
        order = np.lexsort((needed, second, first))
        first, second, needed = first[order], second[order], needed[order]
        new = np.ones(len(first), np.bool_)
        new[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
        return cls(first[new], second[new], needed[new])

    def ordered(self) -> Links:
        """Return the pairs with the lower row first."""
        return Links(np.minimum(self.first, self.second), np.maximum(self.first, self.second), self.needed)

    def between(self, flags: NDArray[np.uint8], a: int, b: int, eps: int) -> Links:
        """Return the pairs that are linked at an eps, the first row with one flag and the second with another.

        A pair of two rows that have both is there both ways. The flags are by row.
        """
        of_first, of_second, near = flags[self.first], flags[self.second], self.needed <= eps
        there = near & ((of_first & a) > 0) & ((of_second & b) > 0)
        back = near & ((of_second & a) > 0) & ((of_first & b) > 0)
        first = np.concatenate((self.first[there], self.second[back]))
        second = np.concatenate((self.second[there], self.first[back]))
        return Links(first, second, np.concatenate((self.needed[there], self.needed[back])))


def iterate_pairs(
    first: NDArray[np.float16],
    second: NDArray[np.float16],
    eps: int,
    within: Codes = (None, None),
    new: tuple[int, int] | None = None,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the pairs of rows of two sets that are duplicates at an eps, a tile at a time, exactly.

    Parameters
    ----------
    first : ndarray of shape (n, d), float16
        Unit vectors.
    second : ndarray of shape (m, d), float16
        Unit vectors.
    eps : int
        Ten-thousandths.
    within : (ndarray of shape (n,), ndarray of shape (m,)), int64, optional
        Codes of the values within which rows are compared.
    new : (int, int), optional
        p and q: only pairs with one of the first p rows of `first` or one of the first q of `second` are wanted.

    Yields
    ------
    (ndarray, ndarray, ndarray), each of shape (p,), int64
        Places in both sets, and the least eps at which they are duplicates.
    """
    n, m = len(first), len(second)
    p, q = new or (n, m)
    products = p * m + (n - p) * q
    if not products:
        return
    vectors = Vectors.of(np.concatenate((first, second)))
    known, out = approximate(vectors, 2 * products // (n + m)), Found.for_tile()
    codes = np.concatenate((codes_or_zeros(within[0], n), codes_or_zeros(within[1], m)))
    compared = Compared(vectors, codes, eps)
    for rows, columns in _list_tiles(n, tile_size(known), (0, p, m), (p, n, q)):
        for number in collect_tile(known, rows, columns, compared, out):
            if number:
                a, b, needed = (values[:number].astype(np.int64) for values in out)
                yield a, b - n, needed


def _list_tiles(n: int, size: int, *rectangles: tuple[int, int, int]) -> Iterator[tuple[slice, slice]]:
    """Yield rows and columns of tiles; columns are from `n` on. A rectangle is (first row, end, number of columns)."""
    for start, stop, columns in rectangles:
        for row in range(start, stop if columns else start, size):
            for column in range(n, n + columns, size):
                yield slice(row, min(stop, row + size)), slice(column, min(n + columns, column + size))


def find_links(
    own: NDArray[np.float16],
    visitors: NDArray[np.float16],
    reached: NDArray[np.integer],
    eps: int,
    within: Codes = (None, None),
    new: tuple[int, int] | None = None,
) -> Links:
    """Find the pairs of a cluster's rows and of its visitors that are linked at an eps.

    Parameters
    ----------
    own : ndarray of shape (n, d), float16
        Unit vectors of rows of the cluster.
    visitors : ndarray of shape (m, d), float16
        Unit vectors of rows of other clusters that reach it.
    reached : ndarray of shape (m,), int
        The least eps at which each of them does, in ten-thousandths.
    eps : int
        Ten-thousandths.
    within : (ndarray of shape (n,), ndarray of shape (m,)), int64, optional
        Codes of the values within which rows are compared.
    new : (int, int), optional
        As of `iterate_pairs`.

    Returns
    -------
    Links
        Places in `own` and in `visitors`.
    """
    found = []
    for a, b, needed in iterate_pairs(own, visitors, eps, within, new) if eps else ():
        needed = np.maximum(needed, reached[b])
        linked = needed <= eps
        found.append(Links(a[linked], b[linked], needed[linked]))
    return Links.concatenate(found)


OWN, OTHER = 1, 2  # flags of the rows between which a part looks for pairs
_EITHER = OWN | OTHER


def find_cross_links(part: Part, flags: Shared, eps: int) -> Links:
    """Return the linked pairs of rows of different clusters of which at least one has the flag `OWN`.

    The other has that flag or `OTHER`. One of the two is a row of the part, and the other reaches its cluster. A pair
    occurs twice if each reaches the cluster of the other.

    Parameters
    ----------
    part : Part
        At least one cluster.
    flags : Shared
        Flags by row: (input,), uint8.
    eps : int
        Ten-thousandths.
    """
    found, known = [], flags.read()
    for cluster in part.clusters():
        here, new_here = _put_new_first(known[cluster.rows])
        unit = None  # of these rows; read only if there is a visitor
        for visitors in part.visitors(cluster.number, known, _EITHER if new_here else OWN, eps) if len(here) else ():
            there, new_there = _put_new_first(known[visitors.rows])
            unit = cluster.unit[here] if unit is None else unit
            a = here if new_there else here[:new_here]
            within = take_codes(cluster.within, a), take_codes(visitors.within, there)
            reached, new = visitors.needed[there], (new_here, new_there)
            links = find_links(unit[: len(a)], visitors.unit[there], reached, eps, within, new)
            rows = cluster.rows[a][links.first], visitors.rows[there][links.second]
            found.append(Links(*rows, links.needed).ordered())
    return Links.concatenate(found)


def _put_new_first(flags: NDArray[np.uint8]) -> tuple[NDArray[np.int64], int]:
    """Return the places of the rows with a flag, those with `OWN` first, and the number of these."""
    new = np.flatnonzero(flags & OWN)
    return np.concatenate((new, np.flatnonzero((flags & _EITHER) == OTHER))), len(new)
