"""A small drawing surface for the sample: plain, antialiased shapes in picture coordinates. Writes no file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

SIDE = 128  # pixels of the finished picture
OVER = 3  # each finished pixel is the mean of OVER x OVER drawn ones


def rgb(code: str) -> Colour:
    """Return the colour of a hex code such as "f6ede4"."""
    return int(code[0:2], 16), int(code[2:4], 16), int(code[4:6], 16)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """Return a mixture of two colours: `share` (0 to 1) of `b`, the rest of `a`."""
    return (
        round(a[0] + (b[0] - a[0]) * share),
        round(a[1] + (b[1] - a[1]) * share),
        round(a[2] + (b[2] - a[2]) * share),
    )


def darker(colour: Colour, share: float = 0.2) -> Colour:
    """Return a colour mixed with a `share` of black."""
    return mix(colour, (0, 0, 0), share)


def lighter(colour: Colour, share: float = 0.2) -> Colour:
    """Return a colour mixed with a `share` of white."""
    return mix(colour, (255, 255, 255), share)


class Canvas:
    """Shapes in a world of 128 x 128 units, seen through a camera that shifts, zooms and mirrors."""

    def __init__(self, background: Colour) -> None:
        self.image = Image.new("RGB", (SIDE * OVER, SIDE * OVER), background)
        self.pen = ImageDraw.Draw(self.image)
        self.zoom, self.dx, self.dy, self.flip = 1.0, 0.0, 0.0, 1.0

    def look(self, zoom: float, dx: float, dy: float, mirrored: bool) -> None:
        """Set the camera: it zooms and mirrors about the centre, then shifts by (dx, dy)."""
        self.zoom, self.dx, self.dy, self.flip = zoom, dx, dy, -1.0 if mirrored else 1.0

    def _at(self, x: float, y: float) -> Point:
        half = SIDE / 2
        return (
            OVER * ((x - half) * self.zoom * self.flip + half + self.dx),
            OVER * ((y - half) * self.zoom + half + self.dy),
        )

    def _corners(self, x0: float, y0: float, x1: float, y1: float) -> tuple[float, float, float, float]:
        (a, b), (c, d) = self._at(x0, y0), self._at(x1, y1)
        return min(a, c), min(b, d), max(a, c), max(b, d)

    def _wide(self, width: float) -> int:
        return max(1, round(width * self.zoom * OVER))

    def oval(self, x: float, y: float, rx: float, ry: float, fill: Colour) -> None:
        """Draw a filled ellipse about (x, y)."""
        self.pen.ellipse(self._corners(x - rx, y - ry, x + rx, y + ry), fill=fill)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Colour, radius: float = 0.0) -> None:
        """Draw a filled rectangle, its corners rounded by `radius`."""
        corners = self._corners(x0, y0, x1, y1)
        if radius:
            self.pen.rounded_rectangle(corners, self._wide(radius), fill=fill)
        else:
            self.pen.rectangle(corners, fill=fill)

    def poly(self, points: Sequence[Point], fill: Colour) -> None:
        """Draw a filled polygon."""
        self.pen.polygon([self._at(x, y) for x, y in points], fill=fill)

    def line(self, points: Sequence[Point], fill: Colour, width: float) -> None:
        """Draw a line with round joints and ends."""
        wide = self._wide(width)
        placed = [self._at(x, y) for x, y in points]
        self.pen.line(placed, fill=fill, width=wide, joint="curve")
        if wide > 4:
            for x, y in (placed[0], placed[-1]):
                self.pen.ellipse((x - wide / 2, y - wide / 2, x + wide / 2, y + wide / 2), fill=fill)

    def arc(
        self, x: float, y: float, rx: float, ry: float, start: float, stop: float, fill: Colour, width: float
    ) -> None:
        """Draw a stroke along an ellipse from `start` to `stop` degrees, clockwise from the right."""
        self.line(ellipse_points(x, y, rx, ry, start, stop, 9), fill, width)

    def finish(self, tint: tuple[float, float, float]) -> Image.Image:
        """Return the picture at its final size, with each colour channel multiplied by `tint`."""
        small = np.asarray(self.image.reduce(OVER), dtype=np.float32)  # (128, 128, 3)
        lit = small * np.asarray(tint, dtype=np.float32)
        return Image.fromarray(np.clip(lit + 0.5, 0, 255).astype(np.uint8))


def ellipse_points(x: float, y: float, rx: float, ry: float, start: float, stop: float, count: int = 25) -> list[Point]:
    """Return points along an ellipse from `start` to `stop` degrees, clockwise from the right."""
    angles = np.radians(np.linspace(start, stop, count))
    return [(x + rx * float(c), y + ry * float(s)) for c, s in zip(np.cos(angles), np.sin(angles), strict=True)]
