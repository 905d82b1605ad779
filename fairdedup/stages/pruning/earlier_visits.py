"""The samples of earlier runs that reach clusters from other ones: listed once for a decision, then read by cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fairdedup.core.model import EarlierKept, Options
from fairdedup.core.reach import Nearby, Visits, reach_limits
from fairdedup.stages.pruning.round_files import open_visits, write_visits
from fairdedup.storage.earlier_samples import (
    LINKED,
    PLACE_BITS,
    EarlierSamples,
    list_segments,
    open_segment,
    write_rows,
)
from fairdedup.storage.run_files import release_pages
from fairdedup.storage.sealed_files import Unsealed, load_array
from fairdedup.tasks import Submit, Task

BLOCK = 1 << 14  # samples that are in memory at a time
NAME = "earlier"  # how the names of the files begin


def list_earlier_visits(root: Path, folder: Path, options: Options, eps: int, clusters: int, submit: Submit) -> None:
    """List which samples of earlier runs reach each cluster, a task for each segment.

    Parameters
    ----------
    root : Path
        Run directory.
    folder : Path
        Folder of the lists.
    options : Options
        `reach` and `reach_clusters`.
    eps : int
        Eps of the line, in ten-thousandths.
    clusters : int
        Number of clusters.
    submit : Submit
    """
    segments = list_segments(root)
    tasks = [
        Task((place, root, folder, options, eps, clusters), name=f"{segment.folder.name}, {segment.vectors.name}")
        for place, segment in enumerate(segments)
    ]
    submit("reach", list_visits_of_segment, tasks)


def list_visits_of_segment(place: int, root: Path, folder: Path, options: Options, eps: int, clusters: int) -> None:
    """List which samples of a segment reach each cluster, as places in the segment, and verify their vectors.

    Parameters
    ----------
    place : int
        Place of the segment among all.
    root, folder, options, eps, clusters
        As `list_earlier_visits` has them.
    """
    opened = open_segment(root, place, clusters)
    opened.verify()
    nearby = load_array(Unsealed(opened.segment.nearby, LINKED))
    limits = reach_limits(options.reach, opened.vectors.shape[1])
    write_visits(folder, NAME, place, Visits.of(Nearby(nearby[..., 0], nearby[..., 1]), limits, clusters, eps))
    write_rows(folder, place, opened.segment)


def open_earlier_visits(samples: EarlierSamples, folder: Path) -> list[Visits]:
    """Return the visits of each segment, as `list_earlier_visits` has written them into a folder."""
    return [open_visits(folder, NAME, place) for place in range(len(samples.segments))]


def read_earlier_visitors(samples: EarlierSamples, visits: Sequence[Visits], cluster: int) -> Iterator[EarlierKept]:
    """Yield the samples of earlier runs that reach a cluster from another one, a block at a time.

    Parameters
    ----------
    samples : EarlierSamples
        The samples of any range of clusters.
    visits : sequence of Visits
        The visits of each segment.
    cluster : int
        Number of the cluster.
    """
    for place, (segment, own) in enumerate(zip(samples.segments, visits, strict=True)):
        places = own.to(cluster)[0]
        for start in range(0, len(places), BLOCK):
            block = np.asarray(places[start : start + BLOCK])
            names = (place << PLACE_BITS) + block
            unit = np.asarray(segment.vectors[block])
            yield EarlierKept(unit, names, samples.order(names), within=samples.codes(names))
            release_pages(segment.vectors)
