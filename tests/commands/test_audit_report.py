"""The report of an audit has files and tables, which are removed together with the decisions that they describe."""

from __future__ import annotations

import json
import shutil

import pyarrow.parquet as pq
from audits import REPORT, attribute, group, read_report, strict, write_labels
from runs import command, done, files, manifest, table

from fairdedup.storage.manifest import AUDIT_FILES


def test_hostile_names_stay_tame(again, tmp_path):
    decisions = table(again / "decisions")
    names = ["=cmd|' /C calc'!A1", "[red]x[/red]", "\x1b[31mred\x07", "-inf"]
    labels = [names[k % 4] for k in range(len(decisions))]
    evil = "[bold]g\x1b[5m"
    shown = done(
        "audit", again, "--labels", write_labels(tmp_path / "l.csv", id=decisions["id"].tolist(), **{evil: labels})
    )
    assert shown.out.replace("\n", "").isprintable()
    for part in ("=cmd|' /C calc'!A1", "[red]x[/red]", "\\x1b[31mred\\x07", "[bold]g\\x1b[5m"):
        assert part in shown.out.replace("\n", ""), part
    assert {g["group"] for g in attribute(read_report(again), evil)["groups"]} == set(names)
    assert set(pq.read_table(again / "report" / "audit.parquet").column("group").to_pylist()) == set(names)


def test_the_table_is_at_most_110_wide(again, labelled):
    shown = done("audit", again, "--labels", labelled[1], "--attributes", "tone,age")
    assert max(map(len, shown.out.splitlines()[:-2])) <= 110


def test_json_is_what_is_on_disk_and_log_json_names_it(again, labelled):
    shown = done("audit", again, "--labels", labelled[1], "--json")
    assert strict(shown.out) == read_report(again)
    logged = done("audit", again, "--labels", labelled[1], "--log-json")
    event = json.loads(logged.err.splitlines()[-1])
    assert (event["event"], event["report"]) == ("finished", str(again / "report" / "audit.json")) and logged.out == ""
    assert done("audit", again, "--labels", labelled[1], "--quiet").out == ""


def test_the_long_table_has_a_line_for_each_group(again, labelled):
    done("audit", again, "--labels", labelled[1], "--quiet", "--min-count", 20)
    long, found = pq.read_table(again / "report" / "audit.parquet").to_pandas(), read_report(again)
    lines = [(a["attribute"], g["group"]) for a in found["attributes"] for g in a["groups"]]
    assert list(zip(long["attribute"], long["group"], strict=True)) == lines
    dark = long[(long["attribute"] == "tone") & (long["group"] == "dark")].iloc[0]
    known = group(found, "tone", "dark")
    assert dark["rate_interval_low"] == known["rate_interval"][0] and dark["loss_within"] == known["loss"]["within"]


def test_the_same_seed_gives_the_same_report(again, labelled):
    reports = []
    for seed in (1, 1, 2):
        done("audit", again, "--labels", labelled[1], "--quiet", "--seed", seed)
        reports.append((again / "report" / "audit.json").read_bytes())
    assert reports[0] == reports[1] != reports[2]


def test_deciding_again_removes_the_audit_of_the_old_decisions(again, labelled, prune, scheduler, prototypes):
    done("audit", again, "--labels", labelled[1], "--prototypes", prototypes, "--scheduler", scheduler, "--quiet",
         "--suggest-labels", 3)  # fmt: skip
    (again / "report" / "notes.txt").write_text("of the user")
    assert all((again / "report" / name).is_file() for name in AUDIT_FILES)
    work = (again / "report" / "suggested-labels.csv").read_bytes()  # a user may have filled it in
    prune("--keep", 0.3)
    assert not any((again / "report" / name).exists() for name in AUDIT_FILES)
    assert (again / "report" / "notes.txt").exists()
    assert (again / "report" / "suggested-labels.csv").read_bytes() == work


def test_a_replacement_removes_it_too(again, labelled, scheduler, tmp_path):
    done("audit", again, "--labels", labelled[1], "--quiet")
    before = read_report(again)
    (tmp_path / "gone.txt").write_text(labelled[0]["id"].iloc[0])
    done("replace", again, "--gone", tmp_path / "gone.txt", "--scheduler", scheduler, "--quiet")
    assert not (again / "report" / "audit.json").exists()
    done("audit", again, "--labels", labelled[1], "--quiet")
    assert attribute(read_report(again), "tone")["rows"] == attribute(before, "tone")["rows"] - 1


def test_an_audit_changes_nothing_but_its_own_files(again, labelled):
    before = files(again)
    done("audit", again, "--labels", labelled[1], "--quiet")
    after = files(again)
    assert set(after) - set(before) == set(REPORT)
    assert {name: after[name] for name in before} == before


def test_damaged_decisions_are_named_and_never_counted(again, labelled):
    part = again / "decisions" / "part-00000.parquet"
    data = bytearray(part.read_bytes())
    data[100] ^= 1
    part.write_bytes(data)
    shown = command("audit", again, "--labels", labelled[1])
    assert shown.code == 2 and f"{part} is missing or damaged: run `fairdedup prune {again}` again" in shown.err
    assert not any((again / "report" / name).exists() for name in AUDIT_FILES)


def test_a_moved_run_can_be_audited(again, labelled, tmp_path):
    shutil.move(again, tmp_path / "elsewhere")
    done("audit", tmp_path / "elsewhere", "--labels", labelled[1], "--quiet")
    assert read_report(tmp_path / "elsewhere")["counts"] == manifest(tmp_path / "elsewhere")["counts"]
