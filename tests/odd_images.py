"""The table of odd and hostile pictures, each with its expected result, and functions that make such files."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from inputs import GOOD, OTHER, encoded, folder_of, image, parquet, plain, tar
from odd_inputs import Case
from PIL import Image

# White, the upper left quarter red; 64 x 32 pixels. Made by pillow-heif, since the package only decodes HEIC.
HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAX1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9jAAAA"
    "AERAAAEAAQAAAAABoQABAAAAAAAAAF8AAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA/WlwcnAAAADd"
    "aXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAA"
    "AwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xh"
    "cAAAAEAAAAABAAAAIAAAAAEAAAAAAAAAAv///+AAAAACAAAAEHBpeGkAAAAAAwgICAAAABhpcG1hAAAAAAAAAAEAAQWBAgMFhAAAAGdtZGF0AAAA"
    "WygBrwng4Vc5NB//8ju///Kwdl+8R6oUicv+3piK/EHI/9QD/og+cC1c/z2MAcNoNCrGW91nrIlIiC1724p3s2MIIYL8pfWRN84f510fj0xc/+1q"
    "5lngVWpKLYA="
)


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def with_chunk(png: bytes, kind: bytes, data: bytes, *, at_end: bool = False) -> bytes:
    """Return a PNG with one more chunk: after its header, or before its end."""
    place = len(png) - 12 if at_end else 33
    return png[:place] + chunk(kind, data) + png[place:]


def deep_png(values: np.ndarray) -> bytes:
    """Return a 16-bit PNG of values (h, w) or (h, w, channels)."""
    height, width = values.shape[:2]
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[1 if values.ndim == 2 else values.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows))
    return png + chunk(b"IEND", b"")


def deep_tiff(values: np.ndarray, order: str = "<", *, compressed: bool = False) -> bytes:
    """Return a 16-bit TIFF of colours (h, w, 3), which Pillow cannot write."""
    height, width, channels = values.shape
    pixels = values.astype(order + "u2").tobytes()
    pixels = zlib.compress(pixels) if compressed else pixels
    tags = dict.fromkeys((256, 257, 258, 259, 262, 273, 277, 278, 279), 0)
    tags |= {256: width, 257: height, 258: 8 + 2 + 12 * 9 + 4, 259: 8 if compressed else 1, 262: 2}
    tags |= {277: channels, 278: height, 279: len(pixels)}
    tags[273] = tags[258] + 2 * channels
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    for tag, value in tags.items():
        if tag == 258:
            head += struct.pack(order + "HHII", tag, 3, channels, value)
        else:
            head += struct.pack(order + "HHII", tag, 4, 1, value)
    return head + struct.pack(order + "I", 0) + struct.pack(f"{order}{channels}H", *[16] * channels) + pixels


def bits(depth: int, seed: int = 0, shape: tuple[int, ...] = (9, 12)) -> np.ndarray:
    """Return values of some bits, the largest among them."""
    values = np.random.default_rng(seed).integers(0, 2**depth, shape).astype(np.uint16)
    values.flat[0] = 2**depth - 1
    return values


def icon_claiming(side: int) -> bytes:
    """Return an icon whose only picture is a PNG that claims to be a square of this side."""
    inside = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    inside += chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, len(inside), 22) + inside


RANDOM = np.random.default_rng(0).bytes(2 << 20)
PROFILE = b"profile\0\0" + zlib.compress(RANDOM)
BOMB = zlib.compress(bytes(64 << 20))
BITMAP_ICON = encoded(plain(size=(16, 16)), "ICO", bitmap_format="bmp", sizes=[(16, 16)])
TOO_LARGE = {"more than 100 million pixels": 1}
UNKNOWN = {"not a known image format": 1}

TABLE: dict[str, Case] = {
    # Formats, by content and by name
    "jfif": Case(image(encoded(plain(), "JPEG"), "odd.jfif"), 2),
    "jpe": Case(image(encoded(plain(), "JPEG"), "odd.jpe"), 2),
    "HEIC in capitals": Case(image(HEIC, "IMG_0001.HEIC"), 2),
    "HEIC called .jpg, as phones do": Case(image(HEIC, "IMG_0001.jpg"), 2),
    "HEIC in a tar": Case(tar(("a.heic", HEIC), ("b.png", GOOD)), 2),
    "JPEG 2000": Case(image(encoded(plain(), "JPEG2000"), "odd.jp2"), 2),
    "JPEG 2000, its code stream": Case(image(encoded(plain(), "JPEG2000", no_jp2=True), "odd.j2k"), 2),
    "PPM": Case(image(encoded(plain(), "PPM"), "odd.ppm"), 2),
    "PGM": Case(image(encoded(plain("L"), "PPM"), "odd.pgm"), 2),
    "PBM": Case(image(encoded(plain("1"), "PPM"), "odd.pbm"), 2),
    "PPM in words": Case(image(b"P3\n# drawn\n2 2\n255\n" + b"10 200 30\n" * 4, "odd.pnm"), 2),
    "PFM": Case(image(encoded(plain("F"), "PPM"), "odd.pfm"), 2),
    "an icon": Case(image(encoded(plain(size=(16, 16)), "ICO"), "odd.ico"), 2),
    "an icon of bitmaps": Case(image(BITMAP_ICON, "odd.ico"), 2),
    "TGA": Case(image(encoded(plain(), "TGA"), "odd.tga"), 2),
    "TGA, run lengths": Case(image(encoded(plain(), "TGA", compression="tga_rle"), "odd.tga"), 2),
    "DIB": Case(image(encoded(plain(), "DIB"), "odd.dib"), 2),
    "MPO of two pictures": Case(
        image(encoded(plain(), "MPO", save_all=True, append_images=[plain("L").convert("RGB")]), "odd.mpo"), 2
    ),
    # Not images, or not read
    "a film in HEIF's container": Case(image(HEIC.replace(b"ftypheic", b"ftypmp42"), "odd.heic"), 1, UNKNOWN),
    "a cut HEIC": Case(image(HEIC[:480], "odd.heic"), 1, {"": 1}),
    "a HEIC of zeros": Case(image(HEIC[:100] + bytes(400), "odd.heic"), 1, {"": 1}),
    "a cut JPEG 2000": Case(image(encoded(plain(size=(99, 99)), "JPEG2000")[:300], "odd.jp2"), 1, {"": 1}),
    "a cut PPM": Case(image(encoded(plain(), "PPM")[:100], "odd.ppm"), 1, {"truncated PPM image": 1}),
    "a PPM without size": Case(image(b"P6\n", "odd.ppm"), 1, {"": 1}),
    "a text that begins as PGM does": Case(image(b"P5 is the fifth part of it", "odd.pgm"), 1, {"": 1}),
    "a cut TGA": Case(image(encoded(plain(), "TGA")[:60], "odd.tga"), 1, {"": 1}),
    "an icon without pictures": Case(image(b"\0\0\1\0\0\0", "odd.ico"), 1, {"": 1}),
    "an icon that holds a bomb": Case(image(icon_claiming(13_000), "odd.ico"), 1, TOO_LARGE),
    "a PPM that claims too much": Case(image(b"P6\n20000 20000\n255\n", "odd.ppm"), 1, TOO_LARGE),
    "EPS, which Pillow would run": Case(image(encoded(plain(), "EPS"), "odd.jpg"), 1, UNKNOWN),
    "a PDF": Case(image(encoded(plain(), "PDF"), "odd.jpg"), 1, UNKNOWN),
    "PCX, which is rare": Case(image(encoded(plain(), "PCX"), "odd.jpg"), 1, UNKNOWN),
    # Large texts and profiles in a PNG
    "a profile of 2 MiB": Case(image(with_chunk(OTHER, b"iCCP", PROFILE)), 2),
    "a profile that is a bomb": Case(image(with_chunk(OTHER, b"iCCP", b"profile\0\0" + BOMB)), 2),
    "a compressed text that is a bomb": Case(image(with_chunk(OTHER, b"zTXt", b"Comment\0\0" + BOMB)), 2),
    "such a text after the pixels": Case(image(with_chunk(OTHER, b"zTXt", b"Comment\0\0" + BOMB, at_end=True)), 2),
    "an international text that is a bomb": Case(image(with_chunk(OTHER, b"iTXt", b"Comment\0\1\0\0\0" + BOMB)), 2),
    "texts of more than 64 MiB": Case(image(with_chunk(OTHER, b"tEXt", b"Comment\0" + b"x" * (65 << 20))), 2),
    "a large profile in a cut PNG": Case(
        image(with_chunk(OTHER, b"iCCP", PROFILE)[:-200]), 1, {"truncated PNG image": 1}
    ),
    # Shapes
    "1 x 20,000": Case(image(encoded(plain(size=(1, 20_000)), "PNG")), 2),
    "2 million x 1": Case(image(encoded(Image.new("1", (2_000_000, 1)), "PNG")), 2),
    # More than 8 bits
    "12 bits in a TIFF": Case(image(encoded(Image.fromarray(bits(12)), "TIFF"), "odd.tif"), 2),
    "12 bits of colour": Case(image(deep_png(bits(12, shape=(9, 12, 3)))), 2),
    "12 bits of colour in a TIFF": Case(image(deep_tiff(bits(12, shape=(9, 12, 3))), "odd.tif"), 2),
    "12 bits of grey with alpha": Case(image(deep_png(bits(12, shape=(9, 12, 2)))), 2),
    "a damaged PNG of 16 bits": Case(image(deep_png(bits(12))[:-40]), 1, {"PNG image": 1}),
    "black of 16 bits": Case(image(deep_png(np.zeros((9, 12), np.uint16))), 2),
    # IDs
    "a duplicate whose other picture is damaged": Case(
        parquet({"id": ["a", "b", "a"], "jpg": [GOOD, OTHER, b"no picture"]}), 2, {"not a known": 1}
    ),
    "an empty folder of pictures": Case(folder_of({"a.png": GOOD, "b/c.heif": HEIC}), 2),
}
