"""Odd pictures pass through every stage; what they are, and which of their bits count, is the same everywhere."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from inputs import GOOD, OTHER, encoded, plain, tar, write
from odd_images import BOMB, HEIC, TABLE, bits, deep_png, deep_tiff, with_chunk
from PIL import Image
from runs import table

from fairdedup.datasets.decoders import open_decoder
from fairdedup.datasets.images import BadImage, decode, decode_picture, looks_like_image, measure_peak, read_facts
from fairdedup.datasets.sixteen_bit import choose_white
from fairdedup.errors import UserError


@pytest.mark.parametrize("name", TABLE)
def test_what_must_come_out_comes_out(name: str, run: Any, folder: Path) -> None:
    case = TABLE[name]
    counts = run(case.make(folder), **case.options)["counts"]
    rejected = table(folder.parent / "run" / "rejected")
    reasons = rejected["reason"].tolist()
    assert counts["kept"] + counts["removed"] + counts["rejected"] == counts["input"]
    assert (counts["valid"], counts["rejected"]) == (case.valid, sum(case.rejected.values())), reasons
    assert all(any(part in reason for reason in reasons) for part in case.rejected), reasons


# Recognised by content

FORMATS = {
    **{kind: encoded(plain(), kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000")},
    **{f"PPM {mode}": encoded(plain(mode), "PPM") for mode in ("RGB", "L", "1", "F")},
    "ICO": encoded(plain(size=(16, 16)), "ICO"),
    "ICO of bitmaps": encoded(plain(size=(16, 16)), "ICO", bitmap_format="bmp", sizes=[(16, 16)]),
    "MPO": encoded(plain(), "MPO"),
    "HEIC": HEIC,
    "BigTIFF": encoded(plain(), "TIFF", big_tiff=True),
    "a code stream of JPEG 2000": encoded(plain(), "JPEG2000", no_jp2=True),
}


@pytest.mark.parametrize("name", FORMATS)
def test_an_image_is_recognised_by_its_first_bytes_and_decoded(name: str) -> None:
    assert looks_like_image(FORMATS[name][:64])
    assert decode(FORMATS[name]).mode == "RGB"


@pytest.mark.parametrize(
    "head",
    [b"", b"\xff", b"{}", b"P1 is the first page", b"P6", b"BM is a bus line", b"PK\3\4", b"GIF", b"RIFF1234WAVE",
     bytes(64), b"\0\0\0\x18ftypmp42", b"%!PS-Adobe-3.0", b"%PDF-1.7", b"<svg xmlns='x'/>", b"\0\0\2\0\1\0"],
)  # fmt: skip
def test_other_files_are_not_taken_for_images(head: bytes) -> None:
    assert not looks_like_image(head)


def test_a_heic_has_its_colours() -> None:
    found = np.asarray(decode(HEIC)).astype(int)
    assert found.shape == (32, 64, 3)
    assert abs(found[4:12, 4:28] - [255, 0, 0]).max() < 40 and abs(found[20:, 36:] - 255).max() < 40


# Facts

EXIF_KINDS = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")


@pytest.mark.parametrize("kind", EXIF_KINDS)
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_facts_are_those_of_the_upright_picture_without_decoding_it(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(plain(size=(24, 16)), kind, exif=exif)
    facts = read_facts(data)
    assert facts == decode_picture(data).facts
    assert (facts.width, facts.height) == ((24, 16) if orientation < 5 else (16, 24)) and facts.format == kind


@pytest.mark.parametrize("name", FORMATS)
def test_facts_of_every_format(name: str) -> None:
    assert read_facts(FORMATS[name]) == decode_picture(FORMATS[name]).facts


def test_picture_columns_are_written_and_those_of_the_input_renamed(run: Any, folder: Path) -> None:
    source = tar(
        ("a.png", encoded(plain(size=(30, 20)), "PNG")),
        ("a.json", b'{"width": "broad", "format": 7, "input_width": 1}'),
        ("b.jpg", encoded(plain(size=(11, 13)), "PNG")),
        ("c.png", OTHER),
        ("d.png", OTHER),
    )(folder)
    run(source, keep=1.0)
    kept = pq.read_table(folder.parent / "run" / "kept").to_pylist()
    assert [(r["width"], r["height"], r["format"]) for r in kept[:2]] == [(30, 20, "PNG"), (11, 13, "PNG")]
    assert kept[2]["bytes"] == kept[3]["bytes"] == len(OTHER) and kept[2]["width"] == kept[3]["width"] == 24
    assert (kept[0]["input_width_"], kept[0]["input_format"], kept[0]["input_width"]) == ("broad", 7, 1)


def test_prefer_pixels_keeps_the_largest(run: Any, folder: Path) -> None:
    small, large = plain(size=(20, 40)), plain(size=(40, 80))
    write(folder, {"a.png": encoded(small, "PNG"), "b.png": encoded(large.resize(large.size), "PNG"), "c.png": GOOD})
    manifest = run(folder, rule="prefer", prefer="pixels", keep=None, eps=2.0)
    assert manifest["counts"]["kept"] == 1
    assert table(folder.parent / "run" / "kept")["id"].tolist() == ["b.png"]


def test_a_column_of_the_input_named_pixels_comes_first(run: Any, folder: Path) -> None:
    write(folder, {"a.png": encoded(plain(size=(20, 40)), "PNG"), "a.json": '{"pixels": 9}', "b.png": GOOD})
    run(folder, rule="prefer", prefer="pixels", keep=None, eps=2.0)
    assert table(folder.parent / "run" / "kept")["id"].tolist() == ["a.png"]
    with pytest.raises(UserError, match=r"--prefer 'pixel': the metadata has no such column"):
        run(folder, rule="prefer", prefer="pixel", keep=None, eps=2.0)


# 10, 12 and 14 bits


@pytest.mark.parametrize(("depth", "white"), [(1, 1023), (10, 1023), (12, 4095), (14, 16383), (15, 65535), (16, 65535)])
def test_white_is_the_smallest_range_that_holds_all(depth: int, white: int) -> None:
    assert choose_white([0, measure_peak(deep_png(bits(depth))), 0]) == white


@pytest.mark.parametrize("data", [GOOD, HEIC, b"", b"II*\0", encoded(plain(), "TIFF"), deep_png(bits(12))[:-40]])
def test_other_pictures_have_no_say(data: bytes) -> None:
    assert measure_peak(data) == 0 and choose_white([0, 0]) is None


@pytest.mark.parametrize("shape", [(9, 12), (9, 12, 3), (9, 12, 2), (9, 12, 4)])
@pytest.mark.parametrize("depth", [10, 12, 14])
def test_values_are_stretched_to_the_range(shape: tuple[int, ...], depth: int) -> None:
    values = bits(depth, 1, shape)
    opaque = values.copy()
    if shape[2:] in ((2,), (4,)):
        opaque[..., -1] = 65535
    data = deep_png(opaque)
    white = 2**depth - 1
    assert measure_peak(data) == int(opaque[..., : 1 if shape[2:] == (2,) else 3].max() if len(shape) > 2 else white)
    colours = values if len(shape) == 2 else values[..., 0]
    expected = np.rint(colours.astype(np.float64) * 255 / white)
    found = np.asarray(decode_picture(data, white).image)[..., 0].astype(int)
    assert abs(found - expected).max() <= 1  # a half may be rounded either way


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("order", "<>")
def test_values_of_colour_tiffs_are_stretched(order: str, compressed: bool) -> None:
    values = bits(12, 5, (9, 12, 3))
    data = deep_tiff(values, order, compressed=compressed)
    assert measure_peak(data) == 4095
    found = np.asarray(decode_picture(data, 4095).image).astype(int)
    assert abs(found - np.rint(values * (255 / 4095))).max() <= 1
    np.testing.assert_array_equal(np.asarray(decode(data)), values >> 8)


@pytest.mark.parametrize("shape", [(9, 12), (9, 12, 3), (9, 12, 4)])
def test_the_full_range_gives_the_pixels_of_earlier_versions(shape: tuple[int, ...]) -> None:
    values = bits(16, 2, shape)
    if shape[2:] == (4,):
        values[..., 3] = 65535
    found = np.asarray(decode(deep_png(values)))
    if len(shape) == 2:
        np.testing.assert_array_equal(found[..., 0], np.rint(values * (255 / 65535)))
    else:
        np.testing.assert_array_equal(found, values[..., :3] >> 8)


def test_all_shards_of_a_run_have_the_same_white(run: Any, folder: Path) -> None:
    dark, bright = bits(12, 3), bits(12, 3)
    dark.flat[0] = bright.flat[0] = 0
    dark[dark > 900] //= 8
    tar(("a.png", deep_png(dark)), ("b.png", GOOD))(folder).rename(folder / "1.tar")
    tar(("c.png", deep_png(bits(12, 4))), ("d.png", deep_png(dark)))(folder).rename(folder / "2.tar")
    tar(("e.png", GOOD), ("f.png", OTHER))(folder).rename(folder / "3.tar")
    manifest = run(folder)
    assert manifest["input"]["white"] == 4095
    vectors = [np.load(folder.parent / "run" / "embeddings" / "img_emb" / f"img_emb_{k}.npy") for k in range(3)]
    np.testing.assert_array_equal(vectors[0][0], vectors[1][1])


def test_new_white_embeds_only_shards_of_16_bits_again(run: Any, folder: Path) -> None:
    def stamps() -> list[int]:
        embedded = folder.parent / "run" / "embeddings" / "img_emb"
        return [(embedded / f"img_emb_{k}.npy").stat().st_mtime_ns for k in range(2)]

    tar(("a.png", deep_png(bits(10))), ("b.png", GOOD))(folder).rename(folder / "1.tar")
    tar(("e.png", GOOD), ("f.png", OTHER))(folder).rename(folder / "2.tar")
    assert run(folder)["input"]["white"] == 1023
    first = stamps()
    assert run(folder)["input"]["white"] == 1023 and stamps() == first
    tar(("g.png", deep_png(bits(14))))(folder).rename(folder / "3.tar")
    # Another input needs another run directory, so only the plan is looked at: the fingerprints.
    from fairdedup.stages.image_scan import Scan

    prints = Scan(1023, frozenset({0})).extend_fingerprints(["x", "y"])
    assert prints[1] == "y" and prints[0] not in ("x", "y")
    assert Scan(16383, frozenset({0})).extend_fingerprints(["x", "y"])[0] != prints[0]
    assert Scan(65535, frozenset({0})).extend_fingerprints(["x", "y"]) == ["x", "y"]
    assert Scan(None, frozenset()).extend_fingerprints(["x", "y"]) == ["x", "y"]


# What never reaches the terminal

NOISY = """
import io, logging, sys
logging.basicConfig(level=logging.DEBUG)  # as open_clip and others do
from PIL import Image
from fairdedup.datasets.images import BadImage, decode
def encoded(kind):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(buffer, kind, **({"compression": "tiff_lzw"} if kind == "TIFF" else {}))
    return bytearray(buffer.getvalue())
import random
rng = random.Random(0)
for kind in ("TIFF", "PNG", "JPEG", "WEBP", "JPEG2000", "ICO", "TGA", "BMP"):
    for _ in range(60):
        data = encoded(kind)
        for _ in range(4):
            data[rng.randrange(8, min(len(data), 300))] = rng.randrange(256)
        try:
            decode(bytes(data))
        except BadImage:
            pass
logging.getLogger("PIL.TiffImagePlugin").error("More samples per pixel than can be decoded")
"""


def test_nothing_that_pillow_and_its_libraries_say_reaches_the_terminal() -> None:
    ended = subprocess.run([sys.executable, "-c", NOISY], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert logging.getLogger("PIL").propagate is False


# The child process


def test_a_child_process_gives_the_same_pictures_and_reasons() -> None:
    with open_decoder(None, 4095, isolated=False) as here, open_decoder(None, 4095, isolated=True) as there:
        for data in (GOOD, HEIC, deep_png(bits(12)), with_chunk(OTHER, b"iCCP", b"p\0\0" + BOMB)):
            mine, theirs = here.load(data), there.load(data)
            assert mine.facts == theirs.facts == there.read_facts(data)
            assert mine.value.tobytes() == theirs.value.tobytes()
            assert here.measure_peak(data) == there.measure_peak(data)
        for bad in (b"", b"no picture", GOOD[:50]):
            reasons = []
            for decoder in (here, there):
                with pytest.raises(BadImage) as caught:
                    decoder.load(bad)
                reasons.append(str(caught.value))
            assert reasons[0] == reasons[1]
