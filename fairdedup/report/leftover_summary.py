"""Says in plain sentences what a run guarantees, which duplicates are left, and how similar the removed samples are.

It measures nothing: it words what is in run.json.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fairdedup.core.rules.registry import find_rule

if TYPE_CHECKING:
    from fairdedup.storage.manifest import LeftoverRecord, RunManifest

NEAR_COSINE = 0.95  # that of `storage.manifest`, which loads what `--help` does not need
LOW_MEDIAN = 0.9  # of the cosines of removed samples to their representatives
_PLACES = {"own": "in their own cluster", "comparable": "in a comparable cluster", "elsewhere": "elsewhere"}
GUARANTEES = {
    "no_two_kept_are_duplicates": (
        "no two kept samples of a cluster are duplicates",
        "no two kept samples are duplicates, in a cluster or across comparable ones",
    ),
    "every_removed_has_a_kept_representative": (
        "every removed sample has a kept duplicate in its cluster",
        "every removed sample has a kept duplicate, in its cluster or in another",
    ),
}  # where samples are compared within clusters only, and where they are compared across clusters too
NOT_GUARANTEED = {
    "no_two_kept_are_duplicates": "kept samples may still be duplicates",
    "every_removed_has_a_kept_representative": "removed samples may have no kept duplicate",
}


def list_guarantees(manifest: RunManifest) -> list[tuple[bool, str]]:
    """Return whether each guarantee of a run holds, and what that means.

    Parameters
    ----------
    manifest : RunManifest
        Content of run.json.
    """
    across = looks_across(manifest)
    checked = manifest.guarantees.model_dump()
    return [(holds, GUARANTEES[name][across] if holds else NOT_GUARANTEED[name]) for name, holds in checked.items()]


def looks_across(manifest: RunManifest) -> bool:
    """Return whether a run compared rows of different clusters.

    Parameters
    ----------
    manifest : RunManifest
        Content of run.json.
    """
    from fairdedup.core.model import Options  # not at the top: it loads what `--help` does not need
    from fairdedup.core.reach import REACH_CLUSTERS

    prune = manifest.config["prune"]  # earlier versions never looked across, and record no reach
    known = {"reach": prune.get("reach", 0), "reach_clusters": prune.get("reach_clusters", REACH_CLUSTERS)}
    return Options(rule=find_rule(prune["rule"]), **known).looks_across


def describe_leftover(found: LeftoverRecord, readmitted: int = 0) -> list[str]:
    """Return sentences that say how many kept samples still have a duplicate, and where these are.

    Parameters
    ----------
    found : LeftoverRecord
        What was measured.
    readmitted : int
        Number of re-admitted samples, which are duplicates by their nature and not counted.
    """
    whole = found.looked_up == found.among  # then there is nothing to estimate
    kept = "all" if whole else f"{found.looked_up:,}"
    among = f"{found.among:,} kept samples" if whole else f"kept samples looked up among all {found.among:,} kept"
    among += f" ({readmitted:,} re-admitted aside)" if readmitted else ""
    have = "has" if found.any == 1 else "have"

    def count(kind: str) -> str:
        number = getattr(found, kind)
        return f"{number:,}" if whole else f"{number:,} ({_say_interval(*getattr(found.intervals, kind))})"

    if not found.any:
        bound = "" if whole else f" ({_say_interval(*found.intervals.any)})"
        return [f"Of {kept} {among}, 0 still have a duplicate{bound}."]
    places = ", ".join(f"{count(kind)} {place}" for kind, place in _PLACES.items() if getattr(found, kind))
    return [f"Of {kept} {among}, {count('any')} still {have} a duplicate:", f"  {places}."]


def describe_removed(manifest: RunManifest) -> str | None:
    """Return a sentence that says how few of the removed samples are near-duplicates; None if at least half are.

    Parameters
    ----------
    manifest : RunManifest
        Content of run.json.
    """
    found, eps = manifest.removed_cosines, manifest.eps
    few = None if found is None else describe_few_near(found.samples, found.near_duplicates, found.median)
    if few is None or eps is None:
        return None
    said = f"eps {eps:g}: {few}"
    return said if manifest.against else f"{said}; to remove near-duplicates only: --eps {1 - NEAR_COSINE:.2g}"


def describe_few_near(removed: int, near: int, median: float) -> str | None:
    """Return a clause that says how few removed samples are near-duplicates; None if most are near.

    Parameters
    ----------
    removed : int
        Number of removed samples.
    near : int
        How many have a cosine of at least `NEAR_COSINE` to their representative.
    median : float
        Median of their cosines.
    """
    if median >= LOW_MEDIAN:
        return None
    have = "has" if near == 1 else "have"
    return f"of {removed:,} removed, {near:,} {have} a cosine of {NEAR_COSINE:g} or more to their representative"


def list_remedies(manifest: RunManifest) -> list[str]:
    """Return what would leave fewer duplicates among the kept samples of a run.

    Parameters
    ----------
    manifest : RunManifest
        Content of run.json.
    """
    found, options = manifest.leftover, manifest.config["prune"]
    if found is None or not found.any:
        return []
    rule, remedies = find_rule(options["rule"]), []
    if not rule.sweeps:
        return ["--rule semdedup --cover --reach auto leaves fewer."]
    if (found.own or found.comparable) and not options["cover"] and not manifest.replaced:
        remedies.append("--cover leaves none where samples are compared.")
    if found.elsewhere and looks_across(manifest):
        remedies.append("A larger --reach, as a number, or more --reach-clusters finds more of those elsewhere.")
    elif found.elsewhere and manifest.against is None:
        remedies.append("--reach auto looks for those elsewhere, in other clusters.")
    elif found.elsewhere:
        remedies.append("`fairdedup refit` with --reach auto looks for those elsewhere, in other clusters.")
    return remedies


def _say_interval(low: float, high: float) -> str:
    """Return an interval of a share in percent, rounded outwards."""
    decimals = 1 if high >= 0.001 else 4
    least = f"{math.floor(100 * low * 10**decimals) / 10**decimals:.{decimals}f}"
    most = f"{math.ceil(100 * high * 10**decimals) / 10**decimals:.{decimals}f}"
    if low == 0:
        return f"95 %: under {most} %"
    return f"95 %: over {least} %" if high == 1 else f"95 %: {least} to {most} %"
