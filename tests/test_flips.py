"""A damaged file of a run is an error of one line, or makes no difference: every file, by every command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from flips import DAMAGES, Place, build, draw_cases, expect, jobs, try_case

from fairdedup import cli

SAMPLED, ALL = 30, 700  # cases of each kind of run


@pytest.fixture(params=["vectors", "line", "images"], scope="module")
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def place(kind: str, tmp_path_factory: pytest.TempPathFactory, scheduler: str, request: pytest.FixtureRequest) -> Place:
    folder = tmp_path_factory.mktemp("flips")
    made = Place(folder / "work", folder / "pristine", scheduler)
    images = [request.getfixturevalue(name) for name in ("shards", "weights")] if kind == "images" else []
    build(made, kind, *images)
    return made


def try_cases(place: Place, kind: str, number: int, seed: int) -> None:
    cases = list(draw_cases(place, kind, number, seed))
    expected = expect(place, kind, {case.job for case in cases})
    wrong = [found for case in cases if (found := try_case(place, case, expected)) is not None]
    print(f"{number} damages of {kind}, {len(wrong)} of them wrong")
    assert not wrong, f"{len(wrong)} of {number}:\n" + "\n".join(wrong)


def test_damage_is_noticed_or_makes_no_difference(place: Place, kind: str) -> None:
    try_cases(place, kind, SAMPLED, seed=1)


@pytest.mark.soak
def test_thousands_of_damages_are_noticed_or_make_no_difference(place: Place, kind: str) -> None:
    try_cases(place, kind, ALL, seed=2)


def test_every_command_that_reads_a_run_is_tried() -> None:
    tried = {job.words[0] for kind in ("vectors", "line", "images") for job in jobs(kind).values()}
    assert tried | {"sample", "doctor", "init", "plan"} == set(cli.cli.commands)


def test_each_damage_changes_the_bytes(tmp_path: Path) -> None:
    data = bytes(range(1, 200))
    for damage in DAMAGES.values():
        assert damage(data, np.random.default_rng(0)) != data
