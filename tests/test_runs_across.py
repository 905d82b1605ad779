"""Runs that look across clusters decide as the oracle does, in any number of parts, and leave nothing behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
from problems import COMPARED, assert_same
from runs import Decided, done, product

from fairdedup.stages.pruning import cluster_ranges

ACROSS = ("--reach", "auto")


@pytest.fixture(params=[1 << 13, 20], ids=["one part", "many parts"])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Split the clusters into one part, and into one for each cluster."""
    monkeypatch.setattr(cluster_ranges, "ROWS_A_STEP", request.param)


def assert_as_oracle(run: Decided, expected: Any) -> None:
    found, rows = run.decisions, run.decisions["row"].to_numpy()
    columns: dict[str, Any] = {name: found[name].to_numpy() for name in COMPARED}
    places = {int(row): k for k, row in enumerate(rows)}
    for name in ("representative", "neighbourhood"):  # rows of the input, and the oracle counts the valid ones
        columns[name] = np.array([places.get(int(row), -1) for row in columns[name]])
    assert_same(columns, expected)


@pytest.mark.parametrize(
    ("rule", "cover", "reach", "most"),
    [
        ("semdedup", True, "auto", 16),
        ("semdedup", False, "auto", 2),
        ("fairdedup", True, "0.3", 16),
        ("fairdedup", False, "auto", 16),
        ("balanced", True, "auto", 3),
        ("balanced", False, "1", 20),
    ],
)
def test_a_run_decides_as_the_oracle(rule, cover, reach, most, parts, prune):
    cover_flag = "--cover" if cover else "--no-cover"
    run = prune("--eps", "0.05", "--rule", rule, cover_flag, "--reach", reach, "--reach-clusters", most)
    value = reach if reach == "auto" else float(reach)
    twin = run.problem(rule, cover, reach=value, reach_clusters=most)
    assert_as_oracle(run, twin.at_eps(500))
    labels = run.decisions["cluster"].to_numpy()
    rows = run.decisions["row"].tolist()
    homes = dict(zip(rows, labels.tolist(), strict=True))
    crossed = sum(
        homes.get(a) != homes.get(b)
        for a, b in zip(rows, run.decisions["representative"].tolist(), strict=True)
        if b >= 0
    )
    assert crossed or most == 2
    assert not (run.run / "decisions" / "_rounds").exists()


def test_a_keep_fraction_is_exact_and_the_sweep_command_finds_the_same_eps(parts, prune, scheduler):
    flags = ("--rule", "semdedup", "--cover", *ACROSS)
    run = prune("--keep", 0.4, *flags)
    swept = done("sweep", run.run, "--keep", 0.4, *flags, "--scheduler", scheduler, "--quiet").out
    found = json.loads((run.run / "run.json").read_text())
    twin = run.problem("semdedup", True, reach="auto")
    eps = round(found["eps"] * 10_000)
    assert run.decisions["kept"].sum() == oracles.kept_seats(0.4, twin.n)
    assert twin.brackets(eps, oracles.kept_seats(0.4, twin.n))
    assert f"{found['eps']:.4f}" in swept
    assert_as_oracle(run, twin.decide(eps, 0.4))


def test_parts_and_workers_change_no_byte(prune, again, monkeypatch, tmp_path):
    flags = ("--eps", 0.05, "--rule", "fairdedup", "--cover", *ACROSS)
    expected = product(prune(*flags).run)
    monkeypatch.setattr(cluster_ranges, "ROWS_A_STEP", 20)
    assert product(prune("--eps", 0.05, "--rule", "semdedup").run) != expected  # other decisions in between
    assert product(prune(*flags).run) == expected


def test_files_of_a_killed_command_are_removed_and_those_of_an_earlier_version_made(prune, again):
    flags = ("--eps", 0.05, "--rule", "semdedup", "--cover", *ACROSS)
    expected = product(prune(*flags).run)
    for path in (again / "clusters").glob("nearby_*"):
        path.unlink()
    left = again / "decisions" / "_rounds" / "round-500-0.rows.0.npy"
    left.parent.mkdir()
    left.write_bytes(b"left")
    shutil.rmtree(again / "kept")
    assert product(prune(*flags).run) == expected
    assert not left.exists() and list((again / "clusters").glob("nearby_*.npy"))


def test_a_damaged_list_of_nearby_clusters_is_made_again(prune, again):
    flags = ("--eps", 0.05, "--rule", "semdedup", "--cover", *ACROSS)
    expected = product(prune(*flags).run)
    path = next(iter((again / "clusters").glob("nearby_*.npy")))
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    shutil.rmtree(again / "kept")
    assert product(prune(*flags).run) == expected
    assert path.read_bytes() != bytes(data)


def test_rows_always_kept_remove_their_duplicates_in_other_clusters(parts, prune, again, tmp_path):
    ids = Path(tmp_path / "ids.txt")
    ids.write_text("\n".join(f"k{row}" for row in range(0, 240, 40) if row != 120))
    run = prune("--eps", "0.05", "--rule", "semdedup", "--cover", "--always-keep", ids, *ACROSS)
    protected = run.decisions["id"].isin(ids.read_text().split()).to_numpy()
    assert run.decisions["kept"].to_numpy()[protected].all()
    twin = run.problem("semdedup", True, reach="auto", protected=protected)
    assert_as_oracle(run, twin.at_eps(500))


@pytest.mark.soak
@pytest.mark.parametrize("rule", ["semdedup", "fairdedup"])
def test_one_two_and_four_workers_write_the_same_bytes_in_many_parts(rule, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60_000, 32)).astype(np.float32)
    x[30_000:] = x[:30_000] + rng.uniform(0.01, 0.6, (30_000, 1)) * x[30_000:]
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "p.npz", **{f"tone/{k}": rng.normal(size=32) for k in range(3)})
    flags = ("--keep", 0.5, "--rule", rule, "--prototypes", tmp_path / "p.npz", "--clusters", 60, "--quiet")
    products = []
    for workers in (1, 2, 4):
        out = tmp_path / f"by{workers}"
        done("run", tmp_path / "x.npy", *flags, "--workers", workers, "--out", out)
        products.append(product(out))
    assert products[0] == products[1] == products[2]
    decided = Decided(tmp_path / "by1").decisions
    homes = decided["cluster"].to_numpy()
    crossed = homes[decided["representative"].to_numpy()] != homes
    assert crossed.sum() > 1000
