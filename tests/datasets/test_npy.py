"""Ready embeddings in one .npy file: shards, ids in files next to it, and files that do not fit."""

from __future__ import annotations

import pickle
import struct
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reading import (
    ids_of,
    mistake,
)

from fairdedup.datasets import npy, open_input
from fairdedup.errors import UserError


def test_npy_is_cut_into_shards_with_row_numbers_as_ids(tmp_path, monkeypatch):
    monkeypatch.setattr(npy, "SHARD_ROWS", 4)
    vectors = np.arange(20, dtype=np.float32).reshape(10, 2)
    np.save(tmp_path / "e.npy", vectors)
    dataset = open_input(str(tmp_path / "e.npy"))
    assert (dataset.kind, dataset.format) == ("embeddings", "npy")
    assert [shard.name for shard in dataset.shards] == ["e.npy-00000", "e.npy-00001", "e.npy-00002"]
    assert all(isinstance(shard.vectors(), np.memmap) for shard in dataset.shards)
    assert np.concatenate([shard.vectors() for shard in dataset.shards]).tolist() == vectors.tolist()
    assert [shard.metadata().to_pydict() for shard in dataset.shards][1] == {"id": ["4", "5", "6", "7"]}
    assert len({shard.fingerprint() for shard in dataset.shards}) == 3
    assert pickle.loads(pickle.dumps(dataset.shards[2])).vectors().tolist() == vectors[8:].tolist()


def test_npy_ids_come_from_the_files_next_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr(npy, "SHARD_ROWS", 2)
    path = tmp_path / "e.npy"
    np.save(path, np.ones((5, 2), np.float16))
    pq.write_table(pa.table({"url": list("uvwxy"), "key": list("klmno")}), tmp_path / "e.parquet", row_group_size=3)
    assert ids_of(path) == list("klmno")
    assert ids_of(path, id_from="shard/key") == [f"e/{key}" for key in "klmno"]
    second = open_input(str(path)).shards[1].metadata()
    assert second.to_pydict() == {"id": ["m", "n"], "url": ["w", "x"], "key": ["m", "n"]}

    (tmp_path / "e.ids.txt").write_bytes("\ufeffé1\r\nb\nc\nd\ne".encode())
    assert ids_of(path) == ["é1", "b", "c", "d", "e"]
    assert open_input(str(path)).shards[2].metadata().to_pydict() == {"id": ["e"], "url": ["y"], "key": ["o"]}

    pairs = np.array([(1, 2), (3, 4), (5, 6), (7, 8), (2**64 - 1, 9)], dtype="u8,u8")
    for ids, expected in (
        (np.array(list("abcde")), list("abcde")),
        (np.array([b"a", b"b", b"c", b"d", b"e"]), list("abcde")),
        (np.arange(5), list("01234")),
        (
            pairs,
            [f"{high:032x}" for high in (2**64 + 2, 3 * 2**64 + 4, 5 * 2**64 + 6, 7 * 2**64 + 8)]
            + ["f" * 16 + "0" * 15 + "9"],
        ),
    ):
        np.save(tmp_path / "e.ids.npy", ids)
        assert ids_of(path) == expected


def test_npy_mistakes(tmp_path):
    path = tmp_path / "e.npy"
    for array, expected in (
        (np.ones(3), "has shape (3,): embeddings are 2-d"),
        (np.ones((2, 2, 2)), "has shape (2, 2, 2)"),
        (np.ones((2, 0)), "has shape (2, 0)"),
        (np.ones((2, 2), int), "holds int64: embeddings are float16, float32 or float64"),
        (np.ones((2, 2), complex), "holds complex128"),
        (np.array([[None, {}]]), "holds Python objects, which would need pickle"),
        (np.ones((0, 2)), "has no rows"),
    ):
        np.save(path, array, allow_pickle=True)
        assert expected in mistake(path) and "e.npy" in mistake(path)
    for data in (b"", b"\x93NUMPY", b"junk" * 100, pickle.dumps([1, 2]), b"\x93NUMPY\x03\x00" + bytes(40)):
        path.write_bytes(data)
        assert "e.npy' is not an .npy file: save it with numpy.save" in mistake(path)
    np.savez(tmp_path / "z.npz", np.ones((2, 2)))
    (tmp_path / "z.npz").rename(path)
    assert "is not an .npy file" in mistake(path)
    np.save(path, np.ones((10, 2)))
    path.write_bytes(path.read_bytes()[:-1])
    assert "is cut off at 287 of 288 bytes" in mistake(path)


def test_npy_ids_that_do_not_fit_are_named(tmp_path):
    path = tmp_path / "e.npy"
    np.save(path, np.ones((3, 2)))
    (tmp_path / "e.ids.txt").write_text("a\nb\n")
    assert "e.npy' has 3 rows but" in mistake(path) and "e.ids.txt' has 2:" in mistake(path)
    (tmp_path / "e.ids.txt").write_text("a\n\nc\n")
    assert "line 2 of" in mistake(path) and "is empty: give every row an id" in mistake(path)
    np.save(tmp_path / "e.ids.npy", np.array(["a", "b"]))
    assert "e.ids.npy' has 2:" in mistake(path)
    for ids in (np.ones(3), np.array([["a"]] * 3), np.array([None] * 3)):
        np.save(tmp_path / "e.ids.npy", ids, allow_pickle=True)
        assert "ids are a 1-d array of text or integers" in mistake(path)
    (tmp_path / "e.ids.npy").unlink()
    (tmp_path / "e.ids.txt").unlink()
    pq.write_table(pa.table({"uid": ["a"]}), tmp_path / "e.parquet")
    assert "e.parquet' has 1:" in mistake(path)


def write_header(path, shape, data=bytes(512)):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + data)


@pytest.mark.parametrize("shape", [f"({10**15}, 16)", f"({10**18}, 16)", f"({9 * 10**18}, 1)", "(1000, 16)"])
def test_a_file_that_claims_far_more_rows_than_it_holds_is_refused_although_damage_is_skipped(shape, tmp_path):
    """Eight rows of 16 numbers are there; each of the others would be a rejected row."""
    for path, source in ((tmp_path / "x.npy", "x.npy"), (tmp_path / "c" / "img_emb" / "img_emb_0.npy", "c")):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_header(path, shape)
        with pytest.raises(UserError, match=r"is cut off at 640 of [\d,]+ bytes: copy or write it again"):
            open_input(str(tmp_path / source), skip_damaged=True)
    write_header(path, "(160, 16)")
    (shard,) = open_input(str(tmp_path / "c"), skip_damaged=True).shards
    assert len(shard.faults()) == 152


@pytest.mark.parametrize("shape", ["(8L, 16L)", "(8for, 16)", "'\\d'", f"(0x{'f' * 6000}, 16)"])
def test_odd_headers_are_read_or_refused_without_a_warning(shape, tmp_path):
    """Python warns of what is no good Python, and numpy of headers that Python 2 has written."""
    path = tmp_path / "x.npy"
    write_header(path, shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if shape == "(8L, 16L)":
            (shard,) = open_input(str(path)).shards
            assert shard.vectors().shape == (8, 16)
        else:
            with pytest.raises(UserError, match=r"is not an \.npy file.*: save it with numpy\.save"):
                open_input(str(path))
