"""However a shard is cut into ranges, and however many threads decode, the run has the same bytes."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from in_process import Here
from PIL import Image
from runs import contents, picture, write_tar

from fairdedup.commands import embed
from fairdedup.config import RunConfig
from fairdedup.datasets import Sample, decoders
from fairdedup.datasets.decoding_ahead import map_ahead
from fairdedup.encoders import EncoderSpec, batch_encoder
from fairdedup.errors import FairdedupError
from fairdedup.preparation.request import read_request
from fairdedup.preparation.run_input import open_run_input
from fairdedup.stages.embedding import input_embedding
from fairdedup.storage.checked_json import write_json
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.records import ShardRecord, read_shard_record
from fairdedup.tasks import Task

BATCH = 2
# Seeds of the pictures of a shard: equal ones are exact copies, also in other ranges; -1 and -2 cannot be decoded.
SEEDS = [0, 10, 20, -1, 0, 30, -2, 40, 10, -1, 50, 60, 60, -2, 0, 70, 80, 90, 100]


class SeesItsBatch:
    """An encoder whose vectors depend on the batch that an image is in."""

    def encode_images(self, images: list[Any]) -> np.ndarray:
        colours = np.stack([np.asarray(i.resize((2, 2)), np.float32).reshape(-1) + 1 for i in images])
        return colours + 50 * len(images) + colours.mean(axis=0)


class Counting(Here):
    """A runner that counts tasks, and stops before one of them."""

    def __init__(self, stop_before: int | None = None) -> None:
        self.done: dict[str, int] = {"embed": 0}
        self.stop_before = stop_before

    def submit(self, stage: str, function: Callable[..., Any], tasks: Sequence[Task]) -> list[Any]:
        results = []
        for task in tasks:
            if stage == "embed" and self.done.get(stage) == self.stop_before:
                raise FairdedupError("stopped")
            results.append(function(*task.arguments))
            self.done[stage] = self.done.get(stage, 0) + 1
        return results


@pytest.fixture(autouse=True)
def encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_encoder, "load_encoder", lambda _: SeesItsBatch())
    spec = EncoderSpec("sees its batch", None, BATCH, "cpu", "float32", 1)
    monkeypatch.setattr(embed, "choose_image_encoder", lambda *_: spec)


def embed_here(source: Path, out: Path, here: Here | None = None, **options: Any) -> Path:
    """Embed an input in this process and return the folder of the embeddings."""
    config = RunConfig(input=str(source), out=out, max_rejected=1, **options)
    request = read_request(config)
    here = here or Here()
    dataset = open_run_input(config, request.directory, here.progress)
    embed.embed(request, dataset, here)  # type: ignore[arg-type]
    return out / "embeddings"


def bytes_of(seed: int) -> bytes:
    return picture(seed) if seed >= 0 else [b"no picture", picture(0)[:200]][-seed - 1]


def columns_of(k: int) -> dict[str, Any]:
    """Return metadata whose types differ between ranges."""
    values: dict[str, Any] = {"n": k if k < 9 else k + 0.5, "mixed": k if k < 5 else f"v{k}", "width": k}
    return values | ({"late": k / 4} if k > 12 else {}) | ({"nothing": None} if k < 4 else {"nothing": "x"})


def as_tar(folder: Path) -> Path:
    members: dict[str, bytes] = {}
    for k, seed in enumerate(SEEDS):
        members |= {f"{k:03}.png": bytes_of(seed), f"{k:03}.json": json.dumps(columns_of(k)).encode()}
    return write_tar(folder / "s.tar", members | {"notes.pdf": b"%PDF", "100.txt": b"a caption without a picture"})


def as_img2dataset(folder: Path) -> Path:
    path = as_tar(folder).rename(folder / "00000.tar")
    failed = [{"key": f"{k:03}", "status": "success" if k < len(SEEDS) else "failed_to_download"} for k in range(25)]
    pq.write_table(pa.Table.from_pylist(failed), path.with_suffix(".parquet"))
    return folder


def as_folder(folder: Path) -> Path:
    for k, seed in enumerate(SEEDS):
        (folder / f"{k:03}.png").write_bytes(bytes_of(seed))
        (folder / f"{k:03}.json").write_text(json.dumps(columns_of(k)))
    return folder


def as_zip(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "s.zip", "w") as archive:
        for k, seed in enumerate(SEEDS):
            archive.writestr(f"{k:03}.png", bytes_of(seed))
    return folder / "s.zip"


def as_parquet(folder: Path) -> Path:
    columns = {"key": [f"{k:03}" for k in range(len(SEEDS))], "image": [bytes_of(seed) for seed in SEEDS]}
    times = pa.array([None if k % 3 else k for k in range(len(SEEDS))], pa.timestamp("ms"))
    lists = pa.array([[k] * (k % 3) for k in range(len(SEEDS))], pa.list_(pa.int8()))
    pq.write_table(pa.table({**columns, "when": times, "list": lists}), folder / "s.parquet", row_group_size=7)
    return folder / "s.parquet"


@pytest.mark.parametrize("write", [as_tar, as_img2dataset, as_folder, as_zip, as_parquet])
def test_the_bytes_do_not_depend_on_how_a_shard_is_cut_nor_on_the_decoders(write, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    source = write(tmp_path / "in")
    found = {}
    for ranges, threads in ((1, 0), (1, 3), (3, 1), (32, 0), (32, 2)):
        monkeypatch.setattr(input_embedding, "RANGES", ranges)
        here, out = Counting(), tmp_path / f"{ranges}-{threads}"
        embedded = embed_here(source, out, here, decoders=threads)
        rows = sum(record["input"] for record in read_records(out))
        assert here.done["embed"] == min(ranges, -(-rows // BATCH)) or ranges == 3
        assert not (embedded / "_ranges").exists() and not list((embedded / "copies").glob("trying_*"))
        found[ranges, threads] = {n: contents(embedded / n) for n in ("img_emb", "metadata", "records")}
    for other in found.values():
        assert other == found[1, 0]


def read_records(out: Path) -> list[dict[str, Any]]:
    files = sorted((out / "embeddings" / "records").glob("record_*.json"))
    return [json.loads(file.read_text()) for file in files]


def record_of(out: Path) -> ShardRecord:
    record = read_shard_record(RunDirectory(out), 0, verify=True)
    assert record is not None
    return record


def test_copies_have_the_vector_of_their_first_image_or_its_reason_across_ranges(tmp_path):
    embedded = embed_here(as_tar(tmp_path), tmp_path / "run")
    record = record_of(tmp_path / "run")
    seeds = [SEEDS[position] for position in record.positions()]
    assert seeds == [seed for seed in SEEDS if seed >= 0]
    vectors = np.load(embedded / "img_emb" / "img_emb_0.npy")
    first = [seeds.index(seed) for seed in seeds]
    assert np.array_equal(vectors, vectors[first]) and len({vector.tobytes() for vector in vectors}) == len({*seeds})
    reasons = {SEEDS[r.position]: r.reason for r in record.rejected if r.position < len(SEEDS)}
    assert reasons == {-1: "not a known image format", -2: "truncated PNG image"}
    assert [r.id for r in record.rejected] == ["003", "006", "009", "013", "notes", "100"]
    assert record.unused == {".pdf": 1}


def test_metadata_has_the_types_of_all_rows(tmp_path):
    embedded = embed_here(as_folder(tmp_path), tmp_path / "run")
    table = pq.read_table(embedded / "metadata" / "metadata_0.parquet")
    rows = [k for k, seed in enumerate(SEEDS) if seed >= 0]
    assert table.column("n").to_pylist() == [k if k < 9 else k + 0.5 for k in rows]
    assert table.column("mixed").to_pylist() == [str(columns_of(k)["mixed"]) for k in rows]
    assert table.column("late").to_pylist() == [k / 4 if k > 12 else None for k in rows]
    assert table.column("nothing").to_pylist() == [None if k < 4 else "x" for k in rows]
    assert table.column("input_width").to_pylist() == rows and set(table.column("width").to_pylist()) == {24}
    assert table.column_names[:3] == ["id", "caption", "path"] and table.column_names[-4:] == [
        "width", "height", "format", "bytes"
    ]  # fmt: skip


def test_a_stopped_run_goes_on_with_the_ranges_that_are_there(tmp_path):
    source = as_tar(tmp_path)
    expected = contents(embed_here(source, tmp_path / "whole") / "img_emb")
    out, here = tmp_path / "run", Counting(stop_before=6)
    with pytest.raises(FairdedupError, match="stopped"):
        embed_here(source, out, here)
    ranges = RunDirectory(out).ranges_of(0)
    files = sorted(ranges.vectors(0).parent.glob("*.npy"))
    assert here.done["embed"] == len(files) == 6 and not RunDirectory(out).record(0).exists()
    files[1].write_bytes(b"damaged")  # this one is made again
    files[2].unlink()
    kept = {file: file.stat().st_mtime_ns for file in (files[0], *files[3:])}
    seen = []

    class Looking(Here):
        def submit(self, stage: str, function: Callable[..., Any], tasks: Sequence[Task]) -> list[Any]:
            if stage == "join ranges":
                seen.append({file: file.stat().st_mtime_ns for file in kept})
            return super().submit(stage, function, tasks)

    assert contents(embed_here(source, out, Looking()) / "img_emb") == expected
    assert seen == [kept] and not ranges.root.exists()


def test_only_the_range_whose_worker_has_died_is_decoded_in_a_child_process(tmp_path, monkeypatch):
    source, run = as_tar(tmp_path), RunDirectory(tmp_path / "run")
    expected = contents(embed_here(source, tmp_path / "whole") / "img_emb")
    write_json(run.attempt("embed", 0, 4), {})
    open_decoder, isolated = decoders.open_decoder, []

    def noted(*arguments: Any, **options: Any) -> Any:
        isolated.append(options["isolated"])
        return open_decoder(*arguments, **options)

    monkeypatch.setattr(decoders, "open_decoder", noted)
    assert contents(embed_here(source, run.root, decoders=2) / "img_emb") == expected
    assert isolated == [False] + [k == 2 for k in range(11)]  # the first pass, then ranges of two rows
    assert not run.list_attempts()


def test_an_input_is_cut_into_ranges_of_whole_batches_that_do_not_depend_on_the_workers():
    class Shard:
        def __init__(self, is_seekable: bool) -> None:
            self.is_seekable = is_seekable

    def sizes(counts: list[int], batch: int, seekable: bool = True) -> list[list[int]]:
        cut = input_embedding.cut_ranges([Shard(seekable)] * len(counts), counts, batch)  # type: ignore[list-item]
        for own, count in zip(cut, counts, strict=True):
            assert [row for rows in own for row in rows] == list(range(count))
            assert all(rows.start % batch == 0 for rows in own)
        return [[len(rows) for rows in own] for own in cut]

    assert sizes([300], 32) == [[32] * 9 + [12]]
    assert sizes([2000], 32) == [[64] * 31 + [16]]
    assert sizes([0, 5], 32) == [[0], [5]]
    assert sizes([1000] * 100, 32) == [[1000]] * 100  # enough shards
    assert sizes([1000, 20], 32, seekable=False) == [[1000], [20]]
    assert sizes([9000, 10], 32) == [[288] * 31 + [72], [10]]


# Decoding ahead


def test_results_come_in_order_and_no_more_than_some_samples_are_ahead():
    taken: list[int] = []

    def samples() -> Any:
        for k in range(40):
            taken.append(k)
            yield Sample(k, str(k), picture(k))

    ahead = []
    for k, found in enumerate(map_ahead(lambda sample: sample.position, samples(), 3, 5)):
        assert found == k
        ahead.append(len(taken) - k)
    assert len(ahead) == 40 and max(ahead) <= 6


def test_files_that_wait_are_bounded_by_their_bytes(monkeypatch):
    from fairdedup.datasets import decoding_ahead

    monkeypatch.setattr(decoding_ahead, "FILES_AHEAD", 100)
    taken: list[int] = []

    def samples() -> Any:
        for k in range(10):
            taken.append(k)
            yield Sample(k, str(k), bytes(40))

    for k, _ in enumerate(map_ahead(lambda sample: sample.position, samples(), 2, 1000)):
        assert len(taken) - k <= 3


def test_an_error_of_a_decoder_ends_the_stream():
    def fail(sample: Sample) -> int:
        if sample.position == 3:
            raise MemoryError
        return sample.position

    found = []
    with pytest.raises(MemoryError):
        found.extend(map_ahead(fail, iter([Sample(k, "", b"x") for k in range(9)]), 2, 4))
    assert found in ([], [0, 1, 2])


# JPEGs at a reduced size


def photograph(size: tuple[int, int], **options: Any) -> bytes:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).save(buffer, **{"format": "JPEG", "quality": 90, **options})
    return buffer.getvalue()


def turned(size: tuple[int, int]) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return photograph(size, exif=exif)


@pytest.mark.parametrize(
    ("data", "size", "decoded"),
    [
        (photograph((1600, 1200)), (1600, 1200), (400, 300)),
        (photograph((1601, 1203), progressive=True), (1601, 1203), (401, 301)),
        (photograph((1600, 2400)), (1600, 2400), (200, 300)),
        (turned((1600, 1200)), (1200, 1600), (300, 400)),
        (photograph((799, 399)), (799, 399), (799, 399)),
        (photograph((800, 400)), (800, 400), (400, 200)),
        (photograph((805, 403)), (805, 403), (805, 403)),  # half of 403, rounded up, is 0.25 % too large
        (photograph((1600, 1200), format="PNG"), (1600, 1200), (1600, 1200)),
    ],
)
def test_a_large_jpeg_is_decoded_at_the_smallest_size_with_the_detail(data, size, decoded):
    from fairdedup.datasets.decoders import open_decoder
    from fairdedup.datasets.images import decode_picture, read_facts

    found, whole = decode_picture(data, detail=200), decode_picture(data)
    assert found.image.size == decoded and whole.image.size == size
    assert found.facts == whole.facts == read_facts(data) and found.facts.width == size[0]
    near = np.asarray(whole.image.resize(decoded, Image.Resampling.BOX), float)
    assert np.abs(near - np.asarray(found.image, float)).mean() < 4
    with open_decoder(None, 65535, 200, isolated=True) as decoder:
        assert decoder.load(data).value.tobytes() == found.image.tobytes()
    if decoded == size:
        assert found.image.tobytes() == whole.image.tobytes()
