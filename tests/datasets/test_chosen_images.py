"""Single images are read back from every kind of input, and are those that reading the whole shard gives."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import picture, sample, write_tar

from fairdedup.datasets import open_input
from fairdedup.datasets.chosen_images import read_chosen_images
from fairdedup.datasets.images import decode_picture

NUMBER = 12


def write_folder(folder: Path) -> Path:
    for k in range(NUMBER):
        (folder / f"{k}.png").write_bytes(picture(10 * k))
        (folder / f"{k}.txt").write_text(f"caption {k}")
    (folder / "5.png").write_bytes(b"")
    return folder


def write_archive(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "in.zip", "w") as archive:
        for k in range(NUMBER):
            archive.writestr(f"{k}.png", picture(10 * k))
    return folder / "in.zip"


def write_shard(folder: Path) -> Path:
    return write_tar(folder / "in.tar", {k: v for n in range(NUMBER) for k, v in sample(f"{n:03d}", 10 * n).items()})


def write_rows(folder: Path) -> Path:
    images = [picture(10 * k) if k != 5 else None for k in range(NUMBER)]
    pq.write_table(pa.table({"key": [f"k{k}" for k in range(NUMBER)], "image": images}), folder / "in.parquet")
    return folder / "in.parquet"


@pytest.mark.parametrize("write", [write_folder, write_archive, write_shard, write_rows])
def test_chosen_images_are_those_of_the_shard(write, tmp_path):
    (shard,) = open_input(str(write(tmp_path))).shards
    every = {s.position: (s.id, s.image) for s in shard.read() if s.image is not None}
    for wanted in ([0], [3, 1, 11], [5, 6], list(range(NUMBER))):
        found = {position: (name, data) for position, name, data in read_chosen_images(shard, wanted)}
        assert found == {position: every[position] for position in wanted if position in every}
    assert list(read_chosen_images(shard, [NUMBER + 5])) == []


def test_a_large_jpeg_may_be_decoded_at_a_smaller_scale():
    from io import BytesIO

    from PIL import Image

    buffer = BytesIO()
    Image.new("RGB", (1600, 1200), (200, 30, 30)).save(buffer, "JPEG")
    small = decode_picture(buffer.getvalue(), detail=200).image
    assert 200 <= min(small.size) < 400 and small.getpixel((9, 9))[0] > 180
    assert decode_picture(buffer.getvalue()).image.size == (1600, 1200)
