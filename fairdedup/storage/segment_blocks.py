"""What earlier runs kept of a group of shards, read in blocks of whole clusters and verified while it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.storage.earlier_samples import LINKED, list_segments, open_segment, seal_of_segment
from fairdedup.storage.run_files import release_pages
from fairdedup.storage.sealed_files import Unsealed, load_array


class SegmentBlock(NamedTuple):
    """Some clusters of a segment.

    Attributes
    ----------
    first : int
        Place of the first vector in the segment; the others follow it.
    unit : ndarray of shape (m, d), float16
        Unit vectors.
    clusters : ndarray of shape (m,), int64
        Numbers of their clusters.
    """

    first: int
    unit: NDArray[np.float16]
    clusters: NDArray[np.int64]


def iterate_segment(root: Path, place: int, seals: Mapping[str, str], rows: int) -> Iterator[SegmentBlock]:
    """Yield what a segment holds, some clusters at a time, and verify it.

    Parameters
    ----------
    root : Path
        Run directory.
    place : int
        Place in `list_segments`.
    seals : mapping of str to str
        Seal of each file of the state, by path below the run directory.
    rows : int
        Number of rows from which on they are yielded; a cluster is never divided.

    Raises
    ------
    UserError
        If a file is damaged.
    """
    segment = list_segments(root)[place]
    for path in (segment.offsets, segment.checksums):
        seal_of_segment(root, segment, path, seals).verify()
    clusters = len(load_array(Unsealed(segment.offsets, LINKED))) - 1
    opened = open_segment(root, place, clusters)
    units, numbers, first, end = [], [], 0, 0
    for number in np.flatnonzero(np.diff(opened.offsets)).tolist():
        for unit, _ in opened.cluster(number, 0):
            units.append(unit)
            numbers.append(np.full(len(unit), number))
            end += len(unit)
        if end - first >= rows or end == opened.offsets[-1]:
            yield SegmentBlock(first, np.concatenate(units), np.concatenate(numbers))
            release_pages(opened.vectors)
            units, numbers, first = [], [], end
