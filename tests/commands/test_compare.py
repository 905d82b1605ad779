"""`fairdedup compare`: what it says of a rule is what a run by that rule is, and no result of the run changes."""

from __future__ import annotations

import csv
import json
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from audits import group, read_report, write_labels
from runs import CLUSTERS, Decided, command, done, files, manifest, table

from fairdedup.report.rule_differences import write_differences
from fairdedup.storage.sealed_files import Seal
from fairdedup.storage.seals import seal

HOSTILE = "</svg><script>&"


def compare(run: Path, *flags: object) -> dict[str, Any]:
    """Return the last event of a comparison."""
    return json.loads(done("compare", run, *flags, "--log-json").err.splitlines()[-1])


def coverage(run: Decided) -> np.ndarray:
    """Return the cosine of every row to its nearest kept row, by a loop over float64 products."""
    kept = run.decisions["kept"].to_numpy()
    return np.array([line[kept].max() for line in oracles.cosine_matrix(run.unit, run.unit)])


@pytest.fixture(scope="module")
def semdedup(finished: Path, prototypes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the finished run that was decided by `semdedup`."""
    run = tmp_path_factory.mktemp("semdedup") / "run"
    shutil.copytree(finished, run)
    done("prune", run, "--keep", 0.5, "--rule", "semdedup", "--prototypes", prototypes, "--quiet")
    return run


def test_the_figures_of_a_rule_are_those_of_a_run_by_it(again, semdedup, labelled, tmp_path):
    before = files(again)
    outputs = ("--csv", tmp_path / "rules.csv", "--svg", tmp_path / "rules.svg")
    found = compare(again, "--labels", labelled[1], "--rules", "semdedup,fairdedup,random", *outputs)
    assert files(again) == before
    own, other, same, drawn = found["rules"]
    assert [rule["rule"] for rule in found["rules"]] == ["this run", "semdedup", "fairdedup", "random"]
    assert {**same, "rule": "this run"} == own
    known, decided = manifest(semdedup), Decided(semdedup)
    assert (other["kept"], other["eps"]) == (known["counts"]["kept"], known["eps"])
    assert other["leftover"] == known["leftover"] and drawn["leftover"] is drawn["eps"] is None
    differs = decided.decisions["kept"] != Decided(again).decisions["kept"]
    assert other["differs"] == differs.sum() > 0
    cosines = coverage(decided)
    assert other["coverage"] == {
        "looked_up": len(cosines),
        "first_percentile": pytest.approx(np.percentile(cosines, 1)),
        "mean": pytest.approx(cosines.mean()),
    }
    done("audit", semdedup, "--labels", labelled[1], "--quiet")
    report = read_report(semdedup)
    assert {each["attribute"] for each in other["groups"]} == {"tone", "age"}
    for each in other["groups"]:
        audited = group(report, each["attribute"], each["group"])
        assert each["shift"] == audited["shift"] and each["shift_interval"] == audited["shift_interval"]
    with open(tmp_path / "rules.csv", encoding="utf-8", newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["rule"] == "semdedup"]
    shift = next(line for line in lines if (line["measure"], line["group"]) == ("share shift", "dark"))
    assert float(shift["value"]) == pytest.approx(group(report, "tone", "dark")["shift"])
    assert ElementTree.parse(tmp_path / "rules.svg").getroot().attrib["aria-label"].endswith("fairdedup, random.")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_the_samples_that_differ_are_named(ending, again, semdedup, tmp_path):
    place = tmp_path / f"differs.{ending}"
    found = compare(again, "--rules", "semdedup,fairdedup", "--differs", place)
    before, after = Decided(again).decisions, Decided(semdedup).decisions
    differs = (before["kept"] != after["kept"]).to_numpy()
    expected = [
        (name, "semdedup", kept, not kept)
        for name, kept in zip(before["id"][differs], before["kept"][differs], strict=True)
    ]
    if ending == "csv":
        with open(place, encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file))
        assert lines[0] == ["id", "rule", "kept_by_run", "kept_by_rule"]
        got = [(name, rule, run == "true", by == "true") for name, rule, run, by in lines[1:]]
        assert {cell for line in lines[1:] for cell in line[2:]} == {"true", "false"}
    else:
        got = [tuple(line.values()) for line in pq.read_table(place).to_pylist()]
    assert got == expected, "the rule of the run itself differs nowhere"
    assert len(got) == found["rules"][1]["differs"] > 0 == found["rules"][2]["differs"]


def test_no_id_is_a_formula_in_the_csv_of_differences(tmp_path):
    names = ["=1+1", "plain", "-5", "@x", "same"]
    for name, kept in (("own", [True, False, True, False, True]), ("tried", [False, True, False, True, True])):
        pq.write_table(pa.table({"id": names, "kept": kept}), tmp_path / f"{name}.parquet")
    parts = [[Seal(tmp_path / f"{name}.parquet", seal(tmp_path / f"{name}.parquet"), "x")] for name in ("own", "tried")]
    assert write_differences(tmp_path / "d.csv", parts[0], [("semdedup", parts[1])]) == 4
    assert (tmp_path / "d.csv").read_text().splitlines() == [
        "id,rule,kept_by_run,kept_by_rule",
        "'=1+1,semdedup,true,false",
        "plain,semdedup,false,true",
        "-5,semdedup,true,false",
        "'@x,semdedup,false,true",
    ]
    assert write_differences(tmp_path / "none.csv", parts[0], [("semdedup", parts[0])]) == 0
    assert (tmp_path / "none.csv").read_text() == "id,rule,kept_by_run,kept_by_rule\n"
    write_differences(tmp_path / "none.parquet", parts[0], [])
    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0


def test_another_amount_is_that_of_all_rules_and_the_table_names_every_group(again):
    shown = done("compare", again, "--keep", 0.3, "--rules", "semdedup,balanced", "--quiet").out
    lines = [line.split() for line in shown.splitlines()]
    assert [line[:2] for line in lines if line and line[0] in ("semdedup", "balanced")] == [
        ["semdedup", "71"], ["balanced", "71"]
    ]  # fmt: skip
    for name in ("tone", "light", "dark", "age", "young", "middle", "old", "soft membership"):
        assert name in shown


def test_rules_that_need_prototypes_are_left_out_where_there_are_none(embeddings, prototypes, tmp_path):
    run = tmp_path / "run"
    done("run", embeddings, "--eps", 0.1, "--rule", "semdedup", "--clusters", CLUSTERS, "--out", run, "--quiet")
    shown = done("compare", run, "--rules", "semdedup,balanced").out
    assert "note: balanced is left out: it needs prototypes" in shown and "no groups are compared" in shown
    refused = command("compare", run, "--rules", "fairdedup,balanced", "--quiet")
    assert (refused.code, refused.err.count("\n")) == (2, 1) and "give --prototypes FILE" in refused.err
    assert "light" in done("compare", run, "--rules", "balanced", "--prototypes", prototypes).out
    no_eps = command("compare", run, "--rules", "random")
    assert no_eps.code == 2 and "give --keep or --at-most in place of --eps" in no_eps.err
    done("compare", run, "--rules", "random", "--keep", 0.5)


def test_an_unknown_rule_and_a_folder_are_refused(again, tmp_path):
    assert "--rules nobody is unknown" in command("compare", again, "--rules", "nobody").err
    assert "--svg" in command("compare", again, "--svg", tmp_path).err
    assert "--differs" in command("compare", again, "--differs", tmp_path).err
    refused = command("compare", again, "--differs", tmp_path / "differs.txt")
    assert (refused.code, refused.err.count("\n")) == (2, 1) and "must end in .csv or .parquet" in refused.err


def test_names_of_groups_are_text_in_the_drawing_and_on_the_terminal(again, tmp_path):
    ids = table(again / "decisions")["id"].tolist()
    labels = write_labels(tmp_path / "l.csv", id=ids, tone=[HOSTILE if k % 2 else "\x1b[2J" for k in range(len(ids))])
    drawing = tmp_path / "rules.svg"
    shown = done("compare", again, "--rules", "semdedup", "--labels", labels, "--svg", drawing).out
    assert "\x1b[2J" not in shown and HOSTILE in shown
    texts = [element.text for element in ElementTree.parse(drawing).getroot().iter() if element.text]
    assert HOSTILE in texts and "\\x1b[2J" in texts


def test_samples_that_have_vanished_are_not_counted(again, tmp_path):
    (tmp_path / "gone.txt").write_text("k1\nk2\nk3\n")
    done("replace", again, "--gone", tmp_path / "gone.txt", "--quiet")
    found = compare(again, "--rules", "semdedup")
    assert found["notes"][0].startswith("3 samples took part in the decisions of the rules without being counted")
    assert found["rules"][0]["kept"] == manifest(again)["counts"]["kept"]


def test_a_list_that_has_changed_since_is_refused(again, tmp_path, prototypes):
    drop = tmp_path / "drop.txt"
    drop.write_text("k1\n")
    words = ("--keep", 0.5, "--rule", "semdedup", "--drop", drop, "--prototypes", prototypes, "--quiet")
    done("prune", again, *words)
    done("compare", again, "--rules", "semdedup", "--quiet")
    drop.write_text("k1\nk2\n")
    before = files(again)
    refused = command("compare", again, "--rules", "semdedup")
    assert refused.code == 2 and "has changed: run `fairdedup prune` again" in refused.err
    assert files(again) == before
    done("prune", again, *words)
    done("compare", again, "--rules", "semdedup", "--quiet")
