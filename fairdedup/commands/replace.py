"""`fairdedup replace`: removes samples that no longer exist from a finished run, and promotes others instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fairdedup.config import RunConfig
from fairdedup.datasets.ids import read_ids
from fairdedup.incremental.lineage import check_run_state, read_stale_state, renew_run_state
from fairdedup.preparation.kept_columns import find_kept_columns
from fairdedup.stages.pruning import measure_leftover
from fairdedup.stages.replacement import complete_replacement, replace
from fairdedup.stages.sample_shares import check_sample_labels, measure_sample_shares
from fairdedup.storage.contents import Embedded, load_clustered, load_embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import RunManifest, read_manifest, require_manifest, write_manifest
from fairdedup.storage.state_directory import StateDirectory
from fairdedup.workers import Workers


def replace_in_run(config: RunConfig, vanished: Path, workers: Workers) -> RunManifest:
    """Remove vanished samples from a finished run, promote others, and return the new manifest.

    Parameters
    ----------
    config : RunConfig
        Names the run directory.
    vanished : Path
        File of the ids of samples that no longer exist.
    workers : Workers
        Run the tasks of the replacement.

    Raises
    ------
    UserError
        If the run is not finished, a file of it is damaged, or the list cannot be read. Nothing is changed then.
    """
    directory = RunDirectory(config.out.absolute())
    read_ids(vanished, "--gone")  # before workers are started
    complete_stopped_replacement(directory, workers)
    manifest = require_manifest(directory)
    check_run_state(directory, manifest)
    if manifest.input.format == "sample":
        check_sample_labels(directory)
    embedded = load_embedded(directory, workers.submit, ["metadata"])  # their schema is that of kept/
    load_clustered(embedded, workers.submit)  # the state is made of them once the decisions are replaced
    columns = find_kept_columns(embedded, manifest)
    return _update_dependents(embedded, replace(embedded, manifest, vanished, columns, workers.submit), workers)


def complete_stopped_replacement(directory: RunDirectory, workers: Workers) -> None:
    """Complete a replacement that was stopped, with the state for later runs.

    Parameters
    ----------
    directory : RunDirectory
        Directory of the run.
    workers : Workers
        Run the tasks of the stages.
    """
    complete_replacement(directory)
    manifest = read_manifest(directory)
    if manifest is not None and StateDirectory(directory.root).stale.is_file():
        _update_dependents(load_embedded(directory), manifest, workers)


def _update_dependents(embedded: Embedded, manifest: RunManifest, workers: Workers) -> RunManifest:
    """Write again what depends on the decisions after a replacement, and return the manifest."""
    state, update = read_stale_state(embedded.directory), dict[str, Any]()
    if state is not None:  # the decisions have changed
        sealed = {f"state/{name}": value for name, value in state.list_files().items()}
        known = manifest.model_copy(update={"files": {**manifest.files, **sealed}})
        update["leftover"] = measure_leftover(embedded, known, workers.submit, line_eps=state.eps)
    if manifest.input.format == "sample":
        update["shares"] = measure_sample_shares(embedded.directory, manifest.files)
    if update:
        manifest = manifest.model_copy(update=update)
        write_manifest(embedded.directory, manifest)
    return renew_run_state(embedded, manifest, workers.submit)
