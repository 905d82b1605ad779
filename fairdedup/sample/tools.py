"""Draw what the sample's people carry: an arm, with a tool of the occupation in its hand."""

from __future__ import annotations

from fairdedup.sample.canvas import Canvas, Colour, darker, mix, rgb
from fairdedup.sample.outfits import ACCENT_COLOURS, DENIM, SILVER, WHITE
from fairdedup.sample.people import Person, Scene


def draw_tool(c: Canvas, scene: Scene, person: Person, skin: Colour, x: float, y: float, r: float) -> None:
    """Draw the near arm and the tool in its hand.

    Parameters
    ----------
    c : Canvas
        Canvas to draw on.
    scene : Scene
        What the picture shows.
    person : Person
        The scene's person.
    skin : Colour
        Colour of the hand.
    x, y, r : float
        Centre and radius of the head.
    """
    accent = ACCENT_COLOURS[scene.accent]
    job = scene.occupation
    sleeve = {
        "engineer": darker(accent, 0.25),
        "firefighter": rgb("3d4450"),
        "mechanic": DENIM,
        "farmer": accent,
    }.get(job)
    if sleeve is None:
        sleeve = {"nurse": mix(accent, WHITE, 0.3), "teacher": accent}.get(job, rgb("e9ebee"))
    if job == "office worker":
        sleeve = mix(accent, rgb("3a4256"), 0.55)
    half = 1.45 if person.gender == "woman" else 1.7
    elbow = (x + (half + 0.05) * r, y + 3.1 * r)
    hx, hy = x + 1.35 * r, y + (3.5 - 1.5 * scene.arm) * r
    _TOOLS[job](c, accent, hx, hy, r)
    c.line([(x + (half - 0.3) * r, y + 1.95 * r), elbow, (hx, hy + 0.12 * r)], darker(sleeve, 0.14), 0.6 * r)
    c.oval(hx, hy, 0.33 * r, 0.33 * r, skin)


def _plan(c: Canvas, accent: Colour, x: float, y: float, r: float) -> None:
    c.box(x - 0.85 * r, y - 1.0 * r, x + 0.55 * r, y + 0.5 * r, rgb("3f7fbf"), 0.05 * r)
    c.line(
        [
            (x - 0.6 * r, y + 0.2 * r),
            (x - 0.6 * r, y - 0.6 * r),
            (x + 0.2 * r, y - 0.6 * r),
            (x + 0.2 * r, y),
        ],
        WHITE,
        0.08 * r,
    )


def _extinguisher(c: Canvas, accent: Colour, x: float, y: float, r: float) -> None:
    c.box(x - 0.35 * r, y + 0.1 * r, x + 0.35 * r, y + 1.5 * r, rgb("d62828"), 0.2 * r)
    c.line([(x, y - 0.1 * r), (x - 0.5 * r, y - 0.1 * r), (x - 0.65 * r, y + 0.6 * r)], rgb("22252b"), 0.14 * r)


def _wrench(c: Canvas, accent: Colour, x: float, y: float, r: float) -> None:
    c.line([(x + 0.2 * r, y + 0.6 * r), (x - 0.35 * r, y - 1.0 * r)], SILVER, 0.26 * r)
    c.oval(x - 0.42 * r, y - 1.15 * r, 0.38 * r, 0.38 * r, SILVER)
    c.poly(
        [(x - 0.65 * r, y - 1.65 * r), (x - 0.3 * r, y - 1.62 * r), (x - 0.42 * r, y - 1.1 * r)],
        rgb("6b7078"),
    )


def _basket(c: Canvas, accent: Colour, x: float, y: float, r: float) -> None:
    for dx, colour in ((-0.7, rgb("e4572e")), (-0.2, rgb("76a33a")), (0.3, rgb("f2a541"))):
        c.oval(x + (dx - 0.2) * r, y - 0.1 * r, 0.36 * r, 0.36 * r, colour)
    c.poly(
        [(x - 1.4 * r, y), (x + 0.6 * r, y), (x + 0.35 * r, y + 0.8 * r), (x - 1.15 * r, y + 0.8 * r)],
        rgb("a9743a"),
    )


def _pan(c: Canvas, accent: Colour, x: float, y: float, r: float) -> None:
    c.line([(x + 0.3 * r, y), (x - 0.6 * r, y - 0.15 * r)], rgb("30343c"), 0.2 * r)
    c.oval(x - 1.15 * r, y - 0.22 * r, 0.72 * r, 0.26 * r, rgb("30343c"))
    c.oval(x - 1.15 * r, y - 0.28 * r, 0.55 * r, 0.16 * r, rgb("f3c969"))


def _clipboard(c: Canvas, accent: Colour, x: float, y: float, r: float) -> None:
    c.box(x - 0.9 * r, y - 0.9 * r, x + 0.3 * r, y + 0.7 * r, rgb("9b6b43"), 0.08 * r)
    c.box(x - 0.78 * r, y - 0.7 * r, x + 0.18 * r, y + 0.58 * r, WHITE)
    for row in range(3):
        c.line(
            [(x - 0.62 * r, y + (-0.42 + 0.32 * row) * r), (x + 0.02 * r, y + (-0.42 + 0.32 * row) * r)],
            SILVER,
            0.08 * r,
        )


def _tray(c: Canvas, accent: Colour, x: float, y: float, r: float) -> None:
    c.box(x - 1.5 * r, y - 0.1 * r, x + 0.4 * r, y + 0.1 * r, SILVER, 0.1 * r)
    c.box(x - 1.25 * r, y - 0.75 * r, x - 0.8 * r, y - 0.1 * r, rgb("f2a541"), 0.08 * r)
    c.box(x - 1.25 * r, y - 0.9 * r, x - 0.8 * r, y - 0.7 * r, WHITE)
    c.poly(
        [
            (x - 0.55 * r, y - 0.55 * r),
            (x - 0.05 * r, y - 0.55 * r),
            (x - 0.15 * r, y - 0.1 * r),
            (x - 0.45 * r, y - 0.1 * r),
        ],
        rgb("9bd1e5"),
    )


def _book(c: Canvas, accent: Colour, x: float, y: float, r: float) -> None:
    c.box(x - 1.0 * r, y - 0.9 * r, x + 0.25 * r, y + 0.55 * r, rgb("b5532f"), 0.08 * r)
    c.box(x - 0.92 * r, y - 0.9 * r, x - 0.76 * r, y + 0.55 * r, rgb("7d3418"))
    c.box(x - 0.6 * r, y - 0.6 * r, x + 0.05 * r, y - 0.3 * r, rgb("f4e3c1"), 0.05 * r)


def _flask(c: Canvas, accent: Colour, x: float, y: float, r: float) -> None:
    c.box(x - 0.52 * r, y - 1.35 * r, x - 0.2 * r, y - 0.5 * r, rgb("d5eef2"))
    c.poly(
        [
            (x - 0.52 * r, y - 0.75 * r),
            (x - 0.2 * r, y - 0.75 * r),
            (x + 0.3 * r, y + 0.4 * r),
            (x - 1.02 * r, y + 0.4 * r),
        ],
        rgb("d5eef2"),
    )
    c.poly(
        [
            (x - 0.72 * r, y - 0.2 * r),
            (x, y - 0.2 * r),
            (x + 0.26 * r, y + 0.34 * r),
            (x - 0.98 * r, y + 0.34 * r),
        ],
        rgb("57b947"),
    )


def _mug(c: Canvas, accent: Colour, x: float, y: float, r: float) -> None:
    c.arc(x - 0.95 * r, y - 0.3 * r, 0.28 * r, 0.28 * r, 90, 270, WHITE, 0.13 * r)
    c.box(x - 0.9 * r, y - 0.75 * r, x - 0.05 * r, y + 0.2 * r, WHITE, 0.12 * r)
    c.box(x - 0.9 * r, y - 0.4 * r, x - 0.05 * r, y - 0.2 * r, accent)


_TOOLS = {
    "engineer": _plan,
    "firefighter": _extinguisher,
    "mechanic": _wrench,
    "farmer": _basket,
    "chef": _pan,
    "doctor": _clipboard,
    "nurse": _tray,
    "teacher": _book,
    "scientist": _flask,
    "office worker": _mug,
}
