"""A run, or a whole line of runs, that was moved or copied works with every command."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from remedies import call, manifest_of
from runs import command, product, raw_vectors, table

from fairdedup.errors import FairdedupError
from fairdedup.storage import file_errors
from fairdedup.storage.lock import lock_run_directory
from fairdedup.storage.run_files import atomic_write, link_or_copy

DAY_1 = "run t.parquet --rule balanced --prototypes p.npz --eps 0.1 --cover --clusters 4 --out {line}/1"
DAY_2 = "run y.npy --against {line}/1 --out {line}/2"
DAY_3 = "run z.npy --against {line}/2 --at-most 0.5 --rule semdedup --no-cover --out {line}/3"
AGAIN = "--at-most 0.5 --rule semdedup --no-cover"


def ends_well(words: str, **groups: str) -> str:
    shown = call(words, **groups)
    assert shown.code == 0, (words, shown.err)
    return shown.out + shown.err


def refused(words: str) -> str:
    shown = call(words)
    assert shown.code in (1, 2) and shown.err.count("\n") == 1, shown
    return shown.err


@pytest.fixture
def line(place: Path) -> Path:
    """Make a line of three nights in old/."""
    np.save(place / "z.npy", np.concatenate((np.load(place / "y.npy")[5:15] * 2, raw_vectors(25, seed=9))))
    (place / "z.ids.txt").write_text("".join(f"z{row}\n" for row in range(35)))
    ends_well(f"{DAY_1} && {DAY_2} && {DAY_3}", line="old")
    return place / "old"


def every_command(run: str, place: Path) -> None:
    """Call every command that needs no input of a finished run."""
    (place / "vanished.txt").write_text(f"{table(place / run / 'kept')['id'].iloc[0]}\n")
    ends_well(f"audit {run} && gate {run} --max-rejected 0.9 --min-retention 0 --max-drift 99")
    for form in ("txt", "csv"):
        ends_well(f"export {run} --to {form} --dest {run}.{form}")
    ends_well(f"replace {run} --gone vanished.txt")


@pytest.mark.parametrize("how", ["renamed", "copied", "linked"])
def test_a_whole_line_that_moved_is_decided_again_as_before(line, place, how):
    before = product(line / "3")["kept"]
    if how == "renamed":
        line.rename(place / "new")
    elif how == "copied":
        shutil.copytree(line, place / "new")
        shutil.rmtree(line)
    else:
        line.rename(place / "elsewhere")
        (place / "new").symlink_to("elsewhere")
    assert "finished already" in call_loud("run y.npy --against new/1 --out new/2")
    ends_well(f"prune new/3 {AGAIN}")
    assert product(place / "new/3")["kept"] == before
    recorded = json.loads((place / "new/3/config.json").read_text())["asked"]["cluster"]["against"]
    assert recorded == [str(place / "new/2")]
    ends_well("refit new/3 --keep 0.5 --out all && run y.npy --against new/3 --id shard/key --out new/4")
    assert manifest_of(place / "all")["counts"]["input"] == 125
    every_command("new/3", place)


def call_loud(words: str) -> str:
    shown = command(*words.split())
    assert shown.code == 0, shown.err
    return shown.err


@pytest.mark.parametrize("missing", [["1"], ["2"], ["1", "2"]])
def test_the_last_run_of_a_line_needs_none_of_the_others_to_be_decided_again(line, place, missing):
    before = product(line / "3")["kept"]
    (place / "new").mkdir()
    (line / "3").rename(place / "new/3")
    for name in missing:
        shutil.rmtree(line / name)
    ends_well(f"prune new/3 {AGAIN}")
    assert product(place / "new/3")["kept"] == before
    ends_well("prune new/3")  # options come from the run before, even if that is missing
    assert manifest_of(place / "new/3")["config"]["prune"]["rule"] == "balanced"
    said = refused("refit new/3 --keep 0.5 --out all")
    assert "are missing" in said
    every_command("new/3", place)


def test_a_missing_run_of_a_line_is_named_with_a_command_that_does_not_need_it(line, place):
    (line / "2").rename(place / "second")
    said = refused(f"run z.npy --against old/2 --out old/3 {AGAIN}")
    advised = re.search(r"`fairdedup (prune old/3)` decides it again", said)
    assert advised, said
    ends_well(f"{advised[1]} {AGAIN}")
    assert "finished already" in call_loud(f"run z.npy --against second --out old/3 {AGAIN}")


def test_a_run_without_a_kept_state_names_the_option_for_the_new_place(line, place):
    (line / "2").rename(place / "second")
    (line / "3/state/inherited.json").unlink()  # as a run of an earlier version
    before = product(line / "3")["kept"]
    said = refused(f"prune old/3 {AGAIN}")
    advised = re.search(r"`fairdedup (prune \S+ --against) NEW/PLACE`", said)
    assert advised, said
    assert "was not clustered --against" in refused(f"{advised[1]} old/1 {AGAIN}")
    ends_well(f"{advised[1]} second {AGAIN}")
    assert product(line / "3")["kept"] == before
    ends_well(f"prune old/3 {AGAIN}")  # the new place is recorded


def test_a_refit_takes_the_new_place_of_a_run_of_its_line(line, place):
    (line / "1").rename(place / "first")
    said = refused("refit old/3 --keep 0.5 --out all")
    advised = re.search(r"`fairdedup (refit old/3) NEW/PLACE`", said)
    assert advised, said
    ends_well(f"{advised[1]} first --keep 0.5 --out all")
    assert manifest_of(place / "all")["counts"]["input"] == 125


def test_a_refit_takes_a_run_that_was_decided_again_at_its_new_place(line, place):
    (line / "1").rename(place / "first")
    ends_well("prune first --eps 0.2 --rule semdedup && refit old/3 first --keep 0.5 --out all")
    assert manifest_of(place / "all")["counts"]["input"] == 125


def test_a_refit_takes_no_other_run_of_the_line_for_one_that_is_missing(place):
    """Every run of this line has the same name, so that of the last one is beside itself."""
    for day in "abc":
        (place / day).mkdir()
    ends_well(f"{DAY_1} && run y.npy --against a/1 --out b/1", line="a")
    shutil.rmtree(place / "a")
    assert "are missing: restore the folder" in refused("refit b/1 --keep 0.5 --out all")


def test_another_run_at_the_old_place_is_not_taken_for_the_run_of_the_line(line, place):
    line.rename(place / "new")
    ends_well("run y.npy --rule semdedup --eps 0.2 --clusters 3 --out old/1")
    ends_well("refit new/3 --keep 0.5 --out all")
    assert manifest_of(place / "all")["counts"]["input"] == 125


def test_a_run_over_embeddings_moves_with_and_without_its_input(place):
    words = "--rule semdedup --eps 0.1 --clusters 4 --drop drop.txt --exclude-near y.npy --exclude-near-eps 0.01"
    (place / "x.ids.txt").write_text("".join(f"k{row}\n" for row in range(60)))
    shutil.copy(place / "some.txt", place / "drop.txt")
    ends_well(f"run x.npy {words} --out old")
    before = product(place / "old")
    for name in ("x.npy", "x.ids.txt", "drop.txt", "y.npy", "y.ids.txt"):
        (place / "in").mkdir(exist_ok=True)
        (place / name).rename(place / "in" / name)
    (place / "old").rename(place / "new")
    moved = words.replace("drop.txt", "in/drop.txt").replace("y.npy", "in/y.npy")
    said = refused(f"run x.npy {moved} --out new")
    advised = re.search(r"give its new place; `fairdedup (prune \S+)` needs no input", said)
    assert advised, said
    assert "finished already" in call_loud(f"run in/x.npy {moved} --out new")
    ends_well(f"{advised[1]} {moved.replace('--clusters 4', '')}")
    assert product(place / "new") == before
    shutil.copy(place / "in/x.npy", place / "x.npy")  # another time: not the same file
    os.utime(place / "x.npy", (1, 1))
    assert "was made of another input ('x.npy" in refused(f"run x.npy {moved} --out new")
    ends_well(
        "sweep new --keep 0.5,0.7 --rule semdedup && cluster new --clusters 5 && prune new --eps 0.1 --rule semdedup"
    )
    every_command_without_groups("new", place)


def every_command_without_groups(run: str, place: Path) -> None:
    ends_well(f"gate {run} --max-rejected 0.9 && export {run} --to txt && refit {run} --keep 0.5 --out {run}-2")


def test_a_run_over_images_is_exported_from_where_the_images_are_now(place, write_pictures):
    write_pictures(place / "in")
    np.savez(place / "i.npz", **{"a/p": np.eye(12)[0], "a/q": np.eye(12)[1]})
    words = "--rule semdedup --eps 0.01 --clusters 1 --device cpu --prototypes i.npz"
    ends_well(f"run in {words} --out old && export old --to webdataset --dest a")
    (place / "in").rename(place / "moved")
    (place / "old").rename(place / "new")
    said = refused("export new --to webdataset --dest b")
    assert re.search(r"name its new place with --input; --to txt, csv and uids need no input", said), said
    ends_well("export new --to webdataset --dest b --input moved && export new --to txt")
    shards = [(place / name / "shard-00000.tar").read_bytes() for name in "ab"]
    assert shards[0] == shards[1]
    assert "finished already" in call_loud(f"run moved {words} --out new")


def test_a_moved_run_is_calibrated_as_before(place):
    ends_well(DAY_1, line="old")
    words = "--labels labels.csv --prototypes {p}"
    ends_well(f"calibrate old/1 --out a.parquet {words}", p="p.npz")
    (place / "old").rename(place / "new")
    (place / "p.npz").rename(place / "moved.npz")
    (place / "t.parquet").unlink()  # no input is needed
    said = refused(f"calibrate new/1 --out b.parquet {words.format(p='p.npz')}")
    assert "p.npz" in said
    ends_well(f"calibrate new/1 --out b.parquet {words}", p="moved.npz")
    assert pq.read_table(place / "a.parquet").equals(pq.read_table(place / "b.parquet"))


def test_two_names_of_a_run_have_one_lock(place):
    (place / "run").mkdir()
    (place / "name").symlink_to("run")
    with (
        lock_run_directory(place / "run"),
        pytest.raises(FairdedupError, match="in use by another command"),
        lock_run_directory(place / "name"),
    ):
        pass


def no_link(*_: object) -> None:
    raise OSError(18, "Invalid cross-device link")


def test_a_line_over_two_file_systems_is_copied(place, monkeypatch):
    monkeypatch.setattr(file_errors.os, "link", no_link)
    ends_well(f"{DAY_1} && {DAY_2}", line="old")
    first, linked = (place / "old" / day / "state/run-0000/vectors_0.npy" for day in "12")
    assert first.read_bytes() == linked.read_bytes() and first.stat().st_ino != linked.stat().st_ino


@pytest.mark.parametrize("change", ["vanishes", "is replaced", "grows"])
def test_a_source_that_changes_while_it_is_copied_is_named(tmp_path, monkeypatch, change):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"x" * 100)

    def meanwhile(*_: object) -> None:
        if change == "vanishes":
            source.unlink()
        elif change == "is replaced":
            (tmp_path / "other").write_bytes(b"y" * 100)
            os.replace(tmp_path / "other", source)
        else:
            source.write_bytes(b"x" * 101)
        no_link()

    with monkeypatch.context() as patched:
        patched.setattr(file_errors.os, "link", meanwhile)
        with pytest.raises(FairdedupError) as caught:
            link_or_copy(source, target)
    said = str(caught.value)
    assert said.startswith(str(source)) and "space" not in said and not target.exists()
    assert (
        "was moved or removed while it was copied" if change == "vanishes" else "changed while it was copied"
    ) in said
    source.write_bytes(b"z")
    link_or_copy(source, target)  # the command again, once the other one has ended
    assert target.read_bytes() == b"z"


def test_a_source_of_another_size_than_its_record_is_named(line, place, monkeypatch):
    def cut(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:-1])

    with monkeypatch.context() as patched:
        patched.setattr("fairdedup.storage.earlier_samples.link_or_copy", cut)
        said = refused("run y.npy --against old/1 --out again")
    assert "changed while it was copied: wait until the command that writes that run has ended" in said
    ends_well("run y.npy --against old/1 --out again")


def test_a_file_that_cannot_be_read_is_not_explained_by_the_file_that_is_written(tmp_path):
    with pytest.raises(FairdedupError, match=r"cannot read .*/missing: No such file.*; bring it back") as caught, \
            atomic_write(tmp_path / "x") as aside:  # fmt: skip
        aside.write_bytes((tmp_path / "missing").read_bytes())
    assert "space" not in str(caught.value)


def test_a_folder_that_disappears_is_named_as_that(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(FairdedupError, match=r"cannot write .*/run/x: .*its folder was moved or removed"), \
            atomic_write(folder / "x") as aside:  # fmt: skip
        folder.rename(tmp_path / "new")
        aside.write_text("x")
