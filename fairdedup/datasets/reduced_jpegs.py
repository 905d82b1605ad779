"""Decodes a large JPEG at a part of its size: an inverse DCT of fewer coefficients, several times as fast.

A model scales every picture to a few hundred pixels, so what the reduced size lacks is hardly seen by it.
"""

from __future__ import annotations

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

SCALES = (8, 4, 2)
"""What the sides of a JPEG can be divided by."""

STRETCH = 0.002
"""Share of a side by which a reduced picture may be too large, since its sides are rounded up to whole pixels."""


def reduce_jpeg(image: Image.Image, detail: int) -> tuple[int, int] | None:
    """Let a JPEG be decoded at the smallest size whose shorter side still has `detail` pixels.

    A size whose rounding would stretch the picture by more than `STRETCH` is not taken.

    Parameters
    ----------
    image : PIL.Image.Image
        A file that is open and not loaded yet.
    detail : int
        Pixels of the shorter side that are needed; 0 leaves every file at its size.

    Returns
    -------
    (int, int) or None
        Width and height of the file; None if it is decoded at that size.
    """
    if not detail or not isinstance(image, JpegImageFile):
        return None
    size = image.size
    scale = next(
        (scale for scale in SCALES if min(size) >= scale * detail and _measure_stretch(size, scale) <= STRETCH), None
    )
    if scale is None or image.draft(None, (size[0] // scale, size[1] // scale)) is None:
        return None
    return size


def _measure_stretch(size: tuple[int, int], scale: int) -> float:
    """Return by which share of a side a picture becomes too large if its sides are divided and rounded up."""
    return max(-side % scale / side for side in size)
