"""Functions that write hostile and odd inputs: each writes one into a folder and returns the value of INPUT."""

from __future__ import annotations

import io
import json
import os
import tarfile
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from runs import picture, write_tar

Maker = Callable[[Path], Path | str]

GOOD = picture(0)
OTHER = picture(10)
HTML = b"<!DOCTYPE html><html><script>alert(1)</script></html>"
HOSTILE = '\x1b[31mred\x1b]0;title\x07\r\n<script>alert("1")</script>\u202eevil\u2066$(touch x);`id`'


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(mode: str = "RGB", size: tuple[int, int] = (12, 9)) -> Image.Image:
    """Return a small picture with a gradient, in one of Pillow's modes."""
    ramp = np.add.outer(np.arange(size[1]), np.arange(size[0])) * 7 % 256
    grey = Image.fromarray(ramp.astype(np.uint8))
    if mode in ("I;16", "F"):
        return Image.fromarray((ramp * 200).astype(np.uint16) if mode == "I;16" else ramp.astype(np.float32))
    return grey.convert("RGB").convert(mode) if mode != "LA" else grey.convert("LA")


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(plain(), "JPEG", exif=exif)


def png_claiming(width: int, height: int) -> bytes:
    """Return a PNG whose header claims a size that its data do not have."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def write(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def image(data: bytes, name: str = "odd.png") -> Maker:
    """Make a folder with a good picture and an odd one."""
    return lambda folder: write(folder, {"good.png": GOOD, name: data})


def folder_of(files: dict[str, bytes | str]) -> Maker:
    return lambda folder: write(folder, files)


def tar(*members: tuple[str | tarfile.TarInfo, bytes], change: Callable[[bytes], bytes] = bytes) -> Maker:
    """Make one tar shard; members may be headers of any kind."""

    def make(folder: Path) -> Path:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, data in members:
                header = tarfile.TarInfo(name) if isinstance(name, str) else name
                header.size = len(data)
                archive.addfile(header, io.BytesIO(data))
        return write(folder, {"t.tar": change(buffer.getvalue())}) / "t.tar"

    return make


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, target
    return header, b""


def link(name: str, target: str) -> Maker:
    def make(folder: Path) -> Path:
        write(folder, {"good.png": GOOD})
        os.symlink(target, folder / name)
        return folder

    return make


def pipe(folder: Path) -> Path:
    write(folder, {"good.png": GOOD})
    os.mkfifo(folder / "pipe.png")
    return folder


def parquet(
    columns: dict[str, Any], beside: dict[str, bytes | str] | None = None, change: Callable[[bytes], bytes] = bytes,
    **options: Any,
) -> Maker:  # fmt: skip
    """Make one Parquet file, with other files next to it."""

    def make(folder: Path) -> Path:
        write(folder, beside or {})
        buffer = io.BytesIO()
        pq.write_table(pa.table(columns), buffer, **options)
        return write(folder, {"t.parquet": change(buffer.getvalue())}) / "t.parquet"

    return make


def parquets(*tables: dict[str, Any]) -> Maker:
    """Make a folder of Parquet files."""

    def make(folder: Path) -> Path:
        for number, columns in enumerate(tables):
            pq.write_table(pa.table(columns), folder / f"{number}.parquet")
        return folder

    return make


def hugging_face(*values: bytes | None) -> pa.Array:
    """Return images as the Hugging Face libraries store them."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.array([None if v is None else {"bytes": v, "path": "p.png"} for v in values], kind)


def vectors(n: int, d: int = 4, seed: int = 0) -> list[list[float]]:
    return np.random.default_rng(seed).normal(size=(n, d)).tolist()


def broken_text(*values: bytes) -> pa.Array:
    """Return a text column whose bytes are not UTF-8, which only a hostile or broken writer makes."""
    return pa.array(list(values), pa.binary()).view(pa.string())


def npy(
    array: np.ndarray, beside: dict[str, bytes | str] | None = None, change: Callable[[bytes], bytes] = bytes
) -> Maker:
    def make(folder: Path) -> Path:
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=True)
        return write(folder, {"e.npy": change(buffer.getvalue()), **(beside or {})}) / "e.npy"

    return make


def clip_retrieval(*shards: tuple[np.ndarray, dict[str, Any] | None]) -> Maker:
    def make(folder: Path) -> Path:
        for name in ("img_emb", "metadata"):
            (folder / name).mkdir()
        for number, (array, columns) in enumerate(shards):
            np.save(folder / "img_emb" / f"img_emb_{number}.npy", array)
            if columns is not None:
                pq.write_table(pa.table(columns), folder / "metadata" / f"metadata_{number}.parquet")
        if not any((folder / "metadata").iterdir()):
            (folder / "metadata").rmdir()
        return folder

    return make


STATUS = {
    "key": ["000", "001", "002", "003"],
    "status": ["success", "failed_to_download", "success", "failed_to_resize"],
    "error_message": [None, HOSTILE, None, "x" * 5_000],
    "url": ["u/0", "u/1", "u/2", "u/3"],
}


def downloaded(
    keys: tuple[str, ...] = ("000", "002"), table: dict[str, Any] | bytes = STATUS, form: str = "tar"
) -> Maker:
    """Make the output of img2dataset: tars, files or Parquet, with a table of all downloads."""

    def make(folder: Path) -> Path:
        members: dict[str, bytes] = {}
        for k, key in enumerate(keys):
            members |= {f"{key}.jpg": picture(10 * k), f"{key}.txt": b"a caption"}
            members[f"{key}.json"] = json.dumps({"url": f"u/{key}", "status": "success"}).encode()
        if form == "files":
            write(folder / "00000", dict(members))
        elif form == "tar":
            write_tar(folder / "00000.tar", members)
        write(folder, {"00000_stats.json": "{}"})
        columns = dict(table) if isinstance(table, dict) else {}
        if form == "parquet":
            columns["jpg"] = [members.get(f"{key}.jpg") for key in columns["key"]]
            columns["txt"] = ["a caption" if f"{key}.jpg" in members else None for key in columns["key"]]
        if isinstance(table, bytes):
            write(folder, {"00000.parquet": table})
        else:
            pq.write_table(pa.table(columns), folder / "00000.parquet")
        return folder

    return make


def uuids(n: int) -> pa.Array:
    return pa.array([uuid.UUID(int=k + 1).bytes for k in range(n)], pa.binary(16))


def arrow_uuids(n: int) -> pa.Array:
    return pa.ExtensionArray.from_storage(pa.uuid(), uuids(n))


def broken_page(data: bytes) -> bytes:
    """Overwrite the first bytes after the magic: the first page of the first column cannot be read."""
    return data[:4] + b"\xff" * 40 + data[44:]
