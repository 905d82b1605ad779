"""Reads small pictures of the samples that a page shows from the input of the run, one at a time.

What cannot be read is left out and said: an input that has moved or changed is no error here.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fairdedup.datasets import Dataset, open_input
from fairdedup.datasets.chosen_images import read_chosen_images
from fairdedup.datasets.images import BadImage, decode_picture
from fairdedup.datasets.renamed_file import restore_names
from fairdedup.datasets.sixteen_bit import FULL
from fairdedup.errors import FairdedupError, first_line, format_count
from fairdedup.report.report_figures import ShownSample
from fairdedup.storage.config_record import describe_input_changes, read_input_fingerprints
from fairdedup.storage.contents import Embedded
from fairdedup.storage.manifest import RunManifest

SIDE = 128  # pixels of the longer side of a thumbnail
QUALITY = 80
MOST_BYTES = 3 << 20  # of all thumbnails as text
MOVED = "If it has moved, name its place: fairdedup report RUN --input PLACE."


@dataclass
class Thumbnails:
    """Small pictures of some samples.

    Attributes
    ----------
    urls : dict of int to str
        Picture of each row, as a data URI.
    remark : str or None
        Why pictures are missing.
    """

    urls: dict[int, str] = field(default_factory=dict)
    remark: str | None = None


def read_thumbnails(
    embedded: Embedded,
    manifest: RunManifest,
    samples: dict[int, ShownSample],
    order: Iterable[int],
    *,
    seconds: float,
    source: str | None = None,
) -> Thumbnails:
    """Return pictures of samples.

    Parameters
    ----------
    embedded : Embedded
    manifest : RunManifest
    samples : dict of int to ShownSample
    order : iterable of int
        Their rows, the most important first, for the case that not all can be read.
    seconds : float
        How long reading may take.
    source : str or None
        Place of the input, if it has moved.
    """
    if manifest.input.kind != "images":
        return Thumbnails()
    known = read_input_fingerprints(embedded.directory)  # damage to it ends the command, as to any file of the run
    try:
        dataset = _open_source(embedded, manifest, source, known)
    except FairdedupError as error:
        return Thumbnails(remark=f"Pictures are not shown: the input cannot be opened ({first_line(error)}). {MOVED}")
    if isinstance(dataset, str):
        return Thumbnails(remark=dataset)
    thumbnails, ends = Thumbnails(), time.monotonic() + seconds
    rank = {row: place for place, row in enumerate(dict.fromkeys(order)) if row in samples}
    shards = _group_by_shard(embedded, rank)
    total = 0
    sources: list[Any] = list(dataset.shards)
    for shard, first, rows in shards:
        try:
            for position, name, data in read_chosen_images(sources[shard], [row - first for row in rows]):
                sample = samples[first + position]
                url = _make_url(data, manifest.input.white) if name == sample.id else None
                if url is not None and total + len(url) <= MOST_BYTES:
                    thumbnails.urls[sample.row] = url
                    total += len(url)
                if time.monotonic() > ends:
                    break
        except (FairdedupError, OSError, ValueError) as error:
            thumbnails.remark = f"Some pictures are not shown: {first_line(error)}"
        if time.monotonic() > ends:
            missing = format_count(len(rank) - len(thumbnails.urls), "sample")
            thumbnails.remark = (
                f"Pictures of {missing} are not shown, since reading them takes "
                "long here. `fairdedup report RUN` takes the time and shows all."
            )
            break
    return thumbnails


def _group_by_shard(embedded: Embedded, rank: dict[int, int]) -> list[tuple[int, int, list[int]]]:
    """Return number, first row and rows of each shard with a row to show, the most important ones first."""
    wanted, found = np.array(sorted(rank), np.int64), []
    for group in embedded.groups:
        for record, first in group.shards():
            low, high = np.searchsorted(wanted, [first, first + record.input])
            if low < high:
                rows = sorted(wanted[low:high].tolist(), key=lambda row: rank[row])
                found.append((rank[rows[0]], record.number, first, rows))
    return [(number, first, rows) for _, number, first, rows in sorted(found)]


def _open_source(
    embedded: Embedded, manifest: RunManifest, source: str | None, known: dict[str, str] | None
) -> Dataset | str:
    """Return the input of the run, or why it is not used."""
    config: dict[str, Any] = manifest.config["embed"]
    drawn = manifest.input.format == "sample"
    place: str = str(embedded.directory.root / "sample") if drawn else source or config["input"]
    dataset = open_input(place, id_from=config["id"], column=config["column"], skip_damaged=True)
    changes = describe_input_changes(embedded.directory, dataset.fingerprints)
    renamed = restore_names(dataset, known) if changes and known is not None and not drawn else None
    if renamed is not None:
        dataset, changes = renamed, []
    if changes or len(dataset.shards) != len(embedded.records):
        what = changes[0] if changes else "it has another number of shards"
        return f"Pictures are not shown: the input is not as it was when the run was made ({what}). {MOVED}"
    return dataset


def _make_url(data: bytes, white: int | None) -> str | None:
    try:
        picture = decode_picture(data, white or FULL, detail=SIDE).image
    except BadImage:
        return None
    picture.thumbnail((SIDE, SIDE), reducing_gap=2.0)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
