"""`fairdedup export`: writes samples of a finished run as WebDataset shards, or their ids as a file.

It never changes the run. It reads the input only for WebDataset shards, to copy the samples.
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
from fairdedup.errors import FairdedupError, UserError, format_count
from fairdedup.preparation.run_input import recognise_renamed
from fairdedup.stages.id_export import iterate_decisions, iterate_ids, write_csv, write_lines, write_uids
from fairdedup.stages.tar_export import OWN, Plan, measure_samples, plan_shards, write_shards
from fairdedup.storage.checked_json import read_json, write_json
from fairdedup.storage.config_record import describe_input_changes
from fairdedup.storage.contents import load_embedded
from fairdedup.storage.kept_samples import STANDS_FOR, name_collected
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import RunManifest, require_manifest
from fairdedup.storage.object_stores import RemotePath
from fairdedup.storage.remedies import MAKE_AGAIN
from fairdedup.storage.result_files import result_part
from fairdedup.storage.run_files import atomic_write
from fairdedup.storage.sealed_files import Seal
from fairdedup.storage.seals import is_sealed, seal
from fairdedup.storage.shard_groups import Group
from fairdedup.workers import Workers

Form = Literal["webdataset", "uids", "txt", "csv"]
ENDINGS: dict[Form, str] = {"webdataset": "", "uids": ".npy", "txt": ".txt", "csv": ".csv"}
SHARD_SAMPLES = 10_000
VERSION = 1  # raise it when the same samples give shards with other bytes


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of `fairdedup export`.

    Attributes
    ----------
    run : Path
        Run directory.
    form : {"webdataset", "uids", "txt", "csv"}
        What to write: tar shards of the samples, an array of DataComp uids, one id per line, or a table of decisions.
    what : {"kept", "removed"}
        Which samples to write.
    dest : str or None
        File or folder to write, as the user gave it. None means next to the run, with its name.
    shard_samples : int
        Number of samples in each shard but the last.
    shard_bytes : int or None
        Largest size of a shard in bytes; replaces `shard_samples`. A larger sample gets a shard of its own.
    source : str or None
        Place of the input, if it has moved.
    keep_formulas : bool
        Whether cells of a CSV file that a spreadsheet would take for formulas stay as they are.
    """

    run: Path
    form: Form
    what: Literal["kept", "removed"] = "kept"
    dest: str | None = None
    shard_samples: int = SHARD_SAMPLES
    shard_bytes: int | None = None
    source: str | None = None
    keep_formulas: bool = False

    @property
    def place(self) -> Path:
        """Absolute path of the file or folder to write."""
        root = self.run.absolute()
        default = root.with_name(f"{root.name}-{self.what}{ENDINGS[self.form]}")
        return default if self.dest is None else Path(self.dest).absolute()

    @property
    def shown(self) -> str:
        """Flag and place as the user gave them, for messages."""
        return f"--dest {self.dest or str(self.place)!r}"


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """What an export wrote.

    Attributes
    ----------
    path : Path
        File or folder that was written.
    samples : int
        Number of samples or ids.
    shards, bytes : int or None
        Number of tar shards, and their total size in bytes; None for a file of ids.
    """

    path: Path
    samples: int
    shards: int | None = None
    bytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the values under the keys that `--log-json` prints."""
        known = asdict(self) | {"path": str(self.path)}
        return {name: value for name, value in known.items() if value is not None}


def export_samples(options: ExportOptions, workers: Workers) -> ExportResult:
    """Write the kept or the removed samples of a finished run, or their ids.

    Parameters
    ----------
    options : ExportOptions
        What to write, and where.
    workers : Workers
        Run the tasks that write shards.

    Raises
    ------
    UserError
        If the run is not finished or is damaged, its input has changed, the format cannot represent the ids or
        samples, or the place is taken.
    """
    directory = RunDirectory(options.run.absolute())
    manifest = require_manifest(directory)
    parts = load_embedded(directory).groups
    decisions = [result_part(directory, "decisions", part.number, manifest.files) for part in parts]
    kept = [result_part(directory, "kept", part.number, manifest.files) for part in parts]
    reads_kept = options.form == "webdataset" and _list_values(options, manifest)
    for part in [*decisions, *(kept if reads_kept else [])]:  # before the input is opened, or anything is written
        part.verify()
    _check_place(options, directory)
    if options.form != "webdataset":
        return _write_ids(options, decisions, getattr(manifest.counts, options.what))
    if manifest.input.kind != "images":
        raise UserError(f"{options.run} is a run over embeddings and has no images to write: use --to txt or --to uids")
    dataset = _open_source(options, directory, manifest)
    return _write_shards(options, directory, manifest, parts, dataset, workers)


def _check_place(options: ExportOptions, directory: RunDirectory) -> None:
    """Refuse a place where nothing may be written."""
    place, shown = options.place, options.shown
    if "://" in (options.dest or ""):
        raise UserError(f"{shown} is a URL: give a local path, and copy the result")
    if isinstance(place, RemotePath):
        raise UserError(f"{options.run} is in an object store, and an export is written locally: name a local --dest")
    if place.is_relative_to(directory.root):
        raise UserError(f"{shown} is in the run directory: choose a place outside it")
    for folder in place.parents:
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{shown} is below a file ({str(folder)!r}): choose another place")
    if options.form != "webdataset" and place.is_dir():
        raise UserError(f"{shown} is a folder: name the file to write, such as --dest kept{ENDINGS[options.form]}")
    if options.form == "webdataset" and place.exists() and not place.is_dir():
        raise UserError(f"{shown} is a file: choose a folder")


def _write_ids(options: ExportOptions, decisions: list[Seal], expected: int) -> ExportResult:
    """Write a file of ids. An existing file is not replaced: it must have exactly the same content."""
    place = options.place
    aside = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_write(aside) as path:
            count = _write_ids_to(path, options, decisions)
        if count != expected:
            raise FairdedupError(
                f"{format_count(count, 'id is', 'ids are')} {options.what}, not {expected:,}, "
                "so nothing was written: please report this bug"
            )
        if place.exists() and not is_sealed(place, seal(aside)):
            raise UserError(f"{options.shown} already exists with other content: choose another file, or remove it")
        if not place.exists():
            os.replace(aside, place)
    finally:
        aside.unlink(missing_ok=True)
    return ExportResult(path=place, samples=count)


def _write_ids_to(path: Path, options: ExportOptions, decisions: list[Seal]) -> int:
    """Write the ids in the form that is chosen, and return their number."""
    kept = options.what == "kept"
    if options.form == "csv":
        return write_csv(path, iterate_decisions(decisions, kept), keep_formulas=options.keep_formulas)
    write = write_lines if options.form == "txt" else write_uids
    return write(path, iterate_ids(decisions, kept))


def _open_source(options: ExportOptions, directory: RunDirectory, manifest: RunManifest) -> Dataset:
    """Open the input of the run."""
    config = manifest.config["embed"]
    drawn = manifest.input.format == "sample"
    source: str = str(directory.root / "sample") if drawn else options.source or config["input"]
    try:
        dataset = open_input(source, id_from=config["id"], column=config["column"], skip_damaged=True)
    except UserError as error:
        remedy = MAKE_AGAIN if drawn else "name its new place with --input; --to txt, csv and uids need no input"
        raise UserError(f"the input of {options.run} cannot be opened ({error}); {remedy}") from None
    dataset = recognise_renamed(directory, dataset)
    changes = describe_input_changes(directory, dataset.fingerprints)
    if changes:
        more = f" and {len(changes) - 1:,} more" if len(changes) > 1 else ""
        if drawn:
            raise UserError(f"the sample in {source} has changed ({changes[0]}{more}): {MAKE_AGAIN}")
        raise UserError(
            f"{source!r} is not the input of {options.run} ({changes[0]}{more}): name it with --input; a copy must "
            "have the same file names, sizes and times (cp -a); --to txt, csv and uids need no input"
        )
    place = Path(source).absolute()
    if place.is_dir() and options.place.is_relative_to(place):
        raise UserError(f"{options.shown} is in the input {source!r}: choose another place")
    return dataset


def _write_shards(
    options: ExportOptions,
    directory: RunDirectory,
    manifest: RunManifest,
    parts: list[Group],
    dataset: Dataset,
    workers: Workers,
) -> ExportResult:
    place = options.place
    shards: list[Any] = list(dataset.shards)
    made_of, clashing = _hash_shard_inputs(options, manifest), find_clashing_stems(shards)
    values, seals = _list_values(options, manifest), _list_seals(options, manifest)
    plan = Plan(directory.root, place, options.what == "kept", made_of, clashing, seals, values)
    _begin_export(options, plan)
    new = plan_shards(plan, parts, shards, repeat(options.shard_samples))
    if options.shard_bytes is not None:
        sizes = measure_samples(plan, new, workers.submit)
        new = plan_shards(plan, parts, shards, _cut_by_size(sizes, options.shard_bytes))
    written = write_shards(plan, new, workers.submit)
    samples = sum(shard.samples for shard in written)
    expected = getattr(manifest.counts, options.what)
    if samples != expected:
        raise FairdedupError(
            f"{format_count(samples, 'sample was', 'samples were')} written, not {expected:,}: please report this bug"
        )
    record = {
        "fairdedup": manifest.fairdedup,
        "what": options.what,
        "made of": plan.made_of,
        "input": manifest.input.model_dump(),
        "samples": samples,
        "shards": [asdict(shard) for shard in written],
    }
    write_json(place / "manifest.json", record)
    total = sum(int(shard.seal.split("-")[0]) for shard in written)
    return ExportResult(path=place, samples=samples, shards=len(written), bytes=total)


def _hash_shard_inputs(options: ExportOptions, manifest: RunManifest) -> str:
    """Return a hash of all that shards depend on: decisions, collected values, the input, and the size of shards."""
    cut = options.shard_samples if options.shard_bytes is None else [options.shard_bytes]
    known = [VERSION, options.what, cut, manifest.input.fingerprint, _list_seals(options, manifest)]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _list_values(options: ExportOptions, manifest: RunManifest) -> tuple[str, ...]:
    """Return the columns of kept/ that are added to the samples: none where no column is collected."""
    collect = manifest.config.get("prune", {}).get("collect") or ()
    if options.what != "kept" or not collect:
        return ()
    return (STANDS_FOR, *map(name_collected, collect))


def _list_seals(options: ExportOptions, manifest: RunManifest) -> dict[str, str]:
    """Return the seals of the parts of the run that shards are made of."""
    folders = ("decisions/", "kept/") if _list_values(options, manifest) else ("decisions/",)
    return {name: sealed for name, sealed in manifest.files.items() if name.startswith(folders)}


def _begin_export(options: ExportOptions, plan: Plan) -> None:
    """Start an export into a new or empty folder, or resume the same export; refuse a folder with other files."""
    begun = plan.record("begun")
    try:
        known = read_json(begun)
    except FairdedupError:  # damaged: nothing is known of what is there
        known = {}
    there = sorted(p.name for p in plan.folder.iterdir()) if plan.folder.is_dir() else []
    if known is None and set(there) - {OWN}:
        raise UserError(f"{options.shown} holds other files ({there[0]!r}): choose a new or empty folder")
    if known is not None and not (isinstance(known, dict) and known.get("made of") == plan.made_of):
        raise UserError(
            f"{options.shown} has another export (of other decisions, another input or other options): choose a new "
            "folder, or remove this one"
        )
    for stale in (
        *plan.folder.glob(".shard-*.tmp"),
        *begun.parent.glob(".*.tmp"),
    ):  # files that a stopped export was writing
        stale.unlink(missing_ok=True)
    write_json(begun, {"made of": plan.made_of})


def _cut_by_size(sizes: NDArray[np.int64], most: int) -> Iterator[int]:
    """Yield the number of samples of each shard. Only a shard of a single sample may exceed `most` bytes."""
    ends, first = np.cumsum(sizes), 0
    most = most // RECORDSIZE * RECORDSIZE - 2 * BLOCKSIZE  # a tar ends with two blocks, and with a full record
    while first < len(sizes):
        before = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield last - first
        first = last
