"""WebDataset tar shards: keys, patterns, hostile members and damage."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
from reading import (
    PNG,
    mistake,
    samples_of,
    three_samples,
    touch,
    write_tar,
)

from fairdedup.datasets import open_input, patterns, sidecars, tar_members


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
        "caption_error": "bytes that are not text were replaced",
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
    assert "holds 4 tar shards and 1 image: give" in mistake(tmp_path)


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
    assert "no shard matches" in mistake(f"{tmp_path}/e-*.tar")
    assert "do not match" in mistake(f"{tmp_path}/d-{{0..2.tar")
    assert "'x.rar', which is not a shard" in mistake(f"{tmp_path}/{{x,y}}.rar")
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
    link_read, *read = samples_of(tar)
    assert (link_read.id, link_read.image) == ("l", None)
    assert link_read.error == "symbolic link to /etc/passwd, which is not a file in the tar"
    expected = ["h", "../../evil", "/etc/evil", "<script>", "a\nb", "caf\\udce9", "x" * 300, "noext"]
    assert [(s.id, s.image) for s in read] == [(name, PNG) for name in expected]
    pa.array([s.id for s in read] + [s.source for s in read])
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tar])


def test_bad_json_never_rejects_its_image(tmp_path):
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
    monkeypatch.setattr(tar_members, "MAX_IMAGE_BYTES", 1 << 20)
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
    read = samples_of(tar, skip_damaged=True)
    assert [s.id for s in read] == ids
    assert [s.position for s in read] == list(range(len(ids)))
    assert all(s.error is None for s in read[:-1])
    assert (read[-1].image, read[-1].error) == (None, reason)


def test_a_broken_header_in_the_middle_is_not_taken_for_the_end(tmp_path):
    tar = three_samples(tmp_path / "t.tar")
    data = bytearray(tar.read_bytes())
    data[3072 + 10] ^= 1  # in the name of 001.png
    tar.write_bytes(data)
    read = samples_of(tar, id_from="shard/key", skip_damaged=True)
    assert [s.id for s in read] == ["t/000", "t.tar"]
    assert read[-1].error == "damaged tar, in or after member 000.txt: bad checksum"


def test_joined_tars_are_not_read_by_half_in_silence(tmp_path):
    tar = three_samples(tmp_path / "t.tar")
    tar.write_bytes(tar.read_bytes() * 2)
    read = samples_of(tar, skip_damaged=True)
    assert [s.id for s in read] == ["000", "001", "002", "t.tar"]
    assert "data after the end-of-archive marker, not read" in str(read[-1].error)


def test_a_file_that_is_not_a_tar_is_one_rejected_sample(tmp_path):
    for number, data in enumerate((b"<html>not found</html>" * 100, b"", b"\x1f\x8b\x08" + b"junk" * 400)):
        read = samples_of(touch(tmp_path / f"{number}.tar", data), skip_damaged=True)
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
    cut = samples_of(tar, skip_damaged=True)
    assert all(s.image == noise for s in cut[:-1]) and cut[-1].error
    tar.write_bytes(data[: len(data) // 2] + b"\xff" * 100)
    broken = samples_of(tar, skip_damaged=True)
    assert all(s.image == noise for s in broken[:-1]) and "invalid compressed data" in str(broken[-1].error)


def test_a_compressed_tar_that_is_cut_off_in_its_header_is_one_rejection(tmp_path):
    header = b"\x1f\x8b\x08\x1c" + bytes(6) + b"\x04\x00abcdname\x00comment\x00"  # gzip with all that it may have
    for length in range(1, len(header) + 1):
        read = samples_of(touch(tmp_path / f"{length}.tgz", header[:length]), skip_damaged=True)
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
        read = samples_of(touch(tmp_path / "f.tar", data), skip_damaged=True)
        assert [s.position for s in read] == list(range(len(read)))
        assert all((s.image is None) == (s.error is not None) for s in read)
