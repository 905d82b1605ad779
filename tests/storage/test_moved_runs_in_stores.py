"""A line of runs in a store that was moved or copied to another place there works with every command."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from runs import done, manifest, product, table
from stores import BUCKET, PLAIN, Store, write_shards

from fairdedup.storage.object_stores import RemotePath, as_path

AGAIN = ("--at-most", 0.5, "--rule", "semdedup", "--no-cover")


def move(store: Store, url: str, other: str) -> None:
    """Copy everything below a URL to another one, and remove the first."""
    store.copy(url, other)
    place = as_path(url)
    assert isinstance(place, RemotePath)
    place.remove_tree()


@pytest.fixture
def line(store: Store, tmp_path: Path) -> Callable[[str], list[str]]:
    """Return a function that makes a line of three nights, and returns its inputs."""

    def make(name: str) -> list[str]:
        inputs = [
            store.put(write_shards(tmp_path / f"in{k}", 300, 1, seed=k, prefix=f"n{k}-"), f"{name}-in{k}")
            for k in range(3)
        ]
        runs = [f"{BUCKET}/{name}/{night}" for night in "123"]
        store.done("run", inputs[0], *PLAIN, "--out", runs[0])
        store.done("run", inputs[1], "--against", runs[0], "--out", runs[1])
        store.done("run", inputs[2], "--against", runs[1], *AGAIN, "--out", runs[2])
        return inputs

    return make


def test_a_whole_line_that_moved_works_with_every_command(
    store: Store, line: Callable[[str], list[str]], tmp_path: Path
) -> None:
    inputs = line("old")
    before = product(store.get(f"{BUCKET}/old/3", tmp_path / "before"))
    move(store, f"{BUCKET}/old", f"{BUCKET}/new")
    new = f"{BUCKET}/new"
    again = done("run", inputs[1], "--against", f"{new}/1", "--out", f"{new}/2", "--scheduler", store.scheduler)
    assert "finished already" in again.err
    store.done("prune", f"{new}/3", *AGAIN)
    after = store.get(f"{new}/3", tmp_path / "after")
    assert product(after)["kept"] == before["kept"]
    recorded = json.loads((after / "config.json").read_text())["asked"]["cluster"]["against"]
    assert recorded == [f"{new}/2"]
    store.done("refit", f"{new}/3", "--keep", 0.5, "--out", f"{BUCKET}/all")
    assert manifest(store.get(f"{BUCKET}/all", tmp_path / "all"))["counts"]["input"] == 900
    (tmp_path / "gone.txt").write_text(f"{table(after / 'kept')['id'].iloc[0]}\n")
    store.done("replace", f"{new}/3", "--gone", tmp_path / "gone.txt")
    done("gate", f"{new}/3", "--max-rejected", 0.9, "--max-drift", 99)
    store.done("export", f"{new}/3", "--to", "txt", "--dest", tmp_path / "kept.txt")
    assert (tmp_path / "kept.txt").read_text().count("\n") > 10


@pytest.mark.soak
def test_a_line_copied_from_the_disk_into_a_store_and_one_run_of_it_elsewhere(
    store: Store, line: Callable[[str], list[str]], tmp_path: Path
) -> None:
    line("apart")
    local = store.get(f"{BUCKET}/apart/3", tmp_path / "local")
    move(store, f"{BUCKET}/apart/1", f"{BUCKET}/elsewhere/first")
    refused = store.command("refit", f"{BUCKET}/apart/3", "--keep", 0.5, "--out", f"{BUCKET}/apart-all")
    assert refused.code == 2 and refused.err.count("\n") == 1 and "are missing" in refused.err
    advised = re.search(r"`fairdedup (refit \S+) NEW/PLACE`", refused.err)
    assert advised, refused.err
    store.done(*advised[1].split(), f"{BUCKET}/elsewhere/first", "--keep", 0.5, "--out", f"{BUCKET}/apart-all")
    store.done("prune", local, *AGAIN)  # the last run on the disk needs none of the others
    before = product(store.get(f"{BUCKET}/apart/3", tmp_path / "there"))
    assert product(local)["kept"] == before["kept"]
