"""Helpers for the tests of single formats: small files, and what a reader returns or reports for them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fairdedup.datasets import Sample, open_input
from fairdedup.errors import UserError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(colour: tuple[int, ...] = RED, size: tuple[int, int] = (4, 3)) -> Image.Image:
    return Image.new("RGB" if len(colour) == 3 else "RGBA", size, colour)


PNG = encoded(picture())


def write_tar(path: Path, members: list[tuple[str | tarfile.TarInfo, bytes]], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, data in members:
            header = tarfile.TarInfo(name) if isinstance(name, str) else name
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return path


def samples_of(source: Path | str, **options: Any) -> list[Sample]:
    return [sample for shard in open_input(str(source), **options).shards for sample in shard.read()]


def mistake(source: Path | str, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        open_input(str(source), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def touch(path: Path, data: bytes = PNG) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def clip_retrieval(root: Path, rows: dict[str, int], columns: tuple[str, ...] = ("key", "caption")) -> Path:
    (root / "img_emb").mkdir(parents=True)
    for number, count in rows.items():
        start = 100 * int(number)
        np.save(root / f"img_emb/img_emb_{number}.npy", np.full((count, 3), start, np.float16))
        if columns:
            (root / "metadata").mkdir(exist_ok=True)
            table = pa.table({name: [f"{name}{start + row}" for row in range(count)] for name in columns})
            pq.write_table(table, root / f"metadata/metadata_{number}.parquet")
    return root


def ids_of(path: Path, **options: Any) -> list[str]:
    return [i for shard in open_input(str(path), **options).shards for i in shard.metadata().column("id").to_pylist()]


def three_samples(path: Path) -> Path:
    members = []
    for key in ("000", "001", "002"):
        members += [(f"{key}.png", bytes(1500)), (f"{key}.txt", b"text")]
    return write_tar(path, members)  # 4 blocks for an image and its header, 2 for a text: 3072 bytes a sample
