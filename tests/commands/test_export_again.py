"""Exports that are stopped, repeated or called with other options; a mistake writes nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tarfile
import time
from pathlib import Path

import pytest
from exports import ids, members, shards_of
from runs import (
    command,
    contents,
    files,
    manifest,
    sample,
    started,
    write_tar,
)

from fairdedup.storage.seals import seal


def finished_shards(folder: Path) -> list[str]:
    """Return the names of the shards that have their record."""
    return [shard.name for shard in shards_of(folder) if (folder / ".fairdedup" / f"{shard.name}.json").exists()]


def test_an_export_that_was_killed_ends_with_the_same_bytes(images_run, export, tmp_path):
    expected = contents(export(images_run, "webdataset", "--shard-size", 1, name="undisturbed"))
    out = tmp_path / "killed"
    asked = ("export", images_run, "--to", "webdataset", "--shard-size", 1, "--dest", out, "--workers", 2)
    for _ in range(10):  # the export is quick, and may end before it is killed
        process = started(tmp_path, *asked)
        while process.poll() is None and len(finished_shards(out)) < 2:
            time.sleep(0.001)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        _, err = process.communicate()
        assert len(finished_shards(out)) >= 2, err
        if not (out / "manifest.json").exists():
            break
        shutil.rmtree(out)
    assert not (out / "manifest.json").exists(), "it was killed too late to show anything"
    (out / ".shard-00000.tar.0123.tmp").write_bytes(b"half")  # as a killed worker may leave it
    finished, cut = finished_shards(out)[:2]  # which they are is up to the two workers
    (out / cut).write_bytes(b"cut")
    before = files(out)
    again = started(tmp_path, *asked)
    _, err = again.communicate()
    assert again.returncode == 0, err
    assert contents(out) == expected
    assert files(out)[finished] == before[finished], "a finished shard was written again"


def test_the_same_export_again_writes_no_shard_again(images_run, export):
    out = export(images_run, "webdataset")
    before = {name: known for name, known in files(out).items() if name.endswith(".tar")}
    export(images_run, "webdataset")
    assert {name: known for name, known in files(out).items() if name.endswith(".tar")} == before


def test_the_manifest_counts_and_seals_every_shard(images_run, export):
    out = export(images_run, "webdataset", "--shard-size", 8)
    told = json.loads((out / "manifest.json").read_text())
    assert told["samples"] == manifest(images_run)["counts"]["kept"] == sum(one["samples"] for one in told["shards"])
    assert [(one["name"], one["seal"]) for one in told["shards"]] == [(p.name, seal(p)) for p in shards_of(out)]
    assert [one["members"] for one in told["shards"]] == [len(members(p)) for p in shards_of(out)]


MISTAKES: dict[str, tuple[str, tuple[str, ...]]] = {
    "no form": ("export $IMAGES", ("Missing option '--to'",)),
    "a form of nobody": ("export $IMAGES --to zip", ("'--to'", "'zip' is not one of 'webdataset', 'folder', 'hf', ")),
    "no run": ("export nowhere --to txt", ("there is no run at", "nowhere", "`fairdedup run INPUT")),
    "a damaged manifest": ("export $STOPPED --to txt", ("run.json is damaged", "fairdedup prune")),
    "a damaged run": ("export $DAMAGED --to txt", ("part-00000.parquet is missing or damaged", "fairdedup prune")),
    "images of embeddings": ("export $RUN --to webdataset", ("has no images to write", "--to txt")),
    "uids that are none": ("export $RUN --to uids --dest x.npy", ("is not of 32 hex digits", "id 'k", "--to txt")),
    "a URL": ("export $IMAGES --to webdataset --dest s3://bucket/kept", ("'s3://bucket/kept' is a URL", "local path")),
    "into the run": ("export $IMAGES --to webdataset --dest $IMAGES/out", ("is in the run directory",)),
    "into the input": ("export $IMAGES --to webdataset --dest $SHARDS/out", ("is in the input",)),
    "into other files": ("export $IMAGES --to webdataset --dest full", ("'full' holds other files ('a')",)),
    "into a file": ("export $IMAGES --to webdataset --dest full/a", ("'full/a' is a file", "choose a folder")),
    "below a file": ("export $IMAGES --to webdataset --dest full/a/b", ("is below a file",)),
    "ids into a folder": ("export $IMAGES --to txt --dest full", ("'full' is a folder", "--dest kept.txt")),
    "over another file": ("export $IMAGES --to txt --dest full/a", ("'full/a' already exists with other content",)),
    "no samples in a shard": ("export $IMAGES --to webdataset --shard-size 0", ("'--shard-size'", "x>=1")),
    "a size of a text": (
        "export $IMAGES --to txt --shard-size 5",
        ("--shard-size works only with --to webdataset", "Leave it"),
    ),
    "no size": (
        "export $IMAGES --to webdataset --shard-bytes big",
        ("--shard-bytes must be an amount of bytes", "got 'big'", "1GB"),
    ),
    "size and samples": ("export $IMAGES --to webdataset --shard-bytes 1GB --shard-size 5", ("exclude each other",)),
    "an input that has gone": ("export $IMAGES --to webdataset --input gone/", ("'gone/'", "with --input")),
    "another input": ("export $IMAGES --to webdataset --input other", ("'other' is not the input of ", "cp -a")),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line_and_writes_nothing(case, images_run, finished, shards, tmp_path, scheduler, monkeypatch):
    words, fragments = MISTAKES[case]
    here = tmp_path / "here"
    (here / "full").mkdir(parents=True)
    (here / "full" / "a").write_text("mine")
    write_tar(here / "other" / "data-00000.tar", sample("0000", 0))
    if "$STOPPED" in words or "$DAMAGED" in words:
        shutil.copytree(finished, here / "run")
        part = here / "run" / ("run.json" if "$STOPPED" in words else "decisions/part-00000.parquet")
        part.write_bytes(part.read_bytes()[:-9])
    places = {
        "$IMAGES": images_run,
        "$RUN": finished,
        "$SHARDS": shards,
        "$STOPPED": here / "run",
        "$DAMAGED": here / "run",
    }
    for name, place in places.items():
        words = words.replace(name, str(place))
    monkeypatch.chdir(here)
    before = [files(folder) for folder in (here, images_run, finished, shards)]
    shown = command(*words.split(), "--quiet", *(() if "Missing" in fragments[0] else ("--scheduler", scheduler)))
    assert shown.code == 2, shown
    assert shown.err.startswith("fairdedup: error: ") and shown.err.count("\n") == 1 and shown.out == ""
    for fragment in fragments:
        assert fragment in shown.err, shown.err
    assert [files(folder) for folder in (here, images_run, finished, shards)] == before


def test_another_export_into_the_same_folder_is_refused(images_run, export, scheduler):
    out = export(images_run, "webdataset")
    before = files(out)
    for flags in (("--shard-size", 3), ("--what", "removed")):
        shown = command("export", images_run, "--to", "webdataset", "--dest", out, *flags, "--scheduler", scheduler)
        assert shown.code == 2 and "has another export" in shown.err
    assert files(out) == before


def test_an_input_that_has_moved_is_named_and_one_that_has_changed_is_refused(
    shards, images_run, export, tmp_path, scheduler
):
    moved = tmp_path / "moved"
    shutil.copytree(shards, moved)  # with the times of the files
    here = export(images_run, "webdataset")
    assert contents(export(images_run, "webdataset", "--input", moved, name="from there")) == contents(here)
    os.utime(moved / "data-00001.tar", (0, 0))
    shown = command("export", images_run, "--to", "webdataset", "--input", moved, "--dest", tmp_path / "new",
                    "--scheduler", scheduler, "--quiet")  # fmt: skip
    assert shown.code == 2 and "('data-00001.tar' has changed)" in shown.err
    assert not (tmp_path / "new").exists()


def test_a_sample_that_is_another_one_now_is_named(shards, images_run, tmp_path, scheduler):
    """Names, sizes and times are unchanged, and the keys are not."""
    moved = tmp_path / "moved"
    shutil.copytree(shards, moved)
    tar = moved / "data-00000.tar"
    stat = tar.stat()
    kept = next(i for i in ids(images_run, True) if int(i) < 13)
    with tarfile.open(tar) as archive:
        renamed = {f"9{n[1:]}" if n.startswith(kept) else n: archive.extractfile(n).read() for n in archive.getnames()}  # type: ignore[union-attr]
    write_tar(tar, renamed)
    os.utime(tar, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert tar.stat().st_size == stat.st_size
    shown = command("export", images_run, "--to", "webdataset", "--input", moved, "--dest", tmp_path / "new",
                    "--scheduler", scheduler, "--quiet")  # fmt: skip
    assert shown.code == 2 and f"is '9{kept[1:]}', and was '{kept}'" in shown.err
    assert not (tmp_path / "new" / "manifest.json").exists() and not list((tmp_path / "new").glob("**/*.tmp"))
