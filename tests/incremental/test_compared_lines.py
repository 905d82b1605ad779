"""`fairdedup compare` and `sweep` of a run of a line: what they say is what `prune` of that night makes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
from nights import decisions_of, unit_of
from runs import command, done, files, manifest, raw_vectors

RULES = ("semdedup", "fairdedup", "balanced")


def night(days: Path, number: int, out: Path, *words: object) -> Path:
    """Return the run of a day; so few rows need no cluster."""
    done("run", days / f"day{number}.npy", "--out", out, "--max-rejected", 0.5, *words, "--quiet")
    return out


@pytest.fixture(scope="module", params=["within", "across"])
def nights(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    prototypes: Path,
) -> list[Path]:
    """Return runs of three days, each against the one before: within clusters, and across."""
    out = tmp_path_factory.mktemp("nights")
    x = raw_vectors(300, seed=5)
    for k, own in enumerate((slice(0, 80), slice(80, 120), slice(120, 300))):
        np.save(out / f"day{k}.npy", x[own])
    reach = ("--reach", 0) if request.param == "within" else ()
    words = ("--keep", 0.6, "--prototypes", prototypes, "--clusters", 4, *reach)
    runs = [night(out, 0, out / "day0", *words)]
    runs.append(night(out, 1, out / "day1", "--against", runs[0]))
    return [*runs, night(out, 2, out / "day2", "--against", runs[1])]


def last_event(*words: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done(*words, "--log-json").err.splitlines()[-1])
    return found


def copy_of(run: Path, tmp_path: Path) -> Path:
    """Return a copy of a run of a line, which is decided again without changing the line."""
    return Path(shutil.copytree(run, tmp_path / run.name))


def test_a_rule_is_compared_as_the_night_would_be_decided_by_it(nights, tmp_path):
    run = nights[2]
    before = files(run)
    found = last_event("compare", run, "--rules", ",".join((*RULES, "random")))
    assert files(run) == before
    assert [rule["rule"] for rule in found["rules"]] == ["this run", *RULES]
    assert any("random is left out" in note for note in found["notes"])
    own = decisions_of(run)["kept"].to_numpy()
    old = np.concatenate([unit_of(day)[decisions_of(day)["kept"].to_numpy()] for day in nights[:2]])
    copy = copy_of(run, tmp_path)
    for rule in found["rules"][1:]:
        done("prune", copy, "--rule", rule["rule"], "--quiet")
        known, kept = manifest(copy), decisions_of(copy)["kept"].to_numpy()
        assert (rule["kept"], rule["eps"]) == (known["counts"]["kept"], known["eps"])
        assert rule["differs"] == (kept != own).sum()
        assert rule["leftover"] == known["leftover"]
        unit = unit_of(copy)
        cosines = oracles.cosine_matrix(unit, np.concatenate((old, unit[kept]))).max(axis=1)
        assert rule["coverage"]["mean"] == pytest.approx(cosines.mean())
    assert found["rules"][2] == {**found["rules"][0], "rule": "fairdedup"}  # the rule of the line
    assert max(rule["differs"] for rule in found["rules"]) > 0


def test_a_cap_is_compared_and_a_fraction_refused_with_the_remedy(nights):
    words = ("compare", nights[2], "--rules", "semdedup")
    capped = last_event(*words, "--at-most", 0.05)["rules"]
    assert capped[1]["kept"] <= 9 < capped[0]["kept"] and capped[1]["eps"] > capped[0]["eps"]
    refused = command(*words, "--keep", 0.3, "--quiet")
    assert (refused.code, refused.err.count("\n")) == (2, 1) and "--at-most 0.3" in refused.err


def test_a_rule_that_needs_prototypes_is_left_out_of_a_line_without_them(days, tmp_path):
    words = ("--keep", 0.5, "--rule", "semdedup", "--clusters", 4, "--reach", 0)
    first = night(days, 0, tmp_path / "day0", *words)
    second = night(days, 1, tmp_path / "day1", "--against", first)
    found = last_event("compare", second, "--rules", "semdedup,balanced")
    assert [rule["rule"] for rule in found["rules"]] == ["this run", "semdedup"]
    assert any("the runs before this one have none" in note for note in found["notes"])
    refused = command("compare", second, "--rules", "balanced,random", "--quiet")
    assert (refused.code, refused.err.count("\n")) == (2, 1) and "no rule is left" in refused.err


def test_a_sweep_counts_what_a_cap_or_an_eps_keeps_of_the_night(nights, tmp_path):
    run, first = nights[2], manifest(nights[0])["eps"]
    before = files(run)
    found = last_event("sweep", run, "--keep", "0.1,0.2")
    assert files(run) == before
    copy = copy_of(run, tmp_path)
    for line in found["sweep"]:
        done("prune", copy, "--at-most", line["keep"], "--quiet")
        known = manifest(copy)
        assert (line["kept"], line["eps"], line["readmitted"]) == (known["counts"]["kept"], known["eps"], 0)
    grid = last_event("sweep", run, "--no-examples")["sweep"]
    assert (grid[-1]["eps"], grid[-1]["kept"]) == (first, manifest(run)["counts"]["kept"])
    assert [line["eps"] for line in grid] == sorted((line["eps"] for line in grid), reverse=True)
    assert all(line["kept"] <= grid[-1]["kept"] for line in grid)
    assert last_event("sweep", run, "--eps", first)["sweep"][0]["kept"] == grid[-1]["kept"]


def test_a_sweep_below_the_eps_of_the_line_is_refused_with_the_least_that_works(nights):
    first = manifest(nights[0])["eps"]
    refused = command("sweep", nights[2], "--eps", "0.0001", "--quiet")
    assert (refused.code, refused.err.count("\n")) == (2, 1) and f"give {first:g} or more" in refused.err
