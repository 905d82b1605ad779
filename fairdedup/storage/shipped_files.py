"""The files of captions that ship with fairdedup, by their names."""

from __future__ import annotations

from pathlib import Path

PROTOTYPES = ("people", "fairface")


def find_shipped_prototypes(name: str) -> Path:
    """Return the path of a shipped file of captions.

    Parameters
    ----------
    name : str
        One of `PROTOTYPES`.
    """
    package = Path(__file__).parents[1]
    shipped = package / "configs" / "prototypes" / f"{name}.yaml"
    return shipped if shipped.is_file() else package.parent / "configs" / "prototypes" / f"{name}.yaml"
