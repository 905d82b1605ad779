"""Fixtures: a bucket of moto's S3, and the same job done on the local disk and in the bucket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from runs import (
    cluster,
)
from servers import s3
from stores import (
    BUCKET,
    CLUSTERED,
    KEY,
    PLAIN,
    ROWS,
    SECRET,
    SHARDS,
    Job,
    Store,
    write_shards,
)

from fairdedup.storage.remote_path import RemotePath
from fairdedup.storage.store_access import file_system


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Return a bucket that only this process uses."""
    folder = tmp_path_factory.mktemp("store")
    with s3(folder) as proxy, pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": proxy.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": str(folder / "none"),
            "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"),
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "4",
        }.items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        file_system.cache_clear()  # the bucket of another module is at another address
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        RemotePath("s3://bucket").fs.mkdir("bucket")
        yield Store(proxy, scheduler="")


@pytest.fixture(scope="module")
def store(bucket: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Return the bucket, and the address of Dask workers that use it."""
    with cluster(tmp_path_factory.mktemp("dask")) as address:
        yield Store(bucket.proxy, address)


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


@pytest.fixture(scope="module")
def plain(job: Job, store: Store) -> Path:
    """Return a run on the local disk that was pruned without prototypes."""
    store.done("run", job.source, *PLAIN, "--out", job.local.with_name("plain"))
    return job.local.with_name("plain")
