"""A run over files decides as the slow twin does, and kept/ has all metadata of the input."""

from __future__ import annotations

import json

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
    contents,
    done,
    manifest,
    prototype_vectors,
    raw_vectors,
    table,
)
from slow_twin import RULES, assert_same, flags_of, units

from fairdedup import deduplicate

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
def test_a_run_decides_as_deduplicate_does_in_memory(prune, embeddings, rule):
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
    assert list(kept.columns) == ["id", "key", "caption", "width", "tags", "mixed", "nested", "only here", "stands_for"]
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


def test_run_json_records_how_the_run_was_made(finished, embeddings, prototypes):
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


def test_one_npy_with_ids_next_to_it(tmp_path, scheduler):
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
