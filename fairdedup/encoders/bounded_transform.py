"""The preprocessing of an open_clip model, with bounded work for pictures of any shape.

CLIP scales the shorter edge to the model's size and then crops the centre: a picture of 20,000 x 1 pixels would become
one of 4,480,000 x 224. Where the scaled picture is too large, only the part that the crop keeps is scaled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST = 1 << 24
"""Number of pixels of the largest picture that is scaled as a whole: 50 MB."""

MARGIN = 64  # pixels around the part that is scaled; more than the bicubic filter looks at is added where it shrinks


@dataclass(frozen=True)
class BoundedTransform:
    """Prepares pictures as a model's own transform does; it is picklable.

    The pixels are those of the model's own transform, exactly so for every picture whose scaled version has at most
    `LARGEST` pixels. For longer ones a channel may differ by a step or two, where rounding falls the other way.

    Attributes
    ----------
    transform : torchvision.transforms.Compose
        The transform of a model for inference.
    """

    transform: Any

    def __call__(self, image: Image) -> Any:
        """Return the tensor of an RGB picture."""
        steps = getattr(self.transform, "transforms", None) or []
        if not steps:
            return self.transform(image)
        first = steps[0]
        size = _scaled_size(first, image)
        if size is None or (min(size) >= 1 and size[0] * size[1] <= LARGEST):
            return self.transform(image)
        shortest = getattr(first, "size", None)
        if isinstance(shortest, int) and type(first).__name__ == "Resize" and _crops_square(steps, shortest):
            image, rest = _scale_centre(image, shortest, size, first.interpolation), steps[1:]
            for step in rest:
                image = step(image)
            return image
        return self.transform(_crop_to_ratio(image, min(first.size) if not isinstance(first.size, int) else first.size))


def _scaled_size(first: Any, image: Image) -> tuple[int, int] | None:
    """Return width and height to which the first step of a transform scales a picture; None if they are fixed."""
    kind, size = type(first).__name__, getattr(first, "size", None)
    if kind == "Resize" and isinstance(size, (list, tuple)) and len(size) == 1:
        size = size[0]
    if kind == "Resize" and isinstance(size, int):
        short, long = sorted(image.size)
        scaled = int(size * long / short)  # as torchvision does
        return (size, scaled) if image.width <= image.height else (scaled, size)
    if kind == "ResizeKeepRatio":
        height, width = first.get_params(image, first.size, first.longest)
        return width, height
    return None


def _crops_square(steps: list[Any], size: int) -> bool:
    wanted = getattr(steps[1], "size", None) if len(steps) > 1 and type(steps[1]).__name__ == "CenterCrop" else None
    return wanted == size or (isinstance(wanted, (list, tuple)) and tuple(wanted) == (size, size))


def _scale_centre(image: Image, size: int, scaled: tuple[int, int], interpolation: Any) -> Image:
    """Return the square of `size` pixels that scaling to `scaled` and cropping the centre would give."""
    from torchvision.transforms.functional import pil_modes_mapping

    box = []
    for whole, target in zip(image.size, scaled, strict=True):
        first = round((target - size) / 2.0)  # as torchvision's CenterCrop does
        box.append((first * whole / target, (first + size) * whole / target))
    # Pillow takes the box in float32, so it gets one whose numbers are small.
    around = []
    for (low, high), whole in zip(box, image.size, strict=True):
        margin = MARGIN + 4 * int((high - low) / size)
        around.append((max(0, int(low) - margin), min(whole, int(high) + margin + 1)))
    (left, right), (top, bottom) = around
    part = image.crop((left, top, right, bottom))
    (x0, x1), (y0, y1) = box
    resample = pil_modes_mapping[interpolation]

    def scale_width(part: Image) -> Image:
        return part.resize((size, part.height), resample, box=(x0 - left, 0, x1 - left, part.height))

    def scale_height(part: Image) -> Image:
        return part.resize((part.width, size), resample, box=(0, y0 - top, part.width, y1 - top))

    # The order in which Pillow would scale the whole picture; each step rounds to 8 bits.
    if scaled[0] < image.width and image.height > image.width:
        return scale_width(scale_height(part))
    return scale_height(scale_width(part))


def _crop_to_ratio(image: Image, ratio: int) -> Image:
    """Return the centre of a picture, at most `ratio` times as long as it is wide."""
    width, height = (
        min(own, ratio * other) for own, other in ((image.width, image.height), (image.height, image.width))
    )
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
