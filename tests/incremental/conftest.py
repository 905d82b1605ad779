"""Fixtures of the tests of `--against`: four days of vectors, and a sequence of three runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nights import night
from runs import (
    raw_vectors,
)

PIECES = (0, 110, 165, 205, 240)


@pytest.fixture(scope="session")
def days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the vectors of four days; days 2 and 3 repeat some of day 1's."""
    folder = tmp_path_factory.mktemp("days")
    x = raw_vectors(240, seed=3)
    x[120:130], x[170:175], x[176:180] = x[10:20] * 3, x[30:35], x[121:125]
    x[200] = np.nan
    for k in range(4):
        own = slice(PIECES[k], PIECES[k + 1])
        np.save(folder / f"day{k}.npy", x[own])
        (folder / f"day{k}.ids.txt").write_text("".join(f"d{k}-{r}\n" for r in range(own.stop - own.start)))
    return folder


@pytest.fixture(scope="session")
def line(days: Path, tmp_path_factory: pytest.TempPathFactory, scheduler: str, prototypes: Path) -> list[Path]:
    """Return runs of three days within clusters, each against the one before; copy them before you change them."""
    out = tmp_path_factory.mktemp("line")
    words = ("--keep", 0.5, "--reach", 0, "--prototypes", prototypes, "--clusters", 4)
    runs = [night(days, 0, out / "day0", scheduler, *words)]
    runs.append(night(days, 1, out / "day1", scheduler, "--against", runs[0]))
    return [*runs, night(days, 2, out / "day2", scheduler, "--against", runs[1], "--at-most", 0.3)]
