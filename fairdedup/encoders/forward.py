"""Encodes images as they come, a few batches at a time: a shard's images are never all in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.similarity import unit_float16
from fairdedup.encoders import EncoderSpec, load_encoder

CHUNK = 2  # batches decoded before they are embedded


class Forward:
    """Encodes images batch by batch, as they come.

    Attributes
    ----------
    unit : list of ndarray of shape (b, d), float16
        Zero where a vector cannot be used.
    bad : list of ndarray of shape (b,), int8
        Why not: see `core.similarity.reason`.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        self._encoder = load_encoder(spec)
        self._most = CHUNK * spec.batch_size
        self._images: list[Any] = []
        self._count = 0
        self.unit: list[NDArray[np.float16]] = []
        self.bad: list[NDArray[np.int8]] = []

    def add(self, image: Any) -> int:
        """Take an image in and return its place among the vectors."""
        self._images.append(image)
        self._count += 1
        if len(self._images) >= self._most:
            self.flush()
        return self._count - 1

    def flush(self) -> None:
        """Encode what waits."""
        if self._images:
            unit, bad = unit_float16(self._encoder.encode_images(self._images))
            self.unit.append(unit)
            self.bad.append(bad)
            self._images.clear()
