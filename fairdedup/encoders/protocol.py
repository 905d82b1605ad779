"""The protocol of encoders: classes that turn images and captions into vectors of one space.

To add an encoder, write a class with these two methods, and make `loading.load_encoder` return it for its specs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image


class Encoder(Protocol):
    """Turns images and captions into vectors of one space."""

    def encode_images(self, images: list[Image]) -> NDArray[np.float32]:
        """Return a vector for each image.

        Parameters
        ----------
        images : list of n PIL.Image.Image
            RGB images of any size.

        Returns
        -------
        ndarray of shape (n, d), float32
            Vectors of any length; the caller scales them.
        """
        ...

    def encode_texts(self, texts: list[str]) -> NDArray[np.float32]:
        """Return a vector for each caption.

        Parameters
        ----------
        texts : list of n str
            Captions of any length; the encoder may cut them.

        Returns
        -------
        ndarray of shape (n, d), float32
            Vectors of any length; the caller scales them.
        """
        ...


@runtime_checkable
class PreparingEncoder(Encoder, Protocol):
    """An encoder that prepares each picture on its own, perhaps in another process, before it encodes a batch.

    Attributes
    ----------
    prepare : callable
        Turns an RGB picture of any size into the input of `encode_prepared`. It can be pickled without the model.

    It may have ``detail`` (int): pixels of the shorter side with which a picture is as good as a larger one.
    """

    prepare: Callable[[Any], Any]

    def encode_prepared(self, inputs: list[Any]) -> NDArray[np.float32]:
        """Return a vector for each prepared picture: (n, d), as `encode_images` returns it for the picture."""
        ...


class Pending(Protocol):
    """Vectors that may still be computed."""

    def wait(self) -> NDArray[np.float32]:
        """Return the vectors (n, d), once they are there."""
        ...


@runtime_checkable
class PipelinedEncoder(PreparingEncoder, Protocol):
    """An encoder that returns before a batch is done, so that the next one can be prepared meanwhile."""

    def begin_prepared(self, inputs: list[Any]) -> Pending:
        """Begin to encode a batch of prepared pictures, which are copied at once."""
        ...
