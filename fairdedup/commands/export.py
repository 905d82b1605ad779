"""`fairdedup export`: writes samples of a finished run as shards, files or Parquet, or their ids as a file.

It never changes the run. It reads the input only to copy the samples: `file_export` does.
"""

from __future__ import annotations

import os
from pathlib import Path

from fairdedup.commands.export_options import ENDINGS, FOLDERS, ExportOptions, ExportResult
from fairdedup.commands.file_export import Exported, export_files, reads_kept
from fairdedup.errors import FairdedupError, UserError, format_count
from fairdedup.stages.id_export import iterate_decisions, iterate_ids, write_csv, write_lines, write_uids
from fairdedup.storage.contents import load_embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import require_manifest
from fairdedup.storage.object_stores import RemotePath
from fairdedup.storage.result_files import result_part
from fairdedup.storage.run_files import atomic_write
from fairdedup.storage.sealed_files import Seal
from fairdedup.storage.seals import is_sealed, seal
from fairdedup.workers import Workers


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
    for part in [*decisions, *(kept if reads_kept(options, manifest) else [])]:  # before anything is written
        part.verify()
    _check_place(options, directory)
    if options.form not in FOLDERS:
        return _write_ids(options, decisions, getattr(manifest.counts, options.what))
    return export_files(options, Exported(directory, manifest, parts), workers)


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
    if options.form not in FOLDERS and place.is_dir():
        raise UserError(f"{shown} is a folder: name the file to write, such as --dest kept{ENDINGS[options.form]}")
    if options.form in FOLDERS and place.exists() and not place.is_dir():
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
