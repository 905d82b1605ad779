"""A run from and to an object store is the local run, whatever the network does; inputs over HTTP; no credentials."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from inputs import GOOD, OTHER
from runs import (
    PRODUCT,
    Finished,
    cluster,
    command,
    contents,
    done,
    manifest,
    product,
    raw_vectors,
    started,
    write_tar,
)
from runs import sample as tar_sample
from servers import Fault, Request, Served, files_over_http, once_each, s3

from fairdedup.datasets import Dataset, open_input, web
from fairdedup.errors import FairdedupError, UserError
from fairdedup.storage import layout as run_storage
from fairdedup.storage import remote_path
from fairdedup.storage.object_stores import RemotePath, as_path, check_url
from fairdedup.storage.remote_array import HEAD, RemoteArray
from fairdedup.storage.run_files import BLOCK, is_sealed, read_array, seal, write_array

KEY, SECRET = "AKIDOFTHETESTS000000", "secret/of+the/tests/0123456789abcdefghij"
BUCKET = "s3://bucket"
ROWS, SHARDS = 1500, 3


@dataclass(frozen=True)
class Store:
    """A bucket, the proxy before it, and Dask workers that know both."""

    proxy: Served
    scheduler: str

    def put(self, folder: Path, name: str) -> str:
        """Copy a local folder into the bucket and return its URL."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                (as_path(f"{BUCKET}/{name}") / path.relative_to(folder)).put(path)  # type: ignore[attr-defined]
        return f"{BUCKET}/{name}"

    def get(self, url: str, folder: Path) -> Path:
        """Copy what is below a URL into a local folder, and return it."""
        place = as_path(url)
        assert isinstance(place, RemotePath)
        for name in place.fs.find(url):
            path = folder / name.removeprefix(url.removeprefix("s3://")).lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(place.fs.cat_file(name, start=0))
        return folder

    def copy(self, url: str, other: str) -> str:
        """Copy what is below a URL to another, and return that."""
        place, target = as_path(url), as_path(other)
        assert isinstance(place, RemotePath)
        for name in place.fs.find(url):
            place.fs.cp_file(name, str(target) + name.removeprefix(url.removeprefix("s3://")))
        return other

    def done(self, *arguments: object) -> Finished:
        """Run a command that must succeed."""
        return done(*arguments, "--scheduler", self.scheduler, "--quiet")

    def command(self, *arguments: object) -> Finished:
        return command(*arguments, "--scheduler", self.scheduler, "--quiet")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("store")
    with s3(folder) as proxy, pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": proxy.url, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_CONFIG_FILE": str(folder / "none"),
            "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"), "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "4",
        }.items():  # fmt: skip
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        RemotePath("s3://bucket").fs.mkdir("bucket")
        with cluster(tmp_path_factory.mktemp("dask")) as address:
            yield Store(proxy, address)


def write_shards(folder: Path, rows: int, shards: int, seed: int = 0, prefix: str = "k") -> Path:
    """Write ready embeddings in clip-retrieval's layout."""
    (folder / "img_emb").mkdir(parents=True)
    (folder / "metadata").mkdir()
    x = raw_vectors(rows, seed)
    for number, own in enumerate(np.array_split(np.arange(rows), shards)):
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", x[own])
        ids = [f"{prefix}{row}" for row in own]
        table = pa.table({"key": ids, "caption": [f"caption {row}" for row in own], "width": own})
        pq.write_table(table, folder / "metadata" / f"metadata_{number}.parquet")
    return folder


CLUSTERED = ("--eps", 0.1, "--clusters", 4)
PLAIN = (*CLUSTERED, "--rule", "semdedup")


@dataclass(frozen=True)
class Job:
    """The same job done on the disk and in the store."""

    source: Path
    local: Path
    url: str
    remote: str
    asked: tuple[object, ...]
    requests: list[Request]


@pytest.fixture(scope="module")
def plain(job: Job, store: Store) -> Path:
    """Return a run on the disk that was decided without prototypes."""
    store.done("run", job.source, *PLAIN, "--out", job.local.with_name("plain"))
    return job.local.with_name("plain")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, store: Store, prototypes: Path) -> Job:
    folder = tmp_path_factory.mktemp("job")
    source = write_shards(folder / "in", ROWS, SHARDS)
    url = store.put(source, "in")
    asked = (*CLUSTERED, "--prototypes", prototypes)
    store.done("run", source, *asked, "--out", folder / "run")
    with store.proxy.recording() as requests:
        store.done("run", url, *asked, "--out", f"{BUCKET}/run")
    return Job(source, folder / "run", url, f"{BUCKET}/run", asked, requests)


def same_product(store: Store, url: str, local: Path, folder: Path) -> None:
    got = store.get(url, folder)
    assert product(got) == product(local)
    assert all(product(local)[name] for name in PRODUCT)


def test_a_job_from_and_to_a_store_gives_the_local_run_s_bytes(store: Store, job: Job, tmp_path: Path) -> None:
    same_product(store, job.remote, job.local, tmp_path / "got")
    got, local = manifest(tmp_path / "got"), manifest(job.local)
    # The state holds the name of its own run's folder.
    own = {name: sealed for name, sealed in local["files"].items() if name != "state/state.json"}
    assert {name: got["files"][name] for name in own} == own
    assert {name: got[name] for name in ("counts", "eps", "guarantees", "clusters", "shares")} == {
        name: local[name] for name in ("counts", "eps", "guarantees", "clusters", "shares")
    }


def test_nothing_is_renamed_and_run_json_is_the_last_object_written(job: Job) -> None:
    written = [r for r in job.requests if r.method in ("PUT", "POST", "DELETE")]
    assert written[-1] == Request("PUT", "/bucket/run/run.json", "", False)
    assert not any(r.copies for r in job.requests)
    puts = [r.key for r in written if r.method == "PUT" and "/decisions/part" in r.path]
    assert len(puts) == len(set(puts)) == 1


def lists(requests: list[Request]) -> int:
    return sum(r.lists for r in requests)


def test_listings_do_not_grow_with_samples_or_shards(store: Store, job: Job, tmp_path: Path) -> None:
    url = store.put(write_shards(tmp_path / "more", ROWS + 300, 4 * SHARDS, prefix="m"), "more")
    with store.proxy.recording() as requests:
        store.done("run", url, *job.asked, "--out", f"{BUCKET}/more-run")
    assert 0 < lists(requests) == lists(job.requests) < 60


def test_a_prune_task_reads_its_clusters_as_one_range_of_each_sorted_file(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_storage, "GROUP_ROWS", 1500)  # a sorted file for each shard
    source = write_shards(tmp_path / "in", 4500, 3)
    asked = ("--rule", "semdedup", "--eps", 0.2)
    for given, out in ((store.put(source, "long"), f"{BUCKET}/ranges"), (str(source), str(tmp_path / "run"))):
        store.done("embed", given, "--out", out)
        store.done("cluster", out, "--clusters", 6)
    with store.proxy.recording() as requests:
        store.done("prune", f"{BUCKET}/ranges", *asked)
    store.done("prune", tmp_path / "run", *asked)
    same_product(store, f"{BUCKET}/ranges", tmp_path / "run", tmp_path / "got")
    decided = next(k for k, r in enumerate(requests) if r.method == "PUT" and "/decisions/part" in r.path)
    for number in range(3):
        offsets = np.load(tmp_path / "run" / "clusters" / f"offsets_{number}.npy")
        first = 128 + 32 * offsets  # the bytes of each cluster: a header of 128, rows of 16 numbers of 2
        own = [r.range for r in requests[:decided] if r.key == f"bucket/ranges/clusters/vectors_{number}.npy"]
        # The check of what is there goes through the file; tasks read headers, and ranges of clusters.
        ranges = [tuple(map(int, found.groups())) for r in own if (found := re.fullmatch(r"bytes=(\d+)-(\d+)", r))]
        of_tasks = [(a, b + 1) for a, b in ranges if a >= 128]
        assert of_tasks
        assert {a for a, _ in of_tasks} | {b for _, b in of_tasks} <= set(first.tolist())
        assert max(b - a for a, b in of_tasks) < 32 * offsets[-1] / 2
        assert own.count(f"bytes=0-{BLOCK - 1}") == 1
        assert {b + 1 for a, b in ranges if a == 0} == {HEAD, BLOCK}


def test_prune_again_sweep_replace_audit_and_new_rows_beside_a_run_in_a_store(
    store: Store, job: Job, tmp_path: Path
) -> None:
    source = write_shards(tmp_path / "new", 600, 2, seed=5, prefix="n")
    new = store.put(source, "new")
    (tmp_path / "drop.txt").write_text("k7\nk19\n")
    (tmp_path / "gone.txt").write_text("".join(f"k{row}\n" for row in range(0, 400, 7)))
    again = ("--eps", 0.15, "--rule", "semdedup", "--where", "width >= 20", "--drop", tmp_path / "drop.txt")
    shutil.copytree(job.local, tmp_path / "run")
    store.copy(job.remote, f"{BUCKET}/again/run")
    swept, judged = [], []
    for base, more in ((str(tmp_path), source), (f"{BUCKET}/again", new)):
        store.done("prune", f"{base}/run", *again)
        swept.append(
            done("sweep", f"{base}/run", "--keep", "0.3,0.6", "--rule", "semdedup", "--scheduler", store.scheduler).out
        )
        store.done("run", more, "--against", f"{base}/run", "--out", f"{base}/day-2")
        store.done("replace", f"{base}/run", "--gone", tmp_path / "gone.txt")
        store.done("audit", f"{base}/run", *job.asked[-2:])
        judged.append(done("gate", f"{base}/run", "--max-rejected", 1, "--min-retention", 0).out)
        told = ("export", f"{base}/run", "--to", "txt", "--what", "removed")
        store.done(*told, "--dest", tmp_path / f"{len(swept)}.txt")
    assert swept[0] == swept[1] and "0.6" in swept[0]
    assert judged[0] == judged[1] and "retention of" in judged[0]
    assert (tmp_path / "1.txt").read_bytes() == (tmp_path / "2.txt").read_bytes() != b""
    finished = store.command(*told)
    assert finished.code == 2 and "name a local --dest" in finished.err
    same_product(store, f"{BUCKET}/again/run", tmp_path / "run", tmp_path / "got")
    got = store.get(f"{BUCKET}/again/day-2", tmp_path / "got-2")
    assert product(got)["kept"] == product(tmp_path / "day-2")["kept"]
    assert manifest(got)["against"] == [f"{BUCKET}/again/run"]
    name = "report/audit.parquet"
    assert contents(tmp_path / "got")[name] == contents(tmp_path / "run")[name]


def test_a_killed_run_goes_on_and_embeds_nothing_again(store: Store, job: Job, plain: Path, tmp_path: Path) -> None:
    asked = ("run", job.url, *PLAIN, "--out", f"{BUCKET}/killed")
    killed = threading.Event()
    process = started(tmp_path, *asked, "--scheduler", store.scheduler, "--quiet")

    def fault(request: Request) -> Fault:
        if request.key == "bucket/killed/clusters/vectors_0.npy" and request.method == "PUT" and not killed.is_set():
            os.killpg(process.pid, signal.SIGKILL)
            killed.set()
        return None

    with store.proxy.failing(fault):
        process.communicate(timeout=60)
    assert killed.is_set() and process.returncode == -signal.SIGKILL
    assert not as_path(f"{BUCKET}/killed/run.json").exists()
    with store.proxy.recording() as requests:
        store.done(*asked)
    assert not [r for r in requests if r.method == "PUT" and "/img_emb/" in r.path]
    same_product(store, f"{BUCKET}/killed", plain, tmp_path / "got")


def test_dropped_connections_and_throttling_on_the_way_change_no_byte(
    store: Store, job: Job, plain: Path, tmp_path: Path
) -> None:
    failed: list[Fault] = []
    quiet = (None, None, None)
    faults = once_each("drop", *quiet, "slow down", *quiet, "cut", *quiet, "internal", *quiet)

    def fault(request: Request) -> Fault:
        failed.append(faults(request))
        return failed[-1]

    with store.proxy.failing(fault):
        store.done("run", job.url, *PLAIN, "--out", f"{BUCKET}/shaken")
    assert {"drop", "slow down", "cut", "internal"} <= set(failed)
    same_product(store, f"{BUCKET}/shaken", plain, tmp_path / "got")


def test_what_stays_forbidden_is_one_line_that_names_the_object_and_the_run_goes_on_later(
    store: Store, job: Job, plain: Path, tmp_path: Path
) -> None:
    asked = ("prune", store.copy(job.remote, f"{BUCKET}/forbidden"), *PLAIN[:2], *PLAIN[-2:])
    with store.proxy.failing(lambda r: "forbidden" if r.method == "PUT" and "/kept/" in r.path else None):
        finished = store.command(*asked)
    assert finished.code == 1
    assert finished.err.count("\n") == 1
    assert f"{BUCKET}/forbidden/kept/part-00000.parquet" in finished.err
    assert "Access Denied" in finished.err and "goes on from here" in finished.err
    store.done(*asked)
    same_product(store, f"{BUCKET}/forbidden", plain, tmp_path / "got")


def test_a_damaged_object_is_made_again(store: Store, job: Job, tmp_path: Path) -> None:
    out = as_path(store.copy(job.remote, f"{BUCKET}/damaged"))
    assert isinstance(out, RemotePath)
    for name in ("kept/part-00000.parquet", "embeddings/img_emb/img_emb_1.npy", "clusters/rows_0.npy"):
        data = (out / name).read_bytes()
        out.fs.pipe_file(str(out / name), data[:-1] + bytes([data[-1] ^ 1]))
    store.done("run", job.url, *job.asked, "--out", out)
    same_product(store, str(out), job.local, tmp_path / "got")


def test_another_input_in_the_same_run_is_refused_and_restart_clears_only_the_run(store: Store, job: Job) -> None:
    out = f"{BUCKET}/twice/run"
    beside = as_path(f"{BUCKET}/twice/run-of-others")
    assert isinstance(beside, RemotePath)
    beside.fs.pipe_file(str(beside), b"theirs")
    first, second = (f"{job.url}/img_emb/img_emb_{k}.npy" for k in range(2))
    asked = (*PLAIN, "--out", out)
    store.done("run", first, *asked)
    assert "finished already" in done("run", first, *asked, "--scheduler", store.scheduler).err
    finished = store.command("run", second, *asked)
    assert finished.code == 2 and "another configuration" in finished.err
    store.done("run", second, *asked, "--restart")
    assert beside.read_bytes() == b"theirs"
    assert store.command("run", job.url, *asked[:-1], f"{BUCKET}/twice").code == 2  # holds other files


def test_images_from_and_to_a_store(
    store: Store, shards: Path, images_run: Path, weights: Path, tmp_path: Path
) -> None:
    url = store.put(shards, "shards")
    store.done("run", f"{url}/data-{{00000..00002}}.tar", "--keep", 0.5, "--model", "fairdedup-small", "--pretrained",
               weights, "--out", f"{BUCKET}/images", "--batch-size", 4)  # fmt: skip
    same_product(store, f"{BUCKET}/images", images_run, tmp_path / "got")


def test_credentials_are_in_no_object_and_no_output(store: Store, job: Job, tmp_path: Path) -> None:
    out = f"{BUCKET}/quiet"
    source = f"{job.url}/img_emb/img_emb_0.npy"
    finished = done("run", source, *PLAIN, "--out", out, "--scheduler", store.scheduler, "--log-json")
    printed = [finished.out, finished.err]
    finished = done("run", source, *PLAIN, "--out", out, "--scheduler", store.scheduler)
    printed += [finished.out, finished.err]
    with store.proxy.failing(lambda r: "forbidden" if r.method == "GET" and "/records/" in r.path else None):
        finished = command("prune", out, "--eps", 0.2, "--rule", "semdedup", "--scheduler", store.scheduler)
    assert finished.code == 1
    printed += [finished.out, finished.err]
    held = contents(store.get(out, tmp_path / "a")) | contents(store.get(job.remote, tmp_path / "b"))
    assert len(held) > 20
    for secret in (KEY, SECRET):
        assert not [name for name, data in held.items() if secret.encode() in data]
        assert not [text for text in printed if secret in text]


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
    for url in ("s3://bucket/data-?.tar", "hf://datasets/owner/name@main/data", "abfs://box@account.host/x",
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
def test_what_does_not_go_with_a_store_is_one_line(store: Store, arguments: tuple[object, ...], told: str) -> None:
    finished = command(*arguments)
    assert finished.code == 2 and finished.err.count("\n") == 1 and told in finished.err, finished.err


@pytest.mark.parametrize(
    ("module", "url", "extra"), [("s3fs", "s3://b/x", "s3"), ("aiohttp", "https://h/x.tar", "http")]
)
def test_a_missing_package_is_named(module: str, url: str, extra: str, tmp_path: Path) -> None:
    code = f"import sys; sys.modules[{module!r}] = None; from fairdedup import cli; sys.exit(cli.call(sys.argv[1:]))"
    asked = [sys.executable, "-c", code, "run", url, "--keep", "0.5", "--out", str(tmp_path / "run")]
    finished = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert finished.returncode == 2
    assert f"pip install 'fairdedup[{extra}]'" in finished.stderr and finished.stderr.count("\n") == 1


def everything(dataset: Dataset) -> list[Any]:
    """Return what a data set holds: its samples, or its vectors and tables."""
    if dataset.kind == "images":
        return [sample for shard in dataset.shards for sample in shard.read()]  # type: ignore[union-attr]
    return [
        (shard.name, np.asarray(shard.vectors()).tolist(), shard.metadata().to_pylist(), shard.faults())
        for shard in dataset.shards  # type: ignore[union-attr]
    ]


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


INPUTS = [tars, image_parquet, vector_parquet, npy, layout, images]


def of_names(names: Callable[[Path], str]) -> str:
    return names.__name__


@pytest.mark.parametrize("make", INPUTS, ids=of_names)
def test_an_input_in_a_store_is_the_local_one(store: Store, make: Callable[[Path], str], tmp_path: Path) -> None:
    name = make(tmp_path)
    url = store.put(tmp_path, f"inputs/{make.__name__}")
    assert everything(open_input(f"{url}/{name}")) == everything(open_input(str(tmp_path / name)))
    prints = [open_input(f"{url}/{name}").fingerprints for _ in range(2)]
    assert prints[0] == prints[1] and all(prints[0].values())


def test_an_image_of_a_store_is_one_request_whether_it_is_there_or_not(store: Store, tmp_path: Path) -> None:
    names = ["a.png", "missing.png", "empty.png", "b.png"]
    pq.write_table(pa.table({"id": names, "image_path": names}), tmp_path / "p.parquet")
    for name, data in (("a.png", GOOD), ("empty.png", b""), ("b.png", OTHER)):
        (tmp_path / name).write_bytes(data)
    dataset = open_input(store.put(tmp_path, "paths") + "/p.parquet")
    with store.proxy.recording() as requests:
        samples = everything(dataset)
    assert [s.image for s in samples] == [GOOD, None, b"", OTHER]
    assert samples[1].error == "file is missing or a broken link"
    for name in ("a.png", "missing.png", "b.png"):
        assert [r.method for r in requests if r.key == f"bucket/paths/{name}"] == ["GET"]
    assert not lists(requests)
    denied = store.proxy.failing(lambda r: "forbidden" if r.key.endswith("/b.png") else None)
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


def test_a_job_with_its_input_on_a_web_server(store: Store, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [f"r{k}" for k in range(600)], "embedding": list(raw_vectors(600))}),
                   tmp_path / "v.parquet", row_group_size=100)  # fmt: skip
    with files_over_http(tmp_path) as server:
        store.done("run", f"{server.url}/v.parquet", *PLAIN, "--out", tmp_path / "web")
    store.done("run", tmp_path / "v.parquet", *PLAIN, "--out", tmp_path / "run")
    assert product(tmp_path / "web") == product(tmp_path / "run")


def test_an_array_in_a_store_is_read_by_ranges(store: Store) -> None:
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
    with store.proxy.recording() as requests:
        assert np.array_equal(array[5_000:6_000], x[5_000:6_000])
    assert [r.range for r in requests] == [f"bytes={128 + 16 * 5_000}-{128 + 16 * 6_000 - 1}"]
    ahead = RemoteArray(path, ahead=1 << 20, upto=7_000)
    with store.proxy.recording() as requests:
        assert np.array_equal(ahead[5_000:5_500], x[5_000:5_500])
        assert np.array_equal(ahead[5_500:7_000], x[5_500:7_000])
    assert [r.range for r in requests] == [f"bytes={128 + 16 * 5_000}-{128 + 16 * 7_000 - 1}"]
    for wrong in (100_000, np.zeros((2, 2), np.int64), "field"):
        with pytest.raises(IndexError):
            array[wrong]


@pytest.mark.parametrize("data", [b"", b"not an array", b"\x93NUMPY\x01\x00"])
def test_an_object_that_is_no_array_is_an_error_of_one_line(store: Store, data: bytes) -> None:
    path = as_path(f"{BUCKET}/wrong.npy")
    assert isinstance(path, RemotePath)
    path.fs.pipe_file(str(path), data)
    with pytest.raises(FairdedupError, match=r"^s3://bucket/wrong\.npy is no \.npy file"):
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
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(remote_path.PUT_OPTIONS, "s3", {"chunksize": 5 << 20, "max_concurrency": 2})
    path = as_path(f"{BUCKET}/parts.npy")
    old, new = np.zeros(10, np.uint8), np.arange(11 << 20, dtype=np.uint32).view(np.uint8)[: 11 << 20]
    write_array(path, old)

    def completes(request: Request) -> bool:
        return request.method == "POST" and "uploadId" in request.path

    with (
        store.proxy.failing(lambda r: "forbidden" if completes(r) else None),
        pytest.raises(FairdedupError, match=r"^cannot write s3://bucket/parts\.npy .*Access Denied"),
    ):
        write_array(path, new)
    assert np.array_equal(read_array(path), old)
    with store.proxy.failing(once_each("drop", "slow down", of=lambda r: r.method in ("PUT", "POST"))):
        write_array(path, new)
    assert np.array_equal(read_array(path), new)
    known = seal(path)  # of what was sent, and then of what is there
    assert known == seal(path) and is_sealed(path, known)
    parts = {r.path for r in store.proxy.requests if "/parts.npy?partNumber" in r.path}
    assert len({p.partition("&")[0] for p in parts}) == 3
