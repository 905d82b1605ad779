"""Measures of bias and accuracy on arrays: skew, NDKL, association gaps, accuracy by group.

Skew and NDKL follow Geyik et al. 2019 (arXiv 1905.01989), with Berg et al.'s two desired distributions (arXiv
2203.11933). It reads no file, loads no model, and never sets a floor or counts a tie twice.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairdedup.errors import UserError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
DESIRED = ("eq_opp", "dem_par")  # equal shares; the shares of the pool
ZERO_COUNTS = {
    "infinite": "the skew of a group without a row in the top k is -inf",
    "as_one": "a group without a row in the top k counts as if it had one: its share is 1 / k",
    "laplace": "one is added to the count of every group: its share is (count + 1) / (k + groups)",
}
MOST = 1000  # the k of Berg et al., where every group could fill it
MIN_COUNT = 30  # a group with fewer rows is "insufficient", as in `fairdedup audit`
SHORT = "insufficient"
CHANCE_DRAWS = 200  # random rankings behind the values by chance


def choose_k(counts: ArrayLike, most: int = MOST) -> int:
    """Return the largest k, up to `most`, that is under the number of rows and that every group could fill.

    If a group had fewer rows than k, its share of the top k could not reach 1, and its skew would depend on k. If k
    were the whole pool, every ranking would have the pool's own shares.

    Parameters
    ----------
    counts : array_like of shape (g,), int
        Rows of each group of the pool.
    most : int
        Upper limit.

    Raises
    ------
    UserError
        If a group has no rows, or there are fewer than two rows.
    """
    rows = np.asarray(counts, dtype=np.int64)
    if not len(rows) or rows.min() < 1 or rows.sum() < 2:
        raise UserError(f"no k fits groups of {rows.tolist()} rows: leave out groups without rows, and give two rows")
    return int(min(most, rows.min(), rows.sum() - 1))


def check_k(k: int, counts: ArrayLike, place: str) -> int:
    """Return k if it is under the number of rows and every group could fill it.

    Raises
    ------
    UserError
        If it is not, with the largest k that is possible.
    """
    rows = np.asarray(counts, dtype=np.int64)
    best = choose_k(rows, int(rows.sum()))
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= best:
        raise UserError(
            f"k of {place} is {k!r}: give an integer from 1 to {best}, under the {rows.sum()} rows and no larger than "
            "the smallest group"
        )
    return int(k)


def find_top(scores: ArrayLike, k: int) -> Integers:
    """Return the k rows with the highest score for each query, best first; ties go to the lower row.

    Parameters
    ----------
    scores : array_like of shape (q, n), float
        Similarity of each query and row.
    k : int
        Rows to return, under n.

    Returns
    -------
    ndarray of shape (q, k), int64
        Exactly k rows for every query, however many rows are tied with the last.

    Raises
    ------
    UserError
        If a score is not finite, or k is not under n.
    """
    values = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    if not np.isfinite(values).all():
        raise UserError("a score is not finite: an embedding must be finite and longer than zero")
    if not 1 <= k < values.shape[1]:
        raise UserError(f"k is {k} of {values.shape[1]} rows: give one from 1 to {values.shape[1] - 1}")
    return np.asarray(np.argsort(-values, axis=1, kind="stable")[:, :k], dtype=np.int64)


def count_groups(ranked: Integers, groups: int) -> Integers:
    """Return how many rows of each group are in each ranking.

    Parameters
    ----------
    ranked : ndarray of shape (q, k), int64
        Number of the group of each ranked row.
    groups : int
        Number of groups, g.

    Returns
    -------
    ndarray of shape (q, g), int64
    """
    return np.stack([(ranked == g).sum(axis=1) for g in range(groups)], axis=1)


def desired_shares(counts: ArrayLike, desired: str) -> Floats:
    """Return the desired share of each group: 1 / g for `eq_opp`, its share of the pool for `dem_par`.

    Parameters
    ----------
    counts : array_like of shape (g,), int
        Rows of each group of the pool.
    desired : {"eq_opp", "dem_par"}
        Name of the distribution.
    """
    rows = np.asarray(counts, dtype=np.float64)
    if desired == "eq_opp":
        return np.full(len(rows), 1 / len(rows))
    if desired == "dem_par":
        return np.asarray(rows / rows.sum())
    raise UserError(f"desired distribution {desired!r} is unknown: choose among {', '.join(DESIRED)}")


def skew(counts: ArrayLike, desired: ArrayLike, zero: str) -> Floats:
    """Return ln(share in the top k / desired share) of each group, without a floor.

    Parameters
    ----------
    counts : array_like of shape (..., g), int
        Rows of each group in the top k.
    desired : array_like of shape (g,), float
        Desired shares, over 0.
    zero : {"infinite", "as_one", "laplace"}
        What becomes of a group without rows in the top k, see `ZERO_COUNTS`.

    Returns
    -------
    ndarray of shape (..., g), float64

    References
    ----------
    Geyik et al. 2019, definition 3. MinSkew and MaxSkew are the least and the largest over the groups.
    """
    if zero not in ZERO_COUNTS:
        raise UserError(f"the choice for zero counts {zero!r} is unknown: choose among {', '.join(ZERO_COUNTS)}")
    rows = np.asarray(counts, dtype=np.float64)
    k = rows.sum(axis=-1, keepdims=True)
    if zero == "laplace":
        shares = (rows + 1) / (k + rows.shape[-1])
    else:
        shares = (np.maximum(rows, 1) if zero == "as_one" else rows) / k
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(shares) - np.log(np.asarray(desired, dtype=np.float64)))


def ndkl(ranked: Integers, desired: ArrayLike) -> Floats:
    """Return the normalised discounted cumulative KL divergence of each ranking.

    It is (1 / Z) Σ_{i ≤ k} KL(shares in the top i ‖ desired) / log2(i + 1), with Z = Σ_{i ≤ k} 1 / log2(i + 1), and
    the natural logarithm in KL. It is 0 only if every prefix has the desired shares.

    Parameters
    ----------
    ranked : ndarray of shape (q, k), int64
        Number of the group of each ranked row.
    desired : array_like of shape (g,), float
        Desired shares, over 0.

    Returns
    -------
    ndarray of shape (q,), float64

    References
    ----------
    Geyik et al. 2019, definition 5.
    """
    goal = np.asarray(desired, dtype=np.float64)
    places = np.arange(1, ranked.shape[1] + 1)
    discount = 1 / np.log2(places + 1)
    divergence = np.zeros(ranked.shape)
    for g, share in enumerate(goal):
        own = np.cumsum(ranked == g, axis=1) / places
        divergence += np.where(own > 0, own * (np.log(np.maximum(own, 1e-300)) - np.log(share)), 0)
    return np.asarray(divergence @ discount / discount.sum())


def associations(counts: ArrayLike, pool: ArrayLike) -> Floats:
    """Return, for each query and group, its share of the top k less its share of the pool.

    Parameters
    ----------
    counts : array_like of shape (q, g), int
        Rows of each group in the top k.
    pool : array_like of shape (g,), int
        Rows of each group in the pool.

    Returns
    -------
    ndarray of shape (q, g), float64
        Over 0 where a query prefers the group. The values of a query add up to 0.
    """
    rows, every = np.asarray(counts, dtype=np.float64), np.asarray(pool, dtype=np.float64)
    return np.asarray(rows / rows.sum(axis=-1, keepdims=True) - every / every.sum())


def association_gap(counts: ArrayLike, pool: ArrayLike) -> Floats:
    """Return the association gap of each query: the largest association of a group less the smallest one.

    An association is a group's share of the top k less its share of the pool. For two groups the gap is
    |(share of one − share of the other in the top k) − (the same in the pool)|: Bias@k of Wang, Liu and Wang 2021
    (arXiv 2109.05433), who rank a balanced pool, without its sign. It is 0 if the top k has the pool's shares.

    Parameters
    ----------
    counts : array_like of shape (q, g), int
        Rows of each group in the top k.
    pool : array_like of shape (g,), int
        Rows of each group in the pool.

    Returns
    -------
    ndarray of shape (q,), float64
        At least 0, under 2.
    """
    return np.asarray(np.ptp(associations(counts, pool), axis=-1))


def measure_rankings(ranked: Integers, pool: ArrayLike, zero: str) -> dict[str, Any]:
    """Return the means over queries of MinSkew, MaxSkew and NDKL for both desired distributions, and of the gap.

    Parameters
    ----------
    ranked : ndarray of shape (q, k), int64
        Number of the group of each ranked row.
    pool : array_like of shape (g,), int
        Rows of each group in the pool.
    zero : str
        A name of `ZERO_COUNTS`.
    """
    rows = np.asarray(pool, dtype=np.int64)
    counts = count_groups(ranked, len(rows))
    out: dict[str, Any] = {}
    for name in DESIRED:
        goal = desired_shares(rows, name)
        each = skew(counts, goal, zero)
        least = float(each.min(axis=1).mean())
        out[name] = {
            "MinSkew": least,
            "|MinSkew|": abs(least),
            "MaxSkew": float(each.max(axis=1).mean()),
            "NDKL": float(ndkl(ranked, goal).mean()),
        }
    out["association gap"] = float(association_gap(counts, rows).mean())
    return out


def measure_chance(codes: Integers, pool: ArrayLike, k: int, zero: str, seed: int = 0) -> dict[str, Any]:
    """Return `measure_rankings` of random rankings of a pool: what a model without any bias would have."""
    rng = np.random.default_rng(seed)
    return measure_rankings(np.stack([rng.permutation(codes)[:k] for _ in range(CHANCE_DRAWS)]), pool, zero)


def measure_accuracy(right: NDArray[np.bool_], groups: NDArray[Any], min_count: int = MIN_COUNT) -> dict[str, Any]:
    """Return accuracy over all rows, of each group, its mean over sufficient groups, and the worst of these.

    Parameters
    ----------
    right : ndarray of shape (n,), bool
        Whether a row was classified as its label says.
    groups : ndarray of shape (n,), str
        Group of each row.
    min_count : int
        A group with fewer rows is insufficient: it gets its count and no accuracy.
    """
    by: dict[str, dict[str, Any]] = {}
    for name in sorted(set(groups.tolist())):
        own = right[groups == name]
        enough = len(own) >= min_count
        by[name] = {"rows": len(own), "accuracy": float(own.mean())} if enough else {"rows": len(own), "why": SHORT}
    known = {name: own["accuracy"] for name, own in by.items() if "accuracy" in own}
    worst = min(known, key=lambda name: known[name]) if known else None
    return {
        "accuracy": float(right.mean()),
        "mean of groups": float(np.mean(list(known.values()))) if known else None,
        "worst group": None if worst is None else {"group": worst, "accuracy": known[worst]},
        "groups": by,
    }
