"""Opening an input: what cannot be an input, natural order, and every format on file systems that are not local."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import fsspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import (
    PNG,
    clip_retrieval,
    mistake,
    samples_of,
    three_samples,
    touch,
    write_tar,
)

from fairdedup.datasets import open_input
from fairdedup.datasets.filesystem import natural_key, to_valid_text


def test_mistakes_name_the_value_and_a_remedy(tmp_path):
    assert mistake(tmp_path / "nowhere") == f"no such file or folder: '{tmp_path}/nowhere'; check the path"
    assert "id_from must be 'key' or 'shard/key'; got 'row'" in mistake(tmp_path, id_from="row")
    assert "input is ''" in mistake("")
    assert "input is 'a\\x00b'" in mistake("a\0b")
    assert "'gopher://x/y'" in mistake("gopher://x/y") and "check the part before '://'" in mistake("gopher://x")
    unknown = mistake(touch(tmp_path / "notes.docx"))
    assert "notes.docx' is a file of unknown kind: give a .tar" in unknown and ".npy" in unknown
    assert "single image: give the folder" in mistake(touch(tmp_path / "one.JPG"))


def test_a_path_with_a_line_break_still_gives_one_line(tmp_path):
    assert "a\\nb" in mistake(tmp_path / "a\nb")


def test_reading_inputs_loads_neither_torch_nor_pandas():
    code = "import sys, fairdedup.datasets; print([m for m in ('torch', 'pandas') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@given(st.lists(st.text(alphabet="a01289/.²٣", max_size=8)))
def test_natural_order_is_total_and_does_not_depend_on_the_listing(names):
    expected = sorted(names, key=natural_key)
    assert sorted(reversed(names), key=natural_key) == expected


def test_natural_order():
    names = ["10.jpg", "9.jpg", "b", "a10/1", "a9/2", "01", "1"]
    assert sorted(names, key=natural_key) == ["01", "1", "9.jpg", "10.jpg", "a9/2", "a10/1", "b"]


def test_shards_travel_to_workers(tmp_path):
    tar = three_samples(tmp_path / "t.tar")
    shard = open_input(str(tar)).shards[0]
    copy = pickle.loads(pickle.dumps(shard))
    assert len(pickle.dumps(shard)) < 1000
    assert list(copy.read()) == list(shard.read())
    assert copy.fingerprint() == shard.fingerprint()
    os.utime(tar, (1, 1))
    assert copy.fingerprint() == shard.fingerprint()
    assert len(shard.fingerprint()) == 16


def test_a_fault_of_the_disk_is_not_a_bad_sample(tmp_path):
    shard = open_input(str(three_samples(tmp_path / "t.tar"))).shards[0]
    (tmp_path / "t.tar").unlink()
    with pytest.raises(FileNotFoundError):
        list(shard.read())


def test_every_format_is_read_from_any_file_system(tmp_path):
    touch(tmp_path / "pictures/a/10.png", b"10")
    touch(tmp_path / "pictures/a/9.png", b"9")
    touch(tmp_path / "pictures/a/9.txt", b"nine")
    for number in range(3):
        write_tar(tmp_path / f"tars/{number}.tar", [(f"{number}.png", PNG)])
    clip_retrieval(tmp_path / "clip", {"0": 2})
    np.save(tmp_path / "e.npy", np.ones((2, 2)))
    (tmp_path / "e.ids.txt").write_text("x\ny\n")
    root = f"memory://{tmp_path.name}"
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path), tmp_path.name, recursive=True)
    try:
        assert [(s.id, s.image, s.caption) for s in samples_of(f"{root}/pictures")] == [
            ("a/9.png", b"9", "nine"),
            ("a/10.png", b"10", None),
        ]
        for tars in ("tars", "tars/*.tar", "tars/{0..2}.tar"):
            assert [s.id for s in samples_of(f"{root}/{tars}")] == ["0", "1", "2"]
        assert "is missing (3 of 4 are there)" in mistake(f"{root}/tars/{{0..3}}.tar")
        for source, ids in (("clip", ["key0", "key1"]), ("e.npy", ["x", "y"])):
            shard = open_input(f"{root}/{source}").shards[0]
            assert shard.vectors().shape[0] == 2 and shard.metadata().column("id").to_pylist() == ids
            assert shard.fingerprint() == open_input(f"{root}/{source}").shards[0].fingerprint()
        assert "no such file or folder: 'memory://" in mistake(f"{root}/none")
    finally:
        memory.rm(tmp_path.name, recursive=True)


def test_plain_text_leaves_valid_text_alone():
    assert to_valid_text("é\x00<b>\n") == "é\x00<b>\n"
