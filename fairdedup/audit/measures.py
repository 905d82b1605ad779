"""The measures of one attribute or intersection, with a reason wherever a value is missing.

The input is counts by cluster and group, the output a report and the terms of each group's loss. It reads no rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.audit.audit_report import Amount, AttributeReport, GroupLoss, GroupReport
from fairdedup.core.groups import GroupCells
from fairdedup.core.representation import (
    FOUR_FIFTHS,
    Measures,
    compute_intervals,
    compute_measures,
    decompose,
    holm,
    random_test,
    resample_clusters,
)
from fairdedup.errors import format_count

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
CROSS = " × "
EXACT_TEST = "two-sided hypergeometric against `random` at the same count, Holm over the groups"
NO_TEST = "none: sums of memberships have no exact test; the interval of the shift takes its place"


@dataclass(frozen=True)
class AuditedAttribute:
    """One attribute, or an intersection of several.

    Attributes
    ----------
    names : tuple of str
        Names of the attributes.
    labels : tuple of tuple of str
        For each group, its labels, one of each attribute.
    cells : GroupCells
        The same labels as numbers.
    columns : slice
        Position of its groups among all counted groups.
    """

    names: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    cells: GroupCells
    columns: slice

    def group_name(self, group: int) -> str:
        """Return the name of a group, its labels joined."""
        return CROSS.join(self.labels[group])


@dataclass(frozen=True, kw_only=True)
class MeasureSettings:
    """Settings that are the same for all attributes of an audit.

    Attributes
    ----------
    unit : int
        Value of one row in the counts.
    target : "uniform", "data", or mapping of attribute to mapping of group to share
        Shares to measure the distance to.
    min_count : int
        Number of rows below which a group is insufficient.
    draws, seed : int
        Number of resamplings of the clusters, and their seed.
    labelled_from : int or None
        Number of rows that could have a label; None for sums of memberships, which have no exact test.
    """

    unit: int
    target: Any
    min_count: int
    draws: int
    seed: int
    labelled_from: int | None


@dataclass(frozen=True)
class LossTerms:
    """The terms of the loss of each of the g groups of an attribute that have rows, by cluster.

    Attributes
    ----------
    attribute : AuditedAttribute
        The attribute.
    present : ndarray of shape (g,), int64
        Numbers of these groups in the attribute.
    before, after : ndarray of shape (k, g), float64
        Rows and kept rows of each group in each cluster.
    between, within : ndarray of shape (k, g), float64
        The terms of their losses.
    """

    attribute: AuditedAttribute
    present: NDArray[np.int64]
    before: Floats
    after: Floats
    between: Floats
    within: Floats


@dataclass(frozen=True)
class _Findings:
    """Results for the g groups of an attribute that have rows, before they are put into a report."""

    sufficient: NDArray[np.bool_]
    measures: Measures
    intervals: dict[str, Floats]  # empty if there are fewer than two clusters
    clusters: int
    p: Floats
    p_holm: Floats

    def interval(self, name: str, g: int) -> tuple[float, float] | None:
        """Return the interval of one measure of one group."""
        return tuple(self.intervals[name][g].tolist()) if name in self.intervals else None


def measure_attribute(
    attribute: AuditedAttribute, before: Counts, after: Counts, settings: MeasureSettings
) -> tuple[AttributeReport, LossTerms]:
    """Measure one attribute or intersection.

    Parameters
    ----------
    attribute : AuditedAttribute
        The attribute.
    before, after : ndarray of shape (k, g), int64
        Rows and kept rows of each of its groups in each cluster, in multiples of 1 / `unit`.
    settings : MeasureSettings
        Settings of the audit.

    Returns
    -------
    report : AttributeReport
        The measures. `explain_losses` adds the clusters to the losses of its groups.
    loss : LossTerms
        What each cluster contributes to each loss.
    """
    unit = settings.unit
    present = np.flatnonzero(before.sum(axis=0))
    before, after = before[:, present], after[:, present]
    rows, kept = before / unit, after / unit
    loss = LossTerms(attribute, present, rows, kept, *decompose(rows, kept))
    counted = _amount(before.sum(), unit)
    report = AttributeReport(
        attribute=CROSS.join(attribute.names),
        attributes=list(attribute.names),
        intersection=len(attribute.names) > 1,
        rows=counted,
        kept=_amount(after.sum(), unit),
        unlabelled=None if settings.labelled_from is None else settings.labelled_from - int(counted),
        groups=[],
    )
    if not len(present):
        report.why = "no sample has a label for it"
        return report, loss
    n, k = before.sum(axis=0), after.sum(axis=0)
    shares, target = _target_shares(attribute, present, n, settings.target)
    findings = _measure(loss, n, k, shares, settings)
    _fill_in(report, findings, attribute.group_name(int(present[findings.measures.majority])))
    report.keep_rate, report.target = float(k.sum() / n.sum()), target
    report.test = NO_TEST if settings.labelled_from is None else EXACT_TEST
    if not k.sum():
        report.why = "no sample with a label for it is kept: there are no shares after"
    report.groups = [_report_group(loss, findings, g, n, k, settings) for g in range(len(present))]
    return report, loss


def _measure(loss: LossTerms, n: Counts, k: Counts, shares: Floats, settings: MeasureSettings) -> _Findings:
    sufficient = n >= settings.min_count * settings.unit
    found = compute_measures(n / settings.unit, k / settings.unit, sufficient, shares)
    some = loss.before.sum(axis=1) > 0
    drawn = {}
    if some.sum() > 1:
        resamples = resample_clusters(loss.before[some], loss.after[some], settings.draws, settings.seed)
        drawn = compute_intervals(*resamples, sufficient)
    p = np.full(len(n), np.nan)
    p_holm = p.copy()
    if settings.labelled_from is not None and sufficient.any() and len(n) > 1:
        p[sufficient] = random_test(n, k)[sufficient]
        p_holm[sufficient] = holm(p[sufficient])
    return _Findings(sufficient, found, drawn, int(some.sum()), p, p_holm)


def _fill_in(report: AttributeReport, findings: _Findings, majority: str) -> None:
    found = findings.measures
    report.ratio, report.ratio_interval = found.ratio, findings.interval("ratio", 0)
    report.under_four_fifths = _is_under_four_fifths(found.ratio)
    report.majority = majority
    report.non_majority_before, report.non_majority_after = found.non_majority
    report.distance_before, report.distance_after = found.distance
    report.kl_to_full, report.kl_to_uniform = found.kl_full, found.kl_uniform


def _report_group(
    loss: LossTerms, findings: _Findings, g: int, n: Counts, k: Counts, settings: MeasureSettings
) -> GroupReport:
    unit, found = settings.unit, findings.measures
    sufficient = bool(findings.sufficient[g])
    report = GroupReport(
        group=loss.attribute.group_name(int(loss.present[g])),
        before=_amount(n[g], unit),
        kept=_amount(k[g], unit),
        sufficient=sufficient,
        loss=GroupLoss(
            between=float(loss.between[:, g].sum()),
            within=float(loss.within[:, g].sum()),
            whole=float(n[g] / unit * k.sum() / n.sum() - k[g] / unit),
        ),
    )
    if not sufficient:
        report.why = f"insufficient: under {settings.min_count}"
        return report
    report.rate, report.to_best = found.rate[g], found.to_best[g]
    report.share_before, report.share_after = found.share_before[g], found.share_after[g]
    report.shift, report.skew = found.shift[g], found.skew[g]
    report.under_four_fifths = _is_under_four_fifths(float(found.to_best[g]))
    report.rate_interval = findings.interval("rate", g)
    report.shift_interval = findings.interval("shift", g)
    report.skew_interval = findings.interval("skew", g)
    report.p, report.p_holm = findings.p[g], findings.p_holm[g]
    report.why = _reason(report, findings.clusters, int((loss.before[:, g] > 0).sum()))
    return report


def _reason(report: GroupReport, clusters: int, own: int) -> str | None:
    """Return why a value of a sufficient group is missing, or None."""
    if clusters < 2:
        return "no interval: it needs at least two clusters"
    if report.rate_interval is None:
        return f"no interval: the group is in {own} of {format_count(clusters, 'cluster')}, too few to resample"
    if report.kept == 0:
        return "no sample of the group is kept: the skew is -inf"
    return None


def _is_under_four_fifths(ratio: float) -> bool | None:
    return None if math.isnan(ratio) else ratio < FOUR_FIFTHS


def _amount(amount: np.integer | int, unit: int) -> Amount:
    return int(amount) if unit == 1 else int(amount) / unit


def _target_shares(
    attribute: AuditedAttribute, present: NDArray[np.int64], n: Counts, target: Any
) -> tuple[Floats, str]:
    """Return the target shares (g,) of the groups that have a row, and the name of the target."""
    if target == "data":
        return n / n.sum(), "data"
    shares, name = np.ones(len(present)), "uniform"
    for k, own in enumerate(attribute.names):
        given = target.get(own) if isinstance(target, Mapping) else None
        if isinstance(given, Mapping) and {labels[k] for labels in attribute.labels} <= set(given):
            shares *= [float(given[attribute.labels[group][k]]) for group in present]
            name = "the run's own"
    if not shares.sum():
        return np.full(len(present), 1 / len(present)), "uniform"
    return shares / shares.sum(), name
