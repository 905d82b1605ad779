"""Measures of what was kept of each group: rates, shares, distances, intervals, a test, and where a loss arose.

Retention skew follows Geyik et al. 2019 (arXiv 1905.01989); fairlearn's MetricFrame computes keep rates. Inputs are
counts by cluster and group: this module never sees a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOUR_FIFTHS = 0.8
CONFIDENCE = 0.95
MOST_MISSING = 0.05  # a group that is missing in a larger share of the draws has no interval
_BLOCK = 1 << 22  # clusters that are drawn at a time

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Measures:
    """Measures of what was kept of the g groups of one attribute.

    Attributes
    ----------
    rate : ndarray of shape (g,), float64
        Keep rate, k_g / n_g.
    share_before, share_after, shift : ndarray of shape (g,), float64
        n_g / N, k_g / K, and their difference; NaN if nothing is kept.
    skew : ndarray of shape (g,), float64
        ln(share after / share before); -inf if no row of the group is kept, NaN if no row at all is.
    to_best : ndarray of shape (g,), float64
        Rate / largest rate of the sufficient groups; NaN for a group that is not sufficient, or is the only one.
    ratio : float
        Least / largest rate of the sufficient groups; NaN with fewer than two.
    majority : int
        Number of the group with the most rows before; ties go to the first.
    non_majority : tuple of float
        Share of all groups but the majority, before and after.
    distance : tuple of float
        Total variation distance to the target shares, before and after.
    kl_full, kl_uniform : float
        KL divergence, in nats, of the shares after from the shares before, and from equal shares.
    """

    rate: Floats
    share_before: Floats
    share_after: Floats
    shift: Floats
    skew: Floats
    to_best: Floats
    ratio: float
    majority: int
    non_majority: tuple[float, float]
    distance: tuple[float, float]
    kl_full: float
    kl_uniform: float


def keep_rates(before: Floats, after: Floats) -> Any:
    """Return fairlearn's MetricFrame of rows, kept rows and keep rate over groups 0, 1, ...

    Each group is two weighted lines, one for its kept rows and one for the others, instead of its rows.

    Parameters
    ----------
    before, after : ndarray of shape (g,), float64
        Rows of each group, all above 0, and its kept rows; sums of memberships if these are soft.
    """
    from fairlearn.metrics import MetricFrame, selection_rate

    kept = np.tile([0, 1], len(before))
    weight = {"sample_weight": np.stack((before - after, after), axis=1).ravel()}
    metrics = {"rows": _weight, "kept": _kept_weight, "keep rate": selection_rate}
    return MetricFrame(
        metrics=metrics,
        y_true=kept,
        y_pred=kept,
        sensitive_features=np.repeat(np.arange(len(before)), 2),
        sample_params=dict.fromkeys(metrics, weight),
    )


def _weight(y_true: Any, y_pred: Any, sample_weight: Any) -> float:
    return float(np.sum(sample_weight))


def _kept_weight(y_true: Any, y_pred: Any, sample_weight: Any) -> float:
    return float(np.dot(y_pred, sample_weight))


def compute_measures(before: Floats, after: Floats, sufficient: NDArray[np.bool_], target: Floats) -> Measures:
    """Return the measures of what was kept of each group.

    Parameters
    ----------
    before, after : ndarray of shape (g,), float64
        Rows of each group, all above 0, and its kept rows.
    sufficient : ndarray of shape (g,), bool
        Mask of the groups that are large enough to compare their rates.
    target : ndarray of shape (g,), float64
        Shares to aim at.
    """
    rate = keep_rates(before, after).by_group["keep rate"].to_numpy(np.float64)
    to_best, ratio = np.full(len(before), np.nan), np.nan
    if sufficient.sum() > 1:
        best = rate[sufficient].max()
        if best > 0:
            to_best[sufficient] = rate[sufficient] / best
            ratio = float(to_best[sufficient].min())
    with np.errstate(divide="ignore", invalid="ignore"):
        share_before, share_after = before / before.sum(), after / after.sum()
        skew = np.log(share_after / share_before)
    majority = int(before.argmax())
    return Measures(
        rate=rate,
        share_before=share_before,
        share_after=share_after,
        shift=share_after - share_before,
        skew=skew,
        to_best=to_best,
        ratio=ratio,
        majority=majority,
        non_majority=(1 - float(share_before[majority]), 1 - float(share_after[majority])),
        distance=(total_variation(share_before, target), total_variation(share_after, target)),
        kl_full=divergence(share_after, share_before),
        kl_uniform=divergence(share_after, np.full(len(before), 1 / len(before))),
    )


def total_variation(a: Floats, b: Floats) -> float:
    """Return half the sum of the absolute differences of two sets of shares (g,)."""
    return float(np.abs(a - b).sum() / 2)


def divergence(a: Floats, b: Floats) -> float:
    """Return KL(a || b) of shares (g,) in nats; a share of 0 in a adds nothing."""
    if np.isnan(a).any():
        return float("nan")
    positive = a > 0
    return max(0.0, float((a[positive] * np.log(a[positive] / b[positive])).sum()))


def resample_clusters(before: Floats, after: Floats, draws: int, seed: int) -> tuple[Floats, Floats]:
    """Draw as many clusters as there are, with replacement, and add up their groups, `draws` times.

    Parameters
    ----------
    before, after : ndarray of shape (k, g), float64
        Rows and kept rows of each group in each cluster.
    draws : int
        Number of draws.
    seed : int
        Seed of the draws.

    Returns
    -------
    before, after : ndarray of shape (draws, g), float64
        Rows and kept rows of each group in each draw.
    """
    both = np.concatenate((before, after), axis=1)
    clusters, rng = len(both), np.random.default_rng(seed)
    out = np.empty((draws, both.shape[1]))
    block = max(1, _BLOCK // clusters)
    for start in range(0, draws, block):
        size = min(block, draws - start)
        drawn = rng.integers(clusters, size=(size, clusters)) + clusters * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * clusters).reshape(size, clusters)
        out[start : start + size] = times.astype(np.float64) @ both
    return out[:, : before.shape[1]], out[:, before.shape[1] :]


def compute_intervals(before: Floats, after: Floats, sufficient: NDArray[np.bool_]) -> dict[str, Floats]:
    """Return the percentile intervals of keep rate, share shift, retention skew and ratio over resampled counts.

    Parameters
    ----------
    before, after : ndarray of shape (draws, g), float64
        Resampled rows and kept rows of each group.
    sufficient : ndarray of shape (g,), bool
        Mask of the groups whose rates the ratio compares.

    Returns
    -------
    dict of ndarray of shape (g, 2), float64
        `rate`, `shift`, `skew`, and `ratio` of shape (1, 2). NaN for a group that is missing in over 5 % of the draws.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = after / before
        a, b = before / before.sum(axis=1, keepdims=True), after / after.sum(axis=1, keepdims=True)
        found = {"rate": rate, "shift": np.where(before > 0, b - a, np.nan), "skew": np.log(b / a)}
        compared = rate[:, sufficient]
        if compared.shape[1] > 1:
            found["ratio"] = compared.min(axis=1, keepdims=True) / compared.max(axis=1, keepdims=True)
    return {name: _percentiles(values) for name, values in found.items()}


def _percentiles(values: Floats) -> Floats:
    """Return the least and largest value (g, 2) of the middle 95 % of each column (draws, g), NaN ignored."""
    ordered, valid = np.sort(values, axis=0), (~np.isnan(values)).sum(axis=0)  # NaN last
    tail = (1 - CONFIDENCE) / 2
    low = np.floor(tail * (valid - 1)).clip(0).astype(np.int64)
    high = np.ceil((1 - tail) * (valid - 1)).clip(0).astype(np.int64)
    out = np.take_along_axis(ordered, np.stack((low, high)), axis=0).T
    out[valid < (1 - MOST_MISSING) * len(values)] = np.nan
    return out


def random_test(before: NDArray[np.int64], after: NDArray[np.int64]) -> Floats:
    """Return the p-value of each group's kept count under the rule `random` at the same total.

    The test is two-sided and exact: under `random`, k_g is hypergeometric (N, n_g, K), so it is Fisher's exact test.

    Parameters
    ----------
    before, after : ndarray of shape (g,), int64
        Rows and kept rows of each group.
    """
    from scipy.stats import fisher_exact

    rows, kept = int(before.sum()), int(after.sum())
    tables = [
        [[k, n - k], [kept - k, rows - n - kept + k]] for n, k in zip(before.tolist(), after.tolist(), strict=True)
    ]
    return np.array([min(1.0, float(fisher_exact(t).pvalue)) for t in tables])


def holm(p: Floats) -> Floats:
    """Return p-values (g,) with Holm's correction for multiple tests."""
    order = np.argsort(p, kind="stable")
    out = np.empty(len(p))
    out[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return out


def decompose(before: Floats, after: Floats) -> tuple[Floats, Floats]:
    """Split each group's loss against its fair share into a part between clusters and a part within them.

    With N rows of which K are kept, and n_c and K_c of them in cluster c, the loss of group g is
    n_g K/N - k_g = sum_c n_gc (K/N - K_c/n_c) + sum_c (n_gc K_c/n_c - k_gc).

    Parameters
    ----------
    before, after : ndarray of shape (k, g), float64
        Rows and kept rows of each group in each cluster or neighbourhood.

    Returns
    -------
    between, within : ndarray of shape (k, g), float64
        Terms of the two sums; negative where the group gains.
    """
    rows, kept = before.sum(axis=1, keepdims=True), after.sum(axis=1, keepdims=True)
    rate = np.divide(kept, rows, out=np.zeros_like(rows), where=rows > 0)
    overall = kept.sum() / rows.sum() if rows.sum() else 0.0
    return before * (overall - rate), before * rate - after
