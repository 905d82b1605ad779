"""The readers: every format from real little files, hostile ones among them."""

from __future__ import annotations

import io
import itertools
import logging
import os
import pickle
import random
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fairdedup.datasets import Sample, folder, images, npy, open_input, patterns, sidecars, webdataset
from fairdedup.datasets.filesystem import natural_key, plain_text
from fairdedup.datasets.images import BadImage, decode
from fairdedup.errors import UserError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(colour: tuple[int, ...] = RED, size: tuple[int, int] = (4, 3)) -> Image.Image:
    return Image.new("RGB" if len(colour) == 3 else "RGBA", size, colour)


PNG = encoded(picture())


def write_tar(path: Path, members: list[tuple[str | tarfile.TarInfo, bytes]], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, data in members:
            header = tarfile.TarInfo(name) if isinstance(name, str) else name
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return path


def samples_of(source: Path | str, **options: Any) -> list[Sample]:
    return [sample for shard in open_input(str(source), **options).shards for sample in shard.read()]


def mistake(source: Path | str, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        open_input(str(source), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def touch(path: Path, data: bytes = PNG) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# What is not an input at all


def test_mistakes_name_the_value_and_the_mend(tmp_path):
    assert mistake(tmp_path / "nowhere") == f"no such file or folder: '{tmp_path}/nowhere'; check the path"
    assert "id_from is 'row': choose 'key' or 'shard/key'" in mistake(tmp_path, id_from="row")
    assert "input is ''" in mistake("")
    assert "input is 'a\\x00b'" in mistake("a\0b")
    assert "'gopher://x/y'" in mistake("gopher://x/y") and "check the part before '://'" in mistake("gopher://x")
    unknown = mistake(touch(tmp_path / "notes.docx"))
    assert "notes.docx' is a file of unknown kind: give a .tar" in unknown and ".npy" in unknown
    assert "single image: give the folder" in mistake(touch(tmp_path / "one.JPG"))


def test_a_path_with_a_line_break_still_gives_one_line(tmp_path):
    assert "a\\nb" in mistake(tmp_path / "a\nb")


def test_reading_inputs_loads_neither_torch_nor_pandas():
    code = "import sys, fairdedup.datasets; print([m for m in ('torch', 'pandas') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@given(st.lists(st.text(alphabet="a01289/.²٣", max_size=8)))
def test_natural_order_is_total_and_does_not_depend_on_the_listing(names):
    expected = sorted(names, key=natural_key)
    assert sorted(reversed(names), key=natural_key) == expected


def test_natural_order():
    names = ["10.jpg", "9.jpg", "b", "a10/1", "a9/2", "01", "1"]
    assert sorted(names, key=natural_key) == ["01", "1", "9.jpg", "10.jpg", "a9/2", "a10/1", "b"]


# A folder of images


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
    touch(tmp_path / "no.heic")
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


def test_folder_without_images_says_what_it_holds(tmp_path):
    assert "holds no files: give a folder" in mistake(tmp_path)
    for name in ("a.pdf", "b.pdf", "c.CSV", "d/README"):
        touch(tmp_path / name)
    message = mistake(tmp_path)
    assert "holds no images, but 2 '.pdf', 1 '.csv', 1 'without extension': give a folder with images" in message
    for number in range(4):
        touch(tmp_path / f"x.k{number}")
    assert "and 2 other kinds" in mistake(tmp_path)


def test_folder_with_shards_or_embeddings_further_down_points_there(tmp_path):
    write_tar(tmp_path / "sub/a.tar", [("0.png", PNG)])
    pattern = f"{tmp_path}/**/*.tar"
    assert f"for shards in its sub-folders give the pattern '{pattern}'" in mistake(tmp_path)
    assert [s.id for s in samples_of(pattern)] == ["0"]
    np.save(touch(tmp_path / "other/e.npy"), np.ones((2, 2)))
    assert "give one .npy file or the folder that holds img_emb/" in mistake(tmp_path / "other")


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
    monkeypatch.setattr(folder, "MAX_IMAGE_BYTES", 4)
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
        assert "may not be read: check its permissions" in mistake(tmp_path)
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


# WebDataset


def test_webdataset_groups_members_by_key(tmp_path):
    tar = write_tar(
        tmp_path / "shard-00000.tar",
        [
            ("a/b.c.jpg", b"compound"),
            (
                "000.json",
                b'{"caption": "from json", "width": 3, "id": 7, "tags": ["x"], "ok": true, "n": null}',
            ),
            ("000.jpg", b"plain"),
            ("000.txt", b" from \xff txt\n"),
            ("001.json", b'{"caption": " only json "}'),
            ("001.JPEG", b"upper"),
            ("002.txt", b"no picture"),
            ("003.mask.png", b"mask"),
            ("003.png", b"picture"),
            ("003.cls", b"5"),
        ],
    )
    dataset = open_input(str(tar))
    assert (dataset.kind, dataset.format) == ("images", "webdataset")
    assert [shard.name for shard in dataset.shards] == ["shard-00000.tar"]
    read = samples_of(tar)
    assert [(s.position, s.id, s.image) for s in read] == [
        (0, "a/b", b"compound"),
        (1, "000", b"plain"),
        (2, "001", b"upper"),
        (3, "002", None),
        (4, "003", b"picture"),
    ]
    assert [s.caption for s in read] == [None, "from \ufffd txt", "only json", "no picture", None]
    assert read[1].metadata == {
        "width": 3,
        "json_id": 7,
        "tags": '["x"]',
        "ok": True,
        "n": None,
        "json_caption": "from json",
    }
    assert read[2].metadata == {}
    assert read[3].error == "no image member for key 002"
    assert [s.source for s in read[1:4]] == [
        "shard-00000.tar/000.jpg",
        "shard-00000.tar/001.JPEG",
        "shard-00000.tar/002",
    ]
    assert [s.id for s in samples_of(tar, id_from="shard/key")][:2] == ["shard-00000/a/b", "shard-00000/000"]


def test_a_folder_of_shards_is_read_in_natural_order(tmp_path):
    for number in (10, 2, 1):
        write_tar(tmp_path / f"d{number}.tar", [(f"{number}.png", PNG)])
    write_tar(tmp_path / "d3.tar.gz", [("3.png", PNG)], "w:gz")
    write_tar(tmp_path / ".d4.tar", [("4.png", PNG)])
    touch(tmp_path / "d1_stats.json", b"{}")
    assert [shard.name for shard in open_input(str(tmp_path)).shards] == [
        "d1.tar",
        "d2.tar",
        "d3.tar.gz",
        "d10.tar",
    ]
    assert [s.id for s in samples_of(tmp_path)] == ["1", "2", "3", "10"]
    assert [s.id for s in samples_of(tmp_path, id_from="shard/key")][2] == "d3/3"
    touch(tmp_path / "x.png")
    assert "holds 4 tar shards and 1 images: give" in mistake(tmp_path)


def test_braces_and_globs(tmp_path):
    for number in range(12):
        write_tar(tmp_path / f"data-{number:05d}.tar", [(f"{number}.png", PNG)])
    touch(tmp_path / "data-notes.txt")
    assert [s.id for s in samples_of(f"{tmp_path}/data-{{00000..00011}}.tar")] == [str(n) for n in range(12)]
    assert [s.id for s in samples_of(f"{tmp_path}/data-{{00011,00002}}.tar")] == ["2", "11"]
    assert [s.id for s in samples_of(f"{tmp_path}/data-*")] == [str(n) for n in range(12)]
    assert [s.id for s in samples_of(f"{tmp_path}/data-0000{{1,2}}.*ar")] == ["1", "2"]
    assert [s.id for s in samples_of(f"{tmp_path}/data-0000[3-4].tar")] == ["3", "4"]


def test_braces_in_the_name_of_a_real_file_are_no_pattern(tmp_path):
    tar = write_tar(tmp_path / "a{1..2}[x]*.tar", [("k.png", PNG)])
    assert [s.id for s in samples_of(tar)] == ["k"]


def test_wrong_patterns_are_named(tmp_path, monkeypatch):
    write_tar(tmp_path / "d-0.tar", [("0.png", PNG)])
    write_tar(tmp_path / "d-2.tar", [("0.png", PNG)])
    message = mistake(f"{tmp_path}/d-{{0..2}}.tar")
    assert f"shard '{tmp_path}/d-1.tar' of" in message and "is missing (2 of 3 are there)" in message
    assert f"shard '{tmp_path}/e-00007.tar' of" in mistake(f"{tmp_path}/e-{{00007..00009}}.tar")
    assert "no tar shard or Parquet file matches" in mistake(f"{tmp_path}/e-*.tar")
    assert "do not match" in mistake(f"{tmp_path}/d-{{0..2.tar")
    assert "'x.zip', not a shard" in mistake(f"{tmp_path}/{{x,y}}.zip")
    for huge in ("{0..99999999999}", "{0..9999999999999999999999}"):
        assert "over 1,000,000 shards" in mistake(f"{tmp_path}/d-{huge}.tar")
    monkeypatch.setattr(patterns, "MAX_SHARDS", 1000)
    assert "names over 1,000 shards" in mistake(f"{tmp_path}/d-{{0..99}}{{0..99}}.tar")


def test_shards_of_one_name_in_two_folders_keep_names_apart(tmp_path):
    write_tar(tmp_path / "en/0.tar", [("a.png", PNG)])
    write_tar(tmp_path / "fr/0.tar", [("a.png", PNG)])
    assert [shard.name for shard in open_input(f"{tmp_path}/*/0.tar").shards] == ["en/0.tar", "fr/0.tar"]
    assert [s.id for s in samples_of(f"{tmp_path}/*/0.tar", id_from="shard/key")] == ["en/0/a", "fr/0/a"]


def test_hostile_member_names_are_only_text(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    before = sorted(tmp_path.rglob("*"))
    link, device, directory = tarfile.TarInfo("l.png"), tarfile.TarInfo("d.png"), tarfile.TarInfo("dir.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    hard = tarfile.TarInfo("h.png")
    hard.type, hard.linkname = tarfile.LNKTYPE, "../../evil.png"
    device.type, directory.type = tarfile.CHRTYPE, tarfile.DIRTYPE
    names = [
        "../../evil.png",
        "/etc/evil.png",
        "<script>.png",
        "a\nb.png",
        "caf\udce9.png",
        "x" * 300 + ".png",
    ]
    tar = write_tar(
        tmp_path / "t.tar",
        [(link, b""), (hard, b""), (device, b""), (directory, b"")]
        + [(name, PNG) for name in names]
        + [(name, PNG) for name in ("noext", ".hidden.png", "a/._b.png", "..png")],
    )
    read = samples_of(tar)
    expected = ["../../evil", "/etc/evil", "<script>", "a\nb", "caf\\udce9", "x" * 300]
    assert [(s.id, s.image) for s in read] == [(name, PNG) for name in expected]
    pa.array([s.id for s in read] + [s.source for s in read])
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tar])


def test_json_beside_an_image_never_costs_the_image(tmp_path):
    wide = 2**64
    bad = {
        "list": b"[1, 2]",
        "cut": b'{"a": ',
        "bytes": b'{"a": "\xff"}',
        "deep": b"[" * 100_000,
        "digits": b'{"a": ' + b"9" * 5000 + b"}",
        "large": b'{"a": "' + b"x" * sidecars.MAX_TEXT_BYTES + b'"}',
    }
    members = [
        ("good.png", PNG),
        ("good.json", b'{"big": %d, "half": "\\ud800", "nested": {"a": [1]}}' % wide),
    ]
    for key, text in bad.items():
        members += [(f"{key}.png", PNG), (f"{key}.json", text)]
    read = {s.id: s for s in samples_of(write_tar(tmp_path / "t.tar", members))}
    assert all(s.image == PNG and s.error is None for s in read.values())
    assert read["good"].metadata == {"big": str(wide), "half": "\\ud800", "nested": '{"a": [1]}'}
    pa.Table.from_pylist([read["good"].metadata])
    reasons = {key: read[key].metadata["json_error"] for key in bad}
    assert reasons == {
        "list": "not a JSON object but list",
        "cut": "not JSON: Expecting value at character 6",
        "bytes": "not JSON: unreadable text or number",
        "deep": "not JSON: nested too deep",
        "digits": "not JSON: unreadable text or number",
        "large": "larger than 1 MiB, or cut off",
    }


def test_a_caption_too_long_costs_the_caption_only(tmp_path):
    long = b"x" * (sidecars.MAX_TEXT_BYTES + 1)
    sample = samples_of(write_tar(tmp_path / "t.tar", [("a.png", PNG), ("a.txt", long)]))[0]
    assert (sample.image, sample.caption, sample.metadata) == (
        PNG,
        None,
        {"caption_error": "larger than 1 MiB, or cut off"},
    )


def test_one_member_twice_is_rejected_because_one_would_be_lost(tmp_path):
    read = samples_of(write_tar(tmp_path / "t.tar", [("a.png", b"1"), ("a.png", b"2"), ("b.png", b"3")]))
    assert [(s.id, s.image, s.error) for s in read] == [
        ("a", None, "two members named a.png"),
        ("b", b"3", None),
    ]


def test_an_image_of_impossible_size_is_rejected_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(webdataset, "MAX_IMAGE_BYTES", 1 << 20)
    tar = write_tar(tmp_path / "t.tar", [("a.png", b"x" * ((1 << 20) + 1)), ("b.png", PNG)])
    assert [s.error for s in samples_of(tar)] == ["image larger than 1 MiB", None]


def sparse_bomb(tmp_path: Path) -> Path:
    """Write a GNU sparse member of 4 GiB that takes one header, then a good sample."""
    header = bytearray(tarfile.TarInfo("bomb.png").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[483:495] = b"%011o\0" % (1 << 32)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    good = io.BytesIO()
    with tarfile.open(fileobj=good, mode="w") as archive:
        info = tarfile.TarInfo("good.png")
        info.size = len(PNG)
        archive.addfile(info, io.BytesIO(PNG))
    return touch(tmp_path / "bomb.tar", bytes(header) + good.getvalue())


def test_a_sparse_member_of_gigabytes_is_not_read(tmp_path):
    assert [(s.id, s.error) for s in samples_of(sparse_bomb(tmp_path))] == [
        ("bomb", "image larger than 256 MiB"),
        ("good", None),
    ]


def three_samples(path: Path) -> Path:
    members = []
    for key in ("000", "001", "002"):
        members += [(f"{key}.png", bytes(1500)), (f"{key}.txt", b"text")]
    return write_tar(path, members)  # 4 blocks for an image and its header, 2 for a text: 3072 bytes a sample


@pytest.mark.parametrize(
    ("cut", "ids", "reason"),
    [
        (
            3072,
            ["000", "t.tar"],
            "damaged tar, in or after member 000.txt: cut off: no end-of-archive marker",
        ),
        (3072 + 100, ["000", "t.tar"], "damaged tar, in or after member 000.txt: truncated header"),
        (3072 + 600, ["000", "001"], "damaged tar, in or after member 001.png: unexpected end of data"),
        (
            3072 + 2562,
            ["000", "001", "t.tar"],
            "damaged tar, in or after member 001.txt: unexpected end of data",
        ),
        (3072 + 2100, ["000", "001", "t.tar"], "damaged tar, in or after member 001.png: truncated header"),
        (100, ["t.tar"], "damaged or not a tar file: truncated header"),
        (0, ["t.tar"], "damaged or not a tar file: empty file"),
    ],
)
def test_a_cut_off_tar_gives_what_is_whole_and_names_the_damage(tmp_path, cut, ids, reason):
    tar = three_samples(tmp_path / "t.tar")
    tar.write_bytes(tar.read_bytes()[:cut])
    read = samples_of(tar)
    assert [s.id for s in read] == ids
    assert [s.position for s in read] == list(range(len(ids)))
    assert all(s.error is None for s in read[:-1])
    assert (read[-1].image, read[-1].error) == (None, reason)


def test_a_broken_header_in_the_middle_is_not_taken_for_the_end(tmp_path):
    tar = three_samples(tmp_path / "t.tar")
    data = bytearray(tar.read_bytes())
    data[3072 + 10] ^= 1  # in the name of 001.png
    tar.write_bytes(data)
    read = samples_of(tar, id_from="shard/key")
    assert [s.id for s in read] == ["t/000", "t.tar"]
    assert read[-1].error == "damaged tar, in or after member 000.txt: bad checksum"


def test_joined_tars_are_not_read_by_half_in_silence(tmp_path):
    tar = three_samples(tmp_path / "t.tar")
    tar.write_bytes(tar.read_bytes() * 2)
    read = samples_of(tar)
    assert [s.id for s in read] == ["000", "001", "002", "t.tar"]
    assert "data after the end-of-archive marker, not read" in str(read[-1].error)


def test_what_is_no_tar_is_one_rejected_sample(tmp_path):
    for number, data in enumerate((b"<html>not found</html>" * 100, b"", b"\x1f\x8b\x08" + b"junk" * 400)):
        read = samples_of(touch(tmp_path / f"{number}.tar", data))
        assert [(s.id, s.image, s.source) for s in read] == [(f"{number}.tar", None, f"{number}.tar")]
        assert str(read[0].error).startswith("damaged or not a tar file: ")
        assert "html" not in str(read[0].error)


def test_an_empty_tar_has_no_samples(tmp_path):
    assert samples_of(write_tar(tmp_path / "t.tar", [])) == []


def test_a_damaged_compressed_tar_gives_what_is_whole(tmp_path):
    noise = random.Random(0).randbytes(4000)
    tar = write_tar(tmp_path / "t.tgz", [(f"{n}.png", noise) for n in range(50)], "w:gz")
    assert len(samples_of(tar)) == 50
    data = tar.read_bytes()
    tar.write_bytes(data[: len(data) // 2])
    cut = samples_of(tar)
    assert all(s.image == noise for s in cut[:-1]) and cut[-1].error
    tar.write_bytes(data[: len(data) // 2] + b"\xff" * 100)
    broken = samples_of(tar)
    assert all(s.image == noise for s in broken[:-1]) and "invalid compressed data" in str(broken[-1].error)


def test_a_compressed_tar_that_is_cut_off_in_its_header_is_one_rejection(tmp_path):
    header = b"\x1f\x8b\x08\x1c" + bytes(6) + b"\x04\x00abcdname\x00comment\x00"  # gzip with all that it may have
    for length in range(1, len(header) + 1):
        read = samples_of(touch(tmp_path / f"{length}.tgz", header[:length]))
        assert [(s.id, s.image) for s in read] == [(f"{length}.tgz", None)]
        assert str(read[0].error).startswith("damaged or not a tar file: ")


def test_no_change_of_bytes_makes_a_tar_reader_fail_or_hang(tmp_path):
    whole = three_samples(tmp_path / "t.tar").read_bytes()[:12_000]
    rng = random.Random(0)
    for _ in range(400):
        data = bytearray(whole)
        start = 512 * rng.randrange(18)
        for _ in range(rng.choice((1, 3))):
            data[start + rng.choice((rng.randrange(512), 124, 124 + rng.randrange(12), 156))] = rng.choice(
                b"\x80\xffgxLKS\x00"
            )
        data[start + 148 : start + 156] = b" " * 8
        data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
        read = samples_of(touch(tmp_path / "f.tar", data))
        assert [s.position for s in read] == list(range(len(read)))
        assert all((s.image is None) == (s.error is not None) for s in read)


def test_shards_travel_to_workers(tmp_path):
    tar = three_samples(tmp_path / "t.tar")
    shard = open_input(str(tar)).shards[0]
    copy = pickle.loads(pickle.dumps(shard))
    assert len(pickle.dumps(shard)) < 1000
    assert list(copy.read()) == list(shard.read())
    assert copy.fingerprint() == shard.fingerprint()
    os.utime(tar, (1, 1))
    assert copy.fingerprint() == shard.fingerprint()
    assert len(shard.fingerprint()) == 16


def test_a_fault_of_the_disk_is_not_a_bad_sample(tmp_path):
    shard = open_input(str(three_samples(tmp_path / "t.tar"))).shards[0]
    (tmp_path / "t.tar").unlink()
    with pytest.raises(FileNotFoundError):
        list(shard.read())


# Other file systems than the local one


def test_every_format_is_read_from_any_file_system(tmp_path):
    touch(tmp_path / "pictures/a/10.png", b"10")
    touch(tmp_path / "pictures/a/9.png", b"9")
    touch(tmp_path / "pictures/a/9.txt", b"nine")
    for number in range(3):
        write_tar(tmp_path / f"tars/{number}.tar", [(f"{number}.png", PNG)])
    clip_retrieval(tmp_path / "clip", {"0": 2})
    np.save(tmp_path / "e.npy", np.ones((2, 2)))
    (tmp_path / "e.ids.txt").write_text("x\ny\n")
    root = f"memory://{tmp_path.name}"
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path), tmp_path.name, recursive=True)
    try:
        assert [(s.id, s.image, s.caption) for s in samples_of(f"{root}/pictures")] == [
            ("a/9.png", b"9", "nine"),
            ("a/10.png", b"10", None),
        ]
        for tars in ("tars", "tars/*.tar", "tars/{0..2}.tar"):
            assert [s.id for s in samples_of(f"{root}/{tars}")] == ["0", "1", "2"]
        assert "is missing (3 of 4 are there)" in mistake(f"{root}/tars/{{0..3}}.tar")
        for source, ids in (("clip", ["key0", "key1"]), ("e.npy", ["x", "y"])):
            shard = open_input(f"{root}/{source}").shards[0]
            assert shard.vectors().shape[0] == 2 and shard.metadata().column("id").to_pylist() == ids
            assert shard.fingerprint() == open_input(f"{root}/{source}").shards[0].fingerprint()
        assert "no such file or folder: 'memory://" in mistake(f"{root}/none")
    finally:
        memory.rm(tmp_path.name, recursive=True)


# clip-retrieval


def clip_retrieval(root: Path, rows: dict[str, int], columns: tuple[str, ...] = ("key", "caption")) -> Path:
    (root / "img_emb").mkdir(parents=True)
    for number, count in rows.items():
        start = 100 * int(number)
        np.save(root / f"img_emb/img_emb_{number}.npy", np.full((count, 3), start, np.float16))
        if columns:
            (root / "metadata").mkdir(exist_ok=True)
            table = pa.table({name: [f"{name}{start + row}" for row in range(count)] for name in columns})
            pq.write_table(table, root / f"metadata/metadata_{number}.parquet")
    return root


def test_clip_retrieval_is_read_in_the_order_of_its_numbers(tmp_path):
    dataset = open_input(str(clip_retrieval(tmp_path, {"10": 2, "9": 3})))
    assert (dataset.kind, dataset.format) == ("embeddings", "clip-retrieval")
    assert [shard.name for shard in dataset.shards] == ["img_emb_9.npy", "img_emb_10.npy"]
    nine, ten = dataset.shards
    assert isinstance(nine.vectors(), np.memmap)
    assert nine.vectors().dtype == np.float16 and nine.vectors().tolist() == [[900.0] * 3] * 3
    assert ten.metadata().to_pydict() == {
        "id": ["key1000", "key1001"],
        "key": ["key1000", "key1001"],
        "caption": ["caption1000", "caption1001"],
    }
    assert ten.metadata().schema.field("id").type == pa.string()
    copy = pickle.loads(pickle.dumps(ten))
    assert copy.metadata() == ten.metadata() and copy.fingerprint() == ten.fingerprint() != nine.fingerprint()


@pytest.mark.parametrize(
    ("columns", "source"),
    [
        (("image_path", "key", "id", "uid"), "uid"),
        (("image_path", "key", "id"), "id"),
        (("image_path", "key"), "key"),
        (("image_path", "caption"), "image_path"),
    ],
)
def test_the_best_id_column_wins(tmp_path, columns, source):
    shard = open_input(str(clip_retrieval(tmp_path, {"0": 2}, columns))).shards[0]
    table = shard.metadata()
    assert table.column("id").to_pylist() == [f"{source}0", f"{source}1"]
    renamed = {"id": "input_id"} if source == "uid" else {}
    assert table.column_names == ["id"] + [renamed.get(n, n) for n in columns if (n, source) != ("id", "id")]
    if source == "uid":
        assert table.column("input_id").to_pylist() == ["id0", "id1"]


def test_without_ids_the_place_is_the_id(tmp_path):
    shards = open_input(str(clip_retrieval(tmp_path / "bare", {"0": 1, "1": 2}, ()))).shards
    assert [shard.metadata().to_pydict() for shard in shards] == [{"id": ["0-0"]}, {"id": ["1-0", "1-1"]}]
    shards = open_input(str(clip_retrieval(tmp_path / "url", {"4": 1}, ("url",)))).shards
    assert shards[0].metadata().to_pydict() == {"id": ["4-0"], "url": ["url400"]}


def test_shard_key_ids_of_embeddings(tmp_path):
    shard = open_input(str(clip_retrieval(tmp_path, {"7": 1})), id_from="shard/key").shards[0]
    assert shard.metadata().column("id").to_pylist() == ["img_emb_7/key700"]


def test_integer_ids_become_text_and_bad_ones_are_named(tmp_path):
    root = clip_retrieval(tmp_path, {"0": 2}, ())
    (root / "metadata").mkdir()
    path = root / "metadata/metadata_0.parquet"
    for column, expected in (
        (pa.array([12, 7]), ["12", "7"]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
        (
            pa.array([b"\0" * 15 + b"\1", b"\0" * 15 + b"\2"], pa.binary(16)),
            [f"{'0' * 8}-0000-0000-0000-{k:012}" for k in (1, 2)],
        ),
        (pa.array(["a", None]), "has 1 empty rows: fill them"),
        (pa.array([[1], [2]]), "is list<element: int64>, not text"),
        (pa.array([b"\xff", b"a"]), "is binary, not text"),
    ):
        pq.write_table(pa.table({"uid": column}), path)
        shard = open_input(str(root)).shards[0]
        if isinstance(expected, list):
            assert shard.metadata().column("id").to_pylist() == expected
        else:
            with pytest.raises(UserError, match="id column 'uid' of .*metadata_0.parquet") as caught:
                shard.metadata()
            assert expected in str(caught.value)


def test_clip_retrieval_mistakes(tmp_path):
    (tmp_path / "none/img_emb").mkdir(parents=True)
    assert "holds no img_emb_0.npy" in mistake(tmp_path / "none")

    root = clip_retrieval(tmp_path / "rows", {"0": 2, "1": 2})
    pq.write_table(pa.table({"key": ["a"]}), root / "metadata/metadata_1.parquet")
    message = mistake(root)
    assert "img_emb_1.npy' has 2 rows but" in message and "metadata_1.parquet' has 1:" in message

    (root / "metadata/metadata_1.parquet").write_bytes(b"PAR1 no")
    assert "metadata_1.parquet' is not a readable Parquet file" in mistake(root)
    (root / "metadata/metadata_1.parquet").unlink()
    assert "metadata_1.parquet is missing, but" in mistake(root)
    (root / "img_emb/img_emb_1.npy").rename(root / "img_emb/img_emb_2.npy")
    (root / "metadata/metadata_0.parquet").rename(root / "metadata/metadata_2.parquet")
    (root / "img_emb/img_emb_0.npy").unlink()
    pq.write_table(pa.table({"key": ["a"]}), root / "metadata/metadata_3.parquet")
    assert "img_emb_3.npy is missing, but" in mistake(root)

    root = clip_retrieval(tmp_path / "width", {"0": 2, "1": 2})
    np.save(root / "img_emb/img_emb_1.npy", np.ones((2, 4)))
    assert "has 4 dimensions but" in mistake(root) and "has 3: keep them apart" in mistake(root)

    root = clip_retrieval(tmp_path / "columns", {"0": 1, "1": 1})
    pq.write_table(pa.table({"uid": ["a"]}), root / "metadata/metadata_1.parquet")
    assert "has id column 'uid' but" in mistake(root) and "has 'key': name it alike" in mistake(root)

    assert "has no rows" in mistake(clip_retrieval(tmp_path / "empty", {"0": 0}))


def test_an_empty_shard_among_others_is_read(tmp_path):
    empty, full = open_input(str(clip_retrieval(tmp_path, {"0": 0, "1": 2}))).shards
    assert empty.vectors().shape == (0, 3) and empty.metadata().num_rows == 0
    assert full.metadata().num_rows == 2


# One .npy


def test_npy_is_cut_into_shards_with_row_numbers_as_ids(tmp_path, monkeypatch):
    monkeypatch.setattr(npy, "SHARD_ROWS", 4)
    vectors = np.arange(20, dtype=np.float32).reshape(10, 2)
    np.save(tmp_path / "e.npy", vectors)
    dataset = open_input(str(tmp_path / "e.npy"))
    assert (dataset.kind, dataset.format) == ("embeddings", "npy")
    assert [shard.name for shard in dataset.shards] == ["e.npy-00000", "e.npy-00001", "e.npy-00002"]
    assert all(isinstance(shard.vectors(), np.memmap) for shard in dataset.shards)
    assert np.concatenate([shard.vectors() for shard in dataset.shards]).tolist() == vectors.tolist()
    assert [shard.metadata().to_pydict() for shard in dataset.shards][1] == {"id": ["4", "5", "6", "7"]}
    assert len({shard.fingerprint() for shard in dataset.shards}) == 3
    assert pickle.loads(pickle.dumps(dataset.shards[2])).vectors().tolist() == vectors[8:].tolist()


def iterate_ids(path: Path, **options: Any) -> list[str]:
    return [i for shard in open_input(str(path), **options).shards for i in shard.metadata().column("id").to_pylist()]


def test_npy_ids_from_the_files_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(npy, "SHARD_ROWS", 2)
    path = tmp_path / "e.npy"
    np.save(path, np.ones((5, 2), np.float16))
    pq.write_table(pa.table({"url": list("uvwxy"), "key": list("klmno")}), tmp_path / "e.parquet", row_group_size=3)
    assert iterate_ids(path) == list("klmno")
    assert iterate_ids(path, id_from="shard/key") == [f"e/{key}" for key in "klmno"]
    second = open_input(str(path)).shards[1].metadata()
    assert second.to_pydict() == {"id": ["m", "n"], "url": ["w", "x"], "key": ["m", "n"]}

    (tmp_path / "e.ids.txt").write_bytes("\ufeffé1\r\nb\nc\nd\ne".encode())
    assert iterate_ids(path) == ["é1", "b", "c", "d", "e"]
    assert open_input(str(path)).shards[2].metadata().to_pydict() == {"id": ["e"], "url": ["y"], "key": ["o"]}

    pairs = np.array([(1, 2), (3, 4), (5, 6), (7, 8), (2**64 - 1, 9)], dtype="u8,u8")
    for ids, expected in (
        (np.array(list("abcde")), list("abcde")),
        (np.array([b"a", b"b", b"c", b"d", b"e"]), list("abcde")),
        (np.arange(5), list("01234")),
        (
            pairs,
            [f"{high:032x}" for high in (2**64 + 2, 3 * 2**64 + 4, 5 * 2**64 + 6, 7 * 2**64 + 8)]
            + ["f" * 16 + "0" * 15 + "9"],
        ),
    ):
        np.save(tmp_path / "e.ids.npy", ids)
        assert iterate_ids(path) == expected


def test_npy_mistakes(tmp_path):
    path = tmp_path / "e.npy"
    for array, expected in (
        (np.ones(3), "has shape (3,): embeddings are 2-d"),
        (np.ones((2, 2, 2)), "has shape (2, 2, 2)"),
        (np.ones((2, 0)), "has shape (2, 0)"),
        (np.ones((2, 2), int), "holds int64: embeddings are float16, float32 or float64"),
        (np.ones((2, 2), complex), "holds complex128"),
        (np.array([[None, {}]]), "holds Python objects, which would need pickle"),
        (np.ones((0, 2)), "has no rows"),
    ):
        np.save(path, array, allow_pickle=True)
        assert expected in mistake(path) and "e.npy" in mistake(path)
    for data in (b"", b"\x93NUMPY", b"junk" * 100, pickle.dumps([1, 2]), b"\x93NUMPY\x03\x00" + bytes(40)):
        path.write_bytes(data)
        assert "e.npy' is not an .npy file: save it with numpy.save" in mistake(path)
    np.savez(tmp_path / "z.npz", np.ones((2, 2)))
    (tmp_path / "z.npz").rename(path)
    assert "is not an .npy file" in mistake(path)
    np.save(path, np.ones((10, 2)))
    path.write_bytes(path.read_bytes()[:-1])
    assert "is cut off at 287 of 288 bytes" in mistake(path)


def test_npy_ids_that_do_not_fit_are_named(tmp_path):
    path = tmp_path / "e.npy"
    np.save(path, np.ones((3, 2)))
    (tmp_path / "e.ids.txt").write_text("a\nb\n")
    assert "e.npy' has 3 rows but" in mistake(path) and "e.ids.txt' has 2:" in mistake(path)
    (tmp_path / "e.ids.txt").write_text("a\n\nc\n")
    assert "line 2 of" in mistake(path) and "is empty: give every row an id" in mistake(path)
    np.save(tmp_path / "e.ids.npy", np.array(["a", "b"]))
    assert "e.ids.npy' has 2:" in mistake(path)
    for ids in (np.ones(3), np.array([["a"]] * 3), np.array([None] * 3)):
        np.save(tmp_path / "e.ids.npy", ids, allow_pickle=True)
        assert "ids are a 1-d array of text or integers" in mistake(path)
    (tmp_path / "e.ids.npy").unlink()
    (tmp_path / "e.ids.txt").unlink()
    pq.write_table(pa.table({"uid": ["a"]}), tmp_path / "e.parquet")
    assert "e.parquet' has 1:" in mistake(path)


# Bytes to pixels


def colour_at(data: bytes, place: tuple[int, int] = (0, 0)) -> Any:
    image = decode(data)
    assert image.mode == "RGB" and type(image) is Image.Image
    return image.getpixel(place)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_give_their_colours(kind):
    assert colour_at(encoded(picture(GREEN), kind, **({"lossless": True} if kind == "WEBP" else {}))) == GREEN


@pytest.mark.parametrize("kind", ["JPEG", "AVIF", "MPO"])
def test_lossy_formats_give_nearly_their_colours(kind):
    found = colour_at(encoded(picture(BLUE, (32, 32)), kind, quality=95), (16, 16))
    assert np.abs(np.subtract(found, BLUE)).max() <= 6


def test_transparency_lies_on_white():
    assert colour_at(encoded(picture((255, 0, 0, 0)))) == WHITE
    half = colour_at(encoded(picture((0, 0, 0, 128))))
    assert half == (127, 127, 127)
    assert colour_at(encoded(Image.new("LA", (2, 2), (0, 0)))) == WHITE
    palette = picture(GREEN).quantize()
    assert colour_at(encoded(palette)) == GREEN
    assert colour_at(encoded(palette, transparency=palette.getpixel((0, 0)))) == WHITE
    assert colour_at(encoded(palette, "GIF", transparency=palette.getpixel((0, 0)))) == WHITE
    assert colour_at(encoded(picture(GREEN), transparency=GREEN)) == WHITE


def test_every_mode_becomes_rgb():
    assert colour_at(encoded(Image.new("1", (2, 2), 1))) == WHITE
    assert colour_at(encoded(Image.new("L", (2, 2), 77))) == (77, 77, 77)
    assert colour_at(encoded(Image.new("CMYK", (2, 2), (0, 255, 255, 0)), "TIFF")) == RED
    cmyk = colour_at(encoded(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG", quality=95))
    assert np.abs(np.subtract(cmyk, RED)).max() <= 6


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(kind):
    grey = np.array([[0, 257 * 10, 257 * 128, 65535]], np.uint16)
    found = np.asarray(decode(encoded(Image.fromarray(grey), kind)))
    assert found[0, :, 0].tolist() == [0, 10, 128, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.0, 255.0]], np.float32), [0, 100, 255]),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[np.nan, np.inf, 1.0]], np.float32), [0, 0, 255]),
        (np.array([[0, 100, 255]], np.int32), [0, 100, 255]),
        (np.array([[-70000, 0, 70000]], np.int32), [0, 128, 255]),
        (np.array([[-5, -5, -5]], np.int32), [0, 0, 0]),
    ],
)
def test_float_and_long_integer_grey_is_scaled(values, expected):
    assert np.asarray(decode(encoded(Image.fromarray(values), "TIFF")))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(kind, orientation):
    upright = Image.new("RGB", (32, 16), WHITE)
    upright.paste(RED, (0, 0, 16, 8))  # the upper left quarter
    undo = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    stored = upright
    for step in undo.get(orientation, []):
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encoded(stored, kind, exif=exif))
    assert image.size == (32, 16)
    difference = np.abs(np.asarray(image, int) - np.asarray(upright, int))
    assert difference[2:6, 2:14].max() < 60 and difference[10:, 18:].max() < 60  # well inside both colours


def test_damaged_exif_costs_the_rotation_only():
    data = encoded(picture(GREEN, (8, 4)), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\xff" * 20)
    assert decode(data).size == (8, 4)
    assert decode(encoded(picture(), "JPEG", exif=b"Exif\0\0" + b"junk" * 5)).size == (4, 3)
    exif = Image.Exif()
    exif[0x0112] = 99
    assert decode(encoded(picture(), "JPEG", exif=exif)).size == (4, 3)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_only_is_loaded(kind, monkeypatch):
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(
        picture(RED),
        kind,
        save_all=True,
        append_images=[picture(BLUE), picture(GREEN), picture(BLUE)],
        **options,
    )
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 4
        monkeypatch.setattr(type(image), "seek", lambda *_: pytest.fail("another frame"))
    assert colour_at(data) == RED


def test_odd_shapes_decode():
    assert decode(encoded(picture(size=(1, 1)))).size == (1, 1)
    assert decode(encoded(picture(size=(20_000, 1)))).size == (20_000, 1)
    assert decode(encoded(picture(size=(1, 20_000)), "JPEG")).size == (1, 20_000)


def reason(data: bytes) -> str:
    with pytest.raises(BadImage) as caught:
        decode(data)
    message = str(caught.value)
    assert "\n" not in message and "0x" not in message and len(message) < 60
    return message


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "GIF"])
def test_truncated_images_are_named_so(kind):
    data = encoded(NOISE, kind)
    assert reason(data[: len(data) * 2 // 3]) == f"truncated {kind} image"


@pytest.mark.parametrize("kind", ["WEBP", "AVIF"])
def test_formats_that_decode_at_once_are_damaged_when_cut(kind):
    data = encoded(NOISE, kind)
    assert reason(data[: len(data) * 2 // 3]) in {
        f"damaged {kind} image",
        "damaged image",
        "not a known image format",
    }


def test_what_is_no_image_is_named():
    assert reason(b"") == "empty file"
    assert reason(b"<!DOCTYPE html><title>secret</title>") == "HTML, XML or SVG, not an image"
    assert reason("\ufeff\n  <svg xmlns='x'/>".encode()) == "HTML, XML or SVG, not an image"
    assert reason(b"just text") == "not a known image format"
    assert reason(PNG[:10]) == "not a known image format"
    assert reason(pickle.dumps({"a": 1})) == "not a known image format"
    assert reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n") == "not a known image format"
    assert reason(encoded(picture(), "PPM")) == "not a known image format"


def png_of_size(width: int, height: int) -> bytes:
    head = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    chunk = len(head[4:]).to_bytes(4, "big") + head + zlib.crc32(head).to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n" + chunk + PNG[33:]


def test_bombs_are_refused_before_they_are_decoded(monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    for size in ((10_001, 10_000), (20_000, 10_000), (2**31 - 1, 2**31 - 1)):
        assert reason(png_of_size(*size)) == "more than 100 million pixels"
    monkeypatch.setattr(images, "MAX_IMAGE_BYTES", 10)
    assert reason(PNG) == "file larger than 0 MiB"


def test_a_shortage_of_memory_is_not_a_bad_image(monkeypatch):
    def short(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", short)
    with pytest.raises(MemoryError):
        decode(PNG)


def test_pillow_remarks_do_not_escape(recwarn, caplog):
    from PIL import PngImagePlugin

    bytes_transparency = encoded(picture(GREEN).convert("P"), transparency=b"\xff\x00" * 100)
    decode(bytes_transparency)
    text = PngImagePlugin.PngInfo()
    text.add(b"acTL", bytes(8))  # "Invalid APNG"
    decode(encoded(picture(), pnginfo=text))
    tiff = encoded(picture(), "TIFF")
    with pytest.raises(BadImage):
        decode(tiff[:60])
    assert not recwarn.list
    assert any(isinstance(h, logging.NullHandler) for h in logging.getLogger("PIL").handlers)


def test_no_change_of_bytes_makes_the_decoder_raise_anything_else():
    rng = random.Random(0)
    whole = [encoded(NOISE.resize((24, 24)), kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF")]
    outcomes = set()
    for _ in range(600):
        data = bytearray(rng.choice(whole))
        for _ in range(rng.choice((1, 3, 10))):
            data[rng.randrange(min(len(data), 400))] = rng.choice((0, 255, rng.randrange(256)))
        try:
            assert decode(bytes(data)).mode == "RGB"
        except BadImage as error:
            outcomes.add(str(error).split()[0])
    assert {"damaged", "not"} <= outcomes


def test_plain_text_leaves_valid_text_alone():
    assert plain_text("é\x00<b>\n") == "é\x00<b>\n"
