"""Marks of derived files: what a file was made of, and its seal, in a JSON file of the same stem."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from fairdedup.errors import FairdedupError
from fairdedup.storage.checked_json import read_json, write_json
from fairdedup.storage.sealed_files import Seal
from fairdedup.storage.seals import is_sealed, seal


class Mark(NamedTuple):
    """What a file was made of, and its seal.

    Attributes
    ----------
    made_of : str
        Hash of the inputs.
    seal : str
    """

    made_of: str
    seal: str


def read_mark(path: Path) -> Mark | None:
    """Return the mark of a file, None if it is missing or damaged."""
    try:
        known = read_json(path.with_suffix(".json"))
    except FairdedupError:
        return None
    if not isinstance(known, dict) or not all(isinstance(known.get(name), str) for name in ("made of", "seal")):
        return None
    return Mark(known["made of"], known["seal"])


def marked_file(path: Path, remedy: str) -> Seal:
    """Return a file with the seal that its mark has.

    Parameters
    ----------
    path : Path
    remedy : str
        What repairs the file or its mark.
    """
    mark = read_mark(path)
    return Seal(path, None if mark is None else mark.seal, remedy)


def is_up_to_date(path: Path, made_of: str) -> bool:
    """Return whether a file is undamaged and was made of these inputs, as `mark_up_to_date` has recorded.

    Parameters
    ----------
    path : Path
    made_of : str
        Hash of the inputs.
    """
    mark = read_mark(path)
    return mark is not None and mark.made_of == made_of and is_sealed(path, mark.seal)


def mark_up_to_date(path: Path, made_of: str) -> None:
    """Record what a complete file was made of, and its seal."""
    write_json(path.with_suffix(".json"), {"made of": made_of, "seal": seal(path)})
