"""Train the small CLIP on faces of FairFace, for benchmarks/fairface.py. Its weights are not part of the project.

    python benchmarks/train_face_encoder.py 'fairface/train96-{00000..00009}.tar' --held-out fairface/val

Captions are made from the labels; each states one, two or three of the perceived attributes. The hashes of the training
files are written next to the weights, so that fairface.py can refuse to prune these faces.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import torch
import yaml
from contrastive import Codes, Pictures, encode_pictures, encode_prompts, save_weights, tokenize_prompts, train
from faces import VALUES, Face, read_faces
from results_file import RESULTS, ROOT, write_results
from torch.nn import functional as F
from torchvision import transforms

BUILTIN = ROOT / "fairdedup" / "encoders" / "builtin"
PROTOTYPES = ROOT / "configs" / "prototypes" / "fairface.yaml"
NAME = "fairdedup-small"
FACT_OF = {"perceived race": "race", "perceived gender": "gender", "perceived age": "age"}
CAPTIONS = 6  # written for every face
WHAT = (
    "zero-shot accuracy of a small CLIP trained on FairFace with captions made from its perceived labels, "
    "on held-out faces: argmax over the prototypes of configs/prototypes/fairface.yaml"
)
TOGETHER = {  # captions that state several attributes; a phrase of a concept replaces {}
    ("race", "gender"): "a photo of {}, {}",
    ("gender", "age"): "a photo of {}, {}",
    ("race", "age"): "a portrait of {}, {}",
    ("race", "gender", "age"): "a photo of {}, {}, {}",
}


Words = dict[str, dict[str, list[str]]]
Caption = tuple[str, dict[str, str]]


def write_captions(
    labels: dict[str, str], words: Words, templates: list[str], rng: np.random.Generator
) -> list[Caption]:
    """Return captions for one face, each with the labels that it states: first single attributes, then several.

    Parameters
    ----------
    labels : dict of str to str
        The face's label of each attribute.
    words : dict of str to dict
        Phrases of each concept of each attribute.
    templates : list of str
        Captions of a single attribute.
    rng : numpy.random.Generator
        Chooses the words.
    """
    out: list[Caption] = []
    for k in range(CAPTIONS):
        if k < len(VALUES):
            named: tuple[str, ...] = (list(VALUES)[k],)
            template = templates[int(rng.integers(len(templates)))]
        else:
            named, template = list(TOGETHER.items())[int(rng.integers(len(TOGETHER)))]
        own = [words[attribute][labels[attribute]] for attribute in named]
        text = template.format(*(phrases[int(rng.integers(len(phrases)))] for phrases in own))
        out.append((text, {attribute: labels[attribute] for attribute in named}))
    return out


def caption_faces(faces: list[Face], pixels: torch.Tensor, codes: Codes, tokenizer: object, seed: int) -> Pictures:
    """Return the faces with captions, and the labels that each caption states."""
    known = yaml.safe_load(PROTOTYPES.read_text(encoding="utf-8"))
    words = {FACT_OF[attribute]: entry["concepts"] for attribute, entry in known["attributes"].items()}
    rng = np.random.default_rng(seed)
    captions = [c for face in faces for c in write_captions(face.labels, words, known["templates"], rng)]
    shape = (len(faces), CAPTIONS, -1)
    tokens = tokenizer([text for text, _ in captions])  # type: ignore[operator]
    said = torch.tensor([codes.encode(says) for _, says in captions])
    facts = torch.tensor([codes.encode(face.labels) for face in faces])
    return Pictures(pixels, facts, tokens.reshape(shape), said.reshape(shape))


def read_pixels(transform: object, source: str) -> tuple[list[Face], torch.Tensor]:
    """Return the faces of a source, and their pixels at the size of the image tower: (n, 3, s, s) uint8."""
    steps = transforms.Compose(transform.transforms[:-1])  # type: ignore[attr-defined] # all but Normalize
    found, pixels = [], []
    for face in read_faces(source):
        pixels.append((steps(face.picture) * 255).round().to(torch.uint8))
        found.append(replace(face, picture=None))
    return found, torch.stack(pixels)


@torch.no_grad()
def measure_accuracy(
    model: torch.nn.Module, tokenizer: object, faces: list[Face], images: torch.Tensor
) -> dict[str, dict]:
    """Return the zero-shot accuracy with the prototypes of fairface.yaml, for all faces and for each concept."""
    unit = F.normalize(images, dim=-1)
    out = {}
    for attribute, concepts in encode_prompts(model, tokenizer, PROTOTYPES).items():
        names = list(concepts)
        similar = unit @ torch.stack([*concepts.values()]).T
        truth = np.array([face.labels[FACT_OF[attribute]] for face in faces])
        hit = np.array(names)[similar.argmax(1).numpy()] == truth
        by_concept = {name: round(float(hit[truth == name].mean()), 4) for name in names if (truth == name).any()}
        out[attribute] = {"accuracy": round(float(hit.mean()), 4), "by concept": by_concept}
    return out


def main() -> None:
    """Read the faces, train, measure, and write the weights and results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="tar shards, or a folder of the official layout, to train on")
    parser.add_argument("--held-out", help="faces to measure on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=2.5e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("face-encoder.safetensors"))
    parser.add_argument("--results", type=Path, default=RESULTS / "face_encoder.json")
    parser.set_defaults(flip=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    torch.use_deterministic_algorithms(True)
    open_clip.add_model_config(BUILTIN)
    model, _, transform = open_clip.create_model_and_transforms(NAME)
    tokenizer, preprocess = open_clip.get_tokenizer(NAME), model.visual.preprocess_cfg
    seen, pixels = read_pixels(transform, args.source)
    print(f"{len(seen)} faces to train on", flush=True)
    codes = Codes(list(VALUES), {})
    started = time.perf_counter()
    data = caption_faces(seen, pixels, codes, tokenizer, args.seed)
    train(model, data, tokenize_prompts(codes, tokenizer, FACT_OF, PROTOTYPES), codes, preprocess, args)
    trained = time.perf_counter()
    save_weights(model, args.out)
    digests = sorted({face.digest for face in seen})
    args.out.with_suffix(".faces.txt").write_text("\n".join(digests) + "\n")
    kept = open_clip.create_model(NAME, pretrained=str(args.out)).eval()  # measure the weights as they will be loaded
    held_out, other = read_pixels(transform, args.held_out) if args.held_out else ([], torch.empty(0))
    known = set(digests)
    new = [k for k, face in enumerate(held_out) if face.digest not in known]
    accuracy = {}
    if new:
        accuracy = measure_accuracy(
            kept, tokenizer, [held_out[k] for k in new], encode_pictures(kept, other[new], preprocess)
        )
    figures = {
        "data": "FairFace (Karkkainen and Joo, WACV 2021), CC BY 4.0",
        "trained on": {"faces": len(seen), "distinct files": len(digests)},
        "held out": {"faces": len(new), "left out as trained on": len(held_out) - len(new)},
        "zero-shot": accuracy,
        "weights": {"sha256": hashlib.sha256(args.out.read_bytes()).hexdigest(), "bytes": args.out.stat().st_size},
        "training": {"steps": args.steps, "batch": args.batch, "seconds": round(trained - started, 1)},
    }
    packages = ("torch", "open_clip_torch")
    write_results(args.results, figures, what=WHAT, seed=args.seed, threads=args.threads, packages=packages)
    print(json.dumps(accuracy, indent=2))


if __name__ == "__main__":
    main()
