"""Paths and URLs of object stores: no credentials, ranges of arrays, large objects, and what needs a local file."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from runs import (
    command,
)
from servers import Request, once_each
from stores import (
    BUCKET,
    KEY,
    SECRET,
    Store,
)

from fairdedup.datasets import open_input
from fairdedup.errors import FairdedupError, UserError
from fairdedup.storage import remote_path
from fairdedup.storage.object_stores import RemotePath, as_path, check_url
from fairdedup.storage.remote_array import RemoteArray
from fairdedup.storage.run_files import write_array
from fairdedup.storage.sealed_files import Unsealed, open_array
from fairdedup.storage.seals import is_sealed, seal


@pytest.mark.parametrize(
    "url",
    [
        f"s3://{KEY}:{SECRET}@bucket/in",
        f"simplecache::s3://{KEY}:{SECRET}@bucket/in",
        f"https://user:{SECRET}@example.org/data.tar",
        f"https://{SECRET.replace('/', '')}@example.org/data.tar",
        f"https://example.org/data-{{0..3}}.tar?X-Amz-Signature={SECRET}",
        f"s3://bucket/in?token={SECRET}",
    ],
)
def test_a_url_with_credentials_is_refused_and_not_repeated(url: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"input: '{url}'\nkeep: 0.5\nout: {tmp_path / 'run'}\n")
    here = ("--keep", 0.5, "--out", tmp_path / "run")
    for arguments in (
        ("run", url, *here), ("run", "in", "--keep", 0.5, f"--out={url}"), ("prune", url, "--keep", 0.5),
        ("run", "in", *here, "--against", url), ("run", "in", *here, "--exclude-near", url, "--exclude-near-eps", 0.1),
        ("run", "in", *here, "--prototypes", url), ("run", "in", url, *here),
        ("run", "--config", tmp_path / "c.yaml"),
    ):  # fmt: skip
        finished = command(*arguments)
        assert finished.code == 2, finished
        assert finished.err.count("\n") == 1 and "credentials" in finished.err
        for part in (KEY, SECRET, SECRET.replace("/", ""), SECRET.split("/")[0] + "/"):
            assert part not in finished.err + finished.out
    with pytest.raises(UserError, match="credentials"):
        open_input(url)
    assert not (tmp_path / "run").exists()


def test_urls_without_credentials_are_let_through() -> None:
    for url in ("s3://bucket/data-?.tar", "hf://datasets/owner/name@main/data", "abfs://box/x",
                "http://127.0.0.1:8080/x.tar", "s3://arn:aws:s3:eu:1:accesspoint/x/y", "name LIKE 'https://a:b@c'",
                "/tmp/a:b@c", "https://example.org/a?b"):  # fmt: skip
        check_url(url)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run", "in", "--keep", 0.5, "--out", "https://example.org/run"), "cannot hold a run"),
        (("run", "--keep", 0.5, "--out", "s3://bucket/none"), "built-in sample"),
        (("run", "in", "--keep", 0.5, "--prototypes", "s3://bucket/p.npz"), "give a local file"),
        (("run", "in", "--keep", 0.5, "--drop", "s3://bucket/d.txt"), "give a local file"),
        (("replace", "run", "--gone", "s3://bucket/d.txt"), "give a local file"),
        (("audit", "run", "--labels", "s3://bucket/d.csv"), "give a local file"),
        (("run", "--config", "s3://bucket/c.yaml"), "give a local file"),
        (("sample", "s3://bucket/sample"), "give a local file"),
    ],
)
def test_what_does_not_go_with_a_store_is_one_line(bucket: Store, arguments: tuple[object, ...], told: str) -> None:
    finished = command(*arguments)
    assert finished.code == 2 and finished.err.count("\n") == 1 and told in finished.err, finished.err


@pytest.mark.parametrize(
    ("module", "url"),
    [("s3fs", "s3://b/x"), ("aiohttp", "https://h/x.tar"), ("gcsfs", "gs://b/x"), ("adlfs", "az://b/x")],
)
def test_a_missing_package_is_named(module: str, url: str, tmp_path: Path) -> None:
    code = f"import sys; sys.modules[{module!r}] = None; from fairdedup import cli; sys.exit(cli.call(sys.argv[1:]))"
    asked = [sys.executable, "-c", code, "run", url, "--keep", "0.5", "--out", str(tmp_path / "run")]
    finished = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert finished.returncode == 2
    assert f"pip install {module}" in finished.stderr and finished.stderr.count("\n") == 1


def test_an_array_in_a_store_is_read_by_ranges(bucket: Store) -> None:
    path = as_path(f"{BUCKET}/array.npy")
    assert isinstance(path, RemotePath)
    x = np.arange(100_000 * 8, dtype=np.float16).reshape(-1, 8)
    buffer = io.BytesIO()
    np.save(buffer, x)
    path.fs.pipe_file(str(path), buffer.getvalue())
    array = RemoteArray(path)
    assert (array.shape, array.dtype, len(array), array.nbytes) == (x.shape, x.dtype, len(x), x.nbytes)
    places = np.array([70_000, 3, 99_999, 3, 70_001])
    mask = np.arange(len(x)) % 7_000 == 1
    for key in (slice(5_000, 6_000), slice(0, 0), slice(99_990, None), -1, 7, places, places[:0], mask,
                slice(10, 90_000, 1_000)):  # fmt: skip
        assert np.array_equal(array[key], x[key])
    assert np.array_equal(np.asarray(array), x)
    array = RemoteArray(path)
    with bucket.proxy.recording() as requests:
        assert np.array_equal(array[5_000:6_000], x[5_000:6_000])
    assert [r.range for r in requests] == [f"bytes={128 + 16 * 5_000}-{128 + 16 * 6_000 - 1}"]
    ahead = RemoteArray(path, ahead=1 << 20, upto=7_000)
    with bucket.proxy.recording() as requests:
        assert np.array_equal(ahead[5_000:5_500], x[5_000:5_500])
        assert np.array_equal(ahead[5_500:7_000], x[5_500:7_000])
    assert [r.range for r in requests] == [f"bytes={128 + 16 * 5_000}-{128 + 16 * 7_000 - 1}"]
    for wrong in (100_000, np.zeros((2, 2), np.int64), "field"):
        with pytest.raises(IndexError):
            array[wrong]


@pytest.mark.parametrize("data", [b"", b"not an array", b"\x93NUMPY\x01\x00"])
def test_an_object_that_is_not_an_array_is_an_error_of_one_line(bucket: Store, data: bytes) -> None:
    path = as_path(f"{BUCKET}/wrong.npy")
    assert isinstance(path, RemotePath)
    path.fs.pipe_file(str(path), data)
    with pytest.raises(FairdedupError, match=r"^s3://bucket/wrong\.npy is not an \.npy file"):
        RemoteArray(path)


def test_no_room_on_the_local_disk_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(FairdedupError, match=r"^cannot write s3://bucket/x\.npy: No such file or directory; .*TMPDIR"):
        write_array(as_path(f"{BUCKET}/x.npy"), np.zeros(3))


def test_a_path_in_a_store_is_never_a_local_file() -> None:
    path = as_path("s3://bucket/run/") / "kept" / "part-00000.parquet"
    assert str(path) == "s3://bucket/run/kept/part-00000.parquet"
    assert str(path.relative_to(as_path("s3://bucket/run"))) == "kept/part-00000.parquet"
    assert str(path.with_suffix(".json")) == "s3://bucket/run/kept/part-00000.json"
    ways: list[Callable[[], object]] = [
        lambda: os.stat(path), lambda: np.load(path), lambda: path.write_text("x"), lambda: os.open(path, os.O_RDONLY)
    ]  # fmt: skip
    for local in ways:
        with pytest.raises((TypeError, ValueError), match="s3://bucket/run/kept"):
            local()
    assert as_path("file:///tmp/run") == Path("/tmp/run")
    assert as_path("runs/s3") == Path("runs/s3")


def test_an_object_of_many_parts_appears_when_all_are_there(
    bucket: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(remote_path.PUT_OPTIONS, "s3", {"chunksize": 5 << 20, "max_concurrency": 2})
    path = as_path(f"{BUCKET}/parts.npy")
    old, new = np.zeros(10, np.uint8), np.arange(11 << 20, dtype=np.uint32).view(np.uint8)[: 11 << 20]
    write_array(path, old)

    def completes(request: Request) -> bool:
        return request.method == "POST" and "uploadId" in request.path

    with (
        bucket.proxy.failing(lambda r: "forbidden" if completes(r) else None),
        pytest.raises(FairdedupError, match=r"^cannot write s3://bucket/parts\.npy .*Access Denied"),
    ):
        write_array(path, new)
    assert np.array_equal(open_array(Unsealed(path, "a test")), old)
    with bucket.proxy.failing(once_each("drop", "slow down", of=lambda r: r.method in ("PUT", "POST"))):
        write_array(path, new)
    assert np.array_equal(open_array(Unsealed(path, "a test")), new)
    known = seal(path)  # of what was sent, and then of what is there
    assert known == seal(path) and is_sealed(path, known)
    parts = {r.path for r in bucket.proxy.requests if "/parts.npy?partNumber" in r.path}
    assert len({p.partition("&")[0] for p in parts}) == 3
