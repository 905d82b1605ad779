"""The parts of decisions/, kept/ and rejected/, each with the seal that run.json has."""

from __future__ import annotations

from collections.abc import Mapping

from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.remedies import decide_again
from fairdedup.storage.sealed_files import Seal


def result_part(run: RunDirectory, folder: str, number: int, seals: Mapping[str, str]) -> Seal:
    """Return a part of a result with its seal.

    Parameters
    ----------
    run : RunDirectory
    folder : str
        "decisions", "kept" or "rejected".
    number : int
        Number of the group of shards.
    seals : mapping of str to str
        Seal of each part, by path below the run directory, as in run.json.
    """
    path = run.part(folder, number)
    return Seal(path, seals.get(str(path.relative_to(run.root))), decide_again(run.root))
