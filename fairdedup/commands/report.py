"""`fairdedup report`: writes report/index.html of a finished run, a page that shows what was kept and what was removed.

It changes nothing else of the run. `fairdedup run` and the other commands that decide make the page too.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from fairdedup.commands.replace import complete_stopped_replacement
from fairdedup.config import RunConfig
from fairdedup.errors import first_line
from fairdedup.report.gather import gather_figures
from fairdedup.report.leftover_summary import describe_leftover, describe_removed, list_guarantees, list_remedies
from fairdedup.report.page import render_page
from fairdedup.report.pictures import Thumbnails, choose_pictured, read_thumbnails
from fairdedup.report.report_figures import ReportFigures
from fairdedup.storage.contents import load_clustered, load_embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import PAGE, RunManifest, require_manifest
from fairdedup.storage.run_files import atomic_write
from fairdedup.tasks import Submit
from fairdedup.workers import Workers

STAGE, PICTURES = "report", "pictures"  # their names in the times of the command
PATIENCE = 300.0  # seconds that the command may read pictures for
IN_PROCESS = 50_000  # samples up to which counting groups here is quicker than starting workers
HASTE, SHARE = 2.0, 0.02  # seconds that a run may spend on them, or this share of its own time if that is more


def write_page(config: RunConfig, workers: Workers, *, source: str | None = None) -> Path:
    """Write the page about a finished run, and return its path.

    Parameters
    ----------
    config : RunConfig
        Names the run, and says whether to show pictures of samples.
    workers : Workers
        Run the counting of groups, if there are many samples.
    source : str or None
        Place of the input, if it has moved.

    Raises
    ------
    UserError
        If the run is not finished, or a file of it is missing or damaged.
    """
    directory = RunDirectory(config.out.absolute())
    complete_stopped_replacement(directory, workers)
    manifest = require_manifest(directory)
    submit = workers.submit if manifest.counts.valid > IN_PROCESS else None
    with workers.progress.stage(STAGE, 1, "page", is_listed=False):
        _write(directory, manifest, submit, workers, seconds=PATIENCE if config.images else 0.0, source=source)
    return config.out / "report" / PAGE


def make_page(config: RunConfig, workers: Workers, *, again: bool = True) -> Path | None:
    """Write the page about a run that has just finished, and return its path; a failure is only a warning.

    Parameters
    ----------
    config : RunConfig
        Names the run, and says whether to show pictures of samples.
    workers : Workers
        Run the counting of groups.
    again : bool
        Whether a page that is there is made again; one without pictures always is, since it may have some.
    """
    directory = RunDirectory(config.out.absolute())
    page = config.out / "report" / PAGE
    try:
        if again or not config.images or not directory.report(PAGE).is_file():
            manifest = require_manifest(directory)
            took = sum(stage.seconds for stage in manifest.stages.values())
            seconds = max(HASTE, SHARE * took) if config.images else 0.0
            with workers.progress.stage(STAGE, 1, "page", is_listed=False):
                _write(directory, manifest, workers.submit, workers, seconds=seconds, source=None)
    except Exception as error:  # whatever it is, the run itself is finished
        workers.progress.say(f"warning: {page} could not be made ({first_line(error)}); `fairdedup report` tries again")
        return None
    return page


def _write(
    directory: RunDirectory,
    manifest: RunManifest,
    submit: Submit | None,
    workers: Workers,
    *,
    seconds: float,
    source: str | None,
) -> None:
    clustered = load_clustered(load_embedded(directory))
    figures = gather_figures(clustered, manifest, submit)
    thumbnails = Thumbnails()
    if seconds and manifest.input.kind == "images":
        points = choose_pictured(figures.map)
        total = len(figures.samples.keys() | points.keys())
        with workers.progress.stage(PICTURES, total, "pictures") as reading:
            thumbnails = read_thumbnails(
                clustered.embedded,
                manifest,
                figures.samples,
                _order_rows(figures),
                seconds=seconds,
                source=source,
                points=points,
                advance=lambda: reading.advance(1),
            )
    left = manifest.leftover
    sentences = [] if left is None else [*describe_leftover(left, manifest.counts.readmitted), *list_remedies(manifest)]
    page = render_page(
        figures,
        thumbnails,
        leftover=sentences,
        guarantees=list_guarantees(manifest),
        removed=describe_removed(manifest) or "",
    )
    with atomic_write(directory.report(PAGE)) as aside:
        aside.write_text(page, encoding="utf-8", errors="backslashreplace")


def _order_rows(figures: ReportFigures) -> Iterator[int]:
    """Yield the rows that the page shows, the most important first: gallery and borderline take turns."""
    hoods = ((each.row, *(row for row, _ in each.members)) for each in figures.gallery)
    pairs = ((pair.first, pair.second) for band in figures.bands for pair in band.pairs)
    for several in zip_longest(hoods, pairs, fillvalue=()):
        for rows in several:
            yield from rows
    yield from figures.outliers
