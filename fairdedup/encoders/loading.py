"""Checks the name of a model, and loads encoders. Nothing imports torch or open_clip until an encoder is loaded."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fairdedup.encoders.model_config import REPOSITORY
from fairdedup.encoders.model_folder import check_model_folder
from fairdedup.encoders.protocol import Encoder
from fairdedup.encoders.spec import BUILTIN_FOLDER, BUILTIN_MODEL, FOLDERS, EncoderSpec, weights_stamp
from fairdedup.errors import UserError

WEIGHT_FILES = (".safetensors", ".pt", ".pth", ".bin")
_loaded: dict[tuple[EncoderSpec, tuple[object, ...]], Encoder] = {}  # by spec and stamp of the files; usually one
_keeps_all = False


def list_models() -> list[str]:
    """Return the names of the models that open_clip has a configuration for, without importing it."""
    spec = importlib.util.find_spec("open_clip")
    folders = [Path(p) / "model_configs" for p in (spec.submodule_search_locations or [])] if spec else []
    return sorted({file.stem for folder in (*folders, BUILTIN_FOLDER) for file in folder.glob("*.json")})


def check_model(model: str, pretrained: str | None) -> None:
    """Check a model's name and weights, as far as that is possible without loading anything.

    Parameters
    ----------
    model : str
        Name of the model, as in `EncoderSpec`.
    pretrained : str or None
        Weights of the model, as in `EncoderSpec`.

    Raises
    ------
    UserError
        If the model is unknown, needs weights and has none, or has its own and got others, or if a local folder holds
        more than data (see `check_model_folder`).
    """
    if model.startswith(FOLDERS):
        if pretrained:
            raise UserError(f"model {model!r} brings its own weights: omit --pretrained {pretrained}")
        name = model.partition(":")[2]
        if model.startswith("local-dir:"):
            check_model_folder(model, Path(name))
        elif not re.fullmatch(REPOSITORY, name):
            raise UserError(f"model {model!r}: the hub has no such names; give hf-hub:OWNER/NAME")
        return
    names = list_models()
    if model.replace("/", "-") not in names:
        import difflib

        near = difflib.get_close_matches(model, names, 3, 0.6) or ["ViT-B-16", "ViT-B-32"]
        raise UserError(f"model {model!r} is unknown to open_clip: did you mean {' or '.join(near)}?")
    if pretrained is None and model != BUILTIN_MODEL:
        raise UserError(f"model {model!r} has no weights: add --pretrained with a tag (openai) or a file")
    if pretrained is not None and pretrained.endswith(WEIGHT_FILES) and not Path(pretrained).is_file():
        raise UserError(
            f"pretrained {pretrained!r}: no such file; give a tag that open_clip knows or a file of weights"
        )


def load_encoder(spec: EncoderSpec) -> Encoder:
    """Load an encoder, or return the loaded one if neither the options nor the files of the model have changed.

    Parameters
    ----------
    spec : EncoderSpec
        The model, its weights, and where and how it runs.

    Raises
    ------
    UserError
        If open_clip does not know the tag, the weights do not fit the model, or a model folder holds more than data.
    FairdedupError
        If the weights cannot be loaded.
    """
    key = spec, weights_stamp(spec.weights) or _folder_stamp(spec.model)
    if not _keeps_all:
        for other in [other for other in _loaded if other != key]:
            del _loaded[other]  # first, since two models may not fit
    if key not in _loaded:
        _loaded[key] = _load(spec)
    return _loaded[key]


@contextmanager
def keep_encoders() -> Iterator[None]:
    """Keep every encoder that is loaded in the block, until one is loaded after it; otherwise only the last is kept."""
    global _keeps_all
    _keeps_all = True
    try:
        yield
    finally:
        _keeps_all = False


def forget_encoders() -> None:
    """Drop all loaded encoders."""
    _loaded.clear()


def _folder_stamp(model: str) -> tuple[object, ...]:
    """Return names, times (ns) and sizes (bytes) of the files of a local folder; () for any other model."""
    folder = Path(model.removeprefix("local-dir:"))
    if not model.startswith("local-dir:") or not folder.is_dir():
        return ()
    known = [(file.name, file.stat()) for file in sorted(folder.iterdir()) if file.exists()]
    return tuple((name, each.st_mtime_ns, each.st_size) for name, each in known)


# A new encoder is returned here by the name of its model, which `check_model` must accept.
def _load(spec: EncoderSpec) -> Encoder:
    from fairdedup.encoders.openclip import OpenClipEncoder

    return OpenClipEncoder(spec)
