"""What a run directory was asked for and what of it is done; who asks for something else is refused by name.

config.json holds both, a stage at a time: a stage's files count only where it was asked for the same.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fairdedup import increments
from fairdedup.config import STAGE_KEYS, RunConfig
from fairdedup.datasets import Dataset, open_input
from fairdedup.errors import FairdedupError, UserError
from fairdedup.progress import StageProgress
from fairdedup.stages.replacement import complete_replacement
from fairdedup.storage.config_record import (
    EMPTY_RECORD,
    ConfigRecord,
    StageOptions,
    StageTime,
    describe_input_changes,
    read_config_record,
    write_config_record,
)
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import remove_audit
from fairdedup.storage.object_stores import RemotePath, as_path
from fairdedup.storage.run_files import compute_sha256, remove_folder
from fairdedup.storage.state_directory import StateDirectory

OWN = ("embeddings", "clusters", "curated", "decisions", "kept", "rejected", "replaced", "gone", "report", "sample",
       "state", "evaluation")  # fmt: skip
OWN_FILES = ("run.json", "prototypes.parquet")
FILES = ("prototypes", "drop", "always_keep")  # options whose content belongs to the configuration
DEFAULTS = RunConfig.model_validate({}).model_dump(mode="json")
PACKAGES = (
    "fairdedup", "numpy", "torch", "open_clip_torch", "faiss-gpu", "faiss-cpu", "dask", "pyarrow", "duckdb", "numba",
)  # fmt: skip


def clear_run(directory: RunDirectory) -> None:
    """Remove what a run wrote into its directory, and nothing else.

    Raises
    ------
    FairdedupError
        If this user may not: then nothing is removed.
    """
    _check_permission(directory, OWN)
    directory.manifest.unlink(missing_ok=True)
    for name in OWN:
        remove_folder(directory.root / name)
    for name in OWN_FILES:
        (directory.root / name).unlink(missing_ok=True)
    write_config_record(directory, EMPTY_RECORD)  # last: it says that all this was ours, and still is


def _check_permission(directory: RunDirectory, folders: Collection[str]) -> None:
    root = directory.root
    for folder in () if isinstance(root, RemotePath) else (root, *(root / name for name in folders)):
        if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
            reason = errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES
            raise FairdedupError(
                f"cannot write {folder}: {os.strerror(reason)}; ask its owner, or choose another place"
            )


def recorded_against(directory: RunDirectory) -> list[str]:
    """Return the earlier runs whose centroids these clusters have."""
    known: list[str] = read_config_record(directory).options_of("cluster").get("against", [])
    return known


def stage_options(config: RunConfig, stage: str) -> StageOptions:
    """Return the options of a stage, with the hashes of the files that they name."""
    known = config.model_dump(mode="json")
    asked = {name: known[name] for name in STAGE_KEYS[stage]}
    for name in FILES if stage == "prune" else ():
        file = getattr(config, name)
        if file is not None and file.is_file():
            asked[f"{name}_sha256"] = compute_sha256(file)
    if asked.get("exclude_near"):
        own = RunDirectory(as_path(config.exclude_near or "")).input
        asked["exclude_near_fingerprint"] = compute_sha256(own) or fingerprint_of(
            open_input(config.exclude_near or "", id_from=config.id)
        )
    if asked.get("against"):
        asked["against"] = [str(folder.absolute()) for folder in config.against]
        asked["against_state"] = increments.seals_of(config)
    return asked


def begin(directory: RunDirectory, stage: str, options: StageOptions) -> None:
    """Record what a stage is asked to do; the run is not finished from here on.

    Raises
    ------
    FairdedupError
        If this user may not write there: then nothing is removed.
    """
    _check_permission(directory, ("report", "state", "replaced"))
    complete_replacement(directory)  # a replacement that was stopped: who has gone must not be forgotten
    directory.manifest.unlink(missing_ok=True)
    remove_audit(directory)
    StateDirectory(directory.root).file.unlink(missing_ok=True)
    if not isinstance(directory.root, RemotePath):  # where nothing is written aside
        for stale in directory.root.glob("**/.*.tmp"):  # what a killed worker was writing
            stale.unlink(missing_ok=True)
    write_config_record(directory, read_config_record(directory).start_stage(stage, options))


def finish_stage(
    directory: RunDirectory, stage: str, value: int | str, progress: StageProgress, **more: Any
) -> ConfigRecord:
    """Record that a stage is done and what it was made of, with more fields of the record; return the record."""
    record = read_config_record(directory).finish_stage(stage, value)
    record = record.model_copy(update={**more, "stages": stage_times(record, progress)})
    write_config_record(directory, record)
    return record


def stage_times(record: ConfigRecord, progress: StageProgress) -> dict[str, StageTime]:
    """Return rows and seconds of each stage: those of earlier commands, replaced by those of this one."""
    own = {
        name: StageTime(rows=progress.rows.get(name, 0), seconds=round(seconds, 3))
        for name, seconds in progress.seconds.items()
    }
    return {**record.stages, **own}


def check_input(directory: RunDirectory, dataset: Dataset) -> None:
    """Refuse an input that is another than the one that the run was begun with."""
    changes = describe_input_changes(directory, dataset.fingerprints)
    if changes:
        more = f" and {len(changes) - 1:,} more" if len(changes) > 1 else ""
        raise UserError(
            f"{directory.root} was begun with another input ({changes[0]}{more}): choose another --out, or --restart"
        )


def check_directory(directory: RunDirectory, asked: dict[str, StageOptions]) -> None:
    """Refuse a folder that is no run, and a run that was begun with another configuration."""
    root = directory.root
    for folder in () if isinstance(root, RemotePath) else (root, *root.parents):
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--out {str(folder)!r} is a file: choose a folder")
        if folder.is_symlink() and not folder.exists():
            raise UserError(f"--out {str(folder)!r} is a link that leads nowhere: mend it, or choose another --out")
    if not directory.config.is_file():
        # A run that was killed early may have left its sample, or a file that was being written.
        there = sorted(p.name for p in root.iterdir()) if isinstance(root, RemotePath) or root.is_dir() else []
        foreign = [name for name in there if name != "sample" and not (name[0] == "." and name.endswith(".tmp"))]
        if foreign:
            raise UserError(f"--out {str(root)!r} holds other files ({foreign[0]!r}): choose a new or empty folder")
        return
    changes, stages = [], set()
    for stage, options in read_config_record(directory).options.items():
        if stage not in asked:
            raise UserError(f"{root} was made by another version, which has a stage {stage!r}: choose another --out")
        for name in sorted(options.keys() | asked[stage].keys()):
            before, now = (each.get(name, DEFAULTS.get(name)) for each in (options, asked[stage]))
            if before != now:  # an option that an earlier version had not stood at its default
                changes.append(f"{name} was {before!r}, is {now!r}")
                stages.add(stage)
    if changes:
        again = f", or decide again without re-embedding by `fairdedup prune {root}`" if stages == {"prune"} else ""
        raise UserError(
            f"{root} was begun with another configuration ({', '.join(dict.fromkeys(changes))}): choose another --out"
            f"{',' if again else ' or'} --restart{again}"
        )


def fingerprint_of(dataset: Dataset) -> str:
    """Return one hash of all shards of the input."""
    return hashlib.sha256("\n".join(dataset.fingerprints.values()).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide what comes out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
