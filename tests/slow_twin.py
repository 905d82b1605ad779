"""Compares the decisions of a run with those of the oracles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import oracles
from runs import (
    Decided,
    manifest,
)

RULES = [
    ("semdedup", False), ("semdedup", True), ("fairdedup", False), ("fairdedup", True), ("balanced", False),
    ("balanced", True), ("random-neighbour", False), ("random-neighbour", True), ("semdedup-chain", False),
]  # fmt: skip


def flags_of(rule: str, cover: bool) -> list[str]:
    """Return the flags of a decision within clusters."""
    return ["--rule", rule, *(["--cover", "--reach", "0"] if cover else ["--published"])]


def units(run: Path) -> int:
    eps = manifest(run)["eps"]
    assert round(eps * 10_000) / 10_000 == eps
    return round(eps * 10_000)


def assert_same(decided: Decided, expected: oracles.Decision) -> None:
    """Compare every column of decisions/ with the twin's, whose rows are positions among the valid rows."""
    found = decided.decisions
    rows = found["row"].to_numpy()
    for name, values in expected.items():
        wanted = rows[values] if name in ("representative", "neighbourhood") else values
        wrong = np.flatnonzero(found[name].to_numpy() != wanted)
        assert not len(wrong), (
            f"{name} of rows {rows[wrong[:9]]}: {found[name][wrong[:9]].tolist()}, {wanted[wrong[:9]]}"
        )
