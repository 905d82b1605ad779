"""A run from and to an object store gives the bytes of a local run, whatever the network does, and no credentials."""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import (
    command,
    contents,
    done,
    manifest,
    product,
    raw_vectors,
    started,
)
from servers import Fault, Request, files_over_http, once_each
from stores import (
    BUCKET,
    KEY,
    PLAIN,
    ROWS,
    SECRET,
    SHARDS,
    Job,
    Store,
    lists,
    same_product,
    write_shards,
)

from fairdedup.storage import shard_groups
from fairdedup.storage.object_stores import RemotePath, as_path
from fairdedup.storage.remote_array import HEAD
from fairdedup.storage.seals import REMOTE_BLOCK


def test_a_job_from_and_to_a_store_gives_the_local_run_s_bytes(store: Store, job: Job, tmp_path: Path) -> None:
    same_product(store, job.remote, job.local, tmp_path / "got")
    got, local = manifest(tmp_path / "got"), manifest(job.local)
    # The state contains the name of its run's folder.
    own = {name: sealed for name, sealed in local["files"].items() if name != "state/state.json"}
    assert {name: got["files"][name] for name in own} == own
    assert {name: got[name] for name in ("counts", "eps", "guarantees", "clusters", "shares")} == {
        name: local[name] for name in ("counts", "eps", "guarantees", "clusters", "shares")
    }


def test_nothing_is_renamed_and_run_json_is_the_last_object_written(job: Job) -> None:
    written = [r for r in job.requests if r.method in ("PUT", "POST", "DELETE") and r.key != "bucket/run/.writer"]
    assert written[-1] == Request("PUT", "/bucket/run/run.json", "", False)
    assert not any(r.copies for r in job.requests)
    puts = [r.key for r in written if r.method == "PUT" and "/decisions/part" in r.path]
    assert len(puts) == len(set(puts)) == 1


def test_listings_do_not_grow_with_samples_or_shards(store: Store, job: Job, tmp_path: Path) -> None:
    url = store.put(write_shards(tmp_path / "more", ROWS + 300, 4 * SHARDS, prefix="m"), "more")
    with store.proxy.recording() as requests:
        store.done("run", url, *job.asked, "--out", f"{BUCKET}/more-run")
    assert 0 < lists(requests) == lists(job.requests) < 60


def test_a_prune_task_reads_its_clusters_as_one_range_of_each_sorted_file(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_groups, "GROUP_ROWS", 1500)  # a sorted file for each shard
    source = write_shards(tmp_path / "in", 4500, 3)
    asked = ("--rule", "semdedup", "--eps", 0.2, "--published")
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
        # The check of existing files reads the whole file; tasks read headers, and ranges of clusters.
        ranges = [tuple(map(int, found.groups())) for r in own if (found := re.fullmatch(r"bytes=(\d+)-(\d+)", r))]
        of_tasks = [(a, b + 1) for a, b in ranges if a >= 128]
        assert of_tasks
        assert {a for a, _ in of_tasks} | {b for _, b in of_tasks} <= set(first.tolist())
        assert max(b - a for a, b in of_tasks) < 32 * offsets[-1] / 2
        assert own.count(f"bytes=0-{REMOTE_BLOCK - 1}") == 1
        assert {b + 1 for a, b in ranges if a == 0} == {HEAD, REMOTE_BLOCK}


@pytest.mark.soak
def test_prune_again_sweep_replace_audit_and_new_rows_against_a_run_in_a_store(
    store: Store, job: Job, tmp_path: Path
) -> None:
    source = write_shards(tmp_path / "new", 600, 2, seed=5, prefix="n")
    new = store.put(source, "new")
    (tmp_path / "drop.txt").write_text("k7\nk19\n")
    (tmp_path / "gone.txt").write_text("".join(f"k{row}\n" for row in range(0, 400, 7)))
    again = ("--eps", 0.15, "--rule", "semdedup", "--where", "width >= 20", "--drop", tmp_path / "drop.txt")
    again += ("--collect", "id", "--collect", "width")
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


def test_a_killed_run_resumes_and_embeds_nothing_again(store: Store, job: Job, plain: Path, tmp_path: Path) -> None:
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


def test_a_permanent_refusal_is_one_line_that_names_the_object_and_the_run_resumes_later(
    store: Store, job: Job, plain: Path, tmp_path: Path
) -> None:
    asked = ("prune", store.copy(job.remote, f"{BUCKET}/forbidden"), *PLAIN[:2], *PLAIN[-2:])
    with store.proxy.failing(lambda r: "forbidden" if r.method == "PUT" and "/kept/" in r.path else None):
        finished = store.command(*asked)
    assert finished.code == 1
    assert finished.err.count("\n") == 1
    assert f"{BUCKET}/forbidden/kept/part-00000.parquet" in finished.err
    assert "Access Denied" in finished.err and "run the same command to resume" in finished.err
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
    assert finished.code == 2 and "was made of another input" in finished.err
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


def test_a_job_with_its_input_on_a_web_server(store: Store, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [f"r{k}" for k in range(600)], "embedding": list(raw_vectors(600))}),
                   tmp_path / "v.parquet", row_group_size=100)  # fmt: skip
    with files_over_http(tmp_path) as server:
        store.done("run", f"{server.url}/v.parquet", *PLAIN, "--out", tmp_path / "web")
    store.done("run", tmp_path / "v.parquet", *PLAIN, "--out", tmp_path / "run")
    assert product(tmp_path / "web") == product(tmp_path / "run")
