"""Draw what the sample's people wear: clothes and headgear for each occupation."""

from __future__ import annotations

from fairdedup.sample.canvas import Canvas, Colour, darker, ellipse_points, lighter, mix, rgb
from fairdedup.sample.people import Person, Scene

ACCENT_COLOURS = {
    "red": rgb("d1495b"),
    "orange": rgb("f0963c"),
    "teal": rgb("2a9d8f"),
    "navy": rgb("34507e"),
    "purple": rgb("7f5aa8"),
    "green": rgb("6a994e"),
}
WHITE = rgb("f8f8f5")
SILVER = rgb("c8ccd2")
DENIM = rgb("4a6d9c")
YELLOW = rgb("f7d038")


def draw_clothes(c: Canvas, scene: Scene, person: Person, x: float, y: float, r: float) -> None:
    """Draw body, legs and the far arm in the outfit of the occupation.

    Parameters
    ----------
    c : Canvas
        Canvas to draw on.
    scene : Scene
        What the picture shows.
    person : Person
        The scene's person.
    x, y, r : float
        Centre and radius of the head.
    """
    accent = ACCENT_COLOURS[scene.accent]
    job = scene.occupation
    coat = {
        "engineer": darker(accent, 0.25),
        "firefighter": rgb("3d4450"),
        "mechanic": DENIM,
        "farmer": accent,
        "chef": WHITE,
        "doctor": WHITE,
        "scientist": WHITE,
        "nurse": mix(accent, WHITE, 0.3),
        "teacher": accent,
        "office worker": mix(accent, rgb("3a4256"), 0.55),
    }[job]
    half = 1.5 if person.gender == "woman" else 1.75
    waist = 1.12 if person.gender == "woman" else 1.45
    top, hem = y + 1.25 * r, y + 4.6 * r
    for side in (-1, 1):  # legs and shoes, visible in wide pictures only
        legs = rgb("3b4252") if job != "nurse" else coat
        c.box(x + side * 0.62 * r - 0.42 * r, y + 4.2 * r, x + side * 0.62 * r + 0.42 * r, y + 7.6 * r, legs)
        c.box(
            x + side * 0.75 * r - 0.5 * r,
            y + 7.3 * r,
            x + side * 0.75 * r + 0.5 * r,
            y + 7.75 * r,
            rgb("2a2a30"),
            0.2 * r,
        )
    body = [(x - 0.45 * r, top), (x - half * 0.8 * r, top + 0.3 * r), (x - half * r, top + 0.8 * r)]
    body += [(x - waist * r, y + 3.4 * r), (x - (waist + 0.1) * r, hem)]
    c.poly(body + [(2 * x - px, py) for px, py in reversed(body)], coat)
    c.line(
        [
            (x - (half - 0.3) * r, top + 0.72 * r),
            (x - (half + 0.1) * r, y + 3.1 * r),
            (x - (half - 0.25) * r, y + 4.3 * r),
        ],
        darker(coat, 0.1),
        0.62 * r,
    )
    _DETAILS[job](c, accent, x, y, r)


def _v_neck(c: Canvas, colour: Colour, x: float, y: float, r: float, depth: float = 2.1) -> None:
    c.poly([(x - 0.5 * r, y + 1.2 * r), (x + 0.5 * r, y + 1.2 * r), (x, y + depth * r)], colour)


def _engineer(c: Canvas, accent: Colour, x: float, y: float, r: float) -> None:
    vest = rgb("ff8c1a")
    for side in (-1, 1):
        c.poly(
            [
                (x + side * 0.25 * r, y + 1.3 * r),
                (x + side * 1.1 * r, y + 1.5 * r),
                (x + side * 1.15 * r, y + 4.5 * r),
                (x + side * 0.12 * r, y + 4.5 * r),
            ],
            vest,
        )
        c.box(x + side * 0.55 * r - 0.13 * r, y + 1.4 * r, x + side * 0.55 * r + 0.13 * r, y + 4.5 * r, YELLOW)
    c.box(x - 1.12 * r, y + 3.0 * r, x + 1.12 * r, y + 3.3 * r, YELLOW)


def _firefighter(c: Canvas, accent: Colour, x: float, y: float, r: float) -> None:
    for height in (2.3, 3.5):
        c.box(x - 1.35 * r, y + height * r, x + 1.35 * r, y + (height + 0.34) * r, YELLOW)
        c.box(x - 1.35 * r, y + (height + 0.1) * r, x + 1.35 * r, y + (height + 0.24) * r, SILVER)
    c.box(x - 0.08 * r, y + 1.3 * r, x + 0.08 * r, y + 4.6 * r, SILVER)
    c.box(x - 0.6 * r, y + 1.1 * r, x + 0.6 * r, y + 1.5 * r, rgb("2c313a"), 0.15 * r)


def _mechanic(c: Canvas, accent: Colour, x: float, y: float, r: float) -> None:
    _v_neck(c, accent, x, y, r, 1.9)
    c.line([(x, y + 1.9 * r), (x, y + 4.5 * r)], darker(DENIM, 0.35), 0.1 * r)
    c.box(x + 0.35 * r, y + 2.2 * r, x + 1.0 * r, y + 2.6 * r, WHITE, 0.08 * r)
    c.box(x - 1.3 * r, y + 3.7 * r, x + 1.3 * r, y + 4.0 * r, darker(DENIM, 0.35))


def _farmer(c: Canvas, accent: Colour, x: float, y: float, r: float) -> None:
    for side in (-1, 1):
        c.line([(x + side * 0.75 * r, y + 1.45 * r), (x + side * 0.6 * r, y + 2.6 * r)], DENIM, 0.3 * r)
        c.oval(x + side * 0.6 * r, y + 2.6 * r, 0.13 * r, 0.13 * r, YELLOW)
    c.box(x - 0.8 * r, y + 2.4 * r, x + 0.8 * r, y + 4.6 * r, DENIM, 0.15 * r)
    c.box(x - 0.4 * r, y + 2.8 * r, x + 0.4 * r, y + 3.4 * r, darker(DENIM, 0.15), 0.1 * r)


def _chef(c: Canvas, accent: Colour, x: float, y: float, r: float) -> None:
    c.poly([(x - 0.6 * r, y + 1.15 * r), (x + 0.6 * r, y + 1.15 * r), (x, y + 1.85 * r)], accent)
    for side in (-1, 1):
        for row in range(4):
            c.oval(x + side * 0.36 * r, y + (2.2 + 0.6 * row) * r, 0.1 * r, 0.1 * r, rgb("3f4350"))
    c.line([(x + 0.05 * r, y + 1.8 * r), (x - 0.62 * r, y + 4.5 * r)], SILVER, 0.07 * r)


def _white_coat(c: Canvas, accent: Colour, x: float, y: float, r: float) -> None:
    _v_neck(c, accent, x, y, r, 2.7)
    for side in (-1, 1):
        c.poly(
            [
                (x + side * 0.42 * r, y + 1.2 * r),
                (x + side * 0.85 * r, y + 1.55 * r),
                (x + side * 0.05 * r, y + 2.85 * r),
            ],
            rgb("dfe3e8"),
        )
    c.line([(x, y + 2.8 * r), (x, y + 4.6 * r)], SILVER, 0.08 * r)


def _doctor(c: Canvas, accent: Colour, x: float, y: float, r: float) -> None:
    _white_coat(c, accent, x, y, r)
    c.arc(x, y + 1.5 * r, 0.62 * r, 1.15 * r, 0, 180, rgb("30343c"), 0.14 * r)
    c.oval(x + 0.18 * r, y + 2.75 * r, 0.22 * r, 0.22 * r, SILVER)


def _scientist(c: Canvas, accent: Colour, x: float, y: float, r: float) -> None:
    _white_coat(c, accent, x, y, r)
    c.box(x + 0.5 * r, y + 2.9 * r, x + 1.05 * r, y + 3.5 * r, rgb("e6eaee"), 0.05 * r)
    for slot, ink in enumerate((rgb("d1495b"), rgb("34507e"))):
        c.box(x + (0.58 + 0.2 * slot) * r, y + 2.6 * r, x + (0.68 + 0.2 * slot) * r, y + 3.1 * r, ink)


def _nurse(c: Canvas, accent: Colour, x: float, y: float, r: float) -> None:
    _v_neck(c, lighter(accent, 0.8), x, y, r, 1.95)
    c.box(x + 0.4 * r, y + 2.2 * r, x + 0.95 * r, y + 2.95 * r, WHITE, 0.06 * r)
    c.box(x + 0.6 * r, y + 2.32 * r, x + 0.75 * r, y + 2.8 * r, rgb("d1495b"))
    c.box(x + 0.44 * r, y + 2.49 * r, x + 0.91 * r, y + 2.63 * r, rgb("d1495b"))
    c.box(x - 1.0 * r, y + 3.5 * r, x - 0.35 * r, y + 4.2 * r, darker(mix(accent, WHITE, 0.3), 0.1), 0.06 * r)


def _teacher(c: Canvas, accent: Colour, x: float, y: float, r: float) -> None:
    c.poly(
        [
            (x - 0.5 * r, y + 1.2 * r),
            (x + 0.5 * r, y + 1.2 * r),
            (x + 0.3 * r, y + 4.6 * r),
            (x - 0.3 * r, y + 4.6 * r),
        ],
        lighter(accent, 0.75),
    )
    for row in range(4):
        c.oval(x, y + (1.9 + 0.65 * row) * r, 0.08 * r, 0.08 * r, darker(accent, 0.3))
    for side in (-1, 1):
        c.poly(
            [(x, y + 1.45 * r), (x + side * 0.55 * r, y + 1.15 * r), (x + side * 0.45 * r, y + 1.75 * r)],
            WHITE,
        )


def _office_worker(c: Canvas, accent: Colour, x: float, y: float, r: float) -> None:
    _v_neck(c, WHITE, x, y, r, 3.0)
    c.poly(
        [
            (x - 0.14 * r, y + 1.4 * r),
            (x + 0.14 * r, y + 1.4 * r),
            (x + 0.2 * r, y + 2.5 * r),
            (x, y + 2.85 * r),
            (x - 0.2 * r, y + 2.5 * r),
        ],
        accent,
    )
    for side in (-1, 1):
        c.poly(
            [(x + side * 0.45 * r, y + 1.2 * r), (x + side * 0.85 * r, y + 1.7 * r), (x, y + 3.1 * r)],
            darker(mix(accent, rgb("3a4256"), 0.55), 0.2),
        )


_DETAILS = {
    "engineer": _engineer,
    "firefighter": _firefighter,
    "mechanic": _mechanic,
    "farmer": _farmer,
    "chef": _chef,
    "doctor": _doctor,
    "scientist": _scientist,
    "nurse": _nurse,
    "teacher": _teacher,
    "office worker": _office_worker,
}


def draw_headgear(c: Canvas, scene: Scene, x: float, y: float, r: float) -> None:
    """Draw the helmet or hat of the occupation, if it has one.

    Parameters
    ----------
    c : Canvas
        Canvas to draw on.
    scene : Scene
        What the picture shows.
    x, y, r : float
        Centre and radius of the head.
    """
    job = scene.occupation
    if job == "engineer":
        c.poly(ellipse_points(x, y - 0.42 * r, 1.02 * r, 0.92 * r, 180, 360), YELLOW)
        c.box(x - 0.12 * r, y - 1.38 * r, x + 0.12 * r, y - 0.5 * r, darker(YELLOW, 0.12), 0.1 * r)
        c.box(x - 1.18 * r, y - 0.56 * r, x + 1.18 * r, y - 0.38 * r, darker(YELLOW, 0.12), 0.09 * r)
    elif job == "firefighter":
        c.poly(ellipse_points(x, y - 0.42 * r, 1.02 * r, 0.98 * r, 180, 360), rgb("c8332d"))
        c.poly(
            [
                (x - 1.32 * r, y - 0.34 * r),
                (x - 1.0 * r, y - 0.58 * r),
                (x + 1.0 * r, y - 0.58 * r),
                (x + 1.32 * r, y - 0.34 * r),
            ],
            rgb("9e2420"),
        )
        c.poly(
            [
                (x - 0.25 * r, y - 1.15 * r),
                (x + 0.25 * r, y - 1.15 * r),
                (x + 0.2 * r, y - 0.75 * r),
                (x, y - 0.6 * r),
                (x - 0.2 * r, y - 0.75 * r),
            ],
            YELLOW,
        )
    elif job == "chef":
        for dx, dy in ((-0.55, -1.55), (0.0, -1.75), (0.55, -1.55)):
            c.oval(x + dx * r, y + dy * r, 0.52 * r, 0.48 * r, WHITE)
        c.box(x - 0.82 * r, y - 1.5 * r, x + 0.82 * r, y - 0.62 * r, WHITE)
        c.box(x - 0.84 * r, y - 0.78 * r, x + 0.84 * r, y - 0.58 * r, SILVER)
    elif job == "farmer":
        straw = rgb("e3bf6a")
        c.oval(x, y - 0.58 * r, 1.6 * r, 0.24 * r, darker(straw, 0.12))
        c.poly(ellipse_points(x, y - 0.6 * r, 0.85 * r, 0.82 * r, 180, 360), straw)
        c.box(x - 0.86 * r, y - 0.82 * r, x + 0.86 * r, y - 0.6 * r, rgb("8a4b2a"))
    elif job == "scientist":
        c.box(x - 0.8 * r, y - 0.86 * r, x + 0.8 * r, y - 0.52 * r, rgb("2f6f8f"), 0.16 * r)
        for side in (-1, 1):
            c.box(
                x + side * 0.37 * r - 0.28 * r,
                y - 0.8 * r,
                x + side * 0.37 * r + 0.28 * r,
                y - 0.58 * r,
                rgb("bfe6ee"),
                0.1 * r,
            )
