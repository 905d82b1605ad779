"""Result files record what was measured, where and how, and contain no folder of the machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

import fairdedup

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from results_file import RESULTS, read_results, write_results  # noqa: E402


def test_a_result_file_names_command_hardware_versions_and_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [f"{tmp_path}/speed.py", "--out", f"{tmp_path}/new/a.json", f"small:{tmp_path}/w"])
    write_results(tmp_path / "new" / "a.json", {"seconds": 1.5}, what="seconds", seed=7, threads=2)
    text = (tmp_path / "new" / "a.json").read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    found = json.loads(text)
    assert found["command"] == f"python benchmarks/speed.py --out new/a.json small:{tmp_path.name}/w"
    assert (found["what"], found["seed"], found["seconds"]) == ("seconds", 7, 1.5)
    assert found["hardware"]["threads"] == 2 and found["hardware"]["processor"]
    assert found["versions"]["fairdedup"] == fairdedup.__version__ and found["versions"]["numpy"] == np.__version__


def test_committed_results_of_earlier_versions_can_be_read():
    names = [path.stem for path in RESULTS.glob("*.json")]
    assert len(names) >= 10
    for name in names:
        assert {"what", "command", "seed", "hardware", "versions"} <= set(read_results(name))
