"""Finds the weights of a model in the caches of the libraries that download them. It downloads and loads nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fairdedup.encoders.model_folder import CONFIG
from fairdedup.encoders.spec import BUILTIN_MODEL, BUILTIN_WEIGHTS
from fairdedup.errors import UserError

WEIGHT_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # where a tag names a repository alone


def find_cached_weights(model: str, pretrained: str | None) -> Path | None:
    """Return the file of a model's weights on this machine, or a file beside it; None if it has to be downloaded.

    Parameters
    ----------
    model, pretrained : str, str or None
        Names that `check_model` accepts.

    Raises
    ------
    UserError
        If open_clip does not know the tag.
    """
    if model.startswith("local-dir:"):
        return Path(model.removeprefix("local-dir:"))
    if model.startswith("hf-hub:"):
        return _find_in_hub(model.removeprefix("hf-hub:"), (CONFIG,))
    if pretrained is None:
        return BUILTIN_WEIGHTS if model == BUILTIN_MODEL and BUILTIN_WEIGHTS.is_file() else None
    if Path(pretrained).is_file():
        return Path(pretrained)
    return _find_tag(_read_tag(model, pretrained))


def _read_tag(model: str, tag: str) -> dict[str, Any]:
    """Return what open_clip knows of a tag: ``hf_hub``, ``url``."""
    from fairdedup.encoders.torch_imports import open_clip

    name = model.replace("/", "-")
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        remedy = f"choose one of {', '.join(tags)}" if tags else "it has none; give a file of weights"
        raise UserError(f"pretrained {tag!r} is not a tag of {model}: {remedy}")
    return dict(open_clip.get_pretrained_cfg(name, tag))


def _find_tag(known: dict[str, Any]) -> Path | None:
    """Return the file of a tag in the cache of the hub, or in that of files from elsewhere."""
    repository, name = os.path.split(known.get("hf_hub") or "")
    names = (f"{os.path.splitext(name)[0]}.safetensors", name) if name else WEIGHT_NAMES
    found = _find_in_hub(repository, names) if repository else None
    if found is not None or not known.get("url"):
        return found
    file = Path("~/.cache/clip").expanduser() / Path(known["url"]).name
    return file if file.is_file() else None


def _find_in_hub(repository: str, names: tuple[str, ...]) -> Path | None:
    """Return the first of these files of a repository that the cache of the hub has."""
    from huggingface_hub import try_to_load_from_cache

    for name in names:
        found = try_to_load_from_cache(repository, name)
        if isinstance(found, str):
            return Path(found)
    return None
