"""Links between new rows and samples that earlier runs kept in other clusters.

These samples are never removed, and new rows are either linked to them or not, whatever else is decided. So of each new
row only the samples matter that can represent it at some eps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.cross_links import find_links
from fairdedup.core.model import EarlierKept
from fairdedup.core.part import Part, Shared
from fairdedup.core.parts import compare_rows
from fairdedup.core.pinned import split_blocks
from fairdedup.core.within import take_codes


class EarlierLinks(NamedTuple):
    """New rows and the samples of earlier runs that they are linked to.

    Attributes
    ----------
    rows : ndarray of shape (m,), int64
        The new rows.
    needed : ndarray of shape (m,), int64
        The least eps at which each pair is linked, in ten-thousandths.
    similarity : ndarray of shape (m,), float64
        Cosine of the pair.
    order, names : ndarrays of shape (m,), int64
        The sample, as `EarlierKept` has it.
    """

    rows: NDArray[np.int64]
    needed: NDArray[np.int64]
    similarity: NDArray[np.float64]
    order: NDArray[np.int64]
    names: NDArray[np.int64]

    @classmethod
    def join(cls, parts: Sequence[EarlierLinks]) -> EarlierLinks:
        """Return those links of several lists that represent their row at some eps, by row and then by `needed`.

        A link is left out if another one of its row needs no larger eps and goes first: its cosine is higher or, where
        that is equal, its `order` lower.
        """
        if not parts:
            nothing = np.zeros(0, np.int64)
            return cls(nothing, nothing, np.zeros(0), nothing, nothing)
        joined = cls._make(np.concatenate(column) for column in zip(*parts, strict=True))
        count = len(joined.rows)
        rank = np.empty(count, np.int64)
        rank[np.lexsort((joined.order, -joined.similarity))] = np.arange(count)
        by_row = np.lexsort((rank, joined.needed, joined.rows))
        rows, rank = joined.rows[by_row], rank[by_row]
        group = np.cumsum(np.diff(rows, prepend=-1) != 0)
        key = rank - group * count  # below every key of the row before, so that the minimum starts anew at each row
        least = np.minimum.accumulate(key)
        better = np.ones(count, np.bool_)
        better[1:] = key[1:] < least[:-1]
        return joined.take(by_row[better])

    def take(self, places: NDArray[np.int64]) -> EarlierLinks:
        """Return some of the links."""
        return EarlierLinks._make(column[places] for column in self)

    def at(self, eps: int) -> EarlierLinks:
        """Return the link of each row that represents it at an eps, if it has one; `self` comes from `join`.

        Parameters
        ----------
        eps : int
            Ten-thousandths.
        """
        linked = np.flatnonzero(self.needed <= eps)
        rows = self.rows[linked]
        last = np.ones(len(rows), np.bool_)
        last[:-1] = rows[1:] != rows[:-1]
        return self.take(linked[last])


def find_earlier_links(part: Part, flags: Shared, wanted: int, eps: int) -> EarlierLinks:
    """Return the links of new rows to samples that earlier runs kept in other clusters.

    Either the new row is one of the part, and the sample reaches its cluster; or the sample is one of the part, and the
    new row reaches that cluster.

    Parameters
    ----------
    part : Part
        Any number of clusters, each with rows, with samples of earlier runs, or with both.
    flags : Shared
        Flags by row: (input,), uint8.
    wanted : int
        Flags of which a new row has at least one.
    eps : int
        Ten-thousandths.
    """
    found, known = [], flags.read()
    for cluster in part.clusters():
        own = np.flatnonzero((known[cluster.rows] & wanted) > 0)
        rows, unit, codes = cluster.rows[own], cluster.unit[own], take_codes(cluster.within, own)
        for samples in part.earlier_visitors(cluster.number) if len(own) else ():
            reached = np.zeros(len(samples.names), np.int64)  # whatever the eps: they reach it by that of the line
            links = find_links(unit, samples.unit, reached, eps, (codes, samples.within))
            found.append(_describe(rows, unit, samples.unit, samples.order, samples.names, *links))
    for number in part.clusters_with_earlier():
        own_samples: EarlierKept | None = None
        for visitors in part.visitors(number, known, wanted, eps):
            samples = own_samples = own_samples or part.earlier(number)  # read for clusters that have visitors only
            for start, stop in split_blocks(samples.unit):
                block = samples.unit[start:stop]
                within = take_codes(samples.within, slice(start, stop)), visitors.within
                links = find_links(block, visitors.unit, visitors.needed, eps, within)
                found.append(
                    _describe(
                        visitors.rows,
                        visitors.unit,
                        block,
                        samples.order[start:stop],
                        samples.names[start:stop],
                        links.second,
                        links.first,
                        links.needed,
                    )
                )
    return EarlierLinks.join(found)


def _describe(
    rows: NDArray[np.int64],
    unit: NDArray[np.float16],
    samples: NDArray[np.float16],
    order: NDArray[np.int64],
    names: NDArray[np.int64],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    needed: NDArray[np.int64],
) -> EarlierLinks:
    """Return the links of the new rows at `first` to the samples at `second`."""
    similarity = compare_rows(unit[first], samples[second])
    return EarlierLinks(rows[first], needed, similarity, order[second], names[second])
