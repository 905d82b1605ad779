"""Every run looks a sample of what it kept up among all that is kept, and finds what the oracle finds."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
from oracles.reach import Reaching
from runs import CLUSTERS, Decided, command, contents, done, manifest, product, read_plain

from fairdedup.stages.pruning import run_leftover
from fairdedup.storage import shard_groups

ACROSS = ("--rule", "semdedup", "--no-cover", "--eps", "0.05", "--reach", "0.05", "--reach-clusters", "2")


def expected_leftover(run: Path, earlier: Sequence[Path] = (), line_eps: int | None = None) -> dict[str, Any]:
    """Return what run.json must say, by the oracle: from vectors, decisions and options alone."""
    known = manifest(run)
    prune, e = known["config"]["prune"], round(known["eps"] * 10_000)
    runs = [Decided(each) for each in (*earlier, run)]
    centroids = Decided(earlier[0] if earlier else run).centroids
    unit, kept, rows = [], [], []
    for each in runs:
        decisions = each.decisions
        stays = decisions["kept"].to_numpy()
        if each is runs[-1]:
            stays = stays & ~decisions["readmitted"].to_numpy()
        rejected = {int(row) for record in records(each.run) for row in record}
        valid = [row for row in range(len(each.unit) + len(rejected)) if row not in rejected]
        chosen = decisions["row"].to_numpy()[stays]
        unit.append(each.unit)
        kept.append(np.isin(valid, chosen))
        rows.append(valid)
    x16, everyone = np.concatenate(unit), np.concatenate(kept)
    first = len(x16) - len(unit[-1])
    labels = oracles.assign(x16, centroids)
    comparable = labels[:, None] == labels
    if prune["reach"] and prune["reach_clusters"] > 1 and prune["rule"] != "semdedup-chain":
        of = dict(enumerate(centroids))
        each = np.full(len(x16), e)
        if earlier:
            each[:first] = round(manifest(earlier[0])["eps"] * 10_000) if line_eps is None else line_eps
        comparable = Reaching(x16, labels, of, prune["reach"], prune["reach_clusters"]).comparable(each)
    own = [row for row, stays in zip(rows[-1], kept[-1], strict=True) if stays]
    sample = first + np.searchsorted(rows[-1], oracles.sample_rows(own, prune["leftover"], known["seed"]))
    found = oracles.count_leftover(
        x16, labels, comparable, np.ones_like(comparable), e, sample.tolist(), np.flatnonzero(everyone).tolist()
    )
    return {**found._asdict(), "among": int(everyone.sum())}


def records(run: Path) -> list[list[int]]:
    """Return the rows of each shard that have no vector."""
    found, first = [], 0
    for path in sorted((run / "embeddings" / "records").glob("record_*.json")):
        record = read_plain(path)
        found.append([first + line[0] for line in record["rejected"]])
        first += record["input"]
    return found


def assert_as_the_oracle(run: Path, earlier: Sequence[Path] = ()) -> dict[str, Any]:
    found = dict(manifest(run)["leftover"])
    intervals = found.pop("intervals")
    assert found == expected_leftover(run, earlier)
    for kind, bounds in intervals.items():
        assert tuple(bounds) == pytest.approx(oracles.interval(found[kind], found["looked_up"]), abs=1e-9)
    assert not (run / "decisions" / "_leftover").exists()
    return found


@pytest.mark.parametrize(
    "flags",
    [
        ("--keep", 0.5, "--rule", "semdedup", "--leftover", 25),
        ("--keep", 0.5, "--rule", "balanced", "--seed", 4),
        ("--eps", 0.05, "--rule", "fairdedup", "--no-cover"),
        ("--eps", 0.05, "--rule", "semdedup-chain", "--leftover", 7),
        ACROSS,
        (*ACROSS[:4], 0.3, "--reach", "auto", "--leftover", 40),
    ],
)
def test_run_json_says_what_is_left(flags, prune):
    assert_as_the_oracle(prune(*flags).run)


def test_all_kinds_are_there_and_groups_change_nothing(embeddings, tmp_path, scheduler, monkeypatch):
    flags = (
        "--eps",
        0.2,
        "--rule",
        "random-neighbour",
        "--no-cover",
        "--reach",
        0.1,
        "--reach-clusters",
        3,
        "--clusters",
        20,
    )
    asked = ("run", embeddings, *flags, "--scheduler", scheduler, "--quiet", "--out")
    done(*asked, tmp_path / "one")
    found = assert_as_the_oracle(tmp_path / "one")
    assert found["own"] and found["comparable"] and found["elsewhere"], found
    monkeypatch.setattr(shard_groups, "GROUP_ROWS", 100)
    done(*asked, tmp_path / "three")
    assert len(list((tmp_path / "three" / "decisions").glob("part-*.parquet"))) == 3
    assert assert_as_the_oracle(tmp_path / "three") == found


def test_a_bound_that_leaves_too_few_rows_is_given_up(prune, monkeypatch):
    flags = ("--keep", 0.5, "--rule", "semdedup", "--leftover", 25)
    first = manifest(prune(*flags).run)["leftover"]
    monkeypatch.setattr(run_leftover, "bound_hashes", lambda size, kept: 2**58)
    assert manifest(prune(*flags).run)["leftover"] == first


def test_nothing_is_looked_up_if_it_is_turned_off_or_there_is_no_eps(prune):
    for flags in (("--rule", "semdedup", "--leftover", 0), ("--rule", "random")):
        run = prune("--keep", 0.5, *flags).run
        assert manifest(run)["leftover"] is None


def test_it_changes_no_decision_and_is_an_option_of_the_decision(prune, again, embeddings, prototypes, scheduler):
    flags = ("--keep", 0.5, "--rule", "semdedup")
    before = product(prune(*flags).run)
    assert product(prune(*flags, "--leftover", 3).run) == before
    said = command("run", embeddings, *flags, "--prototypes", prototypes, "--clusters", CLUSTERS, "--out", again,
                   "--scheduler", scheduler, "--quiet")  # fmt: skip
    assert said.code == 2 and "--leftover 3 → 1000" in said.err


def test_what_a_killed_command_left_is_removed_and_nearby_clusters_are_made_again(prune, again):
    expected = manifest(prune(*ACROSS).run)["leftover"]
    for path in (again / "clusters").glob("nearby_*"):
        path.unlink()
    left = again / "decisions" / "_leftover" / "sample.rows.0.npy"
    left.parent.mkdir()
    left.write_bytes(b"left")
    assert manifest(prune(*ACROSS).run)["leftover"] == expected


@pytest.mark.parametrize("flags", [("--keep", 0.4, "--rule", "semdedup"), ACROSS])
def test_a_replacement_measures_it_again(flags, prune, again, scheduler, tmp_path):
    run = prune(*flags, "--leftover", 60).run
    before = assert_as_the_oracle(run)
    decisions = Decided(run).decisions
    (tmp_path / "gone.txt").write_text("\n".join(decisions["id"][decisions["kept"]].iloc[::3]))
    for path in (again / "clusters").glob("nearby_*"):
        path.unlink()
    done("replace", again, "--gone", tmp_path / "gone.txt", "--scheduler", scheduler, "--quiet")
    assert assert_as_the_oracle(again) != before
    known = contents(again)
    done("replace", again, "--gone", tmp_path / "gone.txt", "--scheduler", scheduler, "--quiet")  # nothing is new
    assert contents(again) == known


def test_a_run_against_others_is_compared_with_what_they_kept(embeddings, scheduler, tmp_path):
    x = np.concatenate([np.load(path) for path in sorted((embeddings / "img_emb").glob("*.npy"))])
    rng = np.random.default_rng(5)
    new = x[20:90] + 0.5 * np.abs(x[20:90]).mean(axis=1, keepdims=True) * rng.normal(size=(70, x.shape[1]))
    np.save(tmp_path / "new.npy", new.astype(np.float32))
    asked = ("--scheduler", scheduler, "--quiet")
    done(
        "run",
        embeddings,
        "--eps",
        0.1,
        "--rule",
        "semdedup",
        "--published",
        "--clusters",
        30,
        "--out",
        tmp_path / "first",
        *asked,
    )
    earlier = [tmp_path / "first"]
    done(
        "run", tmp_path / "new.npy", "--against", *earlier, "--out", tmp_path / "second", *asked, "--max-rejected", 0.5
    )
    found = assert_as_the_oracle(tmp_path / "second", earlier)
    assert found["among"] > found["looked_up"] and found["elsewhere"]
    ids = Decided(tmp_path / "second").decisions
    (tmp_path / "gone.txt").write_text("\n".join(ids["id"][ids["kept"]].iloc[:3]))
    done("replace", tmp_path / "second", "--gone", tmp_path / "gone.txt", *asked)
    assert assert_as_the_oracle(tmp_path / "second", earlier)["looked_up"] < found["looked_up"]


def test_old_samples_reach_by_the_eps_of_their_line(scheduler, tmp_path):
    """The last old row lies between the clusters: near enough to the other one by the eps of the night alone."""
    axes = np.eye(64)

    def turned(degrees: float) -> Any:
        return np.cos(np.radians(degrees)) * axes[0] + np.sin(np.radians(degrees)) * axes[1]

    noise = 0.05 * np.random.default_rng(0).normal(size=(80, 64)) / 8
    np.save(tmp_path / "old.npy", np.concatenate((np.repeat(axes[:2], 40, axis=0) + noise, [turned(44)])))
    u = (axes[1] + axes[4]) / np.sqrt(2)
    v = 0.95 * u + np.sqrt(1 - 0.95**2) * axes[5]  # so eps is about 0.05, where 44 and 60 degrees are duplicates
    np.save(tmp_path / "new.npy", [turned(60), u, v])
    asked = ("--scheduler", scheduler, "--quiet")
    line = ("--rule", "semdedup", "--eps", 0.0001, "--reach", "auto", "--clusters", 2)
    first, second = tmp_path / "first", tmp_path / "second"
    done("run", tmp_path / "old.npy", *line, "--out", first, *asked)
    words = ("--against", first, "--at-most", 0.667, "--id", "shard/key")
    done("run", tmp_path / "new.npy", *words, "--out", second, *asked)
    assert manifest(second)["eps"] == pytest.approx(0.05, abs=0.001)
    found = assert_as_the_oracle(second, [first])
    assert found == {"looked_up": 2, "among": 83, "own": 0, "comparable": 0, "elsewhere": 1, "any": 1}
    assert expected_leftover(second, [first], line_eps=501)["comparable"] == 1


def test_a_damaged_file_of_an_earlier_run_is_named(finished, embeddings, prototypes, scheduler, tmp_path):
    asked = ("--scheduler", scheduler, "--quiet")
    shutil.copytree(finished, tmp_path / "first")
    done("prune", tmp_path / "first", "--keep", 0.5, "--published", "--prototypes", prototypes, *asked)
    done("run", embeddings, "--against", tmp_path / "first", "--out", tmp_path / "second", "--id", "shard/key", *asked)
    path = tmp_path / "second" / "state" / "run-0000" / "offsets_0.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()  # it may be a link
    path.write_bytes(data)
    kept = Decided(tmp_path / "second").decisions
    (tmp_path / "gone.txt").write_text(kept["id"].iloc[0])
    said = command("replace", tmp_path / "second", "--gone", tmp_path / "gone.txt", *asked)
    assert said.code == 2 and said.err.count("\n") == 1 and "offsets_0.npy is missing or damaged" in said.err
