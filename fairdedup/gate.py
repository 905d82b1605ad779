"""`fairdedup gate`: whether a finished run may be handed on, by bounds on rejects, drift and each group's retention.

Reads run.json and report/audit.json, and changes nothing; docs/audit.md has the measures, docs/increments.md the drift.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fairdedup.errors import UserError
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import RunManifest, require_manifest
from fairdedup.storage.run_files import read_json


@dataclass(frozen=True)
class Bounds:
    """What a run has to keep to; None is not looked at.

    Attributes
    ----------
    max_rejected : float or None
        Largest share of the input that was rejected; rows that the user left out do not count.
    max_drift : float or None
        Largest population stability index beyond chance.
    min_retention : float or None
        Smallest keep rate of a group, as a share of the largest one in its attribute.

    Raises
    ------
    UserError
        If none is given, or one is out of range.
    """

    max_rejected: float | None = None
    max_drift: float | None = None
    min_retention: float | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in asdict(self).items() if value is not None}
        if not given:
            raise UserError("nothing to check: give --max-rejected, --max-drift or --min-retention")
        for name, value in given.items():
            most = math.inf if name == "max_drift" else 1
            if not (0 <= value <= most and math.isfinite(value)):  # NaN too: it would let everything pass
                flag = f"--{name.replace('_', '-')}"
                wanted = "0 or more, as 0.25" if name == "max_drift" else "0 to 1, as 0.05"
                raise UserError(f"{flag} {value:g} is out of range: give {wanted}")


@dataclass(frozen=True)
class Check:
    """One value beside its bound, as a line of text."""

    passed: bool
    text: str


def check_run(root: Path, bounds: Bounds) -> list[Check]:
    """Compare a finished run with the bounds.

    Parameters
    ----------
    root : Path
        Run directory; audited, where a retention is asked for.
    bounds : Bounds

    Raises
    ------
    UserError
        If the run is not finished, or not audited.
    """
    directory = RunDirectory(root)
    manifest = require_manifest(directory)
    audit = None
    if bounds.min_retention is not None:
        audit = read_json(directory.report("audit.json"))
        if audit is None:
            raise UserError(f"{root} has not been audited: run `fairdedup audit {root}`, or leave --min-retention out")
    return list(_checks(manifest, audit, bounds))


def _checks(manifest: RunManifest, audit: dict[str, Any] | None, bounds: Bounds) -> Iterator[Check]:
    if bounds.max_rejected is not None:
        counts = manifest.counts
        rejected = counts.rejected - counts.excluded
        yield _at_most("rejected", rejected / max(1, counts.input), bounds.max_rejected, "--max-rejected")
    if bounds.max_drift is not None:
        drift = manifest.drift
        if drift is None:
            yield Check(True, "drift: none, as there are no earlier or no new rows")
        else:
            beyond = drift.psi - drift.psi_by_chance
            yield _at_most("drift (psi beyond chance)", beyond, bounds.max_drift, "--max-drift")
    if bounds.min_retention is not None and audit is not None:
        for attribute in audit["attributes"]:
            yield from _retention(attribute, bounds.min_retention)


def _at_most(what: str, value: float, bound: float, flag: str) -> Check:
    passed = value <= bound
    return Check(passed, f"{what} {value:.4g} is {'within' if passed else 'over'} {flag} {bound:g}")


def _retention(attribute: dict[str, Any], bound: float) -> Iterator[Check]:
    """Compare every sufficient group of an attribute or intersection; where all pass, the least is told."""
    known = [(g["to_best"], g["group"]) for g in attribute["groups"] if g["to_best"] is not None]
    if not known:
        yield Check(True, f"retention by {attribute['attribute']}: no group is large enough, or nobody was kept")
        return
    below = [(value, group) for value, group in sorted(known) if value < bound]
    how = "under" if below else "within"
    for value, group in below or [min(known)]:
        text = f"retention of {group!r} by {attribute['attribute']} {value:.4g} is {how} --min-retention {bound:g}"
        yield Check(not below, text)
