"""Opens the input of a run: the data set that is named, or the built-in sample, which is drawn first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fairdedup.config import RunConfig
from fairdedup.datasets import Dataset, open_input
from fairdedup.datasets.renamed_file import restore_names
from fairdedup.errors import UserError
from fairdedup.storage.config_record import read_config_record, read_input_fingerprints
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.object_stores import RemotePath
from fairdedup.storage.remedies import quote
from fairdedup.tasks import Task
from fairdedup.workers import Workers

PICTURES_A_TASK = 200


def open_run_input(config: RunConfig, directory: RunDirectory, workers: Workers, *, anew: bool = False) -> Dataset:
    """Open the input that the configuration names; draw and open the built-in sample if it names none.

    Parameters
    ----------
    config : RunConfig
        Names the input, or none.
    directory : RunDirectory
        Directory of the run, into which the sample is drawn.
    workers : Workers
        Draw the sample; their progress gets the messages.
    anew : bool
        Whether the run begins anew, so that the names that it knew do not matter.

    Raises
    ------
    UserError
        If the input cannot be opened or is in the run directory, or the sample cannot be drawn there.
    """
    if config.input is None:
        return _open_sample(config, directory, workers)
    try:
        dataset = open_input(
            config.input,
            id_from=config.id,
            column=config.column,
            skip_damaged=config.skip_damaged,
            may_be_empty=bool(config.against),
        )
    except UserError as error:
        if read_config_record(directory).done.cluster is None:
            raise
        raise UserError(
            f"{error}; if the input has moved, give its new place; `fairdedup prune {quote(directory.root)}` needs no "
            "input"
        ) from None
    if dataset.lies_in(directory.root):
        raise UserError(f"INPUT {config.input!r} is in the run directory {directory.root}: choose another --out")
    return dataset if anew else recognise_renamed(directory, dataset)


def recognise_renamed(directory: RunDirectory, dataset: Dataset) -> Dataset:
    """Return an input with the names that a run knows; another than itself if it is a single file that was renamed.

    Parameters
    ----------
    directory : RunDirectory
        Directory of a run, perhaps one that is not there yet.
    dataset : Dataset
        Input that a command names.
    """
    known = read_input_fingerprints(directory)
    if known is None or known == dataset.fingerprints:
        return dataset
    return restore_names(dataset, known) or dataset


def _open_sample(config: RunConfig, directory: RunDirectory, workers: Workers) -> Dataset:
    if isinstance(directory.root, RemotePath):
        raise UserError(
            f"--out {str(directory.root)!r} without INPUT: the built-in sample is drawn on the local disk; draw it "
            "with `fairdedup sample DIR` and give DIR as INPUT"
        )
    from fairdedup.sample import draw_pictures, write_sample

    def draw(scenes: Sequence[Any]) -> list[bytes]:
        starts = range(0, len(scenes), PICTURES_A_TASK)
        parts = [scenes[start : start + PICTURES_A_TASK] for start in starts]
        drawn = workers.submit("sample", draw_pictures, [Task((part,), len(part), isolated=True) for part in parts])
        return [picture for part in drawn for picture in part]

    folder = directory.root / "sample"
    if not (folder / "README.txt").is_file():
        workers.progress.say(f"no INPUT: drawing the built-in sample into {folder}")
        write_sample(folder, draw=draw)
    opened = open_input(str(folder), id_from=config.id)
    return replace(opened, format="sample", unused={})  # the sample's own README
