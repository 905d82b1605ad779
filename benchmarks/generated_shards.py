"""Draws embeddings with planted near-duplicates, shard by shard, and writes them in clip-retrieval's layout."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def write_shards(folder: Path, rows: int, dim: int, shards: int, giant: int, seed: int) -> np.ndarray:
    """Write embeddings in clip-retrieval's layout, half of them near-duplicates, and return the planted centres.

    The first centre has `giant` rows, and the others share the rest.
    """
    rng = np.random.default_rng(seed)
    others = max(1, (rows - giant) // 1000)
    centres = rng.standard_normal((1 + others, dim)).astype(np.float32)
    (folder / "img_emb").mkdir(parents=True)
    labels = np.concatenate([np.zeros(giant, np.int64), rng.integers(1, 1 + others, rows - giant)])
    labels = rng.permutation(labels)
    for number, own in enumerate(np.array_split(labels, shards)):
        x = 0.8 * rng.standard_normal((len(own), dim), dtype=np.float32)
        half = len(own) // 2  # each row of the second half of a shard is near one of the first
        scale = rng.uniform(0.05, 1.0, (half, 1)).astype(np.float32)
        x[half : 2 * half] = x[:half] + scale * x[half : 2 * half]
        own[half : 2 * half] = own[:half]
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", (x + centres[own]).astype(np.float16))
    return centres


def list_planted_pairs(rows: int, shards: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the two rows of each planted pair of `write_shards`: near-duplicates in the same shard."""
    first, second = [], []
    for own in np.array_split(np.arange(rows), shards):
        half = len(own) // 2
        first.append(own[:half])
        second.append(own[half : 2 * half])
    return np.concatenate(first), np.concatenate(second)


def check_disk(folder: Path, rows: int, dim: int) -> None:
    """Refuse a job for which the disk has no room: input, embeddings, sorted vectors, kept vectors, and columns."""
    needed, free = int(1.1 * rows * (7 * dim + 400)), shutil.disk_usage(folder).free
    if free < needed:
        raise SystemExit(
            f"{rows:,} rows of {dim} values need {needed / 1e9:.1f} GB in {folder}, which has {free / 1e9:.1f} GB "
            "free: choose another --folder or smaller --sizes"
        )
