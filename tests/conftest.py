"""What all tests share: reproducible Hypothesis runs, and a way to decide on one thread."""

from __future__ import annotations

import os

# Before numpy and torch are loaded: two processes run the tests on what may be two cores, and the threads of their
# libraries would spend half of the time waiting for each other. What rests on threads asks for them.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402
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
    "prototypes",
    "prune",
    "scheduler",
    "shards",
    "weights",
]  # fixtures

# No clock and no saved examples: a test that passes once passes again.
settings.register_profile("fairdedup", deadline=None, derandomize=True, database=None)
settings.load_profile("fairdedup")


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `deduplicate` work on one thread: hundreds of tiny problems spend their time starting threads."""
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
