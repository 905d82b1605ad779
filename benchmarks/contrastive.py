"""Trains a small CLIP on a CPU: pictures, captions that state facts about them, the loss, the loop and the weights.

train_builtin_encoder.py and train_face_encoder.py use it. It writes only the weights.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file
from torch.nn import functional as F

PEOPLE = Path(__file__).resolve().parent.parent / "configs" / "prototypes" / "people.yaml"


@dataclass
class Pictures:
    """Pictures at the size of the image tower, what they show, and their captions."""

    images: torch.Tensor  # (n, 3, 64, 64) uint8
    facts: torch.Tensor  # (n, a) int64, a code for every attribute's value; 0 is none
    tokens: torch.Tensor  # (n, captions, t)
    said: torch.Tensor  # (n, captions, a) int64, what each caption states; 0 where it states nothing


@dataclass
class Prompts:
    """All captions of each concept of a prototypes file."""

    tokens: list[torch.Tensor]  # per concept (captions, t)
    said: torch.Tensor  # (concepts, a)


@dataclass
class Codes:
    """Numbers for attribute values, so that facts and captions can be compared as tensors."""

    attributes: list[str]
    values: dict[tuple[str, str], int]

    def encode(self, facts: dict[str, str]) -> list[int]:
        """Return the code of each attribute; 0 if `facts` lacks it."""
        row = []
        for attribute in self.attributes:
            if attribute in facts:
                key = (attribute, facts[attribute])
                row.append(self.values.setdefault(key, len(self.values) + 1))
            else:
                row.append(0)
        return row

    def matches(self, facts: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        """Return whether each caption is true of each picture: facts (b, a), said (c, a) -> (b, c), 0 or 1."""
        shown, named = facts[:, None, :], said[None, :, :]
        return ((named == 0) | (shown == named)).all(2).float()


def read_prompts(file: Path = PEOPLE) -> dict[str, dict[str, list[str]]]:
    """Return all captions of a prototypes file: attribute -> concept (or "absent") -> captions."""
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    captions = {}
    for attribute, entry in config["attributes"].items():
        templates = entry.get("templates", config["templates"])
        captions[attribute] = {
            concept: [template.format(phrase) for template in templates for phrase in phrases]
            for concept, phrases in entry["concepts"].items()
        } | ({"absent": list(entry["absent"])} if entry.get("absent") else {})
    return captions


def tokenize_prompts(codes: Codes, tokenizer: object, fact_of: dict[str, str], file: Path = PEOPLE) -> Prompts:
    """Return the tokens of all captions, concept by concept; the captions of empty pictures only once."""
    tokens, said = [], []
    for attribute, concepts in read_prompts(file).items():
        for concept, captions in concepts.items():
            says = {fact_of[attribute]: concept} if concept != "absent" else {"people": "nobody"}
            if codes.encode(says) not in said:
                said.append(codes.encode(says))
                tokens.append(tokenizer(captions))  # type: ignore[operator]
    return Prompts(tokens, torch.tensor(said))


def jitter(images: torch.Tensor, generator: torch.Generator, flip: bool) -> torch.Tensor:
    """Shift, zoom and brighten each picture of a batch (b, 3, s, s), values 0 to 1, by small random amounts."""
    if flip:
        turned = torch.rand(len(images), generator=generator) < 0.5
        images = torch.where(turned[:, None, None, None], images.flip(3), images)
    b = len(images)
    draw = torch.rand(b, 4, generator=generator) * 2 - 1
    zoom = 1 - 0.05 * draw[:, 0]
    theta = torch.zeros(b, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = zoom
    theta[:, 0, 2], theta[:, 1, 2] = 0.06 * draw[:, 1], 0.06 * draw[:, 2]
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    keep = torch.rand(b, generator=generator) < 0.3  # some pictures stay unchanged
    moved[keep] = images[keep]
    return (moved * (1 + 0.05 * draw[:, 3])[:, None, None, None]).clamp(0, 1)


def clip_loss(image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor, fits: torch.Tensor) -> torch.Tensor:
    """Return CLIP's symmetric cross entropy, with targets spread over all texts that fit (`fits`: pictures, texts)."""
    logits = scale * image @ text.T
    own = fits / fits.sum(0, keepdim=True).clamp_min(1e-6)  # probability that a text belongs to each picture it fits
    by_image = -(own / own.sum(1, keepdim=True) * F.log_softmax(logits, dim=1)).sum(1)
    by_text = -(own * F.log_softmax(logits, dim=0)).sum(0)
    return (by_image.mean() + by_text.mean()) / 2


def make_optimizer(model: torch.nn.Module, rate: float) -> torch.optim.Optimizer:
    """Return AdamW with weight decay for matrices only, not for biases, norms and embeddings."""
    flat = [p for n, p in model.named_parameters() if p.ndim < 2 or "embedding" in n]
    deep = [p for n, p in model.named_parameters() if not (p.ndim < 2 or "embedding" in n)]
    groups = [{"params": deep, "weight_decay": 0.05}, {"params": flat, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))


def rate_at(step: int, steps: int, peak: float, warm_up: int = 60) -> float:
    """Return the learning rate of a step: a linear warm-up to the peak, then half a cosine."""
    return max(peak * min(1.0, (step + 1) / warm_up) * (0.5 + 0.5 * math.cos(math.pi * step / steps)), 1e-6)


def take_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, loss: torch.Tensor, rate: float) -> None:
    """Update the weights of a CLIP by the gradient of a loss, clipped, and keep its temperature above 1 / 50."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    with torch.no_grad():
        model.logit_scale.clamp_(0, math.log(50))


def train(
    model: torch.nn.Module,
    data: Pictures,
    prompts: Prompts,
    codes: Codes,
    preprocess: dict,
    args: argparse.Namespace,
) -> None:
    """Train for `args.steps` steps of AdamW with a cosine schedule."""
    generator = torch.Generator().manual_seed(args.seed)
    mean = torch.tensor(preprocess["mean"])[:, None, None]
    std = torch.tensor(preprocess["std"])[:, None, None]
    optimizer = make_optimizer(model, args.lr)
    model.train().to(memory_format=torch.channels_last)
    order = torch.empty(0, dtype=torch.int64)
    started, running = time.perf_counter(), 0.0
    for step in range(args.steps):
        if len(order) < args.batch:
            order = torch.cat([order, torch.randperm(len(data.images), generator=generator)])
        rows, order = order[: args.batch], order[args.batch :]
        which = torch.randint(data.tokens.shape[1], (args.batch,), generator=generator)
        tokens, said = [data.tokens[rows, which]], [data.said[rows, which]]
        for concept, words in enumerate(prompts.tokens):
            chosen = torch.randint(len(words), (2,), generator=generator)
            tokens.append(words[chosen])
            said.append(prompts.said[[concept, concept]])
        fits = codes.matches(data.facts[rows], torch.cat(said))
        images = jitter(data.images[rows].float() / 255, generator, args.flip)
        images = ((images - mean) / std).contiguous(memory_format=torch.channels_last)
        image = F.normalize(model.encode_image(images), dim=-1)
        text = F.normalize(model.encode_text(torch.cat(tokens)), dim=-1)
        scale = model.logit_scale.exp()
        of_captions, of_prompts = slice(None, args.batch), slice(args.batch, None)
        loss = clip_loss(image, text[of_captions], scale, fits[:, of_captions])
        loss = loss + clip_loss(image, text[of_prompts], scale, fits[:, of_prompts])
        take_step(model, optimizer, loss, rate_at(step, args.steps, args.lr))
        running += loss.item()
        if (step + 1) % 50 == 0:
            scale, seconds = model.logit_scale.exp(), time.perf_counter() - started
            print(f"step {step + 1} loss {running / 50:.3f} scale {scale:.1f} {seconds:.0f} s", flush=True)
            running = 0.0
    model.eval()


@torch.no_grad()
def encode_prompts(
    model: torch.nn.Module, tokenizer: object, file: Path = PEOPLE
) -> dict[str, dict[str, torch.Tensor]]:
    """Return the prototypes of a file of captions: attribute -> concept -> (256,), and "absent" -> (m, 256)."""
    prototypes: dict[str, dict[str, torch.Tensor]] = {}
    for attribute, concepts in read_prompts(file).items():
        prototypes[attribute] = {}
        for concept, captions in concepts.items():
            units = F.normalize(model.encode_text(tokenizer(captions)), dim=-1)  # type: ignore[operator]
            prototypes[attribute][concept] = units if concept == "absent" else F.normalize(units.mean(0), dim=-1)
    return prototypes


@torch.no_grad()
def encode_pictures(
    model: torch.nn.Module, pixels: torch.Tensor, preprocess: dict, device: str = "cpu"
) -> torch.Tensor:
    """Return the embeddings (n, d), on the CPU and not scaled to unit length, of pixels (n, 3, s, s)."""
    mean = torch.tensor(preprocess["mean"], device=device)[:, None, None]
    std = torch.tensor(preprocess["std"], device=device)[:, None, None]
    parts = (part.to(device).float() / 255 for part in pixels.split(256))
    return torch.cat([model.encode_image((part - mean) / std).cpu() for part in parts])


def save_weights(model: torch.nn.Module, path: Path) -> None:
    """Write the weights as safetensors: float16, but float32 for the statistics of batch normalisation."""
    state = {}
    for name, tensor in model.state_dict().items():
        half = tensor.is_floating_point() and "running_" not in name
        state[name] = (tensor.half() if half else tensor).contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)
    path.chmod(0o644)  # safetensors writes files that only the owner can read
