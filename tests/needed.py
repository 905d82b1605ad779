"""Packages that some tests need: where CI runs, a missing one is a failure, and elsewhere the test is skipped."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest


def import_or_skip(name: str) -> Any:
    """Return a package of `.[docs]`."""
    if os.environ.get("CI"):
        return importlib.import_module(name)
    return pytest.importorskip(name, reason=f"{name} is not installed: pip install '.[docs]'")
