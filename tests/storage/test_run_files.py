"""Files of a run are complete or absent; a record certifies the files of its shard, unless it is damaged."""

from __future__ import annotations

import errno
import json
import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fairdedup.errors import FairdedupError, UserError
from fairdedup.storage import run_files as files
from fairdedup.storage.checked_json import read_json, write_json
from fairdedup.storage.contents import load_embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import read_manifest
from fairdedup.storage.records import (
    Rejection,
    ShardRecord,
    read_shard_record,
    remove_shards_from,
    seal_files,
    write_shard_record,
)
from fairdedup.storage.run_files import atomic_write, write_array, write_table
from fairdedup.storage.sealed_files import DamagedFileError, Unsealed, open_array
from fairdedup.storage.shard_groups import first_rows


def there(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def shard(run: RunDirectory, number: int, rejected: list[tuple[int, str, str, str]] | None = None) -> ShardRecord:
    """Write the files of a shard of five vectors, and its record."""
    rejected = rejected or []
    write_array(run.vectors(number), np.ones((5, 3), np.float16))
    write_table(run.metadata(number), pa.table({"id": [f"{number}-{k}" for k in range(5)]}))
    record = ShardRecord(
        number=number,
        name=f"shard {number}",
        fingerprint="print",
        input=5 + len(rejected),
        valid=5,
        rejected=[Rejection(*each) for each in rejected],
        seals=seal_files(run.shard_files(number)),
    )
    write_shard_record(run, record)
    return record


MANIFEST: dict[str, Any] = {
    "fairdedup": "0.1",
    "config": {"prune": {"keep": 0.5, "rule": "random"}},
    "versions": {"python": "3.12"},
    "seed": 0,
    "input": {"source": "x", "format": "npy", "kind": "embeddings", "fingerprint": "f"},
    "encoder": None,
    "clusters": 1,
    "stages": {"embed": {"rows": 2, "seconds": 0.1}},
    "counts": {"input": 2, "valid": 2, "kept": 1, "removed": 1, "rejected": 0, "readmitted": 0, "excluded": 0},
    "eps": None,
    "guarantees": {"no_two_kept_are_duplicates": False, "every_removed_has_a_kept_representative": False},
    "warnings": [],
    "shares": [],
    "files": {},
}


# Complete or absent


def test_a_file_takes_its_place_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "folder" / "x"
    with atomic_write(path) as aside:
        aside.write_text("half")
        assert not path.exists()
        aside.write_text("whole")
    assert path.read_text() == "whole" and there(tmp_path) == ["x"]


def test_a_block_that_raises_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "x").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "x") as aside:
        aside.write_text("half")
        raise ZeroDivisionError
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "x") as aside:
        aside.write_text("half")
        raise KeyboardInterrupt
    assert (tmp_path / "x").read_text() == "old" and there(tmp_path) == ["x"]


@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_a_full_disk_leaves_the_old_file_and_names_the_place(tmp_path, monkeypatch, step):
    (tmp_path / "x").write_text("old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, step, full)
    with pytest.raises(FairdedupError) as caught, atomic_write(tmp_path / "x") as aside:
        aside.write_text("new")
    assert not isinstance(caught.value, UserError)
    assert str(caught.value) == (
        f"cannot write {tmp_path / 'x'}: No space left on device; free some space or choose another place"
    )
    assert (tmp_path / "x").read_text() == "old" and there(tmp_path) == ["x"]


@pytest.mark.parametrize("limit", [50, 1000, 4096, 70_000])
@pytest.mark.parametrize("what", ["array", "table", "json"])
def test_a_file_that_may_not_grow_leaves_nothing(tmp_path, what, limit):
    rng = np.random.default_rng(0)
    write = {
        "array": lambda path: write_array(path, rng.random(10_000)),
        "table": lambda path: write_table(path, pa.table({"x": rng.random(10_000)})),
        "json": lambda path: write_json(path, rng.random(10_000).tolist()),
    }[what]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(FairdedupError, match=r"cannot write .*/x: .*File too large; free some space"):
            write(tmp_path / "x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert there(tmp_path) == []
    write(tmp_path / "x")
    assert there(tmp_path) == ["x"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FairdedupError, match=r"cannot write .*file/x: .*; .*another place"):
        write_json(tmp_path / "file" / "x", {})


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    with atomic_write(tmp_path / "x") as one, atomic_write(tmp_path / "x") as two:
        assert one != two
        one.write_text("one")
        two.write_text("two")
    assert (tmp_path / "x").read_text() == "one"  # whoever ends last
    assert there(tmp_path) == ["x"]


# Arrays, tables, JSON


@pytest.mark.parametrize("shape", [(3, 2), (0, 2), (0, 0), (0,)])
def test_an_array_comes_back_read_only(tmp_path, shape):
    array = np.arange(np.prod(shape), dtype=np.float16).reshape(shape)
    write_array(tmp_path / "x.npy", array)
    found = open_array(Unsealed(tmp_path / "x.npy", "a test"))
    assert found.dtype == array.dtype and found.shape == shape and np.array_equal(found, array)
    if found.size:
        with pytest.raises(ValueError, match="read-only"):
            found[0] = 1


def test_no_array_is_ever_pickled(tmp_path):
    with pytest.raises(ValueError, match="Python objects is never written"):
        write_array(tmp_path / "x.npy", np.array([{}], object))
    assert there(tmp_path) == []
    np.save(tmp_path / "x.npy", np.array([{}], object))
    with pytest.raises(DamagedFileError, match="x.npy is missing or damaged"):
        open_array(Unsealed(tmp_path / "x.npy", "a test"))


def test_the_same_table_gives_the_same_bytes(tmp_path):
    for name in "ab":
        write_table(tmp_path / name, pa.table({"id": ["x", "y"], "n": [1, None]}))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_json_comes_back_and_a_missing_file_is_none(tmp_path):
    write_json(tmp_path / "x.json", {"clé": [1, 0.0107, None]})
    assert read_json(tmp_path / "x.json") == {"clé": [1, 0.0107, None]}
    assert "clé" in (tmp_path / "x.json").read_text(encoding="utf-8")
    assert read_json(tmp_path / "none.json") is None
    assert read_json(tmp_path / "x.json" / "below") is None


@pytest.mark.parametrize("data", [b"", b'{"a": 1', b"\xff\xfe"])
def test_damaged_json_is_named(tmp_path, data):
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(
        FairdedupError,
        match=r"x\.json is damaged \(.*\): bring it back, or make the whole run again: `fairdedup run` with --restart$",
    ):
        read_json(tmp_path / "x.json")


# Records


def test_a_record_comes_back_as_it_was_written(tmp_path):
    run = RunDirectory(tmp_path)
    written = shard(run, 3, [(2, "é\x1b", "a.tar/x.png", "truncated")])
    assert read_shard_record(run, 3) == written
    assert written.positions().tolist() == [0, 1, 3, 4, 5]
    assert read_shard_record(run, 4) is None


@pytest.mark.parametrize("what", ["vectors", "metadata"])
@pytest.mark.parametrize("damage", ["cut", "longer", "gone"])
def test_a_shard_with_a_file_of_another_size_has_no_record(tmp_path, what, damage):
    run = RunDirectory(tmp_path)
    shard(run, 0)
    path = getattr(run, what)(0)
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] if damage == "cut" else path.read_bytes() + b"x")
    assert read_shard_record(run, 0) is None


@pytest.mark.parametrize("change", ["", '{"number": 0', "[]", '{"number": 0}', "null"])
def test_a_damaged_record_vouches_for_nothing(tmp_path, change):
    run = RunDirectory(tmp_path)
    shard(run, 0)
    run.record(0).write_text(change)
    assert read_shard_record(run, 0) is None


def test_an_error_of_records_names_the_missing_shard_and_a_remedy(tmp_path):
    run = RunDirectory(tmp_path)
    with pytest.raises(
        UserError, match="there is no run at .*: check the path, or create it with `fairdedup run INPUT"
    ):
        load_embedded(run)
    records = [shard(run, k) for k in range(3)]
    with pytest.raises(UserError, match=r"holds no finished embeddings: run `fairdedup embed INPUT --out"):
        load_embedded(run)
    write_json(run.config, {"asked": {}, "done": {"embed": 3}})
    assert load_embedded(run).records == tuple(records)
    run.vectors(1).unlink()
    with pytest.raises(UserError, match=r"img_emb_1\.npy is missing or damaged: run `fairdedup embed` with --out"):
        load_embedded(run)


def test_rows_count_what_was_rejected(tmp_path):
    run = RunDirectory(tmp_path)
    records = [shard(run, 0, [(0, "", "", "")]), shard(run, 1), shard(run, 2, [(5, "", "", ""), (6, "", "", "")])]
    assert first_rows(records).tolist() == [0, 6, 11, 18]
    assert records[0].positions().tolist() == [1, 2, 3, 4, 5] and records[2].positions().tolist() == [0, 1, 2, 3, 4]


def test_shards_of_a_longer_input_are_dropped(tmp_path):
    run = RunDirectory(tmp_path)
    for k in range(4):
        shard(run, k)
    remove_shards_from(run, 2)
    assert there(tmp_path) == [
        "img_emb_0.npy", "img_emb_1.npy", "metadata_0.parquet", "metadata_1.parquet", "record_0.json", "record_1.json"
    ]  # fmt: skip


def test_the_manifest_is_none_until_the_run_is_finished(tmp_path):
    run = RunDirectory(tmp_path)
    assert read_manifest(run) is None
    whole = MANIFEST | {"a key of tomorrow": [1]}
    lacking = [{name: value for name, value in whole.items() if name != left} for left in MANIFEST if left != "files"]
    for no_manifest in (None, [], {}, {"eps": 0.1}, {"counts": {"kept": 1}}, *lacking):
        (tmp_path / "run.json").write_text(json.dumps(no_manifest))
        assert read_manifest(run) is None
    (tmp_path / "run.json").write_text(json.dumps(whole))
    found = read_manifest(run)
    assert found is not None and found.counts.kept == 1 and found.version == 1
    assert found.to_json() == {"version": 1, **whole}
    (tmp_path / "run.json").write_text(json.dumps({name: value for name, value in whole.items() if name != "files"}))
    found = read_manifest(run)
    assert found is not None and found.files == {}  # it proves nothing about the files
