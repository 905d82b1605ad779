"""Exit codes, the one line of an error, and libraries that are not loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from runs import (
    CLUSTERS,
    command,
    contents,
    picture,
    write_tar,
)

from fairdedup import cli
from fairdedup.errors import UserError

WATCH = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "open_clip", "torchvision"):
            with open(os.environ["WATCHED"], "a") as log:
                print(os.getpid(), name, file=log)
        return None
sys.meta_path.insert(0, Watch())
"""


def test_ready_embeddings_need_no_torch_and_one_local_worker_gives_the_same_bytes(
    finished, tmp_path, embeddings, prototypes
):
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(WATCH)
    paths = os.pathsep.join([str(tmp_path / "hook"), *filter(None, [os.environ.get("PYTHONPATH")])])
    shown = subprocess.run(
        [sys.executable, "-m", "fairdedup", "run", embeddings, "--keep", "0.5", "--prototypes", prototypes,
         "--clusters", str(CLUSTERS), "--workers", "1", "--out", "run"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": paths, "WATCHED": str(tmp_path / "watched")},
        capture_output=True, text=True,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert not (tmp_path / "watched").exists(), (tmp_path / "watched").read_text()
    assert "\x1b" not in shown.stderr + shown.stdout
    for folder in ("kept", "decisions", "rejected", "embeddings/img_emb", "clusters"):
        assert contents(tmp_path / "run" / folder) == contents(finished / folder)
    probe = [sys.executable, "-c", "import importlib.util; importlib.util.find_spec('torch')"]
    subprocess.run(probe, check=True, env=os.environ | {"PYTHONPATH": paths, "WATCHED": str(tmp_path / "probe")})
    assert "torch" in (tmp_path / "probe").read_text(), "the watch sees nothing"


def test_a_failure_without_a_mistake_of_the_user_ends_with_1_and_one_line(here, monkeypatch):
    def broken(*_: object) -> None:
        raise RuntimeError("first line\nsecond \x1b[31mline")

    monkeypatch.setattr("fairdedup.config.load_config", broken)
    shown = command("run", "x.npy", "--keep", 0.5)
    assert (shown.code, shown.err) == (
        1,
        "fairdedup: error: RuntimeError: first line (set FAIRDEDUP_DEBUG=1 to see the traceback)\n",
    )
    monkeypatch.setenv("FAIRDEDUP_DEBUG", "1")
    with pytest.raises(RuntimeError, match="first line"):
        command("run", "x.npy", "--keep", 0.5)


def test_the_end_of_a_file_is_not_taken_for_a_wish_to_stop(here, monkeypatch):
    def ends(*_: object) -> None:
        raise EOFError("no data left")

    monkeypatch.setattr("fairdedup.config.load_config", ends)
    shown = command("run", "x.npy", "--keep", 0.5)
    assert shown.code == 1 and shown.err.strip().startswith("fairdedup: error: EOFError: no data left")


def test_a_damaged_run_is_named(again, scheduler):
    (again / "config.json").write_text('{"asked": ')
    shown = command("prune", again, "--keep", 0.5, "--rule", "semdedup", "--scheduler", scheduler)
    assert shown.code == 1 and shown.err.count("\n") == 1 and f"{again / 'config.json'} is damaged" in shown.err


def test_names_of_exit_codes():
    assert (cli.EXIT_USER, cli.EXIT_OTHER) == (2, 1)
    assert issubclass(cli.UserError, ValueError) and isinstance(cli.cli, click.Group)


def test_shards_and_folders_of_the_examples_are_what_they_say(here):
    write_tar(Path("data-00000.tar"), {"a.png": picture(0)})
    shown = command("run", "data-{00000..00014}.tar", "--keep", 0.5, "--model", "ViT-B-16", "--pretrained", "openai")
    assert (
        shown.code == 2 and "data-00001.tar' of 'data-{00000..00014}.tar' is missing (1 of 15 are there)" in shown.err
    )


def test_parameters_in_an_error_are_shown_as_flags(here, monkeypatch):
    def refuse(*_: object) -> None:
        raise UserError("`keep=0.5` is 5 of 10 rows: give at least `at_most=0.6`, or `cover=False`, not `k` or `ids`")

    monkeypatch.setattr("fairdedup.config.load_config", refuse)
    shown = command("run", "x.npy", "--keep", 0.5)
    assert (shown.code, shown.err) == (
        2,
        "fairdedup: error: --keep 0.5 is 5 of 10 rows: give at least --at-most 0.6, or --no-cover, not `k` or `ids`\n",
    )
    logged = json.loads(command("run", "x.npy", "--keep", 0.5, "--log-json").err)
    assert logged["text"] == shown.err.removeprefix("fairdedup: error: ").rstrip() and logged["code"] == 2
