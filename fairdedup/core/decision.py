"""The whole decision over parts of a clustered data set: survey, search eps, decide, re-admit.

The code is the same in memory and on a Dask cluster: only the `MapParts`, which maps steps over parts, differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.core import keep_fraction as kf
from fairdedup.core.eps_search import count_over, search_eps, search_eps_across, search_eps_from
from fairdedup.core.model import Inherited, LastDrawn, Options, Plan
from fairdedup.core.part import MapParts, Part, Workspace
from fairdedup.core.parts import Decided, decide_part, list_rows
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.round_steps import decide_in_part
from fairdedup.core.rounds import MARGIN, AcrossClusters
from fairdedup.core.seats import Claimants, fill_seats
from fairdedup.core.similarity import EPS_UNIT, MAX_EPS, QUANTUM, quantised
from fairdedup.core.survey import survey
from fairdedup.errors import FairdedupError, UserError, format_count

SHORTFALL_WARNING = 0.01
GUARANTEES = ("no_two_kept_are_duplicates", "every_removed_has_a_kept_representative")
NOTHING_DRAWN = LastDrawn(-1, -1)  # only pinned rows are kept


@dataclass
class Decision:
    """The decision over all parts.

    Attributes
    ----------
    eps : int or None
        Ten-thousandths; None for a rule without eps.
    parts : list
        What `decide_step` returned for each part.
    readmitted : ndarray of shape (r,), int64, ascending
        Rows that were removed by the rule and then re-admitted.
    kept : int
        Number of kept rows, re-admitted ones included.
    guarantees : dict
        Whether each of `GUARANTEES` holds, apart from re-admitted rows.
    warnings : list of str
        What the user should know about the result.
    plan : Plan or None
        What the survey found; None if there was no row.
    across : AcrossClusters or None
        What has found the pairs of a decision across clusters.
    """

    eps: int | None
    parts: list[Any]
    readmitted: NDArray[np.int64]
    kept: int
    guarantees: dict[str, bool]
    warnings: list[str] = field(default_factory=list)
    plan: Plan | None = None
    across: AcrossClusters | None = None


@dataclass(frozen=True)
class _Context:
    """What every step of a decision needs: the data, how to map steps over it, and how many rows every eps keeps.

    Attributes
    ----------
    clusters : int
        Number of clusters, or of values in clusters, without a pinned row: every eps keeps a row of each.
    protected : int
        Number of protected rows, which every eps keeps.
    """

    parts: Sequence[Part]
    map_parts: MapParts
    decide_step: Callable[..., Any]
    decide_across_step: Callable[..., Any]
    workspace: Workspace | None
    clusters: int
    protected: int

    @property
    def valid(self) -> int:
        """Number of valid rows."""
        return sum(part.rows for part in self.parts)

    @property
    def least(self) -> int:
        """Number of rows that every eps keeps."""
        return self.clusters + self.protected

    def look_across(self, plan: Plan, *, margin: int, with_earlier: Sequence[Part] = ()) -> AcrossClusters | None:
        """Return what decides across clusters, if the options want that."""
        if not plan.options.looks_across:
            return None
        assert self.workspace is not None
        step = self.decide_across_step
        return AcrossClusters(self.parts, plan, self.map_parts, self.workspace, step, with_earlier, margin)

    def decide_at(self, eps: int, plan: Plan, across: AcrossClusters | None) -> list[Decided]:
        """Decide all parts at an eps, and check the guarantees that the rule promises."""
        if across is not None:
            results = across.at(eps).decide()
        else:
            results = self.map_parts("decide", self.decide_step, self.parts, eps, plan)
        _check_promises(plan.options, results)
        return results


def decide(
    parts: Sequence[Part],
    clusters: int,
    options: Options,
    prototypes: Prototypes | None,
    map_parts: MapParts,
    *,
    keep: float | None = None,
    at_most: float | None = None,
    eps: int | None = None,
    decide_step: Callable[..., Any] = decide_part,
    decide_across_step: Callable[..., Any] = decide_in_part,
    workspace: Workspace | None = None,
    protected: int = 0,
    inherited: Inherited | None = None,
    without_rows: Sequence[Part] = (),
    known: Decision | None = None,
) -> Decision:
    """Decide which rows are kept.

    Parameters
    ----------
    parts : sequence of Part
        The clustered data set.
    clusters : int
        Number of clusters that are not empty and have neither a protected row nor a kept sample of an earlier run.
        With `options.within` each value in a cluster counts as a cluster.
    options : Options
        Options of the decision.
    prototypes : Prototypes or None
        Prototypes, for a rule that needs them.
    map_parts : MapParts
        Maps the steps over the parts.
    keep, at_most : float, optional
        Fraction of the valid rows to keep, exactly or at most; in (0, 1].
    eps : int, optional
        Ten-thousandths. Exactly one of `keep`, `at_most` and `eps` is given.
    decide_step : callable
        `decide_part`, or a wrapper that stores the columns and returns the rest.
    decide_across_step : callable
        The same of `decide_in_part`, for a decision across clusters.
    workspace : Workspace, optional
        Needed for a decision across clusters.
    protected : int
        Number of protected rows.
    inherited : Inherited, optional
        What earlier runs hand down, if the clusters have `earlier` samples. Then eps is theirs or, with `at_most`, the
        smallest one from there on that keeps few enough rows. `keep` and `eps` must not be given.
    without_rows : sequence of Part
        Parts whose clusters have `earlier` samples and no row; needed for a decision across clusters.
    known : Decision, optional
        A decision of the same parts, by the same options. The pairs that it has found are not looked for again.

    Returns
    -------
    Decision
        Eps, the result of each part, and the re-admitted rows.

    Raises
    ------
    UserError
        If the options contradict each other, or do not fit the data.
    FairdedupError
        If the result breaks a guarantee of the rule: that is a bug.
    """
    context = _Context(parts, map_parts, decide_step, decide_across_step, workspace, clusters, protected)
    if inherited is not None:
        return _decide_against_earlier(context, options, prototypes, inherited, at_most, without_rows)
    kf.check_amount(keep, at_most, eps)
    if not context.valid:
        raise UserError("no row is valid, so there is nothing to decide: see the rejected rows for the reasons")
    if not options.rule.has_eps and eps is not None:
        raise UserError(f"`rule={options.rule.name}` has no eps: give `keep` or `at_most` in place of `eps`")
    target = None
    if eps is None:
        parameter, fraction = ("keep", keep) if keep is not None else ("at_most", at_most)
        assert fraction is not None
        target = kf.kept_target(fraction, context.valid, parameter)
        each = clusters if options.rule.has_eps else 0
        kf.check_target(fraction, context.valid, each, protected, parameter, within=options.within)
    plan = known.plan if known and known.plan else survey(parts, options, prototypes, map_parts)
    if not options.rule.has_eps:
        assert target is not None
        return _draw(context, plan, target)
    across = known.across if known else context.look_across(plan, margin=MARGIN if eps is None else 0)
    if eps is not None:
        return replace(_build_decision(context, plan, eps, context.decide_at(eps, plan, across)), across=across)
    assert target is not None
    reserve = options.reserve if options.rule.reserves_seats and keep is not None else 0.0
    searched = kf.swept_target(target, context.valid, reserve, context.least)
    if across is None:
        eps = search_eps(parts, plan, searched, context.valid, map_parts)
    else:
        eps = search_eps_across(across, searched, context.valid)
    decision = replace(_build_decision(context, plan, eps, context.decide_at(eps, plan, across)), across=across)
    return decision if keep is None else _readmit_to_target(context, decision, target=target, searched=searched)


def _build_decision(context: _Context, plan: Plan, eps: int, results: list[Decided]) -> Decision:
    """Return the decision at an eps, where nothing is re-admitted."""
    kept = context.valid - sum(len(each.removed) for each in results)
    nothing = np.empty(0, np.int64)
    return Decision(eps, results, nothing, kept, _check_guarantees(results, nothing), plan=plan)


def _readmit_to_target(context: _Context, decision: Decision, *, target: int, searched: int) -> Decision:
    """Return the decision with rows re-admitted up to `target`; its eps was searched for `searched` kept rows."""
    plan, results, eps, swept = decision.plan, decision.parts, decision.eps, decision.kept
    assert plan is not None and eps is not None
    if swept >= target:
        return decision
    rows = np.concatenate([each.removed for each in results])
    similarity = np.concatenate([each.similarity for each in results])
    if plan.options.rule.reserves_seats:
        memberships = [np.concatenate(q) for q in zip(*(each.memberships for each in results), strict=True)]
        claimants = Claimants(rows, similarity, memberships)
        readmitted = fill_seats(claimants, target - swept, targets=plan.targets, moments=plan.memberships)
    else:
        readmitted = kf.readmit(rows, similarity, target - swept)
    if searched - swept > SHORTFALL_WARNING * target:
        copies = int(np.count_nonzero(quantised(similarity[np.isin(rows, readmitted)]) == QUANTUM))
        cause = (
            "the data holds many exact copies"
            if 2 * copies > len(readmitted)
            else f"many pairs are equally similar, and one step of eps, to {eps / EPS_UNIT:g}, removes them all"
        )
        seats = target - searched  # of the reserve, which are given to re-admitted rows in any case
        fewer = round(swept * target / searched) if seats else swept
        what = "is a re-admitted duplicate" if searched - swept == 1 else "are re-admitted duplicates"
        decision.warnings.append(
            f"{searched - swept} of {format_count(target, 'kept sample')} {what}, more than 1 %: {cause}; a "
            f"fraction of {kf.shortest_fraction(fewer, context.valid)} keeps none of them"
            f"{' besides the reserved seats' if seats else ''}"
        )
    readmitted.sort()
    guarantees = _check_guarantees(results, readmitted)
    return replace(decision, readmitted=readmitted, kept=target, guarantees=guarantees)


def _draw(context: _Context, plan: Plan, target: int) -> Decision:
    """Decide by a rule without eps: keep the protected rows, then those with the lowest ranks of the data set."""
    found = context.map_parts("list", list_rows, context.parts)
    rows, protected = map(np.concatenate, zip(*found, strict=True))
    rank = plan.options.rule.rank_rows(rows, plan.options)
    last = np.lexsort((rows, rank, ~protected))[target - 1]
    drawn = NOTHING_DRAWN if protected[last] else LastDrawn(int(rank[last]), int(rows[last]))
    plan = replace(plan, last_drawn=drawn)
    results = context.map_parts("decide", context.decide_step, context.parts, MAX_EPS, plan)
    return Decision(None, results, np.empty(0, np.int64), target, dict.fromkeys(GUARANTEES, False), plan=plan)


def _decide_against_earlier(
    context: _Context,
    options: Options,
    prototypes: Prototypes | None,
    inherited: Inherited,
    at_most: float | None,
    without_rows: Sequence[Part],
) -> Decision:
    """Decide the rows of clusters in which earlier runs have kept samples; there may be no row at all."""
    valid, eps = context.valid, inherited.eps
    if not valid:
        return Decision(eps, [], np.empty(0, np.int64), 0, dict.fromkeys(GUARANTEES, True))
    plan = survey(context.parts, options, prototypes, context.map_parts, inherited)
    margin, with_earlier = 0 if at_most is None else MARGIN, [*context.parts, *without_rows]
    across = context.look_across(plan, margin=margin, with_earlier=with_earlier)
    if at_most is not None:
        most = kf.check_cap(at_most, valid, context.least, within=options.within)
        eps = search_eps_from(across or count_over(context.parts, plan, context.map_parts), most, eps)
    return _build_decision(context, plan, eps, context.decide_at(eps, plan, across))


def _check_promises(options: Options, results: Sequence[Decided]) -> None:
    """Refuse a result that breaks a guarantee of the rule: that is a bug."""
    if options.rule.guarantees(cover=options.cover) and any(len(r.orphans) or not r.distinct for r in results):
        raise FairdedupError(
            f"rule {options.rule.name!r} broke its guarantees, so nothing was written: please report this bug"
        )


def _check_guarantees(results: Sequence[Decided], readmitted: NDArray[np.int64]) -> dict[str, bool]:
    """Return whether each guarantee holds, apart from re-admitted rows."""
    orphans = np.concatenate([each.orphans for each in results])
    checked = (all(each.distinct for each in results), bool(np.isin(orphans, readmitted).all()))
    return dict(zip(GUARANTEES, checked, strict=True))
