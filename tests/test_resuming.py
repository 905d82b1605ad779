"""A command repeats only what is not done or has changed: finished stages, stopped runs, mistakes, changed inputs."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from runs import (
    CLUSTERS,
    PRODUCT,
    command,
    contents,
    done,
    files,
    manifest,
    read_plain,
    write_embeddings,
)
from slow_twin import flags_of

from fairdedup.commands import run as run_command
from fairdedup.commands.sweep import sweep_run
from fairdedup.config import RunConfig
from fairdedup.progress import StageProgress
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.run_files import write_array
from fairdedup.tasks import Task
from fairdedup.workers import Workers


def test_a_second_prune_embeds_and_clusters_nothing(prune, again):
    before = files(again / "embeddings"), files(again / "clusters")
    first = contents(again / "kept")
    prune("--keep", 0.3, "--rule", "semdedup")
    assert (files(again / "embeddings"), files(again / "clusters")) == before
    assert contents(again / "kept") != first and manifest(again)["counts"]["kept"] == 71
    assert manifest(again)["stages"]["embed"]["rows"] == 240, "what the first command took is forgotten"
    prune("--keep", 0.5)
    assert contents(again / "kept") == first


@pytest.mark.parametrize(
    ("rule", "cover"), [("fairdedup", False), ("balanced", False), ("balanced", True), ("semdedup-chain", False)]
)
def test_sweep_predicts_prune_and_writes_nothing(prune, again, scheduler, prototypes, rule, cover):
    before = files(again)
    fractions = [0.1, 0.8]
    within = {"cover": True, "reach": 0} if cover else {"published": True}
    config = RunConfig(out=again, rule=rule, prototypes=prototypes, scheduler=scheduler, **within)
    with StageProgress(quiet=True) as progress, Workers(progress, scheduler) as workers:
        lines = sweep_run(config, fractions, workers).lines
    assert files(again) == before
    for fraction, line in zip(fractions, lines, strict=True):
        run = prune("--keep", fraction, *flags_of(rule, cover)).run
        counts = manifest(run)["counts"]
        assert asdict(line) == {
            "keep": fraction, "kept": counts["kept"], "eps": manifest(run)["eps"], "readmitted": counts["readmitted"]
        }  # fmt: skip


@pytest.mark.parametrize("asked", [
    ("--cover", "--start", "zero"), ("--rule", "balanced", "--cover", "--temperature", 0.02, "--target", "data"),
    ("--rule", "random-neighbour", "--cover", "--seed", 9),
], ids=str)  # fmt: skip
def test_sweep_takes_every_option_that_its_counts_depend_on(prune, again, scheduler, prototypes, asked):
    done("sweep", again, "--keep", 0.35, *asked, "--prototypes", prototypes, "--scheduler", scheduler, "--quiet")
    shown = done("sweep", again, "--keep", 0.35, *asked, "--prototypes", prototypes, "--scheduler", scheduler,
                 "--log-json").err  # fmt: skip
    (line,) = json.loads(shown.splitlines()[-1])["sweep"]
    known = manifest(prune("--keep", 0.35, *asked).run)
    assert (line["eps"], line["readmitted"]) == (known["eps"], known["counts"]["readmitted"])


def test_decisions_can_be_read_while_a_prune_is_at_work(again):
    before = pd.read_parquet(again / "decisions")
    write_array(RunDirectory(again).decided(0), np.zeros(3))  # what its tasks write until all of them are done
    pd.testing.assert_frame_equal(pd.read_parquet(again / "decisions"), before)


def test_a_model_that_did_not_embed_the_images_is_refused(images_run, weights, tmp_path, scheduler):
    shutil.copytree(images_run, tmp_path / "run")
    shutil.copy(weights, tmp_path / "same.safetensors")
    asked = (
        "prune",
        tmp_path / "run",
        "--keep",
        0.4,
        "--model",
        "fairdedup-small",
        "--scheduler",
        scheduler,
        "--quiet",
    )
    for other in ((), ("--pretrained", "openai")):
        shown = command(*asked, *other)
        assert shown.code == 2 and "this run's images were embedded by --model 'fairdedup-small' --pr" in shown.err
        assert shown.err.endswith("leave --model out\n")
    done("prune", tmp_path / "run", "--keep", 0.4, "--scheduler", scheduler, "--quiet")
    done(*asked, "--pretrained", tmp_path / "same.safetensors")
    shown = command("audit", tmp_path / "run", "--pretrained", "openai", "--scheduler", scheduler)
    assert shown.code == 2 and "needs --model" in shown.err


def test_the_stages_one_by_one_give_the_same_bytes(finished, tmp_path, embeddings, prototypes, scheduler):
    run, dask = tmp_path / "run", ("--scheduler", scheduler, "--quiet")
    done("embed", embeddings, "--out", run, *dask)
    assert not (run / "run.json").exists()
    done("cluster", run, "--clusters", CLUSTERS, *dask)
    done("prune", run, "--keep", 0.5, "--prototypes", prototypes, *dask)
    for folder in (*PRODUCT, "clusters", "embeddings/img_emb", "embeddings/metadata"):
        assert contents(run / folder) == contents(finished / folder)


def test_a_stage_names_the_one_that_must_run_first(tmp_path, finished):
    shutil.copytree(finished / "embeddings", tmp_path / "run" / "embeddings")
    assert "holds no finished embeddings: run `fairdedup embed" in command("cluster", tmp_path / "run").err
    config = read_plain(finished / "config.json")
    del config["done"]["cluster"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    answer = command("prune", tmp_path / "run", "--keep", 0.5, "--rule", "semdedup")
    assert answer.code == 2 and "holds no finished clustering: run `fairdedup cluster" in answer.err


def test_a_shard_whose_file_was_lost_or_cut_is_made_again_alone(again, embeddings, prototypes, scheduler):
    first = contents(again / "kept")
    before = files(again / "embeddings")
    (again / "embeddings" / "img_emb" / "img_emb_1.npy").unlink()
    with open(again / "embeddings" / "metadata" / "metadata_2.parquet", "r+b") as cut:
        cut.truncate(100)
    lost = command("prune", again, "--keep", 0.4, "--rule", "semdedup")
    assert lost.code == 2 and "img_emb_1.npy is missing or damaged: run `fairdedup embed`" in lost.err
    (again / "run.json").unlink()
    done("run", embeddings, "--keep", 0.5, "--prototypes", prototypes, "--clusters", CLUSTERS, "--out", again,
         "--scheduler", scheduler, "--quiet")  # fmt: skip
    after = files(again / "embeddings")
    assert {name for name in after if after[name] != before[name]} == {
        "img_emb/img_emb_1.npy", "metadata/metadata_1.parquet", "records/record_1.json",
        "img_emb/img_emb_2.npy", "metadata/metadata_2.parquet", "records/record_2.json",
    }  # fmt: skip
    assert {name: data for name, (data, _) in after.items()} == {name: data for name, (data, _) in before.items()}
    assert contents(again / "kept") == first


@pytest.mark.parametrize("stage", ["embed", "cluster", "decide", "write_results"])
def test_a_stopped_run_resumes_and_ends_with_the_same_bytes(
    stage, finished, tmp_path, monkeypatch, embeddings, prototypes, scheduler
):
    asked = ("run", embeddings, "--keep", 0.5, "--prototypes", prototypes, "--clusters", CLUSTERS,
             "--out", tmp_path / "run", "--scheduler", scheduler, "--quiet")  # fmt: skip

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(run_command, stage, stop)
        stopped = command(*asked)
    assert stopped.code == 1
    assert stopped.err.strip() == "fairdedup: error: Interrupted. Run the same command to resume."
    assert not (tmp_path / "run" / "run.json").exists()
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run" / ".config.json.1234.tmp").write_text("{")  # what was being written
    before = files(tmp_path / "run")
    done(*asked)
    after = files(tmp_path / "run")
    made = [name for name in before if name.startswith(("embeddings", "clusters"))]
    assert made if stage not in ("embed", "cluster") else True
    assert {name: after[name] for name in made} == {name: before[name] for name in made}, "done twice"
    for folder in PRODUCT:
        assert contents(tmp_path / "run" / folder) == contents(finished / folder)
    assert not list((tmp_path / "run").rglob("*.tmp"))


def test_a_mistake_costs_nothing_that_was_done(again, prototypes, scheduler, tmp_path):
    dask, inside = ("--scheduler", scheduler, "--quiet"), again / "embeddings"
    start_over = ("--keep", 0.5, "--rule", "semdedup", "--out", again, "--restart")
    other = tmp_path / "other"  # of a line with it
    done("prune", again, "--keep", 0.5, "--rule", "semdedup", *dask)  # it was made elsewhere, and copied
    done("run", inside, "--against", again, "--out", other, *dask)
    (tmp_path / "link").symlink_to(again)
    before = files(again)
    for mistake in (
        ("prune", again, "--keep", 0.001, "--rule", "semdedup"),
        ("prune", again, "--keep", 0.5, "--rule", "fairdedup"),
        ("prune", again, "--keep", 0.5, "--prototypes", tmp_path / "missing.npz"),
        ("cluster", again, "--clusters", 238),
        ("sweep", again, "--keep", "0.5,0.001", "--rule", "semdedup"),
        ("embed", tmp_path / "nowhere", "--out", again),
        ("run", tmp_path / "nowhere", "--keep", 0.5, "--out", again, "--restart"),
        ("run", tmp_path, "--keep", 0.5, "--out", again),
        ("run", inside, *start_over),
        ("run", f"{{{again},{other}}}/embeddings", "--id", "shard/key", *start_over),
        ("run", tmp_path / "link" / "embeddings", *start_over),
        ("run", other / "embeddings", "--exclude-near", tmp_path / "no", "--exclude-near-eps", 0.1, *start_over),
        ("run", other / "embeddings", "--model", "ViT-B-16", *start_over),
        ("run", other / "embeddings", "--against", again / ".." / again.name, "--out", again, "--restart"),
        ("refit", other, *start_over),
    ):
        finished = command(*mistake, *dask)
        assert finished.code == 2 and finished.err.count("\n") == 1, (mistake, finished)
        assert files(again) == before, mistake


def test_after_a_mistake_the_corrected_command_continues(tmp_path, embeddings, scheduler):
    asked = ("run", embeddings, "--rule", "semdedup", "--out", tmp_path / "run", "--scheduler", scheduler, "--quiet")
    assert command(*asked, "--keep", 0.5, "--clusters", 100_000).code == 2
    assert command(*asked, "--keep", 0.01, "--clusters", CLUSTERS).code == 2
    done(*asked, "--keep", 0.5, "--clusters", CLUSTERS)


def test_a_lost_worker_costs_its_own_task(tmp_path):
    def task(died: Path, k: int) -> int:
        if k == 1 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return k * k

    with StageProgress(quiet=True) as progress, Workers(progress, workers=1) as own:
        assert own.submit("embed", task, [Task((tmp_path / "died", k), rows=1) for k in range(4)]) == [0, 1, 4, 9]
    assert (tmp_path / "died").exists() and progress.rows == {"embed": 4}


def test_an_input_that_has_changed_is_refused_by_name(tmp_path, scheduler):
    source, run = tmp_path / "source", tmp_path / "run"
    write_embeddings(source)
    asked = ("run", source, "--keep", 0.5, "--rule", "semdedup", "--clusters", CLUSTERS, "--scheduler", scheduler)
    done(*asked, "--out", run)
    before = files(run)
    one = source / "img_emb" / "img_emb_1.npy"
    np.save(one, 1 - np.load(one))
    changed = command(*asked, "--out", run)
    assert changed.code == 2 and changed.err.splitlines()[-1] == (
        f"fairdedup: error: {run} was made of another input ('img_emb_1.npy' has changed): choose another --out, "
        "or --restart; a copy of its input must have the same sizes and times (cp -a)"
    )
    for kind, name in (("img_emb", "img_emb_2.npy"), ("metadata", "metadata_2.parquet")):
        (source / kind / name).unlink()
    gone = command("embed", source, "--out", run, "--scheduler", scheduler)
    assert gone.code == 2 and "('img_emb_1.npy' has changed and 1 more)" in gone.err
    assert files(run) == before
    done(*asked, "--out", run, "--restart")
    done(*asked, "--out", tmp_path / "fresh")
    assert not (run / "embeddings" / "img_emb" / "img_emb_2.npy").exists()
    for folder in PRODUCT:
        assert contents(run / folder) == contents(tmp_path / "fresh" / folder)


def test_clusters_of_other_embeddings_are_not_used(again, tmp_path, scheduler):
    config = read_plain(again / "config.json")
    config["done"]["cluster"] = "another fingerprint"
    (again / "config.json").write_text(json.dumps(config))
    answer = command("prune", again, "--keep", 0.5, "--rule", "semdedup", "--scheduler", scheduler)
    assert answer.code == 2 and "no finished clustering" in answer.err
