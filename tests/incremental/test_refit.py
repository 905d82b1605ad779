"""`fairdedup refit`: all days of a sequence of runs are clustered and decided as one run."""

from __future__ import annotations

import json
import shutil

from nights import night
from runs import (
    command,
    done,
    manifest,
    product,
    read_plain,
)

from fairdedup.storage.seals import seal


def test_refitting_decides_all_days_as_one_run_over_their_embeddings(days, line, tmp_path, scheduler, prototypes):
    dask = ("--scheduler", scheduler, "--quiet")
    done("refit", line[2], "--keep", 0.4, "--clusters", 5, "--out", tmp_path / "refit", *dask)
    known = manifest(tmp_path / "refit")
    assert known["counts"]["input"] == sum(manifest(run)["counts"]["valid"] for run in line) == 204
    assert known["config"]["prune"]["cover"] and known["clusters"] == 5
    (tmp_path / "all" / "img_emb").mkdir(parents=True)
    (tmp_path / "all" / "metadata").mkdir()
    for k, run in enumerate(line):
        for what, name in (("img_emb", "img_emb_{}.npy"), ("metadata", "metadata_{}.parquet")):
            shutil.copy(run / "embeddings" / what / name.format(0), tmp_path / "all" / what / name.format(k))
    done("run", tmp_path / "all", "--keep", 0.4, "--clusters", 5, "--reach", 0, "--prototypes",
         line[0] / "state" / "prototypes.parquet", "--out", tmp_path / "plain", *dask)  # fmt: skip
    assert product(tmp_path / "refit") == product(tmp_path / "plain")
    after = night(days, 3, tmp_path / "after", scheduler, "--against", tmp_path / "refit")
    assert manifest(after)["against"] == [str(tmp_path / "refit")]


def test_refitting_takes_over_the_options_and_minds_no_file_of_daily_runs(days, line, tmp_path, scheduler, monkeypatch):
    """Runs that began with `balanced` continue with it; `against` and `column` in fairdedup.yaml are for daily runs."""
    first = night(days, 0, tmp_path / "first", scheduler, "--keep", 0.5, "--rule", "balanced", "--reserve", 0.3,
                  "--prototypes", line[0] / "state" / "prototypes.parquet", "--clusters", 4)  # fmt: skip
    (tmp_path / "fairdedup.yaml").write_text(f"against: [{first}]\ncolumn: embedding\n")
    monkeypatch.chdir(tmp_path)
    done("refit", first, "--keep", 0.4, "--clusters", 5, "--out", "refit", "--scheduler", scheduler, "--quiet")
    known = manifest(tmp_path / "refit")
    assert "against" not in known and known["clusters"] == 5 and known["counts"]["kept"] == 44
    assert (known["config"]["prune"]["rule"], known["config"]["prune"]["reserve"]) == ("balanced", 0.3)


def test_refitting_names_a_run_that_is_not_where_it_was_made(line, tmp_path):
    for k, run in enumerate(line[:2]):
        shutil.copytree(run, tmp_path / f"a{k}")
    state = tmp_path / "a1" / "state" / "state.json"
    state.write_text(json.dumps(read_plain(state)).replace(str(line[0]), str(tmp_path / "gone")))
    known = read_plain(tmp_path / "a1" / "run.json")
    known["files"]["state/state.json"] = seal(state)
    (tmp_path / "a1" / "run.json").write_text(json.dumps(known))
    shown = command("refit", tmp_path / "a1", "--keep", 0.5, "--out", tmp_path / "new", "--quiet")
    assert shown.code == 2 and "restore the folder of that run" in shown.err
