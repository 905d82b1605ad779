"""Train the built-in encoder: a small CLIP on the sample's generated pictures and captions.

Training pictures come from seeds that `fairdedup sample` does not use by default. The loss is CLIP's (Radford et al.
2021), except that every caption of a batch that is true of a picture counts as its caption. Zero-shot accuracy is
measured on held-out pictures. The outputs are the weights and a result file.

    python benchmarks/train_builtin_encoder.py
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from contrastive import Codes, encode_pictures, encode_prompts, save_weights, tokenize_prompts, train
from drawn_pictures import FACT_OF, caption_pictures, draw_pictures
from results_file import RESULTS, ROOT, write_results
from torch.nn import functional as F

from fairdedup.sample.people import Scene

BUILTIN = ROOT / "fairdedup" / "encoders" / "builtin"
NAME = "fairdedup-small"
TRAIN_SEED = 1_000_000  # added to --seed, like the other two: far from the seeds that users choose
HELD_OUT_SEED = 2_000_000
LEVEL_SEED = 3_000_000
WHAT = (
    "zero-shot accuracy of the built-in encoder on held-out generated pictures with somebody in "
    "them: argmax over the prototypes of configs/prototypes/people.yaml; skewed: the sample's own shares "
    "of the groups, balanced: equal shares"
)


def subtract_first(vectors: torch.Tensor) -> torch.Tensor:
    """Return the differences of the other rows from the first one: (n, d) -> (n - 1, d)."""
    return vectors[1:] - vectors[:1]


@torch.no_grad()
def shrink_groups(
    model: torch.nn.Module, tokenizer: object, embeddings: torch.Tensor, scenes: list[Scene], weight: float
) -> None:
    """Reduce the weight of the person's group in the embedding of a picture.

    Real CLIP similarities to different group prompts differ by a few hundredths; here they would differ by tenths,
    and pictures of one scene with different people would hardly ever be duplicates. Two things change in the image
    tower's last linear layer. The few dimensions that separate the concepts of an attribute are scaled by `weight`. All
    other differences between the groups' mean pictures, which no prompt describes, are removed. For every picture, the
    order of an attribute's concepts by similarity does not change.
    """
    named, seen = [], []
    for attribute, concepts in encode_prompts(model, tokenizer).items():
        names = [concept for concept in concepts if concept != "absent"]
        named.append(subtract_first(torch.stack([concepts[name] for name in names])))
        shown = [scene.facts().get(FACT_OF[attribute], "") for scene in scenes]
        means = [embeddings[torch.tensor([group == name for group in shown])].mean(0) for name in names]
        seen.append(subtract_first(torch.stack(means)))
    named_basis = torch.linalg.qr(torch.cat(named).T).Q  # (256, differences)
    rest = torch.cat(seen).T
    other_basis = torch.linalg.qr(rest - named_basis @ (named_basis.T @ rest)).Q
    shrink = torch.eye(len(named_basis)) - (1 - weight) * named_basis @ named_basis.T - other_basis @ other_basis.T
    last = model.visual.attnpool.c_proj
    last.weight.copy_(shrink @ last.weight)
    last.bias.copy_(shrink @ last.bias)


@torch.no_grad()
def level_prompts(
    model: torch.nn.Module, tokenizer: object, embeddings: torch.Tensor, scenes: list[Scene], slope: float
) -> None:
    """Remove the offsets that the prompts of a contrastive model have, for pictures with the group shares of web data.

    Within an attribute, each concept becomes the most similar one as often as it is true. Between attributes, the mean
    similarity of the rarest concept follows the logarithm of its share, times `slope`, times the contrast: how much
    more similar to a concept pictures are that show it than pictures that do not. Otherwise the rarest group of one
    attribute would seem missing everywhere, and that of another nowhere. The whole correction is a shift of the image
    tower's last bias. `embeddings` (n, 256) are those of `scenes`, not scaled to unit length.
    """
    attributes: list[list[int]] = []
    units, shows = [], []
    for attribute, concepts in encode_prompts(model, tokenizer).items():
        named = [concept for concept in concepts if concept != "absent"]
        attributes.append(list(range(len(units), len(units) + len(named))))
        for concept in named:
            units.append(concepts[concept])
            shows.append([scene.facts().get(FACT_OF[attribute], "") == concept for scene in scenes])
    somebody = torch.tensor([scene.person is not None for scene in scenes])
    prototypes, people = torch.stack(units), embeddings[somebody]  # (concepts, 256), (people, 256)
    true = torch.tensor(shows).T[somebody].float()
    similar, shares = F.normalize(people, dim=-1) @ prototypes.T, true.mean(0)
    contrast = ((similar * true).sum(0) / true.sum(0) - (similar * (1 - true)).sum(0) / (1 - true).sum(0)).mean()
    target = similar.mean(0)
    for own in attributes:
        offsets = torch.zeros(len(own))
        for step in range(3000):
            chosen = torch.bincount((similar[:, own] + offsets).argmax(1), minlength=len(own)) / len(similar)
            offsets += (0.0005 if step < 2000 else 0.0001) * (shares[own] - chosen)
        rarest = int(shares[own].argmin())
        target[own] += offsets + slope * contrast * shares[own][rarest].log() - (target[own] + offsets)[rarest]
    inverse = torch.linalg.pinv(prototypes - prototypes.mean(0))
    shift = torch.zeros(prototypes.shape[1])
    for _ in range(20):  # lengths change with the shift; this converges quickly
        moved = people + shift
        missing = target - (F.normalize(moved, dim=-1) @ prototypes.T).mean(0)
        shift += moved.norm(dim=-1).mean() * inverse @ (missing - missing.mean())
    model.visual.attnpool.c_proj.bias += shift


@torch.no_grad()
def measure_zero_shot(
    model: torch.nn.Module, tokenizer: object, pixels: torch.Tensor, scenes: list[Scene], preprocess: dict
) -> dict:
    """Return the share of pictures whose nearest prototype is the drawn group, for each attribute and group."""
    images = F.normalize(encode_pictures(model, pixels, preprocess), dim=-1)
    figures: dict[str, dict] = {}
    somebody = torch.tensor([scene.person is not None for scene in scenes])
    for attribute, concepts in encode_prompts(model, tokenizer).items():
        absent = concepts.pop("absent")
        names = list(concepts)
        similar = images @ torch.stack([*concepts.values()]).T
        truth = [scene.facts().get(FACT_OF[attribute], "") for scene in scenes]
        hit = torch.tensor([names[i] == t for i, t in zip(similar.argmax(1).tolist(), truth, strict=True)])
        nobody = (images @ absent.T).amax(1) > similar.amax(1)
        figures[attribute] = {
            "accuracy": round(hit[somebody].float().mean().item(), 4),
            "by concept": {
                name: round(hit[torch.tensor([t == name for t in truth])].float().mean().item(), 4) for name in names
            },
            "mean similarity": {
                name: round(value, 4) for name, value in zip(names, similar.mean(0).tolist(), strict=True)
            },
            "nobody told from somebody": round((nobody == ~somebody).float().mean().item(), 4),
        }
    return figures


def train_on_drawn_pictures(
    model: torch.nn.Module, tokenizer: object, preprocess: dict, args: argparse.Namespace
) -> dict[str, float]:
    """Draw training pictures, train the model, reduce the weight of groups, and return the seconds that both took."""
    started = time.perf_counter()
    rng = np.random.default_rng(TRAIN_SEED + args.seed)
    pixels, scenes = draw_pictures(TRAIN_SEED + args.seed, args.pictures, args.balanced, args.threads)
    codes = Codes(sorted({name for scene in scenes for name in scene.facts()}), {})
    data = caption_pictures(pixels, scenes, codes, tokenizer, rng)
    drawn = time.perf_counter()
    print(f"{len(scenes)} training pictures in {drawn - started:.0f} s", flush=True)
    train(model, data, tokenize_prompts(codes, tokenizer, FACT_OF), codes, preprocess, args)
    some = slice(0, 3000)
    shrink_groups(model, tokenizer, encode_pictures(model, pixels[some], preprocess), scenes[some], args.group_weight)
    return {"seconds drawing": drawn - started, "seconds training": time.perf_counter() - drawn}


def measure_weights(tokenizer: object, preprocess: dict, args: argparse.Namespace) -> dict[str, Any]:
    """Return the zero-shot accuracy and the size of the weights, as they will be loaded."""
    model = open_clip.create_model(NAME, pretrained=str(args.out)).eval()
    accuracy = {}
    for kind, balanced in (("skewed", 0.0), ("balanced", 1.0)):
        pixels, scenes = draw_pictures(HELD_OUT_SEED + args.seed, args.held_out, balanced, args.threads)
        accuracy[kind] = measure_zero_shot(model, tokenizer, pixels, scenes, preprocess)
    weights = {
        "bytes": args.out.stat().st_size,
        "sha256": hashlib.sha256(args.out.read_bytes()).hexdigest(),
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    return {"held-out pictures": args.held_out, "zero-shot": accuracy, "weights": weights}


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=2.5e-3)
    parser.add_argument("--pictures", type=int, default=12_000, help="training pictures")
    parser.add_argument("--balanced", type=float, default=1.0, help="share of them with groups in equal shares")
    parser.add_argument("--group-weight", type=float, default=0.2, help="weight of the person's group in the embedding")
    parser.add_argument("--prior", type=float, default=0.6, help="how far similarity follows the groups' shares")
    parser.add_argument("--trained", type=Path, help="weights of an earlier training: only level the prompts again")
    parser.add_argument("--held-out", type=int, default=1500, help="pictures to measure on")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=BUILTIN / f"{NAME}.safetensors")
    parser.add_argument("--results", type=Path, default=RESULTS / "builtin_encoder.json")
    parser.set_defaults(flip=False)
    return parser


def main() -> None:
    args = make_parser().parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    torch.use_deterministic_algorithms(True)
    open_clip.add_model_config(BUILTIN)
    model = open_clip.create_model(NAME, pretrained=str(args.trained) if args.trained else None).eval()
    tokenizer = open_clip.get_tokenizer(NAME)
    preprocess = model.visual.preprocess_cfg
    seconds = {} if args.trained else train_on_drawn_pictures(model, tokenizer, preprocess, args)
    started = time.perf_counter()
    web, scenes = draw_pictures(LEVEL_SEED + args.seed, 4000, 0.0, args.threads)
    level_prompts(model, tokenizer, encode_pictures(model, web, preprocess), scenes, args.prior)
    if args.trained:  # the earlier results describe the training
        earlier = json.loads(args.results.read_text(encoding="utf-8"))
        training = {"command": earlier["command"], **earlier["training"]}
    else:
        seconds["seconds training"] += time.perf_counter() - started
        rounded = {name: round(value, 1) for name, value in seconds.items()}
        training = {"pictures": args.pictures, "steps": args.steps, "batch": args.batch, **rounded}
    save_weights(model, args.out)
    figures = {**measure_weights(tokenizer, preprocess, args), "training": training}
    packages = ("torch", "open_clip_torch", "numpy")
    write_results(args.results, figures, what=WHAT, seed=args.seed, threads=args.threads, packages=packages)
    print(json.dumps(figures["zero-shot"], indent=2))


if __name__ == "__main__":
    main()
