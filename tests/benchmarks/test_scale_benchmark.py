"""The measurements of scale: planted pairs, exponents, goals, and results to which others are added."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairdedup.progress import StageProgress
from fairdedup.tasks import Task

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import generated_shards  # noqa: E402
from generated_shards import check_disk, list_planted_pairs, write_shards  # noqa: E402
from measured_jobs import sum_stages  # noqa: E402
from results_file import add_to_results, write_results  # noqa: E402
from run_in_loop import LoopWorkers  # noqa: E402
from scale import MOST, fit_exponents, list_failures  # noqa: E402


def report(seconds: float, most: int = 100) -> dict[str, Any]:
    """Return the report of a job whose stages take so long, half of it in prune."""
    parts = {"embed": 0.2, "cluster": 0.3, "prune": 0.5}
    return {command: {"stages": {"a": share * seconds, "start workers": 7.0}} for command, share in parts.items()} | {
        MOST: most
    }


def test_planted_pairs_are_the_near_duplicates_of_the_shards(tmp_path):
    write_shards(tmp_path, 430, 512, 4, 0, seed=1)
    x = np.concatenate([np.load(tmp_path / "img_emb" / f"img_emb_{k}.npy").astype(np.float32) for k in range(4)])
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    first, second = list_planted_pairs(430, 4)
    cosines = x @ x.T
    np.fill_diagonal(cosines, -1)
    planted = cosines[first, second]
    cosines[first, second] = cosines[second, first] = -1
    assert len(first) == 54 + 54 + 53 + 53 and planted.min() > 0.8 > cosines.max()


def test_exponents_are_the_slopes_of_the_logarithms():
    sizes = {str(rows): report(1e-4 * rows**1.3) for rows in (1000, 20_000, 400_000)}
    assert sum_stages(sizes["1000"]) == pytest.approx(1e-4 * 1000**1.3)
    found = fit_exponents(sizes)
    assert set(found) == {"all stages", "embed", "cluster", "prune", "largest two"}
    assert all(value == pytest.approx(1.3, abs=0.001) for value in found.values())
    assert fit_exponents({"1000": report(1.0)}) == {}


def test_the_slope_between_the_two_largest_sizes_is_there_too():
    found = fit_exponents({"10": report(1.0), "100": report(1.0), "1000": report(10.0)})
    assert found["all stages"] == 0.5 and found["largest two"] == 1.0


def test_goals_that_are_missed_are_listed():
    figures = {
        "sizes": {"10": report(1.0, 2049), "20": report(1.0, 2048)},
        "in tiny shards": report(1.0, 3000),
        "exponents": {"all stages": 1.05, "largest two": 1.2},  # a mean over all sizes hides the last step
        "dask": {"overhead": 0.2},
        "rows": 10,
    }
    failed = list_failures(figures)
    assert [line.split(":")[0].split(",")[0] for line in failed] == [
        "10 rows", "in tiny shards", "exponent of largest two", "Dask costs 20.0% more than a loop"
    ]  # fmt: skip
    assert list_failures({"exponents": {"all stages": 1.1, "largest two": 1.1}, "dask": {"overhead": 0.15}}) == []


def test_a_job_without_room_on_the_disk_is_refused(tmp_path, monkeypatch):
    check_disk(tmp_path, 1000, 16)
    monkeypatch.setattr(generated_shards.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10**9}))
    with pytest.raises(SystemExit, match=r"1,000,000 rows of 512 values need 4\.4 GB in .* which has 1\.0 GB free"):
        check_disk(tmp_path, 1_000_000, 512)


def test_figures_are_added_only_to_those_of_the_same_options_machine_and_version(tmp_path):
    file = tmp_path / "scale.json"
    assert add_to_results(file, {"dim": 8}) == {}
    write_results(file, {"dim": 8, "sizes": {"10": 1}}, what="seconds", seed=0)
    assert add_to_results(file, {"dim": 8}) == {"dim": 8, "sizes": {"10": 1}}
    with pytest.raises(SystemExit, match=r"scale\.json has figures for dim 8, not 16: leave out --add"):
        add_to_results(file, {"dim": 16})
    known = json.loads(file.read_text())
    file.write_text(json.dumps({**known, "hardware": {**known["hardware"], "cores": 1000}}))
    with pytest.raises(SystemExit, match="figures for cores 1000"):
        add_to_results(file, {"dim": 8})
    file.write_text(json.dumps({**known, "versions": {"fairdedup": "0.0.1"}}))
    with pytest.raises(SystemExit, match=r"figures for version of fairdedup '0\.0\.1'"):
        add_to_results(file, {"dim": 8})


def test_a_loop_starts_no_cluster():
    with LoopWorkers(StageProgress(quiet=True), workers=3) as workers:
        assert workers.submit("square", pow, [Task((k, 2), 10**6) for k in range(4)]) == [0, 1, 4, 9]
        assert workers.submit("nothing", pow, []) == []
        assert workers._client is None
