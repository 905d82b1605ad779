"""The state that a run leaves for later runs is self-contained, renewed by a replacement, and never read if damaged."""

from __future__ import annotations

import re
import shutil

import pyarrow as pa
import pytest
from nights import decisions_of, night, refused
from runs import (
    command,
    done,
    manifest,
    product,
)
from runs import table as run_table

from fairdedup.incremental import lineage
from fairdedup.storage.run_state import RunState


def test_a_state_is_whole_in_itself(days, line, tmp_path, scheduler):
    shutil.copytree(line[1], tmp_path / "moved")
    alone = night(days, 2, tmp_path / "alone", scheduler, "--against", tmp_path / "moved", "--at-most", 0.3)
    assert product(alone)["kept"] == product(line[2])["kept"]
    first = (line[2] / "state" / "run-0000" / "vectors_0.npy").stat()
    assert first.st_ino == (line[0] / "state" / "run-0000" / "vectors_0.npy").stat().st_ino


def test_after_a_replacement_the_state_is_of_who_is_kept_now(days, line, tmp_path, scheduler):
    shutil.copytree(line[0], tmp_path / "day0")
    found = decisions_of(line[1])
    gone = found["representative_id"].dropna().iloc[0]
    (tmp_path / "gone.txt").write_text(f"{gone}\n")
    done("replace", tmp_path / "day0", "--gone", tmp_path / "gone.txt", "--scheduler", scheduler, "--quiet")
    kept = set(run_table(tmp_path / "day0" / "kept")["id"])
    with pa.memory_map(str(tmp_path / "day0" / "state" / "run-0000" / "ids_0.arrow")) as source:
        assert set(pa.ipc.open_file(source).read_all().column("id").to_pylist()) == kept
    after = night(days, 1, tmp_path / "after", scheduler, "--against", tmp_path / "day0")
    assert gone not in set(decisions_of(after)["representative_id"])
    assert done("run", days / "day0.npy", "--out", tmp_path / "day0", "--keep", 0.5, "--reach", 0, "--clusters", 4,
                "--prototypes", manifest(line[0])["config"]["prune"]["prototypes"], "--max-rejected", 0.5).err.count(
                    "nothing to do")  # fmt: skip


@pytest.mark.parametrize("killed_at", ["state.json", "run.json"])
@pytest.mark.parametrize("mend", ["run", "replace", "audit"])
def test_the_message_for_a_stopped_replacement_names_the_command_that_finishes_it(
    days, line, tmp_path, scheduler, prototypes, monkeypatch, mend, killed_at
):
    run, file = tmp_path / "day0", tmp_path / "gone.txt"
    shutil.copytree(line[0], run)
    gone = decisions_of(line[1])["representative_id"].dropna().iloc[0]
    file.write_text(f"{gone}\n")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    dask = ("--scheduler", scheduler, "--quiet")
    with monkeypatch.context() as patched:
        if killed_at == "state.json":
            patched.setattr(RunState, "write", stop)
        else:
            patched.setattr(lineage, "write_manifest", stop)
        assert command("replace", run, "--gone", file, *dask).code == 1
    said = refused(days / "day1.npy", "--against", run, "--out", tmp_path / "day1", "--max-rejected", 0.5)
    assert "its own `fairdedup run` command" in said and "prune" not in said
    if mend == "run":
        night(days, 0, run, scheduler, "--keep", 0.5, "--reach", 0, "--prototypes", prototypes, "--clusters", 4)
    elif mend == "replace":
        told = re.search("`fairdedup (replace [^`]*)`", said)
        assert told
        done(*told[1].replace("FILE", str(file)).split(), *dask)
    else:
        done("audit", run, *dask)
    assert gone not in set(run_table(run / "kept")["id"]) and not (run / "state" / "stale.json").exists()
    after = night(days, 1, tmp_path / "day1", scheduler, "--against", run)
    assert gone not in set(decisions_of(after)["representative_id"])


def test_a_run_that_has_changed_meanwhile_is_refused(days, line, tmp_path, scheduler):
    shutil.copytree(line[0], tmp_path / "day0")
    run = night(days, 1, tmp_path / "day1", scheduler, "--against", tmp_path / "day0")
    done("prune", tmp_path / "day0", "--keep", 0.3, "--rule", "semdedup", "--scheduler", scheduler, "--quiet")
    assert "another content of --against" in refused(days / "day1.npy", "--against", tmp_path / "day0", "--out", run)
    shown = command("prune", run, "--scheduler", scheduler, "--quiet")
    assert shown.code == 2 and "have changed since" in shown.err


def test_a_damaged_state_is_named_and_never_read(days, line, tmp_path, scheduler):
    shutil.copytree(line[0], tmp_path / "day0")
    base = (days / "day1.npy", "--against", tmp_path / "day0", "--out", tmp_path / "day1", "--scheduler", scheduler)
    vectors = tmp_path / "day0" / "state" / "run-0000" / "vectors_0.npy"
    whole = vectors.read_bytes()
    vectors.write_bytes(whole[:-40] + bytes(40))
    assert "vectors_0.npy is damaged" in refused(*base)
    vectors.write_bytes(whole[:-40])
    assert "vectors_0.npy is missing or damaged" in refused(*base)
    (tmp_path / "day0" / "state" / "state.json").write_text("{}")
    assert "state.json is missing or damaged" in refused(*base)
