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
from fairdedup.stages.clustering import check_sorted
from fairdedup.stages.replacement import finish
from fairdedup.storage.layout import RunDirectory, ShardRecord, groups
from fairdedup.storage.object_stores import RemotePath, as_path
from fairdedup.storage.run_files import clear, read_json, sha256_of, write_json
from fairdedup.storage.run_state import StateDirectory
from fairdedup.tasks import map_groups
from fairdedup.workers import Workers

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
        clear(directory.root / name)
    for name in OWN_FILES:
        (directory.root / name).unlink(missing_ok=True)
    write_json(directory.config, {"asked": {}, "done": {}})  # last: it says that all this was ours, and still is


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
    known: list[str] = state_of(directory)["asked"].get("cluster", {}).get("against", [])
    return known


def asked_of(config: RunConfig, stage: str) -> dict[str, Any]:
    """Return the options of a stage, with the hashes of the files that they name."""
    known = config.model_dump(mode="json")
    asked = {name: known[name] for name in STAGE_KEYS[stage]}
    for name in FILES if stage == "prune" else ():
        file = getattr(config, name)
        if file is not None and file.is_file():
            asked[f"{name}_sha256"] = sha256_of(file)
    if asked.get("exclude_near"):
        own = RunDirectory(as_path(config.exclude_near or "")).input
        asked["exclude_near_fingerprint"] = sha256_of(own) or fingerprint_of(
            open_input(config.exclude_near or "", id_from=config.id)
        )
    if asked.get("against"):
        asked["against"] = [str(folder.absolute()) for folder in config.against]
        asked["against_state"] = increments.seals_of(config)
    return asked


def state_of(directory: RunDirectory) -> dict[str, Any]:
    """Return what the run directory was asked for, and what of it is done.

    Raises
    ------
    FairdedupError
        If that is damaged.
    """
    known = read_json(directory.config)
    if known is None:
        return {"asked": {}, "done": {}}
    if not isinstance(known, dict) or not all(isinstance(known.get(name), dict) for name in ("asked", "done")):
        raise FairdedupError(f"{directory.config} is damaged: bring it back, or --restart")
    return known


def begin(directory: RunDirectory, stage: str, asked: dict[str, Any]) -> None:
    """Record what a stage is asked to do; the run is not finished from here on.

    Raises
    ------
    FairdedupError
        If this user may not write there: then nothing is removed.
    """
    _check_permission(directory, ("report", "state", "replaced"))
    finish(directory)  # a replacement that was stopped: who has gone must not be forgotten
    directory.manifest.unlink(missing_ok=True)
    directory.drop_audit()
    StateDirectory(directory.root).file.unlink(missing_ok=True)
    if not isinstance(directory.root, RemotePath):  # where nothing is written aside
        for stale in directory.root.glob("**/.*.tmp"):  # what a killed worker was writing
            stale.unlink(missing_ok=True)
    state = state_of(directory)
    state["asked"][stage] = asked
    state["done"].pop(stage, None)  # what a finished clustering was made of is kept and compared
    write_json(directory.config, state)


def finish_stage(directory: RunDirectory, stage: str, value: Any, progress: StageProgress, **more: Any) -> None:
    """Record that a stage is done, and what it was made of."""
    state = state_of(directory)
    state["done"][stage] = value
    write_json(directory.config, {**state, **more, "stages": stages_of(state, progress)})


def stages_of(state: dict[str, Any], progress: StageProgress) -> dict[str, dict[str, float]]:
    """Return rows and seconds of each stage: what earlier commands took, and over it what this one did."""
    own = {
        name: {"rows": progress.rows.get(name, 0), "seconds": round(seconds, 3)}
        for name, seconds in progress.seconds.items()
    }
    return {**state.get("stages", {}), **own}


def hash_of_embeddings(records: list[ShardRecord]) -> str:
    """Return what clusters depend on, as a hash."""
    return hashlib.sha256("\n".join(r.fingerprint for r in records).encode()).hexdigest()


def check_clustered(directory: RunDirectory, workers: Workers | None) -> None:
    """Refuse clusters of other embeddings than those that are there now, and damaged ones where there are workers."""
    root, records = directory.root, directory.records()
    if state_of(directory)["done"].get("cluster") != hash_of_embeddings(records):
        raise UserError(f"{root} holds no finished clustering: run `fairdedup cluster {root}` first")
    if workers is not None:
        map_groups(workers.submit, "verify", check_sorted, groups(records), root)


def check_input(directory: RunDirectory, dataset: Dataset) -> None:
    """Refuse an input that is another than the one that the run was begun with."""
    changes = directory.changes(dataset.fingerprints)
    if changes:
        more = f" and {len(changes) - 1:,} more" if len(changes) > 1 else ""
        raise UserError(
            f"{directory.root} was begun with another input ({changes[0]}{more}): choose another --out, or --restart"
        )


def check_directory(directory: RunDirectory, asked: dict[str, dict[str, Any]]) -> None:
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
    known = state_of(directory)
    changes, stages = [], set()
    for stage, options in known["asked"].items():
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
