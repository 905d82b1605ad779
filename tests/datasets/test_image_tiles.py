"""Conversions of pictures need memory for the result and one tile, and give what a conversion of the whole gives."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from odd_images import deep_png, deep_tiff
from PIL import Image

from fairdedup.datasets.image_tiles import SIDE, convert_tiles, iterate_tiles
from fairdedup.datasets.images import decode

SIZE = (4000, 3000)
MEASURE = """
import sys
from fairdedup.datasets.images import decode_picture, measure_peak

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

decode_picture(open(sys.argv[2], "rb").read())  # loads the libraries
data = open(sys.argv[1], "rb").read()
before = peak()
measure_peak(data)
decode_picture(data, 4095)
print(peak() - before)
"""


def encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def ramp(channels: int) -> np.ndarray:
    """Return a picture of 12 bits, with a channel or several."""
    width, height = SIZE
    grey = np.add.outer(np.arange(height) % 2000, np.arange(width) % 2000).astype(np.uint16)
    return grey if channels == 1 else np.stack([grey] * channels, axis=-1)


def small_picture(kind: str) -> bytes:
    if kind == "jpeg":
        return encode(Image.new("RGB", SIZE, "red"), "JPEG")
    if kind == "float tiff":
        return encode(Image.fromarray(ramp(1).astype(np.float32)), "TIFF")
    if kind == "tiff of 16 bits":
        return encode(Image.fromarray(ramp(1)), "TIFF")
    if kind == "grey png of 16 bits with alpha":
        return deep_png(ramp(2))
    if kind == "colour tiff of 16 bits":
        return deep_tiff(ramp(3))
    return deep_png(ramp(4))


# Bytes for each pixel beside the file: Pillow's 4 for the result and for each decoded picture in colour.
KINDS = {
    "jpeg": 4,
    "tiff of 16 bits": 1 + 4,  # the grey picture, and the result
    "float tiff": 4 + 1,  # the decoded picture, and the grey one
    "grey png of 16 bits with alpha": 3 * 4,
    "colour tiff of 16 bits": 3 * 4,
    "colour png of 16 bits with alpha": 3 * 4,
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
@pytest.mark.parametrize("kind", KINDS)
def test_a_conversion_holds_nothing_but_the_decoded_picture_and_its_result(kind: str, tmp_path: Path) -> None:
    large, first = tmp_path / "large", tmp_path / "first"
    large.write_bytes(small_picture(kind))
    first.write_bytes(encode(Image.new("RGB", (8, 8)), "PNG"))
    command = [sys.executable, "-c", MEASURE, str(large), str(first)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    pixels = SIZE[0] * SIZE[1]
    tiles = 32 << 20  # the values of a tile are in float32, with copies
    assert int(done.stdout) < KINDS[kind] * pixels + tiles, int(done.stdout) / pixels


@pytest.mark.parametrize("size", [(1, 1), (SIDE, SIDE), (SIDE + 1, 2), (3, 2 * SIDE + 5), (3 * SIDE, 1)])
def test_tiles_cover_each_pixel_once(size: tuple[int, int]) -> None:
    count = np.zeros(size[::-1], int)
    for left, top, right, bottom in iterate_tiles(size):
        count[top:bottom, left:right] += 1
    assert (count == 1).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "RGBA", "P"])
def test_tiles_give_the_pixels_of_the_whole(mode: str) -> None:
    rng = np.random.default_rng(1)
    whole = Image.fromarray(rng.integers(0, 256, (5, SIDE + 7, 4), np.uint8)).convert(mode)
    if mode == "P":
        whole.info["transparency"] = 3
    expected = Image.new("RGB", whole.size, "white")
    layer = whole.convert("RGBA")
    expected.paste(layer, mask=layer)
    assert convert_tiles(whole.size, whole.crop).tobytes() == expected.tobytes()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_deep_pictures_of_several_tiles_are_stretched_by_the_range_of_the_whole(channels: int) -> None:
    values = np.zeros((3, SIDE + 9, channels), np.uint16)[..., 0 if channels == 1 else slice(None)]
    values[0, 0] = values[2, SIDE + 8] = 65535
    values[1, 4] = 32768
    if channels == 4:
        values[..., 3] = 65535
    found = np.asarray(decode(deep_png(values)))[..., 0]
    assert (found[0, 0], found[2, SIDE + 8], found[1, 4], found[1, 5]) == (255, 255, 128, 0)
