"""Records in config.json that a stage starts or is finished, and clears run directories. It never runs a stage."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection
from typing import Any

from fairdedup.errors import FairdedupError
from fairdedup.progress import StageProgress
from fairdedup.stages.replacement import complete_replacement
from fairdedup.storage.config_record import (
    EMPTY_RECORD,
    ConfigRecord,
    StageOptions,
    StageTime,
    read_config_record,
    write_config_record,
)
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import remove_audit
from fairdedup.storage.object_stores import RemotePath
from fairdedup.storage.records import list_recorded_shards
from fairdedup.storage.run_files import remove_folder
from fairdedup.storage.state_directory import StateDirectory

FOLDERS = (
    "embeddings",
    "clusters",
    "curated",
    "decisions",
    "kept",
    "rejected",
    "replaced",
    "gone",
    "report",
    "sample",
    "state",
    "evaluation",
)
FILES = ("run.json", "prototypes.parquet")


def start_stage(directory: RunDirectory, stage: str, options: StageOptions) -> None:
    """Record the options of a stage that starts now. The run counts as unfinished from here on.

    Parameters
    ----------
    directory : RunDirectory
        Directory of the run.
    stage : str
        Name of the stage.
    options : StageOptions
        Options that the stage reads.

    Raises
    ------
    FairdedupError
        If this user may not write to the run directory. Then nothing is changed.
    """
    _check_permission(directory, ("report", "state", "replaced"))
    complete_replacement(directory)  # its list of vanished samples must not be lost
    directory.manifest.unlink(missing_ok=True)
    remove_audit(directory)
    StateDirectory(directory.root).file.unlink(missing_ok=True)
    if not isinstance(directory.root, RemotePath):  # a store has no temporary files
        for stale in directory.root.glob("**/.*.tmp"):  # left behind by a killed worker
            stale.unlink(missing_ok=True)
    write_config_record(directory, read_config_record(directory).start_stage(stage, options))


def forget_start(directory: RunDirectory) -> None:
    """Forget the input of a run that stopped before its embeddings were complete, and its options if there are none.

    What its message advises, such as a correction of the input or another --column, can then be done in the same run
    directory. A shard that is embedded is used again only if its own fingerprint is the same.

    Parameters
    ----------
    directory : RunDirectory
        Directory of the run.
    """
    if set(read_config_record(directory).options) <= {"embed"}:
        directory.input.unlink(missing_ok=True)
        if not list_recorded_shards(directory):
            write_config_record(directory, EMPTY_RECORD)


def finish_stage(
    directory: RunDirectory, stage: str, value: int | str, progress: StageProgress, **fields: Any
) -> ConfigRecord:
    """Record that a stage is finished, and return the record.

    Parameters
    ----------
    directory : RunDirectory
        Directory of the run.
    stage : str
        Name of the stage.
    value : int or str
        Value of the stage in `FinishedStages`.
    progress : StageProgress
        Rows and seconds of the stages of this command.
    **fields
        Other fields of `ConfigRecord` to set.
    """
    record = read_config_record(directory).finish_stage(stage, value)
    record = record.model_copy(update={**fields, "stages": merge_stage_times(record, progress)})
    write_config_record(directory, record)
    return record


def merge_stage_times(record: ConfigRecord, progress: StageProgress) -> dict[str, StageTime]:
    """Return rows and seconds of each stage: those of this command, or else those in the record.

    Parameters
    ----------
    record : ConfigRecord
        Content of config.json.
    progress : StageProgress
        Rows and seconds of the stages of this command.
    """
    progress.count_other()
    own = {
        name: StageTime(rows=progress.rows.get(name, 0), seconds=round(seconds, 3))
        for name, seconds in progress.seconds.items()
    }
    return {**record.stages, **own}


def clear_run(directory: RunDirectory) -> None:
    """Remove everything that a run wrote into its directory, and nothing else.

    Parameters
    ----------
    directory : RunDirectory
        Directory of the run.

    Raises
    ------
    FairdedupError
        If this user may not write to the run directory. Then nothing is removed.
    """
    _check_permission(directory, FOLDERS)
    directory.manifest.unlink(missing_ok=True)
    for name in FOLDERS:
        remove_folder(directory.root / name)
    for name in FILES:
        (directory.root / name).unlink(missing_ok=True)
    write_config_record(directory, EMPTY_RECORD)  # last, since it marks the folder as a run directory


def _check_permission(directory: RunDirectory, folders: Collection[str]) -> None:
    root = directory.root
    if isinstance(root, RemotePath):
        return
    for folder in (root, *(root / name for name in folders)):
        if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
            reason = errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES
            raise FairdedupError(
                f"cannot write {folder}: {os.strerror(reason)}; ask its owner, or choose another place"
            )
