"""A GPU is used where there is one and the work is much, unless another device is named."""

from __future__ import annotations

import numpy as np
import pytest

from fairdedup import deduplicate
from fairdedup.core import devices
from fairdedup.core.devices import call_on_device, choose_device, choose_product_device, torch_name, use_device
from fairdedup.errors import UserError
from fairdedup.in_memory import Threads
from fairdedup.progress import StageProgress
from fairdedup.tasks import Task
from fairdedup.workers import Workers

MUCH, LITTLE = 1e12, 1e3


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that torch sees a GPU; nothing is computed on it."""
    monkeypatch.setattr(devices, "may_have_gpu", lambda: True)
    monkeypatch.setattr(devices, "sees_gpu", lambda: True)
    monkeypatch.setattr(devices, "is_torch_worth_it", lambda work: work > devices.TORCH_WORK)


def test_much_work_goes_to_a_gpu(gpu: None) -> None:
    assert choose_device("auto", MUCH) == choose_product_device(MUCH) == "cuda"
    assert choose_device("auto", LITTLE) == choose_product_device(LITTLE) == "cpu"
    assert choose_product_device(2 * devices.DEVICE_WORK, done=MUCH) == "cuda"  # loading torch pays by now
    assert choose_product_device(LITTLE, done=MUCH) == "cpu"  # and this product does not


def test_without_a_gpu_everything_stays_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "may_have_gpu", lambda: False)
    monkeypatch.setattr(devices, "sees_gpu", lambda: pytest.fail("torch need not be loaded"))
    assert choose_device("auto", MUCH) == choose_product_device(MUCH) == "cpu"


def test_a_named_device_is_taken_whatever_the_work(gpu: None) -> None:
    for device in ("cpu", "cuda", "torch:cpu"):
        with use_device(device):
            assert choose_product_device(LITTLE) == choose_product_device(MUCH) == choose_device("auto", 0) == device
            with use_device("auto"):  # what is around it counts
                assert choose_product_device(MUCH) == device
        assert call_on_device(device, choose_product_device, MUCH) == device
    assert choose_product_device(MUCH) == "cuda"
    assert (torch_name("cuda"), torch_name("torch:cpu")) == ("cuda", "cpu")


def test_threads_use_the_device_of_their_caller() -> None:
    parts = [type("Part", (), {"rows": 1})() for _ in range(4)]
    with use_device("torch:cpu"):
        assert Threads(2)("step", lambda part: choose_product_device(MUCH), parts) == ["torch:cpu"] * 4


def test_tasks_use_no_gpu_with_device_cpu(gpu: None) -> None:
    for device, expected in (("auto", "cuda"), ("cpu", "cpu")):
        with Workers(StageProgress(quiet=True), device=device) as workers:
            assert workers.submit("stage", choose_product_device, [Task((MUCH,), rows=1)]) == [expected]


def test_a_gpu_that_is_not_there_is_refused_by_every_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "sees_gpu", lambda: False)
    with pytest.raises(UserError, match="`device=cuda`: torch sees no GPU here; use `device=cpu` or auto"):
        deduplicate(np.eye(3), keep=1.0, rule="random", clusters=[0, 0, 0], device="cuda")
