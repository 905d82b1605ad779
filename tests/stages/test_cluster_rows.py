"""The vectors of a cluster in several files, read when they are asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fairdedup.core.similarity import Vectors
from fairdedup.stages.pruning import cluster_rows
from fairdedup.stages.pruning.cluster_rows import ClusterRows


@pytest.mark.parametrize("large", [1 << 25, 0])  # with 0, pages are released after every read
def test_rows_are_those_of_the_files_however_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int
) -> None:
    monkeypatch.setattr(cluster_rows, "LARGE", large)
    rng = np.random.default_rng(0)
    whole, pieces = [], []
    for k, (size, own) in enumerate([(50, slice(10, 30)), (9, slice(0, 9)), (40, slice(39, 40))]):
        np.save(tmp_path / f"{k}.npy", rng.normal(size=(size, 6)).astype(np.float16))
        pieces.append((np.load(tmp_path / f"{k}.npy", mmap_mode="r"), own))
        whole.append(np.array(pieces[-1][0][own]))
    expected, rows = np.concatenate(whole), ClusterRows(pieces)
    chosen = np.array([29, 0, 4, 20, 21, 28])
    for known, array in ((rows, expected), (rows.take(chosen), expected[chosen])):
        n = len(array)
        assert known.shape == array.shape
        mask = rng.random(n) < 0.5
        for index in (slice(None), slice(1, 3), np.array([n - 1, 0, 0]), rng.permutation(n), mask, np.zeros(0, int)):
            found = known[index]
            assert found.dtype == np.float16
            np.testing.assert_array_equal(found, array[index])
        np.testing.assert_array_equal(Vectors.of(known).x, array.astype(np.float32))
    np.testing.assert_array_equal(rows.take(chosen).take(np.array([2, 1]))[:], expected[chosen][[2, 1]])
