"""From bytes to pixels: colours, orientation, and everything that is not an image."""

from __future__ import annotations

import io
import logging
import pickle
import random
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image
from reading import (
    BLUE,
    GREEN,
    PNG,
    RED,
    WHITE,
    encoded,
    picture,
)

from fairdedup.datasets import images
from fairdedup.datasets.images import BadImage, decode


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


def test_transparency_becomes_white():
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


def test_files_that_are_not_images_are_named():
    assert reason(b"") == "empty file"
    assert reason(b"<!DOCTYPE html><title>secret</title>") == "HTML, XML or SVG, not an image"
    assert reason("\ufeff\n  <svg xmlns='x'/>".encode()) == "HTML, XML or SVG, not an image"
    assert reason(b"just text") == "not a known image format"
    assert reason(PNG[:10]) == "not a known image format"
    assert reason(pickle.dumps({"a": 1})) == "not a known image format"
    assert reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n") == "not a known image format"
    assert reason(encoded(picture(), "PCX")) == "not a known image format"


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
        decode(encoded(picture().convert("L")))


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
