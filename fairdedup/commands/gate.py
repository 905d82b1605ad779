"""`fairdedup gate`: compare a finished run with bounds on rejects, drift and each group's retention.

Reads run.json and report/audit.json, and changes nothing. docs/audit.md has the measures, docs/increments.md the drift.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fairdedup.audit.audit_report import AttributeReport
from fairdedup.audit.report_files import read_audit_report
from fairdedup.errors import UserError
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import Counts, Drift, require_manifest
from fairdedup.storage.remedies import quote


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Bounds that a run must satisfy; None is not checked.

    Attributes
    ----------
    max_rejected : float or None
        Largest share of the input that may be rejected, 0 to 1; rows that the user excluded do not count.
    max_drift : float or None
        Largest population stability index beyond chance, 0 or more.
    min_retention : float or None
        Smallest keep rate of a group as a share of the largest one in its attribute, 0 to 1.

    Raises
    ------
    UserError
        If no bound is given, or one is out of range.
    """

    max_rejected: float | None = None
    max_drift: float | None = None
    min_retention: float | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in asdict(self).items() if value is not None}
        if not given:
            raise UserError("nothing to check: give --max-rejected, --max-drift or --min-retention")
        for name, value in given.items():
            largest = math.inf if name == "max_drift" else 1
            if not (0 <= value <= largest and math.isfinite(value)):  # also refuses NaN, which every run would pass
                flag = f"--{name.replace('_', '-')}"
                remedy = "0 or more, such as 0.25" if name == "max_drift" else "0 to 1, such as 0.05"
                raise UserError(f"{flag} {value:g} is out of range: give {remedy}")


@dataclass(frozen=True)
class Check:
    """The result of comparing one value with its bound.

    Attributes
    ----------
    passed : bool
        Whether the value is within the bound.
    text : str
        One line that names the value and the bound.
    """

    passed: bool
    text: str


def check_run(root: Path, bounds: Bounds) -> list[Check]:
    """Compare a finished run with bounds.

    Parameters
    ----------
    root : Path
        Run directory. To check a retention, the run must have been audited.
    bounds : Bounds
        Bounds to check.

    Returns
    -------
    list of Check
        One for each bound; for retention, one for each attribute, or for each group below the bound.

    Raises
    ------
    UserError
        If the run is not finished, or has not been audited and retention has a bound.
    """
    directory = RunDirectory(root)
    manifest = require_manifest(directory)
    checks: list[Check] = []
    if bounds.max_rejected is not None:
        checks.append(_check_rejected(manifest.counts, bounds.max_rejected))
    if bounds.max_drift is not None:
        checks.append(_check_drift(manifest.drift, bounds.max_drift))
    if bounds.min_retention is not None:
        audit = read_audit_report(directory)
        if audit is None:
            raise UserError(
                f"{root} has not been audited: run `fairdedup audit {quote(root)}`, or leave --min-retention out"
            )
        for attribute in audit.attributes:
            checks += _check_retention(attribute, bounds.min_retention)
    return checks


def _check_rejected(counts: Counts, bound: float) -> Check:
    rejected = counts.rejected - counts.excluded
    return _compare("rejected", rejected / max(1, counts.input), bound, "--max-rejected")


def _check_drift(drift: Drift | None, bound: float) -> Check:
    if drift is None:
        return Check(True, "drift: none, as there are no earlier or no new rows")
    return _compare("drift (psi beyond chance)", drift.psi_beyond_chance, bound, "--max-drift")


def _compare(what: str, value: float, bound: float, flag: str) -> Check:
    passed = value <= bound
    return Check(passed, f"{what} {value:.4g} is {'within' if passed else 'over'} {flag} {bound:g}")


def _check_retention(attribute: AttributeReport, bound: float) -> Iterator[Check]:
    """Compare every sufficient group of an attribute or intersection; if all pass, report the lowest one."""
    rates = sorted((group.to_best, group.group) for group in attribute.groups if group.to_best is not None)
    if not rates:
        yield Check(True, f"retention by {attribute.attribute}: no group is large enough, or no sample was kept")
        return
    below = [(rate, group) for rate, group in rates if rate < bound]
    how = "under" if below else "within"
    for rate, group in below or rates[:1]:
        text = f"retention of {group!r} by {attribute.attribute} {rate:.4g} is {how} --min-retention {bound:g}"
        yield Check(not below, text)
