"""The sentences about what is left: counts, intervals that are rounded outwards, and a remedy that fits the run."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from runs import done

from fairdedup.cli.run_summary import print_summary
from fairdedup.report.leftover_summary import describe_leftover, list_remedies, looks_across
from fairdedup.storage.manifest import LeftoverRecord, RunManifest


def record(looked_up: int = 1000, among: int = 120_000, **found: Any) -> LeftoverRecord:
    """Return a record with counts by kind, and with the intervals in `at`."""
    at = {kind: (0.0, 0.00368) for kind in ("own", "comparable", "elsewhere", "any")} | found.pop("at", {})
    counts = {"own": 0, "comparable": 0, "elsewhere": 0, "any": 0} | found
    return LeftoverRecord.model_validate({"looked_up": looked_up, "among": among, **counts, "intervals": at})


def manifest_of(leftover: LeftoverRecord | None, **changes: Any) -> RunManifest:
    prune = {"rule": "semdedup", "cover": False, "reach": 0, "reach_clusters": 16} | changes.pop("prune", {})
    return RunManifest.model_validate({
        "fairdedup": "1", "versions": {}, "seed": 0, "encoder": None, "stages": {}, "files": {},
        "counts": {"input": 4, "valid": 4, "kept": 2, "removed": 2, "rejected": 0}, "clusters": 1,
        "eps": 0.05, "config": {"prune": prune}, "warnings": [], "shares": [], "leftover": leftover,
        "input": {"source": "x.npy", "format": "npy", "kind": "embeddings", "fingerprint": ""},
        "guarantees": {"no_two_kept_are_duplicates": True, "every_removed_has_a_kept_representative": True},
        **changes,
    })  # fmt: skip


def test_none_left_is_one_sentence() -> None:
    assert describe_leftover(record()) == [
        "Of 1,000 kept samples looked up among all 120,000 kept, 0 still have a duplicate (95 %: under 0.4 %)."
    ]
    assert describe_leftover(record(90, 90)) == ["Of all 90 kept samples, 0 still have a duplicate."]


def test_what_is_left_is_counted_by_place() -> None:
    at = {"own": (0.0055, 0.0183), "elsewhere": (0.1279, 0.1726), "any": (0.1373, 0.1832)}
    assert describe_leftover(record(own=11, elsewhere=150, any=160, at=at)) == [
        "Of 1,000 kept samples looked up among all 120,000 kept, 160 (95 %: 13.7 to 18.4 %) still have a duplicate:",
        "  11 (95 %: 0.5 to 1.9 %) in their own cluster, 150 (95 %: 12.7 to 17.3 %) elsewhere.",
    ]
    assert describe_leftover(record(45, 45, comparable=1, any=1)) == [
        "Of all 45 kept samples, 1 still has a duplicate:", "  1 in a comparable cluster.",
    ]  # fmt: skip
    assert (
        "1 (95 %: 0.0 to 0.6 %) elsewhere"
        in describe_leftover(record(elsewhere=1, any=1, at={"elsewhere": (0.0000253, 0.00556)}))[1]
    )
    every = {"own": (0.99632, 1.0), "any": (0.99632, 1.0)}
    assert "1,000 (95 %: over 99.6 %) in their own" in describe_leftover(record(own=1000, any=1000, at=every))[1]
    assert "(95 %: under 0.0037 %)" in describe_leftover(record(100_000, at={"any": (0, 0.0000369)}))[0]


ELSEWHERE, OWN = record(elsewhere=3, any=3), record(own=3, any=3)


@pytest.mark.parametrize(
    ("found", "changes", "remedies"),
    [
        (None, {}, []),
        (record(), {}, []),
        (ELSEWHERE, {}, ["--reach auto looks for"]),
        (ELSEWHERE, {"against": ["day1"]}, ["`fairdedup refit` with --reach auto"]),
        (ELSEWHERE, {"prune": {"reach": "auto"}}, ["A larger --reach"]),
        (ELSEWHERE, {"prune": {"rule": "semdedup-chain"}}, ["--rule semdedup --cover --reach auto"]),
        (OWN, {}, ["--cover leaves none"]),
        (OWN, {"prune": {"cover": True}}, []),
        (record(own=1, elsewhere=2, any=3), {}, ["--cover leaves none", "--reach auto looks for"]),
    ],
)
def test_the_remedy_fits_the_run(found: Any, changes: dict[str, Any], remedies: list[str]) -> None:
    said = list_remedies(manifest_of(found, **changes))
    assert len(said) == len(remedies)
    assert all(text in line for text, line in zip(remedies, said, strict=True))


def printed(manifest: RunManifest) -> str:
    page = io.StringIO()
    print_summary(manifest, Path("run"), Console(file=page, width=200, highlight=False))
    return page.getvalue()


def test_the_guarantees_say_where_they_hold() -> None:
    within, across = manifest_of(ELSEWHERE), manifest_of(None, prune={"reach": "auto"})
    assert (looks_across(within), looks_across(across)) == (False, True)
    assert "yes  no two kept samples of a cluster are duplicates\n" in printed(within)
    assert "yes  every removed sample has a kept duplicate in its cluster\n" in printed(within)
    assert "yes  no two kept samples are duplicates, in a cluster or across comparable ones\n" in printed(across)
    assert "yes  every removed sample has a kept duplicate, in its cluster or in another\n" in printed(across)
    assert not looks_across(manifest_of(None, prune={"rule": "semdedup-chain", "reach": "auto"}))
    early = manifest_of(None)
    del early.config["prune"]["reach"], early.config["prune"]["reach_clusters"]
    assert not looks_across(early)


def test_the_summary_and_the_audit_say_what_is_left(again, prototypes, scheduler, tmp_path) -> None:
    asked = ("--prototypes", prototypes, "--scheduler", scheduler)
    shown = done("prune", again, "--eps", 0.05, "--rule", "semdedup", "--published", "--leftover", 75, *asked).out
    sentence = re.search(r"Of 75 kept samples looked up among all \d+ kept, \d+ .*still ha.*", shown)
    assert sentence is not None
    assert "--reach auto looks for those elsewhere" in shown
    assert sentence[0] in done("audit", again, *asked).out
    assert "looked up among" not in done("prune", again, "--keep", 0.5, "--rule", "random", *asked).out
