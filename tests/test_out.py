"""What a finished run hands over: shards of its samples, byte for byte, and files of IDs; read back by who reads them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import signal
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from runs import CLUSTERS, command, contents, done, files, manifest, picture, raw_vectors, sample, started, table, write_tar

from fairdedup.datasets.originals import image_kind, key_of
from fairdedup.storage.files import seal
from fairdedup.storage.shards import ShardWriter, header

Exported = Callable[..., Path]


def members(path: Path) -> dict[str, bytes]:
    """Return the members of a tar, which must have every name once."""
    with tarfile.open(path) as archive:
        headers = archive.getmembers()
        found = {h.name: archive.extractfile(h).read() for h in headers}  # type: ignore[union-attr]
    assert len(found) == len(headers)
    return found


def shards_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.tar"))


def all_members(folder: Path) -> dict[str, bytes]:
    """Return the members of all shards of a folder, in order; no name may be in two."""
    found: dict[str, bytes] = {}
    for path in shards_of(folder):
        own = members(path)
        assert not found.keys() & own.keys()
        found |= own
    return found


def webdataset_keys(folder: Path) -> list[str]:
    """Return the keys as the webdataset package reads them."""
    import webdataset

    urls = [str(path) for path in shards_of(folder)]
    return [found["__key__"] for found in webdataset.WebDataset(urls, shardshuffle=False)]


def ids(run: Path, kept: bool) -> list[str]:
    decisions = table(run / "decisions")
    return decisions.loc[decisions["kept"] == kept, "id"].tolist()


@pytest.fixture
def run_of(tmp_path: Path, scheduler: str, weights: Path) -> Callable[..., Path]:
    """Return a maker of finished runs over images."""

    def make(source: Path, *flags: object, name: str = "run") -> Path:
        done("run", source, "--keep", 0.5, "--model", "fairdedup-small", "--pretrained", weights, "--out",
             tmp_path / name, "--batch-size", 4, "--clusters", 2, "--scheduler", scheduler, "--quiet", *flags)  # fmt: skip
        return tmp_path / name

    return make


@pytest.fixture
def export(tmp_path: Path, scheduler: str) -> Exported:
    """Return a function that exports a run and gives what was written."""

    def write(run: Path, form: str, *flags: object, what: str = "kept", name: str = "out") -> Path:
        done("export", run, "--to", form, "--what", what, "--dest", tmp_path / name, "--scheduler", scheduler,
             "--quiet", *flags)  # fmt: skip
        return tmp_path / name

    return write


# Shards of shards


def test_every_file_of_a_kept_sample_is_in_the_new_shards_byte_for_byte(shards, images_run, export):
    before = all_members(shards)
    out = export(images_run, "webdataset", "--shard-size", 7)
    kept = ids(images_run, True)
    assert all_members(out) == {name: data for name, data in before.items() if name.split(".")[0] in kept}
    assert webdataset_keys(out) == kept
    assert [len(webdataset_keys_of(path)) for path in shards_of(out)] == [7, 7, len(kept) - 14]
    assert [p.name for p in shards_of(out)] == ["shard-00000.tar", "shard-00001.tar", "shard-00002.tar"]


def webdataset_keys_of(path: Path) -> set[str]:
    return {name.split(".")[0] for name in members(path)}


def test_kept_and_removed_shards_share_out_the_valid_rows(shards, images_run, export):
    kept = all_members(export(images_run, "webdataset", name="kept"))
    removed = all_members(export(images_run, "webdataset", what="removed", name="removed"))
    assert not kept.keys() & removed.keys()
    rejected = set(table(images_run / "rejected")["id"])
    assert len(rejected) == 1
    assert kept | removed == {n: d for n, d in all_members(shards).items() if n.split(".")[0] not in rejected}


def test_rows_that_take_no_part_are_neither_kept_nor_removed(shards, images_run, export, tmp_path, scheduler):
    run = shutil.copytree(images_run, tmp_path / "run")
    done("prune", run, "--keep", 0.5, "--where", "half >= 5", "--scheduler", scheduler, "--quiet")
    both = [line for what in ("kept", "removed") for line in export(run, "txt", what=what, name=what).read_text().split()]
    assert sorted(both) == [f"{k:04d}" for k in range(10, 39) if k != 30]
