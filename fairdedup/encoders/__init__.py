"""What turns images and captions into vectors: the Encoder protocol, and the one way to load an encoder.

Nothing here imports torch or open_clip until an encoder is loaded.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fairdedup.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

BUILTIN_MODEL = "fairdedup-small"
BUILTIN_FOLDER = Path(__file__).parent / "builtin"
BUILTIN_WEIGHTS = BUILTIN_FOLDER / "fairdedup-small.safetensors"
WEIGHT_FILES = (".safetensors", ".pt", ".pth", ".bin")


class Encoder(Protocol):
    """Turns images and captions into vectors of one space."""

    def encode_images(self, images: list[Image]) -> NDArray[np.float32]:
        """Return a vector for each RGB image: (n, d), of any length."""
        ...

    def encode_texts(self, texts: list[str]) -> NDArray[np.float32]:
        """Return a vector for each caption: (n, d), of any length."""
        ...


@dataclass(frozen=True)
class EncoderSpec:
    """An encoder, and everything that its floats may depend on.

    Attributes
    ----------
    model : str
        An open_clip model name, or ``hf-hub:owner/name`` or ``local-dir:folder``.
    pretrained : str or None
        A tag of open_clip's, or a file of weights; None where the model brings its own.
    batch_size : int
    device : {"cpu", "cuda"}
    dtype : {"float32", "float16", "bfloat16"}
    threads : int
        CPU threads of one worker.
    """

    model: str
    pretrained: str | None
    batch_size: int
    device: str
    dtype: str
    threads: int

    @property
    def weights(self) -> str | None:
        """What to load; where the built-in weights lie is each machine's own business."""
        return str(BUILTIN_WEIGHTS) if self.model == BUILTIN_MODEL and self.pretrained is None else self.pretrained

    def identity(self) -> dict[str, Any]:
        """Return what must be the same for two runs to make the same vectors; a file is named by its hash."""
        known = asdict(self)
        stamp = _stamp(self.weights)
        if stamp is not None:
            known["pretrained"] = f"sha256:{_sha256(str(self.weights), stamp)}"
        return known


def _stamp(file: str | None) -> tuple[int, int] | None:
    """Return time and size of a file of weights, None where there is none."""
    if file is None or not Path(file).is_file():
        return None
    known = Path(file).stat()
    return known.st_mtime_ns, known.st_size


@lru_cache(maxsize=16)
def _sha256(file: str, stamp: tuple[int, int]) -> str:
    """Return the hash of a file, read once for as long as its time and size stay the same."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def builtin_spec(batch_size: int, device: str, dtype: str, threads: int) -> EncoderSpec:
    """Return the encoder that ships with fairdedup."""
    return EncoderSpec(BUILTIN_MODEL, None, batch_size, device, dtype, threads)


def known_models() -> list[str]:
    """Return the model names that open_clip has a configuration for, without importing it."""
    spec = importlib.util.find_spec("open_clip")
    folders = [Path(p) / "model_configs" for p in (spec.submodule_search_locations or [])] if spec else []
    return sorted({f.stem for folder in (*folders, BUILTIN_FOLDER) for f in folder.glob("*.json")})


def check_model(model: str, pretrained: str | None) -> None:
    """Check a model's name and weights as far as that goes without loading anything.

    Raises
    ------
    UserError
        If there is no such model, or weights are missing where they are needed or given where they are not.
    """
    if model.startswith(("hf-hub:", "local-dir:")):
        folder = model.partition(":")[2]
        if model.startswith("local-dir:") and not (Path(folder) / "open_clip_config.json").is_file():
            raise UserError(f"model {model!r}: no open_clip_config.json in that folder; give a folder that has one")
        if pretrained:
            raise UserError(f"model {model!r} brings its own weights: leave --pretrained {pretrained} out")
        return
    names = known_models()
    if model.replace("/", "-") not in names:
        import difflib

        near = difflib.get_close_matches(model, names, 3, 0.3) or ["ViT-B-16", "ViT-B-32"]
        raise UserError(f"model {model!r} is unknown to open_clip: did you mean {' or '.join(near)}?")
    if pretrained is None and model != BUILTIN_MODEL:
        raise UserError(f"model {model!r} has no weights: add --pretrained with a tag (openai) or a file")
    if pretrained is not None and pretrained.endswith(WEIGHT_FILES) and not Path(pretrained).is_file():
        raise UserError(f"pretrained {pretrained!r}: no such file; give a tag of open_clip's or a file of weights")


def load_encoder(spec: EncoderSpec) -> Encoder:
    """Load an encoder, once per process for as long as its file of weights stays as it is.

    Raises
    ------
    UserError
        If open_clip does not know the tag, or the weights do not fit the model.
    FairdedupError
        If the weights cannot be had.
    """
    return _load(spec, _stamp(spec.weights))


@lru_cache(maxsize=1)
def _load(spec: EncoderSpec, stamp: tuple[int, int] | None) -> Encoder:
    from fairdedup.encoders.openclip import OpenClipEncoder

    return OpenClipEncoder(spec)
