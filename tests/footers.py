"""Reads a user's Parquet files at every place, with damaged footers. A process of its own, since pyarrow may end it.

python footers.py FOLDER FLIPS SEED: prints how many files were refused, and how many were read.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fairdedup.datasets import open_input, page_memory
from fairdedup.datasets.ids import read_ids
from fairdedup.datasets.labels import read_labels
from fairdedup.errors import UserError
from fairdedup.prototype_files import read_vectors

ROWS = 4
KEYS = [f"k{row}" for row in range(ROWS)]
MORE = {
    "width": range(ROWS),
    "ratio": [0.5] * ROWS,
    "seen": pa.array(range(ROWS), pa.timestamp("ms")),
    "flag": [True, False] * (ROWS // 2),
}


def read_input(path: Path) -> None:
    """Open an input, and read every shard of it."""
    for shard in open_input(str(path), skip_damaged=True).shards:
        found: Any = shard
        if hasattr(found, "read"):
            for _ in found.read():
                pass
        else:
            found.vectors(), found.metadata(), found.faults(), found.findings()


def write_array(folder: Path) -> None:
    np.save(folder / "x.npy", np.eye(ROWS, dtype="f4"))


def write_clip(folder: Path) -> None:
    for name in ("img_emb", "metadata"):
        (folder / name).mkdir()
    np.save(folder / "img_emb" / "img_emb_0.npy", np.eye(ROWS, dtype="f4"))


def write_tar(folder: Path) -> None:
    from runs import picture
    from runs import write_tar as write

    write(folder / "00000.tar", {f"{key}.png": picture(k) for k, key in enumerate(KEYS)})


def write_pictures(folder: Path) -> None:
    from runs import picture

    for k, key in enumerate(KEYS):
        (folder / f"{key}.png").write_bytes(picture(k))


Place = tuple[dict[str, Any], str, Callable[[Path], None] | None, Callable[[Path], Any]]
PLACES: dict[str, Place] = {  # columns, the file's name, what else is in the folder, and how it is read
    "images": ({"key": KEYS, "jpg": [b"x" * 9] * ROWS}, "a.parquet", None, lambda f: read_input(f / "a.parquet")),
    "vectors": ({"id": KEYS, "vector": list(np.eye(ROWS))}, "a.parquet", None, lambda f: read_input(f / "a.parquet")),
    "paths": ({"key": KEYS, "path": ["a.png"] * ROWS}, "a.parquet", None, lambda f: read_input(f / "a.parquet")),
    "ids": ({"id": KEYS}, "ids.parquet", None, lambda f: read_ids(f / "ids.parquet", "--drop")),
    "labels": ({"id": KEYS, "a": KEYS}, "l.parquet", None, lambda f: read_labels(f / "l.parquet", ["a", "width"])),
    "prototypes": (
        {"attribute": ["a"] * ROWS, "concept": KEYS, "vector": list(np.eye(ROWS))}, "p.parquet", None,
        lambda f: read_vectors(f / "p.parquet"),
    ),
    "a table beside an array": ({"id": KEYS}, "x.parquet", write_array, lambda f: read_input(f / "x.npy")),
    "metadata of clip-retrieval": ({"id": KEYS}, "metadata/metadata_0.parquet", write_clip, read_input),
    "downloads beside a tar": (
        {"key": KEYS, "status": ["success"] * ROWS, "error_message": [None] * ROWS}, "00000.parquet", write_tar,
        lambda f: read_input(f / "00000.tar"),
    ),
    "metadata of a folder": ({"file_name": [f"{key}.png" for key in KEYS]}, "metadata.parquet", write_pictures,
                             read_input),
}  # fmt: skip


def damage(data: bytes, rng: random.Random) -> bytes:
    """Return a Parquet file with a bit of its footer changed."""
    length = int.from_bytes(data[-8:-4], "little")
    work = bytearray(data)
    work[len(data) - 8 - rng.randrange(1, length + 1)] ^= 1 << rng.randrange(8)
    return bytes(work)


def main(folder: Path, flips: int, seed: int) -> None:
    """Read every kind of file with damage; any error but that of a user is raised."""
    page_memory.LARGE = 1  # so that every file counts as one with large pages
    rng, counts = random.Random(seed), Counter[str]()
    for number, (columns, name, write, read) in enumerate(PLACES.values()):
        place = folder / str(number)
        place.mkdir()
        if write is not None:
            write(place)
        pq.write_table(pa.table({**columns, **MORE}), place / name, row_group_size=ROWS // 2)
        data = (place / name).read_bytes()
        read(place)
        for _ in range(flips):
            (place / name).write_bytes(damage(data, rng))
            try:
                read(place)
                counts["read"] += 1
            except UserError:
                counts["refused"] += 1
    print(dict(counts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
