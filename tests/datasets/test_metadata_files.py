"""Metadata files of image folders, and img2dataset's table of downloads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inputs import (
    GOOD,
    OTHER,
    downloaded,
    write,
)

from fairdedup.datasets import open_input


def read(source: Path | str, **options: Any) -> list[Any]:
    return [sample for shard in open_input(str(source), **options).shards for sample in shard.read()]  # type: ignore


def test_failed_downloads_come_after_what_the_tar_holds(folder: Path) -> None:
    samples = read(downloaded()(folder))
    assert [(s.position, s.id, s.error is None) for s in samples] == [
        (0, "000", True), (1, "002", True), (2, "001", False), (3, "003", False)
    ]  # fmt: skip
    assert samples[3].source == "00000.tar/003" and len(str(samples[3].error)) < 250
    plain = read(f"{folder}/*.tar", id_from="shard/key")
    assert [s.id for s in plain] == ["00000/000", "00000/002", "00000/001", "00000/003"]


def test_captions_and_columns_of_an_image_folder(folder: Path) -> None:
    write(folder, {"a.png": GOOD, "in/b.png": OTHER, "in/b.txt": "own", "in/metadata.jsonl":
                   '{"file_name": "b.png", "text": "listed", "id": 5, "path": "x"}'})  # fmt: skip
    write(folder, {"metadata.csv": 'file_name,text,n\na.png,"two\nlines",007\n'})
    first, second = read(folder)
    assert (first.caption, first.metadata) == ("two\nlines", {"path": "a.png", "n": "007"})
    assert second.caption == "own"
    assert second.metadata == {"path": "in/b.png", "text": "listed", "input_id": 5, "input_path": "x"}


def test_changed_metadata_change_the_fingerprint(folder: Path) -> None:
    write(folder, {"a.png": GOOD, "metadata.csv": "file_name,n\na.png,1\n"})
    before = open_input(str(folder)).shards[0].fingerprint()
    write(folder, {"metadata.csv": "file_name,n\na.png,2\n"})
    assert open_input(str(folder)).shards[0].fingerprint() != before
