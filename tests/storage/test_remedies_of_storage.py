"""What the messages about missing and damaged files of a run advise works: it is read from the message and applied."""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
from remedies import Advice, call, check, manifest_of
from runs import product

from fairdedup.errors import FairdedupError, UserError
from fairdedup.storage.checked_json import write_json
from fairdedup.storage.lock import lock_run_directory
from fairdedup.storage.object_stores import as_path, check_local, check_writable
from fairdedup.storage.remedies import decide_again, quote
from fairdedup.storage.remote_array import RemoteArray
from fairdedup.storage.run_files import atomic_write, write_array
from fairdedup.storage.tar_writer import ShardWriter

OWN = "--rule semdedup --eps 0.1"
RUN = f"run t.parquet {OWN} --clusters 4 --out r"
PRUNE = r"run `fairdedup (?P<prune>prune \S+)` again, with its own options"


def flip(name: str):
    """Return a change that flips a bit in the middle of a file; its size stays."""

    def change(here: Path) -> None:
        data = bytearray((here / name).read_bytes())
        data[len(data) // 2] ^= 4
        (here / name).write_bytes(data)

    return change


def write(name: str, text: str):
    return lambda here: (here / name).write_text(text)


def remove(*names: str):
    def change(here: Path) -> None:
        for name in names:
            shutil.rmtree(here / name) if (here / name).is_dir() else (here / name).unlink()

    return change


def stop_replacement(here: Path) -> None:
    """Leave a replacement as it is when it is stopped after its new parts are written."""
    manifest = manifest_of(here / "r")
    write_json(here / "r" / "replaced" / "run.json", manifest)


TABLE = {
    "no run": Advice(
        "cluster r", r"create it with `fairdedup (?P<run>run) INPUT (?P<keep>--keep) F (?P<out>--out \S+)`",
        ["{run} x.npy {keep} 0.5 --rule semdedup {out} && cluster r"],
    ),
    "no clusters": Advice(
        f"embed x.npy --out r && prune r {OWN}", r"run `fairdedup (?P<cluster>cluster \S+)` first",
        [f"{{cluster}} && prune r {OWN}"],
    ),
    "no decisions": Advice(
        "embed t.parquet --out r && cluster r && export r --to txt",
        r"run `fairdedup (?P<prune>prune \S+ --keep) F` first", ["{prune} 0.5 --rule semdedup && export r --to txt"],
    ),
    "damaged vectors": Advice(
        f"{RUN} && prune r --keep 0.5 --rule semdedup", r"run `fairdedup embed` with (?P<out>--out \S+) again",
        ["embed t.parquet {out} && cluster r --clusters 4 && prune r --keep 0.5 --rule semdedup"],
        write("r/embeddings/img_emb/img_emb_0.npy", "x"),
    ),
    "damaged metadata": Advice(
        f"{RUN} && prune r --keep 0.5 --rule semdedup", r"run `fairdedup embed` with (?P<out>--out \S+) again",
        ["embed t.parquet {out} && prune r --keep 0.5 --rule semdedup"],
        flip("r/embeddings/metadata/metadata_0.parquet"),
    ),
    "damaged clusters": Advice(
        f"{RUN} && prune r --keep 0.5 --rule semdedup",
        r"run `fairdedup (?P<cluster>cluster \S+)` again, with its own options",
        ["{cluster} --clusters 4 && prune r --keep 0.5 --rule semdedup"], flip("r/clusters/vectors_0.npy"),
    ),
    "a damaged configuration": Advice(
        f"{RUN} && prune r --keep 0.5 --rule semdedup",
        r"bring it back, or make the whole run again: `fairdedup (?P<run>run)` with (?P<restart>--restart)",
        [f"{RUN.replace('run ', '{run} ', 1)} {{restart}}", "prune r --keep 0.5 --rule semdedup"],
        write("r/config.json", "{"), code=1,
    ),
    "a configuration that is brought back": Advice(
        f"{RUN} && prune r --keep 0.5 --rule semdedup", r"bring it back",
        ["prune r --keep 0.5 --rule semdedup"],
        lambda here: (shutil.copy(here / "r/config.json", here), (here / "r/config.json").write_text("{")),
        lambda here: shutil.copy(here / "config.json", here / "r/config.json"), code=1,
    ),
    "a configuration of a newer version": Advice(
        f"{RUN} && prune r --keep 0.5 --rule semdedup", r"or choose another run directory",
        [f"{RUN}2 && prune r2 --keep 0.5 --rule semdedup"],
        write("r/config.json", '{"version": 99, "asked": {}, "done": {}}'),
    ),
    "a replacement that was stopped": Advice(
        f"{RUN} && export r --to txt", r"run the same `fairdedup (?P<replace>replace)` again to finish it",
        ["{replace} r --gone some.txt && export r --to txt"], stop_replacement,
    ),
    "a damaged list of vanished samples": Advice(
        f"{RUN} && replace r --gone some.txt && prune r --keep 0.5 --rule semdedup",
        r"restore it, or make the whole run again: `fairdedup (?P<run>run)` with (?P<restart>--restart) and then "
        r"`fairdedup (?P<replace>replace \S+ --gone) FILE`",
        [f"{RUN} --restart && {{replace}} some.txt && prune r --keep 0.5 --rule semdedup"],
        flip("r/gone/gone_0.parquet"),
    ),
    # Earlier runs
    "a damaged state": Advice(
        f"{RUN} && run y.npy --against r --out s", PRUNE, [f"{{prune}} {OWN} && run y.npy --against r --out s"],
        flip("r/state/state.json"),
    ),
    "a missing file of the state": Advice(
        f"{RUN} && run y.npy --against r --out s", PRUNE, [f"{{prune}} {OWN} && run y.npy --against r --out s"],
        remove("r/state/run-0000/offsets_0.npy"),
    ),
    "damaged sums of the state": Advice(
        f"{RUN} && run y.npy --against r --out s", PRUNE, [f"{{prune}} {OWN} && run y.npy --against r --out s"],
        flip("r/state/run-0000/sizes.npy"),
    ),
    "damaged vectors of the state": Advice(
        f"{RUN} && run y.npy --against r --out s",
        PRUNE + r".*; then make this run again: `fairdedup (?P<run>run)` with (?P<restart>--restart)",
        [f"{{prune}} {OWN} && {{run}} y.npy --against r --out s {{restart}}"],
        flip("r/state/run-0000/vectors_0.npy"),
    ),
    # Where a run can be
    "a run at a web address": Advice(
        f"{RUN.replace('--out r', '--out https://example.org/r')}", r"cannot hold a run: give a local folder", [RUN],
    ),
    "ids at a web address": Advice(
        f"{RUN} --drop s3://bucket/some.txt", r"give a local file", [f"{RUN} --drop some.txt"],
    ),
    "a URL with a secret": Advice(
        "run s3://me:secret@bucket/x --keep 0.5 --rule semdedup --out r", r"has credentials in it.*: remove them",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_what_a_message_advises_works(case, place):
    check(TABLE[case], place)


def test_a_run_that_is_in_use_can_be_waited_for_or_another_named(place):
    call(RUN)
    with lock_run_directory(place / "r"):
        shown = call("prune r --keep 0.5 --rule semdedup")
        assert shown.code == 1 and "wait until it has ended, or name another run directory" in shown.err
        assert call(f"{RUN}2 && prune r2 --keep 0.5 --rule semdedup").code == 0
    assert call("prune r --keep 0.5 --rule semdedup").code == 0


@pytest.mark.parametrize(("begun", "then"), [(None, {"run"}), ("embed t.parquet --out r", {"cluster", "prune"})])
def test_advice_leads_from_nothing_or_embeddings_to_an_audit(begun, then, place):
    """Each message names the next command; at last nothing is missing."""
    assert begun is None or call(begun).code == 0
    fill = {"INPUT": "t.parquet", "F": "0.5"}
    steps = []
    for _ in range(9):
        shown = call("audit r --labels labels.csv")
        if shown.code == 0:
            break
        while True:
            found = re.search(r"`fairdedup ([^`]+)`", shown.err)
            assert found, shown.err
            words = " ".join(fill.get(word, word) for word in found[1].split())
            words += " --rule semdedup" if words.startswith(("prune", "run")) else ""
            steps.append(words.split()[0])
            shown = call(words)
            if shown.code == 0:
                break
    assert call("audit r --labels labels.csv").code == 0 and set(steps) == then, steps


def test_a_command_that_a_message_names_can_be_pasted_whatever_the_name_of_the_folder(place, monkeypatch):
    odd = place / "my run's $HOME (1)"
    odd.mkdir()
    monkeypatch.chdir(odd)
    for name in ("t.parquet", "labels.csv"):
        shutil.copy(place / name, odd)
    assert call(RUN).code == 0
    flip("r/decisions/part-00000.parquet")(odd)
    shown = call("audit r --labels labels.csv")
    command = re.search(r"`fairdedup (prune .*)` again", shown.err)
    assert command and call(f"{command[1]} {OWN} && audit r --labels labels.csv").code == 0
    assert quote("plain/run") == "plain/run" and "'my run'" in decide_again("my run")


def test_the_decisions_that_are_written_again_are_the_same(place):
    call(RUN)
    before = product(place / "r")
    flip("r/decisions/part-00000.parquet")(place)
    command = re.search(r"`fairdedup (prune .*)` again", call("audit r --labels labels.csv").err)
    assert command and call(f"{command[1]} {OWN}").code == 0
    assert product(place / "r") == before


def test_no_room_for_a_file_on_its_way_to_a_store_is_solved_by_tmpdir(tmp_path, monkeypatch):
    path = as_path("memory://bucket/x.json")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "full"))
    with pytest.raises(FairdedupError, match="free some space there, or set (?P<name>TMPDIR) to another"), \
            atomic_write(path) as aside:  # fmt: skip
        aside.write_text("x")
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with atomic_write(path) as aside:
        assert aside.is_relative_to(tmp_path)
        aside.write_text("x")
    assert path.read_text() == "x"


def test_a_place_that_cannot_be_written_can_be_another(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FairdedupError, match="a file is where its folder must be: choose another place"):
        write_json(tmp_path / "file" / "x.json", 1)
    write_json(tmp_path / "folder" / "x.json", 1)


@pytest.mark.parametrize("damage", ["no array", "a newer format", "cut"])
def test_a_damaged_array_in_a_store_can_be_brought_back(damage):
    path = as_path("memory://bucket/a.npy")
    write_array(path, np.ones((50_000, 4), np.float32))
    data = path.read_bytes()
    path.fs.pipe_file(str(path), {"no array": b"x" * 99, "a newer format": data[:6] + b"\x09" + data[7:],
                                  "cut": data[:-9]}[damage])  # fmt: skip
    with pytest.raises(FairdedupError, match="bring it back, or make the whole run again: `fairdedup run` with"):
        np.asarray(RemoteArray(path)[:])
    path.fs.pipe_file(str(path), data)
    assert np.asarray(RemoteArray(path)[:]).sum() == 200_000


def test_urls_where_none_can_be_are_answered_by_what_can(tmp_path):
    with pytest.raises(UserError, match="give a local folder, or a URL of an object store"):
        check_writable(as_path("https://example.org/run"), "--out")
    check_writable(as_path("s3://bucket/run"), "--out")
    check_writable(tmp_path, "--out")
    with pytest.raises(UserError, match="give a local file"):
        check_local(as_path("s3://bucket/ids.txt"), "--drop")
    check_local(tmp_path, "--drop")
    with pytest.raises(UserError, match="remove them, and set them in the environment") as caught:
        as_path("s3://me:secret@bucket/run")
    assert (
        "docs/object-stores.md" in str(caught.value) and (Path(__file__).parents[2] / "docs/object-stores.md").exists()
    )
    assert str(as_path("s3://bucket/run")) == "s3://bucket/run"
    assert os.environ.get("AWS_SECRET_ACCESS_KEY") != "secret"


def test_a_bucket_that_does_not_exist_can_be_made(bucket, tmp_path):
    path = as_path("s3://another-bucket/x.json")
    with pytest.raises(FairdedupError, match="cannot write .*: check that the bucket exists"):
        write_json(path, 1)
    path.fs.mkdir("another-bucket")
    write_json(path, 1)
    assert path.read_text() == "1\n"


def test_an_object_that_could_not_be_read_is_read_by_trying_again(bucket, monkeypatch):
    path = as_path("s3://bucket/y.json")
    write_json(path, 1)

    def fail(*_: object, **__: object) -> None:
        raise OSError("connection reset")

    with monkeypatch.context() as patched:
        patched.setattr(path.fs, "cat_file", fail)
        with pytest.raises(FairdedupError, match="try again; run the same command to resume"):
            path.read_text()
    assert path.read_text() == "1\n"


def test_an_input_that_became_shorter_is_copied_when_nothing_changes_it(tmp_path):
    (tmp_path / "source").write_bytes(b"x" * 900)
    with ShardWriter(tmp_path / "a.tar") as shard, \
            pytest.raises(FairdedupError, match="do not change the input, and try again"):  # fmt: skip
        shard.copy("a.png", str(tmp_path / "source"), 0, 1000)
    (tmp_path / "source").write_bytes(b"x" * 1000)
    with ShardWriter(tmp_path / "b.tar") as shard:
        shard.copy("a.png", str(tmp_path / "source"), 0, 1000)
        shard.seal()
    with tarfile.open(tmp_path / "b.tar") as archive:
        assert archive.getmember("a.png").size == 1000


def test_an_export_of_a_run_in_a_store_goes_to_a_local_place(bucket, place):
    assert call(RUN.replace("--out r", "--out s3://bucket/advised")).code == 0
    shown = call("export s3://bucket/advised --to txt")
    found = re.search(r"name a local (--dest)", shown.err)
    assert shown.code == 2 and found, shown.err
    assert call(f"export s3://bucket/advised --to txt {found[1]} kept.txt").code == 0
    assert (place / "kept.txt").read_text()
