"""`fairdedup gate` on real runs: it fails just past the values that counting by hand gives, and names the value."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from runs import UNUSABLE, Finished, command, done, files, manifest, raw_vectors, table

ROWS = 240
REJECTED = len(UNUSABLE) / ROWS


@pytest.fixture
def rates(again: Path, tmp_path: Path) -> dict[str, float]:
    """Audit the copy with labels that depend on the decisions, and return each group's keep rate."""
    decisions = table(again / "decisions")
    kept = decisions["kept"].to_numpy()
    tone = np.where(kept & (decisions["row"] % 3 > 0), "light", "dark")
    tone[np.flatnonzero(kept)[:4]] = "rare"  # too few to be judged
    tone[np.flatnonzero(~kept)[:4]] = "rare"
    lines = [f"{i},{t}" for i, t in zip(decisions["id"], tone, strict=True)]
    (tmp_path / "labels.csv").write_text("\n".join(["id,tone", *lines]) + "\n")
    done("audit", again, "--labels", tmp_path / "labels.csv", "--quiet")
    return {name: float(kept[tone == name].mean()) for name in ("light", "dark", "rare")}


def closed(finished: Finished) -> str:
    """Return the single line of a gate that failed."""
    assert finished.code == 1 and finished.out == "" and finished.err.count("\n") == 1, finished
    return finished.err


def test_rejects_close_the_gate_just_past_the_bound(again):
    before = files(again)
    shown = done("gate", again, "--max-rejected", REJECTED)
    assert shown.out == "rejected 0.0125 is within --max-rejected 0.0125\n"
    line = closed(command("gate", again, "--max-rejected", np.nextafter(REJECTED, 0)))
    assert line == f"fairdedup: error: the gate is closed for {again}: rejected 0.0125 is over --max-rejected 0.0125\n"
    assert files(again) == before


def test_rows_that_the_user_left_out_are_no_rejects(prune):
    run = prune("--keep", 0.5, "--where", "width % 2 = 0").run
    counts = manifest(run)["counts"]
    assert counts["rejected"] > 100
    assert f"rejected {REJECTED:.4g} is within" in done("gate", run, "--max-rejected", 0.02).out


def test_the_group_that_was_kept_least_closes_the_gate(again, rates):
    assert rates["light"] == 1 and rates["rare"] == 0.5
    ratio = rates["dark"]
    assert 0.1 < ratio < 0.5
    for bound, code in ((ratio - 1e-6, 0), (ratio + 1e-6, 1)):
        shown = command("gate", again, "--min-retention", bound)
        assert shown.code == code
        assert f"retention of 'dark' by tone {ratio:.4g} is {('within', 'under')[code]}" in shown.out + shown.err
        assert "rare" not in shown.out + shown.err
    both = closed(command("gate", again, "--min-retention", 0.9, "--max-rejected", 0))
    assert both.index("rejected 0.0125 is over") < both.index("; retention of 'dark'")


def test_groups_that_are_all_too_small_are_reported_and_pass(again, rates, tmp_path):
    done("audit", again, "--labels", tmp_path / "labels.csv", "--min-count", 1000, "--quiet")
    shown = done("gate", again, "--min-retention", 1)
    assert shown.out == "retention by tone: no group is large enough, or no sample was kept\n"


@pytest.mark.parametrize("sign", [1, -1])
def test_rows_of_another_kind_close_the_gate_for_drift(finished, tmp_path, scheduler, sign):
    np.save(tmp_path / "new.npy", sign * raw_vectors())
    run = tmp_path / "run"
    done("run", tmp_path / "new.npy", "--against", finished, "--model", "fairdedup-small", "--out", run, "--scheduler",
         scheduler, "--quiet")  # fmt: skip
    drift = manifest(run)["drift"]
    beyond = drift["psi"] - drift["psi_by_chance"]
    assert (beyond > 0.25) == (sign < 0)
    shown = command("gate", run, "--max-drift", 0.25)
    assert shown.code == (sign < 0)
    assert f"drift (psi beyond chance) {beyond:.4g} is {'within' if sign > 0 else 'over'}" in shown.out + shown.err


def test_a_first_run_has_no_drift(again):
    assert "drift: none" in done("gate", again, "--max-drift", 0).out


def test_schedulers_get_lines_of_json(again):
    shown = done("gate", again, "--max-rejected", 1, "--log-json")
    event = json.loads(shown.err)
    assert event["event"] == "finished" and event["run"] == str(again) and len(event["checks"]) == 1
    shown = command("gate", again, "--max-rejected", 0, "--log-json")
    event = json.loads(shown.err)
    assert (shown.code, event["event"], event["code"]) == (1, "error", 1) and "is over" in event["text"]


def test_the_run_is_that_of_the_yaml_as_with_every_command(again, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    Path("fairdedup.yaml").write_text("{out: ../run, max-rejected: 0.001}")
    assert "is within --max-rejected 0.0125" in done("gate", "--max-rejected", REJECTED).out
    assert done("gate", again, "--max-drift", 1).out.startswith("drift: none")  # max_rejected of the file is no bound
    Path("fairdedup.yaml").rename("other.yaml")
    assert "is within" in done("gate", "--config", "other.yaml", "--max-rejected", 1).out
    shown = command("gate", "--max-rejected", 1)
    assert shown.code == 2 and "there is no run at" in shown.err


@pytest.mark.parametrize("damaged", ["{", "{}", '{"attributes": 3}'])
def test_the_remedy_for_a_damaged_report_is_to_audit_again(again, scheduler, prototypes, damaged):
    audit = ("audit", again, "--prototypes", prototypes, "--scheduler", scheduler, "--quiet")
    done(*audit)
    (again / "report" / "audit.json").write_text(damaged)
    shown = command("gate", again, "--min-retention", 0)
    assert shown.code == 2 and f"is not the report of an audit: run `fairdedup audit {again}` again" in shown.err
    done(*audit)
    done("gate", again, "--min-retention", 0)
