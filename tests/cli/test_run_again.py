"""Starting a run again: after it finished, with another configuration, or with --restart."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from runs import (
    CLUSTERS,
    command,
    contents,
    done,
    files,
    manifest,
    read_plain,
)


@pytest.fixture
def asked(embeddings: Path, prototypes: Path, scheduler: str) -> list[object]:
    """Return the command of the finished run, without --out."""
    return ["run", embeddings, "--keep", 0.5, "--prototypes", prototypes, "--clusters", CLUSTERS,
            "--scheduler", scheduler]  # fmt: skip


def test_a_finished_run_is_reported_and_starts_nothing(again, asked, monkeypatch):
    before = files(again)
    monkeypatch.setattr("fairdedup.workers.Workers.submit", lambda *_: pytest.fail("a task was submitted"))
    shown = done(*asked, "--out", again)
    assert "finished already" in shown.err and files(again) == before


def test_another_configuration_is_refused_and_the_keys_are_named(again, asked):
    before = files(again)
    shown = command(*asked, "--out", again, "--rule", "balanced", "--keep", 0.4, "--seed", 7)
    assert (shown.code, shown.err.count("\n")) == (2, 1)
    assert (
        "was made with other options: --seed 0 → 7, --keep 0.5 → 0.4, --rule fairdedup → balanced. "
        "Choose another --out or --restart.\n"
    ) in shown.err
    shown = command(*asked, "--out", again, "--keep", 0.4)
    assert (
        f"options: --keep 0.5 → 0.4. Use `fairdedup prune {again} --keep 0.4 --prototypes {asked[5]}`, or choose "
        "another --out or --restart.\n"
    ) in shown.err
    other = command("run", again / "nowhere", "--keep", 0.5, "--out", again)
    assert other.code == 2 and "INPUT " in other.err
    assert files(again) == before


def test_an_option_that_an_earlier_version_had_not_stood_at_its_default(again, asked, tmp_path):
    known = read_plain(again / "config.json")
    del known["asked"]["prune"]["drop"]
    (again / "config.json").write_text(json.dumps(known))
    assert "finished already" in done(*asked, "--out", again).err
    (tmp_path / "drop.txt").write_text("k1")
    shown = command(*asked, "--out", again, "--drop", tmp_path / "drop.txt")
    assert shown.code == 2 and "--drop unset → " in shown.err
    for text in ("{}", "[]", '{"asked": {}}'):
        (again / "config.json").write_text(text)
        shown = command(*asked, "--out", again)
        assert (shown.code, shown.err.count("\n")) == (1, 1) and "config.json is damaged" in shown.err


def test_deciding_again_goes_by_the_seed_of_the_run(embeddings, tmp_path, scheduler):
    out = tmp_path / "run"
    asked = ("run", embeddings, "--rule", "random-neighbour", "--clusters", CLUSTERS, "--keep", 0.5, "--seed", 4,
             "--out", out, "--scheduler", scheduler)  # fmt: skip
    done(*asked, "--quiet")
    kept = contents(out / "kept")
    done("prune", out, "--rule", "random-neighbour", "--keep", 0.5, "--scheduler", scheduler, "--quiet")
    assert manifest(out)["seed"] == 4 and contents(out / "kept") == kept
    assert "finished already" in done(*asked).err
    done("prune", out, "--rule", "random-neighbour", "--keep", 0.5, "--seed", 5, "--scheduler", scheduler, "--quiet")
    assert contents(out / "kept") != kept


def test_a_negative_flag_overrides_the_file_too(here, again, scheduler):
    (here / "fairdedup.yaml").write_text("cover: true\nrule: semdedup\n")
    for flags, expected in (((), True), (("--no-cover",), False)):
        done("prune", again, "--keep", 0.5, *flags, "--scheduler", scheduler, "--quiet")
        assert manifest(again)["config"]["prune"]["cover"] is expected


def test_prototypes_of_another_content_are_another_configuration(again, asked, prototypes, tmp_path):
    shutil.copy(prototypes, tmp_path / "p.npz")
    asked[asked.index("--prototypes") + 1] = tmp_path / "p.npz"
    done(*asked, "--out", again, "--restart", "--quiet")
    vectors = dict(np.load(tmp_path / "p.npz"))
    np.savez(tmp_path / "p.npz", **{name: -vector for name, vector in vectors.items()})
    shown = command(*asked, "--out", again)
    assert shown.code == 2 and "another content of --prototypes" in shown.err


def test_restart_clears_the_run_and_only_the_run(again, asked):
    first = contents(again / "kept")
    (again / "mine.txt").write_text("mine")
    (again / "embeddings" / "stale").write_text("stale")
    shown = done(*asked, "--out", again, "--restart")
    assert "finished already" not in shown.err
    assert contents(again / "kept") == first
    assert (again / "mine.txt").read_text() == "mine" and not (again / "embeddings" / "stale").exists()


def test_restart_clears_no_folder_that_is_not_a_run(here, asked):
    for folder in ("embeddings", "kept", "report", "sample"):
        (here / "mine" / folder).mkdir(parents=True)
        (here / "mine" / folder / "x").write_text("mine")
    before = files(here)
    shown = command(*asked, "--out", "mine", "--restart")
    assert shown.code == 2 and "mine' holds other files ('embeddings'): choose a new or empty folder" in shown.err
    assert files(here) == before


def test_a_folder_with_other_files_is_refused(here, asked):
    (here / "mine").mkdir()
    (here / "mine" / "thesis.tex").write_text("x")
    for words in (asked, ["embed", asked[1]]):
        shown = command(*words, "--out", "mine")
        assert (shown.code, shown.err) == (
            2, f"fairdedup: error: --out {str(here / 'mine')!r} holds other files ('thesis.tex'): "
            "choose a new or empty folder\n",
        )  # fmt: skip
    assert [p.name for p in (here / "mine").iterdir()] == ["thesis.tex"]


def test_an_input_inside_the_run_is_refused(again, scheduler):
    shown = command("run", again / "embeddings", "--keep", 0.5, "--out", again, "--scheduler", scheduler)
    assert shown.code == 2
    fresh = command("embed", again / "embeddings", "--out", again.parent, "--scheduler", scheduler)
    assert fresh.code == 2 and "holds other files" in fresh.err
