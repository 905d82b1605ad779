"""The benchmark of GPUs runs on a machine without one, and fails where the device's decisions are not the CPU's."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import gpu  # noqa: E402

PARTS_WITH_A_FLOOR = ("kmeans", "assignment")


def test_everything_runs_on_a_cpu_and_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gpu.json"
    assert gpu.main(["--device", "cpu", "--small", "--out", str(out)]) == 0, capsys.readouterr().out
    found = json.loads(out.read_text(encoding="utf-8"))
    assert set(gpu.PARTS) <= set(found) and found["small"] and found["device"] == "cpu"
    same = {name: value for name, value in found["same"].items() if name.startswith("same ")}
    assert {"same kept", "same representative", "same similarity"} <= set(same) and all(same.values())
    for name in PARTS_WITH_A_FLOOR:
        assert found[name]["seconds"] > 0 and found[name]["floor"] > 0
    assert {"with cover", "as published"} <= set(found["prune"])
    own = found["embedding"]
    assert own["pictures"] == 24 and own["plain loop"] > 0 and own["least cosine to the plain loop's vectors"] > 0.999
    for calls in (found["profile"]["pairs of a cluster"], found["profile"]["a batch of pictures"]["operations"]):
        assert calls and all(call["milliseconds"] >= 0 for call in calls)


def test_a_part_that_fails_is_written_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(gpu.Search, "assignment", fail)
    out = tmp_path / "gpu.json"
    parts = ["--parts", "assignment", "kmeans"]
    assert gpu.main(["--device", "cpu", "--small", "--rows", "300", "--out", str(out), *parts]) == 1
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["assignment"] == {"failed": "RuntimeError: no memory"} and found["kmeans"]["seconds"] > 0


def test_decisions_that_differ_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu.Search, "same", lambda self: {"same kept": False})
    assert gpu.main(["--device", "cpu", "--small", "--parts", "same", "--out", str(tmp_path / "gpu.json")]) == 1


def figures(**changes: Any) -> dict[str, Any]:
    """Return the figures of a GPU that meets every goal exactly, with some parts replaced."""
    floor = {"seconds": 2.0, "floor": 1.0, "of the floor": 2.0}
    met: dict[str, Any] = {
        "device": "NVIDIA", "small": False,
        "same": {"rows": 9, "same kept": True, "same similarity": True, "kept": 4},
        "embedding": {"times the plain loop": 3.0, "share of the forward": 0.5},
        "kmeans": floor, "assignment": floor,
        "prune": {"rows": 9, "with cover": floor, "as published": floor},
        "profile": {"pairs of a cluster": []},
    }  # fmt: skip
    return met | changes


def test_a_gpu_that_meets_every_goal_misses_none() -> None:
    assert gpu.list_failures(figures()) == [] == gpu.list_failures({"device": "NVIDIA", "small": False})


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({"embedding": {"times the plain loop": 2.99, "share of the forward": 0.5}},
         "embedding: times the plain loop 2.99, under 3"),
        ({"embedding": {"times the plain loop": 3.1, "share of the forward": 0.499}},
         "embedding: share of the forward 0.499, under 0.5"),
        ({"kmeans": {"of the floor": 2.01}}, "kmeans: 2.01 times the floor, over 2"),
        ({"assignment": {"of the floor": float("nan")}}, "assignment: nan times the floor, over 2"),
        ({"prune": {"with cover": {"of the floor": 9.5}}}, "prune with cover: 9.5 times the floor, over 2"),
        ({"prune": {"failed": "RuntimeError: no memory"}}, "prune: RuntimeError: no memory"),
        ({"same": {"same kept": False, "same similarity": True}}, "same: not the bytes of the CPU in kept"),
    ],
)  # fmt: skip
def test_each_goal_that_is_missed_is_named(changes: dict[str, Any], missed: str) -> None:
    assert gpu.list_failures(figures(**changes)) == [missed]


@pytest.mark.parametrize("where", [{"device": "cpu"}, {"small": True}])
def test_without_a_gpu_at_full_size_only_the_bytes_are_judged(where: dict[str, Any]) -> None:
    slow = {"kmeans": {"of the floor": 99.0}, "embedding": {"times the plain loop": 0.1}}
    assert gpu.list_failures(figures(**where, **slow)) == []
    assert len(gpu.list_failures(figures(**where, **slow, same={"same kept": False}))) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_cpu_is_advised(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "torch sees no GPU here: give --device cpu --small" in capsys.readouterr().err
