"""Odd tables, arrays and saved data sets: what comes out, and that every remedy which a message names works."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from inputs import GOOD, OTHER, hugging_face, npy, parquet, vectors
from odd_inputs import BOTH
from odd_tables import DATACOMP, MATRIX, TABLES, arrow, npys, npz, saved
from runs import table
from table_remedies import REMEDIES

from fairdedup.datasets import npy as npy_reader
from fairdedup.datasets import open_input, table_inputs
from fairdedup.errors import UserError


@pytest.mark.parametrize("name", TABLES)
def test_what_must_come_out_comes_out(name: str, run: Any, folder: Path) -> None:
    case = TABLES[name]
    source = case.make(folder)
    if case.error:
        with pytest.raises(UserError) as caught:
            run(source, **case.options)
        message = str(caught.value)
        assert "\n" not in message and all(part in message for part in case.error), message
        return
    counts = run(source, **case.options)["counts"]
    reasons = table(folder.parent / "run" / "rejected")["reason"].tolist()
    assert counts["kept"] + counts["removed"] + counts["rejected"] == counts["input"]
    assert (counts["valid"], counts["rejected"]) == (case.valid, len(reasons)), reasons
    assert sum(case.rejected.values()) == len(reasons), reasons
    for part, number in case.rejected.items():
        assert sum(part in reason for reason in reasons) >= number, reasons


@pytest.mark.parametrize("name", REMEDIES)
def test_the_remedy_that_a_message_names_works(name: str, run: Any, tmp_path: Path) -> None:
    remedy = REMEDIES[name]
    (tmp_path / "wrong").mkdir()
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError) as caught:
        run(remedy.wrong(tmp_path / "wrong"), **remedy.wrong_options)
    assert remedy.message in str(caught.value), caught.value
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    counts = run(remedy.right(tmp_path / "in"), **remedy.options)["counts"]
    assert counts["valid"] == remedy.valid


def ids_of(source: Path | str, **options: Any) -> list[str]:
    dataset = open_input(str(source), **options)
    if dataset.kind == "embeddings":
        return [i for s in dataset.shards for i in s.metadata().column("id").to_pylist()]  # type: ignore[union-attr]
    return [sample.id for shard in dataset.shards for sample in shard.read()]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([1.58e12, -3.0]), ["1580000000000", "-3"]),
        (pa.array([1.0, 2.5], pa.float32()), ["1", "2.5"]),
        (pa.array([1.0, 2.0], pa.float16()), ["1", "2"]),
        (pa.array([1e15, 2.0]).dictionary_encode(), ["1000000000000000", "2"]),
        (pa.array([100, 550], pa.int64()).cast(pa.decimal128(20, 0)), ["100", "550"]),
        (pa.array(["5.00", "5.50"]).cast(pa.decimal128(5, 2)), ["5", "5.50"]),
        (pa.array([0, 19_782], pa.date32()), ["1970-01-01", "2024-02-29"]),
        (pa.array([0, 1], pa.timestamp("s")), ["1970-01-01 00:00:00", "1970-01-01 00:00:01"]),
        (pa.array([0, 1], pa.timestamp("s", "UTC")), ["1970-01-01 00:00:00Z", "1970-01-01 00:00:01Z"]),
    ],
)
def test_ids_are_written_out_the_same_in_every_reader(column: pa.Array, expected: list[str], folder: Path) -> None:
    assert ids_of(parquet({"uid": column, "image": BOTH})(folder)) == expected
    assert ids_of(parquet({"uid": column, "embedding": vectors(2)})(folder)) == expected
    source = npy(np.eye(2))(folder)
    pq.write_table(pa.table({"uid": column}), source.with_suffix(".parquet"))
    assert ids_of(source) == expected
    assert ids_of(arrow({"uid": column, "image": BOTH})(folder)) == expected


def test_a_takedown_list_applies_to_ids_of_floats(run: Any, folder: Path) -> None:
    source = parquet({"id": [1.58e12, 2e12, 3e12], "image": [GOOD, OTHER, GOOD]})(folder)
    (folder.parent / "drop.txt").write_text("1580000000000\n")
    run(source, drop=folder.parent / "drop.txt")
    assert table(folder.parent / "run" / "kept")["id"].tolist() == ["2000000000000", "3000000000000"]


def test_what_was_chosen_and_what_is_no_id_is_in_the_manifest(run: Any, folder: Path) -> None:
    given = {"uid": [["a"], ["b"]], "id": [True, False], "key": ["k", "l"], "image": BOTH, "mask": BOTH}
    manifest = run(parquet(given)(folder))
    assert manifest["input"]["column"] == "image"
    remarks = " ".join(manifest["warnings"])
    assert "column 'uid' of" in remarks and "is list<" in remarks and "cannot be an id: ids are from 'key'" in remarks
    assert "column 'id' of" in remarks and "is bool" in remarks
    assert table(folder.parent / "run" / "kept")["id"].tolist() == ["k", "l"]


def test_without_another_id_the_remark_says_what_ids_are(folder: Path) -> None:
    dataset = open_input(parquet({"id": [["a"], ["b"]], "image": BOTH})(folder))
    assert "ids are made from the file's name and the row" in dataset.remarks[0]
    assert ids_of(folder / "t.parquet") == ["t-0", "t-1"]


def test_columns_named_as_ours_are_renamed_and_none_is_lost(run: Any, folder: Path) -> None:
    given = {
        "uid": ["u", "v"], "id": [7, 8], "input_id": ["x", "y"], "caption": [["a"], ["b"]], "text": ["t", "s"],
        "image": hugging_face(GOOD, OTHER), "image_file": ["mine", "mine too"],
    }  # fmt: skip
    run(parquet(given)(folder))
    kept = pq.read_table(folder.parent / "run" / "kept").to_pydict()
    assert kept["id"] == ["u", "v"] and kept["caption"] == ["t", "s"]
    assert kept["input_id_"] == [7, 8] and kept["input_id"] == ["x", "y"] and kept["input_caption"] == [["a"], ["b"]]
    assert kept["image_file"] == ["mine", "mine too"] and kept["input_image_file"] == ["p.png"] * 2


def test_columns_beside_arrays_are_renamed_and_none_is_lost(folder: Path) -> None:
    source = npz({"emb": MATRIX}, {"uid": list("abcdef"), "id": [*range(6)], "input_id": ["x"] * 6})(folder)
    found = open_input(source).shards[0].metadata()  # type: ignore[union-attr]
    assert found.column_names == ["id", "uid", "input_id_", "input_id"]
    assert found.column("input_id_").to_pylist() == [*range(6)]


def test_rows_of_several_npy_have_the_name_of_their_file(folder: Path) -> None:
    source = npys({"a.npy": MATRIX[:2], "b/c.npy": MATRIX[:1]})(folder)
    assert ids_of(source) == ["a-0", "a-1", "b/c-0"]
    assert [shard.name for shard in open_input(source).shards] == ["a.npy-00000", "b/c.npy-00000"]
    assert ids_of(folder / "a.npy") == ["0", "1"]
    assert ids_of(f"{folder}/*.npy") == ["a-0", "a-1"], "another file would change ids, if these were row numbers"
    assert ids_of(source, id_from="shard/key") == ["a/a-0", "a/a-1", "b/c/b/c-0"]


def test_what_was_read_before_keeps_its_names_and_fingerprints(folder: Path) -> None:
    from fairdedup.datasets.filesystem import fingerprint

    fs = fsspec.filesystem("file")
    for source, label in (
        (parquet({"image": BOTH})(folder), "t.parquet 0:2 image"),
        (npy(MATRIX)(folder), "e.npy-00000 0:6"),
    ):
        (shard,) = open_input(source).shards
        assert shard.fingerprint() == fingerprint(fs, str(source), label=label)
        assert label.startswith(shard.name)


def test_datacomp_has_its_uids_and_says_what_it_does_not_read(folder: Path) -> None:
    source = npz(DATACOMP, {"uid": list("abcdef"), "text": ["x"] * 6})(folder)
    dataset = open_input(source, column="l14_txt")
    assert (dataset.format, dataset.column) == ("npz", "l14_txt")
    assert "'b32_img', 'b32_txt', 'l14_img'" in dataset.remarks[0]
    assert dataset.shards[0].metadata().to_pydict()["id"] == list("abcdef")  # type: ignore[union-attr]
    prints = {open_input(source, column=name).shards[0].fingerprint() for name in DATACOMP}
    assert len(prints) == 4, "another array is another input"
    assert not open_input(folder, column="l14_txt").unused


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_npz_is_read_in_shards(save: Any, order: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npy_reader, "SHARD_ROWS", 4)
    matrix = np.array(vectors(10), np.float32, order=order)
    source = npz({"emb": matrix, "ids": np.arange(10) + 100, "other": np.eye(2, dtype=int)}, save=save)(folder)
    shards = open_input(source).shards
    assert [shard.rows for shard in shards] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([s.vectors() for s in shards]), matrix)  # type: ignore[union-attr]
    assert ids_of(source) == [str(k) for k in range(100, 110)]


def test_a_saved_data_set_has_the_rows_of_the_library(folder: Path) -> None:
    import datasets

    given = {
        "image": [{"bytes": GOOD if k % 2 else OTHER, "path": f"{k}.png"} for k in range(24)],
        "label": ["cat", "dog"] * 12, "box": [{"x": [k, 1.5]} for k in range(24)],
    }  # fmt: skip
    data = datasets.Dataset.from_dict(given)
    data = data.cast_column("image", datasets.Image(decode=False)).class_encode_column("label")
    data.save_to_disk(str(folder / "saved"), num_shards=12)
    loaded = datasets.load_from_disk(str(folder / "saved"))
    dataset = open_input(folder / "saved")
    samples = [sample for shard in dataset.shards for sample in shard.read()]  # type: ignore[union-attr]
    assert (dataset.format, dataset.column, dict(dataset.unused)) == ("arrow", "image", {})
    assert [sample.id for sample in samples] == [str(k) for k in range(24)], "the row in the data set"
    for sample, row in zip(samples, loaded, strict=True):
        assert sample.image == row["image"]["bytes"]
        assert {name: value.as_py() for name, value in sample.metadata.items()} == {
            "label": row["label"], "box": row["box"], "image_file": row["image"]["path"],
        }  # fmt: skip


def test_a_dataset_dict_is_read_split_by_split_and_says_so(folder: Path) -> None:
    source = saved("train", "test", "a")(folder)
    assert ids_of(source) == ["train/0", "train/1", "test/0", "a/0"]
    dataset = open_input(source)
    assert dataset.remarks == (f"all splits of {str(source)!r} are read: train, test, a",)
    assert [shard.name.partition("/")[0] for shard in dataset.shards] == ["train", "test", "a"]


def test_caches_and_files_that_no_data_set_names_are_counted(folder: Path) -> None:
    source = Path(saved()(folder))
    data = (source / "data-00000-of-00002.arrow").read_bytes()
    for name in ("cache-1.arrow", "tmpx.arrow", "data-00002-of-00003.arrow", "notes.txt"):
        (source / name).write_bytes(data)
    assert dict(open_input(source).unused) == {".arrow": 3, ".txt": 1}
    assert ids_of(source) == ["0", "1", "2", "3"]


def test_a_large_arrow_file_is_several_shards(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_inputs, "SHARD_IMAGES", 4)
    source = arrow({"image": [GOOD] * 10, "n": [*range(10)]}, rows=3)(folder)
    shards = open_input(source).shards
    assert [(shard.name, shard.rows) for shard in shards] == [(f"t.arrow-{k:05d}", n) for k, n in enumerate((3, 3, 4))]
    assert [s.metadata["n"].as_py() for shard in shards for s in shard.read()] == [*range(10)]  # type: ignore
    monkeypatch.setattr(table_inputs, "SHARD_VECTORS", 4)
    source = arrow({"embedding": vectors(9)}, rows=9)(folder)
    shards = open_input(source).shards
    assert [shard.rows for shard in shards] == [4, 4, 1]
    assert np.concatenate([s.vectors() for s in shards]).tolist() == vectors(9)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "make", [saved("train", "test"), npz({"emb": MATRIX}), npys({"a.npy": MATRIX, "b/c.npy": MATRIX})]
)
def test_new_inputs_are_read_from_any_file_system(make: Any, folder: Path) -> None:
    made = Path(make(folder))
    below = f"/{made.relative_to(folder)}" if made != folder else ""
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "inputs", recursive=True)
    archive = shutil.make_archive(str(folder.parent / "z"), "zip", folder)
    try:
        for source in (f"memory://inputs{below}", f"zip:/{below or '/'}::{archive}"):
            assert ids_of(source) == ids_of(made)
            assert [s.name for s in open_input(source).shards] == [s.name for s in open_input(made).shards]
            for mine, theirs in zip(open_input(made).shards, open_input(source).shards, strict=True):
                if hasattr(mine, "vectors"):
                    np.testing.assert_array_equal(mine.vectors(), theirs.vectors())  # type: ignore[union-attr]
    finally:
        memory.rm("inputs", recursive=True)


def test_arrow_images_are_mapped_not_copied(folder: Path) -> None:
    noise = np.random.default_rng(0).bytes(1 << 20)
    source = arrow({"image": [noise[k:] for k in range(64)]})(folder)
    before = pa.total_allocated_bytes()
    for _ in open_input(source).shards[0].read():  # type: ignore[union-attr]
        assert pa.total_allocated_bytes() - before < 4 << 20


@pytest.mark.parametrize(
    ("name", "warning"),
    [
        ("an .npy cut off, what is left", "it is cut off after 4 rows; 2 rows are rejected"),
        ("a saved data set cut off, what is left", "the 0 rows before it can be read; about 2 rows are lost"),
        ("one file of two cut off, and left out", "left out, with an unknown number of rows: '"),
    ],
)
def test_damage_that_is_skipped_is_a_warning(name: str, warning: str, run: Any, folder: Path) -> None:
    case = TABLES[name]
    assert warning in " ".join(run(case.make(folder), **case.options)["warnings"])


def test_a_broken_page_that_is_skipped_is_a_warning(run: Any, folder: Path) -> None:
    remedy = REMEDIES["skip a broken page"]
    warnings = " ".join(run(remedy.right(folder), **remedy.options)["warnings"])
    assert "t.parquet is damaged: rows 0 to 2 of 0 to 3 cannot be read; 3 rows are rejected" in warnings


def test_img_emb_counts_other_files(folder: Path) -> None:
    dataset = open_input(TABLES["img_emb with other files"].make(folder))
    assert dict(dataset.unused) == {".txt": 1}


def test_every_prefix_of_an_arrow_file_is_read_or_an_error(folder: Path) -> None:
    path = arrow({"image": [GOOD] * 3, "n": [1, 2, 3]}, rows=1)(folder)
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        try:
            samples = [s for shard in open_input(path, skip_damaged=True).shards for s in shard.read()]  # type: ignore
        except UserError as error:
            assert "is not an Arrow file" in str(error) or "has no rows" in str(error)
        else:
            assert len(samples) < 4 and all(sample.image == GOOD for sample in samples)


def test_the_table_is_long_enough() -> None:
    assert len(TABLES) >= 25 and len(REMEDIES) >= 10
