"""The lists of samples that replacements removed, one file for each. Later decisions of the run remove them again."""

from __future__ import annotations

from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.made_of import read_mark
from fairdedup.storage.remedies import restore_list
from fairdedup.storage.run_files import move_file
from fairdedup.storage.sealed_files import DamagedFileError, Seal


def list_removed(run: RunDirectory) -> list[tuple[Seal, str]]:
    """Return the lists of samples that replacements have removed, verified, each with the name of the user's file.

    Raises
    ------
    UserError
        If a list is damaged.
    """
    lists = []
    for number in range(_count_lists(run)):
        path = run.gone(number)
        mark = read_mark(path)
        source = Seal(path, None if mark is None else mark.seal, restore_list(run.root))
        if mark is None or not source.holds():
            raise DamagedFileError(f"{path}, the list of removed samples, is damaged: {source.remedy}")
        lists.append((source, mark.made_of))
    return lists


def move_list(run: RunDirectory) -> None:
    """Move the list of a replacement that is complete to its place, the last of all."""
    own = run.gone(_count_lists(run))
    for source, target in (
        (run.replaced / "gone.json", own.with_suffix(".json")),
        (run.replaced / "gone.parquet", own),
    ):
        if source.is_file():  # otherwise a command that was killed has moved it
            own.parent.mkdir(exist_ok=True)
            move_file(source, target)


def _count_lists(run: RunDirectory) -> int:
    return len(list(run.gone(0).parent.glob("gone_*.parquet")))
