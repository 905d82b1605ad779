"""What embedding in another way costs and changes: JPEGs at a reduced size, and bfloat16. embedding.py calls it."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MODEL, BATCH = "ViT-B-32", 32
LARGE = (4000, 3000)  # pixels of a large picture


def load(weights: Path, dtype: str) -> Any:
    """Return the spec of the encoder, and load it."""
    from fairdedup.encoders import EncoderSpec, load_encoder

    spec = EncoderSpec(MODEL, str(weights), BATCH, "cpu", dtype, 1)
    load_encoder(spec)
    return spec


def rate(function: Callable[[], Any], pictures: int) -> float:
    """Return the pictures per second of one call."""
    started = time.perf_counter()
    function()
    return pictures / (time.perf_counter() - started)


def enlarge(data: bytes, size: tuple[int, int]) -> bytes:
    """Return a JPEG of another size."""
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def cosines(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Return the distribution of the cosines between rows."""
    unit = [x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True) for x in (a, b)]
    found = (unit[0] * unit[1]).sum(axis=1)
    shares = {"least": 0.0, "1 %": 0.01, "median": 0.5}
    return {name: round(float(np.quantile(found, share)), 6) for name, share in shares.items()}


def measure_reduced(
    faces: list[bytes], photographs: list[bytes], specs: dict[str, Any], repeats: int
) -> dict[str, Any]:
    """Return how much faster JPEGs of 12 megapixels are decoded at a reduced size, and how near the vectors are."""
    from fairdedup.datasets.decoders import open_decoder
    from fairdedup.encoders import load_encoder

    figures: dict[str, Any] = {
        "faces": len(faces),
        "photographs": len(photographs),
        "size": list(LARGE),
        "repeats": repeats,
    }
    timed = [enlarge(data, LARGE) for data in faces[:BATCH]]
    for name, own in specs.items():
        encoder: Any = load_encoder(own)
        decoders = {
            kind: open_decoder(encoder.prepare, 65535, detail, isolated=False)
            for kind, detail in (("full", 0), ("reduced", encoder.detail))
        }
        seconds: dict[str, list[float]] = {kind: [] for kind in decoders}
        for _ in range(repeats):
            for kind, decoder in decoders.items():
                seconds[kind].append(1 / rate(lambda d=decoder: [d.load(data) for data in timed], len(timed)))
        pairs = [a / b for a, b in zip(seconds["full"], seconds["reduced"], strict=True)]
        figures[name] = {
            "seconds a picture": {kind: round(float(np.median(values)), 4) for kind, values in seconds.items()},
            "times as fast": round(float(np.median(pairs)), 2),
            "cosines of vectors": {
                kind: compare_sizes(files, decoders, encoder)
                for kind, files in (("faces", faces), ("photographs", photographs))
                if files
            },
        }
    return figures


def compare_sizes(files: list[bytes], decoders: dict[str, Any], encoder: Any) -> dict[str, float]:
    """Return the cosines between the vectors of pictures at their full and at a reduced size."""
    vectors: dict[str, list[np.ndarray]] = {kind: [] for kind in decoders}
    for start in range(0, len(files), BATCH):
        large = [enlarge(data, LARGE) for data in files[start : start + BATCH]]
        for kind, decoder in decoders.items():
            vectors[kind].append(encoder.encode_prepared([decoder.load(data).value for data in large]))
        print("reduced", start + len(large), "of", len(files), flush=True)
    return cosines(np.concatenate(vectors["full"]), np.concatenate(vectors["reduced"]))


def measure_dtype(files: list[bytes], weights: Path, repeats: int) -> dict[str, Any]:
    """Return how much faster bfloat16 is, and what it changes."""
    from PIL import Image

    from fairdedup import deduplicate
    from fairdedup.datasets.images import decode
    from fairdedup.encoders import builtin_spec, load_encoder

    batch = [Image.open(io.BytesIO(data)).convert("RGB") for data in files[:BATCH]]
    seconds, vectors = {}, {}
    for dtype in ("float32", "bfloat16"):
        small: Any = load_encoder(builtin_spec(batch_size=BATCH, device="cpu", dtype=dtype, threads=1))
        parts = [small.encode_images([decode(data) for data in files[k : k + 256]]) for k in range(0, len(files), 256)]
        vectors[dtype] = np.concatenate(parts)
        encoder: Any = load_encoder(load(weights, dtype))
        prepared = [encoder.prepare(image) for image in batch]
        times = [1 / rate(lambda e=encoder, p=prepared: e.encode_prepared(p), 1) for _ in range(repeats + 1)]
        seconds[dtype] = float(np.median(times[1:]))
    options: dict[str, Any] = {"keep": 0.5, "rule": "semdedup", "leftover": 0}
    kept = {dtype: deduplicate(own, **options).decisions["kept"].to_numpy() for dtype, own in vectors.items()}
    seed = deduplicate(vectors["float32"], seed=1, **options).decisions["kept"].to_numpy()
    return {
        "seconds of a batch of ViT-B/32": {dtype: round(value, 4) for dtype, value in seconds.items()},
        "times as fast": round(seconds["float32"] / seconds["bfloat16"], 2),
        "faces": len(files),
        "cosines of vectors": cosines(vectors["float32"], vectors["bfloat16"]),
        "share of rows whose decision changes": round(float((kept["float32"] != kept["bfloat16"]).mean()), 4),
        "the same for another seed": round(float((kept["float32"] != seed).mean()), 4),
        "repeats": repeats,
    }
