"""Parquet as input: columns that survive with their types, views, shards of row groups, paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from inputs import (
    GOOD,
    HTML,
    OTHER,
    hugging_face,
    npy,
    parquet,
    uuids,
    vectors,
    write,
)
from odd_inputs import OUT

from fairdedup.datasets import open_input
from fairdedup.datasets import table_inputs as reader


def read(source: Path | str, **options: Any) -> list[Any]:
    return [sample for shard in open_input(str(source), **options).shards for sample in shard.read()]  # type: ignore


def test_other_columns_of_images_in_parquet_keep_their_types(run: Any, folder: Path) -> None:
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
    own = ["width", "height", "format", "bytes"]
    assert kept.column_names == ["id", "caption", "input_id", *list(columns)[4:], "image_file", *own, "stands_for"]
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
    assert kept.to_pylist() == [
        {"id": "3", "caption": "x", "n": 1, "stands_for": 0},
        {"id": "4", "caption": None, "n": None, "stands_for": 0},
    ]
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


def test_broken_text_in_a_view_is_escaped(folder: Path) -> None:
    broken = pa.array([b"\xff", b"ok"], pa.binary_view())
    text = pa.Array.from_buffers(TEXT_VIEW, 2, broken.buffers())
    shard = open_input(str(parquet({"emb": vectors(2), "s": text})(folder))).shards[0]
    assert shard.metadata().column("s").to_pylist() == ["\\xff", "ok"]  # type: ignore[union-attr]


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


def test_full_paths_below_the_data_set_are_read(folder: Path) -> None:
    source = parquet({"path": [f"{folder}/a.png", f"file://{folder}/b.png", f"{folder}-2/a.png"]}, {"a.png": GOOD})
    write(folder, {"b.png": OTHER})
    assert [s.error for s in read(source(folder))] == [None, None, f"path {OUT}"]
