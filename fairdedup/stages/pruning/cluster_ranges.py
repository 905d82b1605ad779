"""Ranges of clusters of about equal cost: what a prune task reads of a run, a cluster at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core import kmeans
from fairdedup.core.model import Cluster, EarlierKept
from fairdedup.core.part import MapParts, Visitors
from fairdedup.core.reach import Visits
from fairdedup.stages.pruning.cluster_rows import ClusterRows
from fairdedup.stages.pruning.earlier_visits import open_earlier_visits, read_earlier_visitors
from fairdedup.stages.pruning.round_files import load_arrays, open_visits_of_group, save_arrays
from fairdedup.storage.contents import Clustered
from fairdedup.storage.earlier_samples import EarlierSamples, count_kept_by_cluster
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.marks import WRITTEN, Marks
from fairdedup.storage.run_files import release_pages
from fairdedup.storage.sealed_files import Seal, Unsealed, open_array
from fairdedup.storage.shard_groups import first_rows_of_groups
from fairdedup.tasks import Result, Submit, Task

VERIFIED = "a task for each group has verified or written it in the same command, once for all ranges of clusters"
TASKS = 64  # least number of tasks, if there are as many clusters
ROWS_A_TASK = 1 << 18  # mean number of rows of a task in a large data set
ROWS_A_STEP = 1 << 16  # least mean number of rows of a task of a decision in rounds, whose steps are many and short
BLOCK = 1 << 14  # visitors of a cluster that are in memory at a time


@dataclass
class ClusterRange:
    """A range of clusters of a run: what one prune task reads, a cluster at a time.

    Attributes
    ----------
    root : Path
        Run directory.
    number : int
        Number of the task.
    first, last : int
        The range: clusters from `first` to before `last`.
    files : int
        Number of groups of shards, each with a sorted file.
    rows : int
        Number of rows that are not excluded.
    work : float
        Relative cost.
    starts : ndarray of shape (g + 1,), int64
        First row of each group of shards, and the number of input rows.
    centroids : Seal
        Centroids of the run.
    marks : Path or None
        Folder of the marks; None if no row is marked.
    against : bool
        Whether the samples that earlier runs kept are read as well.
    within : bool
        Whether rows are compared only where the values of a column are equal; their codes are in the marks.
    workspace : Path or None
        Folder of what the steps of a decision in rounds leave for later ones; None for other decisions.
    memo : dict
        Results that core/ keeps between two passes over the range.
    """

    root: Path
    number: int
    first: int
    last: int
    files: int
    rows: int
    work: float
    starts: NDArray[np.int64]
    centroids: Seal
    marks: Path | None = None
    against: bool = False
    within: bool = False
    workspace: Path | None = None
    memo: dict[Any, Any] = field(default_factory=dict)

    def task(self, *arguments: Any) -> Task:
        """Return the task that calls a function with this range and these further arguments."""
        name = f"clusters {self.first} to {self.last - 1}"
        return Task((self, *arguments), self.rows, name, self.work)

    @property
    def index(self) -> int:
        """Place of the range among all ranges."""
        return self.number

    def visitors(self, cluster: int, flags: NDArray[np.uint8], wanted: int, eps: int) -> Iterator[Visitors]:
        """Yield the rows that reach a cluster at an eps and have any of the wanted flags, a block at a time."""
        assert self.workspace is not None
        files = self.memo.get(("visits", eps))
        if files is None:
            files = self.memo["visits", eps] = [self._open_visits(eps, k) for k in range(self.files)]
        pieces: list[Visitors] = []
        room = BLOCK
        for vectors, rows, visits, marks in files:
            places, needed = visits.to(cluster)
            own = np.asarray(rows[places])
            chosen = np.flatnonzero((flags[own] & wanted) > 0)
            while len(chosen):
                block, chosen = chosen[:room], chosen[room:]
                codes = None if marks is None else np.asarray(marks[places[block]])["within"]
                pieces.append(Visitors(own[block], np.asarray(vectors[places[block]]), needed[block], codes))
                release_pages(vectors)  # of which the system maps 64 KiB around each row
                room -= len(block)
                if not room:
                    yield Visitors.join(pieces)
                    pieces, room = [], BLOCK
        if pieces:
            yield Visitors.join(pieces)

    def _open_visits(self, eps: int, number: int) -> tuple[Any, Any, Visits, Any]:
        assert self.workspace is not None
        run = RunDirectory(self.root)
        vectors, rows = (_open_sorted(run, what, number) for what in ("vectors", "rows"))
        marks = open_array(Unsealed(Marks(self.marks).path(number), WRITTEN)) if self.within else None
        return vectors, rows, open_visits_of_group(self.workspace, eps, number), marks

    def clusters_with_earlier(self) -> list[int]:
        """Return the numbers of the clusters that earlier runs kept samples of; they may have no row."""
        return self._open_earlier().clusters

    def earlier(self, cluster: int) -> EarlierKept:
        """Return the samples that earlier runs kept of a cluster."""
        return EarlierKept(*self._open_earlier().cluster(cluster, 0))

    def earlier_visitors(self, cluster: int) -> Iterator[EarlierKept]:
        """Yield the samples that earlier runs kept in other clusters and that reach a cluster, a block at a time."""
        if not self.against:
            return
        assert self.workspace is not None
        samples, visits = self._open_earlier(), self.memo.get("earlier visits")
        if visits is None:
            visits = self.memo["earlier visits"] = open_earlier_visits(samples, self.workspace)
        yield from read_earlier_visitors(samples, visits, cluster)

    def _open_earlier(self) -> EarlierSamples:
        samples = self.memo.get("earlier")
        if samples is None:
            samples = self.memo["earlier"] = EarlierSamples(
                self.root, self.first, self.last, self.workspace, within=self.within
            )
        return samples

    def save(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep arrays for a later step."""
        assert self.workspace is not None
        save_arrays(self.workspace, name, self.number, arrays)

    def load(self, name: str) -> Mapping[str, NDArray[Any]] | None:
        """Return the arrays of a name; None if there are none."""
        assert self.workspace is not None
        return load_arrays(self.workspace, name, self.number)

    def clusters(self) -> Iterator[Cluster]:
        """Yield the clusters that have a row that is not excluded, each with its rows in ascending order."""
        run = RunDirectory(self.root)
        centroids = kmeans.unit_centroids(np.asarray(open_array(self.centroids)[self.first : self.last]))
        files = []
        for k in range(self.files):
            own = np.array(_open_sorted(run, "offsets", k)[self.first : self.last + 1])
            vectors, rows = (_open_sorted(run, what, k, int(own[-1]), self.files) for what in ("vectors", "rows"))
            files.append((vectors, rows, own))
        marks = []
        if self.marks:
            paths = [Marks(self.marks).path(k) for k in range(self.files)]
            ends = [int(own[-1]) for _, _, own in files]
            marks = [open_array(Unsealed(p, WRITTEN), end, self.files) for p, end in zip(paths, ends, strict=True)]
        earlier = self._open_earlier() if self.against else None
        for number in range(self.first, self.last):
            at = number - self.first
            # Groups are in row order and each is sorted stably, so the rows of a cluster are ascending.
            slices = [(v, r, slice(int(o[at]), int(o[at + 1]))) for v, r, o in files if o[at + 1] > o[at]]
            if slices:
                cluster = Cluster(
                    number,
                    np.concatenate([r[s] for _, r, s in slices]),
                    ClusterRows([(v, s) for v, _, s in slices]),
                    centroids[number - self.first],
                )
                if marks:
                    wanted = [m[int(o[at]) : int(o[at + 1])] for m, (_, _, o) in zip(marks, files, strict=True)]
                    cluster = _apply_marks(cluster, np.concatenate(wanted), within=self.within)
                if len(cluster.rows):
                    if earlier is not None:
                        cluster = replace(cluster, earlier=EarlierKept(*earlier.cluster(number, cluster.unit.shape[1])))
                    yield cluster


def _open_sorted(run: RunDirectory, what: str, number: int, upto: int | None = None, share: int = 1) -> Any:
    return open_array(Unsealed(run.sorted(what, number), VERIFIED), upto, share)


def _apply_marks(cluster: Cluster, marks: NDArray[Any], *, within: bool) -> Cluster:
    """Return a cluster without its excluded rows, with the marks of the others."""
    stays = np.flatnonzero(~marks["excluded"])
    assert isinstance(cluster.unit, ClusterRows)
    return replace(
        cluster,
        rows=cluster.rows[stays],
        unit=cluster.unit.take(stays),
        protected=marks["protected"][stays],
        values=marks["value"][stays],
        within=marks["within"][stays] if within else None,
    )


class SplitClusters(NamedTuple):
    """The clusters of a run, split for tasks.

    Attributes
    ----------
    ranges : list of ClusterRange
        Ranges of about equal cost.
    must_keep_one : int
        Number of clusters of which a sweep always keeps a row: they have a row that is not excluded, no protected row,
        and no sample that earlier runs kept.
    without_rows : list of ClusterRange
        Ranges that have no row, and samples that earlier runs kept.
    """

    ranges: list[ClusterRange]
    must_keep_one: int
    without_rows: list[ClusterRange]


def split_clusters(
    clustered: Clustered, marks: Marks, *, against: bool = False, within: bool = False, workspace: Path | None = None
) -> SplitClusters:
    """Split the clusters into ranges of about equal n^2, which is what a sweep costs.

    Parameters
    ----------
    clustered : Clustered
    marks : Marks
    against : bool
        Whether samples that earlier runs kept take part.
    within : bool
        Whether rows are compared only where the values of a column are equal.
    workspace : Path, optional
        Folder of what the steps of a decision in rounds leave for later ones.
    """
    root, groups = clustered.directory.root, clustered.groups
    starts = first_rows_of_groups(groups)
    sizes = clustered.sizes - marks.excluded
    before = count_kept_by_cluster(root, len(sizes)) if against else np.zeros(len(sizes), np.int64)
    each = sizes.astype(np.float64) ** 2 + sizes + (before if workspace is not None else 0)
    work = np.cumsum(each)
    least = TASKS if workspace is None else min(TASKS, int(sizes.sum()) // ROWS_A_STEP + 1)
    tasks = min(len(sizes), max(least, int(sizes.sum()) // ROWS_A_TASK))
    cuts = np.searchsorted(work, np.linspace(0, work[-1], tasks + 1)[1:-1], side="right")
    bounds = np.unique(np.concatenate(([0], cuts, [len(sizes)])))
    spans = [(int(a), int(b)) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
    spans.sort(key=lambda span: not sizes[span[0] : span[1]].any())  # those with rows first, each in order
    with_rows = sum(bool(sizes[a:b].any()) for a, b in spans)
    parts = [
        ClusterRange(
            root=root,
            number=k,
            first=a,
            last=b,
            files=len(groups),
            rows=int(sizes[a:b].sum()),
            work=float(each[a:b].sum()),
            starts=starts,
            centroids=clustered.centroids,
            marks=marks.folder,
            against=against,
            within=within,
            workspace=workspace,
        )
        for k, (a, b) in enumerate(spans)
    ]
    must_keep_one = int(np.count_nonzero((sizes > 0) & (np.asarray(marks.protected) + before == 0)))
    without_rows = [part for part in parts[with_rows:] if before[part.first : part.last].any()]
    return SplitClusters(parts[:with_rows], must_keep_one, without_rows)


def _map(
    submit: Submit,
    step: str,
    function: Callable[..., Result],
    parts: Sequence[ClusterRange],
    *args: Any,
    own: Sequence[Any] | None = None,
) -> list[Result]:
    given = [args if own is None else (own[k], *args) for k in range(len(parts))]
    tasks = [part.task(function, *each) for part, each in zip(parts, given, strict=True)]
    return submit(step, call_and_forget, tasks)


def call_and_forget(part: ClusterRange, function: Callable[..., Result], *args: Any) -> Result:
    """Return ``function(part, *args)``, and empty the memo: Dask keeps the arguments of a task until its step ends."""
    try:
        return function(part, *args)
    finally:
        part.memo.clear()


def make_map_parts(submit: Submit) -> MapParts:
    """Return a function that maps the steps of core/ over cluster ranges."""
    return partial(_map, submit)
