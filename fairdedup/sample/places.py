"""Draw the sample's workplaces. The layout seed of a scene places the furniture."""

from __future__ import annotations

import numpy as np

from fairdedup.sample.canvas import Canvas, Colour, darker, lighter, mix, rgb
from fairdedup.sample.people import Scene

BACKDROPS = {
    "cream": rgb("efe0c2"),
    "blue": rgb("a9cfe8"),
    "green": rgb("b7d8b0"),
    "pink": rgb("efc3c8"),
    "grey": rgb("c3c6cc"),
    "clear": rgb("9fd3f2"),
    "cloudy": rgb("c9d0d6"),
    "sunset": rgb("f5b98a"),
}
FAR = 40  # how far places extend beyond the edges of the picture, for a camera that moves


def draw_place(c: Canvas, scene: Scene) -> None:
    """Draw the workplace of a scene over the whole canvas.

    Parameters
    ----------
    c : Canvas
        Canvas to draw on.
    scene : Scene
        What the picture shows.
    """
    _PLACES[scene.place](c, BACKDROPS[scene.backdrop], np.random.default_rng(scene.layout))


def _floor(c: Canvas, y: float, colour: Colour) -> None:
    c.box(-FAR, y, 128 + FAR, 128 + FAR, colour)


def _shelf(c: Canvas, rng: np.random.Generator, x0: float, x1: float, y: float, colours: tuple[str, ...]) -> None:
    c.box(x0, y, x1, y + 2.5, rgb("8d6e4f"))
    x = x0 + 2
    while x < x1 - 6:
        wide, tall = float(rng.uniform(3, 6)), float(rng.uniform(7, 15))
        c.box(x, y - tall, x + wide, y, rgb(colours[int(rng.integers(len(colours)))]), 0.8)
        x += wide + float(rng.uniform(0.6, 3))


def _window(c: Canvas, x: float, y: float, w: float, h: float, sky: Colour) -> None:
    c.box(x - 2, y - 2, x + w + 2, y + h + 2, rgb("fbfbf8"))
    c.box(x, y, x + w, y + h, sky)
    c.box(x + w / 2 - 1, y, x + w / 2 + 1, y + h, rgb("fbfbf8"))


def _studio(c: Canvas, wall: Colour, rng: np.random.Generator) -> None:
    c.oval(64, 52, 85, 75, lighter(wall, 0.25))
    c.oval(64, 52, 55, 50, lighter(wall, 0.42))


def _office(c: Canvas, wall: Colour, rng: np.random.Generator) -> None:
    x = float(rng.uniform(2, 14))
    _window(c, x, 14, 52, 46, rgb("cfe6f5"))
    for tower in range(5):
        tall = float(rng.uniform(10, 34))
        c.box(
            x + 2 + tower * 10,
            60 - tall,
            x + 10 + tower * 10,
            60,
            rgb(("7d93a8", "93a7b8", "6b8299")[tower % 3]),
        )
    _floor(c, 100, rgb("9a8f86"))
    c.box(86, 92, 172, 97, rgb("b98a5a"))
    c.box(94, 66, 122, 86, rgb("2f343d"), 2)
    c.box(96, 68, 120, 84, rgb("7fb8d8"))
    c.box(106, 86, 110, 92, rgb("2f343d"))
    for leaf in (-7, -2, 4, 9):
        c.line([(72, 92), (72 + leaf, 74 + abs(leaf))], rgb("4d8b4f"), 3)
    c.box(67, 90, 77, 101, rgb("c8693e"), 1.5)


def _classroom(c: Canvas, wall: Colour, rng: np.random.Generator) -> None:
    board = rgb(("2f5d50", "3a4450")[int(rng.integers(2))])
    c.box(6, 14, 116, 66, rgb("a87b4f"))
    c.box(9, 17, 113, 63, board)
    chalk = lighter(board, 0.75)
    for row in range(3):
        start = float(rng.uniform(14, 22))
        c.line([(start, 26 + 11 * row), (start + float(rng.uniform(18, 36)), 26 + 11 * row)], chalk, 1.6)
    c.poly([(86, 54), (96, 32), (106, 54)], chalk)
    c.poly([(89, 52), (96, 37), (103, 52)], board)
    _floor(c, 104, rgb("b79a73"))
    c.box(-30, 92, 46, 97, rgb("c89a62"))
    c.oval(18, 82, 8, 8, rgb("5aa0d0"))
    c.oval(16, 80, 4, 3, rgb("6fb36a"))
    c.box(16, 89, 20, 92, rgb("6b4a2e"))


def _hospital_ward(c: Canvas, wall: Colour, rng: np.random.Generator) -> None:
    x = float(rng.uniform(60, 80))
    _window(c, x, 14, 38, 34, rgb("d8ecf7"))
    _floor(c, 104, rgb("b9c7c9"))
    c.box(-30, 78, 52, 92, rgb("f7f9fa"), 4)
    c.box(-30, 84, 52, 94, rgb("8fc7c9"))
    c.box(40, 62, 46, 108, rgb("9aa4ab"))
    c.box(-10, 70, 14, 80, rgb("ffffff"), 4)
    stand = float(rng.uniform(20, 34))
    c.line([(stand, 20), (stand, 78)], rgb("9aa4ab"), 1.6)
    c.box(stand - 5, 20, stand + 5, 36, rgb("d9eef5"), 2)
    c.box(104, 58, 128, 76, rgb("2f343d"), 2)
    c.line([(106, 67), (111, 67), (114, 61), (117, 72), (120, 67), (126, 67)], rgb("63d471"), 1.4)


def _clinic(c: Canvas, wall: Colour, rng: np.random.Generator) -> None:
    x = float(rng.uniform(6, 16))
    c.box(x, 12, x + 28, 54, rgb("fdfdfb"))
    for row, wide in enumerate((3.6, 2.8, 2.2, 1.6)):
        for letter in range(row + 1):
            lx = x + 14 + (letter - row / 2) * (wide * 2.4)
            c.box(lx - wide, 17 + 9 * row, lx + wide, 17 + 9 * row + wide * 1.7, rgb("3c4048"))
    c.box(84, 16, 168, 62, rgb("f4f6f7"), 2)
    c.box(102, 26, 110, 50, rgb("d1495b"))
    c.box(94, 34, 118, 42, rgb("d1495b"))
    _floor(c, 102, rgb("c6b9a6"))
    c.box(-30, 84, 40, 102, rgb("6fa3b5"), 3)


def _laboratory(c: Canvas, wall: Colour, rng: np.random.Generator) -> None:
    glass = ("7ec8a9", "e88b7d", "8fb7e8", "f0cf72", "c79be0")
    _shelf(c, rng, -30, 56, 34, glass)
    _shelf(c, rng, 76, 160, 34, glass)
    _shelf(c, rng, -30, 50, 62, glass)
    c.box(-FAR, 92, 168, 98, rgb("e3e7ea"))
    _floor(c, 98, rgb("7a8a99"))
    c.box(92, 88, 116, 92, rgb("39404a"), 1.5)
    c.line([(112, 88), (112, 70), (100, 64)], rgb("39404a"), 4)
    c.line([(96, 78), (104, 60)], rgb("39404a"), 6)


def _kitchen(c: Canvas, wall: Colour, rng: np.random.Generator) -> None:
    for row in range(-2, 13):
        c.line([(-FAR, row * 8), (168, row * 8)], darker(wall, 0.07), 0.7)
    for column in range(-4, 21):
        c.line([(column * 8, -FAR), (column * 8, 96)], darker(wall, 0.07), 0.7)
    c.box(-FAR, 14, 168, 16.5, rgb("7a7f86"))
    for slot in range(5):
        x = 10 + 26 * slot + float(rng.uniform(-4, 4))
        c.line([(x, 16), (x, 26)], rgb("555a61"), 1.6)
        c.oval(x, 31, 6.5, 6.5, rgb(("b0683a", "4a4f57", "8d9299")[int(rng.integers(3))]))
    c.box(-FAR, 88, 168, 94, rgb("d6d9dc"))
    _floor(c, 94, rgb("6f757d"))
    c.box(4, 76, 30, 88, rgb("9aa0a7"), 2)
    c.box(100, 80, 122, 88, rgb("b0683a"), 2)


def _construction_site(c: Canvas, sky: Colour, rng: np.random.Generator) -> None:
    mast = float(rng.uniform(88, 108))
    steel = rgb("e0a526")
    c.line([(mast, 104), (mast, 6)], steel, 3)
    c.line([(mast - 62, 14), (mast + 24, 14)], steel, 2.4)
    c.line([(mast - 44, 14), (mast - 44, 36)], rgb("555a61"), 1)
    c.box(mast - 49, 36, mast - 39, 42, rgb("8d5a3b"))
    tall = float(rng.uniform(34, 56))
    c.box(-30, 104 - tall, 34, 104, rgb("a8a29a"))
    for row in range(4):
        for column in range(3):
            c.box(-4 + 13 * column, 110 - tall + 12 * row, 4 + 13 * column, 117 - tall + 12 * row, rgb("6b6a6b"))
    _floor(c, 100, rgb("b48f62"))
    c.poly([(88, 106), (112, 84), (138, 106)], rgb("d3b078"))


def _field(c: Canvas, sky: Colour, rng: np.random.Generator) -> None:
    c.oval(float(rng.uniform(14, 40)), 24, 10, 10, rgb("fbe08a"))
    c.oval(30, 92, 80, 30, rgb("8fb86a"))
    c.oval(120, 96, 70, 34, rgb("7aa858"))
    _floor(c, 84, rgb("a5b860"))
    for row in range(9):
        x = -60 + 31 * row
        c.line([(64 + (x - 64) * 0.35, 84), (x, 170)], rgb("7d7a3e"), 2.5)
    barn = float(rng.uniform(84, 100))
    c.box(barn, 62, barn + 30, 88, rgb("b8433a"))
    c.poly([(barn - 4, 63), (barn + 15, 46), (barn + 34, 63)], rgb("7c2f2a"))
    c.box(barn + 10, 70, barn + 20, 88, rgb("f0e6d8"))


def _garage(c: Canvas, wall: Colour, rng: np.random.Generator) -> None:
    c.box(4, 12, 60, 52, rgb("c79f6b"), 1.5)
    for slot in range(6):
        x, tall = 11 + 8.5 * slot, float(rng.uniform(14, 28))
        c.line([(x, 18), (x, 18 + tall)], rgb("565c66"), 2.4)
        c.oval(x, 18, 2.8, 2.8, rgb(("d1495b", "565c66", "e0a526")[int(rng.integers(3))]))
    _floor(c, 100, rgb("7b7f86"))
    paint = rgb(("c8443c", "3f78b5", "e6b93a")[int(rng.integers(3))])
    c.poly([(78, 80), (88, 60), (128, 60), (176, 80)], mix(paint, rgb("ffffff"), 0.1))
    c.poly([(85, 78), (92, 64), (110, 64), (110, 78)], rgb("cfe6f0"))
    c.box(66, 78, 176, 100, paint, 5)
    c.oval(88, 101, 11, 11, rgb("2a2d33"))
    c.oval(88, 101, 5, 5, rgb("b8bcc2"))


def _fire_station(c: Canvas, wall: Colour, rng: np.random.Generator) -> None:
    brick = mix(wall, rgb("b5654a"), 0.5)
    c.box(-FAR, -FAR, 168, 104, brick)
    for row in range(-3, 13):
        c.line([(-FAR, row * 8), (168, row * 8)], lighter(brick, 0.2), 0.7)
    _floor(c, 104, rgb("8b8d92"))
    x = float(rng.uniform(-16, -2))
    c.box(x, 44, x + 150, 102, rgb("cf2e2e"), 4)
    c.box(x, 76, x + 150, 82, rgb("f4f4f0"))
    c.box(x + 8, 50, x + 40, 70, rgb("cfe6f0"), 2)
    c.line([(x + 40, 40), (x + 150, 40)], rgb("d5d8dc"), 2)
    c.line([(x + 40, 34), (x + 150, 34)], rgb("d5d8dc"), 2)
    for rung in range(9):
        c.line([(x + 46 + 12 * rung, 34), (x + 46 + 12 * rung, 40)], rgb("d5d8dc"), 1.4)
    for wheel in (26, 118):
        c.oval(x + wheel, 102, 11, 11, rgb("26282d"))
        c.oval(x + wheel, 102, 5, 5, rgb("c4c8cd"))


_PLACES = {
    "studio": _studio,
    "office": _office,
    "classroom": _classroom,
    "hospital ward": _hospital_ward,
    "clinic": _clinic,
    "laboratory": _laboratory,
    "kitchen": _kitchen,
    "construction site": _construction_site,
    "field": _field,
    "garage": _garage,
    "fire station": _fire_station,
}
