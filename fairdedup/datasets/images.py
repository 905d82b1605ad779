"""Decodes untrusted image files to upright RGB pixels.

It reads the first frame only, refuses decompression bombs before it decodes them, and describes every fault in a few
words that quote nothing from the file.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from PIL import Image, UnidentifiedImageError

from fairdedup.datasets.image_containers import drop_large_text, list_icon_sizes
from fairdedup.datasets.image_formats import HEIF_BRANDS, IMAGE_EXTENSIONS, find_brand, looks_like_image
from fairdedup.datasets.image_tiles import convert_tiles
from fairdedup.datasets.library_output import discard_stderr
from fairdedup.datasets.sixteen_bit import FULL, TIFF, find_peak, has_sixteen_bits, has_unknown_range, to_eight_bits

__all__ = [
    "IMAGE_EXTENSIONS",
    "MAX_IMAGE_BYTES",
    "MAX_PIXELS",
    "BadImage",
    "Facts",
    "Picture",
    "decode",
    "decode_picture",
    "looks_like_image",
    "measure_peak",
    "read_facts",
]

MAX_PIXELS = 100_000_000
"""Largest number of pixels that are decoded: 300 MB as RGB, so that a worker stays under 2 GiB in any conversion."""

MAX_IMAGE_BYTES = 256 << 20
"""Size in bytes of the largest image file that is read."""

# The formats of `image_formats`; an AVIF file of a general brand must not reach the decoder of HEIF first.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO", "DIB", "TGA")

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height
_LATE_ORIENTATION = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")  # in a PNG, perhaps after the pixels

_pillow = logging.getLogger("PIL")
_pillow.addHandler(logging.NullHandler())  # otherwise its remarks on bad files reach stderr
_pillow.propagate = False  # nor through a handler that another library has installed


class BadImage(ValueError):
    """Bytes cannot be decoded to a picture; the message is a short reason without any byte of the file."""


@dataclass(frozen=True)
class Facts:
    """What is known of an image file besides its pixels.

    Attributes
    ----------
    width, height : int
        Size in pixels of the upright picture.
    format : str
        Name of the format, such as "JPEG", whatever the file is called.
    """

    width: int
    height: int
    format: str


@dataclass(frozen=True)
class Picture:
    """A decoded image file.

    Attributes
    ----------
    image : PIL.Image.Image
        Upright picture of mode "RGB", fully loaded.
    facts : Facts
    """

    image: Image.Image
    facts: Facts


def decode(data: bytes) -> Image.Image:
    """Decode an image file to RGB; see `decode_picture`.

    Parameters
    ----------
    data : bytes
        A complete image file of a format in `image_formats`, regardless of its name.

    Returns
    -------
    PIL.Image.Image
        A picture of mode "RGB" with at most ``MAX_PIXELS`` pixels, fully loaded.

    Raises
    ------
    BadImage
        If the bytes are empty, too many, not an image of these kinds, damaged, cut off, or a decompression bomb.
    """
    return decode_picture(data).image


def decode_picture(data: bytes, white: int = FULL, *, side: int | None = None) -> Picture:
    """Decode an image file to RGB, and say what it is.

    The result is the first frame of an animation, with EXIF rotation applied, transparency on white, and palette, grey,
    16-bit, float and CMYK converted to 8-bit RGB.

    Parameters
    ----------
    data : bytes
        A complete image file, regardless of its name.
    white : int
        Value that becomes white in a 16-bit file, one of `sixteen_bit.WHITES`.
    side : int, optional
        Sides, in pixels, that suffice: a JPEG may be decoded at a smaller scale, which is quicker.

    Raises
    ------
    BadImage
        As for `decode`.
    """
    _check_size(data)
    with _quiet(data):
        try:
            picture, kind, orientation = _decode(data, white, side)
        except _TooMuchText:
            picture, kind, orientation = _decode(drop_large_text(data), white, side)
    upright = picture.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else picture
    return Picture(upright, Facts(*upright.size, kind))


def read_facts(data: bytes) -> Facts:
    """Return what an image file is without decoding it, except a PNG that may be rotated.

    Parameters
    ----------
    data : bytes
        A file that `decode` reads.

    Raises
    ------
    BadImage
        If it is not an image.
    """
    _check_size(data)
    if data.startswith(b"\x89PNG") and any(mark in data for mark in _LATE_ORIENTATION):
        return decode_picture(data).facts
    try:
        with _quiet(data), _open(data) as image:
            width, height = image.size
            # A PNG here has none, and Pillow would decode it to find out; of a TIFF it has swapped the sides itself.
            if image.format not in ("PNG", "TIFF") and _orientation(image) in _SIDEWAYS:
                width, height = height, width
            return Facts(width, height, _name_format(image))
    except _TooMuchText:
        return decode_picture(data).facts


def measure_peak(data: bytes) -> int:
    """Return the largest value in a 16-bit image file whose range is not known; 0 for all other files, and bad ones.

    Parameters
    ----------
    data : bytes
        Any file. Only one that may have 16 bits is decoded.
    """
    if not has_sixteen_bits(data) or len(data) > MAX_IMAGE_BYTES:
        return 0
    try:
        with _quiet(data), _open(data) as image:
            if not has_unknown_range(image, data):
                return 0
            image.load()
            return find_peak(image, data)
    except BadImage:
        return 0
    except _TooMuchText:
        return measure_peak(drop_large_text(data))


class _TooMuchText(Exception):
    """A PNG has text or a colour profile of more than 1 MiB, which Pillow refuses."""


@contextmanager
def _quiet(data: bytes) -> Iterator[None]:
    """Ignore Pillow's warnings, and what libraries print.

    If threads overlap, the filter of warnings may stay in place, so it must be a narrow one.
    """
    with warnings.catch_warnings(), discard_stderr(data.startswith(TIFF)):
        warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
        yield


def _check_size(data: bytes) -> None:
    if not data:
        raise BadImage("empty file")
    if len(data) > MAX_IMAGE_BYTES:
        raise BadImage(f"file larger than {MAX_IMAGE_BYTES >> 20} MiB")


def _decode(data: bytes, white: int, side: int | None) -> tuple[Image.Image, str, int | None]:
    """Return the picture as it is stored, its format, and its EXIF orientation; the decoder's memory is freed."""
    with _open(data) as image:
        if side is not None:
            image.draft(None, (side, side))
        image.load()
        name, orientation = _name_format(image), _orientation(image)  # TIFF applies it in load, PNG may end with it
        deep = to_eight_bits(image, data, white)
        if deep is None:
            return _rgb(image), name, orientation
        image.close()  # its pixels need up to 400 MB, and so does RGB
    return deep if deep.mode == "RGB" else deep.convert("RGB"), name, orientation


@contextmanager
def _open(data: bytes) -> Iterator[Image.Image]:
    """Open an image file of an acceptable size. Errors of the block are explained as well."""
    kind = "image"
    try:
        if any(width * height > MAX_PIXELS for width, height in list_icon_sizes(data)):
            raise BadImage(_TOO_LARGE)
        with Image.open(io.BytesIO(data), formats=_choose_formats(data)) as image:
            kind = f"{image.format} image"
            if image.width * image.height > MAX_PIXELS:
                raise BadImage(_TOO_LARGE)
            if image.width * image.height == 0:
                raise BadImage(f"{kind} without pixels")
            yield image
    except (BadImage, MemoryError):  # a lack of memory is not a fault of the image
        raise
    except Image.DecompressionBombError:
        raise BadImage(_TOO_LARGE) from None
    except UnidentifiedImageError:
        markup = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
        raise BadImage("HTML, XML or SVG, not an image" if markup else "not a known image format") from None
    except Exception as error:  # Pillow's decoders raise nearly everything on hostile bytes
        if isinstance(error, ValueError) and "MAX_TEXT" in str(error):
            raise _TooMuchText from None
        fault = "truncated" if isinstance(error, EOFError) or "truncated" in str(error) else "damaged"
        raise BadImage(f"{fault} {kind}") from None


_TOO_LARGE = f"more than {MAX_PIXELS // 10**6} million pixels"


def _choose_formats(data: bytes) -> tuple[str, ...]:
    if find_brand(data[:12]) not in HEIF_BRANDS:
        return _FORMATS
    _register_heif()
    return (*_FORMATS, "HEIF")


@cache
def _register_heif() -> None:
    import pi_heif

    pi_heif.register_heif_opener(decode_threads=1, thumbnails=False)


def _name_format(image: Image.Image) -> str:
    name = image.format or ""
    return {"MPO": "JPEG", "DIB": "BMP"}.get(name, name)


def _orientation(image: Image.Image) -> int | None:
    try:
        found = image.getexif().get(0x0112)
    except Exception:  # damaged EXIF costs the rotation, not the picture
        return None
    return found if isinstance(found, int) else None


def _rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        return convert_tiles(image.size, image.crop)
    # Pillow's own conversion would copy what is RGB already: 400 MB of the largest picture.
    return image._new(image.im) if image.mode == "RGB" else image.convert("RGB")
