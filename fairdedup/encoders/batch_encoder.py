"""Encodes a stream of images, a few batches at a time, so that the images of a shard are never all in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.similarity import unit_float16
from fairdedup.encoders import EncoderSpec, load_encoder

if TYPE_CHECKING:
    from PIL.Image import Image

CHUNK = 2  # batches decoded before they are embedded


class BatchEncoder:
    """Collects images and encodes them batch by batch.

    Parameters
    ----------
    spec : EncoderSpec
        The encoder; it is loaded at once.

    Attributes
    ----------
    unit : list of ndarray of shape (b, d), float16
        Unit vectors of the images encoded so far; zero for a vector that cannot be used.
    bad : list of ndarray of shape (b,), int8
        Codes of why a vector cannot be used, which `core.similarity.reason` explains; 0 if it can.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        self._encoder = load_encoder(spec)
        self._most = CHUNK * spec.batch_size
        self._images: list[Image] = []
        self._count = 0
        self.unit: list[NDArray[np.float16]] = []
        self.bad: list[NDArray[np.int8]] = []

    def add(self, image: Image) -> int:
        """Add an RGB image and return the position that its vector will have."""
        self._images.append(image)
        self._count += 1
        if len(self._images) >= self._most:
            self.flush()
        return self._count - 1

    def flush(self) -> None:
        """Encode the images that are waiting for a full batch."""
        if self._images:
            unit, bad = unit_float16(self._encoder.encode_images(self._images))
            self.unit.append(unit)
            self.bad.append(bad)
            self._images.clear()
