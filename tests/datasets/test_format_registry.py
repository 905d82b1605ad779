"""A new format is one class, and the messages and the docs are made from the registered formats."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from inputs import GOOD, HTML, OTHER, write
from runs import table

from fairdedup.datasets import Dataset, open_input
from fairdedup.datasets.folder_shards import FolderShard, Listed
from fairdedup.datasets.format_registry import (
    describe_files,
    describe_folders,
    describe_shards,
    formats,
    register,
    render_table,
    unregister,
)
from fairdedup.datasets.images import IMAGE_EXTENSIONS
from fairdedup.datasets.input_format import DocumentedInput, InputFormat, InputSource, ReadOptions, ShardFormat
from fairdedup.errors import UserError

DOCS = (Path(__file__).parents[2] / "docs" / "inputs.md").read_text(encoding="utf-8")


class ImageList(ShardFormat):
    """Text files that name images, one per line."""

    name = "image-list"
    file_title = "a .list of images"
    folder_title = "lists of images"
    extensions = (".list",)
    in_patterns = True
    documentation = (DocumentedInput("a `.list` of images", "the images that it names", "relative path"),)
    images_are_named = True

    def names_images(self, source: InputSource, shards: list[str], options: ReadOptions) -> bool:
        return self.images_are_named

    def open_files(self, source: InputSource, paths: list[str], options: ReadOptions) -> Dataset:
        shards = []
        for path in paths:
            folder, name = posixpath.split(path)
            with source.fs.open(path, "rt") as file:
                shards.append(FolderShard(source.fs, folder, name, tuple(Listed(line.strip()) for line in file)))
        return Dataset("images", self.name, source.text, tuple(shards))


@pytest.fixture
def image_list() -> Iterator[None]:
    register(ImageList())
    yield
    unregister(ImageList.name)


@pytest.fixture
def lists(folder: Path, image_list: None) -> Path:
    """Return a folder of two lists; the images that they name are in a sub-folder."""
    write(folder, {"a.list": "in/1.png\nin/2.png\n", "b.list": "in/bad.png\nin/none.png\n"})
    return write(folder, {"in/1.png": GOOD, "in/2.png": OTHER, "in/bad.png": HTML})


def message(source: Path | str, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        open_input(str(source), **options)
    return str(caught.value)


@pytest.mark.parametrize("given", ["", "/*", "/{a,b}.list"], ids=["folder", "glob", "braces"])
def test_a_format_of_one_class_is_read_as_a_folder_and_by_patterns(given: str, lists: Path) -> None:
    dataset = open_input(f"{lists}{given}")
    assert (dataset.format, [shard.name for shard in dataset.shards]) == ("image-list", ["a.list", "b.list"])
    assert [sample.id for sample in dataset.shards[0].read()] == ["in/1.png", "in/2.png"]  # type: ignore[union-attr]
    assert open_input(lists / "a.list").shards == dataset.shards[:1]


def test_a_format_of_one_class_goes_through_every_stage(run: Any, lists: Path) -> None:
    counts = run(lists)["counts"]
    assert (counts["kept"], counts["rejected"]) == (2, 2)
    assert table(lists.parent / "run" / "kept")["id"].tolist() == ["in/1.png", "in/2.png"]
    assert table(lists.parent / "run" / "rejected")["id"].tolist() == ["in/bad.png", "in/none.png"]


def test_messages_list_what_is_registered(folder: Path) -> None:
    (folder / "notes.docx").write_bytes(b"")
    tars = "a .tar (.tar.gz, .tar.bz2, .tar.xz, .tar.zst) shard"
    arrays = "an .arrow file, an .npy file of embeddings, an .npz file of embeddings"
    files = f"{tars}, a .parquet file, {arrays}, a .zip of images"
    folders = "images, img_emb/, tar shards, Parquet files, Arrow files, .npy files, .npz files or zip archives"
    tars = ".tar, .tar.gz, .tgz, .tar.bz2, .tbz2, .tbz, .tar.xz, .txz, .tar.zst, .tzst"
    endings = f"{tars}, .parquet, .pq, .arrow, .npy, .npz or .zip"
    assert (", ".join(describe_files()), describe_folders(), describe_shards()) == (files, folders, endings)
    unknown = f"is a file of unknown kind: give {files}, or a folder of {folders}"
    assert message(folder / "notes.docx") == f"{str(folder / 'notes.docx')!r} {unknown}"
    assert f"give a folder with {folders} in it" in message(folder)
    assert f"it must name images, or files that end in {endings}" in message(folder / "x-*")


def test_a_new_format_is_in_every_message(lists: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (lists / "notes.docx").write_bytes(b"")
    assert "a .zip of images, a .list of images, or a folder of" in message(lists / "notes.docx")
    assert ".npy files, .npz files, zip archives or lists of images" in message(lists / "notes.docx")
    assert ".npy, .npz, .zip or .list" in message(lists / "x-*")
    assert message(lists, column="c").startswith(
        f"--column 'c' is for tar shards, Parquet files, Arrow files or .npz files, and {str(lists)!r} is none"
    )
    write(lists, {"c.png": GOOD})
    monkeypatch.setattr(ImageList, "images_are_named", False)
    assert "holds 2 lists of images and 4 images: give" in message(lists) and "/*.list'" in message(lists)
    write(lists, {"a.tar": b""})
    assert "names tar shards and files of another kind such as 'a.list'" in message(lists / "a.*")


def test_the_table_of_inputs_in_the_docs_is_rendered_from_the_formats(image_list: None) -> None:
    assert "| a `.list` of images | the images that it names | relative path |\n" in render_table()
    unregister(ImageList.name)
    assert render_table() in DOCS.split("## The table")[1].split("\n## ")[0], f"paste this table:\n{render_table()}"
    assert DOCS.count("| INPUT | what is read | id |") == 1
    assert f"| {', '.join(IMAGE_EXTENSIONS)}, in sub-folders too" in DOCS


def test_every_format_is_registered_once_and_documented(image_list: None) -> None:
    names = [known.name for known in formats()]
    assert names == ["folder", "clip-retrieval", "webdataset", "parquet", "arrow", "npy", "npz", "zip", "image-list"]
    assert all(known.documentation for known in formats())
    with pytest.raises(ValueError, match="'image-list' is registered already"):
        register(ImageList())
    assert [known.name for known in formats()] == names


def test_no_two_formats_claim_the_same_extension() -> None:
    endings = [ending for known in formats() for ending in known.extensions]
    assert len(endings) == len(set(endings)) and all(ending.startswith(".") for ending in endings)


def test_a_fallback_is_tried_last_wherever_it_is_registered(folder: Path) -> None:
    assert [known.name for known in formats() if known.is_fallback] == ["folder"] == [formats()[0].name]
    write(folder, {"a.png": GOOD})
    (folder / "img_emb").mkdir()
    assert "holds no img_emb_0.npy" in message(folder)


def test_every_format_describes_itself() -> None:
    for known in formats():
        assert isinstance(known, InputFormat) and type(known).__doc__ and known.name
        assert known.file_title or known.folder_title
