"""Nights of a line that looks across clusters are decided as by the slow twin, whatever they were before."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from nights import assert_decided_as_by_the_oracle, decisions_of, night, refused
from runs import done, manifest, product
from standing import assert_counted

from fairdedup.stages.pruning import cluster_ranges

ACROSS = ("--cover", "--reach", "auto")


@pytest.fixture(params=[1 << 13, 20], ids=["one part", "many parts"])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Split the clusters into one part, and into one for each cluster."""
    monkeypatch.setattr(cluster_ranges, "ROWS_A_STEP", request.param)


@pytest.fixture(scope="module")
def across(days: Path, tmp_path_factory: pytest.TempPathFactory, scheduler: str, prototypes: Path) -> list[Path]:
    """Return three nights with reach; copy them before you change them."""
    out = tmp_path_factory.mktemp("across")
    first = ("--keep", 0.3, *ACROSS, "--prototypes", prototypes, "--clusters", 30)
    runs = [night(days, 0, out / "day0", scheduler, *first)]
    runs.append(night(days, 1, out / "day1", scheduler, "--against", runs[0]))
    return [*runs, night(days, 2, out / "day2", scheduler, "--against", runs[1], "--at-most", 0.2)]


def crossed(runs: list[Path]) -> int:
    """Return how many rows of the last run are removed by a sample that an earlier run kept in another cluster."""
    known = {
        (str(run), name): cluster
        for run in runs[:-1]
        for name, cluster in decisions_of(run)[["id", "cluster"]].itertuples(index=False)
    }
    found = decisions_of(runs[-1]).dropna(subset="representative_id")
    theirs = [known[key] for key in zip(found["representative_run"], found["representative_id"], strict=True)]
    return int((found["cluster"].to_numpy() != np.array(theirs, dtype=np.int64)).sum())


def test_night_follows_night_as_by_the_oracle(across):
    for number in (2, 3):
        assert_decided_as_by_the_oracle(across[:number], "fairdedup", cover=True, reach="auto")
        assert crossed(across[:number])
    assert manifest(across[2])["config"]["prune"]["reach"] == "auto"


def test_rows_that_earlier_runs_represent_in_any_cluster_count_for_no_row_of_this_run(across):
    for run in across[1:]:
        earlier = decisions_of(run)["representative_run"].notna().sum()
        assert assert_counted(run)["stands_for"].sum() + earlier == manifest(run)["counts"]["removed"]


@pytest.mark.parametrize(
    ("rule", "words", "options"),
    [
        ("semdedup", ("--no-cover", "--reach", 0.2), {"reach": 0.2}),
        ("balanced", ("--cover", "--reach", "auto", "--reach-clusters", 3), {"reach": "auto", "reach_clusters": 3}),
    ],
)
def test_every_rule_continues_in_many_parts(days, tmp_path, scheduler, prototypes, rule, words, options, parts):
    first = ("--keep", 0.4, "--rule", rule, *words, "--prototypes", prototypes, "--clusters", 12)
    runs = [night(days, 0, tmp_path / "0", scheduler, *first)]
    for k in (1, 2):
        runs.append(night(days, k, tmp_path / str(k), scheduler, "--against", runs[-1]))
    assert_decided_as_by_the_oracle(runs, rule, cover="--cover" in words, **options)


def test_old_samples_remove_new_rows_where_their_own_clusters_have_none(days, across, tmp_path, scheduler):
    """The copies lie in clusters of their own, so that most clusters have no new row."""
    few = tmp_path / "few"
    few.mkdir()
    x = np.load(days / "day1.npy")[:6]
    np.save(few / "day0.npy", x)
    runs = [across[0], night(few, 0, tmp_path / "run", scheduler, "--against", across[0])]
    assert_decided_as_by_the_oracle(runs, "fairdedup", cover=True, reach="auto")


def test_reach_belongs_to_the_line(days, across, tmp_path, scheduler):
    words = (days / "day1.npy", "--out", tmp_path / "new", "--against", across[0])
    assert "--reach 0.0 differs from that of" in refused(*words, "--reach", 0)
    assert "--reach-clusters 2 differs from that of" in refused(*words, "--reach-clusters", 2)
    night(days, 1, tmp_path / "same", scheduler, "--against", across[0], "--reach", "auto")
    assert product(tmp_path / "same") == product(across[1])


def test_a_night_that_is_decided_again_stays_the_same(across, tmp_path, scheduler):
    run = shutil.copytree(across[2], tmp_path / "day2")
    done("prune", run, "--at-most", 0.2, "--scheduler", scheduler, "--quiet")
    assert product(run) == product(across[2])
