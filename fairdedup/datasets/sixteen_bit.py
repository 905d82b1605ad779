"""Pictures with more than 8 bits a value: which range they use, and their conversion to 8 bits.

Cameras and scanners write 10, 12 and 14 bits into files of 16, whose full range would make them black. One value is
white for all 16-bit pictures of a run, so that equal pictures stay equal: the smallest of `WHITES` that none exceeds.
"""

from __future__ import annotations

import io
import sys
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fairdedup.datasets.image_containers import PNG
from fairdedup.datasets.image_tiles import Box, convert_tiles, iterate_tiles

FULL = 65535
WHITES = (1023, 4095, 16383, FULL)
"""The largest values of 10, 12, 14 and 16 bits."""

# The largest value that an image of this mode may have; an image that exceeds all of them is scaled to its own range.
_RANGES = {"F": (1.0, 255.0, 65535.0), "I": (255.0, 65535.0)}
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def choose_white(peaks: Iterable[int]) -> int | None:
    """Return the value that becomes white in a run's 16-bit pictures; None if there are none.

    Parameters
    ----------
    peaks : iterable of int
        Largest value of each 16-bit picture, 0 for other pictures.
    """
    peak = max(peaks, default=0)
    return next((white for white in WHITES if peak <= white), FULL) if peak else None


def has_sixteen_bits(data: bytes) -> bool:
    """Tell by the first bytes of an image file whether it may have values of 16 bits of an unknown range."""
    if data.startswith(PNG):
        return data[24:25] == b"\x10"
    return data.startswith((*TIFF, b"P2", b"P5"))


def has_unknown_range(image: Image.Image, data: bytes) -> bool:
    """Tell whether an opened picture, which need not be decoded yet, is one whose peak counts."""
    return _is_grey(image) or _is_colour(image, data)


def find_peak(image: Image.Image, data: bytes) -> int:
    """Return the largest value of a 16-bit picture that `to_eight_bits` stretches, at least 1.

    Parameters
    ----------
    image : PIL.Image.Image
        A picture for which `has_unknown_range` is true, decoded.
    data : bytes
        Its file.
    """
    if _is_grey(image):
        return max(1, *(int(np.asarray(image.crop(box)).max()) for box in iterate_tiles(image.size)))
    read = _open_colours(image, data)
    peaks = []
    for box in iterate_tiles(image.size):
        values = read(box)
        channels = values.shape[2]
        peaks.append(int(values[..., : channels - (channels % 2 == 0)].max()))  # without the alpha channel
    return max(1, *peaks)


def to_eight_bits(image: Image.Image, data: bytes, white: int) -> Image.Image | None:
    """Return a picture of 16-bit, 32-bit or float values as RGB or grey; None for one that Pillow converts itself.

    Parameters
    ----------
    image : PIL.Image.Image
        The picture as it is stored.
    data : bytes
        Its file.
    white : int
        Value that becomes 255 in 16-bit pictures.
    """
    if _is_grey(image):
        return _scale(image, (float(white),))
    if image.mode[0] in "IF":
        return _scale(image, _RANGES.get(image.mode, (float(FULL),)))
    if white < FULL and _is_colour(image, data):
        read = _open_colours(image, data)
        return convert_tiles(image.size, lambda box: _stretch(read(box), white))
    return None


def _is_grey(image: Image.Image) -> bool:
    """Tell whether a picture is grey with 16 bits. JPEG 2000 files record how many bits are in use."""
    return (image.mode.startswith("I;16") and image.format != "JPEG2000") or (
        image.mode == "I" and image.format == "PPM"
    )


def _is_colour(image: Image.Image, data: bytes) -> bool:
    """Tell whether a picture has 16 bits and colours or alpha, of which Pillow gives the upper 8 bits only."""
    if image.format == "PNG":
        return data[24:25] == b"\x10" and image.mode in ("RGB", "RGBA", "LA")
    return image.format == "TIFF" and image.mode in ("RGB", "RGBA") and tuple(image.tag_v2.get(258, ()))[:1] == (16,)  # type: ignore[attr-defined]


def _open_colours(image: Image.Image, data: bytes) -> Callable[[Box], NDArray[np.uint16]]:
    """Return a function that gives all bits of a tile of a picture in colour or with alpha: (height, width, channels).

    Pillow can give either byte of a value, by taking the file for one of the other byte order. The upper bytes are
    those of the decoded picture itself.
    """
    if data.startswith(PNG) and data[25:26] == b"\x04":  # grey with alpha: as many bytes as 8-bit RGB with alpha
        head = b"IHDR" + data[16:24] + b"\x08\x06" + data[26:29]
        both = _load(data[:12] + head + zlib.crc32(head).to_bytes(4, "big") + data[33:])

        def read_grey(box: Box) -> NDArray[np.uint16]:
            bytes_of = np.asarray(both.crop(box))
            return np.stack([bytes_of[..., k].astype(np.uint16) << 8 | bytes_of[..., k + 1] for k in (0, 2)], axis=-1)

        return read_grey
    lower = _load(data, swapped=True)

    def read(box: Box) -> NDArray[np.uint16]:
        return np.asarray(image.crop(box)).astype(np.uint16) << 8 | np.asarray(lower.crop(box))

    return read


def _load(data: bytes, *, swapped: bool = False) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=("PNG", "TIFF")) as image:
        if swapped:
            image.tile = [tile._replace(args=_swap(tile.args)) for tile in image.tile]
        image.load()
        return image


def _swap(args: Any) -> Any:
    """Return the arguments of one of Pillow's decoders with the other byte order, such as "RGB;16L" for "RGB;16B"."""
    if isinstance(args, tuple):
        return (_swap(args[0]), *args[1:])
    other = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
    return args[:-1] + other[args[-1]]


def _stretch(values: NDArray[np.uint16], white: int) -> Image.Image:
    """Return a tile of 16-bit channels, the last of an even number being alpha, which has the full range."""
    channels = values.shape[2]
    has_alpha = channels % 2 == 0
    scale = 255 / np.array([white] * (channels - has_alpha) + [FULL] * has_alpha, np.float32)
    return Image.fromarray(np.rint(np.minimum(values.astype(np.float32) * scale, 255)).astype(np.uint8))


def _scale(image: Image.Image, whites: tuple[float, ...]) -> Image.Image:
    """Scale grey to 8 bits, since Pillow's own conversion would clip it to white."""

    def read(box: Box) -> NDArray[np.float32]:
        return np.nan_to_num(np.asarray(image.crop(box), dtype=np.float32), posinf=0, neginf=0)

    ends = [(float(values.min()), float(values.max())) for values in map(read, iterate_tiles(image.size))]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    for white in whites:
        if low >= 0 and high <= white:
            low, high = 0.0, white
            break
    scale = 255 / ((high - low) or 1)

    def convert(box: Box) -> Image.Image:
        return Image.fromarray(np.rint((read(box) - low) * scale).astype(np.uint8))

    return convert_tiles(image.size, convert, "L")
