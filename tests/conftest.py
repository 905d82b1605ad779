"""What all tests share: reproducible Hypothesis runs, and a way to decide on one thread."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings
from runs import again, embeddings, finished, images_run, prototypes, prune, scheduler, shards, weights

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
