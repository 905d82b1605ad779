"""Reads small pictures of the samples that a page shows from the input of the run, one at a time.

What cannot be read is left out and said: an input that has moved or changed is no error here.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fairdedup.core.row_hash import row_hash
from fairdedup.datasets import Dataset, open_input
from fairdedup.datasets.chosen_images import read_chosen_images
from fairdedup.datasets.images import BadImage, decode_picture
from fairdedup.datasets.renamed_file import restore_names
from fairdedup.datasets.sixteen_bit import FULL
from fairdedup.errors import FairdedupError, UserError, first_line, format_count
from fairdedup.report.report_figures import EmbeddingMap, ShownSample
from fairdedup.storage.config_record import describe_input_changes, read_input_fingerprints
from fairdedup.storage.contents import Embedded
from fairdedup.storage.manifest import RunManifest

SIDE = 128  # pixels of the longer side of a thumbnail
QUALITY = {"JPEG": 80, "WEBP": 55}
MOST_BYTES = 3 << 20  # of all thumbnails as text
SMALL_SIDE, MOST_SMALL, MOST_SMALL_BYTES = 32, 5_000, 3 << 20  # of the pictures of points of the map
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
    small : dict of int to str
        Small picture of each row of the map that is in no other place: WebP as base64.
    """

    urls: dict[int, str] = field(default_factory=dict)
    remark: str | None = None
    small: dict[int, str] = field(default_factory=dict)


def choose_pictured(points: EmbeddingMap | None) -> dict[int, str]:
    """Return the rows of the map that get a small picture, and their ids: a seeded sample, if there are many.

    Parameters
    ----------
    points : EmbeddingMap or None
    """
    if points is None or points.ids is None:
        return {}
    order = np.argsort(row_hash(points.rows, 2), kind="stable")[:MOST_SMALL]
    return {int(points.rows[k]): points.ids[k] for k in order.tolist()}


def read_thumbnails(
    embedded: Embedded,
    manifest: RunManifest,
    samples: dict[int, ShownSample],
    order: Iterable[int],
    *,
    seconds: float,
    source: str | None = None,
    points: Mapping[int, str] | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Thumbnails:
    """Return pictures of samples, and in the time that is left small ones of points of the map.

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
    points : mapping of int to str, or None
        Rows of the map and their ids, the most important first.
    advance : callable
        Called after each picture.

    Raises
    ------
    UserError
        If the input is not at the place that `source` names.
    """
    if manifest.input.kind != "images":
        return Thumbnails()
    known = read_input_fingerprints(embedded.directory)  # damage to it ends the command, as to any file of the run
    try:
        dataset = _open_source(embedded, manifest, source, known)
    except FairdedupError as error:
        if source is not None:
            raise
        return Thumbnails(remark=f"Pictures are not shown: the input cannot be opened ({first_line(error)}). {MOVED}")
    if isinstance(dataset, str):
        if source is not None:
            raise UserError(f"--input {source!r} is not the input of the run: {dataset}. Name its place.")
        return Thumbnails(remark=f"Pictures are not shown: the input is not as it was ({dataset}). {MOVED}")
    reader = _PictureReader(embedded, dataset, manifest.input.white, time.monotonic() + seconds, advance)
    names = {row: samples[row].id for row in order if row in samples}
    urls = {row: f"data:image/jpeg;base64,{text}" for row, text in reader.read(names, SIDE, "JPEG", MOST_BYTES)}
    remark = reader.remark
    if reader.is_late:
        missing = format_count(len(names) - len(urls), "sample")
        remark = (
            f"Pictures of {missing} are not shown, since reading them takes "
            "long here. `fairdedup report RUN` takes the time and shows all."
        )
    others = {row: name for row, name in (points or {}).items() if row not in urls}
    return Thumbnails(urls, remark, dict(reader.read(others, SMALL_SIDE, "WEBP", MOST_SMALL_BYTES)))


@dataclass
class _PictureReader:
    """Reads pictures of the input until it is late.

    Attributes
    ----------
    embedded : Embedded
    dataset : Dataset
        The input.
    white : int or None
        White of 16-bit pictures.
    ends : float
        When reading ends, by the monotonic clock.
    advance : callable
        Called after each picture.
    remark : str or None
        Why some could not be read.
    """

    embedded: Embedded
    dataset: Dataset
    white: int | None
    ends: float
    advance: Callable[[], None]
    remark: str | None = None

    @property
    def is_late(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self.ends

    def read(self, names: Mapping[int, str], side: int, kind: str, most: int) -> Iterator[tuple[int, str]]:
        """Yield rows and their pictures as base64, of at most `most` characters together.

        Parameters
        ----------
        names : mapping of int to str
            Rows and their ids, the most important first.
        side : int
            Pixels of the longer side.
        kind : {"JPEG", "WEBP"}
        most : int
        """
        rank = {row: place for place, row in enumerate(names)}
        sources: list[Any] = list(self.dataset.shards)
        total = 0
        for shard, first, rows in _group_by_shard(self.embedded, rank):
            if self.is_late:
                return
            try:
                for position, name, data in read_chosen_images(sources[shard], [row - first for row in rows]):
                    row = first + position
                    text = _shrink(data, self.white, side, kind) if name == names[row] else None
                    if text is not None and total + len(text) <= most:
                        total += len(text)
                        yield row, text
                    self.advance()
                    if self.is_late:
                        return
            except (FairdedupError, OSError, ValueError) as error:
                self.remark = f"Some pictures are not shown: {first_line(error)}"


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
    """Return the input of the run, or what of it is not as it was when the run was made."""
    config: dict[str, Any] = manifest.config["embed"]
    drawn = manifest.input.format == "sample"
    place: str = str(embedded.directory.root / "sample") if drawn else source or config["input"]
    dataset = open_input(place, id_from=config["id"], column=config["column"], skip_damaged=True)
    changes = describe_input_changes(embedded.directory, dataset.fingerprints)
    renamed = restore_names(dataset, known) if changes and known is not None and not drawn else None
    if renamed is not None:
        dataset, changes = renamed, []
    if changes or len(dataset.shards) != len(embedded.records):
        return changes[0] if changes else "it has another number of shards"
    return dataset


def _shrink(data: bytes, white: int | None, side: int, kind: str) -> str | None:
    """Return a small picture as base64; None where the file cannot be decoded."""
    try:
        picture = decode_picture(data, white or FULL, detail=side).image
    except BadImage:
        return None
    picture.thumbnail((side, side), reducing_gap=2.0)
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=QUALITY[kind])
    return base64.b64encode(buffer.getvalue()).decode()
