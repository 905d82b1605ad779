"""The third stage: the decision of core/ over files, a task for each range of clusters of about equal n^2.

Decisions go to disk task by task; what travels back is small statistics and, for re-admission, the removed rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.core import kmeans
from fairdedup.core.decision import Decision, decide
from fairdedup.core.decision_columns import RECORD
from fairdedup.core.model import Cluster, EarlierKept, Inherited, Options, Plan
from fairdedup.core.moments import MembershipMoments, shares
from fairdedup.core.parts import Decided, decide_part
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.survey import find_memberships, survey_memberships
from fairdedup.core.uncertainty import LEAST_INFORMATIVE, is_uninformative
from fairdedup.errors import UserError
from fairdedup.storage.layout import RunDirectory, groups
from fairdedup.storage.marks import Marks
from fairdedup.storage.run_files import read_array, read_json, release, write_array
from fairdedup.storage.run_state import EarlierSamples, kept_per_cluster

TASKS = 64  # at least, where there are so many clusters
LARGE = 1 << 25  # bytes of a cluster
ROWS_A_TASK = 1 << 18  # on average, in a large data set


@dataclass
class ClusterRange:
    """A range of clusters of a run: what one prune task reads, a cluster at a time."""

    root: Path
    number: int
    first: int
    last: int
    files: int
    rows: int
    work: float
    starts: NDArray[np.int64]  # the row at which each group of shards begins, and behind them the number of rows
    marks: Path | None = None
    beside: bool = False  # what earlier runs kept
    memo: dict[Any, Any] = field(default_factory=dict)

    def clusters(self) -> Iterator[Cluster]:
        """Yield the clusters that hold a row that is not excluded, rows ascending."""
        run = RunDirectory(self.root)
        centroids = kmeans.unit_centroids(np.asarray(read_array(run.centroids)[self.first : self.last]))
        files = []
        for k in range(self.files):
            own = np.array(read_array(run.sorted("offsets", k))[self.first : self.last + 1])
            vectors, rows = (read_array(run.sorted(what, k), int(own[-1]), self.files) for what in ("vectors", "rows"))
            files.append((vectors, rows, own))
        marks = (
            [read_array(Marks(self.marks).path(k), int(files[k][2][-1]), self.files) for k in range(self.files)]
            if self.marks else []
        )  # fmt: skip
        beside = EarlierSamples(self.root, self.first, self.last) if self.beside else None
        for number in range(self.first, self.last):
            at = number - self.first
            # Groups stand in row order and are sorted stably, so the rows of a cluster come out ascending.
            slices = [(v, r, slice(int(o[at]), int(o[at + 1]))) for v, r, o in files if o[at + 1] > o[at]]
            if slices:
                cluster = Cluster(
                    number,
                    np.concatenate([r[s] for _, r, s in slices]),
                    np.concatenate([v[s] for v, _, s in slices]),
                    centroids[number - self.first],
                )
                if cluster.unit.nbytes > LARGE:  # it is a copy: what was read for it need not be held beside it
                    for vectors, _, _ in files:
                        release(vectors)
                if marks:
                    wanted = [m[int(o[at]) : int(o[at + 1])] for m, (_, _, o) in zip(marks, files, strict=True)]
                    cluster = _curated(cluster, np.concatenate(wanted))
                if len(cluster.rows):
                    if beside is not None:
                        cluster = replace(cluster, earlier=EarlierKept(*beside.cluster(number, cluster.unit.shape[1])))
                    yield cluster


def _curated(cluster: Cluster, marks: NDArray[Any]) -> Cluster:
    """Leave the excluded rows out, and add what is asked of the others."""
    stays = ~marks["excluded"]
    return replace(
        cluster, rows=cluster.rows[stays], unit=cluster.unit[stays], protected=marks["protected"][stays],
        values=marks["value"][stays],
    )  # fmt: skip


@dataclass
class Stored(Decided):
    """What is left in memory of decisions that have been written, by row.

    Attributes
    ----------
    bounds : ndarray of shape (g + 1,), int64
        Where the rows of each group of shards begin among them.
    """

    bounds: NDArray[np.int64]


def decide_and_store(part: ClusterRange, eps: int, plan: Plan) -> Stored:
    """Decide a range of clusters, write its decisions by row, and return what re-admission needs."""
    decided = decide_part(part, eps, plan)
    order = np.argsort(decided.columns["row"])
    records = np.empty(len(order), RECORD)
    for name in RECORD.names or ():
        records[name] = decided.columns[name][order]
    write_array(RunDirectory(part.root).decided(part.number), records)
    return Stored(**{**vars(decided), "columns": {}}, bounds=np.searchsorted(records["row"], part.starts))


def cluster_ranges(run: RunDirectory, marks: Marks, beside: bool = False) -> tuple[list[ClusterRange], int]:
    """Split the clusters into ranges of about equal n^2; return them and how many clusters a sweep keeps a row of.

    These hold a row that is not excluded, no protected one and, `beside` earlier runs, nothing that they kept.

    Raises
    ------
    UserError
        If the clustering has not finished here.
    """
    known = read_json(run.sizes)
    if known is None:
        raise UserError(f"{run.root} holds no finished clustering: run `fairdedup cluster {run.root}` first")
    parted = groups(run.records())
    starts = np.array([g.first for g in parted] + [parted[-1].first + parted[-1].input if parted else 0], np.int64)
    sizes = np.array(known, np.int64) - marks.excluded
    each = sizes.astype(np.float64) ** 2 + sizes
    work = np.cumsum(each)
    tasks = min(len(sizes), max(TASKS, int(sizes.sum()) // ROWS_A_TASK))
    cuts = np.searchsorted(work, np.linspace(0, work[-1], tasks + 1)[1:-1], side="right")
    bounds = np.unique(np.concatenate(([0], cuts, [len(sizes)])))
    spans = [(int(a), int(b)) for a, b in zip(bounds[:-1], bounds[1:], strict=True) if sizes[a:b].sum()]
    parts = [
        ClusterRange(
            run.root, k, a, b, len(parted), int(sizes[a:b].sum()), float(each[a:b].sum()), starts, marks.folder, beside
        )
        for k, (a, b) in enumerate(spans)
    ]
    held = np.asarray(marks.protected) + (kept_per_cluster(run.root, len(sizes)) if beside else 0)
    return parts, int(np.count_nonzero((sizes > 0) & (held == 0)))


def prune(
    run: RunDirectory,
    options: Options,
    prototypes: Prototypes | None,
    amount: dict[str, Any],
    submit: Callable[..., list[Any]],
    marks: Marks,
    inherited: Inherited | None = None,
) -> tuple[Decision, list[ClusterRange]]:
    """Decide which rows of a clustered run are kept.

    Parameters
    ----------
    amount : dict
        One of keep, at_most (fractions) and eps (ten-thousandths).
    marks : Marks
        Which rows take no part, and which are always kept.
    inherited : Inherited, optional
        From earlier runs, whose kept samples state/ holds.

    Returns
    -------
    decision : Decision
    parts : list of ClusterRange
        Those whose decisions lie in ``decisions/_tasks``.
    """
    parts, clusters = cluster_ranges(run, marks, inherited is not None)
    map_parts = run_over(submit)
    decision = decide(
        parts, clusters, options, prototypes, map_parts, **amount, decide_step=decide_and_store,
        protected=marks.always_kept, inherited=inherited,
    )  # fmt: skip
    return decision, parts


def _map(
    submit: Callable[..., list[Any]], step: str, function: Callable[..., Any], parts: Any, *args: Any
) -> list[Any]:
    return submit(step, function, [(part, *args) for part in parts], *_told(parts))


def _told(parts: Sequence[ClusterRange]) -> tuple[list[int], list[str], list[float]]:
    """Return what `submit` is told of the tasks of some parts: their rows, names and work."""
    names = [f"clusters {part.first} to {part.last - 1}" for part in parts]
    return [part.rows for part in parts], names, [part.work for part in parts]


def kept_memberships(
    part: ClusterRange, prototypes: Prototypes, temperatures: tuple[float, ...], readmitted: NDArray[np.int64]
) -> list[tuple[int, ...]]:
    """Return each attribute's memberships summed over the kept rows of a part, in units of 1e-9.

    Parameters
    ----------
    part : ClusterRange
    prototypes : Prototypes
    temperatures : tuple of float
    readmitted : ndarray of shape (r,), int64
        The re-admitted rows of this part.
    """
    decided = np.asarray(read_array(RunDirectory(part.root).decided(part.number)))
    rows, kept = np.array(decided["row"]), np.array(decided["kept"])  # (n,), rows ascending
    kept[np.searchsorted(rows, readmitted)] = True
    sums = [[0] * len(a.concepts) for a in prototypes.attributes]
    for cluster in part.clusters():
        own = kept[np.searchsorted(rows, cluster.rows)]
        for total, q in zip(sums, find_memberships(part, cluster, prototypes, temperatures), strict=True):
            for c, more in enumerate(q[own].sum(axis=0).tolist()):
                total[c] += more
    return [tuple(total) for total in sums]


def group_shares(
    parts: list[ClusterRange], options: Options, prototypes: Prototypes, decision: Decision,
    submit: Callable[..., list[Any]], inherited: Inherited | None = None,
) -> tuple[list[dict[str, Any]], tuple[float, ...], tuple[MembershipMoments, ...]]:  # fmt: skip
    """Return each concept's share of the valid and of the kept samples, by soft membership, and what these rest on.

    Whatever the rule is, the memberships are those that `balanced` would use; earlier runs give the temperatures.

    Returns
    -------
    lines : list of dict
    temperatures : tuple of float
    moments : tuple of MembershipMoments
        Of each attribute, over the valid rows.
    """
    run_parts = run_over(submit)
    known = None if inherited is None else replace(inherited, memberships=())
    if not parts:
        none = [MembershipMoments.of(np.zeros((0, len(a.concepts)), np.int64)) for a in prototypes.attributes]
        return [], () if known is None else known.temperatures, tuple(none)
    temperatures, moments = survey_memberships(
        parts, prototypes, run_parts, temperature=options.temperature, inherited=known
    )
    again = np.zeros(parts[0].starts[-1], np.bool_)  # (input,)
    again[decision.readmitted] = True
    removed = [decided.removed for decided in decision.parts]
    arguments = [(part, prototypes, temperatures, rows[again[rows]]) for part, rows in zip(parts, removed, strict=True)]
    kept = submit("shares", kept_memberships, arguments, *_told(parts))
    lines = []
    for k, (attribute, before) in enumerate(zip(prototypes.attributes, moments, strict=True)):
        after = tuple(sum(own) for own in zip(*(each[k] for each in kept), strict=True))
        for concept, x, y in zip(attribute.concepts, shares(before.sums), shares(after), strict=True):
            lines.append({"attribute": attribute.name, "group": concept, "input": float(x), "kept": float(y)})
    return lines, temperatures, moments


def vague_attributes(options: Options, prototypes: Prototypes, moments: Sequence[MembershipMoments]) -> list[str]:
    """Return a warning for each attribute whose memberships say nothing, where the rule goes by concepts."""
    if not options.rule.needs_prototypes:
        return []
    return [
        f"attribute {a.name!r}: its memberships hardly tell its concepts apart (the largest of {len(a.concepts)} is "
        f"{float(m.mean_largest):.2f} in the mean, under {float(LEAST_INFORMATIVE / len(a.concepts)):.2f}): check them "
        "by labels (fairdedup audit RUN --labels FILE), fit them to some hundred labels (fairdedup calibrate RUN "
        "--labels FILE), or name a model that knows these concepts (--model)"
        for a, m in zip(prototypes.attributes, moments, strict=True)
        if m.count and is_uninformative(m)
    ]


def run_over(submit: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """Return what core/ maps over parts with, from what maps over tuples of arguments."""
    return partial(_map, submit)
