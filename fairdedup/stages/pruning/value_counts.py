"""The values of the column `within` in each cluster, of each of which every eps keeps a row. No vector is read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fairdedup.stages.pruning.cluster_ranges import VERIFIED, ClusterRange
from fairdedup.storage.earlier_samples import PLACE_BITS, EarlierSamples
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.marks import WRITTEN, Marks
from fairdedup.storage.sealed_files import Unsealed, open_array


def count_values(part: ClusterRange) -> int:
    """Return how many values the clusters of a range have without a row that is kept whatever the rule is.

    A value counts in each cluster that has a row with it. Rows that are protected, and samples that earlier runs kept,
    are kept whatever the rule is.

    Parameters
    ----------
    part : ClusterRange
    """
    run = RunDirectory(part.root)
    found = []  # (cluster, code, whether the row is open) of each row
    for k in range(part.files):
        offsets = open_array(Unsealed(run.sorted("offsets", k), VERIFIED))[part.first : part.last + 1]
        bounds = np.asarray(offsets)
        marks = open_array(Unsealed(Marks(part.marks).path(k), WRITTEN))[int(bounds[0]) : int(bounds[-1])]
        stays = ~marks["excluded"]
        cluster = np.repeat(np.arange(part.first, part.last), np.diff(bounds))
        found.append(np.stack((cluster, marks["within"], ~marks["protected"]), axis=1)[stays])
    if part.against:
        found += _list_earlier(EarlierSamples(part.root, part.first, part.last, within=True))
    rows = np.concatenate(found)
    rows = rows[np.lexsort(rows.T[::-1])]  # an open row comes last among those of its value
    new = (np.diff(rows[:, :2], axis=0, prepend=[[-1, 0]]) != 0).any(axis=1)
    return int(np.count_nonzero(rows[new, 2]))


def _list_earlier(samples: EarlierSamples) -> list[NDArray[np.int64]]:
    """Return the cluster and the code of each sample that earlier runs kept in a range: (m, 3), the last column 0."""
    found = []
    for place, segment in enumerate(samples.segments):
        names = (place << PLACE_BITS) + np.arange(int(segment.offsets[0]), int(segment.offsets[-1]))
        cluster = np.repeat(samples.first + np.arange(len(segment.offsets) - 1), np.diff(segment.offsets))
        codes = samples.codes(names)
        assert codes is not None
        found.append(np.stack((cluster, codes, np.zeros(len(names), np.int64)), axis=1))
    return found
