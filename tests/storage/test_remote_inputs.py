"""An input in an object store or on a web server gives the same results as a local one, even if connections drop."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from inputs import GOOD, OTHER
from runs import (
    raw_vectors,
    write_tar,
)
from runs import sample as tar_sample
from servers import files_over_http, once_each
from stores import (
    Store,
    everything,
    lists,
    write_shards,
)

from fairdedup.datasets import open_input, web
from fairdedup.errors import FairdedupError


def tars(folder: Path) -> str:
    for number in range(3):
        write_tar(folder / f"t-{number}.tar", tar_sample(f"{number}a", number) | tar_sample(f"{number}b", 50 + number))
    return "t-{0..2}.tar"


def image_parquet(folder: Path) -> str:
    for number in range(2):
        table = pa.table({"id": [f"{number}-{k}" for k in range(60)], "image": [GOOD, OTHER] * 30})
        pq.write_table(table, folder / f"p-{number}.parquet", row_group_size=20)
    return "p-{0,1}.parquet"


def vector_parquet(folder: Path) -> str:
    pq.write_table(pa.table({"id": ["a", "b"], "embedding": [[1.0, 2.0], [3.0, 4.0]]}), folder / "v.parquet")
    return "v.parquet"


def npy(folder: Path) -> str:
    np.save(folder / "e.npy", raw_vectors(2000))
    (folder / "e.ids.txt").write_text("".join(f"i{k}\n" for k in range(2000)))
    return "e.npy"


def layout(folder: Path) -> str:
    write_shards(folder / "emb", 300, 3)
    return "emb"


def images(folder: Path) -> str:
    for name in ("a 1.png", "b/2.png", "b/3.png"):
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / name).write_bytes(GOOD)
    (folder / "images" / "b" / "2.txt").write_text("a caption")
    return "images"


def unnamed_images(folder: Path) -> str:
    for name, data in (("a", GOOD), ("b/c", OTHER), ("b/empty", b""), ("b/text", b"a text"), ("b/d.mp4", b"")):
        (folder / "unnamed" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "unnamed" / name).write_bytes(data)
    return "unnamed"


def glob_of_images(folder: Path) -> str:
    images(folder)
    return "images/*/*.png"


def zip_archive(folder: Path) -> str:
    images(folder)
    shutil.make_archive(str(folder / "z"), "zip", folder / "images")
    return "z.zip"


INPUTS = [tars, image_parquet, vector_parquet, npy, layout, images, unnamed_images, glob_of_images, zip_archive]


def of_names(names: Callable[[Path], str]) -> str:
    return names.__name__


@pytest.mark.parametrize("make", INPUTS, ids=of_names)
def test_an_input_in_a_store_is_the_local_one(bucket: Store, make: Callable[[Path], str], tmp_path: Path) -> None:
    name = make(tmp_path)
    url = bucket.put(tmp_path, f"inputs/{make.__name__}")
    assert everything(open_input(f"{url}/{name}")) == everything(open_input(str(tmp_path / name)))
    prints = [open_input(f"{url}/{name}").fingerprints for _ in range(2)]
    assert prints[0] == prints[1] and all(prints[0].values())


def test_an_image_of_a_store_is_one_request_whether_it_is_there_or_not(bucket: Store, tmp_path: Path) -> None:
    names = ["a.png", "missing.png", "empty.png", "b.png"]
    pq.write_table(pa.table({"id": names, "image_path": names}), tmp_path / "p.parquet")
    for name, data in (("a.png", GOOD), ("empty.png", b""), ("b.png", OTHER)):
        (tmp_path / name).write_bytes(data)
    dataset = open_input(bucket.put(tmp_path, "paths") + "/p.parquet")
    with bucket.proxy.recording() as requests:
        samples = everything(dataset)
    assert [s.image for s in samples] == [GOOD, None, b"", OTHER]
    assert samples[1].error == "file is missing or a broken link"
    for name in ("a.png", "missing.png", "b.png"):
        assert [r.method for r in requests if r.key == f"bucket/paths/{name}"] == ["GET"]
    assert not lists(requests)
    denied = bucket.proxy.failing(lambda r: "forbidden" if r.key.endswith("/b.png") else None)
    with denied, pytest.raises(PermissionError):  # credentials that have run out are no sample's fault
        everything(dataset)


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
@pytest.mark.parametrize("make", INPUTS, ids=of_names)
def test_an_input_over_http_is_the_local_one_also_where_connections_drop(
    make: Callable[[Path], str], ranges: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "FIRST_WAIT", 0.02)
    name = make(tmp_path)
    with files_over_http(tmp_path, ranges) as server:
        with server.failing(once_each("drop", None, "slow down", "cut", None)):
            dataset = open_input(f"{server.url}/{name}")
            assert everything(dataset) == everything(open_input(str(tmp_path / name)))
        assert open_input(f"{server.url}/{name}").fingerprints == dataset.fingerprints
        if make is npy and ranges:
            assert any(re.fullmatch(r"bytes=[1-9][0-9]*-[0-9]+", r.range) for r in server.requests)


def test_a_server_that_stays_down_is_an_error_and_never_a_rejected_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "FIRST_WAIT", 0.02)
    pq.write_table(pa.table({"id": ["a", "b"], "image_path": ["a.png", "b.png"]}), tmp_path / "p.parquet")
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(GOOD)
    with files_over_http(tmp_path) as server:
        dataset = open_input(f"{server.url}/p.parquet")
        assert [s.error for s in everything(dataset)] == [None, None]
        with server.failing(lambda r: "internal" if r.path == "/b.png" else None), pytest.raises(Exception) as raised:
            everything(dataset)
        assert getattr(raised.value, "status", None) == 500
        (tmp_path / "b.png").unlink()
        assert [s.error for s in everything(dataset)] == [None, "file is missing or a broken link"]
        with server.failing(lambda r: "internal"), pytest.raises(FairdedupError, match=r"p\.parquet.*500"):
            open_input(f"{server.url}/p.parquet")
