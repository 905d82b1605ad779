"""Cosines to nearest neighbours, from which an eps is suggested: over any number of sorted groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import oracles
import pytest
from runs import done

from fairdedup.core.eps_suggestion import count_cosines, suggest_eps
from fairdedup.stages.pruning import nearest_cosines
from fairdedup.stages.pruning.nearest_cosines import count_nearest_cosines
from fairdedup.storage import sealed_files, shard_groups
from fairdedup.storage.contents import Clustered, load_clustered, load_embedded
from fairdedup.storage.layout import RunDirectory

FILES, ROWS = 9, 40


def write_inputs(folder: Path) -> None:
    """Write files of vectors: each row of the first third has a near-duplicate in another file."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=(FILES * ROWS, 16)) + 2 * rng.normal(size=16)
    third = len(x) // 3
    x[third : 2 * third] = x[:third] + 1e-3 * rng.normal(size=(third, 16))
    for k in range(FILES):
        np.save(folder / f"{k}.npy", x[k * ROWS : (k + 1) * ROWS].astype(np.float32))


@pytest.fixture(scope="module")
def many_groups(tmp_path_factory: pytest.TempPathFactory) -> Clustered:
    """Return a run whose files are a group each."""
    folder = tmp_path_factory.mktemp("groups")
    write_inputs(folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(shard_groups, "GROUP_ROWS", ROWS)
        done("run", f"{folder}/*.npy", "--eps", 0.01, "--rule", "semdedup", "--clusters", 3, "--out", folder / "run",
             "--quiet")  # fmt: skip
        clustered = load_clustered(load_embedded(RunDirectory(folder / "run")))
        assert len(clustered.groups) == FILES > nearest_cosines.MOST_VERIFIED
    return clustered


def by_cluster(clustered: Clustered) -> list[np.ndarray]:
    """Return the vectors of each cluster, assigned by the twin."""
    run = clustered.directory.root
    files = sorted((run / "embeddings" / "img_emb").glob("*.npy"), key=lambda path: int(path.stem.rpartition("_")[2]))
    unit = np.concatenate([np.load(file) for file in files])
    labels = oracles.assign(unit, oracles.unit16(np.load(run / "clusters" / "centroids.npy")))
    return [unit[labels == number] for number in range(len(clustered.sizes))]


def nearest(unit: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """Return the cosine of some rows, or of all, to the nearest other row, by float64 loops."""
    found = oracles.cosine_matrix(unit, unit)
    np.fill_diagonal(found, -2)
    return found.max(axis=1)[slice(None) if rows is None else rows]


def test_more_than_four_groups_count_as_all_rows_in_memory(many_groups):
    counts = count_nearest_cosines(many_groups)
    assert counts.sum() == FILES * ROWS
    expected = count_cosines(np.concatenate([nearest(unit) for unit in by_cluster(many_groups)]))
    off = np.abs(np.cumsum(counts) - np.cumsum(expected))
    off[199] = 0  # of a near-duplicate the cosine is 1 or just below it
    assert off.max() <= 2  # in float32 a cosine may fall on the other side of a border
    eps = suggest_eps(counts)
    assert eps is not None and 0.02 <= eps < 0.4


def test_no_more_rows_and_groups_are_read_than_a_page_should(many_groups, monkeypatch):
    read = list[int]()
    whole = nearest_cosines._find_nearest
    monkeypatch.setattr(nearest_cosines, "_find_nearest", lambda unit: read.append(len(unit)) or whole(unit))
    monkeypatch.setattr(nearest_cosines, "MOST_ROWS", 50)
    counts = count_nearest_cosines(many_groups)
    assert len(read) == 1 and 0.9 * 50 < read[0] <= 50 + FILES and counts.sum() == read[0]
    monkeypatch.setattr(nearest_cosines, "MOST_ROWS", 10_000)
    monkeypatch.setattr(nearest_cosines, "QUERIES_OF_CLUSTER", 10)
    assert count_nearest_cosines(many_groups).sum() == 30
    opened = set[Path]()
    openers = sealed_files.open_array

    def note(source, *arguments):
        opened.add(source.path)
        return openers(source, *arguments)

    monkeypatch.setattr(nearest_cosines, "MOST_GROUPS", 5)
    monkeypatch.setattr(nearest_cosines, "open_array", note)
    assert count_nearest_cosines(many_groups).sum() == 30
    assert len(opened) == 5


def test_a_damaged_header_is_an_error_that_names_the_file(many_groups, tmp_path):
    path = many_groups.directory.sorted("vectors", 3)
    before = path.read_bytes()
    try:
        path.write_bytes(before[:-32])
        with pytest.raises(Exception, match="missing or damaged"):
            count_nearest_cosines(many_groups)
    finally:
        path.write_bytes(before)
