"""Encodes a stream of images, a few batches at a time, so that the images of a shard are never all in memory.

An encoder that prepares pictures one by one gets prepared ones; of large pictures, only one is then in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.similarity import unit_float16
from fairdedup.encoders import EncoderSpec, load_encoder
from fairdedup.encoders.protocol import PreparingEncoder

CHUNK = 2  # batches decoded before they are embedded


class BatchEncoder:
    """Collects images and encodes them batch by batch.

    Parameters
    ----------
    spec : EncoderSpec
        The encoder; it is loaded at once.

    Attributes
    ----------
    prepare : callable or None
        What turns an RGB picture into what `add` takes; None if it takes the picture itself. It is picklable.
    unit : list of ndarray of shape (b, d), float16
        Unit vectors of the images encoded so far; zero for a vector that cannot be used.
    bad : list of ndarray of shape (b,), int8
        Codes of why a vector cannot be used, which `core.similarity.reason` explains; 0 if it can.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        self._encoder = load_encoder(spec)
        self._most = CHUNK * spec.batch_size
        self.prepare: Callable[[Any], Any] | None = getattr(self._encoder, "prepare", None)
        self._images: list[Any] = []
        self._count = 0
        self.unit: list[NDArray[np.float16]] = []
        self.bad: list[NDArray[np.int8]] = []

    def add(self, image: Any) -> int:
        """Add an RGB image, prepared if `prepare` is not None, and return the position that its vector will have."""
        self._images.append(image)
        self._count += 1
        if len(self._images) >= self._most:
            self.flush()
        return self._count - 1

    def flush(self) -> None:
        """Encode the images that are waiting for a full batch."""
        if self._images:
            encoder = self._encoder
            if isinstance(encoder, PreparingEncoder):
                vectors = encoder.encode_prepared(self._images)
            else:
                vectors = encoder.encode_images(self._images)
            unit, bad = unit_float16(vectors)
            self.unit.append(unit)
            self.bad.append(bad)
            self._images.clear()
