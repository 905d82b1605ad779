"""`fairdedup explain`: the three lines say what the decisions and float64 cosines say."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import oracles
import pytest
from runs import Decided, command, done, files


def explain(run: Path, name: str, *flags: object) -> list[str]:
    return done("explain", run, "--id", name, "--quiet", *flags).out.splitlines()


def least_eps(cosine: float) -> float:
    """Return the least eps, by steps of a ten-thousandth, at which a pair is linked."""
    steps = math.floor((1 - cosine) * 10_000)
    while not cosine > 1 - steps / 10_000:
        steps += 1
    return steps / 10_000


@pytest.fixture
def covered(again: Path, prototypes: Path) -> Decided:
    """Return a run in which some samples were re-admitted."""
    done("prune", again, "--keep", 0.5, "--rule", "balanced", "--prototypes", prototypes, "--quiet")
    return Decided(again)


def test_a_removed_sample_names_its_representative_and_the_eps_of_their_link(covered):
    decisions = covered.decisions.set_index("row")
    removed = decisions[~decisions["kept"]]
    row = removed["similarity"].idxmin()
    line = removed.loc[row]
    before = files(covered.run)
    first, second, third = explain(covered.run, line["id"])
    assert first == f"{line['id']}: removed, in cluster {line['cluster']}"
    owner = decisions.loc[line["representative"], "id"]
    assert second == f"{owner} stands for it, with a cosine of {line['similarity']:.4f}."
    assert third.startswith(f"They are linked at eps {least_eps(line['similarity']):.4f} or more.")
    assert files(covered.run) == before


def test_a_kept_sample_names_those_it_stands_for_and_its_nearest_kept_one(covered):
    decisions = covered.decisions
    owner = decisions[~decisions["kept"]]["representative"].value_counts().idxmax()
    own = decisions[~decisions["kept"] & (decisions["representative"] == owner)]
    place = int(np.flatnonzero(decisions["row"] == owner)[0])
    name = decisions["id"][place]
    first, second, third = explain(covered.run, name)
    assert first == f"{name}: kept, in cluster {decisions['cluster'][place]}"
    nearest_first = own.sort_values(["similarity", "row"], ascending=[False, True])
    best = nearest_first.iloc[0]
    assert second.startswith(f"It stands for {len(own)} removed sample")
    assert f": {best['id']} ({best['similarity']:.4f})" in second
    cosines = oracles.cosine_matrix(covered.unit, covered.unit)[place]
    kept = decisions["kept"].to_numpy().copy()
    kept[place] = False
    other = np.flatnonzero(kept)[np.argmax(cosines[kept])]
    assert f"is {decisions['id'][other]} ({cosines[other]:.4f}): they are linked at" in third
    least = nearest_first.iloc[-1]
    assert third.endswith(f"Below eps {least_eps(least['similarity']):.4f} it no longer stands for {least['id']}.")


def test_a_sample_that_was_readmitted_says_for_whom_it_had_been_removed(covered):
    decisions = covered.decisions.set_index("row")
    line = decisions[decisions["readmitted"]].iloc[0]
    first, second, _ = explain(covered.run, line["id"])
    assert first.endswith("it was removed first") and ": re-admitted," in first
    assert second.startswith(f"{decisions.loc[line['representative'], 'id']} stood for it")


def test_samples_that_were_left_out_drawn_or_are_unknown(again, tmp_path, prototypes):
    (tmp_path / "drop.txt").write_text("k31\n")
    words = ("prune", again, "--keep", 0.5, "--rule", "random", "--drop", tmp_path / "drop.txt", "--quiet")
    done(*words, "--prototypes", prototypes)
    assert explain(again, "k31")[0] == "k31: left out (drop: drop.txt)"
    decisions = Decided(again).decisions
    removed = decisions[~decisions["kept"]].iloc[0]
    assert explain(again, removed["id"])[1] == "No sample stands for it: this rule draws samples at random."
    for name in ("k7", "nobody"):
        refused = command("explain", again, "--id", name, "--quiet")
        assert (refused.code, refused.err.count("\n")) == (2, 1)


def test_a_sample_of_an_earlier_run_is_named(again, embeddings, tmp_path):
    day_2 = tmp_path / "day-2"
    done("run", embeddings, "--against", again, "--out", day_2, "--id", "shard/key", "--quiet")
    line = Decided(day_2).decisions.iloc[3]
    _, second, third = explain(day_2, line["id"])
    assert f"{line['representative_id']}, which the earlier run " in second and "They are linked at eps" in third


def test_the_page_shows_the_sample_beside_its_representative(images_run, scheduler, tmp_path):
    decisions = Decided(images_run).decisions
    name = decisions[~decisions["kept"]].iloc[0]["id"]
    page = tmp_path / "page.html"
    shown = done("explain", images_run, "--id", name, "--html", page, "--scheduler", scheduler, "--log-json").err
    event = json.loads(shown.splitlines()[-1])
    assert event["page"] == str(page) and len(event["lines"]) == 3 and event["sample"]["id"] == name
    text = page.read_text(encoding="utf-8")
    assert text.count('src="data:image/jpeg;base64,') == 2 and "Stands for it" in text
