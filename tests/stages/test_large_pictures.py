"""Memory is bounded by the largest picture, not by the batch; what is too large is rejected or refused in one line."""

from __future__ import annotations

import csv
import io
import json
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from memory import MIB, Measured, measure
from PIL import Image

from fairdedup.datasets.images import MAX_PIXELS

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")

LIMIT = 2048 * MIB  # of any process
SIDE = (6000, 4000)  # 24 megapixels


def photograph(size: tuple[int, int], seed: int, mode: str = "RGB") -> Image.Image:
    """Return a picture with detail at every scale."""
    rng = np.random.default_rng(seed)
    picture = Image.fromarray(rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noise = Image.fromarray(rng.integers(0, 256, (500, 500, 3), dtype=np.uint8)).resize(size, Image.Resampling.NEAREST)
    return Image.blend(picture, noise, 0.2).convert(mode)


def encode(picture: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def embed(source: Path, folder: Path, *flags: object) -> Measured:
    """Embed an input by one worker that may have 2 GiB."""
    return measure("embed", source, "--out", folder / "run", "--workers", 1, "--max-rejected", 1,
                   "--memory-limit", "2GiB", "--quiet", *flags, cwd=folder)  # fmt: skip


def reasons(folder: Path) -> list[str]:
    """Return why samples were rejected."""
    records = (folder / "run" / "embeddings" / "records").glob("record_*.json")
    return [each[3] for record in records for each in json.loads(record.read_text())["rejected"]]


def test_memory_does_not_grow_with_the_pictures_of_a_batch(tmp_path: Path) -> None:
    peaks = []
    for size in ((64, 48), (3600, 2400)):
        place = tmp_path / str(size[0])
        (place / "in").mkdir(parents=True)
        for seed in range(3):
            (place / "in" / f"{seed}.jpg").write_bytes(encode(photograph(size, seed), quality=85))
        for seed in range(3, 24):  # other bytes, so that each is decoded
            data = (place / "in" / f"{seed % 3}.jpg").read_bytes()
            (place / "in" / f"{seed}.jpg").write_bytes(data + bytes([seed]))
        found = embed(place / "in", place, "--batch-size", 24)
        assert found.code == 0, found.err
        peaks.append(found.peak)
    one = 3600 * 2400 * 3
    assert peaks[1] - peaks[0] < 6 * one, [peak // MIB for peak in peaks]  # 24 of them would be 593 MiB


def photographs() -> dict[str, bytes]:
    """Return 70 photographs of 24 megapixels, all of other bytes."""
    some = [encode(photograph(SIDE, seed), quality=90) for seed in range(5)]
    return {f"{k:03}.jpg": some[k % 5] + bytes([k]) for k in range(70)}


def as_folder(place: Path, files: dict[str, bytes]) -> Path:
    place.mkdir()
    for name, data in files.items():
        (place / name).write_bytes(data)
    return place


def as_tar(place: Path, files: dict[str, bytes]) -> Path:
    place.mkdir()
    with tarfile.open(place / "0.tar", "w") as archive:
        for name, data in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return place / "0.tar"


def as_parquet(place: Path, files: dict[str, bytes]) -> Path:
    place.mkdir()
    columns = {"key": list(files), "jpg": pa.array(list(files.values()), pa.large_binary())}
    pq.write_table(pa.table(columns), place / "0.parquet", compression="none")  # one row group
    return place / "0.parquet"


def as_zip(place: Path, files: dict[str, bytes]) -> Path:
    place.mkdir()
    with zipfile.ZipFile(place / "0.zip", "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return place / "0.zip"


@pytest.mark.soak
@pytest.mark.parametrize("write", [as_folder, as_tar, as_parquet, as_zip])
def test_seventy_photographs_of_24_megapixels(write: Callable[..., Path], tmp_path: Path) -> None:
    found = embed(write(tmp_path / "in", photographs()), tmp_path)
    print(f"{write.__name__}: {found.peak // MIB} MiB")
    assert found.code == 0, found.err
    assert not reasons(tmp_path)
    assert found.peak < LIMIT


LARGEST = {
    "jpeg": ("JPEG", "RGB", {"quality": 85}),
    "progressive jpeg": ("JPEG", "RGB", {"quality": 85, "progressive": True}),
    "cmyk jpeg": ("JPEG", "CMYK", {"quality": 85}),
    "png": ("PNG", "RGB", {"compress_level": 1}),
    "png with alpha": ("PNG", "RGBA", {"compress_level": 1}),
    "png of 16 bits": ("PNG", "I;16", {"compress_level": 1}),
    "png with a palette": ("PNG", "P", {"compress_level": 1}),
    "webp": ("WEBP", "RGB", {"quality": 60, "method": 0}),
    "tiff": ("TIFF", "RGB", {"compression": "tiff_deflate"}),
    "tiff of 16 bits": ("TIFF", "I;16", {}),
    "pgm of 16 bits": ("PPM", "I;16", {}),
    "bmp of grey": ("BMP", "L", {}),
    "gif": ("GIF", "P", {}),
    "jp2": ("JPEG2000", "RGB", {"quality_mode": "rates", "quality_layers": [20]}),
}


@pytest.mark.soak
@pytest.mark.parametrize("kind", LARGEST)
def test_a_picture_of_the_most_pixels_is_embedded_and_a_larger_one_rejected(kind: str, tmp_path: Path) -> None:
    encoding, mode, options = LARGEST[kind]
    (tmp_path / "in").mkdir()
    width = 10_000
    for name, height in (("most", MAX_PIXELS // width), ("more", MAX_PIXELS // width + 1)):
        if mode == "I;16":
            rows = np.add.outer(np.arange(height, dtype=np.uint16) * 6, np.arange(width, dtype=np.uint16) * 3)
            picture = Image.fromarray(rows)
        else:
            picture = photograph((width, height), 0, mode)
        (tmp_path / "in" / f"{name}.{kind.split()[-1 if 'jpeg' in kind else 0]}").write_bytes(
            encode(picture, encoding, **options)
        )
    found = embed(tmp_path / "in", tmp_path)
    print(f"{kind}: {found.peak // MIB} MiB, {reasons(tmp_path)}")
    assert found.code == 0, found.err
    assert reasons(tmp_path) == ["more than 100 million pixels"]
    assert found.peak < LIMIT


def small() -> dict[str, bytes]:
    return {"a.png": encode(photograph((40, 30), 1), "PNG"), "b.png": encode(photograph((40, 30), 2), "PNG")}


def long_caption(place: Path) -> Path:
    return as_folder(place, small() | {"a.txt": b"word " * (20 << 20)})


def long_sidecar(place: Path) -> Path:
    return as_folder(place, small() | {"a.json": json.dumps({"a": "x" * (200 << 20)}).encode()})


def long_line(place: Path) -> Path:
    as_folder(place, small())
    with open(place / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows([["file_name", "text"], ["a.png", "y" * (200 << 20)], ["b.png", "z"]])
    return place


def long_jsonl(place: Path) -> Path:
    as_folder(place, small())
    lines = [{"file_name": "a.png", "text": "y" * (200 << 20)}, {"file_name": "b.png", "text": "z"}]
    (place / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return place


def large_row_group(place: Path) -> Path:
    data = encode(photograph(SIDE, 1), quality=95)
    return as_parquet(place, {f"{k}.jpg": data + bytes([k]) for k in range((1 << 30) // len(data))})


def large_member(place: Path) -> Path:
    return as_tar(place, small() | {"video.mp4": bytes(500 << 20)})


def large_picture_file(place: Path) -> Path:
    return as_folder(place, small() | {"c.png": small()["a.png"] + bytes(500 << 20)})


@pytest.mark.soak
@pytest.mark.parametrize(
    "write",
    [long_caption, long_sidecar, long_line, long_jsonl, large_row_group, large_member, large_picture_file],
    ids=lambda write: write.__name__,
)
def test_anything_large_is_read_or_refused_within_the_memory(write: Callable[[Path], Path], tmp_path: Path) -> None:
    found = embed(write(tmp_path / "in"), tmp_path)
    said = found.err.strip().split("\n")[-1][:150]
    print(f"{write.__name__}: {found.peak // MIB} MiB, exit code {found.code}, {said}")
    assert found.code in (0, 2), found.err
    assert found.err.count("\n") <= 1 + (found.code == 0), found.err[:2000]
    assert found.peak < LIMIT
