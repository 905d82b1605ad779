"""`deduplicate()`: the whole decision in memory, by the same code that the pipeline runs over files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fairdedup.arrays import as_ids, as_labels, as_mask, as_matrix, as_numbers
from fairdedup.core import kmeans
from fairdedup.core.approximate import one_thread_a_product
from fairdedup.core.decision import decide
from fairdedup.core.keep_fraction import parse_eps
from fairdedup.core.parts import COLUMNS, Decided
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.rules import ordered
from fairdedup.core.similarity import EPS_UNIT, reason, unit_float16
from fairdedup.core.survey import Cluster, Options
from fairdedup.errors import UserError

DECISION_COLUMNS = (
    "row", "id", "cluster", "neighbourhood", "kept", "representative", "similarity", "centroid_similarity",
    "readmitted",
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """What was kept, and why the rest was not.

    Attributes
    ----------
    kept : ndarray
        IDs of the kept samples, in input order.
    decisions : pandas.DataFrame
        A line for each valid row, in input order: row, id, cluster, neighbourhood (the row that its step of the sweep
        began with), kept, representative (its row; a kept sample is its own, a re-admitted one keeps the one it had
        been removed for, -1 is none), similarity (to the representative), centroid_similarity, readmitted.
    rejected : pandas.DataFrame
        A line for each row that could not be used: row, id, reason.
    eps : float or None
        Two samples of a cluster are duplicates when their cosine is above 1 - eps; None for the rule `random`.
    counts : dict
        input, valid, kept, removed, rejected, readmitted, clusters.
    guarantees : dict
        What was checked of this very result, re-admitted rows aside: ``no_two_kept_are_duplicates`` (of a cluster)
        and ``every_removed_has_a_kept_representative`` (with cosine above 1 - eps).
    warnings : list of str
    """

    kept: NDArray[Any]
    decisions: pd.DataFrame
    rejected: pd.DataFrame
    eps: float | None
    counts: dict[str, int]
    guarantees: dict[str, bool]
    warnings: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        c = self.counts
        return (
            f"Result(kept {c['kept']:,} of {c['input']:,}, removed {c['removed']:,}, rejected {c['rejected']:,}, "
            f"eps {self.eps})"
        )


@dataclass
class _Memory:
    """One cluster of embeddings held in memory."""

    number: int
    index: NDArray[np.int64]
    all_rows: NDArray[np.int64]
    unit: NDArray[np.float16]
    centroid: NDArray[np.float16]
    protected: NDArray[np.bool_] | None
    values: NDArray[np.int64] | None
    memo: dict[Any, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(self.index)

    def clusters(self) -> Iterator[Cluster]:
        rows = self.all_rows[self.index]
        yield Cluster(
            self.number, rows, self.unit[self.index], self.centroid,
            None if self.protected is None else self.protected[rows],
            None if self.values is None else self.values[rows],
        )  # fmt: skip


class _Threads:
    """Maps over clusters in threads, largest first; each product then takes one thread."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def __call__(self, step: str, function: Callable[..., Any], parts: Sequence[_Memory], *args: Any) -> list[Any]:
        if len(parts) < 2 * self.workers or self.workers == 1:
            return [function(part, *args) for part in parts]
        order = sorted(range(len(parts)), key=lambda k: -parts[k].rows)
        with one_thread_a_product(), ThreadPoolExecutor(self.workers) as pool:
            futures = {k: pool.submit(function, parts[k], *args) for k in order}
            return [futures[k].result() for k in range(len(parts))]


def deduplicate(
    embeddings: Any,
    keep: float | None = None,
    *,
    at_most: float | None = None,
    eps: float | None = None,
    rule: str = "fairdedup",
    prototypes: Any = None,
    ids: Any = None,
    clusters: Any = "auto",
    seed: int = 0,
    cover: bool = False,
    start: str = "cluster",
    calibrate: str = "none",
    target: str | Mapping[str, Mapping[str, float]] = "uniform",
    temperature: float | str | Mapping[str, float] = "auto",
    reserve: float = 0.1,
    prefer: Any = None,
    always_keep: Any = None,
    device: str = "auto",
) -> Result:
    """Remove semantic duplicates from embeddings.

    Parameters
    ----------
    embeddings : array-like of shape (n, d)
        NumPy, torch, pandas or Arrow (a list column); any length but zero. They are scaled to unit length and rounded
        to float16 first. Rows with a value that is not finite, and zero rows, are rejected.
    keep : float, optional
        Keep exactly floor(keep * valid + 0.5) rows; in (0, 1]. Give one of keep, at_most and eps.
    at_most : float, optional
        Keep at most that many: nothing is re-admitted.
    eps : float, optional
        Two rows of a cluster are duplicates when their cosine is above 1 - eps. A whole number of ten-thousandths.
    rule : str
        "fairdedup", "balanced", "semdedup", "prefer", "semdedup-chain", "random-neighbour" or "random".
    prototypes : array-like of shape (c, d), or mapping attribute -> {concept: (d,)}, optional
        Needed by "fairdedup" and "balanced". An array is one attribute. A concept named "absent" holds one or more
        vectors of pictures that the attribute does not apply to.
    ids : array-like of shape (n,), optional
        Unique keys; the row numbers if not given.
    clusters : int, "auto" or array-like of shape (n,)
        How many clusters, or the labels (integers >= 0) of a clustering you already have.
    seed : int
        Of the clustering and the random rules.
    cover : bool
        A kept sample removes only its own neighbours: every removed row has a kept duplicate, no two kept are ones.
    start : {"cluster", "zero"}
        `fairdedup`: start concept sums from the cluster's mean similarity, or from zero.
    calibrate : {"none", "zscore"}
        `fairdedup`: standardise the similarity to each concept over the data set first.
    target : {"uniform", "data"} or mapping attribute -> {concept: share}
        `balanced`: the shares to aim at.
    temperature : float, "auto" or mapping attribute -> float
        `balanced`: of the softmax over an attribute's concepts.
    reserve : float
        `balanced`: share of the kept count that is held back for rare rows of all clusters; 0 to 0.3.
    prefer : array-like of shape (n,), optional
        `prefer`: numbers, of which the highest of a neighbourhood is kept; missing ones (NaN) come last.
    always_keep : array-like, optional
        Ids, or a mask of shape (n,), of rows that are kept whatever the rule; their duplicates go first.
    device : {"auto", "cpu", "cuda"}
        Where k-means trains. The result after it does not depend on it.

    Returns
    -------
    Result

    Raises
    ------
    UserError
        (a ValueError) In one line: what is wrong, where, and the mend.

    References
    ----------
    Abbas et al. 2023, SemDeDup, arXiv 2303.09540. Slyman et al. 2024, FairDeDup, CVPR, arXiv 2404.16123.

    Examples
    --------
    >>> import numpy as np
    >>> from fairdedup import deduplicate
    >>> x = np.random.default_rng(0).standard_normal((100, 8))
    >>> result = deduplicate(np.concatenate([x, x]), keep=0.5, rule="semdedup")
    >>> len(result.kept)
    100
    """
    options = Options(rule, cover, seed, start, calibrate, target, temperature, reserve, always_keep is not None)
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"device {device!r} is unknown: choose auto, cpu or cuda")
    vectors = as_matrix(embeddings)
    n = len(vectors)
    names = as_ids(ids, n)
    known = None if prototypes is None else Prototypes.of(prototypes)
    if known is not None and known.dimension != vectors.shape[1]:
        raise UserError(
            f"prototypes have {known.dimension} dimensions and the embeddings {vectors.shape[1]}: "
            "both must come from one model"
        )
    if (prefer is not None) != (rule == "prefer"):
        raise UserError("rule 'prefer' and prefer= go together: give rule='prefer' and numbers of shape (n,)")
    values = None if prefer is None else ordered(as_numbers(prefer, n))
    mask = None if always_keep is None else as_mask(always_keep, names)
    unit, bad = _unit_in_threads(vectors)
    rows = np.flatnonzero(bad == 0)
    if len(rows) < n:
        unit = unit[rows]
    parts = _parts(unit, rows, clusters, n, seed, device, mask, values)
    eps_units = None if eps is None else parse_eps(eps)
    held = np.zeros(n, np.bool_) if mask is None else mask & (bad == 0)
    without = sum(not held[rows[part.index]].any() for part in parts)
    decision = decide(
        parts, without, options, known, _Threads(os.cpu_count() or 1), keep, at_most, eps_units,
        protected=int(held.sum()),
    )  # fmt: skip
    decisions = _table(decision.parts, decision.readmitted, names)
    rejected = np.flatnonzero(bad)
    kept_rows = decisions["row"].to_numpy()[decisions["kept"].to_numpy()]
    return Result(
        kept=names[kept_rows],
        decisions=decisions,
        rejected=pd.DataFrame({
            "row": rejected, "id": names[rejected], "reason": [reason(int(c)) for c in bad[rejected]],
        }),
        eps=None if decision.eps is None else decision.eps / EPS_UNIT,
        counts={
            "input": n, "valid": len(rows), "kept": len(kept_rows), "removed": len(rows) - len(kept_rows),
            "rejected": len(rejected), "readmitted": len(decision.readmitted), "clusters": len(parts),
        },
        guarantees=decision.guarantees,
        warnings=[*_lost(mask, bad, names), *decision.warnings],
    )  # fmt: skip


def _lost(mask: NDArray[np.bool_] | None, bad: NDArray[np.int8], names: NDArray[Any]) -> list[str]:
    lost = np.flatnonzero((bad != 0) & (False if mask is None else mask))
    if not len(lost):
        return []
    return [f"{len(lost)} of the rows always kept cannot be used and are rejected; the first is {names[lost[0]]}"]


def _unit_in_threads(vectors: NDArray[np.floating]) -> tuple[NDArray[np.float16], NDArray[np.int8]]:
    step = 8192
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        done = list(pool.map(lambda k: unit_float16(vectors[k : k + step]), range(0, len(vectors), step)))
    return np.concatenate([unit for unit, _ in done]), np.concatenate([bad for _, bad in done])


def _parts(
    unit: NDArray[np.float16],
    rows: NDArray[np.int64],
    clusters: Any,
    n: int,
    seed: int,
    device: str,
    protected: NDArray[np.bool_] | None,
    values: NDArray[np.int64] | None,
) -> list[_Memory]:
    """Cluster the valid rows, or take the labels that are given, into a part for each cluster."""
    if not len(rows):
        return []
    if isinstance(clusters, (str, int, np.integer)):
        k = kmeans.check_clusters(clusters, len(rows))
        sample = np.searchsorted(rows, kmeans.training_rows([rows], k, seed))
        centroids = kmeans.unit_centroids(kmeans.train(unit[sample], k, seed, device=device))
        labels = kmeans.assign(unit, centroids)
        numbers = np.unique(labels)
        centroids = centroids[numbers]
    else:
        labels = as_labels(clusters, n)[rows]
        numbers = np.unique(labels)
        centroids = kmeans.centroids_of_labels(unit, labels, numbers)
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], numbers)
    return [
        _Memory(int(numbers[k]), index, rows, unit, centroids[k], protected, values)
        for k, index in enumerate(np.split(order, bounds[1:]))
        if len(index)
    ]


def _table(parts: list[Decided], readmitted: NDArray[np.int64], names: NDArray[Any]) -> pd.DataFrame:
    columns = {name: np.concatenate([p.columns[name] for p in parts]) for name in COLUMNS}
    order = np.argsort(columns["row"], kind="stable")
    columns = {name: values[order] for name, values in columns.items()}
    columns["id"] = names[columns["row"]]
    columns["readmitted"] = np.isin(columns["row"], readmitted)
    columns["kept"] = columns["kept"] | columns["readmitted"]
    return pd.DataFrame({name: columns[name] for name in DECISION_COLUMNS})
