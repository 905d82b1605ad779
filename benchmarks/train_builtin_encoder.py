"""Trains the built-in encoder: a small CLIP on the sample's generated pictures and captions.

Draws training pictures from seeds that `fairdedup sample` never uses by default, trains with the CLIP loss
(Radford et al. 2021), but counts every caption of the batch that is true of a picture as its caption, then
measures zero-shot accuracy on held-out pictures and writes weights and figures.

    python benchmarks/train_builtin_encoder.py
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import platform
import sys
import time
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import open_clip
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F

from fairdedup.sample.captions import write_caption
from fairdedup.sample.draw import draw_scene
from fairdedup.sample.people import AGES, OCCUPATIONS, Scene, another_shot, make_person, make_setting

ROOT = Path(__file__).resolve().parent.parent
BUILTIN = ROOT / "fairdedup" / "encoders" / "builtin"
PROTOTYPES = ROOT / "configs" / "prototypes" / "people.yaml"
NAME = "fairdedup-small"
TRAIN_SEED = 1_000_000  # added to --seed, and HELD_OUT_SEED likewise: far from what users type
HELD_OUT_SEED = 2_000_000
CAPTIONS = 6  # written for every training picture
FACT_OF = {
    "perceived gender presentation": "gender",
    "perceived age": "age",
    "perceived skin tone": "skin tone",
}


@dataclass
class Pictures:
    """Pictures as the image tower sees them, what they show, and their captions."""

    images: torch.Tensor  # (n, 3, 64, 64) uint8
    facts: torch.Tensor  # (n, a) int64, a code for every attribute's value; 0 is none
    tokens: torch.Tensor  # (n, CAPTIONS, t)
    said: torch.Tensor  # (n, CAPTIONS, a) int64, 0 where the caption does not say


@dataclass
class Prompts:
    """Every concept of people.yaml in all its words."""

    tokens: list[torch.Tensor]  # per concept (captions, t)
    said: torch.Tensor  # (concepts, a)


@dataclass
class Codes:
    """Numbers for attribute values, so that what captions say can be compared in one go."""

    attributes: list[str]
    values: dict[tuple[str, str], int]

    def encode(self, facts: dict[str, str]) -> list[int]:
        """Code of each attribute, 0 where `facts` lacks it."""
        row = []
        for attribute in self.attributes:
            if attribute in facts:
                key = (attribute, facts[attribute])
                row.append(self.values.setdefault(key, len(self.values) + 1))
            else:
                row.append(0)
        return row

    def fits(self, facts: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        """Whether what is said is true of the picture: facts (b, a), said (c, a) -> (b, c), 0 or 1."""
        shown, named = facts[:, None, :], said[None, :, :]
        return ((named == 0) | (shown == named)).all(2).float()


def one_off(rng: np.random.Generator, balanced: bool) -> Scene:
    """Draw a scene on its own; balanced: its person is as likely of any group as of any other."""
    scene = make_setting(rng, somebody=rng.random() >= 0.06)
    if scene.occupation != "none":
        if balanced:
            monk = (1 / 12,) * 4 + (1 / 9,) * 6  # a third for each of light, medium and dark
            person = make_person(rng, 0.5, (1 / len(AGES),) * len(AGES), monk)
        else:
            person = make_person(rng, OCCUPATIONS[scene.occupation][2])
        scene = replace(scene, person=person)
    return another_shot(rng, scene)


def draw_block(job: tuple[int, int, float]) -> tuple[np.ndarray, list[Scene]]:
    """Draw `n` scenes of one seed, as the image tower sees them: (n, 64, 64, 3)."""
    seed, n, balanced = job
    rng = np.random.default_rng(seed)
    scenes = [one_off(rng, bool(rng.random() < balanced)) for _ in range(n)]
    return np.stack([as_seen(draw_scene(scene), rng) for scene in scenes]), scenes


def as_seen(image: Image.Image, rng: np.random.Generator, side: int = 64) -> np.ndarray:
    """Encode as JPEG at some quality, trim a little, and scale as open_clip's own preprocessing does."""
    if rng.random() < 0.3:
        left, top, right, bottom = (int(edge) for edge in rng.integers(0, 6, size=4))
        image = image.crop((left, top, image.width - right, image.height - bottom))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(60, 96)))
    decoded = Image.open(buffer).convert("RGB")
    shortest = side / min(decoded.size)
    size = (round(decoded.width * shortest), round(decoded.height * shortest))
    scaled = decoded.resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return np.asarray(scaled.crop((left, top, left + side, top + side)))


def draw_pictures(seed: int, n: int, balanced: float, processes: int) -> tuple[torch.Tensor, list[Scene]]:
    """Draw `n` scenes, a share of them balanced, in blocks that do not depend on the number of processes."""
    block = 250
    jobs = [(seed * 1000 + i, min(block, n - i * block), balanced) for i in range(math.ceil(n / block))]
    with get_context("spawn").Pool(processes) as pool:
        blocks = pool.map(draw_block, jobs)
    pixels = torch.from_numpy(np.concatenate([images for images, _ in blocks]))
    return pixels.permute(0, 3, 1, 2).contiguous(), [scene for _, scenes in blocks for scene in scenes]


def prompts() -> dict[str, dict[str, list[str]]]:
    """people.yaml spelled out: attribute -> concept (or "absent") -> captions."""
    config = yaml.safe_load(PROTOTYPES.read_text(encoding="utf-8"))
    spelled = {}
    for attribute, entry in config["attributes"].items():
        templates = entry.get("templates", config["templates"])
        spelled[attribute] = {
            concept: [template.format(phrase) for template in templates for phrase in phrases]
            for concept, phrases in entry["concepts"].items()
        } | {"absent": list(entry.get("absent", []))}
    return spelled


def caption_pictures(
    images: torch.Tensor, scenes: list[Scene], codes: Codes, tokenizer: object, rng: np.random.Generator
) -> Pictures:
    """Write CAPTIONS captions for every scene, and note what each says."""
    captions = [write_caption(scene, rng) for scene in scenes for _ in range(CAPTIONS)]
    tokens = tokenizer([caption.text for caption in captions])  # type: ignore[operator]
    said = torch.tensor([codes.encode(caption.said) for caption in captions])
    facts = torch.tensor([codes.encode(scene.facts()) for scene in scenes])
    shape = (len(scenes), CAPTIONS, -1)
    return Pictures(images, facts, tokens.reshape(shape), said.reshape(shape))


def encode_words(codes: Codes, tokenizer: object) -> Prompts:
    """Tokens of all prompts, concept by concept; those for nobody once."""
    tokens, said = [], []
    for attribute, concepts in prompts().items():
        for concept, captions in concepts.items():
            says = {FACT_OF[attribute]: concept} if concept != "absent" else {"people": "nobody"}
            if codes.encode(says) not in said:
                said.append(codes.encode(says))
                tokens.append(tokenizer(captions))  # type: ignore[operator]
    return Prompts(tokens, torch.tensor(said))


def jitter(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shift, zoom and light every picture of the batch a little differently. (b, 3, s, s) in 0..1."""
    b = len(images)
    draw = torch.rand(b, 4, generator=generator) * 2 - 1
    zoom = 1 - 0.05 * draw[:, 0]
    theta = torch.zeros(b, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = zoom
    theta[:, 0, 2], theta[:, 1, 2] = 0.06 * draw[:, 1], 0.06 * draw[:, 2]
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    keep = torch.rand(b, generator=generator) < 0.3  # some pictures just as they come
    moved[keep] = images[keep]
    return (moved * (1 + 0.05 * draw[:, 3])[:, None, None, None]).clamp(0, 1)


def clip_loss(image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor, fits: torch.Tensor) -> torch.Tensor:
    """CLIP's symmetric cross entropy, each target spread over all that `fits`: (pictures, texts)."""
    logits = scale * image @ text.T
    own = fits / fits.sum(0, keepdim=True).clamp_min(1e-6)  # chance that a text was written for each picture it fits
    by_image = -(own / own.sum(1, keepdim=True) * F.log_softmax(logits, dim=1)).sum(1)
    by_text = -(own * F.log_softmax(logits, dim=0)).sum(0)
    return (by_image.mean() + by_text.mean()) / 2


def train(
    model: torch.nn.Module,
    data: Pictures,
    asked: Prompts,
    codes: Codes,
    preprocess: dict,
    args: argparse.Namespace,
) -> None:
    """Train for `args.steps` steps of AdamW on a cosine."""
    generator = torch.Generator().manual_seed(args.seed)
    mean = torch.tensor(preprocess["mean"])[:, None, None]
    std = torch.tensor(preprocess["std"])[:, None, None]
    flat = [p for n, p in model.named_parameters() if p.ndim < 2 or "embedding" in n]
    deep = [p for n, p in model.named_parameters() if not (p.ndim < 2 or "embedding" in n)]
    groups = [{"params": deep, "weight_decay": 0.05}, {"params": flat, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98))
    model.train().to(memory_format=torch.channels_last)
    order = torch.empty(0, dtype=torch.int64)
    started, running = time.perf_counter(), 0.0
    for step in range(args.steps):
        rate = args.lr * min(1.0, (step + 1) / 60) * (0.5 + 0.5 * math.cos(math.pi * step / args.steps))
        for group in optimizer.param_groups:
            group["lr"] = max(rate, 1e-6)
        if len(order) < args.batch:
            order = torch.cat([order, torch.randperm(len(data.images), generator=generator)])
        rows, order = order[: args.batch], order[args.batch :]
        which = torch.randint(CAPTIONS, (args.batch,), generator=generator)
        tokens, said = [data.tokens[rows, which]], [data.said[rows, which]]
        for concept, words in enumerate(asked.tokens):
            chosen = torch.randint(len(words), (2,), generator=generator)
            tokens.append(words[chosen])
            said.append(asked.said[[concept, concept]])
        fits = codes.fits(data.facts[rows], torch.cat(said))
        images = jitter(data.images[rows].float() / 255, generator)
        images = ((images - mean) / std).contiguous(memory_format=torch.channels_last)
        image = F.normalize(model.encode_image(images), dim=-1)
        text = F.normalize(model.encode_text(torch.cat(tokens)), dim=-1)
        scale = model.logit_scale.exp()
        captions, prompts = slice(None, args.batch), slice(args.batch, None)
        loss = clip_loss(image, text[captions], scale, fits[:, captions])
        loss = loss + clip_loss(image, text[prompts], scale, fits[:, prompts])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(50))
        running += loss.item()
        if (step + 1) % 50 == 0:
            scale, seconds = model.logit_scale.exp(), time.perf_counter() - started
            print(f"step {step + 1} loss {running / 50:.3f} scale {scale:.1f} {seconds:.0f} s", flush=True)
            running = 0.0
    model.eval()


@torch.no_grad()
def encode_prompts(model: torch.nn.Module, tokenizer: object) -> dict[str, dict[str, torch.Tensor]]:
    """Prototypes of people.yaml: attribute -> concept -> (256,), and "absent" -> (m, 256)."""
    prototypes: dict[str, dict[str, torch.Tensor]] = {}
    for attribute, concepts in prompts().items():
        prototypes[attribute] = {}
        for concept, captions in concepts.items():
            units = F.normalize(model.encode_text(tokenizer(captions)), dim=-1)  # type: ignore[operator]
            prototypes[attribute][concept] = units if concept == "absent" else F.normalize(units.mean(0), dim=-1)
    return prototypes


@torch.no_grad()
def shrink_groups(model: torch.nn.Module, tokenizer: object, weight: float) -> None:
    """Let who is in a picture weigh less in its embedding than all else that it shows.

    Real CLIP similarities to different group prompts differ by a few hundredths; here they would differ by tenths, and
    pictures of one scene with different people would hardly ever be duplicates. The differences between the concepts
    of an attribute span a few dimensions: they are scaled by `weight` in the image tower's last linear layer, which
    leaves the order of the concepts of every picture as it is.
    """
    spans = []
    for concepts in encode_prompts(model, tokenizer).values():
        units = torch.stack([unit for concept, unit in concepts.items() if concept != "absent"])
        spans.append(units[1:] - units[:1])
    basis = torch.linalg.qr(torch.cat(spans).T).Q  # (256, differences)
    shrink = torch.eye(len(basis)) - (1 - weight) * basis @ basis.T
    last = model.visual.attnpool.c_proj
    last.weight.copy_(shrink @ last.weight)
    last.bias.copy_(shrink @ last.bias)


@torch.no_grad()
def zero_shot(
    model: torch.nn.Module, tokenizer: object, pixels: torch.Tensor, scenes: list[Scene], preprocess: dict
) -> dict:
    """Share of held-out pictures whose nearest prototype is the drawn group, per attribute and group."""
    mean = torch.tensor(preprocess["mean"])[:, None, None]
    std = torch.tensor(preprocess["std"])[:, None, None]
    blocks = [(part.float() / 255 - mean) / std for part in pixels.split(256)]
    images = torch.cat([F.normalize(model.encode_image(block), dim=-1) for block in blocks])
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
            "nobody told from somebody": round((nobody == ~somebody).float().mean().item(), 4),
        }
    return figures


def save(model: torch.nn.Module, path: Path) -> None:
    """Write the weights as safetensors: float16, but float32 for the statistics of batch normalisation."""
    state = {}
    for name, tensor in model.state_dict().items():
        half = tensor.is_floating_point() and "running_" not in name
        state[name] = (tensor.half() if half else tensor).contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)


def main() -> None:
    """Draw, train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=2.5e-3)
    parser.add_argument("--pictures", type=int, default=12_000, help="training pictures")
    parser.add_argument("--balanced", type=float, default=1.0, help="share of them with groups in equal shares")
    parser.add_argument("--group-weight", type=float, default=0.3, help="of who is in a picture, against all else")
    parser.add_argument("--held-out", type=int, default=1500, help="pictures to measure on")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=BUILTIN / f"{NAME}.safetensors")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "builtin_encoder.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    torch.use_deterministic_algorithms(True)
    started = time.perf_counter()

    open_clip.add_model_config(BUILTIN)
    model = open_clip.create_model(NAME)
    tokenizer = open_clip.get_tokenizer(NAME)
    preprocess = model.visual.preprocess_cfg
    pixels, scenes = draw_pictures(TRAIN_SEED + args.seed, args.pictures, args.balanced, args.threads)
    codes = Codes(sorted({name for scene in scenes for name in scene.facts()}), {})
    data = caption_pictures(pixels, scenes, codes, tokenizer, np.random.default_rng(TRAIN_SEED + args.seed))
    drawn = time.perf_counter()
    print(f"{len(scenes)} training pictures in {drawn - started:.0f} s", flush=True)
    train(model, data, encode_words(codes, tokenizer), codes, preprocess, args)
    shrink_groups(model, tokenizer, args.group_weight)
    trained = time.perf_counter()
    save(model, args.out)

    kept = open_clip.create_model(NAME, pretrained=str(args.out)).eval()  # measured as it will be loaded
    measured = {}
    for kind, balanced in (("skewed", 0.0), ("balanced", 1.0)):
        held_out, held_scenes = draw_pictures(HELD_OUT_SEED + args.seed, args.held_out, balanced, args.threads)
        measured[kind] = zero_shot(kept, tokenizer, held_out, held_scenes, preprocess)
    results = {
        "what": "zero-shot accuracy of the built-in encoder on held-out generated pictures with somebody in "
        "them: argmax over the prototypes of configs/prototypes/people.yaml; skewed: the sample's own shares "
        "of the groups, balanced: equal shares",
        "command": " ".join(["python", "benchmarks/train_builtin_encoder.py", *sys.argv[1:]]),
        "seed": args.seed,
        "held-out pictures": args.held_out,
        "zero-shot": measured,
        "weights": {
            "bytes": args.out.stat().st_size,
            "sha256": hashlib.sha256(args.out.read_bytes()).hexdigest(),
            "parameters": sum(p.numel() for p in kept.parameters()),
        },
        "training": {
            "pictures": args.pictures,
            "steps": args.steps,
            "batch": args.batch,
            "seconds drawing": round(drawn - started, 1),
            "seconds training": round(trained - drawn, 1),
        },
        "hardware": {"machine": platform.machine(), "threads": args.threads, "processor": processor()},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "open_clip": open_clip.__version__,
            "numpy": np.__version__,
        },
    }
    args.results.parent.mkdir(parents=True, exist_ok=True)
    args.results.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results["zero-shot"], indent=2))


def processor() -> str:
    """Name of the processor, as Linux tells it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
