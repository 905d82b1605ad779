"""The pipeline over files: what the slow twin says of a run, what survives to kept/, and what is never done twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import oracles
import pandas as pd
import pyarrow.parquet as pq
import pytest
from runs import (
    CLUSTERS,
    PRODUCT,
    UNUSABLE,
    Decided,
    command,
    contents,
    done,
    files,
    manifest,
    picture,
    prototype_vectors,
    raw_vectors,
    sample,
    table,
    write_embeddings,
    write_tar,
)

from fairdedup import deduplicate, pipeline
from fairdedup.config import RunConfig
from fairdedup.progress import StageProgress
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.run_files import write_array
from fairdedup.tasks import Task
from fairdedup.workers import Workers

SHARED = Path(__file__).parents[2] / "shared"
RULES = [
    ("semdedup", False), ("semdedup", True), ("fairdedup", False), ("fairdedup", True), ("balanced", False),
    ("balanced", True), ("random-neighbour", False), ("random-neighbour", True), ("semdedup-chain", False),
]  # fmt: skip


def flags_of(rule: str, cover: bool) -> list[str]:
    return ["--rule", rule, *(["--cover"] if cover else [])]


def units(run: Path) -> int:
    eps = manifest(run)["eps"]
    assert round(eps * 10_000) / 10_000 == eps
    return round(eps * 10_000)


def assert_same(decided: Decided, expected: oracles.Decision) -> None:
    """Compare every column of decisions/ with the twin's, whose rows are places among the valid ones."""
    found = decided.decisions
    rows = found["row"].to_numpy()
    for name, values in expected.items():
        wanted = rows[values] if name in ("representative", "neighbourhood") else values
        wrong = np.flatnonzero(found[name].to_numpy() != wanted)
        assert not len(wrong), (
            f"{name} of rows {rows[wrong[:9]]}: {found[name][wrong[:9]].tolist()}, {wanted[wrong[:9]]}"
        )


# What is decided


@pytest.mark.parametrize(("rule", "cover"), RULES)
def test_a_run_keeps_what_the_slow_twin_keeps(prune, rule, cover):
    decided = prune("--keep", 0.5, *flags_of(rule, cover))
    problem, e = decided.problem(rule, cover), units(decided.run)
    if rule != "random-neighbour":  # its choices are known at this eps alone
        assert problem.brackets(e, problem.searched_seats(0.5))
    expected = problem.decide(e, 0.5)
    assert_same(decided, expected)
    kept = decided.decisions.loc[expected["kept"], "id"].tolist()
    assert table(decided.run / "kept")["id"].tolist() == kept
    assert len(kept) == oracles.kept_seats(0.5, 237)
    pairs, orphans = oracles.guarantees(decided.unit, expected, e)
    assert manifest(decided.run)["guarantees"] == {
        "no_two_kept_are_duplicates": pairs == 0,
        "every_removed_has_a_kept_representative": orphans == 0,
    }


@pytest.mark.parametrize(("rule", "cover"), [("semdedup", False), ("balanced", False), ("fairdedup", True)])
def test_an_eps_that_is_given_is_used_as_it_is(prune, rule, cover):
    decided = prune("--eps", 0.03, *flags_of(rule, cover))
    assert units(decided.run) == 300
    assert_same(decided, decided.problem(rule, cover).at_eps(300))


def test_at_most_readmits_nothing(prune):
    decided = prune("--at-most", 0.4, "--rule", "balanced")
    problem, e = decided.problem("balanced"), units(decided.run)
    assert problem.brackets(e, problem.searched_seats(0.4, at_most=True))
    assert_same(decided, problem.at_eps(e))
    assert manifest(decided.run)["counts"]["readmitted"] == 0


def test_options_of_a_rule_reach_it(prune):
    balanced = prune("--keep", 0.4, "--rule", "balanced", "--target", "data", "--temperature", 0.05, "--reserve", 0.3)
    problem = balanced.problem("balanced", target="data", temperature=0.05, reserve=0.3)
    assert_same(balanced, problem.decide(units(balanced.run), 0.4))
    calibrated = prune("--keep", 0.4, "--start", "zero", "--calibrate", "zscore")
    assert_same(calibrated, calibrated.problem("fairdedup", start="zero", calibrate="zscore").decide(
        units(calibrated.run), 0.4))  # fmt: skip


def test_keeping_all_removes_nothing(prune):
    decided = prune("--keep", 1)
    assert decided.decisions["kept"].all() and units(decided.run) == 0


def test_random_keeps_a_seeded_share_of_all(prune):
    one = prune("--keep", 0.3, "--rule", "random").decisions
    assert not oracles.random_fault({name: one[name].to_numpy() for name in one}, 0.3)
    assert (one["representative"][~one["kept"]] == -1).all() and one["similarity"][~one["kept"]].isna().all()
    assert prune("--keep", 0.3, "--rule", "random", "--seed", 0).decisions.equals(one)
    other = prune("--keep", 0.3, "--rule", "random", "--seed", 1).decisions
    assert other["kept"].sum() == one["kept"].sum() and (other["kept"] != one["kept"]).any()


def test_every_row_is_in_the_cluster_of_its_most_similar_centroid(finished):
    decided = Decided(finished)
    assert decided.centroids.shape == (CLUSTERS, decided.unit.shape[1])
    assert decided.decisions["cluster"].tolist() == oracles.assign(decided.unit, decided.centroids).tolist()


def test_embeddings_are_the_unit_vectors_of_the_input(finished):
    assert np.array_equal(Decided(finished).unit, oracles.unit16(np.delete(raw_vectors(), list(UNUSABLE), axis=0)))


@pytest.mark.parametrize("rule", ["fairdedup", "balanced", "semdedup"])
def test_a_run_is_what_deduplicate_says_in_memory(prune, embeddings, rule):
    x = np.concatenate([np.load(embeddings / "img_emb" / f"img_emb_{k}.npy") for k in range(3)])
    ids = [f"k{row}" for row in range(len(x))]
    result = deduplicate(
        x, keep=0.5, rule=rule, prototypes=prototype_vectors(), clusters=CLUSTERS, ids=ids, device="cpu"
    )
    run = prune("--keep", 0.5, "--rule", rule).run
    assert table(run / "kept")["id"].tolist() == result.kept.tolist()
    pd.testing.assert_frame_equal(table(run / "decisions"), result.decisions, check_dtype=False)
    assert manifest(run)["eps"] == result.eps and manifest(run)["guarantees"] == result.guarantees


# What is written


def test_every_row_of_the_input_is_kept_removed_or_rejected(finished):
    decisions, rejected = table(finished / "decisions"), table(finished / "rejected")
    assert sorted([*decisions["row"], *rejected["row"]]) == list(range(240))
    assert decisions["row"].is_monotonic_increasing
    assert manifest(finished)["counts"] == {
        "input": 240, "valid": 237, "kept": 119, "removed": 118, "rejected": 3,
        "readmitted": int(decisions["readmitted"].sum()), "excluded": 0,
    }  # fmt: skip
    assert decisions["kept"].sum() == len(table(finished / "kept")) == 119


def test_a_vector_that_cannot_be_used_is_rejected_with_its_reason(finished):
    rejected = table(finished / "rejected").set_index("row")
    assert rejected["id"].to_dict() == {row: f"k{row}" for row in UNUSABLE}
    assert rejected["reason"][101] == "vector is zero"
    assert rejected["reason"][7] == rejected["reason"][233] == "vector has a value that is not finite"
    assert rejected["source"][7] == "img_emb_0.npy[7]"


def test_every_metadata_column_survives_to_kept(finished, embeddings):
    given = pd.concat(
        [pq.read_table(embeddings / "metadata" / f"metadata_{k}.parquet").to_pandas() for k in range(3)],
        ignore_index=True,
    )
    kept = table(finished / "kept")
    assert list(kept.columns) == ["id", "key", "caption", "width", "tags", "mixed", "nested", "only here"]
    expected = given[given["key"].isin(kept["id"])].reset_index(drop=True)
    assert kept["id"].tolist() == kept["key"].tolist() == expected["key"].tolist()
    assert kept["width"].tolist() == expected["width"].tolist()
    assert [list(t) for t in kept["tags"]] == [list(t) for t in expected["tags"]]
    assert kept["mixed"].tolist() == expected["mixed"].astype(str).tolist()  # the shards disagree: text holds all
    for row, text in zip(expected.index, kept["nested"], strict=True):
        number = int(expected["key"][row][1:])
        assert text == (f"[{number}]", f"text {number}", json.dumps({"row": number}))[number // 80]
    for name in ("caption", "only here"):
        pd.testing.assert_series_equal(kept[name], expected[name])


def test_run_json_says_how_the_run_was_made(finished, embeddings, prototypes):
    known = manifest(finished)
    assert known["config"]["embed"]["input"] == str(embeddings)
    assert known["config"]["prune"]["keep"] == 0.5 and known["config"]["prune"]["prototypes"] == str(prototypes)
    assert known["config"]["cluster"]["clusters"] == known["clusters"] == CLUSTERS
    assert known["seed"] == 0 and known["eps"] == units(finished) / 10_000
    assert {"python", "fairdedup", "numpy", "pyarrow", "dask"} <= set(known["versions"])
    assert len(known["input"]["fingerprint"]) == 64 and known["input"]["format"] == "clip-retrieval"
    assert set(known["guarantees"]) == {"no_two_kept_are_duplicates", "every_removed_has_a_kept_representative"}
    assert known["stages"]["embed"]["rows"] == 240 and known["stages"]["export"]["rows"] == 240
    assert {"embed", "train k-means", "assign", "search", "decide", "export"} <= set(known["stages"])
    assert all(stage["seconds"] >= 0 for stage in known["stages"].values())
    for attribute in ("tone", "age"):
        lines = [line for line in known["shares"] if line["attribute"] == attribute]
        assert sum(line["input"] for line in lines) == pytest.approx(1)
        assert sum(line["kept"] for line in lines) == pytest.approx(1)


def test_a_run_leaves_nothing_but_what_the_contract_names(finished):
    assert {p.name for p in finished.iterdir()} == {
        "run.json", "config.json", "embeddings", "clusters", "decisions", "kept", "rejected", "state"
    }  # fmt: skip
    for folder in PRODUCT:
        assert sorted(contents(finished / folder)) == ["part-00000.parquet"]
    assert not list(finished.rglob(".*"))


def test_the_embeddings_of_a_run_can_be_the_input_of_another(finished, tmp_path, scheduler):
    done("run", finished / "embeddings", "--keep", 0.5, "--rule", "semdedup", "--clusters", CLUSTERS,
         "--out", tmp_path / "second", "--scheduler", scheduler, "--quiet")  # fmt: skip
    assert np.array_equal(Decided(tmp_path / "second").unit, oracles.unit16(Decided(finished).unit))
    assert manifest(tmp_path / "second")["counts"]["input"] == 237
    assert table(tmp_path / "second" / "kept")["caption"].notna().sum() > 50


def test_one_npy_with_ids_beside_it(tmp_path, scheduler):
    np.save(tmp_path / "x.npy", raw_vectors(60))
    (tmp_path / "x.ids.txt").write_text("".join(f"name {k}\n" for k in range(60)))
    done("run", tmp_path / "x.npy", "--keep", 0.5, "--rule", "semdedup", "--out", tmp_path / "run",
         "--scheduler", scheduler, "--quiet")  # fmt: skip
    decisions = table(tmp_path / "run" / "decisions")
    assert decisions["id"].tolist() == [f"name {k}" for k in range(60)]
    assert manifest(tmp_path / "run")["counts"]["kept"] == 30
    assert_same(
        Decided(tmp_path / "run"), Decided(tmp_path / "run").problem("semdedup").decide(units(tmp_path / "run"), 0.5)
    )


# What is done again, and what is not


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
def test_sweep_says_what_prune_would_do_and_writes_nothing(prune, again, scheduler, prototypes, rule, cover):
    before = files(again)
    fractions = [0.1, 0.8]
    config = RunConfig(out=again, rule=rule, cover=cover, prototypes=prototypes, scheduler=scheduler)
    with StageProgress(quiet=True) as progress, Workers(progress, scheduler) as workers:
        lines = pipeline.sweep_run(config, fractions, workers)
    assert files(again) == before
    for fraction, line in zip(fractions, lines, strict=True):
        run = prune("--keep", fraction, *flags_of(rule, cover)).run
        counts = manifest(run)["counts"]
        assert line == {
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
    done(*asked, "--pretrained", tmp_path / "same.safetensors")
    shown = command("audit", tmp_path / "run", "--pretrained", "openai", "--scheduler", scheduler)
    assert shown.code == 2 and "without --model" in shown.err


def test_the_stages_one_by_one_give_the_same_bytes(finished, tmp_path, embeddings, prototypes, scheduler):
    run, dask = tmp_path / "run", ("--scheduler", scheduler, "--quiet")
    done("embed", embeddings, "--out", run, *dask)
    assert not (run / "run.json").exists()
    done("cluster", run, "--clusters", CLUSTERS, *dask)
    done("prune", run, "--keep", 0.5, "--prototypes", prototypes, *dask)
    for folder in (*PRODUCT, "clusters", "embeddings/img_emb", "embeddings/metadata"):
        assert contents(run / folder) == contents(finished / folder)


def test_a_stage_says_which_one_comes_before_it(tmp_path, finished):
    shutil.copytree(finished / "embeddings", tmp_path / "run" / "embeddings")
    assert "holds no finished embeddings: run `fairdedup embed" in command("cluster", tmp_path / "run").err
    shutil.copy(finished / "config.json", tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text(
        (finished / "config.json").read_text().replace('"cluster":', '"none":')
    )
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


@pytest.mark.parametrize("stage", ["embed_stage", "cluster_stage", "prune_stage", "write_results"])
def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_bytes(
    stage, finished, tmp_path, monkeypatch, embeddings, prototypes, scheduler
):
    asked = ("run", embeddings, "--keep", 0.5, "--prototypes", prototypes, "--clusters", CLUSTERS,
             "--out", tmp_path / "run", "--scheduler", scheduler, "--quiet")  # fmt: skip

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(pipeline, stage, stop)
        stopped = command(*asked)
    assert stopped.code == 1
    assert stopped.err.strip() == "fairdedup: error: interrupted. Run the same command to resume."
    assert not (tmp_path / "run" / "run.json").exists()
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run" / ".config.json.1234.tmp").write_text("{")  # what was being written
    before = files(tmp_path / "run")
    done(*asked)
    after = files(tmp_path / "run")
    made = [name for name in before if name.startswith(("embeddings", "clusters"))]
    assert made if stage not in ("embed_stage", "cluster_stage") else True
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


def test_after_a_mistake_the_corrected_command_goes_on(tmp_path, embeddings, scheduler):
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
        f"fairdedup: error: {run} was begun with another input ('img_emb_1.npy' has changed): choose another --out, "
        "or --restart"
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
    config = json.loads((again / "config.json").read_text())
    config["done"]["cluster"] = "another fingerprint"
    (again / "config.json").write_text(json.dumps(config))
    answer = command("prune", again, "--keep", 0.5, "--rule", "semdedup", "--scheduler", scheduler)
    assert answer.code == 2 and "no finished clustering" in answer.err


# Images


def test_keys_captions_and_columns_of_tars_survive(images_run):
    kept, decisions = table(images_run / "kept"), table(images_run / "decisions")
    assert kept["id"].tolist() == decisions.loc[decisions["kept"], "id"].tolist()
    assert list(kept.columns) == ["id", "caption", "seed", "url", "half", "licence"]
    assert 0 < len(kept) == manifest(images_run)["counts"]["kept"] == 19
    for line in kept.itertuples():
        k = int(line.id)
        assert (line.caption, line.seed, line.url, line.half) == (f"caption of {k:04d}", 3 * k, f"u/{k}", k / 2)
        assert line.licence == "CC0" if 13 <= k < 26 else pd.isna(line.licence)


def test_a_bad_image_is_rejected_with_its_reason_and_its_place(images_run):
    rejected = table(images_run / "rejected")
    assert rejected[["row", "id", "source"]].values.tolist() == [[30, "0030", "data-00002.tar/0030.png"]]
    assert rejected["reason"].tolist() == ["truncated PNG image"]
    assert manifest(images_run)["counts"] | {"readmitted": 0} == {
        "input": 39, "valid": 38, "kept": 19, "removed": 19, "rejected": 1, "readmitted": 0, "excluded": 0
    }  # fmt: skip
    assert manifest(images_run)["stages"]["embed"]["rows"] == 39
    assert 30 not in table(images_run / "decisions")["row"].tolist()


@pytest.mark.parametrize("pattern", ["data-{00000..00002}.tar", "data-*.tar"])
def test_braces_and_globs_name_the_same_shards(pattern, images_run, shards, weights, tmp_path, scheduler):
    done("run", shards / pattern, "--keep", 0.5, "--model", "fairdedup-small", "--pretrained", weights,
         "--batch-size", 4, "--out", tmp_path / "run", "--scheduler", scheduler, "--quiet")  # fmt: skip
    for folder in (*PRODUCT, "embeddings/img_emb"):
        assert contents(tmp_path / "run" / folder) == contents(images_run / folder)


def test_a_folder_of_images_with_captions(tmp_path, weights, scheduler):
    names = ["a/one.png", "a/two.png", "b.png", "\x1b[31mred\nname.png"]
    for k, name in enumerate(names):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(picture(10 * k))
    (tmp_path / "in" / "a" / "one.txt").write_text("first\n")
    (tmp_path / "in" / "broken\x1b]0;title\x07.png").write_bytes(b"no picture")
    shown = done("run", tmp_path / "in", "--keep", 1, "--rule", "semdedup", "--model", "fairdedup-small",
                 "--pretrained", weights, "--batch-size", 4, "--max-rejected", 0.2, "--out", tmp_path / "run",
                 "--scheduler", scheduler)  # fmt: skip
    kept = table(tmp_path / "run" / "kept")
    assert sorted(kept["id"]) == sorted(kept["path"]) == sorted(names)
    assert kept.set_index("id")["caption"].dropna().to_dict() == {"a/one.png": "first"}
    assert table(tmp_path / "run" / "rejected")["id"].tolist() == ["broken\x1b]0;title\x07.png"]
    assert "\x1b" not in shown.out + shown.err and "\x07" not in shown.out + shown.err


def test_captions_are_embedded_once_whatever_their_names(images_run, tmp_path, scheduler):
    shutil.copytree(images_run, tmp_path / "run")
    file = tmp_path / "mine.yaml"
    file.write_text(
        'attributes: {"race/ethnicity": {concepts: {"Hispanic/Latino": [red], other: [blue]}, absent: [none]}}'
    )
    asked = ("prune", tmp_path / "run", "--keep", 0.5, "--prototypes", file, "--scheduler", scheduler, "--quiet")
    done(*asked)
    first, vectors = contents(tmp_path / "run" / "kept"), files(tmp_path / "run")["prototypes.parquet"]
    shares = manifest(tmp_path / "run")["shares"]
    assert [(s["attribute"], s["group"]) for s in shares] == [
        ("race/ethnicity", "Hispanic/Latino"), ("race/ethnicity", "other")
    ]  # fmt: skip
    done(*asked)
    assert contents(tmp_path / "run" / "kept") == first and manifest(tmp_path / "run")["shares"] == shares
    assert files(tmp_path / "run")["prototypes.parquet"] == vectors
    file.write_text(file.read_text().replace("red", "green"))
    done(*asked)
    assert files(tmp_path / "run")["prototypes.parquet"][0] != vectors[0]


def test_ready_embeddings_of_a_named_model_use_its_text_tower(images_run, weights, tmp_path, scheduler):
    model = ("--model", "fairdedup-small", "--pretrained", weights, "--batch-size", 4, "--device", "cpu")
    done("run", images_run / "embeddings", "--keep", 0.5, *model, "--out", tmp_path / "run",
         "--scheduler", scheduler, "--quiet")  # fmt: skip
    assert contents(tmp_path / "run")["prototypes.parquet"] == contents(images_run)["prototypes.parquet"]


def test_weights_of_another_content_are_another_encoder(tmp_path, weights, scheduler, monkeypatch):
    monkeypatch.chdir(tmp_path)  # and a worker finds a file that is named from here
    write_tar(Path("x.tar"), sample("a", 0) | sample("b", 10))
    shutil.copy(weights, "w.safetensors")
    asked = ("embed", "x.tar", "--model", "fairdedup-small", "--pretrained", "w.safetensors", "--out", "run",
             "--scheduler", scheduler, "--quiet")  # fmt: skip
    done(*asked)
    before = files(tmp_path / "run" / "embeddings")
    done(*asked)
    assert files(tmp_path / "run" / "embeddings") == before
    from safetensors.numpy import load_file, save_file

    tensors = load_file("w.safetensors")
    tensors["visual.attnpool.c_proj.bias"] = tensors["visual.attnpool.c_proj.bias"] + 1
    save_file(tensors, "w.safetensors")
    done(*asked)
    after = files(tmp_path / "run" / "embeddings")
    assert after["img_emb/img_emb_0.npy"][0] != before["img_emb/img_emb_0.npy"][0]


# IDs and rejected rows


def test_an_id_that_stands_twice_is_named_with_its_places_and_the_mend(tmp_path, weights, scheduler):
    name = "same\x1b[31m"
    for shard in "ab":
        write_tar(tmp_path / f"{shard}.tar", sample(name, ord(shard)) | sample(f"own-{shard}", ord(shard) + 20))
    asked = ("run", tmp_path, "--keep", 1, "--rule", "semdedup", "--model", "fairdedup-small", "--pretrained", weights,
             "--scheduler", scheduler, "--quiet")  # fmt: skip
    failed = command(*asked, "--out", tmp_path / "one")
    assert failed.code == 2 and failed.err.count("\n") == 1 and "\x1b" not in failed.err
    assert "id 'same\\x1b[31m' stands twice, in a.tar and b.tar: make ids unique, or add --id shard/key" in failed.err
    assert not (tmp_path / "one" / "kept").exists()
    done(*asked, "--out", tmp_path / "two", "--id", "shard/key")
    assert table(tmp_path / "two" / "kept")["id"].tolist() == [f"a/{name}", "a/own-a", f"b/{name}", "b/own-b"]


def test_too_much_rejected_stops_with_the_commonest_reasons_and_costs_nothing(tmp_path, scheduler):
    x = raw_vectors(40)
    x[:3], x[5] = 0, np.nan
    np.save(tmp_path / "x.npy", x)
    asked = ("run", tmp_path / "x.npy", "--keep", 0.5, "--rule", "semdedup", "--out", tmp_path / "run",
             "--scheduler", scheduler, "--quiet")  # fmt: skip
    failed = command(*asked)
    assert failed.code == 2
    assert failed.err == (
        "fairdedup: error: 4 of 40 samples are rejected, more than --max-rejected 0.05 (3 x vector is zero; 1 x vector "
        "has a value that is not finite): mend the input or raise --max-rejected\n"
    )
    before = files(tmp_path / "run" / "embeddings")
    done(*asked, "--max-rejected", 0.1)
    assert files(tmp_path / "run" / "embeddings") == before
    assert manifest(tmp_path / "run")["counts"]["rejected"] == 4


def test_exact_copies_are_warned_of_where_they_must_be_readmitted(tmp_path, scheduler):
    np.save(tmp_path / "x.npy", np.repeat(raw_vectors(12), 20, axis=0))
    shown = done("run", tmp_path / "x.npy", "--keep", 0.9, "--rule", "semdedup", "--out", tmp_path / "run",
                 "--scheduler", scheduler)  # fmt: skip
    known = manifest(tmp_path / "run")
    assert known["counts"]["kept"] == 216 and known["counts"]["readmitted"] > 200
    assert "exact copies" in known["warnings"][0] and "warning:" in shown.out
    assert table(tmp_path / "run" / "decisions")["readmitted"].sum() == known["counts"]["readmitted"]


def test_exemplars_of_the_run_can_be_prototypes(again, scheduler, tmp_path):
    decided = Decided(again)
    ids = decided.decisions["id"]
    groups = {"light": [3, 50, 120], "dark": [9, 200]}
    lines = pd.DataFrame(
        [("tone", concept, ids[k]) for concept, places in groups.items() for k in places],
        columns=["attribute", "concept", "id"],
    )
    lines.to_parquet(tmp_path / "exemplars.parquet")
    done(
        "prune",
        again,
        "--keep",
        0.5,
        "--prototypes",
        tmp_path / "exemplars.parquet",
        "--scheduler",
        scheduler,
        "--quiet",
    )
    unit = decided.unit.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    means = {"tone": {concept: unit[places].mean(axis=0) for concept, places in groups.items()}}
    problem = oracles.Problem(decided.unit, decided.decisions["cluster"], "fairdedup", prototypes=means,
                              centroids16=decided.centroids)  # fmt: skip
    assert_same(Decided(again), problem.decide(units(again), 0.5))


@pytest.mark.skipif(
    not (SHARED / "data" / "fairface").is_dir(), reason="needs real faces, which are not in the repository"
)
def test_real_faces(tmp_path, weights, scheduler):
    shard = sorted((SHARED / "data" / "fairface").glob("train96-*.tar"))[0]
    (tmp_path / "in").mkdir()
    faces = sorted((SHARED / "data" / "fairface" / "val").iterdir())[:60]
    for face in faces:
        os.symlink(face, tmp_path / "in" / face.name)
    assert shard.is_file()
    done("run", tmp_path / "in", "--keep", 0.5, "--rule", "balanced", "--model", "fairdedup-small",
         "--pretrained", weights, "--out", tmp_path / "run", "--scheduler", scheduler, "--quiet")  # fmt: skip
    counts = manifest(tmp_path / "run")["counts"]
    assert counts["input"] == len(faces) and counts["rejected"] == 0 and counts["kept"] == len(faces) // 2
