"""Draws the training data of the built-in encoder: pictures, captions, and the facts that each caption states."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import torch
from contrastive import Codes, Pictures
from PIL import Image

from fairdedup.sample.captions import write_caption
from fairdedup.sample.draw import draw_scene
from fairdedup.sample.people import AGES, OCCUPATIONS, Scene, another_shot, make_person, make_setting

CAPTIONS = 6  # written for every training picture
FACT_OF = {
    "perceived gender presentation": "gender",
    "perceived age": "age",
    "perceived skin tone": "skin tone",
}


def draw_single_scene(rng: np.random.Generator, balanced: bool) -> Scene:
    """Return a scene without other shots; balanced: its person belongs to each group with equal probability."""
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
    """Return `n` pictures (n, 64, 64, 3) from one seed, at the size of the image tower, and their scenes."""
    seed, n, balanced = job
    rng = np.random.default_rng(seed)
    scenes = [draw_single_scene(rng, bool(rng.random() < balanced)) for _ in range(n)]
    return np.stack([preprocess_picture(draw_scene(scene), rng) for scene in scenes]), scenes


def preprocess_picture(image: Image.Image, rng: np.random.Generator, side: int = 64) -> np.ndarray:
    """Return a picture trimmed a little, compressed as JPEG, and scaled as open_clip's preprocessing does."""
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
    """Return the pixels (n, 3, 64, 64) of `n` scenes, a share of them balanced, and the scenes.

    They are drawn in blocks that do not depend on the number of processes.
    """
    block = 250
    jobs = [(seed * 1000 + i, min(block, n - i * block), balanced) for i in range(math.ceil(n / block))]
    with get_context("spawn").Pool(processes) as pool:
        blocks = pool.map(draw_block, jobs)
    pixels = torch.from_numpy(np.concatenate([images for images, _ in blocks]))
    return pixels.permute(0, 3, 1, 2).contiguous(), [scene for _, scenes in blocks for scene in scenes]


def caption_pictures(
    images: torch.Tensor, scenes: list[Scene], codes: Codes, tokenizer: object, rng: np.random.Generator
) -> Pictures:
    """Return the pictures with CAPTIONS captions for each scene, and the facts that each caption states."""
    captions = [write_caption(scene, rng) for scene in scenes for _ in range(CAPTIONS)]
    tokens = tokenizer([caption.text for caption in captions])  # type: ignore[operator]
    said = torch.tensor([codes.encode(caption.said) for caption in captions])
    facts = torch.tensor([codes.encode(scene.facts()) for scene in scenes])
    shape = (len(scenes), CAPTIONS, -1)
    return Pictures(images, facts, tokens.reshape(shape), said.reshape(shape))
