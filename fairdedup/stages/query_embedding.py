"""Embeds one picture or one text by the encoder of a run, as unit vectors that its rows can be compared with.

A picture is decoded as the run decodes its own. The tasks load a model, so they never run in the process of a command.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.similarity import reason, unit_float16
from fairdedup.encoders import EncoderSpec, load_encoder
from fairdedup.errors import UserError


def embed_text(text: str, spec: EncoderSpec) -> NDArray[np.float16]:
    """Return the unit vector (d,) of a text.

    Parameters
    ----------
    text : str
        The encoder may cut it.
    spec : EncoderSpec

    Raises
    ------
    UserError
        If the encoder gives no usable vector.
    """
    unit, faults = unit_float16(load_encoder(spec).encode_texts([text]))
    return _expect_usable(unit, faults.tolist(), "--text")


def embed_picture(data: bytes, white: int, name: str, spec: EncoderSpec) -> NDArray[np.float16]:
    """Return the unit vector (d,) of a picture.

    Parameters
    ----------
    data : bytes
        The image file.
    white : int
        Value that becomes white in a 16-bit picture.
    name : str
        Option and file, for messages.
    spec : EncoderSpec

    Raises
    ------
    UserError
        If the file is not a picture that can be decoded, or the encoder gives no usable vector.
    """
    from fairdedup.datasets.decoders import Decoder
    from fairdedup.datasets.images import BadImage
    from fairdedup.encoders.batch_encoder import BatchEncoder

    forward = BatchEncoder(spec)
    try:
        forward.add(Decoder(forward.prepare, white, forward.detail).load(data).value)
    except BadImage as error:
        raise UserError(f"{name} is not a picture that can be decoded ({error}): give another file") from None
    forward.flush()
    return _expect_usable(forward.collect_vectors(), forward.collect_faults(), name)


def _expect_usable(unit: NDArray[np.float16], faults: list[int], name: str) -> NDArray[np.float16]:
    if faults[0]:
        raise UserError(f"{name}: the encoder's {reason(faults[0])}, so it cannot be compared: give another one")
    return unit[0]
