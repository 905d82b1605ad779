"""The choice of an encoder, as a small value that is sent to workers and written to config.json. It loads nothing."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

BUILTIN_MODEL = "fairdedup-small"
BUILTIN_FOLDER = Path(__file__).parent / "builtin"
BUILTIN_WEIGHTS = BUILTIN_FOLDER / "fairdedup-small.safetensors"
REDUCED = 2  # a JPEG may be decoded at a reduced size that has so many times the pixels of a model's input
FOLDERS = ("hf-hub:", "local-dir:")  # what begins the name of a model that is a folder with weights of its own


@dataclass(frozen=True)
class EncoderSpec:
    """An encoder, with everything on which the bits of its vectors may depend.

    Attributes
    ----------
    model : str
        An open_clip model name, or ``hf-hub:owner/name`` or ``local-dir:folder``.
    pretrained : str or None
        A tag that open_clip knows, or a file of weights; None if the model has its own.
    batch_size : int
        Images or captions in one forward pass.
    device : str
        Where the encoder runs: "cpu" or "cuda".
    dtype : {"float32", "float16", "bfloat16"}
        Precision of the encoder.
    threads : int
        CPU threads of the encoder in one worker.
    """

    model: str
    pretrained: str | None
    batch_size: int
    device: str
    dtype: str
    threads: int

    @property
    def weights(self) -> str | None:
        """Weights to load: `pretrained`, or the file of the built-in weights, whose path differs between machines."""
        return str(BUILTIN_WEIGHTS) if self.model == BUILTIN_MODEL and self.pretrained is None else self.pretrained

    def identity(self) -> dict[str, Any]:
        """Return the values that must be equal for equal vectors; a file of weights counts by its hash."""
        known = asdict(self)
        stamp = weights_stamp(self.weights)
        if stamp is not None:
            known["pretrained"] = f"sha256:{_sha256(str(self.weights), stamp)}"
        return known


def builtin_spec(*, batch_size: int, device: str, dtype: str, threads: int) -> EncoderSpec:
    """Return the spec of the encoder that ships with fairdedup; the parameters are those of `EncoderSpec`."""
    return EncoderSpec(BUILTIN_MODEL, None, batch_size, device, dtype, threads)


def weights_stamp(file: str | None) -> tuple[int, int] | None:
    """Return time (ns) and size (bytes) of a file of weights; None if the file does not exist."""
    if file is None or not Path(file).is_file():
        return None
    known = Path(file).stat()
    return known.st_mtime_ns, known.st_size


@lru_cache(maxsize=16)
def _sha256(file: str, stamp: tuple[int, int]) -> str:
    """Return the hash of a file. The file is read again only if its time or size has changed."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
