"""Converts pictures tile by tile, so that a conversion needs memory for its result and for one tile besides."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from PIL import Image

SIDE = 512
"""Pixels of each side of a tile; those at the edges are smaller."""

Box = tuple[int, int, int, int]


def iterate_tiles(size: tuple[int, int]) -> Iterator[Box]:
    """Yield left, top, right and bottom of the tiles that cover a picture.

    Parameters
    ----------
    size : (int, int)
        Width and height in pixels.
    """
    width, height = size
    for top in range(0, height, SIDE):
        for left in range(0, width, SIDE):
            yield left, top, min(left + SIDE, width), min(top + SIDE, height)


def convert_tiles(size: tuple[int, int], convert: Callable[[Box], Image.Image], mode: str = "RGB") -> Image.Image:
    """Return a picture of converted tiles, with what is transparent on white.

    Parameters
    ----------
    size : (int, int)
        Width and height in pixels.
    convert : callable
        Returns the tile of a box, with 8 bits a channel.
    mode : {"RGB", "L"}
        Mode of the result. Tiles for "L" must be grey and opaque.
    """
    whole = Image.new(mode, size, "white")
    for box in iterate_tiles(size):
        tile = convert(box)
        if tile.has_transparency_data:
            layer = tile if tile.mode == "RGBA" else tile.convert("RGBA")
            whole.paste(layer, box, layer)
        else:
            whole.paste(tile if tile.mode == mode else tile.convert(mode), box)
    return whole
