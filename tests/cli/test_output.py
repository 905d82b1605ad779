"""What commands print: summaries, nothing when quiet, JSON lines, bars on a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
from runs import (
    CLUSTERS,
    done,
    manifest,
    raw_vectors,
    read_plain,
    table,
)


def test_a_run_prints_counts_eps_guarantees_shares_and_where_the_ids_are(finished, embeddings, prototypes, scheduler):
    shown = done("run", embeddings, "--keep", 0.5, "--prototypes", prototypes, "--clusters", CLUSTERS,
                 "--out", finished, "--scheduler", scheduler)  # fmt: skip
    assert "finished already: nothing to do (--restart clears it)" in shown.err
    for part in (
        "input        240  5 clusters", "119  50.2% of the valid rows", "reasons in", "duplicates have a cosine above",
        "guarantees (rule fairdedup", "yes  no two kept samples are duplicates, in a cluster or across comparable ones",
        "yes  every removed sample has a kept duplicate", "0 still have a duplicate", "tone", "light", "points",
        f"kept IDs: {finished / 'kept'}",
    ):  # fmt: skip
        assert part in shown.out, part


def test_quiet_prints_nothing_at_all(again, prototypes, scheduler, embeddings):
    asked = ("--prototypes", prototypes, "--scheduler", scheduler, "--quiet")
    for words in (
        ("run", embeddings, "--keep", 0.5, "--clusters", CLUSTERS, "--out", again, *asked),
        ("run", embeddings, "--keep", 0.5, "--clusters", CLUSTERS, "--out", again, *asked, "--restart"),
        ("embed", embeddings, "--out", again, "--scheduler", scheduler, "--quiet"),
        ("cluster", again, "--clusters", 3, "--scheduler", scheduler, "--quiet"),
        ("prune", again, "--keep", 0.5, *asked),
    ):
        shown = done(*words)
        assert (shown.out, shown.err) == ("", ""), words


@pytest.fixture
def labels(again, tmp_path):
    """Return a file with the tone of every valid sample of the copy."""
    ids = table(again / "decisions")["id"]
    lines = [f"{name},{('light', 'dark')[k % 2]}" for k, name in enumerate(ids)]
    (tmp_path / "labels.csv").write_text("\n".join(["id,tone", *lines]))
    return tmp_path / "labels.csv"


def test_quiet_leaves_only_the_results_of_a_command(again, prototypes, scheduler, labels, tmp_path):
    (tmp_path / "gone.txt").write_text("k1\n")
    dask = ("--scheduler", scheduler, "--quiet")
    for words in (
        ("audit", again, "--labels", labels, *dask),
        ("gate", again, "--max-rejected", 1, "--quiet"),
        ("calibrate", again, "--labels", labels, "--out", tmp_path / "c.parquet", *dask),
        ("export", again, "--to", "txt", *dask),
        ("refit", again, "--keep", 0.5, "--out", tmp_path / "new", *dask),
        ("replace", again, "--gone", tmp_path / "gone.txt", *dask),
    ):
        shown = done(*words)
        assert (shown.out, shown.err) == ("", ""), words
    for more in ((), ("--log-json",)):
        shown = done("sweep", again, "--keep", 0.5, "--prototypes", prototypes, *dask, *more)
        assert shown.out.split()[:5] == ["keep", "kept", "eps", "re-admitted", "0.5"] and shown.err == ""
        shown = done("audit", again, "--labels", labels, "--json", *dask, *more)
        assert json.loads(shown.out) == read_plain(again / "report" / "audit.json") and shown.err == ""


OF_A_RUN = {"counts", "eps", "guarantees", "leftover", "warnings", "shares", "page", "seconds"}


def test_every_command_ends_with_the_event_that_is_documented(
    again, embeddings, prototypes, scheduler, labels, tmp_path
):
    (tmp_path / "gone.txt").write_text("k1\n")
    asked = ("--prototypes", prototypes, "--scheduler", scheduler)
    of_run = (embeddings, "--keep", 0.5, "--clusters", CLUSTERS, "--out", again, *asked)
    of_audit = {"report", "source", "counts", "notes"}
    for words, keys in (
        (("run", *of_run), OF_A_RUN),
        (("audit", again, "--labels", labels), of_audit),
        (("audit", again, "--labels", labels, "--json"), of_audit),
        (("gate", again, "--max-rejected", 1), {"checks"}),
        (("sweep", again, "--keep", 0.5, *asked), {"sweep", "examples"}),
        (("calibrate", again, "--labels", labels, "--out", tmp_path / "c.parquet"), {"prototypes", "attributes"}),
        (
            ("calibrate", again, "--correct-shares", "--out", tmp_path / "d.parquet"),
            {"prototypes", "attributes", "shares"},
        ),
        (("export", again, "--to", "txt"), {"path", "samples"}),
        (("refit", again, "--keep", 0.5, "--out", tmp_path / "new", "--scheduler", scheduler), OF_A_RUN),
        (("replace", again, "--gone", tmp_path / "gone.txt", "--scheduler", scheduler), OF_A_RUN),
        (("embed", embeddings, "--out", again, "--scheduler", scheduler), set()),
        (("cluster", again, "--clusters", CLUSTERS, "--scheduler", scheduler), set()),
        (("prune", again, "--keep", 0.5, *asked), OF_A_RUN),
    ):
        shown = done(*words, "--log-json")
        assert bool(shown.out) == ("--json" in words), words
        event = json.loads(shown.err.splitlines()[-1])
        assert event.pop("event") == "finished" and set(event) == {"time", "run"} | keys, words


def test_sweep_prints_a_line_for_each_fraction(finished, prototypes, scheduler):
    shown = done(
        "sweep", finished, "--keep", "0.3, 0.5,1", "--prototypes", prototypes, "--scheduler", scheduler, "--quiet"
    )
    lines = [line.split() for line in shown.out.splitlines()]
    assert lines[0] == ["keep", "kept", "eps", "re-admitted"]
    assert [line[:2] for line in lines[1:4]] == [["0.3", "71"], ["0.5", "119"], ["1", "237"]]
    assert lines[2][2] == f"{manifest(finished)['eps']:.4f}"


def on_a_terminal(*words: object, **options: Any) -> tuple[int, str]:
    """Run a command in a terminal of 100 columns; return its exit code and everything that it printed."""
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "fairdedup", *map(str, words)], stdin=slave, stdout=slave, stderr=slave,
        env=environment | {"TERM": "xterm", "COLUMNS": "100"}, **options,
    )  # fmt: skip
    os.close(slave)
    chunks: list[bytes] = []

    def drain() -> None:
        while True:
            try:
                chunks.append(os.read(master, 1 << 16))
            except OSError:  # the other end is closed
                return

    reader = threading.Thread(target=drain)
    reader.start()
    code = process.wait(120)
    reader.join(10)
    os.close(master)
    return code, b"".join(chunks).decode()


def test_on_a_terminal_every_stage_is_named_and_names_stay_tame(tmp_path, scheduler):
    np.save(tmp_path / "x.npy", raw_vectors(40))
    out = tmp_path / "run\x1b[31m"
    code, seen = on_a_terminal("run", tmp_path / "x.npy", "--keep", 0.5, "--rule", "semdedup", "--out", out,
                               "--scheduler", scheduler)  # fmt: skip
    assert code == 0, seen
    plain = " ".join(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen).split())
    ended = r" [\d.]+ s, (?:[\w -]+ [\d.]+ s, )*"
    stages = ("embed", "train k-means", "assign to clusters", "search", "decide", "write decisions")
    assert re.search(f"done: (?:[\\w -]+ [\\d.]+ s, )*{ended.join(stages)} [\\d.]+ s", plain), plain[-2000:]
    assert "\x1b[31m" + "/kept" not in seen and "run\\x1b[31m/kept" in seen
