"""The starter for GPUs, tested without any GPU, with the switches that dask-cuda has for that."""

from __future__ import annotations

import importlib.util

import pytest
from runs import CLUSTERS, product
from starters import launched, written

HAS_CUDA = importlib.util.find_spec("dask_cuda") is not None


@pytest.mark.skipif(not HAS_CUDA, reason="dask-cuda wants a Dask of its own: docs/clusters.md says how this was run")
def test_a_worker_for_each_gpu_carries_out_a_run(tmp_path, finished, embeddings, prototypes, monkeypatch):
    monkeypatch.setenv("DASK_CUDA_TEST_SINGLE_GPU", "1")  # dask-cuda's switch for tests on fewer GPUs
    monkeypatch.setenv("DASK_CUDA_TEST_DISABLE_DEVICE_SPECIFIC", "1")
    file = written(tmp_path, gpus=[0, 1], memory="1GiB")
    process = launched("cuda", "--config", file, "--dry-run")
    out, err = process.communicate(timeout=60)
    assert out == (
        "worker 0: CUDA_VISIBLE_DEVICES=0,1 threads=1 memory=1GiB\n"
        "worker 1: CUDA_VISIBLE_DEVICES=1,0 threads=1 memory=1GiB\n"
    ), err
    process = launched("cuda", "--config", file, "--", "run", embeddings, "--keep", 0.5, "--prototypes", prototypes,
                       "--clusters", CLUSTERS, "--out", tmp_path / "run")  # fmt: skip
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert product(tmp_path / "run") == product(finished)
