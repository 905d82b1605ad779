"""Ready embeddings in clip-retrieval's layout: order, ids, and files that do not belong together."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reading import (
    clip_retrieval,
    mistake,
)

from fairdedup.datasets import open_input
from fairdedup.errors import UserError


def test_clip_retrieval_is_read_in_the_order_of_its_numbers(tmp_path):
    dataset = open_input(str(clip_retrieval(tmp_path, {"10": 2, "9": 3})))
    assert (dataset.kind, dataset.format) == ("embeddings", "clip-retrieval")
    assert [shard.name for shard in dataset.shards] == ["img_emb_9.npy", "img_emb_10.npy"]
    nine, ten = dataset.shards
    assert isinstance(nine.vectors(), np.memmap)
    assert nine.vectors().dtype == np.float16 and nine.vectors().tolist() == [[900.0] * 3] * 3
    assert ten.metadata().to_pydict() == {
        "id": ["key1000", "key1001"],
        "key": ["key1000", "key1001"],
        "caption": ["caption1000", "caption1001"],
    }
    assert ten.metadata().schema.field("id").type == pa.string()
    copy = pickle.loads(pickle.dumps(ten))
    assert copy.metadata() == ten.metadata() and copy.fingerprint() == ten.fingerprint() != nine.fingerprint()


@pytest.mark.parametrize(
    ("columns", "source"),
    [
        (("image_path", "key", "id", "uid"), "uid"),
        (("image_path", "key", "id"), "id"),
        (("image_path", "key"), "key"),
        (("image_path", "caption"), "image_path"),
    ],
)
def test_the_best_id_column_wins(tmp_path, columns, source):
    shard = open_input(str(clip_retrieval(tmp_path, {"0": 2}, columns))).shards[0]
    table = shard.metadata()
    assert table.column("id").to_pylist() == [f"{source}0", f"{source}1"]
    renamed = {"id": "input_id"} if source == "uid" else {}
    assert table.column_names == ["id"] + [renamed.get(n, n) for n in columns if (n, source) != ("id", "id")]
    if source == "uid":
        assert table.column("input_id").to_pylist() == ["id0", "id1"]


def test_without_ids_the_place_is_the_id(tmp_path):
    shards = open_input(str(clip_retrieval(tmp_path / "bare", {"0": 1, "1": 2}, ()))).shards
    assert [shard.metadata().to_pydict() for shard in shards] == [{"id": ["0-0"]}, {"id": ["1-0", "1-1"]}]
    shards = open_input(str(clip_retrieval(tmp_path / "url", {"4": 1}, ("url",)))).shards
    assert shards[0].metadata().to_pydict() == {"id": ["4-0"], "url": ["url400"]}


def test_shard_key_ids_of_embeddings(tmp_path):
    shard = open_input(str(clip_retrieval(tmp_path, {"7": 1})), id_from="shard/key").shards[0]
    assert shard.metadata().column("id").to_pylist() == ["img_emb_7/key700"]


def test_integer_ids_become_text_and_bad_ones_are_named(tmp_path):
    root = clip_retrieval(tmp_path, {"0": 2}, ())
    (root / "metadata").mkdir()
    path = root / "metadata/metadata_0.parquet"
    for column, expected in (
        (pa.array([12, 7]), ["12", "7"]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
        (
            pa.array([b"\0" * 15 + b"\1", b"\0" * 15 + b"\2"], pa.binary(16)),
            [f"{'0' * 8}-0000-0000-0000-{k:012}" for k in (1, 2)],
        ),
        (pa.array(["a", None]), "has 1 empty row: fill it"),
        (pa.array([[1], [2]]), "is list<element: int64>, not text"),
        (pa.array([b"\xff", b"a"]), "is binary, not text"),
    ):
        pq.write_table(pa.table({"uid": column}), path)
        shard = open_input(str(root)).shards[0]
        if isinstance(expected, list):
            assert shard.metadata().column("id").to_pylist() == expected
        else:
            with pytest.raises(UserError, match="id column 'uid' of .*metadata_0.parquet") as caught:
                shard.metadata()
            assert expected in str(caught.value)


def test_clip_retrieval_mistakes(tmp_path):
    (tmp_path / "none/img_emb").mkdir(parents=True)
    assert "holds no img_emb_0.npy" in mistake(tmp_path / "none")

    root = clip_retrieval(tmp_path / "rows", {"0": 2, "1": 2})
    pq.write_table(pa.table({"key": ["a"]}), root / "metadata/metadata_1.parquet")
    message = mistake(root)
    assert "img_emb_1.npy' has 2 rows but" in message and "metadata_1.parquet' has 1:" in message

    (root / "metadata/metadata_1.parquet").write_bytes(b"PAR1 no")
    assert "metadata_1.parquet' is not a readable Parquet file" in mistake(root)
    (root / "metadata/metadata_1.parquet").unlink()
    assert "metadata_1.parquet is missing, but" in mistake(root)
    (root / "img_emb/img_emb_1.npy").rename(root / "img_emb/img_emb_2.npy")
    (root / "metadata/metadata_0.parquet").rename(root / "metadata/metadata_2.parquet")
    (root / "img_emb/img_emb_0.npy").unlink()
    pq.write_table(pa.table({"key": ["a"]}), root / "metadata/metadata_3.parquet")
    assert "img_emb_3.npy is missing, but" in mistake(root)

    root = clip_retrieval(tmp_path / "width", {"0": 2, "1": 2})
    np.save(root / "img_emb/img_emb_1.npy", np.ones((2, 4)))
    assert "has 4 dimensions but" in mistake(root) and "has 3: put them into separate folders" in mistake(root)

    root = clip_retrieval(tmp_path / "columns", {"0": 1, "1": 1})
    pq.write_table(pa.table({"uid": ["a"]}), root / "metadata/metadata_1.parquet")
    assert "has id column 'uid' but" in mistake(root) and "has 'key': give the column the same name" in mistake(root)

    assert "has no rows" in mistake(clip_retrieval(tmp_path / "empty", {"0": 0}))


def test_an_empty_shard_among_others_is_read(tmp_path):
    empty, full = open_input(str(clip_retrieval(tmp_path, {"0": 0, "1": 2}))).shards
    assert empty.vectors().shape == (0, 3) and empty.metadata().num_rows == 0
    assert full.metadata().num_rows == 2
