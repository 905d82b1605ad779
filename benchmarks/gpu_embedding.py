"""The pictures of benchmarks/gpu.py: an embedding task, a plain loop, and the bare forward pass of a model."""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from embedding import write_weights
from PIL import Image

from fairdedup.datasets import Sample
from fairdedup.datasets.decoders import open_decoder
from fairdedup.encoders import EncoderSpec, builtin_spec, load_encoder
from fairdedup.encoders.batch_encoder import BatchEncoder
from fairdedup.sample.draw import draw_scene
from fairdedup.sample.people import make_setting
from fairdedup.stages.embedding.image_rows import embed_rows
from fairdedup.storage.shared_vectors import Copies

MODEL = "ViT-B-32"
DISTINCT = 64  # pictures that are drawn; they are read again and again
SIZE = (500, 375)  # of most photographs in web data sets


def draw_files(number: int) -> list[bytes]:
    """Return JPEG files of drawn scenes, the size of photographs."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(min(number, DISTINCT)):
        buffer = io.BytesIO()
        picture = draw_scene(make_setting(rng, somebody=True)).convert("RGB").resize(SIZE, Image.Resampling.BICUBIC)
        picture.save(buffer, "JPEG", quality=90)
        drawn.append(buffer.getvalue())
    return [drawn[k % len(drawn)] for k in range(number)]


class Pictures:
    """A data set for torch's DataLoader, as plain loops have it.

    Parameters
    ----------
    files : list of bytes
    transform : callable
        The transform of open_clip.
    """

    def __init__(self, files: list[bytes], transform: Callable[[Any], Any]) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> Any:
        return self.transform(Image.open(io.BytesIO(self.files[place])).convert("RGB"))


def choose_spec(device: str, batch_size: int, folder: Path, *, small: bool) -> EncoderSpec:
    """Return the model: ViT-B/32 with random weights, or the built-in one; float16 on a GPU."""
    dtype = "float16" if device == "cuda" else "float32"
    if small:
        return builtin_spec(batch_size=batch_size, device=device, dtype=dtype, threads=1)
    weights = folder / "w.safetensors"
    if not weights.exists():
        write_weights(weights)
    return EncoderSpec(MODEL, str(weights), batch_size, device, dtype, 1)


def embed(files: list[bytes], spec: EncoderSpec, threads: int) -> Any:
    """Embed files as an embedding task does, and return the vectors."""
    forward = BatchEncoder(spec)
    samples = (Sample(k, str(k), data) for k, data in enumerate(files))
    with open_decoder(forward.prepare, 65535, forward.detail, isolated=False) as decoder:
        return embed_rows(
            samples, forward, decoder, Copies(), {}, start=0, threads=threads, report=lambda rows: None
        ).vectors


def run_plain_loop(files: list[bytes], spec: EncoderSpec, workers: int) -> Any:
    """Embed files by a plain loop: DataLoader, PIL, and the model in the same number format."""
    import torch
    from torch.utils.data import DataLoader

    from fairdedup.encoders.torch_imports import open_clip

    dtype = getattr(torch, spec.dtype)
    model, _, transform = open_clip.create_model_and_transforms(
        spec.model, pretrained=spec.weights, precision="fp16" if spec.dtype == "float16" else "fp32", device=spec.device
    )
    pinned = spec.device == "cuda"
    pictures: Any = Pictures(files, transform)
    loader = DataLoader(pictures, batch_size=spec.batch_size, num_workers=workers, pin_memory=pinned)
    with torch.inference_mode():
        batch = next(iter(loader))  # starts the workers once, and warms the model
        model.eval().encode_image(batch.to(spec.device).to(dtype))
        started, out = time.perf_counter(), []
        for batch in loader:
            out.append(model.encode_image(batch.to(spec.device, non_blocking=pinned).to(dtype)).float().cpu())
    return torch.cat(out).numpy(), len(files) / (time.perf_counter() - started)


def measure_forward(spec: EncoderSpec, size: int, seconds: float = 2.0) -> float:
    """Return the pictures per second of the bare forward pass, of one batch that is on the device."""
    import torch

    encoder: Any = load_encoder(spec)
    wait = torch.cuda.synchronize if spec.device == "cuda" else lambda: None
    picture = encoder.prepare(Image.effect_noise((256, 256), 64).convert("RGB"))
    batch = torch.randn(size, *picture.shape, device=spec.device).to(getattr(torch, spec.dtype))
    with torch.inference_mode():
        encoder.model.encode_image(batch)
        wait()
        started, times = time.perf_counter(), 0
        while times < 3 or time.perf_counter() - started < seconds:
            encoder.model.encode_image(batch)
            wait()
            times += 1
    return times * size / (time.perf_counter() - started)


def measure_embedding(device: str, pictures: int, batches: Sequence[int], *, small: bool) -> dict[str, Any]:
    """Return the pictures per second of the three, and how near the vectors of the first two are.

    Parameters
    ----------
    device : {"cpu", "cuda"}
    pictures : int
    batches : sequence of int
        Batch sizes of the bare forward pass; the best is taken for the others.
    small : bool
        Whether to take the built-in model.
    """
    files, cores = draw_files(pictures), os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as name:
        spec = choose_spec(device, 1, Path(name), small=small)
        brief = 0.05 if small else 2.0
        forward = {size: measure_forward(replace(spec, batch_size=size), size, brief) for size in batches}
        best = max(forward, key=lambda size: forward[size])
        spec = replace(spec, batch_size=best)
        ours: dict[int, float] = {}
        for threads in sorted({1, max(1, cores // 2), cores}):
            embed(files[: 2 * best], spec, threads)
            started = time.perf_counter()
            vectors = embed(files, spec, threads).astype(np.float32)
            ours[threads] = len(files) / (time.perf_counter() - started)
        plain, rate = run_plain_loop(files, spec, 0 if small else cores)
    plain /= np.linalg.norm(plain, axis=1, keepdims=True)
    cosines = (vectors * plain).sum(axis=1) / np.linalg.norm(vectors, axis=1)
    fastest = max(ours.values())
    return {
        "model": spec.model,
        "dtype": spec.dtype,
        "pictures": len(files),
        "size": list(SIZE),
        "forward, by batch size": {str(size): round(value, 1) for size, value in forward.items()},
        "best batch size": best,
        "embedding task, by decoding threads": {str(threads): round(value, 1) for threads, value in ours.items()},
        "plain loop": round(rate, 1),
        "times the plain loop": round(fastest / rate, 2),
        "share of the forward": round(fastest / forward[best], 3),
        "least cosine to the plain loop's vectors": round(float(cosines.min()), 5),
    }


def profile_batch(
    device: str, size: int, profile_call: Callable[[Callable[[], Any], str], Any], *, small: bool
) -> dict[str, Any]:
    """Return what takes the time of four batches of pictures that are decoded already."""
    with tempfile.TemporaryDirectory() as name:
        spec = choose_spec(device, size, Path(name), small=small)
        forward = BatchEncoder(spec)
        assert forward.prepare is not None
        prepared = [forward.prepare(Image.effect_noise((256, 256), 64).convert("RGB"))] * size

        def encode() -> None:
            own = BatchEncoder(spec)
            for each in prepared * 4:
                own.add(each)
            own.collect_vectors()

        encode()
        return {"batch size": size, "operations": profile_call(encode, device)}
