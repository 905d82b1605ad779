"""Shared by the tests of `--against`: runs of one day, their decisions, and the comparison with the slow twin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pandas as pd
from numpy.typing import NDArray
from problems import Case
from runs import (
    command,
    done,
    manifest,
    prototype_vectors,
)
from runs import table as run_table

from fairdedup.core.model import EarlierKept, Inherited
from fairdedup.core.moments import MembershipMoments, Moments


def promises(problem: oracles.Problem, decision: oracles.Decision, e: int) -> tuple[bool, bool]:
    """Check both guarantees with all pairs, including pairs with samples that earlier runs kept."""
    distinct = represented = True
    for k, rows in problem.clusters.items():
        old = problem.all16[(problem.all_labels == k) & problem.all_kept]
        own = rows[decision["kept"][rows] & ~problem.protected[rows]]
        rest = rows[decision["kept"][rows] & problem.protected[rows]]
        judged = problem.x16[own]
        distinct &= not oracles.duplicates(
            oracles.cosine_matrix(judged, np.concatenate((old, problem.x16[rest]))), e
        ).any()
        distinct &= not np.triu(oracles.duplicates(oracles.cosine_matrix(judged, judged), e), 1).any()
    for row in np.flatnonzero(~decision["kept"]):
        by, own = decision["earlier"][row], decision["representative"][row]
        assert (by >= 0) != (own >= 0)
        other = problem.all16[by] if by >= 0 else problem.x16[own]
        near = oracles.duplicates(oracles.cosine_matrix(problem.x16[[row]], other[None]), e)[0, 0]
        represented &= bool(near and (by >= 0 or decision["kept"][own]))
    return bool(distinct), represented


def earlier_of(problem: oracles.Problem, k: int) -> EarlierKept:
    """Return the samples of a cluster that earlier runs kept; their names are their places among all earlier rows."""
    before = problem.before
    mine, kept = problem.all_labels[:before] == k, problem.all_kept[:before]
    own, sums = np.flatnonzero(mine & kept), None
    if problem.rule == "fairdedup" and mine.any():
        day = np.repeat(np.arange(len(problem.earlier)), [len(day.x16) for day in problem.earlier])
        begun = problem.all_p[:before][mine & (day == day[mine].min())]
        start = np.rint(begun.sum(axis=0) / len(begun)).astype(np.int64) if problem.start == "cluster" else 0
        sums = start + problem.all_p[own].sum(axis=0)
    codes = codes_of(problem)
    return EarlierKept(problem.all16[own], own, own, sums, None if codes is None else codes[own])


def codes_of(problem: oracles.Problem) -> NDArray[np.int64] | None:
    """Return a number for the value of `within` of each row, those of earlier runs first; None without the option."""
    if not problem.within:
        return None
    return np.array([hash(group) for group in problem.groups], np.int64)


def inherited_of(problem: oracles.Problem, case: Case) -> Inherited:
    """Return what the runs before a problem hand down."""
    if problem.rule == "balanced":
        moments = (MembershipMoments.of(q[: problem.before]) for q in problem.q.values())
        return Inherited(case.eps, tuple(problem.temperatures.values()), tuple(moments))
    if problem.rule == "fairdedup" and case.options.get("calibrate") == "zscore":
        first = problem.earlier[0].x16
        found = [
            oracles.cosine_matrix(
                first, oracles.unit16([vector for name, vector in concepts.items() if name != "absent"])
            )
            for concepts in case.prototypes.values()
        ]
        return Inherited(case.eps, moments=Moments.of(np.hstack(found)))
    return Inherited(case.eps)


def night(days: Path, number: int, out: Path, scheduler: str, *words: object) -> Path:
    done(
        "run",
        days / f"day{number}.npy",
        "--out",
        out,
        "--scheduler",
        scheduler,
        "--max-rejected",
        0.5,
        *words,
        "--quiet",
    )
    return out


def unit_of(run: Path) -> NDArray[np.float16]:
    return np.load(run / "embeddings" / "img_emb" / "img_emb_0.npy")


def decisions_of(run: Path) -> pd.DataFrame:
    return run_table(run / "decisions")


def assert_decided_as_by_the_oracle(
    runs: list[Path], rule: str, within: list[list[Any]] | None = None, **options: Any
) -> oracles.Decision:
    """Compare the last of several runs with the twin, which sees the vectors and the kept rows of the earlier runs.

    `within` has the values of the valid rows of each run. The twin's decision is returned.
    """
    centroids = oracles.unit16(np.load(runs[0] / "clusters" / "centroids.npy"))
    labels = [oracles.assign(unit_of(run), centroids) for run in runs]
    before = [
        oracles.Day(unit_of(run), own, decisions_of(run)["kept"].to_numpy(), values)
        for run, own, values in zip(runs[:-1], labels, within or [None] * len(runs), strict=False)
    ]
    problem = oracles.Problem(
        unit_of(runs[-1]),
        labels[-1],
        rule,
        prototypes=prototype_vectors(),
        centroids16=centroids,
        earlier=before,
        line_eps=round(manifest(runs[0])["eps"] * 10_000),
        within=None if within is None else within[len(runs) - 1],
        **options,
    )
    found, known = decisions_of(runs[-1]), manifest(runs[-1])
    e = round(known["eps"] * 10_000)
    expected = problem.at_eps(e)
    first = round(manifest(runs[0])["eps"] * 10_000)
    cap = known["config"]["prune"]["at_most"]
    if cap is None:
        assert e == first
    else:
        assert problem.count(e) <= oracles.kept_seats(cap, problem.n)
        below = range(first, e) if not options.get("reach") else range(max(first, e - 1), e)
        assert all(problem.count(lower) > oracles.kept_seats(cap, problem.n) for lower in below)
    rows = found["row"].to_numpy()
    for name in ("cluster", "kept", "similarity", "centroid_similarity", "readmitted"):
        assert (found[name].to_numpy() == expected[name]).all(), name
    for name in ("representative", "neighbourhood"):
        assert (found[name].to_numpy() == np.where(expected[name] >= 0, rows[expected[name]], -1)).all(), name
    everyone = pd.concat([decisions_of(run).assign(run=str(run)) for run in runs[:-1]], ignore_index=True)
    by = np.flatnonzero(expected["earlier"] >= 0)
    assert found["representative_run"].isna().to_numpy().tolist() == (expected["earlier"] < 0).tolist()
    for place in by.tolist():
        other = everyone.loc[expected["earlier"][place]]
        assert found.loc[place, ["representative_run", "representative_id"]].tolist() == [other["run"], other["id"]]
    counts = known["counts"]
    assert counts["kept"] + counts["removed"] + counts["rejected"] == counts["input"]
    assert tuple(known["guarantees"].values()) == tuple(not broken for broken in problem.broken(expected, e))
    left = known["leftover"]
    if left is not None and left["looked_up"] == counts["kept"]:
        wanted = tuple(problem.leftover(expected, e))
        assert tuple(left[name] for name in ("looked_up", "own", "comparable", "elsewhere", "any")) == wanted
    return expected


def refused(*words: object) -> str:
    shown = command("run", *words, "--quiet")
    assert shown.code == 2 and shown.err.count("\n") == 1, shown
    return shown.err
