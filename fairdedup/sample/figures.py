"""Draw the sample's people: flat, friendly figures of adults at work, from a `Person` and an occupation.

All lengths are in head radii, so that one figure works in every framing.
"""

from __future__ import annotations

from fairdedup.sample.canvas import Canvas, Colour, Point, darker, ellipse_points, lighter, mix, rgb
from fairdedup.sample.outfits import ACCENT_COLOURS, draw_clothes, draw_headgear
from fairdedup.sample.people import Person, Scene
from fairdedup.sample.tools import draw_tool

# The ten tones of the Monk Skin Tone scale (skintone.google), lightest first, in warmer colours. The darkest two are a
# step lighter than the swatches, like skin in light: flat shapes have no highlights that would show a face.
MONK = tuple(
    rgb(code)
    for code in (
        "f6e4d6", "f3ddca", "f2d9ba", "e6cba2", "d3af84",
        "a87c54", "8a5e42", "6b4736", "573a2d", "462f26",
    )
)  # fmt: skip
HAIR = {
    "black": rgb("221d1f"),
    "brown": rgb("5e3d2a"),
    "blond": rgb("d9b162"),
    "red": rgb("a5482a"),
    "dyed": rgb("8a63c9"),
    "grey": rgb("9a9a9e"),
    "white": rgb("e4e3e0"),
}
COVERING = ("engineer", "firefighter", "chef", "farmer")  # occupations whose headgear hides the crown


def draw_person(c: Canvas, scene: Scene, person: Person, x: float, y: float, r: float) -> None:
    """Draw a person.

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
    skin = MONK[person.monk - 1]
    hair = HAIR[person.hair_colour]
    head_x = x + scene.lean * r
    _hair_behind(c, person, scene, hair, head_x, y, r)
    c.box(x - 0.3 * r, y + 0.6 * r, x + 0.3 * r, y + 1.7 * r, darker(skin, 0.14))
    draw_clothes(c, scene, person, x, y, r)
    draw_tool(c, scene, person, skin, x, y, r)
    _head(c, person, skin, head_x, y, r)
    _age_lines(c, person, skin, head_x, y, r)
    _beard(c, person, hair, head_x, y, r)
    _mouth(c, person, skin, head_x, y, r)
    _hair_in_front(c, person, scene, hair, head_x, y, r)
    if person.age == "middle-aged" and person.hair_style not in ("bald", "headscarf"):
        for side in (-1, 1):  # greying temples
            c.oval(head_x + side * 0.8 * r, y - 0.16 * r, 0.11 * r, 0.3 * r, mix(hair, HAIR["grey"], 0.7))
    if person.glasses:
        _glasses(c, person, head_x, y, r)
    draw_headgear(c, scene, head_x, y, r)


def _line_colour(skin: Colour, strength: float = 0.35) -> Colour:
    """Return a colour darker than the skin, or a lighter one if the skin is too dark for visible lines."""
    return darker(skin, strength) if sum(skin) > 240 else lighter(skin, strength * 0.55)


def _head(c: Canvas, person: Person, skin: Colour, x: float, y: float, r: float) -> None:
    wide = 0.8 if person.gender == "woman" else 0.86
    for side in (-1, 1):
        c.oval(x + side * wide * r, y + 0.08 * r, 0.16 * r, 0.22 * r, darker(skin, 0.08))
    c.oval(x, y, wide * r, r, skin)
    if person.gender == "man":  # a squarer jaw
        c.box(x - 0.66 * r, y + 0.1 * r, x + 0.66 * r, y + 0.88 * r, skin, 0.42 * r)
    if person.age == "young":
        blush = mix(skin, rgb("e0604f"), 0.3)
        for side in (-1, 1):
            c.oval(x + side * 0.5 * r, y + 0.32 * r, 0.18 * r, 0.13 * r, blush)
    brow = HAIR[person.hair_colour]
    if sum(brow) < 200 and sum(skin) < 240:
        brow = rgb("100d0d")
    for side in (-1, 1):
        eye = x + side * 0.34 * r
        c.oval(eye, y + 0.02 * r, 0.17 * r, 0.13 * r, rgb("f6f3ee"))
        c.oval(eye, y + 0.03 * r, 0.095 * r, 0.11 * r, rgb("2b2422"))
        if person.gender == "woman":
            c.arc(eye, y + 0.04 * r, 0.19 * r, 0.17 * r, 195, 345, rgb("1b1718"), 0.06 * r)
            c.line(
                [(eye + side * 0.18 * r, y - 0.03 * r), (eye + side * 0.27 * r, y - 0.11 * r)],
                rgb("1b1718"),
                0.05 * r,
            )
        thick = 0.07 if person.gender == "woman" else 0.12
        c.arc(eye, y - 0.08 * r, 0.22 * r, 0.17 * r, 215, 325, brow, thick * r)
    nose = _line_colour(skin, 0.25)
    c.line(
        [(x + 0.02 * r, y + 0.1 * r), (x + 0.1 * r, y + 0.32 * r), (x - 0.02 * r, y + 0.34 * r)],
        nose,
        0.06 * r,
    )
    if person.gender == "woman" and person.hair_style != "headscarf":
        for side in (-1, 1):
            c.oval(x + side * 0.84 * r, y + 0.36 * r, 0.09 * r, 0.09 * r, rgb("f0c63c"))


def _age_lines(c: Canvas, person: Person, skin: Colour, x: float, y: float, r: float) -> None:
    if person.age == "young":
        return
    line = _line_colour(skin, 0.3 if person.age == "middle-aged" else 0.38)
    for side in (-1, 1):  # smile lines, and lines under the eyes
        c.line(
            [
                (x + side * 0.24 * r, y + 0.3 * r),
                (x + side * 0.4 * r, y + 0.5 * r),
                (x + side * 0.38 * r, y + 0.64 * r),
            ],
            line,
            0.055 * r,
        )
        c.arc(x + side * 0.34 * r, y + 0.08 * r, 0.2 * r, 0.16 * r, 30, 150, line, 0.05 * r)
    if person.age == "older":
        for row in (-0.34, -0.46):
            c.arc(x, y + (row + 0.2) * r, 0.44 * r, 0.2 * r, 225, 315, line, 0.05 * r)
        for side in (-1, 1):
            for turn in (-0.07, 0.03, 0.13):
                start = (x + side * 0.54 * r, y + (0.04 + turn * 0.5) * r)
                c.line([start, (x + side * 0.68 * r, y + (0.03 + turn) * r)], line, 0.045 * r)


def _mouth(c: Canvas, person: Person, skin: Colour, x: float, y: float, r: float) -> None:
    if person.gender == "woman":
        lips = mix(skin, rgb("a82c48"), 0.55)
        c.poly(ellipse_points(x, y + 0.52 * r, 0.25 * r, 0.16 * r, 0, 180, 13), lips)
        c.arc(x, y + 0.4 * r, 0.28 * r, 0.15 * r, 35, 145, darker(lips, 0.3), 0.05 * r)
    else:
        c.arc(
            x,
            y + 0.42 * r,
            0.27 * r,
            0.22 * r,
            20,
            160,
            mix(_line_colour(skin, 0.45), rgb("a03c34"), 0.4),
            0.085 * r,
        )


def _beard(c: Canvas, person: Person, hair: Colour, x: float, y: float, r: float) -> None:
    if not person.beard:
        return
    outer = ellipse_points(x, y + 0.1 * r, 0.86 * r, 0.98 * r, 5, 175)
    inner = ellipse_points(x, y + 0.26 * r, 0.6 * r, 0.3 * r, 175, 5)
    beard = hair if person.hair_colour != "black" else rgb("1d1614")
    c.poly(outer + inner, beard)
    c.oval(x, y + 0.56 * r, 0.25 * r, 0.13 * r, MONK[person.monk - 1])
    c.arc(x, y + 0.6 * r, 0.33 * r, 0.2 * r, 195, 345, beard, 0.11 * r)


def _glasses(c: Canvas, person: Person, x: float, y: float, r: float) -> None:
    frame = rgb("2d3142") if person.monk < 8 else rgb("c9b37e")
    for side in (-1, 1):
        c.arc(x + side * 0.35 * r, y + 0.03 * r, 0.27 * r, 0.23 * r, 0, 180, frame, 0.07 * r)
        c.arc(x + side * 0.35 * r, y + 0.03 * r, 0.27 * r, 0.23 * r, 180, 360, frame, 0.07 * r)
        c.line([(x + side * 0.62 * r, y), (x + side * 0.82 * r, y - 0.04 * r)], frame, 0.07 * r)
    c.line([(x - 0.09 * r, y - 0.02 * r), (x + 0.09 * r, y - 0.02 * r)], frame, 0.07 * r)


def _hair_behind(c: Canvas, person: Person, scene: Scene, hair: Colour, x: float, y: float, r: float) -> None:
    style = person.hair_style
    back = darker(hair, 0.12)
    covered = scene.occupation in COVERING
    if style == "long":
        c.box(x - 1.08 * r, y - 0.98 * r, x + 1.08 * r, y + 1.9 * r, back, 0.9 * r)
    elif style == "bob":
        c.box(x - 1.1 * r, y - 1.0 * r, x + 1.1 * r, y + 0.95 * r, back, 0.75 * r)
    elif style == "ponytail":
        c.oval(x + 1.0 * r, y + 0.55 * r, 0.36 * r, 1.0 * r, back)
        c.oval(x, y - 0.1 * r, 0.98 * r, 1.0 * r, back)
    elif style == "bun":
        bun = (x + 0.85 * r, y + 0.55 * r) if covered else (x, y - 1.22 * r)
        c.oval(*bun, 0.46 * r, 0.42 * r, back)
        c.oval(x, y - 0.08 * r, 0.95 * r, 1.0 * r, back)
    elif style == "curls":
        for px, py in ellipse_points(x, y - 0.1 * r, 0.98 * r, 0.92 * r, 150, 390, 9):
            c.oval(px, py, 0.46 * r, 0.46 * r, back)
    elif style == "headscarf":
        scarf = ACCENT_COLOURS[scene.accent]
        c.oval(x, y, 1.12 * r, 1.2 * r, scarf)
        c.box(x - 1.0 * r, y, x + 1.0 * r, y + 1.75 * r, scarf, 0.7 * r)


def _hair_in_front(c: Canvas, person: Person, scene: Scene, hair: Colour, x: float, y: float, r: float) -> None:
    style = person.hair_style
    wide = 0.92 if person.gender == "woman" else 0.95
    if style == "headscarf":
        scarf = ACCENT_COLOURS[scene.accent]
        top = ellipse_points(x, y, 1.02 * r, 1.12 * r, 170, 370)
        c.poly([*top, *ellipse_points(x, y + 0.06 * r, 0.76 * r, 0.72 * r, 370, 170)], scarf)
        return
    if style == "bald":
        for side in (-1, 1):  # hair above the ears
            c.oval(x + side * 0.84 * r, y - 0.14 * r, 0.13 * r, 0.3 * r, hair)
        return
    if style == "buzz cut":
        crown = ellipse_points(x, y, 0.9 * r, 1.03 * r, 195, 345)
        c.poly([*crown, *ellipse_points(x, y + 0.05 * r, 0.8 * r, 0.72 * r, 345, 195)], hair)
        return
    if style == "short curls":
        for px, py in ellipse_points(x, y - 0.22 * r, 0.76 * r, 0.66 * r, 180, 360, 8):
            c.oval(px, py, 0.3 * r, 0.3 * r, hair)
        return
    crown = ellipse_points(x, y, wide * r, 1.1 * r, 185, 355)
    hairline: dict[str, list[Point]] = {
        "side parting": [(0.78, -0.3), (0.6, -0.5), (-0.35, -0.66), (-0.6, -0.45), (-0.86, -0.12)],
        "short": [(0.82, -0.25), (0.5, -0.5), (0.0, -0.56), (-0.5, -0.5), (-0.82, -0.25)],
        "bob": [(0.86, 0.1), (0.74, -0.38), (0.0, -0.42), (-0.74, -0.38), (-0.86, 0.1)],
        "pixie": [(0.86, 0.05), (0.6, -0.35), (0.1, -0.62), (-0.4, -0.28), (-0.88, 0.1)],
    }
    line = hairline.get(style, [(0.88, 0.05), (0.66, -0.36), (0.12, -0.78), (-0.6, -0.42), (-0.88, 0.05)])
    c.poly([*crown, *((x + px * r, y + py * r) for px, py in line)], hair)
    if style == "ponytail":
        c.oval(x + 0.86 * r, y - 0.28 * r, 0.16 * r, 0.16 * r, ACCENT_COLOURS[scene.accent])
