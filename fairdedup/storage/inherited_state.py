"""state/inherited.json: what a run was decided against, so that it can be decided again without the earlier runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fairdedup.errors import FairdedupError
from fairdedup.storage.run_state import KeptRun, RunState
from fairdedup.storage.seals import has_sealed_size, is_sealed
from fairdedup.storage.state_directory import StateDirectory
from fairdedup.storage.stored_model import StoredFile


class InheritedState(StoredFile):
    """inherited.json.

    Attributes
    ----------
    seals : list of str
        Seal of the state.json of each run of ``--against``.
    state : RunState
        State of the first of them, with all the earlier runs of the line; their files are in state/ of this run.
    """

    seals: list[str]
    state: RunState

    @classmethod
    def path(cls, root: Path) -> Path:
        """Return the path of the file in a run directory."""
        return StateDirectory(root).folder / "inherited.json"


def write_inherited_state(root: Path, state: RunState, runs: Sequence[KeptRun], seals: Sequence[str]) -> None:
    """Write inherited.json, once the files of the earlier runs are linked.

    Parameters
    ----------
    root : Path
        Run directory.
    state : RunState
        State of the first run of ``--against``.
    runs : sequence of KeptRun
        The earlier runs of the line, as they are linked.
    seals : sequence of str
        Seal of the state.json of each run of ``--against``.
    """
    state = state.model_copy(update={"runs": list(runs)})
    InheritedState(seals=list(seals), state=state).write(InheritedState.path(root))


def read_inherited_state(root: Path, seals: Sequence[str | None]) -> RunState | None:
    """Return what a run was decided against; None if a file of it is missing or damaged.

    Parameters
    ----------
    root : Path
        Run directory.
    seals : sequence of str or None
        Seal of the state.json of each run that it was clustered against.
    """
    try:
        known = InheritedState.read(InheritedState.path(root))
    except FairdedupError:
        return None
    if known is None or known.seals != list(seals):
        return None
    folder = StateDirectory(root).folder
    files = known.state.files
    for name, sealed in known.state.list_files().items():  # samples are verified where they are read
        if not (is_sealed if name in files else has_sealed_size)(folder / name, sealed):
            return None
    return known.state
