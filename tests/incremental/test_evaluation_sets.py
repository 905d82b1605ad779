"""`--exclude-near`: samples near an evaluation set are left out, across all clusters."""

from __future__ import annotations

import shutil

import numpy as np
import oracles
import pytest
from nights import decisions_of, refused, unit_of
from runs import (
    DIMENSION,
    done,
    manifest,
    picture,
)
from runs import table as run_table


@pytest.mark.parametrize("kind", ["embeddings", "run"])
def test_what_is_near_an_evaluation_sample_is_left_out_across_all_clusters(days, line, tmp_path, scheduler, kind):
    unit = unit_of(line[0])
    rng = np.random.default_rng(1)
    held_out = unit[[3, 50, 77]].astype(np.float32) + 0.05 * rng.normal(size=(3, DIMENSION))
    np.save(tmp_path / "eval.npy", held_out)
    (tmp_path / "eval.ids.txt").write_text("e0\ne\x1b1\ne2\n")
    against = tmp_path / "eval.npy"
    if kind == "run":
        against = tmp_path / "eval-run"
        done("embed", tmp_path / "eval.npy", "--out", against, "--scheduler", scheduler, "--quiet")
    shutil.copytree(line[0], tmp_path / "day0")
    done("prune", tmp_path / "day0", "--keep", 0.5, "--cover", "--rule", "semdedup", "--exclude-near", against,
         "--exclude-near-eps", 0.3, "--scheduler", scheduler, "--quiet")  # fmt: skip
    cosines = oracles.cosine_matrix(unit, oracles.unit16(oracles.unit16(held_out) if kind == "run" else held_out))
    near = oracles.duplicates(cosines, 3000).any(axis=1)
    rejected = run_table(tmp_path / "day0" / "rejected").set_index("row")
    assert rejected.index.tolist() == np.flatnonzero(near).tolist() and near.sum() > 5
    names = ["e0", "e\\x1b1", "e2"]
    for row, reason in rejected["reason"].items():
        assert reason == f"too near evaluation sample '{names[int(cosines[row].argmax())]}'".replace("\\", "\\\\")
    assert len(decisions_of(line[0]).loc[near, "cluster"].unique()) > 1
    counts = manifest(tmp_path / "day0")["counts"]
    assert counts["kept"] + counts["removed"] + counts["rejected"] == counts["input"] == 110
    assert (
        counts["excluded"] == near.sum()
        and f"{near.sum()} rows are too near" in manifest(tmp_path / "day0")["warnings"][0]
    )


def test_a_night_is_cleaned_of_an_evaluation_set_at_its_own_eps(days, line, tmp_path, scheduler):
    again = (
        "run",
        days / "day1.npy",
        "--against",
        line[0],
        "--exclude-near",
        days / "day0.npy",
        "--out",
        tmp_path / "run",
    )
    done(*again, "--scheduler", scheduler, "--quiet")
    e = round(manifest(line[0])["eps"] * 10_000)
    near = oracles.duplicates(oracles.cosine_matrix(unit_of(line[1]), unit_of(line[0])), e).any(axis=1)
    assert run_table(tmp_path / "run" / "rejected")["row"].tolist() == np.flatnonzero(near).tolist()
    assert "nothing to do" in done(*again, "--scheduler", scheduler).err


def test_unusable_evaluation_samples_are_reported_and_stop_no_run(line, tmp_path, scheduler):
    held_out = unit_of(line[0])[:40].astype(np.float32)
    held_out[:30] = 0
    np.save(tmp_path / "eval.npy", held_out)
    shutil.copytree(line[0], tmp_path / "run")
    done("prune", tmp_path / "run", "--keep", 0.5, "--rule", "semdedup", "--exclude-near", tmp_path / "eval.npy",
         "--exclude-near-eps", 0.0002, "--scheduler", scheduler, "--quiet")  # fmt: skip
    assert "; 30 of its samples cannot be used and exclude nothing" in manifest(tmp_path / "run")["warnings"][0]


def test_a_mistake_about_an_evaluation_set_is_one_line(days, line, tmp_path, scheduler):
    base = (days / "day0.npy", "--keep", 0.5, "--rule", "semdedup", "--out", tmp_path / "run", "--scheduler", scheduler)
    assert "add --exclude-near-eps" in refused(*base, "--exclude-near", days / "day1.npy")
    assert "--exclude-near-eps needs --exclude-near" in refused(*base, "--exclude-near-eps", 0.1)
    near = ("--exclude-near-eps", 0.1, "--max-rejected", 0.5, "--exclude-near")
    assert "no such file or folder" in refused(*base, *near, tmp_path / "nowhere")
    np.save(tmp_path / "wide.npy", np.ones((5, 7)))
    assert "has 7 dimensions and the embeddings 16" in refused(*base, *near, tmp_path / "wide.npy")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(picture(0))
    assert "this run has ready-made embeddings" in refused(*base, *near, tmp_path / "images")


def test_images_of_an_evaluation_set_are_embedded_as_the_run_was(shards, images_run, tmp_path, scheduler):
    shutil.copytree(images_run, tmp_path / "run")
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "copy.png").write_bytes(picture(3 * 5))
    words = ("--keep", 0.5, "--exclude-near", tmp_path / "eval", "--exclude-near-eps", 0.0001, "--scheduler", scheduler)
    done("prune", tmp_path / "run", *words, "--quiet")
    rejected = run_table(tmp_path / "run" / "rejected").set_index("id")
    assert rejected.loc["0005", "reason"] == "too near evaluation sample 'copy.png'"
    assert manifest(tmp_path / "run")["stages"]["embed"] == manifest(images_run)["stages"]["embed"]
