"""A folder of images: captions, links, files that cannot be read, fingerprints."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pyarrow as pa
import pytest
from reading import (
    PNG,
    clip_retrieval,
    ids_of,
    mistake,
    samples_of,
    touch,
    write_tar,
)

from fairdedup.datasets import folder_shards, open_input


def test_folder_gives_relative_paths_captions_and_bytes(tmp_path):
    touch(tmp_path / "b/10.jpg", b"ten")
    touch(tmp_path / "b/9.PNG", b"nine")
    touch(tmp_path / "b/9.txt", "\ufeff a caf\u00e9\n".encode())
    touch(tmp_path / "a.webp", b"a")
    touch(tmp_path / "a.txt", b"  \n")
    touch(tmp_path / ".hidden.png")
    touch(tmp_path / ".git/x.png")
    touch(tmp_path / "readme.md")
    dataset = open_input(str(tmp_path))
    assert (dataset.kind, dataset.format, dataset.source) == ("images", "folder", str(tmp_path))
    assert [(s.position, s.id, s.image, s.caption, s.metadata, s.source, s.error) for s in samples_of(tmp_path)] == [
        (0, "a.webp", b"a", None, {"path": "a.webp"}, "a.webp", None),
        (1, "b/9.PNG", b"nine", "a café", {"path": "b/9.PNG"}, "b/9.PNG", None),
        (2, "b/10.jpg", b"ten", None, {"path": "b/10.jpg"}, "b/10.jpg", None),
    ]
    assert [s.id for s in samples_of(tmp_path, id_from="shard/key")] == ["a.webp", "b/9.PNG", "b/10.jpg"]


def test_every_image_extension_is_read_whatever_its_case(tmp_path):
    for kind in ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif"):
        touch(tmp_path / f"{kind}.{kind}")
        touch(tmp_path / f"{kind}-2.{kind.upper()}")
    touch(tmp_path / "no.mp4", b"")
    assert len(samples_of(tmp_path)) == 18


def test_folder_is_cut_into_shards_of_a_thousand_files(tmp_path):
    for number in range(2001):
        touch(tmp_path / f"{number}.jpg", b"")
    shards = open_input(str(tmp_path)).shards
    assert [shard.name for shard in shards] == ["files-00000", "files-00001", "files-00002"]
    read = [[sample.id for sample in shard.read()] for shard in shards]
    assert [len(ids) for ids in read] == [1000, 1000, 1]
    assert list(itertools.chain(*read)) == [f"{number}.jpg" for number in range(2001)]
    assert [s.position for s in shards[2].read()] == [0]


def test_the_error_for_a_folder_without_images_lists_its_files(tmp_path):
    assert "holds no files: give a folder" in mistake(tmp_path)
    for name in ("a.pdf", "b.pdf", "c.CSV", "d/README"):
        touch(tmp_path / name, b"text")
    message = mistake(tmp_path)
    assert "holds no images, but 2 '.pdf', 1 '.csv', 1 'without extension': give a folder with images" in message
    for number in range(4):
        touch(tmp_path / f"x.k{number}", b"text")
    assert "and 2 other kinds" in mistake(tmp_path)


def test_shards_further_down_are_read_and_embeddings_further_down_are_pointed_to(tmp_path):
    write_tar(tmp_path / "tars/sub/a.tar", [("0.png", PNG)])
    assert (
        [s.id for s in samples_of(tmp_path / "tars")]
        == [s.id for s in samples_of(f"{tmp_path}/tars/**/*.tar")]
        == ["0"]
    )
    clip_retrieval(tmp_path / "out/run 1", {"0": 2})
    assert f"give '{tmp_path}/out/run 1'" in mistake(tmp_path / "out")
    assert ids_of(tmp_path / "out/run 1") == ["key0", "key1"]
    clip_retrieval(tmp_path / "out/run 2", {"0": 2})
    pattern = f"{tmp_path}/out/{{run 1,run 2}}"
    assert f"give {pattern!r}" in mistake(tmp_path / "out")
    assert ids_of(pattern, id_from="shard/key") == [f"run {k}/img_emb_0/key{n}" for k in (1, 2) for n in (0, 1)]


def test_links_are_followed_but_not_round_in_a_circle(tmp_path):
    touch(tmp_path / "data/a/1.png")
    (tmp_path / "data/a/loop").symlink_to(tmp_path / "data")
    (tmp_path / "data/b").symlink_to(tmp_path / "data/a")
    assert [s.id for s in samples_of(tmp_path / "data")] == ["a/1.png", "b/1.png"]


def test_files_that_cannot_be_read_are_rejected_not_dropped(tmp_path, monkeypatch):
    touch(tmp_path / "0.png")
    (tmp_path / "1.png").symlink_to(tmp_path / "gone.png")
    os.mkfifo(tmp_path / "2.png")
    (tmp_path / "3.png").symlink_to(tmp_path / "3.png")
    touch(tmp_path / "4.png", b"")
    touch(tmp_path / "5.png", b"12345")
    os.mkfifo(tmp_path / "0.txt")
    monkeypatch.setattr(folder_shards, "MAX_IMAGE_BYTES", 4)
    touch(tmp_path / "0.png", b"1234")
    read = samples_of(tmp_path)
    assert [s.position for s in read] == list(range(6))
    assert [s.error for s in read] == [
        None,
        "file is missing or a broken link",
        "not a plain file",
        "link that leads nowhere",
        None,
        "file larger than 0 MiB",
    ]
    assert [s.image for s in read] == [b"1234", None, None, None, b"", None]
    assert read[0].caption is None and read[0].metadata["caption_error"] == "not a plain file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_files_are_rejected_and_forbidden_folders_refused(tmp_path):
    touch(tmp_path / "a.png").chmod(0)
    assert samples_of(tmp_path)[0].error == "file may not be read: permission denied"
    touch(tmp_path / "closed/b.png")
    (tmp_path / "closed").chmod(0)
    try:
        assert "cannot be read: check its permissions" in mistake(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o700)


def test_a_file_name_that_is_not_utf8_becomes_valid_text(tmp_path):
    try:
        touch(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")), b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    sample = samples_of(tmp_path)[0]
    assert (sample.id, sample.image) == ("caf\\udce9.png", b"x")
    pa.array([sample.id, sample.source, sample.metadata["path"]])


def test_folder_fingerprint_follows_every_file(tmp_path):
    touch(tmp_path / "a.png", b"1")
    touch(tmp_path / "a.txt", b"1")

    def fingerprint() -> str:
        return open_input(str(tmp_path)).shards[0].fingerprint()

    seen = [fingerprint()]
    assert fingerprint() == seen[0]
    touch(tmp_path / "a.png", b"22")
    seen.append(fingerprint())
    touch(tmp_path / "a.txt", b"22")
    seen.append(fingerprint())
    os.utime(tmp_path / "a.png", (1, 1))
    seen.append(fingerprint())
    (tmp_path / "a.png").rename(tmp_path / "b.png")
    seen.append(fingerprint())
    assert len(set(seen)) == 5


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_caption_is_read_by_its_byte_order_mark(encoding, tmp_path):
    touch(tmp_path / "a.png", PNG)
    touch(tmp_path / "a.txt", "a café\n".encode(encoding))
    (sample,) = samples_of(tmp_path)
    assert (sample.caption, sample.metadata) == ("a café", {"path": "a.png"})


@pytest.mark.parametrize("data", ["a café".encode("latin-1"), "a café".encode("utf-16")[:-1]])
def test_bytes_of_a_caption_that_are_no_text_are_noted(data, tmp_path):
    touch(tmp_path / "a.png", PNG)
    touch(tmp_path / "a.txt", data)
    (sample,) = samples_of(tmp_path)
    assert sample.caption == "a caf\ufffd"
    assert sample.metadata["caption_error"] == "bytes that are not text were replaced"


def test_bytes_of_a_class_that_are_no_text_are_noted(tmp_path):
    for key, label in {
        "a": "café".encode("latin-1"),
        "b": "7".encode("utf-16"),
        "c": b"\xff\xfe\xfd",
        "d": b" ",
    }.items():
        touch(tmp_path / f"{key}.png", PNG)
        touch(tmp_path / f"{key}.cls", label)
    touch(tmp_path / "a.json", b'{"cls_error": "theirs"}')
    found = [{k: v for k, v in sample.metadata.items() if k != "path"} for sample in samples_of(tmp_path)]
    replaced = {"cls_error": "bytes that are not text were replaced"}
    assert found == [
        {"json_cls_error": "theirs", "cls": "caf\ufffd"} | replaced,
        {"cls": 7},
        {"cls": "\ufffd"} | replaced,
        {},
    ]
