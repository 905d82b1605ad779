"""`fairdedup sweep`: its own fractions, values of eps, and the pair at the border of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from runs import Decided, command, done, files, manifest


def sweep(run: Path, *flags: object) -> dict[str, Any]:
    """Return the last event of a sweep."""
    found: dict[str, Any] = json.loads(done("sweep", run, *flags, "--log-json").err.splitlines()[-1])
    return found


@pytest.mark.parametrize("words", [("--rule", "semdedup"), ("--rule", "semdedup", "--published")], ids=str)
def test_the_pair_at_the_border_is_the_least_similar_that_a_run_at_this_eps_links(again, prototypes, words):
    before = files(again)
    found = sweep(again, "--eps", "0.02,0.1", *words)
    assert files(again) == before
    for line, pair, eps in zip(found["sweep"], found["examples"], (0.02, 0.1), strict=True):
        done("prune", again, "--eps", eps, *words, "--prototypes", prototypes, "--quiet")
        decisions = Decided(again).decisions.set_index("row")
        assert (line["eps"], line["kept"], line["readmitted"]) == (eps, manifest(again)["counts"]["kept"], 0)
        linked = decisions[~decisions["kept"] & (decisions["similarity"] > 1 - eps)]
        least = linked.sort_values(["similarity", "row"]).iloc[0] if len(linked) else None
        assert least is not None
        owner = decisions.loc[least["representative"], "id"]
        assert pair == {"eps": eps, "removed": least["id"], "representative": owner, "cosine": least["similarity"]}


def test_without_a_rule_that_was_surveyed_the_pair_is_still_linked(again):
    found = sweep(again, "--eps", "0.1", "--rule", "fairdedup", "--published")
    assert 0.9 < found["examples"][0]["cosine"] <= 1


def test_without_fractions_there_is_a_grid_of_those_that_are_possible(again):
    shown = done("sweep", again, "--rule", "semdedup", "--published").out
    rows = [line.split() for line in shown.splitlines() if line[:1] in " 0"]
    assert [row[0] for row in rows if row and row[0].startswith("0.")] == [f"0.{k}" for k in range(1, 10)]
    assert "the least similar pair at each eps" in shown
    done("cluster", again, "--clusters", 40, "--quiet")
    found = sweep(again, "--rule", "semdedup", "--published", "--no-examples")
    assert [line["keep"] for line in found["sweep"]] == [f / 10 for f in range(2, 10)] and "examples" not in found
    assert "so smaller fractions are left out" in done("sweep", again, "--rule", "semdedup", "--published").out


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--keep", 0.5, "--eps", 0.1), "--keep and --eps exclude each other. Give one of them."),
        (("--eps", "a"), "must be numbers separated by commas, such as 0.01,0.05; got 'a'."),
        (("--eps", "0.00001"), "is not a whole number of ten-thousandths"),
    ],
    ids=str,
)
def test_mistakes_are_one_line(finished, flags, says):
    refused = command("sweep", finished, "--rule", "semdedup", *flags)
    assert (refused.code, refused.err.count("\n")) == (2, 1) and says in refused.err, refused.err
