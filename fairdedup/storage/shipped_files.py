"""The files that ship with fairdedup beside its code: captions, starter files."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from fairdedup.errors import FairdedupError

PROTOTYPES = ("people", "fairface")


def find_shipped(name: str) -> Path:
    """Return the path of a file that the package brings along: within it, or in a checkout beside it.

    Parameters
    ----------
    name : str
        Path in the sources, such as "configs/clusters/slurm.yaml".

    Raises
    ------
    FairdedupError
        If it is missing: the installation is not complete.
    """
    package = Path(str(files("fairdedup")))
    for place in (package / name, package.parent / name):
        if place.is_file():
            return place
    raise FairdedupError(f"{name} is not in the installed package ({package}): install fairdedup again")


def find_shipped_prototypes(name: str) -> Path:
    """Return the path of a shipped file of captions; raises as `find_shipped`.

    Parameters
    ----------
    name : str
        One of `PROTOTYPES`.
    """
    return find_shipped(f"configs/prototypes/{name}.yaml")
