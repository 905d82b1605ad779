"""`python -m fairdedup.warm_up`: compiles the loops of a decision, after an installation or into a container image.

numba caches what it compiles. Without this, the first run does it, which takes about a quarter of a minute.
"""

from __future__ import annotations

import numpy as np

from fairdedup.api import deduplicate
from fairdedup.core.rules.registry import find_rule

ROWS, DIMENSION = 64, 8


def warm_up() -> None:
    """Decide a few rows with the common rules, across clusters and within them."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(ROWS, DIMENSION)).astype(np.float32)
    prototypes = {"tone": {name: rng.normal(size=DIMENSION) for name in ("light", "dark")}}
    for name in ("fairdedup", "balanced", "semdedup"):
        given = prototypes if find_rule(name).needs_prototypes else None
        for published in (False, True):
            deduplicate(vectors, keep=0.5, rule=name, clusters=3, prototypes=given, published=published)


if __name__ == "__main__":
    warm_up()
