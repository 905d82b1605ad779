"""Metadata files of image folders, and img2dataset's table of downloads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from inputs import (
    GOOD,
    OTHER,
    downloaded,
    write,
)

from fairdedup.datasets import open_input
from fairdedup.datasets.labels import read_labels
from fairdedup.errors import UserError


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


def test_a_name_of_thousands_of_digits_is_sorted_as_a_number(folder: Path) -> None:
    names = ["9" * 5000, "1" + "0" * 5000, "2"]
    lines = "".join(f"{name}.png,1\n" for name in names)
    write(folder, {"a.png": GOOD, "metadata.csv": f"file_name,n\n{lines}"})
    assert [len(sample.id) for sample in read(folder)] == [5, 5004, 5005, 5]


def test_many_columns_take_no_time_or_are_refused(folder: Path) -> None:
    """A search for each name among all others took minutes."""
    many = ",".join(f"c{k}" for k in range(100_000))
    write(folder, {"a.png": GOOD, "metadata.csv": f"file_name,{many}\na.png\n"})
    with pytest.raises(UserError, match=r"metadata.csv' has 100,001 columns: give at most 10,000"):
        read(folder)
    (folder / "labels.csv").write_text(f"id,{many}\na\n")
    assert len(read_labels(folder / "labels.csv", None).attributes) == 100_000
    write(folder, {"metadata.csv": "file_name" + ",n" * 3 + ",n_\na.png,1,2,3,4\n"})
    assert read(folder)[0].metadata == {"path": "a.png", "n": 1, "n_": 2, "n__": 3, "n___": 4}
