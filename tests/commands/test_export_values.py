"""`export --to webdataset` of a run with --collect adds values to the .json of each kept sample, and nothing else."""

from __future__ import annotations

import json
import shutil

import pytest
from exports import all_members, by_webdataset, hashed, ids, shards_of
from runs import command, done, manifest, sample, table, write_tar

from fairdedup.datasets.json_values import add_values
from fairdedup.datasets.originals import FileRange, Member


@pytest.fixture
def collected(images_run, tmp_path, scheduler, weights):
    """Return a copy of the run over images whose captions and licences are collected."""
    run = shutil.copytree(images_run, tmp_path / "run")
    done("prune", run, "--keep", 0.3, "--rule", "semdedup", "--collect", "caption", "--collect", "licence",
         "--scheduler", scheduler, "--quiet")  # fmt: skip
    return run


def test_the_values_are_in_the_json_and_every_other_file_is_unchanged(shards, collected, export):
    before, kept = all_members(shards), table(collected / "kept").set_index("id")
    found = all_members(export(collected, "webdataset", "--shard-size", 4))
    expected = {name: data for name, data in before.items() if name.split(".")[0] in kept.index}
    assert list(found) == list(expected)
    assert kept["stands_for"].sum() > 5 and any(len(licences) for licences in kept["licence_collected"])
    for name, data in expected.items():
        if not name.endswith(".json"):
            assert found[name] == data
            continue
        line = kept.loc[name.removesuffix(".json")]
        assert json.loads(found[name]) == {
            **json.loads(data), "stands_for": line["stands_for"],
            "caption_collected": list(line["caption_collected"]), "licence_collected": list(line["licence_collected"]),
        }  # fmt: skip


def test_removed_samples_and_a_run_that_collects_nothing_are_copied_as_they_are(shards, collected, images_run, export):
    before = all_members(shards)
    removed = all_members(export(collected, "webdataset", what="removed", name="removed"))
    assert removed == {name: data for name, data in before.items() if name.split(".")[0] in ids(collected, False)}
    kept = all_members(export(images_run, "webdataset", name="kept"))
    assert kept == {name: data for name, data in before.items() if name.split(".")[0] in ids(images_run, True)}


def test_the_size_of_a_shard_counts_the_values(collected, export):
    whole = export(collected, "webdataset", name="whole")
    cut = export(collected, "webdataset", "--shard-bytes", "21kB", name="cut")
    assert list(all_members(cut).items()) == list(all_members(whole).items())
    assert len(shards_of(cut)) > 1 and max(path.stat().st_size for path in shards_of(cut)) <= 21_000


def test_other_values_of_the_same_decisions_are_another_export(collected, export, tmp_path, scheduler):
    out = export(collected, "webdataset")
    done("prune", collected, "--keep", 0.3, "--rule", "semdedup", "--collect", "caption", "--scheduler", scheduler,
         "--quiet")  # fmt: skip
    shown = command("export", collected, "--to", "webdataset", "--dest", out, "--scheduler", scheduler, "--quiet")
    assert shown.code == 2 and "has another export" in shown.err


def test_a_damaged_part_of_kept_is_one_line_where_its_values_are_read(collected, tmp_path, scheduler):
    part = collected / "kept" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-1])
    words = ("--dest", tmp_path / "out", "--scheduler", scheduler, "--quiet")
    shown = command("export", collected, "--to", "webdataset", *words)
    assert shown.code == 2 and f"{part} is missing or damaged: run `fairdedup prune" in shown.err
    assert not (tmp_path / "out").exists()
    done("export", collected, "--to", "webdataset", "--what", "removed", *words)


def test_a_sample_without_a_json_gets_one_and_what_is_no_object_stays(tmp_path, run_of, export):
    members: dict[str, bytes] = {}
    jsons = [None, b"[1, 2]", b'{"stands_for": "mine", "b": 2}', b"{broken", b'{"caption": 1}'] * 4
    for k, own in enumerate(jsons):
        image = sample(f"{k:02d}", 10 * (k // 2))
        members |= {f"{k:02d}.png": image[f"{k:02d}.png"]} | ({} if own is None else {f"{k:02d}.json": own})
    write_tar(tmp_path / "in.tar", members)
    run = run_of(tmp_path / "in.tar", "--rule", "semdedup", "--collect", "id")
    assert manifest(run)["counts"]["kept"] == 10
    out = export(run, "webdataset")
    found, kept = all_members(out), table(run / "kept").set_index("id")
    assert by_webdataset(out) == hashed(found)
    for id_ in ids(run, True):
        own = jsons[int(id_)]
        added = {"stands_for": kept.loc[id_, "stands_for"], "id_collected": list(kept.loc[id_, "id_collected"])}
        assert len(added["id_collected"]) == added["stands_for"]
        if own in (b"[1, 2]", b"{broken"):
            assert found[f"{id_}.json"] == own and json.loads(found[f"{id_}.collected.json"]) == added
            continue
        theirs = {} if own is None else json.loads(own)
        theirs = {"input_stands_for" if name == "stands_for" else name: value for name, value in theirs.items()}
        assert json.loads(found[f"{id_}.json"]) == theirs | added


def test_a_json_that_is_a_range_of_a_file_is_read_from_there(tmp_path):
    (tmp_path / "t.tar").write_bytes(b'xx{"a": 1}yy')
    member = Member(0, "k", "k", "JSON", FileRange(str(tmp_path / "t.tar"), 2, 8))
    (found,) = add_values([member], {0: {"b": 2}})
    assert found.name == "k.JSON" and json.loads(found.data) == {"a": 1, "b": 2}
