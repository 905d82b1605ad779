"""Nights of a line with `--within` are decided as by the slow twin, though the column's type changes by the day."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from nights import assert_decided_as_by_the_oracle, decisions_of, night, refused
from runs import done, manifest, product

from fairdedup.stages.pruning import cluster_ranges

WITHIN = ("--within", "album")
TYPES = (pa.string(), pa.int64(), pa.float32(), pa.string())


@pytest.fixture(params=[1 << 13, 20], ids=["one part", "many parts"])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Split the clusters into one part, and into one for each cluster."""
    monkeypatch.setattr(cluster_ranges, "ROWS_A_STEP", request.param)


@pytest.fixture(scope="module")
def albums(days: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the days with a column `album`: text, integers, floats; the numbers 1 to 3, some are missing."""
    folder = tmp_path_factory.mktemp("albums")
    for k, kind in enumerate(TYPES):
        for name in (f"day{k}.npy", f"day{k}.ids.txt"):
            shutil.copy(days / name, folder / name)
        values = albums_of(folder, k)
        column = [None if value is None else str(value) for value in values] if kind == pa.string() else values
        pq.write_table(pa.table({"album": pa.array(column, kind)}), folder / f"day{k}.parquet")
    return folder


def albums_of(folder: Path, day: int, *, valid: bool = False) -> list[Any]:
    """Return the album of each row of a day, or of those that can be used."""
    x = np.load(folder / f"day{day}.npy")
    values = np.random.default_rng(day).integers(1, 5, size=len(x)).tolist()
    rows = np.flatnonzero(np.isfinite(x).all(axis=1)) if valid else range(len(x))
    return [values[row] if values[row] < 4 else None for row in rows]


def valid_albums(folder: Path, number: int) -> list[list[Any]]:
    """Return the albums of the first days."""
    return [albums_of(folder, day, valid=True) for day in range(number)]


@pytest.fixture(scope="module")
def line(albums: Path, tmp_path_factory: pytest.TempPathFactory, scheduler: str, prototypes: Path) -> list[Path]:
    """Return three nights; copy them before you change them."""
    out = tmp_path_factory.mktemp("within")
    first = ("--keep", 0.5, "--prototypes", prototypes, "--clusters", 12, *WITHIN)
    runs = [night(albums, 0, out / "day0", scheduler, *first)]
    runs.append(night(albums, 1, out / "day1", scheduler, "--against", runs[0]))
    return [*runs, night(albums, 2, out / "day2", scheduler, "--against", runs[1], "--at-most", 0.6)]


def test_night_follows_night_as_by_the_oracle(albums, line):
    by_old = 0
    for number in (2, 3):
        found = assert_decided_as_by_the_oracle(
            line[:number], "fairdedup", within=valid_albums(albums, number), cover=True, reach="auto"
        )
        by_old += int((found["earlier"] >= 0).sum())
    assert by_old > 10
    assert manifest(line[2])["config"]["prune"]["within"] == "album"
    assert manifest(line[2])["leftover"]["among"] > manifest(line[2])["leftover"]["looked_up"]


@pytest.mark.parametrize(
    ("rule", "words", "options"),
    [
        ("semdedup", ("--no-cover", "--reach", 0.2), {"reach": 0.2}),
        ("fairdedup", ("--cover", "--reach", 0), {"reach": 0}),
        ("balanced", ("--no-cover", "--reach", 0), {"reach": 0}),
    ],
)
def test_every_rule_continues_in_many_parts(albums, tmp_path, scheduler, prototypes, rule, words, options, parts):
    first = ("--keep", 0.5, "--rule", rule, *words, "--prototypes", prototypes, "--clusters", 6, *WITHIN)
    runs = [night(albums, 0, tmp_path / "0", scheduler, *first)]
    runs.append(night(albums, 1, tmp_path / "1", scheduler, "--against", runs[-1]))
    runs.append(night(albums, 2, tmp_path / "2", scheduler, "--against", runs[-1], "--at-most", 0.7))
    values = valid_albums(albums, 3)
    assert_decided_as_by_the_oracle(runs, rule, within=values, cover="--cover" in words, **options)


def test_a_cap_below_one_row_of_each_value_is_an_error(albums, line, tmp_path):
    words = (albums / "day3.npy", "--out", tmp_path / "new", "--against", line[2], "--at-most", 0.001)
    assert "one for each cluster, and value of --within there, in which earlier runs kept nothing" in refused(*words)


def test_the_column_belongs_to_the_line(albums, days, line, tmp_path, scheduler):
    words = (albums / "day1.npy", "--out", tmp_path / "new", "--against", line[0])
    assert "--within licence differs from that of" in refused(*words, "--within", "licence")
    missing = refused(days / "day1.npy", "--out", tmp_path / "other", "--against", line[0])
    assert "--within 'album': the metadata has no such column" in missing
    night(albums, 1, tmp_path / "same", scheduler, "--against", line[0], *WITHIN)
    assert product(tmp_path / "same") == product(line[1])


def test_a_line_without_the_column_does_not_get_one(albums, tmp_path, scheduler, prototypes):
    first = night(albums, 0, tmp_path / "0", scheduler, "--keep", 0.5, "--prototypes", prototypes, "--clusters", 4)
    told = refused(albums / "day1.npy", "--out", tmp_path / "1", "--against", first, *WITHIN)
    assert "--within album differs from that of" in told and "(none)" in told


def test_a_night_that_is_decided_again_stays_the_same(line, tmp_path, scheduler):
    run = shutil.copytree(line[2], tmp_path / "day2")
    done("prune", run, "--at-most", 0.6, "--scheduler", scheduler, "--quiet")
    assert product(run) == product(line[2])


def test_a_damaged_file_of_codes_is_one_line(albums, line, tmp_path):
    run = shutil.copytree(line[0], tmp_path / "day0")
    path = next(iter((run / "state").rglob("within_0.npy")))
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.unlink()
    path.write_bytes(data)
    told = refused(albums / "day1.npy", "--out", tmp_path / "new", "--against", run)
    assert "within_0.npy is missing or damaged" in told


def test_a_replacement_keeps_the_codes_of_the_line(albums, line, tmp_path, scheduler):
    run = Path(shutil.copytree(line[1], tmp_path / "day1"))
    before = decisions_of(run)
    gone = tmp_path / "gone.txt"
    gone.write_text("\n".join(before["id"][before["kept"]][:3]))
    done("replace", run, "--gone", gone, "--scheduler", scheduler, "--quiet")
    codes = sorted((run / "state").rglob("within_*.npy"))
    assert len(codes) == 2
    after = decisions_of(run)
    lengths = [len(np.load(path)) for path in codes]
    assert lengths == [decisions_of(line[0])["kept"].sum(), after["kept"].sum()]
    night(albums, 2, tmp_path / "day2", scheduler, "--against", run)


def test_refit_compares_within_too(albums, line, tmp_path, scheduler, prototypes):
    new = tmp_path / "refit"
    done("refit", line[1], "--keep", 0.4, "--out", new, "--scheduler", scheduler, "--max-rejected", 0.5, "--quiet")
    assert manifest(new)["config"]["prune"]["within"] == "album"
    values = [value for day in valid_albums(albums, 2) for value in day]
    found = decisions_of(new)
    texts = np.array([str(value) for value in values])
    rows = {row: place for place, row in enumerate(found["row"].tolist())}
    by = [rows[row] for row in found["representative"].tolist()]
    assert (texts[by] == texts).all() and not found["kept"].all()
