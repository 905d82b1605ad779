"""Where a result comes from: versions of the software, and a fingerprint of the input. It reads no data."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version

from fairdedup.datasets import Dataset

PACKAGES = (
    "fairdedup",
    "numpy",
    "torch",
    "open_clip_torch",
    "dask",
    "pyarrow",
    "duckdb",
    "numba",
)


def list_versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def fingerprint_dataset(dataset: Dataset) -> str:
    """Return one hash of the fingerprints of all shards of an input.

    Parameters
    ----------
    dataset : Dataset
        Input of a run.
    """
    return hashlib.sha256("\n".join(dataset.fingerprints.values()).encode()).hexdigest()
