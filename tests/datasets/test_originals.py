"""Samples of a format without files become files: image, caption and columns."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pyarrow as pa
from fsspec.implementations.memory import MemoryFileSystem
from inputs import GOOD, encoded, plain

from fairdedup.datasets import Sample
from fairdedup.datasets.findings import Findings
from fairdedup.datasets.originals import read_originals

JPEG = encoded(plain(), "JPEG")


class MadeUp:
    """A shard of a format that the package does not know."""

    name = path = "made-up"
    fs = MemoryFileSystem()
    rows = 3

    def read(self, findings: Findings | None = None) -> Iterator[Sample]:
        yield Sample(0, "a", GOOD, "not wanted")
        yield Sample(1, "b/c", JPEG, "a caption", {"n": pa.scalar(3), "x": float("nan")})
        yield Sample(2, "d.png", GOOD)

    def fingerprint(self) -> str:
        return "made-up"


def test_samples_of_any_format_become_an_image_a_caption_and_json() -> None:
    found = list(read_originals(MadeUp(), [1, 2], frozenset()))
    assert [(m.position, m.id, m.name) for m in found] == [
        (1, "b/c", "b/c.jpg"),
        (1, "b/c", "b/c.txt"),
        (1, "b/c", "b/c.json"),
        (2, "d.png", "d%2Epng.png"),
        (2, "d.png", "d%2Epng.json"),
    ]
    assert [m.data for m in found[:2]] == [JPEG, b"a caption"]
    assert [json.loads(m.data) for m in found if m.suffix == "json" and isinstance(m.data, bytes)] == [
        {"n": 3, "x": None},
        {"id": "d.png"},
    ]
