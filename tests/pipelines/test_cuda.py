"""The starter for GPUs, tested without any GPU, with the switches that dask-cuda has for that."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from runs import CLUSTERS, product
from starters import call, config, launched, on_cuda, written

# `make test` installs it: constraints.txt pins the one Dask that it goes with.
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("dask_cuda") is None, reason="needs dask-cuda: pip install -c constraints.txt '.[cuda]'"
)


def has_gpu() -> bool:
    return any(Path("/dev").glob("nvidia[0-9]*"))


def test_a_worker_for_each_gpu_carries_out_a_run(tmp_path, finished, embeddings, prototypes, monkeypatch):
    monkeypatch.setenv("DASK_CUDA_TEST_SINGLE_GPU", "1")  # dask-cuda's switch for tests on fewer GPUs
    monkeypatch.setenv("DASK_CUDA_TEST_DISABLE_DEVICE_SPECIFIC", "1")
    file = written(tmp_path, gpus=[0, 1], memory="1GiB")
    process = launched("cuda", "--config", file, "--", "run", embeddings, "--keep", 0.5, "--prototypes", prototypes,
                       "--clusters", CLUSTERS, "--out", tmp_path / "run")  # fmt: skip
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert product(tmp_path / "run") == product(finished)


def test_a_dry_run_names_the_gpus_of_each_worker(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DASK_CUDA_TEST_SINGLE_GPU", "1")
    monkeypatch.setenv("DASK_CUDA_TEST_DISABLE_DEVICE_SPECIFIC", "1")
    assert call("cuda", "--config", written(tmp_path, gpus=[0, 1], memory="1GiB"), "--dry-run") == 0
    assert capsys.readouterr().out == (
        "worker 0: CUDA_VISIBLE_DEVICES=0,1 threads=1 memory=1GiB\n"
        "worker 1: CUDA_VISIBLE_DEVICES=1,0 threads=1 memory=1GiB\n"
    )


@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so(tmp_path, capsys):
    assert call("cuda", "--config", written(tmp_path), "--dry-run") == 2
    assert capsys.readouterr().err.startswith("fairdedup: error: no GPU was found here (")


def test_dask_cuda_takes_every_option_of_the_cluster(monkeypatch):
    import inspect

    from dask_cuda import LocalCUDACluster
    from distributed import LocalCluster, Nanny, Worker

    monkeypatch.setattr(on_cuda, "visible_devices", lambda _: ["0"])
    known: set[str] = set()
    for kind in (LocalCUDACluster, LocalCluster, Nanny, Worker):
        known |= set(inspect.signature(kind).parameters)
    options: dict[str, Any] = on_cuda.cluster_options(config("cuda"))
    assert set(options) <= known
