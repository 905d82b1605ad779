"""The runs that a run was clustered against: finds them where they are now, by the seals of their states."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fairdedup.config import RunConfig
from fairdedup.errors import UserError
from fairdedup.incremental.earlier_runs import EarlierRuns, list_state_seals
from fairdedup.storage.config_record import read_config_record, write_config_record
from fairdedup.storage.inherited_state import read_inherited_state, write_inherited_state
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.moved_runs import find_former_place, places_of
from fairdedup.storage.object_stores import as_path
from fairdedup.storage.remedies import quote
from fairdedup.storage.run_state import KeptRun


class RecordedRuns(NamedTuple):
    """The runs that a run was clustered against.

    Attributes
    ----------
    places : tuple of Path
        Where they are now; where they were, if `inherited` is used instead.
    inherited : EarlierRuns or None
        What the run itself has kept of them, if they are not found.
    """

    places: tuple[Path, ...]
    inherited: EarlierRuns | None = None


def list_recorded_runs(directory: RunDirectory) -> list[str]:
    """Return the run directories that a run was clustered against, as they are recorded.

    Parameters
    ----------
    directory : RunDirectory
        Directory of the run.
    """
    recorded: list[str] = read_config_record(directory).options_of("cluster").get("against", [])
    return recorded


def find_recorded_runs(config: RunConfig, directory: RunDirectory) -> RecordedRuns:
    """Return the runs that a run was clustered against.

    They are recognised by the seals of their states, not by their places, so they may have moved.

    Parameters
    ----------
    config : RunConfig
        Names their new places in `against`, or nothing.
    directory : RunDirectory
        Directory of the run.

    Raises
    ------
    UserError
        If the run was not clustered against the runs that the configuration names, they have changed since, or they
        are missing and the run itself has not kept what is needed of them.
    """
    root, recorded = directory.root, list_recorded_runs(directory)
    seals: list[str | None] = read_config_record(directory).options_of("cluster").get("against_state") or []
    named = [folder.absolute() for folder in config.against]
    if named and not recorded:
        raise _not_clustered_against(root, named)
    if named:
        by_seal = dict(zip(_read_seals(config, named), named, strict=True))
        if by_seal.keys() == set(seals):
            return RecordedRuns(tuple(by_seal[seal] for seal in seals))
        if [str(place) for place in named] != recorded:
            raise _not_clustered_against(root, named)
    former = find_former_place(root) if recorded else None
    found: list[Path] = []
    missing: list[str] = []
    for name, seal in zip(recorded, seals, strict=True):
        places = list(places_of(name, root, former))
        known = _read_seals(config, places)
        if seal in known:
            found.append(places[known.index(seal)])
        elif known[0] is not None:
            raise UserError(
                f"{root} was clustered against runs that have changed since ({', '.join(recorded)}): start it again "
                "with --restart"
            )
        else:
            missing.append(name)
    if not missing:
        return RecordedRuns(tuple(found))
    inherited = read_inherited_state(root, seals)
    if inherited is None:
        raise UserError(
            f"{root} was clustered --against {', '.join(missing)}, which holds no finished run now: bring it back, or "
            f"name its new place, such as `fairdedup prune {quote(root)} --against NEW/PLACE`"
        )
    return RecordedRuns(tuple(map(as_path, recorded)), EarlierRuns([(root, inherited)]))


def record_earlier_runs(
    directory: RunDirectory, earlier: EarlierRuns | None, places: Sequence[Path], runs: Sequence[KeptRun]
) -> None:
    """Record where the runs of ``--against`` are now, and what a run keeps of them, once their files are linked.

    Parameters
    ----------
    directory : RunDirectory
        Directory of the run.
    earlier : EarlierRuns or None
        Runs of ``--against``.
    places : sequence of Path
        Their directories.
    runs : sequence of KeptRun
        The earlier runs of the line, as they are linked.
    """
    if earlier is None:
        return
    record = read_config_record(directory)
    clustering = record.options_of("cluster")
    write_inherited_state(directory.root, earlier.state, runs, clustering["against_state"])
    if earlier.root != directory.root:  # they were found
        moved = {**clustering, "against": [str(place.absolute()) for place in places]}
        update = {"options": {**record.options, "cluster": moved}, "place": str(directory.root)}
        write_config_record(directory, record.model_copy(update=update))


def _read_seals(config: RunConfig, places: Sequence[Path]) -> list[str | None]:
    return list_state_seals(config.model_copy(update={"against": tuple(places)}))


def _not_clustered_against(root: Path, named: Sequence[Path]) -> UserError:
    return UserError(
        f"{root} was not clustered --against {', '.join(map(str, named))}: leave --against out, or choose another --out"
    )
