"""Decodes a large JPEG at a part of its size: an inverse DCT of fewer coefficients, several times as fast.

A model scales every picture to a few hundred pixels, so what the reduced size lacks is hardly seen by it.
"""

from __future__ import annotations

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

SCALES = (8, 4, 2)
"""What the sides of a JPEG can be divided by."""


def reduce_jpeg(image: Image.Image, detail: int) -> tuple[int, int] | None:
    """Let a JPEG be decoded at the smallest size whose shorter side still has `detail` pixels.

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
    scale = next((scale for scale in SCALES if min(size) >= scale * detail), None)
    if scale is None or image.draft(None, (size[0] // scale, size[1] // scale)) is None:
        return None
    return size
