"""Runs with `--within` decide as the oracle does, in any number of parts, whatever the types of the column are."""

from __future__ import annotations

import json
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from problems import COMPARED, assert_same
from runs import UNUSABLE, Decided, command, done, manifest, product, raw_vectors

from fairdedup.stages.pruning import cluster_ranges
from fairdedup.storage.within_values import MISSING, code_values

NAN = float("nan")
VALUES: list[Any] = [1, 2, None, "", "eins"]  # as text; shards have them in other types too
N = 240


def values_of_rows() -> list[Any]:
    """Return the value of each row: the numbers 1 and 2, the texts "" and "eins", or a missing one."""
    return [VALUES[k] for k in np.random.default_rng(5).choice(5, size=N, p=[0.3, 0.3, 0.2, 0.1, 0.1]).tolist()]


def valid_values() -> list[Any]:
    return [value for row, value in enumerate(values_of_rows()) if row not in UNUSABLE]


@pytest.fixture(scope="module")
def clustered(tmp_path_factory: pytest.TempPathFactory, scheduler: str, prototypes: Path) -> Path:
    """Return a finished run of four shards, in which `album` is text, integers, floats, and not there at all."""
    folder = tmp_path_factory.mktemp("albums")
    (folder / "img_emb").mkdir()
    (folder / "metadata").mkdir()
    x, values = raw_vectors(N), values_of_rows()
    for row, kind in UNUSABLE.items():
        x[row] = 0 if kind == "zero" else float(kind)
    numbers = [k for k in range(N) if isinstance(values[k], int) or values[k] is None]
    texts = [k for k in range(N) if k not in set(numbers)] + numbers[:60]
    missing = [k for k in numbers[60:] if values[k] is None]
    rest = [k for k in numbers[60:] if values[k] is not None]
    order = []
    for number, rows in enumerate((texts, rest[: len(rest) // 2], rest[len(rest) // 2 :], missing)):
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", x[rows])
        columns: dict[str, Any] = {"key": [f"k{row}" for row in rows], "tags": [["all"]] * len(rows)}
        own = [values[row] for row in rows]
        if number == 0:
            columns["album"] = [None if value is None else str(value) for value in own]
        if number in (1, 2):
            columns["album"] = pa.array(own, pa.int16() if number == 1 else pa.float32())
        pq.write_table(pa.table(columns), folder / "metadata" / f"metadata_{number}.parquet")
        order += rows
    run = tmp_path_factory.mktemp("within") / "run"
    done("run", folder, "--keep", 0.9, "--rule", "semdedup", "--prototypes", prototypes, "--clusters", 4, "--out", run,
         "--scheduler", scheduler, "--quiet")  # fmt: skip
    (run.parent / "order.json").write_text(json.dumps(order))
    return run


@pytest.fixture
def albums(clustered: Path, tmp_path: Path) -> Path:
    """Return a copy of the run, to be decided again."""
    return Path(shutil.copytree(clustered, tmp_path / "run"))


@pytest.fixture(params=[1 << 13, 20], ids=["one part", "many parts"])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Split the clusters into one part, and into one for each cluster."""
    monkeypatch.setattr(cluster_ranges, "ROWS_A_STEP", request.param)


def ordered_values(clustered: Path) -> list[Any]:
    """Return the values of the rows that can be used, in the order of the run."""
    values = values_of_rows()
    order = json.loads((clustered.parent / "order.json").read_text())
    return [values[row] for row in order if row not in UNUSABLE]


def decide(run: Path, scheduler: str, prototypes: Path, *words: object) -> Decided:
    done("prune", run, *words, "--prototypes", prototypes, "--scheduler", scheduler, "--quiet")
    return Decided(run)


def assert_as_oracle(run: Decided, expected: Any) -> None:
    found, rows = run.decisions, run.decisions["row"].to_numpy()
    columns: dict[str, Any] = {name: found[name].to_numpy() for name in COMPARED}
    places = {int(row): k for k, row in enumerate(rows)}
    for name in ("representative", "neighbourhood"):
        columns[name] = np.array([places.get(int(row), -1) for row in columns[name]])
    assert_same(columns, expected)


@pytest.mark.parametrize(
    ("rule", "cover", "reach"),
    [
        ("semdedup", True, "auto"),
        ("fairdedup", True, "auto"),
        ("fairdedup", False, "0"),
        ("balanced", True, "0.3"),
        ("balanced", False, "0"),
        ("semdedup", True, "0"),
    ],
)
def test_a_run_decides_as_the_oracle(rule, cover, reach, albums, clustered, scheduler, prototypes, parts):
    words = ("--rule", rule, "--cover" if cover else "--no-cover", "--reach", reach, "--within", "album")
    run = decide(albums, scheduler, prototypes, "--eps", 0.1, *words)
    value = reach if reach == "auto" else float(reach)
    twin = run.problem(rule, cover, reach=value, within=ordered_values(clustered))
    expected = twin.at_eps(1000)
    assert_as_oracle(run, expected)
    assert_leftover(run, twin, expected)
    removed = expected["representative"] != np.arange(twin.n)
    assert removed.sum() > 20
    plain = run.problem(rule, cover, reach=value).at_eps(1000)
    assert (plain["kept"] != expected["kept"]).any()


def assert_leftover(run: Decided, twin: oracles.Problem, expected: Any) -> None:
    """Compare the recorded leftover, of all kept rows, with the twin's."""
    found, e = manifest(run.run), round(manifest(run.run)["eps"] * 10_000)
    wanted = twin.leftover(expected, e)
    left = found["leftover"]
    assert tuple(left[name] for name in ("looked_up", "own", "comparable", "elsewhere", "any")) == tuple(wanted)
    pairs, orphans = twin.broken(expected, e)
    assert list(found["guarantees"].values()) == [not pairs, not orphans]


def test_a_keep_fraction_is_exact_and_the_sweep_command_finds_the_same_eps(
    albums, clustered, scheduler, prototypes, parts
):
    for reach in ("auto", 0):
        words = ("--keep", 0.4, "--rule", "semdedup", "--reach", reach, "--within", "album")
        run = decide(albums, scheduler, prototypes, *words)
        swept = done("sweep", albums, *words, "--scheduler", scheduler, "--quiet").out
        twin = run.problem("semdedup", True, reach=reach, within=ordered_values(clustered))
        eps = manifest(albums)["eps"]
        assert run.decisions["kept"].sum() == oracles.kept_seats(0.4, twin.n)
        assert twin.brackets(round(eps * 10_000), oracles.kept_seats(0.4, twin.n))
        assert_as_oracle(run, twin.decide(round(eps * 10_000), 0.4))
        assert f"{eps:.4f}" in swept


def test_the_chain_compares_within_too(albums, clustered, scheduler, prototypes):
    run = decide(albums, scheduler, prototypes, "--eps", 0.1, "--rule", "semdedup-chain", "--within", "album")
    expected = run.problem("semdedup-chain", False, reach=0, within=ordered_values(clustered)).at_eps(1000)
    names = [name for name in COMPARED if name in expected]
    found, rows = run.decisions, run.decisions["row"].to_numpy()
    for name in names:
        wanted = rows[expected[name]] if name == "representative" else expected[name]
        assert (found[name].to_numpy() == wanted).all(), name


def test_rows_always_kept_remove_duplicates_of_their_value_only(albums, clustered, scheduler, prototypes, tmp_path):
    ids = Path(tmp_path / "ids.txt")
    ids.write_text("\n".join(f"k{row}" for row in range(0, N, 9) if row not in UNUSABLE))
    words = ("--rule", "semdedup", "--always-keep", ids, "--within", "album")
    run = decide(albums, scheduler, prototypes, "--eps", 0.1, *words)
    protected = run.decisions["id"].isin(ids.read_text().split()).to_numpy()
    twin = run.problem("semdedup", True, reach="auto", protected=protected, within=ordered_values(clustered))
    assert_as_oracle(run, twin.at_eps(1000))
    least = twin.least
    too_few = command("prune", albums, "--keep", (least - 1) / twin.n, *words, "--prototypes", prototypes,
                      "--scheduler", scheduler, "--quiet")  # fmt: skip
    assert too_few.code == 2 and "values of --within in their clusters" in too_few.err, too_few.err
    run = decide(albums, scheduler, prototypes, "--keep", least / twin.n, *words)
    assert run.decisions["kept"].sum() == least


def test_rows_that_are_left_out_leave_no_value_behind(albums, clustered, scheduler, prototypes, parts):
    words = ("--rule", "semdedup", "--where", "album <> '1' OR album IS NULL", "--within", "album")
    values = ordered_values(clustered)
    stays = np.array([value != 1 for value in values])
    for amount in (("--eps", 0.1), ("--keep", 0.5)):
        run = decide(albums, scheduler, prototypes, *amount, *words)
        labels = oracles.assign(run.unit, run.centroids)[stays]
        twin = oracles.Problem(
            run.unit[stays], labels, "semdedup", cover=True, centroids16=run.centroids, reach="auto",
            within=[value for value, own in zip(values, stays, strict=True) if own],
        )  # fmt: skip
        eps = round(manifest(albums)["eps"] * 10_000)
        assert_as_oracle(run, twin.at_eps(eps) if "--eps" in amount else twin.decide(eps, 0.5))
    told = command("prune", albums, "--keep", 0.01, *words, "--scheduler", scheduler, "--quiet").err
    assert f"fewer than one for each of {twin.least} values of --within in their clusters" in told


def test_the_summary_names_the_column(albums, scheduler, prototypes):
    words = ("--eps", 0.1, "--within", "album", "--prototypes", prototypes, "--scheduler", scheduler)
    lines = done("prune", albums, *words).out.splitlines()
    shown = next(line for line in lines if line.startswith("within "))
    assert shown.strip().split(maxsplit=2)[1:] == [
        "album",
        "samples are compared only where this column has the same value",
    ]


def test_a_replacement_checks_the_guarantees_within_values(albums, clustered, scheduler, prototypes, tmp_path):
    run = decide(albums, scheduler, prototypes, "--eps", 0.1, "--rule", "semdedup", "--within", "album")
    values, before = ordered_values(clustered), run.decisions
    stands = before[~before["kept"]]["representative"].unique()[:8]
    gone = Path(tmp_path / "gone.txt")
    gone.write_text("\n".join(before.set_index("row").loc[stands, "id"]))
    done("replace", albums, "--gone", gone, "--scheduler", scheduler, "--quiet")
    after = run.decisions
    of_row = dict(zip(before["row"].tolist(), map(str, values), strict=True))
    by, rows = after["representative"].tolist(), after["row"].tolist()
    assert all(of_row[a] == of_row[b] for a, b in zip(by, rows, strict=True))
    kept = after["kept"].to_numpy()
    position = {row: k for k, row in enumerate(before["row"].tolist())}
    places = np.array([position[row] for row in rows])
    near = oracles.duplicates(oracles.cosine_matrix(run.unit[places], run.unit[places]), 1000)
    same = oracles.same_value([values[k] for k in places])
    cluster = after["cluster"].to_numpy()
    pairs = near & same & (cluster[:, None] == cluster) & np.outer(kept, kept)
    np.fill_diagonal(pairs, False)
    held = manifest(albums)["guarantees"]["no_two_kept_are_duplicates"]
    assert held == (not pairs.any())


def test_parts_and_workers_change_no_byte(albums, scheduler, prototypes, monkeypatch):
    words = ("--eps", 0.1, "--within", "album")
    expected = product(decide(albums, scheduler, prototypes, *words).run)
    monkeypatch.setattr(cluster_ranges, "ROWS_A_STEP", 20)
    assert product(decide(albums, scheduler, prototypes, "--eps", 0.1).run) != expected
    assert product(decide(albums, scheduler, prototypes, *words).run) == expected


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--within", "nosuch"), "--within 'nosuch': the metadata has no such column; give one of its columns: "),
        (("--within", "tags"), "--within 'tags' must be a column of text, numbers or dates, and is list<"),
        (
            ("--within", "album", "--rule", "random"),
            "--within cannot be combined with --rule random, which compares no rows",
        ),
    ],
)
def test_a_wrong_column_is_one_line(words, told, albums, scheduler, prototypes):
    before = product(albums)
    shown = command("prune", albums, "--keep", 0.5, *words, "--prototypes", prototypes, "--scheduler", scheduler)
    assert shown.code == 2 and told in shown.err, shown.err
    assert product(albums) == before


def test_values_are_equal_as_text_whatever_their_types() -> None:
    texts = code_values(pa.chunked_array([["1", "1.5", "", "true", "2020-01-02", None], ["1"]]))
    assert len(set(texts[:5].tolist())) == 5 and texts[6] == texts[0]
    assert texts[5] == MISSING and MISSING not in texts[:5]
    for column in (
        pa.array([1], pa.int8()),
        pa.array([1.0], pa.float32()),
        pa.array([Decimal("1.00")]),
        pa.array(["1"], pa.large_string()),
        pa.array([b"1"]),
        pa.array(["1"]).dictionary_encode(),
    ):
        assert code_values(pa.chunked_array([column])).tolist() == [texts[0]], column.type
    others = pa.chunked_array([pa.array([1.5, NAN, -0.0, 0.0])])
    assert code_values(others)[:2].tolist() == [texts[1], MISSING] and len(set(code_values(others).tolist())) == 3
    assert code_values(pa.chunked_array([pa.array([True])])).tolist() == [texts[3]]
    assert code_values(pa.chunked_array([pa.array(["2020-01-02"]).cast(pa.date32())])).tolist() == [texts[4]]
    times = [pa.array(["2020-01-02T03:04:05"]).cast(pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")]
    assert len({code_values(pa.chunked_array([time]))[0] for time in times}) == 1
    assert code_values(pa.chunked_array([pa.array([2**60 + 1, 2**60], pa.int64())])).tolist()[0] != MISSING
    assert code_values(pa.chunked_array([], pa.string())).tolist() == []
