"""kept/ says how many removed rows each kept row stands for, and which values they had."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from remedies import InProcess
from runs import command, contents, done, manifest, product, table, write_prototypes
from standing import assert_collected, assert_counted, write_table

from fairdedup import workers
from fairdedup.storage import kept_samples, shard_groups

COLLECT = ("--collect", "caption", "--collect", "stars", "--collect", "id", "--collect", "caption")
COLLECTED = ["caption", "stars", "id"]
RULES = {
    "semdedup": ("--keep", 0.4, "--rule", "semdedup", "--no-cover"),
    "fairdedup with cover": ("--eps", 0.1, "--rule", "fairdedup", "--cover"),
    "balanced with seats": ("--keep", 0.5, "--rule", "balanced", "--reserve", 0.3, "--no-cover"),
    "prefer": ("--at-most", 0.3, "--prefer", "width", "--no-cover"),
    "random neighbour": ("--keep", 0.2, "--rule", "random-neighbour", "--no-cover"),
    "chain": ("--keep", 0.5, "--rule", "semdedup-chain"),
    "random": ("--keep", 0.5, "--rule", "random"),
    "across clusters": ("--eps", 0.1, "--rule", "semdedup", "--cover", "--reach", "auto"),
    "across clusters without cover": ("--keep", 0.4, "--rule", "fairdedup", "--no-cover", "--reach", 0.5),
    "nobody is removed": ("--eps", 0, "--rule", "semdedup"),
    "rows left out": ("--keep", 0.4, "--rule", "semdedup", "--where", "width > 2"),
}


@pytest.fixture(params=[100, 1 << 18], ids=["three groups", "one group"])
def group_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run commands in this process, over groups of this many rows."""
    monkeypatch.setattr(workers, "Workers", InProcess)
    monkeypatch.setattr(shard_groups, "GROUP_ROWS", request.param)
    number: int = request.param
    return number


@pytest.fixture(scope="module")
def clustered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an input, prototypes, and a run over it for each number of rows of a group."""
    folder = tmp_path_factory.mktemp("standing")
    write_table(folder / "in")
    write_prototypes(folder / "p.npz")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(workers, "Workers", InProcess)
        for rows in (100, 1 << 18):
            patched.setattr(shard_groups, "GROUP_ROWS", rows)
            done("run", folder / "in", "--out", folder / f"run-{rows}", "--clusters", 5, "--keep", 0.5,
                 "--rule", "semdedup", "--quiet")  # fmt: skip
    return folder


@pytest.fixture
def decide(clustered: Path, group_rows: int, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that decides a copy of the run with some flags."""

    def prune(*flags: object) -> Path:
        run = tmp_path / "run"
        if not run.exists():
            shutil.copytree(clustered / f"run-{group_rows}", run)
        done("prune", run, *flags, "--prototypes", clustered / "p.npz", "--quiet")
        assert not (run / "decisions" / "_represented").exists()
        return run

    return prune


@pytest.mark.parametrize("name", RULES)
def test_a_kept_row_stands_for_the_removed_rows_that_it_represents(name, decide):
    run = decide(*RULES[name], *COLLECT)
    assert_collected(run, COLLECTED)
    decisions, counts = table(run / "decisions"), manifest(run)["counts"]
    groups = len(list((run / "kept").glob("part-*.parquet")))
    if groups > 1 and name not in ("random", "nobody is removed"):  # some are represented by rows of another part
        removed = decisions[~decisions["kept"] & (decisions["representative"] >= 0)]
        assert (removed["row"] // 80 != removed["representative"] // 80).any()
    if name == "balanced with seats":
        assert counts["readmitted"] > 10
        seats = table(run / "kept")["stands_for"][decisions["readmitted"][decisions["kept"]].to_numpy()]
        assert not seats.any()


def test_windows_and_their_number_change_the_row_groups_and_no_value(decide, monkeypatch):
    flags = (*RULES["random neighbour"], *COLLECT)
    expected = table(decide(*flags) / "kept")
    for size in (1, 300):
        monkeypatch.setattr(kept_samples, "WINDOW", size)
        run = decide(*flags)
        assert table(run / "kept").equals(expected)
        assert_collected(run, COLLECTED)


@pytest.mark.parametrize("name", ["semdedup", "across clusters", "chain", "balanced with seats"])
@pytest.mark.parametrize("share", [0.05, 0.5])
def test_after_a_replacement_the_rows_stand_for_what_they_represent_now(name, share, decide, tmp_path):
    run = decide(*RULES[name], *COLLECT)
    decisions = table(run / "decisions")
    for number, part in enumerate((decisions["kept"], ~decisions["kept"])):
        ids = decisions["id"][part].sample(frac=share, random_state=number)
        (tmp_path / "gone.txt").write_text("\n".join(ids))
        done("replace", run, "--gone", tmp_path / "gone.txt", "--quiet")
        assert_collected(run, COLLECTED)
    after = product(run)
    decide(*RULES[name], *COLLECT)  # repeats the replacements
    assert product(run) == after


def test_a_replacement_writes_only_the_parts_of_kept_that_change(clustered, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "Workers", InProcess)
    monkeypatch.setattr(shard_groups, "GROUP_ROWS", 100)
    run = shutil.copytree(clustered / "run-100", tmp_path / "run")
    decisions = table(run / "decisions")
    removed = decisions[~decisions["kept"] & (decisions["representative"] // 80 != decisions["row"] // 80)]
    lost = removed.iloc[0]
    parts = {int(lost["row"]) // 80, int(lost["representative"]) // 80}
    before = contents(run / "kept")
    (tmp_path / "gone.txt").write_text(lost["id"])
    done("replace", run, "--gone", tmp_path / "gone.txt", "--quiet")
    after = contents(run / "kept")
    changed = {
        number for number in range(3) if after[f"part-0000{number}.parquet"] != before[f"part-0000{number}.parquet"]
    }
    assert changed == {int(lost["representative"]) // 80} and len(parts) == 2
    assert_counted(run)


def test_one_and_two_workers_write_the_same_bytes(clustered, tmp_path, scheduler, monkeypatch):
    flags = (*RULES["across clusters without cover"], *COLLECT, "--prototypes", clustered / "p.npz", "--quiet")
    runs = [shutil.copytree(clustered / f"run-{1 << 18}", tmp_path / name) for name in ("two", "one")]
    done("prune", runs[0], *flags, "--scheduler", scheduler)
    monkeypatch.setattr(workers, "Workers", InProcess)
    done("prune", runs[1], *flags)
    assert product(runs[0]) == product(runs[1])
    assert_collected(runs[0], COLLECTED)


MISTAKES = {
    "nothing": "--collect 'nothing': the metadata has no such column; give one of its columns: id, caption, stars, "
    "width, stands_for",
    "": "--collect '': the metadata has no such column",
}


@pytest.mark.parametrize("column", MISTAKES)
@pytest.mark.parametrize("group_rows", [1 << 18], indirect=True)
def test_a_column_that_is_not_there_is_one_line_and_changes_nothing(column, group_rows, clustered):
    run = clustered / f"run-{group_rows}"
    before = contents(run)
    shown = command("prune", run, "--keep", 0.5, "--rule", "semdedup", "--collect", column, "--quiet")
    assert shown.code == 2 and MISTAKES[column] in shown.err and shown.err.count("\n") == 1
    assert contents(run) == before
