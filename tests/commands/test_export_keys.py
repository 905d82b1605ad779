"""Keys of samples and the bytes of tar files: what tarfile writes, and what WebDataset reads back."""

from __future__ import annotations

import io
import re
import tarfile
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from runs import (
    picture,
)

from fairdedup.datasets.keys import make_key
from fairdedup.datasets.originals import detect_extension
from fairdedup.datasets.tar import DamagedTar, Tar
from fairdedup.datasets.tar_contents import Spool
from fairdedup.datasets.tar_streams import is_tar_header
from fairdedup.storage.seals import seal
from fairdedup.storage.tar_writer import ShardWriter, header


@given(st.lists(st.text(max_size=12) | st.text("a./%2E\\\n", max_size=12), unique=True, min_size=1))
@example(["a.b", "a%2Eb", "a%2eb", "a%252Eb", "", "/", "//", "..", ".", "a/..", "x" * 200, "x" * 201, "x/" * 40])
def test_no_two_ids_have_one_key_and_webdataset_reads_it_back(names):
    names = [name for name in names if name.isprintable() or name.isascii()]
    keys = [make_key(name) for name in names]
    assert len(set(keys)) == len(names)
    for name, key in zip(names, keys, strict=True):
        found = re.match(r"^((?:.*/|)[^.]+)[.]([^/]*)$", f"{key}.jpg")
        assert found is not None and found.groups() == (key, "jpg")
        assert not key.startswith("/") and ".." not in key.split("/") and "\\" not in key
        assert all(0 < len(part.encode()) <= 180 for part in key.split("/"))
        assert key.startswith("%sha256-") or unquote(key) == name
        if re.fullmatch(r"[\w-]{1,40}(/[\w-]{1,40}){0,3}", name):
            assert key == name


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=120),
       st.integers(0, 2**36))  # fmt: skip
@example("a" * 100, 0)
@example("a" * 101, 8**11 - 1)
@example("\u00e9" * 50, 8**11)
@example("\u00e9" * 51, 1)
def test_a_header_is_the_one_that_tarfile_makes(name, size):
    info = tarfile.TarInfo(name)
    info.size = size
    assert header(name, size) == info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def test_a_shard_is_the_file_that_tarfile_makes(tmp_path):
    parts = {"a.txt": b"", "b.jpg": b"x" * 511, "c.jpg": b"y" * 512, f"{'d' * 150}.bin": bytes(range(256)) * 40_000}
    (tmp_path / "source").write_bytes(b"..." + b"".join(parts.values()))
    with tarfile.open(tmp_path / "theirs.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in [*parts.items(), *((f"again-{n}", d) for n, d in parts.items())]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    with ShardWriter(tmp_path / "ours.tar") as shard:
        for name, data in parts.items():
            shard.add(name, data)
        at = 3
        for name, data in parts.items():
            shard.copy(f"again-{name}", str(tmp_path / "source"), at, len(data))
            at += len(data)
        sealed = shard.seal()
    assert (tmp_path / "ours.tar").read_bytes() == (tmp_path / "theirs.tar").read_bytes()
    assert sealed == seal(tmp_path / "ours.tar") and shard.members == 8


@pytest.mark.parametrize("kind", ["jpg", "png", "gif", "webp", "bmp", "tif", "avif"])
def test_the_kind_of_an_image_is_detected_from_its_bytes(kind):
    buffer = io.BytesIO()
    Image.open(io.BytesIO(picture(0))).save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(kind, kind))
    assert detect_extension(buffer.getvalue()) == kind
    assert detect_extension(b"no image") == "img"


@given(st.data())
def test_a_tar_read_in_places_is_the_tar_read_from_end_to_end(tmp_path_factory, data):
    buffer = io.BytesIO()
    form = data.draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT]))
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for k in range(data.draw(st.integers(0, 5))):
            info = tarfile.TarInfo(
                f"{k}" * data.draw(st.sampled_from([1, 97, 98])) + data.draw(st.sampled_from(["", "/", ".a"]))
            )
            info.size = data.draw(st.sampled_from([0, 1, 511, 512, 513]))
            info.type = data.draw(
                st.sampled_from([tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE])
            )
            info.mtime = data.draw(st.sampled_from([0, 0.5]))
            if form == tarfile.USTAR_FORMAT:
                info.mtime = 0
            archive.addfile(info, io.BytesIO(bytes([k]) * info.size) if info.isreg() else None)
    whole = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(0, 2))):
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    tar = bytes(whole[: data.draw(st.sampled_from([len(whole), data.draw(st.integers(0, len(whole)))]))])

    (tmp_path_factory.getbasetemp() / "t.tar").write_bytes(tar)
    with (tmp_path_factory.getbasetemp() / "t.tar").open("rb", buffering=0) as raw:
        one = read_all(Tar(raw, len(tar))) if is_tar_header(tar) else None
    assert one in (None, read_all(Tar(io.BytesIO(tar))))


def read_all(tar: Tar) -> tuple[list[tuple[str, bytes]], str | None]:
    """Return the plain members of a tar, and its damage."""
    read = []
    try:
        for member in tar.members():
            content = member.load(Spool()) if member.kind == "file" else None
            if content is not None:
                read.append((member.name, content.read()))
    except DamagedTar as damage:
        return read, str(damage)
    return read, None
