"""Finds the runs that a run was made from, after some or all of them have moved. It writes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from fairdedup.errors import FairdedupError
from fairdedup.storage.config_record import read_config_record
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.object_stores import RemotePath, as_path
from fairdedup.storage.run_state import KeptRun, RunState, read_run_state

CENTROIDS = "centroids.npy"  # equal in all runs of a line
SIZES = "sizes.npy"  # of the rows that were decided, whatever was kept of them


def places_of(recorded: str, root: Path, before: str | None) -> Iterator[Path]:
    """Yield where a run may be now: where it was, as it lay to a run that has moved too, and beside that run.

    Parameters
    ----------
    recorded : str
        Where it was.
    root : Path
        Directory of the run that has recorded it.
    before : str or None
        Where `root` was then; None if it is not known.
    """
    found = [as_path(recorded)]
    if not isinstance(root, RemotePath):
        roots = [root, root.resolve()]
        if before is not None and "://" not in recorded + before:
            found += [Path(os.path.normpath(each / os.path.relpath(recorded, before))) for each in roots]
        found += [each.parent / Path(recorded).name for each in roots]
    else:
        found.append(root.parent / found[0].name)
    yield from dict.fromkeys(found)


def find_former_place(root: Path) -> str | None:
    """Return where a run was when it recorded the runs before it; None if it is not known.

    Parameters
    ----------
    root : Path
        Run directory.
    """
    place = read_config_record(RunDirectory(root)).place
    if place is not None:
        return place
    try:
        state = read_run_state(root)
    except FairdedupError:
        return None
    return state.runs[-1].run if state is not None and state.runs else None


def find_run(run: KeptRun, root: Path, state: RunState, named: Mapping[str, Path]) -> Path | None:
    """Return the directory of an earlier run of a line, with its embeddings; None if it is not found.

    Parameters
    ----------
    run : KeptRun
        The earlier run.
    root : Path
        Directory of a later run of the line.
    state : RunState
        State of the later run.
    named : mapping of str to Path
        Directories of other runs, by the identities of the runs.
    """
    if run.identity in named:
        return named[run.identity]
    others = {each.identity for each in state.runs}
    same_rows: list[Path] = []  # of this line, and decided again since
    same_line: list[Path] = []
    for place in (*places_of(run.run, root, state.runs[-1].run), *named.values()):
        if not RunDirectory(place).vectors(0).parent.is_dir():
            continue
        try:
            there = read_run_state(place)
        except FairdedupError:
            there = None
        if there is None or there.runs[-1].identity == run.identity:
            return place
        own = there.runs[-1]
        if there.files.get(CENTROIDS) != state.files.get(CENTROIDS) or own.identity in others:
            continue
        if own.files.get(SIZES) == run.files.get(SIZES):
            same_rows.append(place)
        elif place not in named.values():
            same_line.append(place)
    return next(iter((*same_rows, *same_line)), None)
