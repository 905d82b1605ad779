"""How much memory an encoder needs beside the libraries, by its configuration and its weights. Nothing is loaded."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path

from fairdedup.encoders.model_config import count_least_parameters
from fairdedup.encoders.model_folder import check_model_folder
from fairdedup.encoders.spec import BUILTIN_FOLDER, BUILTIN_MODEL, BUILTIN_WEIGHTS

BATCHES = 2  # of prepared pictures that wait


def estimate_encoder_memory(model: str, pretrained: str | None, batch_size: int) -> int:
    """Return a number of bytes that a model, its weights while they are loaded, and two batches of pictures need.

    It is a lower bound: intermediate results are left out, and of a model of the hub only the batches are known.

    Parameters
    ----------
    model, pretrained : str, str or None
        Names that `check_model` accepts.
    batch_size : int
        Pictures of a batch.
    """
    config, weights = _find_model(model, pretrained)
    vision = config.get("vision_cfg")
    size = vision.get("image_size", 224) if isinstance(vision, Mapping) else 224
    height, width = (size[0], size[-1]) if isinstance(size, list) else (size, size)
    parameters = 4 * count_least_parameters(config)
    stored = weights.stat().st_size if weights is not None and weights.is_file() else parameters
    return max(parameters, stored) + stored + BATCHES * batch_size * 3 * height * width * 4


def _find_model(model: str, pretrained: str | None) -> tuple[Mapping[str, object], Path | None]:
    """Return ``model_cfg`` and the file of weights, as far as they are on this machine."""
    if model.startswith("hf-hub:"):
        return {}, None
    if model.startswith("local-dir:"):
        folder = check_model_folder(model, Path(model.removeprefix("local-dir:")))
        known = folder.config["model_cfg"]
        assert isinstance(known, Mapping)
        return known, folder.weights
    spec = importlib.util.find_spec("open_clip")
    folders = [Path(p) / "model_configs" for p in (spec.submodule_search_locations or [])] if spec else []
    files = [folder / f"{model.replace('/', '-')}.json" for folder in (*folders, BUILTIN_FOLDER)]
    config: Mapping[str, object] = {}
    for file in files:
        if file.is_file():
            config = json.loads(file.read_text(encoding="utf-8"))
    if pretrained is None:
        return config, BUILTIN_WEIGHTS if model == BUILTIN_MODEL else None
    return config, Path(pretrained)
