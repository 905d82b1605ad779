"""A finished run handed over to what comes next: its samples as WebDataset shards, or their ids as a file.

The run is read, and nothing in it is changed; the input is read again where samples are copied.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from tarfile import BLOCKSIZE, RECORDSIZE
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fairdedup.datasets import Dataset, open_input
from fairdedup.datasets.originals import find_clashing_stems
from fairdedup.errors import FairdedupError, UserError
from fairdedup.stages.id_export import ids_of, write_lines, write_uids
from fairdedup.stages.tar_export import OWN, Plan, measure, plan_shards, reshard
from fairdedup.storage.layout import Group, RunDirectory, finished, groups
from fairdedup.storage.object_stores import RemotePath
from fairdedup.storage.run_files import is_sealed, read_json, seal, whole, write_json
from fairdedup.workers import Workers

Form = Literal["webdataset", "uids", "txt"]
ENDINGS: dict[Form, str] = {"webdataset": "", "uids": ".npy", "txt": ".txt"}
SHARD_SAMPLES = 10_000
VERSION = 1  # of what shards are made of: another one writes other bytes


@dataclass(frozen=True)
class Wanted:
    """What is asked for.

    Attributes
    ----------
    run : Path
    form : {"webdataset", "uids", "txt"}
    what : {"kept", "removed"}
    dest : str or None
        None: beside the run, by its name.
    samples : int
        In each shard but the last.
    most_bytes : int or None
        Of a shard, in place of a number of samples; a sample that is larger has one of its own.
    source : str or None
        The input, where it has moved.
    """

    run: Path
    form: Form
    what: Literal["kept", "removed"] = "kept"
    dest: str | None = None
    samples: int = SHARD_SAMPLES
    most_bytes: int | None = None
    source: str | None = None

    @property
    def place(self) -> Path:
        """Where it is written."""
        root = self.run.absolute()
        beside = root.with_name(f"{root.name}-{self.what}{ENDINGS[self.form]}")
        return beside if self.dest is None else Path(self.dest).absolute()

    @property
    def shown(self) -> str:
        """The place as the user has named it, for messages."""
        return f"--dest {self.dest or str(self.place)!r}"


def hand_over(wanted: Wanted, workers: Workers) -> dict[str, Any]:
    """Write what is asked for, and return `path`, `samples` and, of shards, `shards` and `bytes`.

    Raises
    ------
    UserError
        If the run is not finished or is damaged, its input is not what it was, a format cannot hold what there is, or
        the place is taken.
    """
    directory = RunDirectory(wanted.run.absolute())
    manifest, parts = _finished(directory)
    _check_place(wanted, directory)
    if wanted.form != "webdataset":
        return _write_ids(wanted, directory, parts, manifest["counts"][wanted.what])
    if manifest["input"]["kind"] != "images":
        raise UserError(f"{wanted.run} was made of embeddings, there are no images to write: use --to txt or --to uids")
    dataset = _input(wanted, directory, manifest)
    return _write_shards(wanted, directory, manifest, parts, dataset, workers)


def _finished(directory: RunDirectory) -> tuple[dict[str, Any], list[Group]]:
    """Return the manifest and the parts of a finished run whose decisions are undamaged."""
    manifest, root = finished(directory), directory.root
    parts = groups(directory.records())
    for part in parts:
        path = directory.part("decisions", part.number)
        if not is_sealed(path, manifest.get("files", {}).get(str(path.relative_to(root)), "")):
            raise UserError(f"{path} is missing or damaged: run `fairdedup prune {root}` again")
    return manifest, parts


def _check_place(wanted: Wanted, directory: RunDirectory) -> None:
    """Refuse a place where nothing may be written."""
    place, shown = wanted.place, wanted.shown
    if "://" in (wanted.dest or ""):
        raise UserError(f"{shown} is a URL: give a local path, and copy what is written there")
    if isinstance(place, RemotePath):
        raise UserError(f"{wanted.run} is in a store, where nothing is exported to: name a local --dest")
    if place.is_relative_to(directory.root):
        raise UserError(f"{shown} lies in the run directory: choose a place outside it")
    for folder in place.parents:
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{shown} lies below a file ({str(folder)!r}): choose another place")
    if wanted.form != "webdataset" and place.is_dir():
        raise UserError(f"{shown} is a folder: name the file to write, as --dest kept{ENDINGS[wanted.form]}")
    if wanted.form == "webdataset" and place.exists() and not place.is_dir():
        raise UserError(f"{shown} is a file: choose a folder")


def _write_ids(wanted: Wanted, directory: RunDirectory, parts: list[Group], expected: int) -> dict[str, Any]:
    """Write a file of ids; one that is there is left alone, and must be the very same."""
    place = wanted.place
    write = write_lines if wanted.form == "txt" else write_uids
    aside = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        with whole(aside) as path:
            count = write(path, ids_of(directory, (part.number for part in parts), wanted.what == "kept"))
        if count != expected:
            raise FairdedupError(f"{count:,} ids, not {expected:,}, are {wanted.what}: nothing is written; report this")
        if place.exists() and not is_sealed(place, seal(aside)):
            raise UserError(f"{wanted.shown} is there, and is another file: choose another, or remove it")
        if not place.exists():
            os.replace(aside, place)
    finally:
        aside.unlink(missing_ok=True)
    return {"path": str(place), "samples": count}


def _input(wanted: Wanted, directory: RunDirectory, manifest: dict[str, Any]) -> Dataset:
    """Open the input that the run was made of."""
    asked = manifest["config"]["embed"]
    if manifest["input"]["format"] == "sample":
        source = str(directory.root / "sample")
    else:
        source = wanted.source or asked["input"]
    try:
        dataset = open_input(source, id_from=asked["id"], column=asked["column"])
    except UserError as error:
        raise UserError(
            f"the input of {wanted.run} cannot be opened ({error}); name where it is now with --input"
        ) from None
    changes = directory.changes(dataset.fingerprints)
    if changes:
        more = f" and {len(changes) - 1:,} more" if len(changes) > 1 else ""
        raise UserError(
            f"{source!r} is not the input that {wanted.run} was made of ({changes[0]}{more}): name it with --input; a "
            "copy must have the names, sizes and times of its files (cp -a)"
        )
    place = Path(source).absolute()
    if place.is_dir() and wanted.place.is_relative_to(place):
        raise UserError(f"{wanted.shown} lies in the input {source!r}: choose another place")
    return dataset


def _write_shards(
    wanted: Wanted, directory: RunDirectory, manifest: dict[str, Any], parts: list[Group], dataset: Dataset,
    workers: Workers,
) -> dict[str, Any]:  # fmt: skip
    place = wanted.place
    shards: list[Any] = list(dataset.shards)
    plan = Plan(directory.root, place, wanted.what == "kept", _made_of(wanted, manifest), find_clashing_stems(shards))
    _begin(wanted, plan)
    new = plan_shards(directory, parts, shards, plan.kept, repeat(wanted.samples))
    if wanted.most_bytes is not None:
        sizes = measure(plan, new, workers.submit)
        new = plan_shards(directory, parts, shards, plan.kept, _cuts(sizes, wanted.most_bytes))
    written = reshard(plan, new, workers.submit)
    samples = sum(shard.samples for shard in written)
    if samples != manifest["counts"][wanted.what]:
        raise FairdedupError(f"{samples:,} samples are written, not {manifest['counts'][wanted.what]:,}: report this")
    told = {
        "fairdedup": manifest["fairdedup"], "what": wanted.what, "made of": plan.made_of, "input": manifest["input"],
        "samples": samples, "shards": [asdict(shard) for shard in written],
    }  # fmt: skip
    write_json(place / "manifest.json", told)
    total = sum(int(shard.seal.split("-")[0]) for shard in written)
    return {"path": str(place), "samples": samples, "shards": len(written), "bytes": total}


def _made_of(wanted: Wanted, manifest: dict[str, Any]) -> str:
    """Return what shards depend on, as a hash: the decisions, the input, and how it is cut."""
    decisions = {name: sealed for name, sealed in manifest["files"].items() if name.startswith("decisions/")}
    cut = wanted.samples if wanted.most_bytes is None else [wanted.most_bytes]
    known = [VERSION, wanted.what, cut, manifest["input"]["fingerprint"], decisions]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _begin(wanted: Wanted, plan: Plan) -> None:
    """Take the folder, or take up again what was begun in it; refuse one that holds anything else."""
    begun = plan.record("begun")
    known = read_json(begun)
    there = sorted(p.name for p in plan.folder.iterdir()) if plan.folder.is_dir() else []
    if known is None and set(there) - {OWN}:
        raise UserError(f"{wanted.shown} holds other files ({there[0]!r}): choose a new or empty folder")
    if known is not None and known.get("made of") != plan.made_of:
        raise UserError(
            f"{wanted.shown} holds another export (of other decisions, another input or other options): choose a new "
            "folder, or remove this one"
        )
    for stale in (*plan.folder.glob(".shard-*.tmp"), *begun.parent.glob(".*.tmp")):  # what was being written
        stale.unlink(missing_ok=True)
    write_json(begun, {"made of": plan.made_of})


def _cuts(sizes: NDArray[np.int64], most: int) -> Iterator[int]:
    """Yield how many samples go into each shard, so that none but one of a single sample is a larger file."""
    ends, first = np.cumsum(sizes), 0
    most = most // RECORDSIZE * RECORDSIZE - 2 * BLOCKSIZE  # a tar ends with two blocks, and with a full record
    while first < len(sizes):
        before = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield last - first
        first = last
