"""Decodes untrusted image files to upright RGB pixels.

It reads the first frame only, refuses decompression bombs before it decodes them, and describes every fault in a few
words that quote nothing from the file.
"""

from __future__ import annotations

import io
import logging
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from fairdedup.datasets.image_formats import IMAGE_EXTENSIONS, looks_like_image

__all__ = ["IMAGE_EXTENSIONS", "MAX_IMAGE_BYTES", "MAX_PIXELS", "BadImage", "decode", "looks_like_image"]

MAX_PIXELS = 100_000_000
"""Largest number of pixels that are decoded: 300 MB as RGB, so that a worker stays under 2 GiB in any conversion."""

MAX_IMAGE_BYTES = 256 << 20
"""Size in bytes of the largest image file that is read."""

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")  # Pillow knows others, which are riskier

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# The largest value that an image of this mode may have; an image that exceeds all of them is scaled to its own range.
_WHITES = {"F": (1, 255, 65535), "I": (255, 65535)}


logging.getLogger("PIL").addHandler(logging.NullHandler())  # otherwise its remarks on bad files reach stderr


class BadImage(ValueError):
    """Bytes cannot be decoded to a picture; the message is a short reason without any byte of the file."""


def decode(data: bytes) -> Image.Image:
    """Decode an image file to RGB.

    The result is the first frame of an animation, with EXIF rotation applied, transparency on white, and palette, grey,
    16-bit, float and CMYK converted to 8-bit RGB.

    Parameters
    ----------
    data : bytes
        A complete JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF file, regardless of its name.

    Returns
    -------
    PIL.Image.Image
        A picture of mode "RGB" with at most ``MAX_PIXELS`` pixels, fully loaded.

    Raises
    ------
    BadImage
        If the bytes are empty, too many, not an image of these kinds, damaged, cut off, or a decompression bomb.
    """
    if not data:
        raise BadImage("empty file")
    if len(data) > MAX_IMAGE_BYTES:
        raise BadImage(f"file larger than {MAX_IMAGE_BYTES >> 20} MiB")
    # If threads overlap here, the filter may stay in place, so it must be a narrow one.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
        picture, orientation = _decode(data)
    return picture.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else picture


def _decode(data: bytes) -> tuple[Image.Image, int | None]:
    """Return the picture as it is stored, and its EXIF orientation; the decoder's memory is freed on return."""
    kind = "image"
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            kind = f"{image.format} image"
            if image.width * image.height > MAX_PIXELS:
                raise BadImage(_TOO_LARGE)
            if image.width * image.height == 0:
                raise BadImage(f"{kind} without pixels")
            image.load()
            return _rgb(image), _orientation(image)  # after load: TIFF applies it itself, PNG may end with EXIF
    except (BadImage, MemoryError):  # a lack of memory is not a fault of the image
        raise
    except Image.DecompressionBombError:
        raise BadImage(_TOO_LARGE) from None
    except UnidentifiedImageError:
        markup = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
        raise BadImage("HTML, XML or SVG, not an image" if markup else "not a known image format") from None
    except Exception as error:  # Pillow's decoders raise nearly everything on hostile bytes
        fault = "truncated" if isinstance(error, EOFError) or "truncated" in str(error) else "damaged"
        raise BadImage(f"{fault} {kind}") from None


_TOO_LARGE = f"more than {MAX_PIXELS // 10**6} million pixels"


def _orientation(image: Image.Image) -> int | None:
    try:
        found = image.getexif().get(0x0112)
    except Exception:  # damaged EXIF costs the rotation, not the picture
        return None
    return found if isinstance(found, int) else None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode[0] in "IF":
        return _eight_bits(image).convert("RGB")
    if image.has_transparency_data:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        background = Image.new("RGB", image.size, "white")
        background.paste(layer, mask=layer)
        return background
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit or float grey to 8 bits; Pillow's own conversion would clip it to white."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0, neginf=0)
    low, high = float(values.min()), float(values.max())
    for white in _WHITES.get(image.mode, (65535,)):
        if low >= 0 and high <= white:
            low, high = 0.0, float(white)
            break
    values -= low
    values *= 255 / ((high - low) or 1)
    return Image.fromarray(np.rint(values).astype(np.uint8))
