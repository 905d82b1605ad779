"""Trains a CLIP of open_clip from scratch on some rows of a captioned set, and encodes faces and captions with it.

The weights and the order of batches follow from the seed alone. Loss, learning rate and jitter are contrastive.py's.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import torch
from captioned_faces import FACTS
from contrastive import Codes, Pictures, clip_loss, encode_pictures, jitter, make_optimizer, rate_at, take_step
from numpy.typing import NDArray
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

MODELS = Path(__file__).resolve().parent / "models"
MODEL = "subset-clip"
REPORT_EVERY = 50  # steps
Clip = Any  # open_clip.CLIP, whose methods torch.nn.Module does not declare


@dataclass(frozen=True)
class Recipe:
    """How every model is trained.

    Attributes
    ----------
    model : str
        Name of the model, of benchmarks/models/ or as open_clip knows it.
    pixels : int
        Side of the pictures.
    steps, batch : int
        Steps of AdamW, and pictures of each.
    rate : float
        Highest learning rate.
    device : str
        "cpu", where a model has one thread, or "cuda".
    dtype : str
        What the image tower computes in while it trains: "float32", or "bfloat16" by torch's autocast.
    """

    model: str = MODEL
    pixels: int = 64
    steps: int = 300
    batch: int = 256
    rate: float = 4e-3
    device: str = "cpu"
    dtype: str = "bfloat16"


def register_models(recipe: Recipe) -> None:
    """Make open_clip know the models of benchmarks/models/: of an unknown one it gives the tokenizer of CLIP."""
    if recipe.model not in open_clip.list_models():
        open_clip.add_model_config(MODELS)


def tokenize(recipe: Recipe, captions: list[str]) -> torch.Tensor:
    """Return the tokens of captions as the model reads them: (n, t) int64."""
    register_models(recipe)
    tokens: torch.Tensor = open_clip.get_tokenizer(recipe.model)(captions)
    return tokens


def create_clip(recipe: Recipe, seed: int = 0) -> tuple[Clip, Any]:
    """Return a CLIP with random weights that follow from the seed, and its transform of pictures."""
    register_models(recipe)
    torch.manual_seed(seed)
    model, _, transform = open_clip.create_model_and_transforms(recipe.model, force_image_size=recipe.pixels)
    return model, transform


def make_transform(recipe: Recipe) -> Callable[[Any], NDArray[np.uint8]]:
    """Return what scales a picture to the model's input: (3, s, s) uint8, before normalisation."""
    steps = transforms.Compose(create_clip(recipe)[1].transforms[:-1])  # all but Normalize
    return lambda picture: (steps(picture) * 255).round().to(torch.uint8).numpy()


def read_captions(rows: pd.DataFrame, recipe: Recipe, images: NDArray[np.uint8]) -> tuple[Pictures, Codes]:
    """Return the pictures of a set with their captions as tokens, the facts about them, and the codes of these.

    Parameters
    ----------
    rows : DataFrame
        What `captioned_faces.draw_set` returned.
    recipe : Recipe
        Names the model, whose tokenizer is used.
    images : ndarray of shape (n, 3, s, s), uint8
        The pictures of these rows.
    """
    codes = Codes(list(FACTS), {})
    tokens = tokenize(recipe, rows["caption"].tolist())
    shown, named = rows[list(FACTS)].to_numpy(), rows[[f"states {a}" for a in FACTS]].to_numpy()
    facts, said = (
        [codes.encode({a: v for a, v in zip(FACTS, line, strict=True) if v}) for line in lines.tolist()]
        for lines in (shown, named)
    )
    pictures = Pictures(
        torch.from_numpy(images), torch.tensor(facts), tokens[:, None, :], torch.tensor(said)[:, None, :]
    )
    return pictures, codes


def train_clip(
    data: Pictures, codes: Codes, rows: NDArray[np.int64], recipe: Recipe, steps: int, seed: int, title: str = ""
) -> tuple[Clip, float]:
    """Train a CLIP from scratch on some of the pictures, and return it with its mean loss over the last steps.

    The target of a caption is spread over the pictures of its batch that it is true of. That is the expected value of
    CLIP's own loss over which of these pictures the caption came with: the same optimum with less noise.

    Parameters
    ----------
    data : Pictures
        All pictures and captions of the set.
    codes : Codes
        Codes of the facts.
    rows : ndarray of shape (k,), int64
        The pictures to train on.
    recipe : Recipe
        Model, batch, learning rate and device.
    steps : int
        Steps to train for.
    seed : int
        Seed of the weights, the batches and the jitter.
    title : str
        What is printed in front of the progress.

    Raises
    ------
    RuntimeError
        If the loss is not finite.
    """
    device = recipe.device
    model, _ = create_clip(recipe, seed)
    generator = torch.Generator().manual_seed(seed)
    preprocess = model.visual.preprocess_cfg
    mean, std = (torch.tensor(preprocess[k], device=device)[:, None, None] for k in ("mean", "std"))
    optimizer = make_optimizer(model, recipe.rate)
    model = model.train().to(device, memory_format=torch.channels_last)
    chosen, order = torch.from_numpy(rows), torch.empty(0, dtype=torch.int64)
    losses: list[float] = []
    started = time.monotonic()
    for step in range(steps):
        while len(order) < recipe.batch:
            order = torch.cat([order, chosen[torch.randperm(len(chosen), generator=generator)]])
        batch, order = order[: recipe.batch], order[recipe.batch :]
        fits = codes.matches(data.facts[batch], data.said[batch, 0]).to(device)
        images = jitter(data.images[batch].float() / 255, generator, flip=True).to(device)
        images = ((images - mean) / std).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16, enabled=recipe.dtype == "bfloat16"):
            image = model.encode_image(images)
        text = F.normalize(model.encode_text(data.tokens[batch, 0].to(device)), dim=-1)
        loss = clip_loss(F.normalize(image.float(), dim=-1), text, model.logit_scale.exp(), fits)
        take_step(model, optimizer, loss, rate_at(step, steps, recipe.rate, max(1, min(60, steps // 5))))
        losses.append(loss.item())
        if not np.isfinite(losses[-1]):
            raise RuntimeError(f"{title}: the loss of step {step + 1} is not finite: try a lower --rate")
        if (step + 1) % REPORT_EVERY == 0 and step + 1 < steps:
            left = (time.monotonic() - started) / (step + 1) * (steps - step - 1)
            recent = np.mean(losses[-REPORT_EVERY:])
            print(f"{title}: step {step + 1} of {steps}, loss {recent:.3f}, {left:.0f} s left", file=sys.stderr)
    return model.eval(), float(np.mean(losses[-REPORT_EVERY:]))


def encode_faces(model: Clip, pixels: NDArray[np.uint8], device: str) -> NDArray[np.float32]:
    """Return a vector (n, d) of each face, pixels (n, 3, s, s)."""
    preprocess = model.visual.preprocess_cfg
    return np.asarray(encode_pictures(model, torch.from_numpy(pixels), preprocess, device).numpy(), dtype=np.float32)


@torch.no_grad()
def encode_captions(model: Clip, recipe: Recipe, captions: list[str]) -> NDArray[np.float32]:
    """Return a vector (n, d) of each caption."""
    tokens = tokenize(recipe, captions)
    parts = [model.encode_text(part.to(recipe.device)).cpu() for part in tokens.split(256)]
    return np.asarray(torch.cat(parts).numpy(), dtype=np.float32)


def count_flops(recipe: Recipe) -> int:
    """Return the floating-point operations of a training step for one picture and its caption: 3 forward passes."""
    model, _ = create_clip(recipe)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.encode_image(torch.zeros(1, 3, recipe.pixels, recipe.pixels))
        model.encode_text(tokenize(recipe, ["a photo"]))
    return 3 * counter.get_total_flops()
