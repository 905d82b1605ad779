"""Helpers for the tests of object stores: a bucket behind a proxy that fails on purpose, and inputs for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from runs import (
    PRODUCT,
    Finished,
    command,
    done,
    product,
    raw_vectors,
)
from servers import Request, Served

from fairdedup.datasets import Dataset
from fairdedup.storage.object_stores import RemotePath, as_path

KEY, SECRET = "AKIDOFTHETESTS000000", "secret/of+the/tests/0123456789abcdefghij"
BUCKET = "s3://bucket"
ROWS, SHARDS = 1500, 3


@dataclass(frozen=True)
class Store:
    """A bucket, the proxy in front of it, and Dask workers that use both."""

    proxy: Served
    scheduler: str
    bucket: str = BUCKET

    def put(self, folder: Path, name: str) -> str:
        """Copy a local folder into the bucket and return its URL."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                (as_path(f"{self.bucket}/{name}") / path.relative_to(folder)).put(path)  # type: ignore[attr-defined]
        return f"{self.bucket}/{name}"

    def get(self, url: str, folder: Path) -> Path:
        """Copy everything below a URL into a local folder, and return the folder."""
        place = as_path(url)
        assert isinstance(place, RemotePath)
        for name in place.fs.find(url):
            path = folder / name.removeprefix(url.partition("://")[2]).lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(place.fs.cat_file(name, start=0))
        return folder

    def copy(self, url: str, other: str) -> str:
        """Copy everything below a URL to another URL, and return that one."""
        place, target = as_path(url), as_path(other)
        assert isinstance(place, RemotePath)
        for name in place.fs.find(url):
            place.fs.cp_file(name, str(target) + name.removeprefix(url.removeprefix("s3://")))
        return other

    def done(self, *arguments: object) -> Finished:
        """Run a command that must succeed."""
        return done(*arguments, "--scheduler", self.scheduler, "--quiet")

    def command(self, *arguments: object) -> Finished:
        return command(*arguments, "--scheduler", self.scheduler, "--quiet")


def write_shards(folder: Path, rows: int, shards: int, seed: int = 0, prefix: str = "k") -> Path:
    """Write ready embeddings in clip-retrieval's layout."""
    (folder / "img_emb").mkdir(parents=True)
    (folder / "metadata").mkdir()
    x = raw_vectors(rows, seed)
    for number, own in enumerate(np.array_split(np.arange(rows), shards)):
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", x[own])
        ids = [f"{prefix}{row}" for row in own]
        table = pa.table({"key": ids, "caption": [f"caption {row}" for row in own], "width": own})
        pq.write_table(table, folder / "metadata" / f"metadata_{number}.parquet")
    return folder


CLUSTERED = ("--eps", 0.1, "--clusters", 4)
PLAIN = (*CLUSTERED, "--rule", "semdedup")


@dataclass(frozen=True)
class Job:
    """The same job, done on the local disk and in the store."""

    source: Path
    local: Path
    url: str
    remote: str
    asked: tuple[object, ...]
    requests: list[Request]


def same_product(store: Store, url: str, local: Path, folder: Path) -> None:
    got = store.get(url, folder)
    assert product(got) == product(local)
    assert all(product(local)[name] for name in PRODUCT)


def lists(requests: list[Request]) -> int:
    return sum(r.lists for r in requests)


def everything(dataset: Dataset) -> list[Any]:
    """Return the content of a data set: its samples, or its vectors and tables."""
    if dataset.kind == "images":
        return [sample for shard in dataset.shards for sample in shard.read()]  # type: ignore[union-attr]
    return [
        (shard.name, np.asarray(shard.vectors()).tolist(), shard.metadata().to_pylist(), shard.faults())
        for shard in dataset.shards  # type: ignore[union-attr]
    ]
