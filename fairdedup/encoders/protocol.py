"""The protocol of encoders: classes that turn images and captions into vectors of one space.

To add an encoder, write a class with these two methods, and make `loading.load_encoder` return it for its specs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

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
