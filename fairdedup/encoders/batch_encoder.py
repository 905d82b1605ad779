"""Encodes a stream of images batch by batch, so that the images of a shard are never all in memory.

An encoder that prepares pictures one by one gets prepared ones; of large pictures, only one is then in memory. A GPU
computes a batch while the next one is decoded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.similarity import unit_float16
from fairdedup.encoders import EncoderSpec, load_encoder
from fairdedup.encoders.protocol import Pending, PipelinedEncoder, PreparingEncoder

AHEAD = 1  # batches whose vectors are not waited for before the next one


def check_loads(spec: EncoderSpec) -> None:
    """Load an encoder; the worker keeps it. It raises what `load_encoder` does.

    Parameters
    ----------
    spec : EncoderSpec
        The encoder.
    """
    load_encoder(spec)


class BatchEncoder:
    """Collects images and encodes them batch by batch.

    Parameters
    ----------
    spec : EncoderSpec
        The encoder; it is loaded at once.

    Attributes
    ----------
    batch_size : int
        Images of a full batch, which is encoded as soon as it is complete.
    prepare : callable or None
        What turns an RGB picture into what `add` takes; None if it takes the picture itself. It is picklable.
    detail : int
        Pixels of the shorter side that `prepare` needs; 0 if that is not known.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        self._encoder = load_encoder(spec)
        self.batch_size = spec.batch_size
        self.prepare: Callable[[Any], Any] | None = getattr(self._encoder, "prepare", None)
        self.detail: int = getattr(self._encoder, "detail", 0)
        self._images: list[Any] = []
        self._count = 0
        self._pending: deque[Pending] = deque()
        self._unit: list[NDArray[np.float16]] = []
        self._faults: list[NDArray[np.int8]] = []

    def add(self, image: Any) -> int:
        """Add an RGB image, prepared if `prepare` is not None, and return the position that its vector will have."""
        self._images.append(image)
        self._count += 1
        if len(self._images) >= self.batch_size:
            self.flush()
        return self._count - 1

    def flush(self) -> None:
        """Encode the images that are waiting for a full batch; the next image begins a new one."""
        if not self._images:
            return
        encoder = self._encoder
        if isinstance(encoder, PipelinedEncoder):
            self._pending.append(encoder.begin_prepared(self._images))
            self._wait(AHEAD)
        elif isinstance(encoder, PreparingEncoder):
            self._keep(encoder.encode_prepared(self._images))
        else:
            self._keep(encoder.encode_images(self._images))
        self._images.clear()

    def _wait(self, most: int) -> None:
        """Wait until the vectors of at most so many batches are missing."""
        while len(self._pending) > most:
            self._keep(self._pending.popleft().wait())

    def _keep(self, vectors: NDArray[np.float32]) -> None:
        unit, faults = unit_float16(vectors)
        self._unit.append(unit)
        self._faults.append(faults)

    def collect_vectors(self) -> NDArray[np.float16]:
        """Return the unit vectors of the images encoded so far: (n, d), (0, 0) without any; zero where unusable."""
        self._wait(0)
        return np.concatenate(self._unit) if self._unit else np.zeros((0, 0), np.float16)

    def collect_faults(self) -> list[int]:
        """Return why each vector cannot be used, as codes that `core.similarity.reason` explains; 0 if it can."""
        self._wait(0)
        return np.concatenate(self._faults).tolist() if self._faults else []
