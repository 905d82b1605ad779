"""JSON files of a run from an earlier version are read, those from a newer version are refused in one line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from runs import command, done, read_plain

from fairdedup.errors import FairdedupError, UserError
from fairdedup.storage.config_record import ConfigRecord, FinishedStages, read_config_record, write_config_record
from fairdedup.storage.contents import load_embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import read_manifest
from fairdedup.storage.records import Rejection, ShardRecord
from fairdedup.storage.run_state import read_run_state
from fairdedup.storage.seals import seal
from fairdedup.storage.shard_groups import hash_of

RECORD = ShardRecord(
    number=3,
    name="a.tar",
    fingerprint="f",
    input=7,
    valid=6,
    rejected=[Rejection(2, "é\x1b", "a.tar/x.png", "truncated")],
    seals={"vectors": "1-a", "metadata": "2-b"},
)


def change(file: Path, **values: Any) -> None:
    """Change keys of a JSON file, or remove those that are None."""
    content = read_plain(file) | values
    file.write_text(json.dumps({name: v for name, v in content.items() if v is not None or name not in values}))


def test_the_hash_of_a_record_is_that_of_the_versions_before_it_had_a_version():
    content = {
        "number": 3, "name": "a.tar", "fingerprint": "f", "input": 7, "valid": 6,
        "rejected": [[2, "é\x1b", "a.tar/x.png", "truncated"]], "seals": {"vectors": "1-a", "metadata": "2-b"},
    }  # fmt: skip
    expected = hashlib.sha256(json.dumps([[content], 5], sort_keys=True).encode()).hexdigest()
    assert hash_of([RECORD.content()], 5) == expected
    assert RECORD.to_json() == {"version": 1, **content}


def test_files_without_a_version_count_as_version_1(again, scheduler, prototypes):
    run = RunDirectory(again)
    plain = (run.config, run.manifest, again / "state" / "state.json", *run.record(0).parent.glob("record_*.json"))
    before = read_config_record(run), read_manifest(run), read_run_state(again), load_embedded(run).records
    for file in plain:
        assert json.loads(file.read_text())["version"] == 1
        change(file, version=None)
    change(run.manifest, files={**before[1].files, "state/state.json": seal(again / "state" / "state.json")})
    before = before[0], read_manifest(run), before[2], before[3]
    found = read_config_record(run), read_manifest(run), read_run_state(again), load_embedded(run).records
    assert found == before
    done("prune", again, "--keep", 0.4, "--prototypes", prototypes, "--scheduler", scheduler, "--quiet")
    assert json.loads(run.manifest.read_text())["version"] == 1


@pytest.mark.parametrize(
    "file", ["config.json", "run.json", "embeddings/records/record_1.json", "clusters/records/record_0.json"]
)
def test_a_file_of_a_newer_version_is_refused_in_one_line(again, scheduler, file):
    change(again / file, version=2)
    shown = command("audit" if file == "run.json" else "prune", again, *([] if file == "run.json" else ["--keep", 0.4]),
                    "--scheduler", scheduler)  # fmt: skip
    writer = r"fairdedup " if file == "run.json" else "a newer fairdedup"
    assert shown.code == 2 and shown.err.count("\n") == 1, shown.err
    assert f"{file} has version 2 and was written by {writer}" in shown.err
    assert "this fairdedup reads up to version 1: upgrade it (pip install --upgrade fairdedup)" in shown.err


def test_unknown_keys_survive_a_stage(again):
    run = RunDirectory(again)
    change(run.config, later={"a": [1]})
    record = read_config_record(run).start_stage("prune", {"keep": 0.1})
    write_config_record(run, record.finish_stage("cluster", "hash"))
    written = json.loads(run.config.read_text())
    assert written["later"] == {"a": [1]} and written["asked"]["prune"] == {"keep": 0.1}
    assert written["done"] == {"embed": 3, "cluster": "hash"}


@pytest.mark.parametrize("content", [[], 1, {"asked": {}}, {"asked": {}, "done": []}, {"asked": [], "done": {}}])
def test_a_damaged_config_is_one_line(tmp_path, content):
    run = RunDirectory(tmp_path)
    run.config.write_text(json.dumps(content))
    with pytest.raises(
        FairdedupError,
        match=r"^.*config\.json is damaged \(.*\): bring it back, or make the whole run again: .* --restart$",
    ) as caught:
        read_config_record(run)
    assert not isinstance(caught.value, UserError) and "\n" not in str(caught.value)


def test_what_was_not_set_is_not_written(tmp_path):
    run = RunDirectory(tmp_path)
    write_config_record(run, ConfigRecord(options={}, done=FinishedStages()))
    assert read_plain(run.config) == {"version": 1, "asked": {}, "done": {}}


def test_a_manifest_without_files_can_be_read_but_is_made_again(again, scheduler, prototypes):
    run = RunDirectory(again)
    change(run.manifest, files=None)
    assert command("gate", again, "--max-rejected", 1).code == 0
    config = read_config_record(run).options
    words = ("--keep", config["prune"]["keep"], "--prototypes", config["prune"]["prototypes"] or prototypes)
    shown = command("run", config["embed"]["input"], *words, "--clusters", config["cluster"]["clusters"],
                    "--out", again, "--scheduler", scheduler)  # fmt: skip
    assert not shown.code and "run.json is missing or damaged" in shown.err, shown.err
