"""The whole decision over parts of a clustered data set: survey, search eps, decide, re-admit.

In memory and on a Dask cluster it is the same code: only `Run`, which maps steps over parts, differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.core import keep_fraction as kf
from fairdedup.core.parts import NOBODY, Decided, count_kept, decide_part, list_rows
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.rules import row_hash
from fairdedup.core.similarity import MAX_EPS
from fairdedup.core.survey import Inherited, Options, Part, Plan, Run, survey
from fairdedup.errors import FairdedupError, UserError

SAMPLE_ROWS = 4096  # eps is bracketed on whole clusters of at least so many rows, drawn by the seed
SAMPLE_PARTS = 8
SAMPLE_REACH = 320  # ten-thousandths to either side of the first look
SAMPLE_TOLERANCE = 12
SAMPLE_FROM = 8 * SAMPLE_ROWS  # below, all clusters are as quick as a sample
SHORTFALL_WARNING = 0.01
GUARANTEES = ("no_two_kept_are_duplicates", "every_removed_has_a_kept_representative")


@dataclass
class Decision:
    """The decision over all parts.

    Attributes
    ----------
    eps : int or None
        Ten-thousandths; None for `random`.
    parts : list
        What the `decide` step gave for each part.
    readmitted : ndarray of shape (r,), int64, ascending
    kept : int
    """

    eps: int | None
    parts: list[Any]
    readmitted: NDArray[np.int64]
    kept: int
    guarantees: dict[str, bool]
    warnings: list[str] = field(default_factory=list)
    plan: Plan | None = None


def _guess(parts: Sequence[Part], plan: Plan, target: int, valid: int, run: Run) -> int | None:
    """Bracket eps on a seeded sample of parts; None where the data set is small."""
    if valid < SAMPLE_FROM or len(parts) < 4:
        return None
    order = np.argsort(row_hash(np.arange(len(parts)), plan.options.seed), kind="stable")
    sizes = np.array([p.rows for p in parts])[order]
    within = np.cumsum(sizes)
    number = min(SAMPLE_PARTS, int(np.searchsorted(within, valid / 4, side="right")))
    number = max(number, int(np.searchsorted(within, SAMPLE_ROWS)) + 1)
    rough = max(1, int(np.searchsorted(within, SAMPLE_ROWS)) + 1)
    if 2 * within[number - 1] > valid:
        return None
    guess: int | None = None
    # A first look at a few rows spares the larger sample the values of eps that are far off.
    for few, reach in ((rough, 0), (number, SAMPLE_REACH)):
        chosen, rows = [parts[k] for k in order[:few]], int(within[few - 1])
        counts = partial(_total, chosen, plan=plan, run=run, step="sample")
        guess = kf.find_eps(counts, max(1, round(target * rows / valid)), guess, reach, SAMPLE_TOLERANCE)
    return guess


def _total(parts: Sequence[Part], eps: list[int], *, plan: Plan, run: Run, step: str) -> list[int]:
    return np.sum(run(step, count_kept, parts, eps, plan), axis=0).tolist()


def search_eps(parts: Sequence[Part], plan: Plan, target: int, valid: int, run: Run) -> int:
    """Find an eps that brackets a number of kept rows; see `keep_fraction.find_eps`."""
    if target >= valid:
        return 0
    guess = None
    if plan.options.cover:
        # Without cover the sweep does not depend on the rule, and its eps is near.
        plain = replace(plan, options=replace(plan.options, rule="semdedup", cover=False), prototypes=None)
        guess = search_eps(parts, plain, target, valid, run)
    elif plan.options.rule != "semdedup-chain":
        guess = _guess(parts, plan, target, valid, run)
    return kf.find_eps(partial(_total, parts, plan=plan, run=run, step="search"), target, guess)


def decide(
    parts: Sequence[Part],
    clusters: int,
    options: Options,
    prototypes: Prototypes | None,
    run: Run,
    keep: float | None = None,
    at_most: float | None = None,
    eps: int | None = None,
    decide_step: Callable[..., Any] = decide_part,
    protected: int = 0,
    inherited: Inherited | None = None,
) -> Decision:
    """Decide which rows are kept.

    Parameters
    ----------
    parts : sequence of Part
    clusters : int
        Number of clusters that are not empty and hold neither a protected row nor what earlier runs kept.
    options : Options
    prototypes : Prototypes or None
    run : Run
    keep, at_most : float, optional
        Fraction of the valid rows, exactly or at most.
    eps : int, optional
        Ten-thousandths. One of the three is given.
    decide_step : callable
        `decide_part`, or a wrapper of it that stores the columns and returns the rest.
    protected : int
        Rows that are kept beforehand.
    inherited : Inherited, optional
        From the earlier runs whose kept samples the clusters bring: then eps is theirs or, for `at_most`, the smallest
        from there on that keeps no more; `keep` and `eps` are not given.

    Returns
    -------
    Decision

    Raises
    ------
    UserError
        If the options do not fit each other or the data.
    """
    given = [v for v in (keep, at_most, eps) if v is not None]
    if inherited is not None:
        return _decide_further(parts, clusters, protected, options, prototypes, run, at_most, decide_step, inherited)
    if len(given) != 1:
        raise UserError(f"{len(given)} of keep, at-most and eps are given: give one, as in --keep 0.5")
    valid = sum(p.rows for p in parts)
    if not valid:
        raise UserError("no row is valid: there is nothing to decide; see the rejected rows for the reasons")
    fraction = keep if keep is not None else at_most
    if options.rule == "random" and eps is not None:
        raise UserError("rule 'random' has no eps: give --keep or --at-most")
    target = None
    least = protected + clusters  # what every eps leaves
    if fraction is not None:
        target = kf.kept_target(fraction, valid)
        kf.check_target(fraction, valid, 0 if options.rule == "random" else clusters, protected)
    plan = survey(parts, options, prototypes, run)
    warnings: list[str] = []
    if options.rule == "random":
        assert target is not None
        rows, first = map(np.concatenate, zip(*run("list", list_rows, parts), strict=True))
        drawn = row_hash(rows, options.seed)
        k = np.lexsort((rows, drawn, ~first))[target - 1]
        last = NOBODY if first[k] else (int(drawn[k]), int(rows[k]))  # each part tells by it which rows it keeps
        results = run("decide", decide_step, parts, MAX_EPS, plan, last)
        return Decision(None, results, np.empty(0, np.int64), target, dict.fromkeys(GUARANTEES, False), plan=plan)
    searched = target
    if eps is None:
        assert target is not None
        reserve = options.reserve if options.rule == "balanced" and keep is not None else 0.0
        searched = kf.swept_target(target, valid, reserve, least)
        eps = search_eps(parts, plan, searched, valid, run)
    results = run("decide", decide_step, parts, eps, plan, None)
    _check_promises(options, results)
    rows = np.concatenate([r.removed for r in results])
    kept = valid - len(rows)
    readmitted = np.empty(0, np.int64)
    if keep is not None and target is not None and kept < target:
        assert searched is not None
        if searched - kept > SHORTFALL_WARNING * target:
            warnings.append(
                f"{searched - kept} of {target} kept samples are re-admitted duplicates, more than 1 %: the data "
                f"holds many exact copies; --keep {kept / valid:.4g} keeps none of them"
            )
        similarity = np.concatenate([r.similarity for r in results])
        if options.rule == "balanced":
            soft = [np.concatenate(q) for q in zip(*(r.memberships for r in results), strict=True)]
            readmitted = _seats(rows, similarity, soft, plan, target - kept)
        else:
            readmitted = kf.readmit(rows, similarity, target - kept)
        kept = target
    readmitted.sort()
    orphans = np.concatenate([r.orphans for r in results])
    checked = (all(r.distinct for r in results), bool(np.isin(orphans, readmitted).all()))
    guarantees = dict(zip(GUARANTEES, checked, strict=True))
    return Decision(eps, results, readmitted, kept, guarantees, warnings, plan)


def _decide_further(
    parts: Sequence[Part],
    clusters: int,
    protected: int,
    options: Options,
    prototypes: Prototypes | None,
    run: Run,
    at_most: float | None,
    decide_step: Callable[..., Any],
    inherited: Inherited,
) -> Decision:
    """Decide the rows of clusters in which earlier runs have kept samples; no row at all is as good as many."""
    valid = sum(p.rows for p in parts)
    eps = inherited.eps
    if not valid:
        return Decision(eps, [], np.empty(0, np.int64), 0, dict.fromkeys(GUARANTEES, True))
    plan = survey(parts, options, prototypes, run, inherited)
    if at_most is not None:
        most = kf.kept_target(at_most, valid)
        least = clusters + protected
        if most < least:
            raise UserError(
                f"at most {at_most:g} of {valid} new rows is {most}, and no eps keeps fewer than {least}: those always "
                "kept, and one for each cluster in which earlier runs kept nothing: allow at least "
                f"{kf.smallest_fraction(least, valid):g}"
            )
        eps = kf.smallest_eps(partial(_total, parts, plan=plan, run=run, step="search"), most, eps)
    results = run("decide", decide_step, parts, eps, plan, None)
    _check_promises(options, results)
    kept = valid - sum(len(r.removed) for r in results)
    checked = (all(r.distinct for r in results), not any(len(r.orphans) for r in results))
    return Decision(eps, results, np.empty(0, np.int64), kept, dict(zip(GUARANTEES, checked, strict=True)), plan=plan)


def _seats(
    rows: NDArray[np.int64],
    similarity: NDArray[np.float64],
    soft: list[NDArray[np.int64]],
    plan: Plan,
    seats: int,
) -> NDArray[np.int64]:
    kept_sums = [
        tuple(int(a) - int(b) for a, b in zip(m.sums, q.sum(axis=0), strict=True))
        for m, q in zip(plan.memberships, soft, strict=True)
    ]
    return kf.fill_seats(rows, similarity, soft, kept_sums, plan.targets, plan.memberships, seats)


def _check_promises(options: Options, results: Sequence[Decided]) -> None:
    """Hold a rule to what it promises of every row; a broken promise is a defect of ours, never a result."""
    if (options.cover or options.rule == "semdedup") and any(len(r.orphans) or not r.distinct for r in results):
        raise FairdedupError(f"rule {options.rule!r} broke its guarantees: nothing was written; please report this")
