"""The table of hostile and odd inputs: each comes out as kept, removed and rejected rows, or as an error of one line.

All go through every stage in this process, with an encoder that only averages colours.
"""

from __future__ import annotations

import ast
import json
import shutil
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from inputs import (
    GOOD,
    HOSTILE,
    HTML,
    OTHER,
    STATUS,
    Maker,
    arrow_uuids,
    broken_page,
    broken_text,
    clip_retrieval,
    downloaded,
    encoded,
    folder_of,
    hugging_face,
    image,
    link,
    npy,
    parquet,
    parquets,
    pipe,
    plain,
    png_claiming,
    rotated,
    special,
    tar,
    uuids,
    vectors,
    write,
)
from rich.console import Console
from runs import command, picture, table

import fairdedup
from fairdedup import cli, pipeline
from fairdedup.cli.run_summary import print_summary
from fairdedup.config import RunConfig
from fairdedup.datasets import open_input
from fairdedup.datasets import parquet as reader
from fairdedup.encoders import EncoderSpec, forward
from fairdedup.errors import UserError
from fairdedup.progress import StageProgress
from fairdedup.storage.layout import RunDirectory
from fairdedup.tasks import Task


@dataclass(frozen=True)
class Case:
    """An input and what must come out: valid rows and reasons of the rejected, or an error that says all of this."""

    make: Maker
    valid: int = 0
    rejected: dict[str, int] = field(default_factory=dict)  # part of the reason -> how many
    error: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


def fails(make: Maker, *error: str, **options: Any) -> Case:
    return Case(make, error=error, options=options)


OUT = "leads out of the data set's folder"
TWO = {"a.png": GOOD, "b.png": OTHER}
BOTH = [GOOD, OTHER]
FLOATS = np.array([[1, 2], [np.nan, 1], [0, 0], [2, 1], [np.inf, 1], [-np.inf, 1]])
DRIFT = (
    {"key": ["a", "b"], "n": pa.array([1, 2], pa.int32()), "x": [1, 2], "s": ["t", "u"], "only": [True, None]},
    {"key": ["c", "d"], "n": pa.array([3, 4], pa.int64()), "x": [1.5, 2.5], "s": [[1], [2]], "new": ["v", "w"]},
)  # fmt: skip

TABLE: dict[str, Case] = {
    # Images, each in a folder beside a good one
    "jpg": Case(image(encoded(plain(), "JPEG"), "odd.jpg"), 2),
    "png": Case(image(encoded(plain(), "PNG")), 2),
    "webp": Case(image(encoded(plain(), "WEBP"), "odd.webp"), 2),
    "gif of several frames": Case(
        image(encoded(plain(), "GIF", save_all=True, append_images=[plain("L")] * 3), "odd.gif"), 2
    ),
    "bmp": Case(image(encoded(plain(), "BMP"), "odd.bmp"), 2),
    "tiff": Case(image(encoded(plain(), "TIFF"), "odd.tiff"), 2),
    "avif": Case(image(encoded(plain(), "AVIF"), "odd.avif"), 2),
    "alpha": Case(image(encoded(plain("RGBA"), "PNG")), 2),
    "grey with alpha": Case(image(encoded(plain("LA"), "PNG")), 2),
    "palette": Case(image(encoded(plain("P"), "PNG", transparency=0)), 2),
    "one bit": Case(image(encoded(plain("1"), "PNG")), 2),
    "16 bits": Case(image(encoded(plain("I;16"), "PNG")), 2),
    "floats": Case(image(encoded(plain("F"), "TIFF"), "odd.tif"), 2),
    "CMYK": Case(image(encoded(plain("CMYK"), "JPEG"), "odd.jpg"), 2),
    "EXIF rotation": Case(image(rotated(), "odd.jpg"), 2),
    "1 x 1": Case(image(encoded(plain(size=(1, 1)), "PNG")), 2),
    "20,000 x 1": Case(image(encoded(plain(size=(20_000, 1)), "PNG")), 2),
    "wrong extension": Case(image(encoded(plain(), "PNG"), "odd.jpg"), 2),
    "a cut JPEG": Case(image(encoded(plain(size=(99, 99)), "JPEG")[:-200], "odd.jpg"), 1, {"truncated JPEG image": 1}),
    "a cut PNG": Case(image(GOOD[: len(GOOD) // 2]), 1, {"truncated PNG image": 1}),
    "a cut WebP": Case(image(encoded(plain(), "WEBP")[:30], "odd.webp"), 1, {"": 1}),
    "zero bytes": Case(image(b""), 1, {"empty file": 1}),
    "HTML saved as .jpg": Case(image(HTML, "odd.jpg"), 1, {"HTML, XML or SVG, not an image": 1}),
    "SVG": Case(image(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), 1, {"HTML, XML or SVG": 1}),
    "PDF": Case(image(b"%PDF-1.7\n"), 1, {"not a known image format": 1}),
    "PostScript, which Pillow would run": Case(image(b"%!PS-Adobe-3.0 EPSF-3.0\n"), 1, {"not a known": 1}),
    "noise": Case(image(np.random.default_rng(0).bytes(3_000)), 1, {"not a known image format": 1}),
    "a decompression bomb": Case(image(png_claiming(50_000, 50_000)), 1, {"more than 100 million pixels": 1}),
    "a PNG without data": Case(image(png_claiming(9, 9)), 1, {"PNG image": 1}),
    "a PNG of no width": Case(image(png_claiming(0, 9)), 1, {"": 1}),
    # Folders
    "a broken link": Case(link("odd.png", "nowhere.png"), 1, {"missing or a broken link": 1}),
    "a link to itself": Case(link("odd.png", "odd.png"), 1, {"link": 1}),
    "a link to its own folder": Case(link("round", "."), 1),
    "a named pipe": Case(pipe, 1, {"not a plain file": 1}),
    "a folder named as an image": Case(folder_of({"odd.png/good.png": GOOD}), 1),
    "a name of 255 bytes": Case(image(OTHER, "n" * 251 + ".png"), 2),
    "a name in many scripts": Case(image(OTHER, "日本 ñ \U0001f600 א.png"), 2),
    "a hostile name": Case(image(OTHER, HOSTILE.replace("/", "") + ".png"), 2),
    "a caption that is no UTF-8": Case(folder_of({"a.png": GOOD, "a.txt": b"\xff\xfe\x00"}), 1),
    "JSON beside an image": Case(folder_of({"a.png": GOOD, "a.json": '{"id": 7, "path": "x", "n": 1}'}), 1),
    "broken JSON beside an image": Case(folder_of({"a.png": GOOD, "a.json": "[" * 100_000}), 1),
    "class folders": Case(folder_of({"cat/1.png": GOOD, "dog/1.png": OTHER}), 2),
    "no images": fails(folder_of({"a.pdf": b""}), "holds no images, but 1 '.pdf'"),
    "nothing": fails(folder_of({}), "holds no files"),
    "only images that are none": fails(folder_of({"a.png": b"", "b.png": b""}), "all 2 samples are rejected", "empty"),
    "Parquet and images": fails(lambda f: parquet({"image": BOTH}, TWO)(f).parent, "1 Parquet files and 2 images"),
    "Parquet further down": fails(
        lambda f: parquet({"image": BOTH})(write(f, {"data/x": b""}) / "data").parents[1], "**/*.parquet'"
    ),
    # Tars
    "path traversal": Case(tar(("../../x.png", GOOD), ("/etc/y.png", OTHER)), 2),
    "links in a tar": Case(
        tar(
            ("a.png", GOOD),
            special("b.png", tarfile.SYMTYPE, "/etc/passwd"),
            special("c.png", tarfile.LNKTYPE, "a.png"),
        ),
        1,
    ),
    "device nodes": Case(tar(("a.png", GOOD), special("z.png", tarfile.CHRTYPE), special("p", tarfile.FIFOTYPE)), 1),
    "a member twice": Case(tar(("a.png", GOOD), ("a.png", OTHER), ("b.png", OTHER)), 1, {"two members named a.png": 1}),
    "a key again later": fails(tar(("a.png", GOOD), ("b.png", OTHER), ("a.png", GOOD)), "id 'a' stands twice"),
    "no image member": Case(tar(("a.png", GOOD), ("b.txt", b"alone")), 1, {"no image member for key b": 1}),
    "a key of 4 KiB": Case(tar((f"{'k' * 4096}.png", GOOD), ("b.png", OTHER)), 2),
    "a hostile key and caption": Case(
        tar(("a\x1b[2J\u202e.png", GOOD), ("a\x1b[2J\u202e.txt", HOSTILE.encode()), ("b.png", OTHER)), 2
    ),
    "a tar cut off": Case(
        tar(("a.png", GOOD), ("b.png", OTHER), change=lambda b: b[: 1024 + len(GOOD)]),
        1,
        {"damaged tar, in or after member a.png": 1},
    ),
    "a tar cut in its first image": fails(tar(("a.png", GOOD), change=lambda b: b[:700]), "all 1 samples", "damaged"),
    "two tars in one": Case(
        tar(("a.png", GOOD), change=lambda b: b + b), 1, {"data after the end-of-archive marker": 1}
    ),
    "a tar that is none": fails(tar(change=lambda _: HTML), "all 1 samples are rejected", "not a tar"),
    "a tar of no members": fails(tar(), "holds no samples"),
    "JSON that is nested too deep": Case(tar(("a.png", GOOD), ("a.json", b'{"a":' * 50_000), ("b.png", OTHER)), 2),
    "columns that disagree": Case(
        tar(("a.png", GOOD), ("a.json", b'{"n": 1}'), ("b.png", OTHER), ("b.json", b'{"n": "x"}')), 2
    ),
    # img2dataset
    "img2dataset": Case(downloaded(), 2, {"img2dataset: \x1b[31mred": 1, "xxx...": 1}),
    "img2dataset, a success that is not there": Case(downloaded(("000",)), 1, {"the tar does not hold it": 1, "": 2}),
    "img2dataset, more in the tar": Case(downloaded(("000", "002", "9")), 3, {"img2dataset: ": 2}),
    "img2dataset, its table cut": Case(downloaded(table=b"PAR1 cut"), 2, {"the Parquet file beside it is damaged": 1}),
    "img2dataset, another table": Case(downloaded(table={"label": [1]}), 2),
    "img2dataset as files": Case(downloaded(form="files"), 2, {"img2dataset: ": 2}),
    "img2dataset as Parquet": Case(downloaded(form="parquet"), 2, {"img2dataset: ": 2}),
    # Parquet of images
    "bytes": Case(parquet({"image": BOTH, "text": ["x", None]}), 2),
    "Hugging Face's images": Case(
        parquet({"image": hugging_face(GOOD, None, OTHER), "label": [0, 1, 0]}), 2, {"nothing": 1}
    ),
    "bytes that are none": Case(
        parquet({"jpg": [GOOD, b"", None, HTML]}), 1, {"empty file": 1, "nothing in column 'jpg'": 1, "HTML": 1}
    ),
    "a column of another name": Case(parquet({"blob": BOTH, "n": [1, 2]}), 2),
    "an image in a dictionary": Case(parquet({"image": pa.array([GOOD, OTHER, GOOD]).dictionary_encode()}), 3),
    "several columns": fails(
        parquet({"image": BOTH, "embedding": vectors(2)}), "'image', 'embedding'", "add --column image"
    ),
    "several columns, and a choice": Case(
        parquet({"image": BOTH, "embedding": vectors(2)}), 2, options={"column": "embedding"}
    ),
    "a choice that is not there": fails(parquet({"image": BOTH}), "no column 'jpeg', but 'image'", column="jpeg"),
    "a choice that cannot be": fails(parquet({"image": BOTH, "n": [1, 2]}), "column 'n'", "is int64", column="n"),
    "a choice for a tar": fails(tar(("a.png", GOOD)), "--column 'x' is for Parquet", column="x"),
    "no column to be read": fails(parquet({"url": ["http://h/x.png"], "n": [1]}), "but 'url', 'n'", "img2dataset"),
    "one column twice": fails(
        lambda f: pq.write_table(pa.table([BOTH, BOTH], ["jpg", "jpg"]), f / "t.parquet") or f,
        "two columns named 'jpg'",
    ),
    "a page of it broken": Case(
        parquet({"image": [GOOD] * 3 + [OTHER]}, row_group_size=3, change=broken_page), 1, {"damaged Parquet": 3}
    ),
    "a Parquet file cut off": fails(parquet({"image": BOTH}, change=lambda b: b[:-30]), "not a readable Parquet file"),
    "a Parquet file of zero bytes": fails(parquet({"image": BOTH}, change=lambda _: b""), "not a readable Parquet"),
    "a Parquet file that is a tar": fails(
        lambda f: tar(("a.png", GOOD))(f).rename(f / "t.parquet"), "not a readable Parquet file"
    ),
    "no rows": fails(parquet({"image": pa.array([], pa.binary())}), "has no rows"),
    "a file without rows among others": Case(parquets({"image": pa.array([], pa.binary())}, {"image": BOTH}), 2),
    "columns whose files disagree": fails(parquets({"jpg": BOTH}, {"jpg": ["a", "b"]}), "keep them apart"),
    "text that is no UTF-8": Case(
        parquet({"image": BOTH, "text": broken_text(b"\xff", b"ok"), "s": broken_text(b"\xc3", b"x")}), 2
    ),
    # Paths
    "paths": Case(parquet({"path": ["a.png", "sub/b.png", "./a.png"]}, {"a.png": GOOD, "sub/b.png": OTHER}), 3),
    "paths that are not there": Case(
        parquet({"path": ["a.png", "c.png", None, "", "n" * 300]}, TWO), 1, {"missing": 1, "no id": 2, "no file can": 1}
    ),
    "paths that lead out": Case(
        parquet({"path": ["a.png", "../a.png", "/etc/passwd", "x/../../b.png", "..\\b.png"]}, TWO), 1, {OUT: 4}
    ),
    "URLs elsewhere": Case(
        parquet({"path": ["a.png", "http://127.0.0.1:1/x.png", "file:///etc/passwd", "s3://b/x.png"]}, TWO), 1, {OUT: 3}
    ),
    "paths chained, or with a zero byte": Case(
        parquet({"path": ["a.png", "zip://x::/etc/x.zip", "a\0.png", "simplecache::a.png"]}, TWO),
        1,
        {OUT: 1, "zero byte": 1, "missing": 1},
    ),
    # IDs
    "IDs that are whole numbers": Case(parquet({"uid": [2**62, -1], "image": BOTH}), 2),
    "IDs that are UUIDs": Case(parquet({"uid": uuids(2), "image": BOTH}), 2),
    "IDs that are UUIDs by their type": Case(
        parquet({"uid": arrow_uuids(2), "image": BOTH, "also": arrow_uuids(2)}), 2
    ),
    "vectors that are tensors by their type": Case(
        parquet({"id": arrow_uuids(2), "embedding": pa.FixedShapeTensorArray.from_numpy_ndarray(np.eye(2, 4))}), 2
    ),
    "IDs of 4 KiB": Case(parquet({"id": ["k" * 4096, "l" * 4096], "image": BOTH}), 2),
    "IDs in many scripts": Case(parquet({"id": ["日本\U0001f600", HOSTILE], "image": BOTH}), 2),
    "IDs that are missing": Case(
        parquet({"id": ["a", None, ""], "image": [GOOD, OTHER, OTHER]}), 1, {"no id in column 'id'": 2}
    ),
    "one ID twice": fails(parquet({"id": ["a", "a"], "image": BOTH}), "id 'a' stands twice", "--id shard/key"),
    "one ID in two files": fails(
        parquets({"id": ["a"], "jpg": [GOOD]}, {"id": ["a"], "jpg": [OTHER]}), "0.parquet and 1.parquet"
    ),
    "one ID in two files, told apart": Case(
        parquets({"id": ["a"], "jpg": [GOOD]}, {"id": ["a"], "jpg": [OTHER]}), 2, options={"id": "shard/key"}
    ),
    "IDs in one file only": fails(parquets({"id": ["a"], "jpg": [GOOD]}, {"jpg": [OTHER]}), "name it alike"),
    # Vectors
    "a column of vectors": Case(parquet({"embedding": vectors(5), "key": list("abcde")}), 5),
    "vectors of fixed size": Case(parquet({"embedding": pa.array(vectors(5), pa.list_(pa.float16(), 4))}), 5),
    "vectors that are none": Case(
        parquet(
            {
                "embedding": [
                    [1.0, 2],
                    None,
                    [0.0, 0],
                    [np.nan, 1],
                    [np.inf, 1],
                    [2.0, None],
                    [1.0],
                    [],
                    [1.0, 2, 3],
                    [2.0, 1],
                ]
            }
        ),
        2,
        {"no vector": 1, "zero": 1, "finite": 3, "vector of 1 values, not 2": 1, "vector of 0": 1, "vector of 3": 1},
    ),
    "files of other dimensions": Case(parquets({"emb": vectors(3)}, {"emb": vectors(2, 3)}), 3, {"3 values, not 4": 2}),
    "files of other fixed dimensions": fails(
        parquets(*({"emb": pa.array(vectors(2, d), pa.list_(pa.float32(), d))} for d in (4, 3))),
        "has 3 dimensions but",
        "has 4: keep them apart",
    ),
    "no vectors at all": fails(
        parquet({"embedding": pa.array([None, []], pa.list_(pa.float32()))}), "holds no vectors"
    ),
    "a broken page among vectors": Case(
        parquet({"embedding": vectors(6)}, row_group_size=4, change=broken_page), 2, {"damaged Parquet": 4}
    ),
    "vectors without an ID": Case(parquet({"id": ["a", None, "c"], "vector": vectors(3)}), 2, {"no id": 1}),
    "NaN, inf and zero in .npy": Case(npy(FLOATS), 2, {"finite": 3, "zero": 1}),
    "an .npy of objects": fails(npy(np.array([[{}, 1]], object)), "would need pickle"),
    "an .npy of one dimension": fails(npy(np.ones(4)), "2-d"),
    "an .npy of whole numbers": fails(npy(np.ones((2, 2), int)), "float16, float32 or float64"),
    "an .npy cut off": fails(npy(FLOATS, change=lambda b: b[:-8]), "is cut off"),
    "an .npy with fewer ids": fails(npy(FLOATS, {"e.ids.txt": "a\nb\n"}), "6 rows", "2: they must be rows"),
    "img_emb of other dimensions": fails(clip_retrieval((np.eye(3), None), (np.eye(2), None)), "2 dimensions but"),
    "img_emb with tables that drift": Case(clip_retrieval(*((np.eye(2), columns) for columns in DRIFT)), 4),
    "Parquet whose columns drift": Case(parquets(*({**columns, "jpg": BOTH} for columns in DRIFT)), 4),
    # Hugging Face's image folders
    "metadata.csv": Case(folder_of({**TWO, "metadata.csv": 'file_name,text\na.png,"x, y"\nb.png,z\n'}), 2),
    "metadata.jsonl": Case(
        folder_of({**TWO, "metadata.jsonl": '{"file_name": "a.png", "text": "x", "o": {"b": [1]}}\n'}), 2
    ),
    "metadata.parquet": Case(
        lambda f: (
            parquet({"file_name": ["a.png", "b.png"], "text": ["x", "y"]}, TWO)(f).rename(f / "metadata.parquet").parent
        ),
        2,
    ),
    "metadata for what is not there": Case(
        folder_of({**TWO, "metadata.csv": 'file_name\na.png\na.png\nc.png\n../b.png\n/etc/x.png\n""\nsub/\n'}),
        2,
        {"listed twice in metadata.csv": 1, "missing": 1, OUT: 2, "no file_name": 1, "not a plain file": 0, "": 2},
    ),
    "metadata with broken lines": Case(
        folder_of({**TWO, "metadata.jsonl": '{"file_name": "a.png"}\n{oops\n[1]\n{"file_name": 5}\n'}),
        2,
        {"not JSON": 1, "not a JSON object": 1, "no file_name": 1},
    ),
    "metadata.csv with too many fields": Case(folder_of({**TWO, "metadata.csv": "file_name,x\na.png,1,2\nb.png\n"}), 2),
    "metadata without file_name": fails(
        folder_of({**TWO, "metadata.csv": "name,x\na.png,1\n"}), "no column 'file_name' of text, but 'name', 'x'"
    ),
    "metadata.parquet whose file_name is a list": fails(
        lambda f: parquet({"file_name": [["a.png"]]}, TWO)(f).rename(f / "metadata.parquet").parent,
        "'file_name' of text",
    ),
    "img2dataset, a table of other types": Case(
        downloaded(table={"key": [["000"]], "status": [{"a": 1}], "error_message": [1.5]}), 2
    ),
    "IDs that are lists": Case(parquet({"id": [["a"], ["b"]], "image": BOTH}), 2),
    "metadata.parquet cut": fails(folder_of({**TWO, "metadata.parquet": b"PAR1"}), "not a readable Parquet file"),
}


class Colours:
    """An encoder that averages the colours of each quarter."""

    def encode_images(self, images: list[Any]) -> np.ndarray:
        return np.stack([np.asarray(i.resize((2, 2)), np.float32).reshape(-1) + 1 for i in images])


class Here:
    """What runs tasks, in this process."""

    progress = StageProgress(quiet=True)

    def submit(self, stage: str, function: Callable[..., Any], tasks: Sequence[Task]) -> list[Any]:
        return [function(*task.arguments) for task in tasks]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Callable[..., dict[str, Any]]:
    """Run every stage over an input and return the manifest."""
    monkeypatch.setattr(forward, "load_encoder", lambda _: Colours())
    spec = EncoderSpec("colours", None, 4, "cpu", "float32", 1)
    monkeypatch.setattr(pipeline, "image_encoder", lambda *_: spec)
    monkeypatch.setattr(pipeline, "prototypes_for", lambda *_: None)  # it has no text tower

    def whole(source: Path | str, **options: Any) -> dict[str, Any]:
        config = RunConfig(input=str(source), out=tmp_path / "run", rule="semdedup", clusters=1,
                           **{"keep": 1.0, "max_rejected": 1, **options})  # fmt: skip
        directory, here = RunDirectory(config.out), Here()
        dataset = pipeline._open(config, directory, here.progress)
        embedded = pipeline.embed_stage(config, directory, dataset, here)  # type: ignore[arg-type]
        clustered = pipeline.cluster_stage(config, embedded, here)  # type: ignore[arg-type]
        return pipeline.prune_stage(config, directory, here, clustered).to_json()  # type: ignore[arg-type]

    return whole


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.mark.parametrize("name", TABLE)
def test_what_must_come_out_comes_out(name: str, run: Any, folder: Path) -> None:
    case = TABLE[name]
    source = case.make(folder)
    if case.error:
        with pytest.raises(UserError) as caught:
            run(source, **case.options)
        message = str(caught.value)
        assert "\n" not in message and all(part in message for part in case.error), message
        return
    counts = run(source, **case.options)["counts"]
    rejected = table(folder.parent / "run" / "rejected")
    reasons = rejected["reason"].tolist()
    assert counts["kept"] + counts["removed"] + counts["rejected"] == counts["input"]
    assert (counts["valid"], counts["rejected"]) == (case.valid, len(reasons)), reasons
    for part, number in case.rejected.items():
        assert sum(part in reason for reason in reasons) >= number, reasons
    if "" not in case.rejected:
        assert sum(case.rejected.values()) == len(reasons), reasons
    assert all(reasons) and all(rejected["source"])
    rows = [*table(folder.parent / "run" / "decisions")["row"], *rejected["row"]]
    assert sorted(rows) == list(range(counts["input"]))


def test_the_table_is_long_enough() -> None:
    assert len(TABLE) >= 60


def read(source: Path | str, **options: Any) -> list[Any]:
    return [sample for shard in open_input(str(source), **options).shards for sample in shard.read()]  # type: ignore


def test_what_stands_beside_an_image_in_parquet_survives_with_its_type(run: Any, folder: Path) -> None:
    columns = {
        "uid": uuids(3), "id": [7, 8, 9], "text": [" a caption ", "", None], "image": hugging_face(GOOD, OTHER, GOOD),
        "small": pa.array([1, None, 3], pa.int8()), "never": pa.array([None] * 3, pa.float32()),
        "tags": [["a"], None, [None]], "box": [{"x": 1}, None, {"x": None}],
        "when": pa.array([1, 2, None], pa.timestamp("ns")),
        "kind": pa.array(["u", "v", "u"]).dictionary_encode(), "raw": [b"\xff", None, b""],
    }  # fmt: skip
    source = parquet(columns)(folder)
    run(source)
    kept = pq.read_table(folder.parent / "run" / "kept")
    assert kept.column_names == ["id", "caption", "input_id", *list(columns)[4:], "image_file"]
    assert kept.column("id").to_pylist() == [f"00000000-0000-0000-0000-00000000000{k}" for k in (1, 2, 3)]
    assert kept.column("caption").to_pylist() == ["a caption", None, None]
    assert kept.column("image_file").to_pylist() == ["p.png"] * 3
    for name in list(columns)[4:]:
        given = pa.array(columns[name]) if isinstance(columns[name], list) else columns[name]
        assert kept.column(name).type == given.type or name == "kind", name
        assert kept.column(name).to_pylist() == given.to_pylist(), name


def test_columns_of_vectors_survive_too(run: Any, folder: Path) -> None:
    source = parquet({"key": [3, 4], "caption": ["x", None], "emb": vectors(2), "n": pa.array([1, None], pa.int16())})
    run(source(folder))
    kept = pq.read_table(folder.parent / "run" / "kept")
    assert kept.to_pylist() == [{"id": "3", "caption": "x", "n": 1}, {"id": "4", "caption": None, "n": None}]
    assert kept.schema.field("n").type == pa.int16()


TEXT_VIEW = pa.string_view()
VIEWS = {
    "s": (["u", None, "w"], TEXT_VIEW, pa.string()),
    "raw": ([b"\xff", None, b""], pa.binary_view(), pa.large_binary()),
    "tags": ([["a"], None, [None]], pa.list_(TEXT_VIEW), pa.list_(pa.string())),
    "one": ([["a"], None, ["b"]], pa.list_(TEXT_VIEW, 1), pa.list_(pa.string(), 1)),
    "seen": ([["a"], None, ["b", "c"]], pa.list_view(TEXT_VIEW), pa.list_(pa.string())),
    "numbers": ([[1], None, []], pa.list_view(pa.int8()), pa.list_view(pa.int8())),
    "box": ([{"x": "y"}, None, {"x": None}], pa.struct([("x", TEXT_VIEW)]), pa.struct([("x", pa.string())])),
    "map": ([[("k", "v")], None, []], pa.map_(TEXT_VIEW, TEXT_VIEW), pa.map_(pa.string(), pa.string())),
    "json": (["1", None, "{}"], pa.json_(TEXT_VIEW), pa.string()),
}  # fmt: skip
"""Values, the type of their column, and the type that it has in kept/."""


@pytest.mark.parametrize("form", ["images", "vectors", "npy", "img_emb"])
def test_columns_of_views_survive_as_plain_ones(form: str, run: Any, folder: Path) -> None:
    columns: dict[str, Any] = {name: pa.array(values, kind) for name, (values, kind, _) in VIEWS.items()}
    columns["key"] = pa.array(["a", "b", "c"], TEXT_VIEW)
    matrix = np.array([*vectors(2), [np.nan] * 4])  # the last is rejected
    if form == "images":
        source = parquet({**columns, "image": pa.array([GOOD, OTHER, HTML], pa.binary_view())})(folder)
    elif form == "vectors":
        source = parquet({**columns, "embedding": pa.array(matrix.tolist(), pa.list_view(pa.float32()))})(folder)
    elif form == "npy":
        source = npy(matrix)(folder)
        pq.write_table(pa.table(columns), source.with_suffix(".parquet"))
    else:
        for name in ("img_emb", "metadata"):
            (folder / name).mkdir()
        np.save(folder / "img_emb" / "img_emb_0.npy", matrix)
        pq.write_table(pa.table(columns), folder / "metadata" / "metadata_0.parquet")
        source = folder
    run(source, where="s = 'u' OR raw IS NULL AND box IS NULL")
    kept = pq.read_table(folder.parent / "run" / "kept")
    assert kept.column("id").to_pylist() == ["a", "b"]
    for name, (values, _, kind) in VIEWS.items():
        assert kept.column(name).to_pylist() == values[:2], name
        assert kept.column(name).type.equals(kind), name


def test_broken_text_in_a_view_is_spelt_out(folder: Path) -> None:
    broken = pa.array([b"\xff", b"ok"], pa.binary_view())
    text = pa.Array.from_buffers(TEXT_VIEW, 2, broken.buffers())
    shard = open_input(str(parquet({"emb": vectors(2), "s": text})(folder))).shards[0]
    assert shard.metadata().column("s").to_pylist() == ["\\xff", "ok"]  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["Parquet whose columns drift", "img_emb with tables that drift"])
def test_numbers_are_widened_and_what_disagrees_becomes_text(name: str, run: Any, folder: Path) -> None:
    run(TABLE[name].make(folder))
    kept = pq.read_table(folder.parent / "run" / "kept").to_pydict()
    assert kept["n"] == [1, 2, 3, 4] and kept["x"] == [1.0, 2.0, 1.5, 2.5]
    assert kept["s"] == ['"t"', '"u"', "[1]", "[2]"] or kept["s"] == ["t", "u", "[1]", "[2]"]
    assert kept["only"] == [True, None, None, None] and kept["new"] == [None, None, "v", "w"]


def test_failed_downloads_come_after_what_the_tar_holds(folder: Path) -> None:
    samples = read(downloaded()(folder))
    assert [(s.position, s.id, s.error is None) for s in samples] == [
        (0, "000", True), (1, "002", True), (2, "001", False), (3, "003", False)
    ]  # fmt: skip
    assert samples[3].source == "00000.tar/003" and len(str(samples[3].error)) < 250
    plain = read(f"{folder}/*.tar", id_from="shard/key")
    assert [s.id for s in plain] == ["00000/000", "00000/002", "00000/001", "00000/003"]


def test_captions_and_columns_of_an_image_folder(folder: Path) -> None:
    write(folder, {"a.png": GOOD, "in/b.png": OTHER, "in/b.txt": "own", "in/metadata.jsonl":
                   '{"file_name": "b.png", "text": "listed", "id": 5, "path": "x"}'})  # fmt: skip
    write(folder, {"metadata.csv": 'file_name,text,n\na.png,"two\nlines",007\n'})
    first, second = read(folder)
    assert (first.caption, first.metadata) == ("two\nlines", {"path": "a.png", "n": "007"})
    assert second.caption == "own"
    assert second.metadata == {"path": "in/b.png", "text": "listed", "input_id": 5, "input_path": "x"}


def test_what_metadata_says_changes_the_fingerprint(folder: Path) -> None:
    write(folder, {"a.png": GOOD, "metadata.csv": "file_name,n\na.png,1\n"})
    before = open_input(str(folder)).shards[0].fingerprint()
    write(folder, {"metadata.csv": "file_name,n\na.png,2\n"})
    assert open_input(str(folder)).shards[0].fingerprint() != before


def test_a_large_file_is_several_shards_of_whole_row_groups(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "SHARD_IMAGES", 4)
    source = parquet({"jpg": [GOOD] * 9}, row_group_size=3)(folder)
    shards = open_input(str(source)).shards
    assert [(s.name, s.rows) for s in shards] == [(f"t.parquet-{k:05d}", 3) for k in range(3)]
    assert [s.id for s in read(source)] == [f"t-{k}" for k in range(9)]
    assert [s.source for s in read(source)] == [f"t.parquet[{k}]" for k in range(9)]
    assert len({s.fingerprint() for s in shards}) == 3
    monkeypatch.setattr(reader, "SHARD_VECTORS", 4)
    source = parquet({"emb": vectors(9), "n": list(range(9))}, row_group_size=9)(folder)
    shards = open_input(str(source)).shards
    assert [s.rows for s in shards] == [4, 4, 1]
    assert np.concatenate([s.vectors() for s in shards]).tolist() == vectors(9)  # type: ignore[union-attr]
    assert [n for s in shards for n in s.metadata().column("n").to_pylist()] == list(range(9))  # type: ignore[union-attr]


def test_images_are_read_a_few_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).bytes(1 << 20)
    images = {"jpg": [noise[k:] for k in range(64)]}
    source = parquet(images, compression="none", use_dictionary=False, write_batch_size=1)(folder)
    before = pa.total_allocated_bytes()
    for _ in open_input(str(source)).shards[0].read():  # type: ignore[union-attr]
        assert pa.total_allocated_bytes() - before < 40 << 20


@pytest.mark.parametrize(
    "name", ["metadata.jsonl", "img2dataset", "paths that lead out", "a column of vectors", "bytes"]
)
def test_every_format_is_read_from_any_file_system(name: str, folder: Path) -> None:
    made = TABLE[name].make(folder)
    below = Path(made).relative_to(folder)
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "inputs", recursive=True)
    archive = Path(shutil.make_archive(str(folder.parent / "z"), "zip", folder))
    inside = "" if made == folder else f"/{below}"
    try:
        local = open_input(str(made))
        for source in (f"memory://inputs{inside}", f"file://{made}", f"zip:/{inside or '/'}::{archive}"):
            other = open_input(source)
            assert [s.name for s in other.shards] == [s.name for s in local.shards], source
            for mine, theirs in zip(local.shards, other.shards, strict=True):
                if local.kind == "images":
                    assert list(map(told, mine.read())) == list(map(told, theirs.read())), source  # type: ignore
                else:
                    np.testing.assert_array_equal(mine.vectors(), theirs.vectors())  # type: ignore[union-attr]
    finally:
        memory.rm("inputs", recursive=True)


def told(sample: Any) -> tuple[Any, ...]:
    return sample.position, sample.id, sample.image, sample.caption, sample.error is None


def test_full_paths_below_the_data_set_are_read(folder: Path) -> None:
    source = parquet({"path": [f"{folder}/a.png", f"file://{folder}/b.png", f"{folder}-2/a.png"]}, {"a.png": GOOD})
    write(folder, {"b.png": OTHER})
    assert [s.error for s in read(source(folder))] == [None, None, f"path {OUT}"]


def test_nothing_of_the_data_reaches_a_terminal_unescaped(
    tmp_path: Path, folder: Path, run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    files: dict[str, bytes | str] = {}
    for k, name in enumerate([HOSTILE.replace("/", ""), "\u202ename", "a\nb"]):
        files |= {f"{name}.png": picture(10 * k), f"{name}.txt": HOSTILE}
        files[f"{name}.json"] = json.dumps({HOSTILE: HOSTILE})
    source = write(tmp_path / "hostile", {**files, f"bad{HOSTILE.replace('/', '')}.png": HTML})
    print_summary(run(source), Path(f"run{HOSTILE}"), Console(width=110, highlight=False))
    shutil.rmtree(tmp_path / "run")
    unknown = command("run", tmp_path / HOSTILE, "--keep", 1)
    downloads = downloaded(table={**STATUS, "error_message": [None, HOSTILE, None, HOSTILE]})
    with pytest.raises(UserError) as caught:  # the commonest reasons, which are the data's own words
        run(downloads(folder), max_rejected=0)
    assert HOSTILE[:9] in str(caught.value) and cli.entry.print_error(str(caught.value), 2) == 2
    assert (unknown.code, "\\x1b" in unknown.err) == (2, True)
    for text in (*capsys.readouterr(), unknown.err):
        assert text and all(c.isprintable() or c == "\n" for c in text), text


def test_the_package_runs_nothing_that_data_could_say() -> None:
    for path in sorted(Path(fairdedup.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            place = f"{path.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name.partition(".")[0] for alias in node.names} | {getattr(node, "module", "") or ""}
                assert not names & {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}, place
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert called not in ("eval", "exec", "compile", "__import__", "os.system", "os.popen"), place
            assert given.get("allow_pickle", "False") == "False" and given.get("shell", "False") == "False", place
            assert not called.endswith(("yaml.load", "unsafe_load", "full_load", "read_pickle")), place
            if called.endswith("torch.load"):
                assert given.get("weights_only") == "True", place
            if called.endswith(("np.load", "numpy.load")):  # numpy refuses pickles by itself, too
                assert "allow_pickle" not in given or given["allow_pickle"] == "False", place
