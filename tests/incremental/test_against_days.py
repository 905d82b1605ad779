"""Several days are run one after the other on real workers, and each is decided as by the slow twin."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from typing import Any

import numpy as np
import oracles
import pytest
from nights import assert_decided_as_by_the_oracle, decisions_of, night, refused, unit_of
from runs import (
    DIMENSION,
    command,
    contents,
    done,
    manifest,
    product,
    sample,
    started,
    write_tar,
)
from runs import table as run_table
from standing import assert_counted


def test_day_follows_day_as_by_the_oracle(line):
    for number in (2, 3):
        assert_decided_as_by_the_oracle(line[:number], "fairdedup", cover=True)
    found = [decisions_of(run) for run in line]
    assert all(f["representative_run"].notna().sum() > 5 for f in found[1:])
    assert manifest(line[2])["against"] == [str(run) for run in line[:2]]
    assert manifest(line[2])["counts"]["rejected"] == 1


def test_no_two_kept_of_any_days_are_duplicates_in_a_cluster(line):
    e = round(manifest(line[0])["eps"] * 10_000)
    unit = [unit_of(run) for run in line]
    found = [decisions_of(run) for run in line]
    pairs = 0
    for day, other in ((1, 0), (2, 0), (2, 1), (1, 1), (2, 2)):
        for k in range(4):
            own, theirs = (
                unit[d][(found[d]["kept"] & (found[d]["cluster"] == k) & ~found[d]["readmitted"]).to_numpy()]
                for d in (day, other)
            )
            near = oracles.duplicates(oracles.cosine_matrix(own, theirs), e)
            assert not (np.triu(near, 1) if day == other else near).any()
            pairs += near.size
    assert pairs > 100


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("fairdedup", ("--calibrate", "zscore", "--published")),
        ("balanced", ("--target", "data", "--reach", 0)),
        ("semdedup", ("--published",)),
    ],
)
def test_every_rule_continues_from_the_first_run(days, tmp_path, scheduler, prototypes, rule, words):
    runs = [night(days, 0, tmp_path / "0", scheduler, "--keep", 0.4, "--rule", rule, *words, "--prototypes", prototypes,
                  "--clusters", 4)]  # fmt: skip
    for k in (1, 2):
        runs.append(night(days, k, tmp_path / str(k), scheduler, "--against", runs[-1]))
    options: dict[str, Any] = {"cover": "--published" not in words}
    if rule == "fairdedup":
        options["calibrate"] = "zscore"
    if rule == "balanced":
        options["target"] = "data"
    assert_decided_as_by_the_oracle(runs, rule, **options)
    assert manifest(runs[2])["config"]["prune"]["rule"] == rule


def test_runs_of_one_line_count_once_and_branches_are_put_together(days, line, tmp_path, scheduler):
    both = night(days, 2, tmp_path / "both", scheduler, "--against", line[0], "--against", line[1], "--at-most", 0.3)
    assert product(both) == product(line[2])
    branch = night(days, 2, tmp_path / "branch", scheduler, "--against", line[0])
    last = night(days, 3, tmp_path / "last", scheduler, "--against", line[1], "--against", branch)
    assert_decided_as_by_the_oracle([line[0], line[1], branch, last], "fairdedup", cover=True)


def test_a_night_of_copies_keeps_nothing_and_the_next_night_continues(days, line, tmp_path, scheduler):
    again = tmp_path / "again"
    again.mkdir()
    kept = decisions_of(line[0])["kept"].to_numpy()
    np.save(again / "day0.npy", unit_of(line[0])[kept])
    copies = night(again, 0, tmp_path / "copies", scheduler, "--against", line[0])
    assert manifest(copies)["counts"]["kept"] == 0 and len(run_table(copies / "kept")) == 0
    assert all(manifest(copies)["guarantees"].values())
    after = night(days, 1, tmp_path / "after", scheduler, "--against", copies)
    assert product(after)["kept"] == product(line[1])["kept"]


def test_a_night_without_rows_is_fine(days, line, tmp_path, scheduler):
    np.save(tmp_path / "day0.npy", np.zeros((0, DIMENSION), np.float32))
    empty = night(tmp_path, 0, tmp_path / "empty", scheduler, "--against", line[0])
    counts = manifest(empty)["counts"]
    assert set(counts.values()) == {0} and manifest(empty)["drift"] is None
    after = night(days, 1, tmp_path / "after", scheduler, "--against", empty)
    assert product(after)["kept"] == product(line[1])["kept"]
    every = night(days, 1, tmp_path / "every", scheduler, "--against", line[0], "--where", "false")
    assert manifest(every)["counts"]["rejected"] == 55


def test_a_row_that_an_earlier_run_represents_counts_for_no_row_of_this_run(line):
    own = []
    for run in line[1:]:
        kept, decisions = assert_counted(run), decisions_of(run)
        earlier = decisions["representative_run"].notna()
        assert earlier.any() and not decisions["kept"][earlier].any()
        own.append(kept["stands_for"].sum())
        assert own[-1] + earlier.sum() == manifest(run)["counts"]["removed"]
    assert max(own) > 0


def test_pruning_again_goes_against_the_same_runs(line, tmp_path, scheduler):
    shutil.copytree(line[2], tmp_path / "day2")
    before = product(line[2])
    done("prune", tmp_path / "day2", "--at-most", 0.1, "--scheduler", scheduler, "--quiet")
    assert manifest(tmp_path / "day2")["counts"]["kept"] <= 4
    done("prune", tmp_path / "day2", "--at-most", 0.3, "--scheduler", scheduler, "--quiet")
    assert product(tmp_path / "day2") == before
    shown = done("sweep", tmp_path / "day2", "--keep", 0.5, "--scheduler", scheduler, "--quiet")
    assert "re-admitted" in shown.out and product(tmp_path / "day2") == before


def test_what_contradicts_the_earlier_runs_is_refused_in_one_line(days, line, tmp_path, scheduler, prototypes):
    base = (days / "day1.npy", "--against", line[0], "--out", tmp_path / "run")
    assert "--keep 0.5 cannot be combined with --against" in refused(*base, "--keep", 0.5)
    assert "new rows have the eps of" in refused(*base, "--eps", 0.5)
    assert "--rule semdedup-chain cannot be combined with --against" in refused(*base, "--rule", "semdedup-chain")
    assert "--rule random cannot be combined with --against" in refused(*base, "--rule", "random", "--at-most", 0.5)
    assert "has 4 clusters, and new rows get the same ones: leave it out" in refused(*base, "--clusters", 9)
    assert "--start zero differs from that of" in refused(*base, "--start", "zero")
    (tmp_path / "p.npy").write_bytes(b"")
    assert "is not the file that" in refused(*base, "--prototypes", tmp_path / "p.npy")
    nowhere = refused(days / "day1.npy", "--against", tmp_path / "nowhere", "--out", tmp_path / "run")
    assert "holds no finished run" in nowhere
    itself = refused(days / "day1.npy", "--against", tmp_path / "run", "--out", tmp_path / "run")
    assert "is the run itself" in itself
    other = night(days, 0, tmp_path / "other", scheduler, "--keep", 0.3, "--rule", "semdedup", "--clusters", 4)
    assert "has another eps than" in refused(*base, "--against", other)
    assert "needs prototypes, and" in refused(days / "day1.npy", "--against", other, "--rule", "fairdedup", "--out",
                                             tmp_path / "run")  # fmt: skip
    np.save(tmp_path / "wide.npy", np.ones((5, 7)))
    wide = refused(tmp_path / "wide.npy", "--against", line[0], "--out", tmp_path / "wide", "--scheduler", scheduler)
    assert "the embeddings have 7 dimensions and those of" in wide
    done(
        "run", *base, "--eps", manifest(line[0])["eps"], "--prototypes", prototypes, "--scheduler", scheduler, "--quiet"
    )
    assert product(tmp_path / "run") == product(line[1])


def test_images_go_on_with_the_encoder_of_the_first_run(shards, weights, images_run, tmp_path, scheduler):
    more = {}
    for k in range(12):
        more |= sample(f"new-{k}", 3 * k if k < 6 else 500 + k)
    write_tar(tmp_path / "day2.tar", more)
    base = (tmp_path / "day2.tar", "--against", images_run, "--out", tmp_path / "day2", "--scheduler", scheduler)
    (tmp_path / "other").mkdir()
    assert "embed new rows by that one" in refused(*base, "--model", "fairdedup-small")
    done("run", *base, "--quiet")
    known = manifest(tmp_path / "day2")
    assert known["encoder"]["batch_size"] == 4 and known["encoder"]["pretrained"] == str(weights)
    found = decisions_of(tmp_path / "day2").set_index("id")
    by = found["representative_id"].dropna()
    kept = set(run_table(images_run / "kept")["id"])
    assert set(by) <= kept and {f"new-{k}" for k in range(6) if f"{k:04d}" in kept} <= set(by.index)
    np.save(tmp_path / "x.npy", unit_of(images_run))
    unnamed = refused(tmp_path / "x.npy", "--against", images_run, "--out", tmp_path / "x")
    assert "the model of these embeddings is not known" in unnamed
    old = refused(tmp_path / "day2.tar", "--against", images_run, "--out", tmp_path / "y", "--model", "RN50",
                  "--pretrained", "openai")  # fmt: skip
    assert "the encoder is 'RN50' 'openai'" in old


def test_stages_one_by_one_and_one_worker_give_the_same(days, line, tmp_path, scheduler):
    run = tmp_path / "day1"
    dask = ("--scheduler", scheduler, "--quiet")
    done("embed", days / "day1.npy", "--against", line[0], "--out", run, "--max-rejected", 0.5, *dask)
    done("cluster", run, "--against", line[0], *dask)
    done("prune", run, *dask)
    assert product(run) == product(line[1])
    done("run", days / "day1.npy", "--against", line[0], "--out", tmp_path / "one", "--workers", 1, "--quiet")
    assert product(tmp_path / "one") == product(line[1])


def test_a_killed_night_resumes_and_ends_with_the_same_bytes(days, line, tmp_path, scheduler):
    words = ("run", days / "day1.npy", "--against", line[0], "--out", tmp_path / "day1", "--scheduler", scheduler)
    for what in ("clusters/sizes.json", "state/earlier.json", "decisions/part-00000.parquet", "state/run-0001"):
        process = started(tmp_path, *words, "--quiet")
        while process.poll() is None and not (tmp_path / "day1" / what).exists():
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    done(*words, "--quiet")
    assert product(tmp_path / "day1") == product(line[1])
    state = contents(line[1] / "state")
    again = contents(tmp_path / "day1" / "state")
    assert {n: b for n, b in again.items() if n != "state.json"} == {
        n: b for n, b in state.items() if n != "state.json"
    }


def test_a_keep_of_the_file_is_not_for_runs_against_others(days, line, tmp_path, scheduler, monkeypatch):
    (tmp_path / "fairdedup.yaml").write_text("keep: 0.5\n")
    monkeypatch.chdir(tmp_path)
    assert (
        manifest(night(days, 1, tmp_path / "run", scheduler, "--against", line[0]))["config"]["prune"]["keep"] is None
    )
    assert product(tmp_path / "run") == product(line[1])


def test_the_clusters_of_a_run_against_others_are_theirs(days, line, tmp_path, scheduler):
    dask = ("--scheduler", scheduler, "--quiet")
    done("embed", days / "day1.npy", "--against", line[0], "--out", tmp_path / "run", *dask)
    shown = command("cluster", tmp_path / "run", "--against", line[0], "--clusters", 7, *dask)
    assert shown.code == 2 and "has 4 clusters, and new rows get the same ones: leave it out" in shown.err
    done("cluster", tmp_path / "run", "--against", line[0], "--clusters", 4, "--threads", 2, *dask)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["asked"]["cluster"]["threads"] == 2
