"""The comparison with other tools: what is measured of what they kept, and tools that are missing or too slow."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from across import find_all_pairs  # noqa: E402
from peer_search import search_published  # noqa: E402
from peers import (  # noqa: E402
    compare_speed,
    find_planted_pairs,
    generate_vectors,
    measure_kept,
    parse_pythons,
    run_tool,
)

EPS = 0.2


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    return generate_vectors(tmp_path_factory.mktemp("peers"), 600, 512, 6, seed=0)


@pytest.fixture(scope="module")
def unit(vectors: np.ndarray) -> np.ndarray:
    x = vectors.astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def limits(**values: float) -> argparse.Namespace:
    return argparse.Namespace(**{"eps": EPS, "threads": 1, "memory": 8, "time_limit": 60, "repeats": 2, **values})


def test_recall_and_what_is_left_by_hand():
    pairs = np.array([0, 2, 4]), np.array([1, 3, 5])
    every = np.array([0, 0, 2, 4]), np.array([1, 2, 3, 5])
    found = measure_kept(np.array([0, 2, 3, 6]), 7, pairs, every)
    # Of (0, 1) one is kept, of (2, 3) both, of (4, 5) none; 0 and 2 are duplicates as well.
    assert found == {
        "kept": 4,
        "recall of all pairs": 0.5,  # of (0, 2) both are kept as well
        "recall of planted pairs": pytest.approx(2 / 3),
        "kept with a kept duplicate": 3,
    }


def test_planted_pairs_are_among_all_pairs(vectors):
    planted, every = find_planted_pairs(vectors, 6, EPS), find_all_pairs(vectors, EPS)
    assert 250 < len(planted[0]) <= 300
    assert set(zip(*map(np.ndarray.tolist, planted), strict=True)) <= set(
        zip(*map(np.ndarray.tolist, every), strict=True)
    )


def test_the_published_procedure_finds_the_planted_pairs(vectors, unit):
    planted, every = find_planted_pairs(vectors, 6, EPS), find_all_pairs(vectors, EPS)
    found = measure_kept(search_published(unit, EPS), len(unit), planted, every)
    assert found["recall of planted pairs"] == 1 and found["kept with a kept duplicate"] == 0
    assert 300 <= found["kept"] < 360


def test_the_published_procedure_removes_what_is_near_a_removed_row_too():
    angles = (1.0, 0.5, 0.0, -0.8, -0.8, -0.8, -0.8, -0.8)
    x = np.array([[np.cos(t), np.sin(t)] for t in angles], np.float32)
    # The first three come in this order, since their centroid is near the copies. The first removes the second, which
    # removes the third although it is removed itself.
    assert search_published(x, 1 - np.cos(0.6)).tolist() == [0, 3]


def test_a_tool_that_is_not_installed_is_skipped_with_the_reason(tmp_path, unit):
    np.save(tmp_path / "x.npy", unit)
    missing = "semhash" if "semhash" not in sys.modules else "imagededup"
    report = run_tool(missing, sys.executable, tmp_path / "x.npy", tmp_path / "kept.npy", len(unit), limits())
    assert report == {"skipped": f"ModuleNotFoundError: No module named '{missing}'"}
    report = run_tool("semhash", str(tmp_path / "python"), tmp_path / "x.npy", tmp_path / "kept.npy", 600, limits())
    assert report["skipped"].endswith("cannot be started: No such file or directory")


def test_a_tool_that_takes_too_long_is_ended(tmp_path, unit):
    np.save(tmp_path / "x.npy", unit)
    report = run_tool(
        "published", sys.executable, tmp_path / "x.npy", tmp_path / "kept.npy", len(unit), limits(time_limit=0.05)
    )
    assert report == {"skipped": "not done after 0 s"}


def test_a_tool_that_runs_is_timed(tmp_path, unit):
    np.save(tmp_path / "x.npy", unit)
    report = run_tool("published", sys.executable, tmp_path / "x.npy", tmp_path / "kept.npy", len(unit), limits())
    assert report["version"] == np.__version__ and report["seconds"] > 0 and report["most resident MiB"] > 20
    assert np.load(tmp_path / "kept.npy").tolist() == search_published(unit, EPS).tolist()


def test_speed_is_compared_with_tools_that_ran():
    own = {"seconds": 2.0, "recall of all pairs": 1.0}
    tools = {"fairdedup": own, "semhash": {"seconds": 50.0, "recall of all pairs": 0.9}, "faiss": {"skipped": "no"}}
    assert compare_speed(tools) == {"semhash": {"times as fast": 25.0, "recall beyond it": pytest.approx(0.1)}}
    assert compare_speed({"faiss": own}) == {}


def test_a_python_that_names_no_tool_is_refused():
    assert parse_pythons(["semhash=a/python"]) == {"semhash": "a/python"}
    for word in ("semhash", "sem=python"):
        with pytest.raises(SystemExit, match="--python must be NAME=PATH"):
            parse_pythons([word])
