"""A small clustered data set for the tests of `deduplicate`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fairdedup import deduplicate
from fairdedup.api import Result

RNG = np.random.default_rng(0)
# Values are exact in float16, so that every type has the same numbers; the rows are near copies of 12 directions.
X = (RNG.normal(size=(12, 6))[RNG.integers(12, size=90)] + 0.1 * RNG.normal(size=(90, 6))).astype(np.float16)
LABELS = np.arange(90) % 3
PEOPLE = {"gender": {"woman": X[0] + 0.5, "man": X[1] - 0.5}}


def decide(embeddings: Any = X, **changes: Any) -> Result:
    return deduplicate(embeddings, **{"rule": "semdedup", "eps": 0.02, "clusters": LABELS, **changes})


def torch_tensor(x: np.ndarray) -> Any:
    return pytest.importorskip("torch").from_numpy(x.copy())
