"""Projects a sample of the embeddings to a plane: that of their two main directions, or by PaCMAP or UMAP.

Vectors are read in blocks from no more sorted groups than hold a million, so that a page about a billion samples reads
as much as one about a million.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.row_hash import row_hash
from fairdedup.errors import first_line
from fairdedup.report.map_layout import PCA, choose_method, place_points
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.shard_files import open_sorted
from fairdedup.storage.shard_groups import Group

MOST_POINTS = 1_000_000
FIT = 10_000  # vectors that the directions are fitted to
BLOCK = 1 << 14
DIRECTIONS, ITERATIONS = 4, 12
MARGIN = 0.001  # share of the points at each end that may be outliers
SLACK = 0.25  # how far the first view goes beyond all others, in their width
FARTHEST = 16  # how much wider than the first view all points may be
STRETCH = 4  # how much wider one direction of the view may be than the other


class Points(NamedTuple):
    """Samples of the map, by ascending row.

    Attributes
    ----------
    rows : ndarray of shape (n,), int64
    groups, positions : ndarray of shape (n,), int64
        Where their vectors are: number of the sorted group, and position in it.
    x, y : ndarray of shape (n,), uint16
    reach : float
        Half the width of all that the integers can express, in half widths of the first view; 1 or more.
    explained : float
        Share of the variance that both directions have; 0 where another method than PCA placed the points.
    method : str
        "PCA", "PaCMAP" or "UMAP".
    remark : str
        Why an installed method was not used; empty otherwise.
    """

    rows: NDArray[np.int64]
    groups: NDArray[np.int64]
    positions: NDArray[np.int64]
    x: NDArray[np.uint16]
    y: NDArray[np.uint16]
    reach: float
    explained: float
    method: str = PCA
    remark: str = ""


def choose_groups(groups: Sequence[Group]) -> list[Group]:
    """Return all groups, or of a seeded sample as many as hold `MOST_POINTS` vectors, in their order."""
    filled = [group for group in groups if group.valid]
    order = np.argsort(row_hash(np.array([group.number for group in filled], np.int64), 0), kind="stable")
    held = np.cumsum([filled[k].valid for k in order])
    return [filled[k] for k in sorted(order[: np.searchsorted(held, MOST_POINTS) + 1].tolist())]


def project_points(run: RunDirectory, groups: Sequence[Group]) -> Points | None:
    """Return the points of a map of some groups; None where there are fewer than three vectors.

    Parameters
    ----------
    run : RunDirectory
    groups : sequence of Group
    """
    total = sum(group.valid for group in groups)
    if total < 3:
        return None
    chosen = []
    for group in groups:
        share = group.valid if total <= MOST_POINTS else group.valid * MOST_POINTS // total
        position = np.arange(group.valid)
        if share < group.valid:
            position = np.sort(np.argsort(row_hash(position, group.number), kind="stable")[:share])
        chosen.append(position)
    row = np.concatenate(
        [np.asarray(open_sorted(run, g.number, "rows")[0])[p] for g, p in zip(groups, chosen, strict=True)]
    )
    method, remark, explained = choose_method(len(row)), "", 0.0
    if method != PCA:
        try:
            plane = place_points(method, np.concatenate(list(_read_chosen(run, groups, chosen))))
        except Exception as error:  # of a package that is not ours, and the page has another map
            remark = f"{method} is installed but failed ({first_line(error)})."
            method = PCA
    if method == PCA:
        mean, axes, explained = _fit(run, groups, chosen)
        plane = np.concatenate([(block - mean) @ axes for block in _read_chosen(run, groups, chosen)])
    order = np.argsort(row, kind="stable")
    number = np.concatenate([np.full(len(p), g.number) for g, p in zip(groups, chosen, strict=True)])
    x, y, reach = scale_places(plane[order])
    return Points(row[order], number[order], np.concatenate(chosen)[order], x, y, reach, explained, method, remark)


def _read_chosen(
    run: RunDirectory, groups: Sequence[Group], chosen: Sequence[NDArray[np.int64]]
) -> Iterator[NDArray[np.float32]]:
    """Yield the vectors at the chosen positions of each group, in blocks (b, d)."""
    for group, positions in zip(groups, chosen, strict=True):
        yield from _read_blocks(run, group, positions)


def _read_blocks(run: RunDirectory, group: Group, positions: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
    """Yield the vectors at ascending positions of a sorted group, in blocks (b, d)."""
    vectors = open_sorted(run, group.number, "vectors")[0]
    for start in range(0, len(positions), BLOCK):
        own = positions[start : start + BLOCK]
        low, high = int(own[0]), int(own[-1]) + 1
        block = vectors[low:high] if high - low < 4 * BLOCK else np.stack([vectors[k] for k in own.tolist()])
        yield (block[own - low] if high - low < 4 * BLOCK else block).astype(np.float32)


def _fit(
    run: RunDirectory, groups: Sequence[Group], chosen: Sequence[NDArray[np.int64]]
) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """Return the mean (d,), the two main directions (d, 2) and their share of the variance, by subspace iteration."""
    total = sum(len(positions) for positions in chosen)
    step = max(1, total // FIT)
    parts = [b for g, p in zip(groups, chosen, strict=True) for b in _read_blocks(run, g, p[::step])]
    x = np.concatenate(parts)
    mean = x.mean(axis=0)
    x -= mean
    found = np.random.default_rng(0).standard_normal((x.shape[1], min(DIRECTIONS, x.shape[1]))).astype(np.float32)
    for _ in range(ITERATIONS):
        found = np.linalg.qr(x.T @ (x @ found))[0]
    scores = x @ found
    _, values, rotation = np.linalg.svd(scores, full_matrices=False)
    axes = found @ rotation.T
    if axes.shape[1] < 2:  # vectors of one value
        axes, values = np.repeat(axes, 2, axis=1), np.repeat(values, 2)
    axes = axes[:, :2]
    signs = np.where(axes[np.abs(axes).argmax(axis=0), [0, 1]] < 0, -1, 1)  # which does not vary from run to run
    axes = (axes * signs).astype(np.float32)
    variance = float((x.astype(np.float64) ** 2).sum())
    return mean, axes, float((values[:2] ** 2).sum() / variance) if variance > 0 else 0.0


def scale_places(plane: NDArray[np.floating]) -> tuple[NDArray[np.uint16], NDArray[np.uint16], float]:
    """Return places (n, 2) as integers, and the `reach` of `Points`.

    The first view is as wide as all points, but not much wider than without outliers, which keep their places outside
    it. Each direction fills the view, unless the points have hardly any extent in it.
    """
    low, high = np.quantile(plane, [MARGIN, 1 - MARGIN], axis=0)
    slack = SLACK * (high - low)
    low, high = np.maximum(low - slack, plane.min(axis=0)), np.minimum(high + slack, plane.max(axis=0))
    centre, half = (low + high) / 2, (high - low) / 2
    half = np.maximum(half, np.abs(plane - centre).max(axis=0) / FARTHEST)
    half = np.maximum(half, max(float(half.max()) / STRETCH, 1e-9))
    places = (plane - centre) / half
    reach = max(1.0, round(float(np.abs(places).max()), 6))
    units = (np.rint(places / reach * 32_767) + 32_767).astype(np.uint16)
    return units[:, 0], units[:, 1], reach


def read_vectors_at(run: RunDirectory, points: Points, places: NDArray[np.int64]) -> NDArray[np.float16]:
    """Return the vectors (m, d) of the points at some places (m,)."""
    out = None
    for number in np.unique(points.groups[places]).tolist():
        vectors = open_sorted(run, number, "vectors")[0]
        own = np.flatnonzero(points.groups[places] == number)
        if out is None:
            out = np.empty((len(places), vectors.shape[1]), np.float16)
        out[own] = np.stack([vectors[k] for k in points.positions[places[own]].tolist()])
    assert out is not None
    return out
