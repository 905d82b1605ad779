"""Vectors of some rows of a run, read from the embedding shards that hold them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.run_files import read_array
from fairdedup.storage.shard_groups import Group


def read_vectors_of_rows(run: RunDirectory, group: Group, rows: NDArray[np.int64]) -> NDArray[np.float16]:
    """Return the vectors (n, d) of some rows (n,) of a group of shards, in their order; (0, 0) of none."""
    out = np.zeros((0, 0), np.float16)
    for record, first in group.shards():
        own = np.flatnonzero((rows >= first) & (rows < first + record.input))
        if len(own):
            vectors = read_array(run.vectors(record.number))
            out = out if out.size else np.empty((len(rows), vectors.shape[1]), np.float16)
            out[own] = vectors[np.searchsorted(first + record.positions(), rows[own])]
    return out
