"""`fairdedup replace`: the samples that replace lost ones, and what an interrupted replacement leaves."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import oracles
import pandas as pd
import pytest
from runs import Decided, command, contents, done, files, manifest, product, table

from fairdedup.stages.replacement import replacing as stage

RULES = [
    ("semdedup", False), ("semdedup", True), ("fairdedup", False), ("balanced", True), ("semdedup-chain", False),
    ("random", False),
]  # fmt: skip


@pytest.fixture
def take_out(again, scheduler, tmp_path):
    """Replace samples of the copy by their ids."""

    def replace(ids: list[str], *flags: object) -> None:
        (tmp_path / "gone.txt").write_text("\n".join(ids))
        done("replace", again, "--gone", tmp_path / "gone.txt", "--scheduler", scheduler, "--quiet", *flags)
        assert not (again / "replaced").exists()

    return replace


def by_hand(decided: Decided, before: pd.DataFrame, ids: list[str]) -> pd.DataFrame:
    """Return the expected decisions after a replacement, by loops over rows."""
    place = {row: k for k, row in enumerate(before["row"])}
    lines = {line.row: line._asdict() for line in before.itertuples()}
    gone = {row for row, line in lines.items() if line["id"] in ids}

    def cosine(a: int, b: int) -> float:
        return float(oracles.cosine_matrix(decided.unit[[place[a]]], decided.unit[[place[b]]])[0, 0])

    def back(row: int) -> int:
        while row in gone and not lines[row]["kept"]:
            row = lines[row]["representative"]
        return row

    orphans: dict[int, list[int]] = {}
    for row, line in lines.items():
        if row not in gone and line["representative"] in gone:
            orphans.setdefault(back(line["representative"]), []).append(row)
    for root, rows in orphans.items():
        heir = root
        if root in gone:
            removed = [row for row in rows if not lines[row]["kept"]]
            heir = min(removed, key=lambda row: (-cosine(row, root), row), default=-1)
        for row in rows:
            new = row if heir == -1 else heir
            lines[row] |= {"representative": new, "similarity": 1.0 if new == row else cosine(row, new)}
        if root in gone and heir >= 0:
            lines[heir]["kept"] = True
    return pd.DataFrame([line for row, line in lines.items() if row not in gone])[list(before.columns)]


@pytest.mark.parametrize(("rule", "cover"), RULES)
@pytest.mark.parametrize("share", [0.03, 0.3, 0.8])
def test_the_next_of_the_neighbourhood_takes_the_place_of_a_kept_one(
    again, take_out, scheduler, prototypes, rule, cover, share
):
    done("prune", again, "--keep", 0.35, "--rule", rule, *(["--reach", 0] if cover else ["--published"]),
         "--prototypes", prototypes, "--scheduler", scheduler, "--quiet")  # fmt: skip
    decided, known = Decided(again), manifest(again)
    before, rejected = decided.decisions, table(again / "rejected")
    rng = np.random.default_rng(3)
    ids = [i for i in before["id"] if rng.random() < share]
    if share == 0.3:  # a kept row with all rows that it represents
        ids += before["id"][before["representative"] == before.loc[before["kept"], "row"].iloc[0]].tolist()
    take_out([*ids, "k7"])
    expected = by_hand(decided, before, ids)
    pd.testing.assert_frame_equal(decided.decisions, expected.reset_index(drop=True), check_dtype=False)
    new = manifest(again)
    out = table(again / "rejected")
    assert out["row"].is_monotonic_increasing and sorted(out["id"]) == sorted({*rejected["id"], *ids})
    assert (out["reason"] == "gone: gone.txt").sum() == len(set(ids))
    assert table(again / "kept")["id"].tolist() == expected["id"][expected["kept"]].tolist()
    kept_before = before[before["kept"]]["id"]
    promoted = set(expected["id"][expected["kept"]]) - set(kept_before)
    assert new["replaced"] == [{
        "file": "gone.txt", "gone": len(set(ids)), "gone_kept": int(kept_before.isin(ids).sum()),
        "promoted": len(promoted),
    }]  # fmt: skip
    assert new["counts"] == {
        **known["counts"], "kept": int(expected["kept"].sum()), "removed": int((~expected["kept"]).sum()),
        "valid": len(expected), "rejected": len(out), "readmitted": int(expected["readmitted"].sum()),
    }  # fmt: skip
    stays = expected["representative"].isin(expected["row"]) | (expected["representative"] == -1)
    assert stays.all(), "a representative has gone"
    if rule == "random":
        assert not promoted
        return
    unit = decided.unit[np.isin(before["row"], expected["row"])]
    place = {row: k for k, row in enumerate(expected["row"])}
    columns = {name: expected[name].to_numpy() for name in ("cluster", "kept", "readmitted")}
    columns["representative"] = np.array([place[row] for row in expected["representative"]])
    pairs, orphans = oracles.guarantees(unit, columns, round(known["eps"] * 10_000))
    held, now = known["guarantees"], new["guarantees"]
    assert now == {
        "no_two_kept_are_duplicates": held["no_two_kept_are_duplicates"] and pairs == 0,
        "every_removed_has_a_kept_representative": held["every_removed_has_a_kept_representative"] and orphans == 0,
    }


@pytest.mark.parametrize("keep", [0.1, 0.25])
def test_a_promoted_row_is_compared_with_the_kept_ones_of_all_clusters(again, take_out, scheduler, keep):
    done("prune", again, "--keep", keep, "--rule", "semdedup", "--reach", 1, "--scheduler", scheduler, "--quiet")
    assert manifest(again)["guarantees"]["no_two_kept_are_duplicates"]
    decisions = Decided(again).decisions
    unit = Decided(again).unit
    take_out(decisions["id"][decisions["kept"] & ~decisions["readmitted"]].iloc[::5].tolist())
    known, now = manifest(again), Decided(again).decisions
    unit = unit[np.isin(decisions["row"], now["row"])]
    kept = np.flatnonzero(now["kept"] & ~now["readmitted"])
    near = oracles.duplicates(oracles.cosine_matrix(unit[kept], unit[kept]), round(known["eps"] * 10_000))
    labels, pairs = now["cluster"].to_numpy()[kept], np.triu(near, 1)
    assert known["replaced"][0]["promoted"] > 3
    assert known["guarantees"]["no_two_kept_are_duplicates"] == (not pairs.any())
    assert keep > 0.2 or (pairs.any() and not (pairs & (labels[:, None] == labels)).any()), "in other clusters only"


def test_each_replacement_is_a_line_and_each_lost_sample_counts_once(again, take_out):
    first = Decided(again).decisions
    kept = first["id"][first["kept"]].tolist()
    take_out(kept[:2])
    once = contents(again)
    take_out([*kept[:2], "no such id"])
    again_files = contents(again)
    assert {name for name in again_files if again_files[name] != once.get(name)} <= {"run.json"}
    take_out(kept[2:4])
    assert [line["gone"] for line in manifest(again)["replaced"]] == [2, 2]
    assert set(table(again / "kept")["id"]).isdisjoint(kept[:4])


def test_what_was_replaced_is_printed(again, scheduler, tmp_path):
    ids = Decided(again).decisions.query("kept")["id"].head(3)
    (tmp_path / "gone\x1b.csv").write_text("key\n" + "\n".join(ids) + "\nnone\n")
    shown = done("replace", again, "--gone", tmp_path / "gone\x1b.csv", "--scheduler", scheduler)
    text = " ".join(shown.out.split())
    assert "gone 3 3 of them were kept" in text and "promoted" in text and "\x1b" not in shown.out
    assert "1 of 4 ids is not in the run; the first is 'none'" in text
    assert set(table(again / "rejected")["reason"]) >= {"gone: gone\\x1b.csv"}


@pytest.mark.parametrize("killed_at", [0, 2, 3, 4, 5, 6, 7])
def test_killed_at_any_moment_it_has_changed_nothing_or_the_next_command_finishes_it(
    again, scheduler, tmp_path, monkeypatch, killed_at, embeddings, prototypes
):
    decisions = Decided(again).decisions
    (tmp_path / "gone.txt").write_text("\n".join(decisions["id"][decisions["kept"]][::5]))
    asked = ("replace", again, "--gone", tmp_path / "gone.txt", "--scheduler", scheduler, "--quiet")
    before = contents(again)
    shutil.copytree(again, tmp_path / "whole")
    done("replace", tmp_path / "whole", *asked[2:])
    whole, steps, move = contents(tmp_path / "whole"), iter(range(100)), os.replace

    def stop(*paths: object) -> None:
        if next(steps) == killed_at:
            raise KeyboardInterrupt
        move(*paths)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", stop)
        assert command(*asked).code == 1
    if (again / "run.json").exists():
        stays = {name: data for name, data in contents(again).items() if not name.startswith("replaced")}
        assert stays == before
    else:
        assert (again / "replaced" / "run.json").exists()
        if killed_at % 2:  # the run's own command finishes it as well
            done("run", embeddings, "--keep", 0.5, "--prototypes", prototypes, "--clusters", 5, "--out", again,
                 "--scheduler", scheduler, "--quiet")  # fmt: skip
            assert contents(again) == whole
    done(*asked)
    after = contents(again)
    assert {name for name in whole if after[name] != whole[name]} == set()
    assert set(after) == set(whole)


def test_samples_lost_in_a_stopped_replacement_do_not_come_back(again, scheduler, tmp_path, monkeypatch, prototypes):
    (tmp_path / "gone.txt").write_text("\n".join(Decided(again).decisions["id"][:50]))
    asked = ("--gone", tmp_path / "gone.txt", "--scheduler", scheduler, "--quiet")
    shutil.copytree(again, tmp_path / "whole")
    done("replace", tmp_path / "whole", *asked)
    with monkeypatch.context() as patched:
        patched.setattr(stage, "complete_replacement", lambda run: (_ for _ in ()).throw(KeyboardInterrupt))
        command("replace", again, *asked)
    assert json.loads((again / "replaced" / "run.json").read_text())["replaced"]
    for words in (("gate", again, "--max-rejected", 1), ("export", again, "--to", "txt")):
        shown = command(*words)
        assert shown.code == 2 and "was stopped: run the same `fairdedup replace` again" in shown.err
    for run in (again, tmp_path / "whole"):
        done("prune", run, "--keep", 0.4, "--prototypes", prototypes, "--scheduler", scheduler, "--quiet")
    assert product(again) == product(tmp_path / "whole") and not (again / "replaced").exists()
    assert manifest(again)["replaced"][0]["gone"] == 50
    assert set(table(again / "kept")["id"]).isdisjoint((tmp_path / "gone.txt").read_text().splitlines())


def test_a_damaged_run_is_made_again_with_its_replacements(
    again, take_out, scheduler, embeddings, prototypes, tmp_path, monkeypatch
):
    asked = ("run", embeddings, "--keep", 0.5, "--prototypes", prototypes, "--clusters", 5, "--out", again,
             "--scheduler", scheduler, "--quiet")  # fmt: skip
    first = Decided(again).decisions
    take_out(first["id"][first["kept"]].tolist()[:6])
    second = Decided(again).decisions  # some of the promoted samples are lost as well
    take_out(second["id"][second["kept"]].tolist()[:6])
    expected, known = product(again), manifest(again)
    assert [line["gone"] for line in known["replaced"]] == [6, 6]
    (again / "kept" / "part-00000.parquet").unlink()
    steps, move = iter(range(100)), os.replace
    for stop_at in (11, 14, 17, 20):

        def stop(*paths: object) -> None:
            if next(steps) == stop_at:  # noqa: B023
                raise KeyboardInterrupt
            move(*paths)  # type: ignore[arg-type]

        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", stop)
            assert command(*asked).code == 1
        assert not (again / "run.json").exists()
        steps = iter(range(100))
    done(*asked)
    assert product(again) == expected
    assert {**manifest(again), "stages": None, "files": None} == {**known, "stages": None, "files": None}
    assert "finished already" in done(*asked[:-1]).err
    (again / "kept" / "part-00000.parquet").unlink()
    (again / "gone" / "gone_1.parquet").write_bytes(b"")
    shown = command(*asked)
    assert (
        shown.code == 2
        and "gone_1.parquet, the list of removed samples, is damaged: restore it, or make the whole run again"
        in shown.err
    )


def test_a_refit_requires_the_lost_samples_to_be_named(again, take_out, scheduler, tmp_path):
    ids = Decided(again).decisions["id"][:7].tolist()
    take_out(ids)
    asked = ("refit", again, "--keep", 0.5, "--rule", "semdedup", "--clusters", 5, "--out", tmp_path / "refit",
             "--scheduler", scheduler, "--quiet")  # fmt: skip
    shown = command(*asked)
    assert shown.code == 2 and "7 samples of" in shown.err and f"as {again / 'gone' / 'gone_0.parquet'}" in shown.err
    done(*asked, "--drop", again / "gone" / "gone_0.parquet")
    assert set(table(tmp_path / "refit" / "kept")["id"]).isdisjoint(ids)


def test_a_run_that_is_not_finished_is_refused(again, tmp_path):
    (tmp_path / "gone.txt").write_text("k1")
    (again / "run.json").unlink()
    before = files(again)
    shown = command("replace", again, "--gone", tmp_path / "gone.txt", "--quiet")
    assert shown.code == 2 and "holds no finished run: run `fairdedup prune" in shown.err
    assert files(again) == before
