"""Fixtures of the tests of single commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from audits import write_labels
from exports import Exported
from runs import (
    done,
    table,
)


@pytest.fixture
def no_workers(monkeypatch):
    monkeypatch.setattr("fairdedup.workers.Workers.submit", lambda *_: pytest.fail("a task was submitted"))


@pytest.fixture
def labelled(again, tmp_path):
    """Return the decisions of the copy with a tone and an age for each row, and a file of these labels."""
    decisions = table(again / "decisions")
    rng = np.random.default_rng(4)
    decisions["tone"] = rng.choice(["light", "dark"], len(decisions), p=[0.7, 0.3])
    decisions["age"] = rng.choice(["young", "old", "middle"], len(decisions), p=[0.6, 0.1, 0.3])
    columns = {name: decisions[name].tolist() for name in ("id", "tone", "age")}
    return decisions, write_labels(tmp_path / "labels.csv", **columns)


@pytest.fixture
def run_of(tmp_path: Path, scheduler: str, weights: Path) -> Callable[..., Path]:
    """Return a maker of finished runs over images."""

    def make(source: Path, *flags: object, name: str = "run") -> Path:
        out = tmp_path / name
        done("run", source, "--keep", 0.5, "--model", "fairdedup-small", "--pretrained", weights, "--out", out,
             "--batch-size", 4, "--clusters", 2, "--scheduler", scheduler, "--quiet", *flags)  # fmt: skip
        return out

    return make


@pytest.fixture
def export(tmp_path: Path, scheduler: str) -> Exported:
    """Return a function that exports a run and returns what was written."""

    def write(run: Path, form: str, *flags: object, what: str = "kept", name: str = "out") -> Path:
        done("export", run, "--to", form, "--what", what, "--dest", tmp_path / name, "--scheduler", scheduler,
             "--quiet", *flags)  # fmt: skip
        return tmp_path / name

    return write
