"""Shared by all tests: reproducible Hypothesis runs, and a fixture that makes `deduplicate` use one thread."""

from __future__ import annotations

import os

# Set before numpy and torch are loaded: two processes run the tests, maybe on two cores, and the threads of their
# libraries would wait for each other half of the time. Tests of threads set their own number.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402
from remedies import place, write_pictures  # noqa: E402
from runs import (  # noqa: E402
    again,
    embeddings,
    finished,
    images_run,
    prototypes,
    prune,
    scheduler,
    shards,
    weights,
)

__all__ = [
    "again",
    "embeddings",
    "finished",
    "images_run",
    "place",
    "prototypes",
    "prune",
    "scheduler",
    "shards",
    "weights",
    "write_pictures",
]  # fixtures

# No clock and no saved examples: a test that passes once passes again.
settings.register_profile("fairdedup", deadline=None, derandomize=True, database=None)
settings.load_profile("fairdedup")


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `deduplicate` use one thread: with hundreds of tiny problems, starting threads takes most of the time."""
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
