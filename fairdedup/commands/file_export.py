"""The part of `fairdedup export` that reads the input: shards, trees of files, and Parquet with the images in it.

A stopped export is resumed by the same command. What is in the place of an export is never overwritten.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import repeat
from pathlib import Path
from tarfile import BLOCKSIZE, RECORDSIZE
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.commands.export_options import ExportOptions, ExportResult
from fairdedup.datasets import Dataset, open_input
from fairdedup.datasets.originals import find_clashing_stems
from fairdedup.errors import FairdedupError, UserError, format_count
from fairdedup.preparation.run_input import recognise_renamed
from fairdedup.stages.sample_export.export_plan import OWN, Plan, Written, plan_shards
from fairdedup.stages.sample_export.folder_export import has_files_to_link, write_tree
from fairdedup.stages.sample_export.hf_export import write_dataset
from fairdedup.stages.sample_export.tar_export import measure_samples, write_shards
from fairdedup.storage.checked_json import read_json, write_json
from fairdedup.storage.config_record import describe_input_changes
from fairdedup.storage.kept_samples import STANDS_FOR, name_collected
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import RunManifest
from fairdedup.storage.remedies import MAKE_AGAIN
from fairdedup.storage.result_files import result_part
from fairdedup.storage.sealed_files import read_schema
from fairdedup.storage.shard_groups import Group
from fairdedup.workers import Workers

VERSION = 1  # raise it when the same samples give files with other bytes
NO_INPUT = "--to txt, csv and uids need no input"
_STALE = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")  # what a write that was stopped leaves


@dataclass(frozen=True)
class Exported:
    """A finished run that is exported.

    Attributes
    ----------
    directory : RunDirectory
    manifest : RunManifest
    parts : list of Group
        Groups of all embedding shards.
    """

    directory: RunDirectory
    manifest: RunManifest
    parts: list[Group]


@dataclass(frozen=True)
class _Files:
    """What was written: the number of samples, and each file of a form that has records of them."""

    samples: int
    written: list[Written] = field(default_factory=list)


def reads_kept(options: ExportOptions, manifest: RunManifest) -> bool:
    """Tell whether an export reads kept/.

    Parameters
    ----------
    options : ExportOptions
    manifest : RunManifest
    """
    return options.form == "hf" or bool(_list_collected(options, manifest))


def export_files(options: ExportOptions, run: Exported, workers: Workers) -> ExportResult:
    """Write the samples of a run in a form that holds their files.

    Parameters
    ----------
    options : ExportOptions
    run : Exported
    workers : Workers
        Run the tasks.

    Raises
    ------
    UserError
        If the run has no images, its input has changed, the form cannot represent the samples, or the place is taken.
    """
    manifest = run.manifest
    if manifest.input.kind != "images":
        raise UserError(f"{options.run} is a run over embeddings and has no images to write: use --to txt or --to uids")
    if options.form == "hf" and options.what != "kept":
        raise UserError(
            f"--to hf writes the columns of kept/, which removed samples are not in; got --what {options.what}: use "
            "--to webdataset, folder or csv"
        )
    dataset = _open_source(options, run.directory, manifest)
    shards: list[Any] = list(dataset.shards)
    if options.form == "folder" and not options.copy and not has_files_to_link(shards):
        raise UserError(
            f"the samples of {dataset.source!r} are not files of a local folder, so no link can lead to them: add "
            "--copy"
        )
    values = _list_values(options, run)
    seals = _list_seals(manifest, reads_kept(options, manifest))
    made_of = _hash_inputs(options, manifest, seals)
    clashing = find_clashing_stems(shards)
    plan = Plan(run.directory.root, options.place, options.what == "kept", made_of, clashing, seals, values)
    _begin_export(options, plan)
    if options.form == "webdataset":
        found = _write_shards(options, plan, run, shards, workers)
    else:
        new = plan_shards(plan, run.parts, shards, repeat(options.shard_samples))
        if options.form == "hf":
            written = write_dataset(plan, new, workers.submit)
            found = _Files(sum(each.samples for each in written), written)
        else:
            found = _Files(write_tree(plan, new, workers.submit, copy=options.copy))
    return _finish_export(options, plan, manifest, found)


def _finish_export(options: ExportOptions, plan: Plan, manifest: RunManifest, found: _Files) -> ExportResult:
    """Check the number of samples, and write the manifest, which proves that the export is complete."""
    expected = getattr(manifest.counts, options.what)
    if found.samples != expected:
        raise FairdedupError(
            f"{format_count(found.samples, 'sample was', 'samples were')} written, not {expected:,}: please report "
            "this bug"
        )
    record = {
        "fairdedup": manifest.fairdedup,
        "what": options.what,
        "made of": plan.made_of,
        "input": manifest.input.model_dump(),
        "samples": found.samples,
    }
    place = plan.record("manifest")  # hidden, beside the user's own files
    if options.form == "webdataset":
        place = options.place / "manifest.json"
    if options.form == "folder":
        write_json(place, record)
        return ExportResult(path=options.place, samples=found.samples)
    write_json(place, record | {"shards": [asdict(each) for each in found.written]})
    total = sum(int(each.seal.split("-")[0]) for each in found.written)
    return ExportResult(path=options.place, samples=found.samples, shards=len(found.written), bytes=total)


def _open_source(options: ExportOptions, directory: RunDirectory, manifest: RunManifest) -> Dataset:
    """Open the input of the run."""
    config = manifest.config["embed"]
    drawn = manifest.input.format == "sample"
    source: str = str(directory.root / "sample") if drawn else options.source or config["input"]
    try:
        dataset = open_input(source, id_from=config["id"], column=config["column"], skip_damaged=True)
    except UserError as error:
        remedy = MAKE_AGAIN if drawn else f"name its new place with --input; {NO_INPUT}"
        raise UserError(f"the input of {options.run} cannot be opened ({error}); {remedy}") from None
    dataset = recognise_renamed(directory, dataset)
    changes = describe_input_changes(directory, dataset.fingerprints)
    if changes:
        more = f" and {len(changes) - 1:,} more" if len(changes) > 1 else ""
        if drawn:
            raise UserError(f"the sample in {source} has changed ({changes[0]}{more}): {MAKE_AGAIN}")
        raise UserError(
            f"{source!r} is not the input of {options.run} ({changes[0]}{more}): name it with --input; a copy must "
            f"have the same file names, sizes and times (cp -a); {NO_INPUT}"
        )
    place = Path(source).absolute()
    if place.is_dir() and options.place.is_relative_to(place):
        raise UserError(f"{options.shown} is in the input {source!r}: choose another place")
    return dataset


def _write_shards(options: ExportOptions, plan: Plan, run: Exported, shards: list[Any], workers: Workers) -> _Files:
    """Write tar shards, as large as the options say."""
    new = plan_shards(plan, run.parts, shards, repeat(options.shard_samples))
    if options.shard_bytes is not None:
        sizes = measure_samples(plan, new, workers.submit)
        new = plan_shards(plan, run.parts, shards, _cut_by_size(sizes, options.shard_bytes))
    written = write_shards(plan, new, workers.submit)
    return _Files(sum(each.samples for each in written), written)


def _hash_inputs(options: ExportOptions, manifest: RunManifest, seals: dict[str, str]) -> str:
    """Return a hash of all that the files depend on: decisions, values, the input, the form, and the size of shards."""
    cut = options.shard_samples if options.shard_bytes is None else [options.shard_bytes]
    known = [VERSION, options.what, cut, manifest.input.fingerprint, seals]
    if options.form != "webdataset":
        known += [options.form, options.copy]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _list_collected(options: ExportOptions, manifest: RunManifest) -> tuple[str, ...]:
    """Return the columns of kept/ that are added to the `.json` of samples: none where no column is collected."""
    collect = manifest.config.get("prune", {}).get("collect") or ()
    if options.form != "webdataset" or options.what != "kept" or not collect:
        return ()
    return (STANDS_FOR, *map(name_collected, collect))


def _list_values(options: ExportOptions, run: Exported) -> tuple[str, ...]:
    """Return the columns of kept/ that are written with each sample."""
    if options.form != "hf":
        return _list_collected(options, run.manifest)
    first = result_part(run.directory, "kept", run.parts[0].number, run.manifest.files)
    return tuple(read_schema(first).names)


def _list_seals(manifest: RunManifest, with_kept: bool) -> dict[str, str]:
    """Return the seals of the parts of the run that are exported."""
    folders = ("decisions/", "kept/") if with_kept else ("decisions/",)
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
    _remove_stale(plan)
    write_json(begun, {"made of": plan.made_of})


def _remove_stale(plan: Plan) -> None:
    """Remove the temporary files that a stopped export has left in its folder."""
    found: list[Path] = [*plan.folder.glob(".shard-*.tmp"), *plan.folder.rglob(".*.tmp")]
    for path in found:
        if path.name.startswith(".shard-") or _STALE.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _cut_by_size(sizes: NDArray[np.int64], most: int) -> Iterator[int]:
    """Yield the number of samples of each shard. Only a shard of a single sample may exceed `most` bytes."""
    ends, first = np.cumsum(sizes), 0
    most = most // RECORDSIZE * RECORDSIZE - 2 * BLOCKSIZE  # a tar ends with two blocks, and with a full record
    while first < len(sizes):
        before = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield last - first
        first = last
