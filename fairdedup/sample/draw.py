"""Draw a `Scene` as a 128 x 128 picture with PIL alone: the place, the person, then the light on both."""

from __future__ import annotations

from PIL import Image

from fairdedup.sample.canvas import Canvas
from fairdedup.sample.figures import draw_person
from fairdedup.sample.people import Scene
from fairdedup.sample.places import BACKDROPS, draw_place

# Height (y) of the head's centre, head radius, and how near the camera is to the room behind.
FRAMES = {"close-up": (58.0, 27.0, 1.35), "half-length": (44.0, 17.5, 1.12), "wide": (36.0, 11.0, 1.0)}
TINTS = {"daylight": (1.0, 1.0, 1.0), "evening light": (1.03, 0.93, 0.8), "dim light": (0.78, 0.76, 0.8)}


def draw_scene(scene: Scene) -> Image.Image:
    """Return the picture of a scene.

    Parameters
    ----------
    scene : Scene
        What the picture shows. Equal scenes give equal pixels.

    Returns
    -------
    PIL.Image.Image
        RGB, 128 x 128.
    """
    head_y, radius, near = FRAMES[scene.framing]
    canvas = Canvas(BACKDROPS[scene.backdrop])
    canvas.look(near * scene.zoom, 0.5 * scene.x, 0.5 * scene.y, scene.mirrored)  # the room moves less than the person
    draw_place(canvas, scene)
    if scene.person is not None:
        canvas.look(scene.zoom, scene.x, scene.y, scene.mirrored)
        draw_person(canvas, scene, scene.person, 64.0, head_y, radius)
    return canvas.finish(TINTS[scene.light])
