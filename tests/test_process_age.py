"""The seconds of the stages add up to what the user waited, from the creation of the process to the prompt."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fairdedup import process_age
from fairdedup.process_age import LONGEST, read_process_start

WAIT = """
import time
time.sleep(0.5)  # stands for imports
from fairdedup.process_age import read_process_start
print(time.monotonic() - read_process_start(), time.monotonic() - float({before!r}))
"""


def test_a_process_knows_when_it_was_created() -> None:
    words = [sys.executable, "-c", WAIT.format(before=str(time.monotonic()))]
    age, waited = map(float, subprocess.run(words, check=True, capture_output=True, text=True).stdout.split())
    assert 0.5 <= age <= waited + 0.011, "the kernel counts in hundredths of a second"
    assert waited - age < 0.5 * waited, "most of the wait is known"


@pytest.mark.parametrize("age", [LONGEST + 1, -1.0])
def test_a_process_that_is_old_or_from_the_future_begins_now(age, monkeypatch):
    monkeypatch.setattr(process_age, "_read_age", lambda: age)
    before = time.monotonic()
    assert before <= read_process_start() <= time.monotonic()


def test_without_proc_psutil_says_the_same(monkeypatch):
    expected = process_age._read_age()
    monkeypatch.setattr(process_age.time, "CLOCK_BOOTTIME", "none", raising=False)
    monkeypatch.delattr(process_age.time, "CLOCK_BOOTTIME")
    assert abs(process_age._read_age() - expected) < 5.0


def test_the_stages_of_a_run_add_up_to_what_the_user_waited(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.normal(size=(200, 16)).astype(np.float32))
    words = ["-m", "fairdedup", "run", "x.npy", "--keep", "0.5", "--rule", "semdedup", "--out", "run", "--log-json"]
    shares = []
    for _ in range(3):  # another process may take the processor while this one ends
        began = time.monotonic()
        ended = subprocess.run([sys.executable, *words, "--restart"], cwd=tmp_path, capture_output=True, text=True)
        waited = time.monotonic() - began
        assert ended.returncode == 0, ended.stderr
        seconds = json.loads(ended.stderr.splitlines()[-1])["seconds"]
        assert seconds["start"] > 0 and seconds["report"] > 0
        assert sum(seconds.values()) <= waited + 0.011
        shares.append(sum(seconds.values()) / waited)
        if shares[-1] >= 0.9:
            return
    pytest.fail(f"of the seconds that the user waited, the stages have only {shares}")
