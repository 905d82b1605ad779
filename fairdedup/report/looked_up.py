"""Samples that a user looks up, as the page and the terminal show them: decisions and captions of a few rows."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from fairdedup.errors import first_line
from fairdedup.report.pictures import Thumbnails, read_thumbnails
from fairdedup.report.report_figures import ShownSample
from fairdedup.report.shown_rows import ROW_COLUMNS, read_details
from fairdedup.stages.named_rows import read_row_ids
from fairdedup.storage.contents import Embedded
from fairdedup.storage.manifest import RunManifest
from fairdedup.storage.result_files import result_part
from fairdedup.storage.sealed_files import load_table

LEFT_OUT = -1  # in place of a cluster
PATIENCE = 300.0  # seconds that pictures may be read for


def collect_samples(embedded: Embedded, manifest: RunManifest, rows: Iterable[int]) -> dict[int, ShownSample]:
    """Return some rows of a finished run with their decisions and captions.

    A row that was not decided, because an option leaves it out or since its sample has vanished, has the cluster
    `LEFT_OUT`.

    Parameters
    ----------
    embedded : Embedded
    manifest : RunManifest
    rows : iterable of int
        Positions in the input of samples that have vectors.
    """
    wanted, samples = np.array(sorted(set(rows)), np.int64), dict[int, ShownSample]()
    for group in embedded.groups:
        own = wanted[(wanted >= group.first) & (wanted < group.first + group.input)]
        if len(own):
            table = load_table(result_part(embedded.directory, "decisions", group.number, manifest.files), ROW_COLUMNS)
            table = table.filter(pa.array(np.isin(table.column("row").to_numpy(), own)))
            for line in table.select(ROW_COLUMNS).to_pylist():
                samples[line["row"]] = ShownSample(**line)
    missing = [row for row in wanted.tolist() if row not in samples]
    for row, name in read_row_ids(embedded, missing).items():
        samples[row] = ShownSample(row, name, False, False, LEFT_OUT, -1, None, math.nan)
    read_details(embedded, samples)
    return samples


def describe_state(sample: ShownSample) -> str:
    """Return in a word or two what became of a sample."""
    if sample.cluster == LEFT_OUT:
        return "left out"
    if sample.readmitted:
        return "re-admitted"
    return "kept" if sample.kept else "removed"


def read_pictures(
    embedded: Embedded, manifest: RunManifest, samples: dict[int, ShownSample], source: str | None
) -> Thumbnails:
    """Return small pictures of samples; what cannot be read is said in the remark.

    Parameters
    ----------
    embedded : Embedded
    manifest : RunManifest
    samples : dict of int to ShownSample
    source : str or None
        Place of the input, if it has moved.
    """
    try:
        found = read_thumbnails(embedded, manifest, samples, samples, seconds=PATIENCE, source=source)
    except OSError as error:
        return Thumbnails(remark=f"Pictures are not shown: {first_line(error)}")
    if found.remark is not None:
        found.remark = found.remark.replace("fairdedup report RUN --input PLACE", "the same command with --input PLACE")
    return found
