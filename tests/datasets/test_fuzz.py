"""Every reader survives damaged files: any bytes give rejected rows or an error of one line, fast and in little memory.

`make soak` runs for an hour; FUZZ_SECONDS changes that.
"""

from __future__ import annotations

import bz2
import itertools
import json
import lzma
import os
import resource
import secrets
import time
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import CHANGES, Change, changed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from in_process import Colours
from inputs import (
    Maker,
    clip_retrieval,
    downloaded,
    encoded,
    folder_of,
    hugging_face,
    npy,
    parquet,
    plain,
    special,
    tar,
)
from inputs import vectors as some_vectors
from odd_folders import zipped
from odd_images import HEIC
from odd_tables import arrow, npys, npz, saved
from odd_tars import HARD, SYM, named, zstd

from fairdedup.datasets import open_input
from fairdedup.datasets.images import BadImage, decode
from fairdedup.encoders import EncoderSpec, batch_encoder
from fairdedup.errors import UserError
from fairdedup.stages.embedding.shard_embedding import Target, embed_images, import_vectors
from fairdedup.stages.image_scan import scan_shard
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.schemas import merge_schemas
from fairdedup.storage.shared_vectors import Copies

SPEC = EncoderSpec("colours", None, 4, "cpu", "float32", 1)
LONGEST = 30.0  # seconds of the processor for one input: others may use the machine too
MOST_MEMORY = 3 << 30
SMALL = encoded(plain(size=(5, 4)), "PNG")
ZIPPED = {"a.png": SMALL, "b": SMALL, "b.txt": "text", "metadata.csv": "file_name,n\na.png,1\nc.png,2\n"}
COLUMNS = {"text": ["a caption", None, "ünï"], "n": [1, 2, 3], "tags": [["a"], [], None], "o": [{"a": 1}] * 3}


def tgz(folder: Path) -> Path:
    import gzip

    path = tar(("a.png", SMALL), ("b.png", SMALL), ("b.txt", b"x"))(folder)
    path.with_suffix(".tgz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    path.unlink()
    return path.with_suffix(".tgz")


FORMATS: dict[str, Maker] = {
    "folder": folder_of({"a.png": SMALL, "a.txt": "text", "a.json": '{"n": 1, "s": ["x"]}'}),
    "folder of all companions": folder_of(
        {"a": SMALL, "a.caption": "text", "a.cls": "7", "b.png": SMALL, "b.png.json": '["x", "y"]', "c.bin": SMALL}
    ),
    "metadata.csv of numbers": folder_of(
        {"a.png": SMALL, "metadata.csv": "file_name,n,x,id\na.png,1,0.5,\nb.png,,2,7\n"}
    ),
    "zip": zipped(ZIPPED),
    "zip, compressed": zipped(ZIPPED, method=zipfile.ZIP_DEFLATED),
    "zip, by bzip2": zipped(ZIPPED, method=zipfile.ZIP_BZIP2),
    "metadata.csv": folder_of({"a.png": SMALL, "metadata.csv": 'file_name,text\na.png,"x\ny"\nb.png,z\n'}),
    "metadata.jsonl": folder_of({"a.png": SMALL, "metadata.jsonl": '{"file_name": "a.png", "n": 1}\n' * 2}),
    "metadata.parquet": lambda f: parquet({"file_name": ["a.png"] * 3, **COLUMNS}, {"a.png": SMALL})(f)
    .rename(f / "metadata.parquet").parent,
    "tar": tar(("a.png", SMALL), ("a.txt", b"text"), ("a.json", b'{"n": 1}'), ("b.png", SMALL)),
    "tgz": tgz,
    "tar.bz2": named("t.tar.bz2", bz2.compress),
    "tar.xz": named("t.tar.xz", lzma.compress),
    "tar.zst": named("t.tar.zst", zstd),
    "tar of links": tar(
        special("a.png", SYM, "in/c.png"), ("b.png", SMALL), special("d.png", HARD, "b.png"), ("in/c.png", SMALL)
    ),
    "tar.xz of links": named("t.tar.xz", lzma.compress, ("b.png", SMALL), special("d.png", HARD, "b.png")),
    "tar of frames": tar(("a.0.png", SMALL), ("a.0.txt", b"text"), ("a.1.png", SMALL), ("a.json", b'["x", "y"]')),
    "img2dataset": downloaded(),
    "Parquet of images": parquet({"key": list("abc"), "image": [SMALL] * 3, **COLUMNS}),
    "Parquet of images, plain": parquet({"jpg": [SMALL] * 3, **COLUMNS}, compression="none", use_dictionary=False),
    "Parquet of structs": parquet({"image": hugging_face(SMALL, None, SMALL), **COLUMNS}, row_group_size=2),
    "Parquet of paths": parquet({"path": ["a.png", "b.png", "../a.png"], **COLUMNS}, {"a.png": SMALL}),
    "Parquet of vectors": parquet({"embedding": some_vectors(3), "id": [1, 2, 3], **COLUMNS}, row_group_size=2),
    "Parquet of fixed vectors": parquet({"emb": pa.array(some_vectors(3), pa.list_(pa.float32(), 4)), **COLUMNS}),
    "Parquet of dictionaries": parquet(
        {"jpg": pa.array([SMALL] * 3).dictionary_encode(), "key": pa.array(list("abc")).dictionary_encode(),
         "text": pa.array(["x", "x", None]).dictionary_encode()}, compression="zstd",
    ),
    "npy": npy(np.eye(4, dtype=np.float32), {"e.ids.txt": "a\nb\nc\nd\n"}),
    "npy with a table": lambda f: parquet({"id": list("abcd"), "n": [1, 2, 3, 4]})(f).rename(f / "e.parquet")
    and npy(np.eye(4))(f),
    "npz": npz({"emb": np.eye(4), "ids": np.arange(4)}, {"id": list("abcd"), "n": [1, 2, 3, 4]}),
    "npz, compressed": npz({"emb": np.eye(4), "n": np.arange(3)}, save=np.savez_compressed),
    "several npy": npys(
        {"a.npy": np.eye(4), "b/c.npy": np.eye(4, dtype=np.float16)},
        {"a.ids.txt": "a\nb\nc\nd", "b/c.ids.txt": "e\nf\ng\nh"},
    ),
    "Arrow of images": arrow({"key": list("abc"), "image": hugging_face(SMALL, None, SMALL), **COLUMNS}, rows=2),
    "Arrow of vectors": arrow({"emb": some_vectors(3), "id": [1.0, 2.0, 3.0], **COLUMNS}, compression="lz4"),
    "Arrow of dictionaries": arrow(
        {"jpg": pa.array([SMALL] * 3).dictionary_encode(), "key": pa.array(list("abc")).dictionary_encode()}, "file"
    ),
    "saved data set": saved("train", "test"),
    "img_emb": clip_retrieval(*((np.eye(3), {"key": list(keys), **COLUMNS}) for keys in ("abc", "def"))),
}  # fmt: skip
KINDS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO", "TGA", "DIB")
IMAGES = {kind: encoded(plain(size=(16, 16)), kind) for kind in KINDS} | {"HEIC": HEIC}


class Bench:
    """A valid input on disk, and the outcomes of changes to one of its files."""

    def __init__(self, maker: Maker, place: Path, *, skip_damaged: bool = False) -> None:
        self.place, self.run, self.skip_damaged = place, place / "run", skip_damaged
        (place / "in").mkdir(parents=True)
        self.source = maker(place / "in")
        self.files = [p for p in sorted((place / "in").rglob("*")) if p.is_file()]
        self.whole = [p.read_bytes() for p in self.files]

    def try_with(self, which: int, changes: list[Change]) -> str:
        """Change one file, read everything, and restore the file; return the outcome."""
        path, data = self.files[which % len(self.files)], self.whole[which % len(self.files)]
        path.write_bytes(changed(data, changes))
        started = time.process_time()
        try:
            return self._read()
        finally:
            assert time.process_time() - started < LONGEST
            path.write_bytes(data)

    def _read(self) -> str:
        run = RunDirectory(self.run)
        try:
            dataset = open_input(str(self.source), skip_damaged=self.skip_damaged)
            records = []
            for number, shard in enumerate(dataset.shards):
                shard.fingerprint()
                if dataset.kind == "images":
                    for position, sample in enumerate(shard.read()):
                        assert sample.position == position
                        assert (sample.image is None) == (sample.error is not None)
                    scan_shard(number, shard, self.run, secrets.token_hex(8))
                    records.append(embed_images(Target(number, self.run, ""), shard, None, SPEC, Copies()))
                else:
                    records.append(import_vectors(Target(number, self.run, ""), shard))
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 4_000
            return "error"
        for record in records:
            assert record.valid + len(record.rejected) == record.input
            table = pq.read_table(run.metadata(record.number))
            assert table.num_rows == record.valid == len(np.load(run.vectors(record.number)))
            table.validate(full=True)
            table.column("id").to_pylist()
            pa.array([list(map(str, r)) for r in record.rejected], pa.list_(pa.string()))
            json.dumps(record.rejected).encode()
        merge_schemas([pq.read_schema(run.metadata(r.number)) for r in records])
        return "rejections" if any(r.rejected for r in records) else "all"


def survives(bench: Bench, examples: int, **options: Any) -> Counter[str]:
    """Let Hypothesis search for changes that a reader does not survive, and return the number of each outcome."""
    ends: Counter[str] = Counter()

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck), **options)
    @given(st.integers(0, 7), CHANGES)
    def attempt(which: int, changes: list[Change]) -> None:
        ends[bench.try_with(which, changes)] += 1

    attempt()
    return ends


def decodes(examples: int, **options: Any) -> None:
    """Let Hypothesis search for image files that give anything but a picture or a BadImage."""

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck), **options)
    @given(st.sampled_from(sorted(IMAGES)), CHANGES)
    def attempt(kind: str, changes: list[Change]) -> None:
        started = time.process_time()
        try:
            assert decode(changed(IMAGES[kind], changes)).mode == "RGB"
        except BadImage as error:
            assert len(str(error)) < 100 and str(error).isprintable()
        assert time.process_time() - started < LONGEST

    attempt()


@pytest.fixture(autouse=True)
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_encoder, "load_encoder", lambda _: Colours())


@pytest.fixture(autouse=True)
def little_memory() -> Any:
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < MOST_MEMORY


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("skip_damaged", [False, True], ids=["damage stops", "damage is skipped"])
def test_no_change_of_bytes_makes_a_reader_fail_or_hang(name: str, skip_damaged: bool, tmp_path: Path) -> None:
    bench = Bench(FORMATS[name], tmp_path, skip_damaged=skip_damaged)
    assert bench._read() in ("all", "rejections")
    assert set(survives(bench, 40)) & {"error", "rejections"}


def test_no_change_of_bytes_makes_the_decoder_fail_or_hang() -> None:
    decodes(400)


@pytest.mark.soak
def test_an_hour_of_changes(tmp_path: Path) -> None:
    until = time.monotonic() + float(os.environ.get("FUZZ_SECONDS", "3600"))
    benches = {
        (name, skip): Bench(maker, tmp_path / f"{number}-{skip}", skip_damaged=skip)
        for number, (name, maker) in enumerate(FORMATS.items())
        for skip in (False, True)
    }
    tried: Counter[str] = Counter()
    for name in itertools.cycle([*benches, "decoder"]):
        if time.monotonic() > until:
            break
        if isinstance(name, str):
            decodes(1_000, derandomize=False)
            tried["decoded"] += 1_000
        else:
            tried += survives(benches[name], 300, derandomize=False)
    print(f"{tried.total():,} damaged inputs: {dict(tried)}")
