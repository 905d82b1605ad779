"""Encoders turn images and captions into vectors: the Encoder protocol, and the only way to load an encoder."""

from fairdedup.encoders.loading import check_model, load_encoder
from fairdedup.encoders.protocol import Encoder
from fairdedup.encoders.spec import BUILTIN_FOLDER, BUILTIN_MODEL, BUILTIN_WEIGHTS, REDUCED, EncoderSpec, builtin_spec

__all__ = [
    "BUILTIN_FOLDER",
    "BUILTIN_MODEL",
    "BUILTIN_WEIGHTS",
    "REDUCED",
    "Encoder",
    "EncoderSpec",
    "builtin_spec",
    "check_model",
    "load_encoder",
]
