"""`fairdedup audit` over real runs: what it counts is what the decisions say, and nothing is claimed of too few."""

from __future__ import annotations

import csv
import json
import math
import shutil
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import oracles
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import CLUSTERS, Decided, command, done, files, manifest, prototype_vectors, raw_vectors, table

from fairdedup.audit import causes
from fairdedup.storage.manifest import AUDIT_FILES

REPORT = ("report/audit.json", "report/audit.parquet")


def strict(text: str) -> dict:
    """Read JSON that must hold no NaN and no Infinity."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def told(run: Path) -> dict:
    return strict((run / "report" / "audit.json").read_text(encoding="utf-8"))


def attribute(found: dict, name: str) -> dict:
    return next(a for a in found["attributes"] if a["attribute"] == name)


def group(found: dict, name: str, label: str) -> dict:
    return next(g for g in attribute(found, name)["groups"] if g["group"] == label)


def write_labels(path: Path, **columns: list) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    else:
        with open(path, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([list(columns), *zip(*columns.values(), strict=True)])
    return path


@pytest.fixture
def no_workers(monkeypatch):
    monkeypatch.setattr("fairdedup.workers.Workers._start", lambda self: pytest.fail("a worker was asked for"))


@pytest.fixture
def labelled(again, tmp_path):
    """Return the decisions of the copy with a tone and an age for each row, and a file of these."""
    decisions = table(again / "decisions")
    rng = np.random.default_rng(4)
    decisions["tone"] = rng.choice(["light", "dark"], len(decisions), p=[0.7, 0.3])
    decisions["age"] = rng.choice(["young", "old", "middle"], len(decisions), p=[0.6, 0.1, 0.3])
    columns = {name: decisions[name].tolist() for name in ("id", "tone", "age")}
    return decisions, write_labels(tmp_path / "labels.csv", **columns)


def test_what_is_counted_is_what_the_decisions_say(again, labelled, no_workers):
    decisions, file = labelled
    shown = done("audit", again, "--labels", file, "--min-count", 1)
    found = told(again)
    assert found["source"] == "labels" and "by the labels of labels.csv" in shown.out
    assert [a["attribute"] for a in found["attributes"]] == ["tone", "age", "tone × age"]
    for line in found["attributes"]:
        assert (line["rows"], line["kept"]) == (len(decisions), decisions["kept"].sum())
        assert line["unlabelled"] == 0
        masks = {}
        for g in line["groups"]:
            mask = np.ones(len(decisions), bool)
            for name, label in zip(line["attributes"], g["group"].split(" × "), strict=True):
                mask &= decisions[name] == label
            masks[g["group"]] = mask
            kept = int((mask & decisions["kept"]).sum())
            assert (g["before"], g["kept"]) == (mask.sum(), kept)
            assert g["rate"] == pytest.approx(kept / mask.sum(), abs=1e-8)
            assert g["share_after"] == pytest.approx(kept / decisions["kept"].sum(), abs=1e-8)
            assert g["rate_interval"] is None or g["rate_interval"][0] <= g["rate_interval"][1]
        assert sum(masks.values()).tolist() == [1] * len(decisions)
        rates = [g["rate"] for g in line["groups"]]
        assert line["ratio"] == pytest.approx(min(rates) / max(rates), abs=1e-8)
        assert line["under_four_fifths"] == (min(rates) / max(rates) < 0.8)
    assert "too few to resample" in found["notes"][-1]  # five clusters


def test_both_parts_of_a_loss_are_those_of_loops_over_clusters(again, labelled):
    decisions, file = labelled
    done("audit", again, "--labels", file, "--min-count", 1, "--quiet")
    overall = decisions["kept"].mean()
    for label in ("light", "dark"):
        between = within = 0.0
        for _, own in decisions.groupby("cluster"):
            members = own[own["tone"] == label]
            between += len(members) * (overall - own["kept"].mean())
            within += len(members) * own["kept"].mean() - members["kept"].sum()
        loss = group(told(again), "tone", label)["loss"]
        assert (loss["between"], loss["within"]) == pytest.approx((between, within), abs=1e-8)
        assert loss["whole"] == pytest.approx(between + within, abs=1e-8)
        named = {c["cluster"]: c for c in loss["clusters_within"]}
        for number, cluster in named.items():
            own = decisions[decisions["cluster"] == number]
            members = own[own["tone"] == label]
            assert cluster["cost"] == pytest.approx(len(members) * own["kept"].mean() - members["kept"].sum(), abs=1e-8)
            lost = members[~members["kept"]].sort_values("row")["id"].head(5)
            assert [one["id"] for one in cluster["lost"]] == lost.tolist()
            ids = decisions.set_index("row")["id"]
            for one in cluster["lost"]:
                row = decisions[decisions["id"] == one["id"]].iloc[0]
                assert one["representative"] == ids[row["representative"]]
                assert one["similarity"] == pytest.approx(row["similarity"], abs=1e-8)
        for place in loss["neighbourhoods"]:
            own = decisions[decisions["neighbourhood"] == place["neighbourhood"]]
            members = own[own["tone"] == label]
            cost = len(members) * own["kept"].mean() - members["kept"].sum()
            assert (place["rows"], place["group_kept"]) == (len(own), members["kept"].sum())
            assert place["cost"] == pytest.approx(cost, abs=1e-8) and cost > 0
        costs = [place["cost"] for place in loss["neighbourhoods"]]
        assert costs == sorted(costs, reverse=True)


def plant(run: Path, kept: list[bool], cluster: list[int]) -> None:
    """Give the decisions of a run other outcomes, as a prune that decided so would have left them."""
    from fairdedup.storage.run_files import seal

    part = run / "decisions" / "part-00000.parquet"
    decisions = pq.read_table(part)
    for name, values in (("kept", pa.array(kept)), ("cluster", pa.array(cluster, pa.int64()))):
        decisions = decisions.set_column(decisions.column_names.index(name), name, values)
    pq.write_table(decisions, part)
    known = manifest(run)
    known["files"]["decisions/part-00000.parquet"] = seal(part)
    (run / "run.json").write_text(json.dumps(known))


@pytest.mark.parametrize("where", ["between", "within"])
def test_women_lost_only_between_clusters_or_only_within_are_told_apart(again, tmp_path, where):
    ids = table(again / "decisions")["id"].tolist()
    number = len(ids)
    if where == "between":  # clusters of men are kept whole, clusters of women by a third
        gender = ["man" if k % 4 < 2 else "woman" for k in range(number)]
        cluster = [k % 4 for k in range(number)]
        kept = [g == "man" or (k // 4) % 3 == 0 for k, g in enumerate(gender)]
    else:  # every cluster is kept by half, the men first
        gender = ["man" if (k // 4) % 2 else "woman" for k in range(number)]
        cluster = [k % 4 for k in range(number)]
        kept = [g == "man" for g in gender]
    plant(again, kept, cluster)
    done("audit", again, "--labels", write_labels(tmp_path / "l.csv", id=ids, gender=gender), "--quiet")
    loss = group(told(again), "gender", "woman")["loss"]
    assert loss["whole"] > 15
    assert loss[where] == pytest.approx(loss["whole"], abs=0.6)  # clusters differ by a row or two
    other = {"between": "within", "within": "between"}[where]
    assert abs(loss[other]) < 0.6
    if where == "between":
        assert loss["within"] == 0 and [c["cluster"] for c in loss["clusters_between"]] == [2, 3]
        assert loss["clusters_within"] == [] == loss["neighbourhoods"]


def test_a_group_of_which_nobody_is_kept_has_a_skew_of_minus_infinity(again, tmp_path):
    decisions = table(again / "decisions")
    removed = decisions.loc[~decisions["kept"], "id"].tolist()[:40]
    gender = ["woman" if name in removed else "man" for name in decisions["id"]]
    shown = done("audit", again, "--labels", write_labels(tmp_path / "l.csv", id=decisions["id"].tolist(), g=gender))
    gone = group(told(again), "g", "woman")
    assert (gone["kept"], gone["skew"], gone["rate"], gone["to_best"]) == (0, "-inf", 0, 0)
    assert gone["under_four_fifths"] is True and gone["p_holm"] < 1e-6
    assert "-inf" in shown.out and "!" in shown.out
    long = pq.read_table(again / "report" / "audit.parquet").to_pandas()
    assert long.loc[long["group"] == "woman", "skew"].item() == -math.inf
    assert gone["loss"]["whole"] == pytest.approx(40 * decisions["kept"].mean())


def test_a_group_under_the_minimum_count_is_insufficient_and_nothing_is_claimed_of_it(again, tmp_path):
    decisions = table(again / "decisions")
    gender = ["few"] * 29 + ["some"] * 30 + ["most"] * (len(decisions) - 59)
    file = write_labels(tmp_path / "l.csv", id=decisions["id"].tolist(), g=gender)
    shown = done("audit", again, "--labels", file)
    few = group(told(again), "g", "few")
    assert few["sufficient"] is False and few["why"] == "insufficient: under 30" and few["before"] == 29
    assert few["kept"] == decisions["kept"].head(29).sum()
    claims = set(few) - {"group", "before", "kept", "sufficient", "why", "loss"}
    assert claims and all(few[name] is None for name in claims)
    assert [line.split()[-1] for line in shown.out.splitlines() if line.startswith("few")] == ["insufficient"]
    assert group(told(again), "g", "some")["sufficient"] is True
    done("audit", again, "--labels", file, "--min-count", 29, "--quiet")
    assert group(told(again), "g", "few")["rate"] is not None


def test_missing_unknown_and_absent_ids_are_counted_and_told(again, tmp_path):
    decisions = table(again / "decisions")
    ids = decisions["id"].tolist()
    tone = ["light", "dark", "", " ", *["light"] * 196]
    file = write_labels(tmp_path / "l.csv", uid=[*ids[:198], "nobody\x1b[31m", "k7"], tone=tone, age=["x"] * 200)
    shown = done("audit", again, "--labels", file)
    found = told(again)
    line = attribute(found, "tone")
    assert (line["rows"], line["unlabelled"]) == (196, len(ids) - 196)
    assert attribute(found, "age")["rows"] == 198
    assert found["notes"][:2] == [
        "2 of 200 ids of the labels are not in the run's decisions, as 'nobody\\x1b[31m'",
        f"{len(ids) - 198} samples of the run are not in the labels: they count nowhere below",
    ]
    assert f"{len(ids) - 196} unlabelled" in shown.out and "\x1b[31m" not in shown.out


def test_parquet_labels_of_other_types_count_as_text(again, tmp_path):
    decisions = table(again / "decisions")
    monk = [float(k % 3) if k % 5 else None for k in range(len(decisions))]
    file = write_labels(
        tmp_path / "l.parquet", id=decisions["id"].tolist(), monk=monk, flag=[k % 2 == 0 for k in range(len(decisions))]
    )
    done("audit", again, "--labels", file, "--quiet")
    found = told(again)
    assert [g["group"] for g in attribute(found, "flag")["groups"]] == ["false", "true"]
    assert len(attribute(found, "monk")["groups"]) == 3
    assert attribute(found, "monk")["rows"] == sum(v is not None for v in monk)


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
    assert {g["group"] for g in attribute(told(again), evil)["groups"]} == set(names)
    assert set(pq.read_table(again / "report" / "audit.parquet").column("group").to_pylist()) == set(names)


def test_the_table_is_no_wider_than_110(again, labelled):
    shown = done("audit", again, "--labels", labelled[1], "--attributes", "tone,age")
    assert max(map(len, shown.out.splitlines()[:-2])) <= 110


def test_the_run_s_own_target_is_what_balanced_is_measured_by(again, labelled, prune):
    decided = prune("--keep", 0.4, "--rule", "balanced", "--target", "data")
    file = labelled[1]
    for flags, name in (((), "data"), (("--target", "uniform"), "uniform")):
        done("audit", decided.run, "--labels", file, "--quiet", *flags)
        line = attribute(told(again), "tone")
        assert line["target"] == name
        expected = [g["share_before"] if name == "data" else 0.5 for g in line["groups"]]
        distance = sum(abs(g["share_after"] - e) for g, e in zip(line["groups"], expected, strict=True)) / 2
        assert line["distance_after"] == pytest.approx(distance, abs=1e-8)
    assert attribute(told(again), "tone × age")["target"] == "uniform"


def test_a_target_of_the_yaml_counts_for_the_groups_that_it_names(again, scheduler, prototypes, labelled, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("{keep: 0.4, rule: balanced, target: {tone: {light: 0.9, dark: 0.1}}}")
    done("prune", again, "--config", config, "--prototypes", prototypes, "--scheduler", scheduler, "--quiet")
    done("audit", again, "--labels", labelled[1], "--quiet")
    line = attribute(told(again), "tone")
    dark = group(told(again), "tone", "dark")
    assert line["target"] == "the run's own"
    assert line["distance_after"] == pytest.approx(abs(dark["share_after"] - 0.1), abs=1e-8)
    assert attribute(told(again), "age")["target"] == "uniform"


def test_intersections_are_those_that_are_named(again, labelled):
    for flags, expected in (
        (("--intersections", "none"), ["tone", "age"]),
        (("--intersections", "age,tone"), ["tone", "age", "age × tone"]),
        (("--attributes", "age"), ["age"]),
    ):
        done("audit", again, "--labels", labelled[1], "--quiet", *flags)
        assert [a["attribute"] for a in told(again)["attributes"]] == expected


def test_json_is_what_is_on_disk_and_log_json_names_it(again, labelled):
    shown = done("audit", again, "--labels", labelled[1], "--json")
    assert strict(shown.out) == told(again)
    logged = done("audit", again, "--labels", labelled[1], "--log-json")
    event = json.loads(logged.err.splitlines()[-1])
    assert (event["event"], event["report"]) == ("finished", str(again / "report" / "audit.json")) and logged.out == ""
    assert done("audit", again, "--labels", labelled[1], "--quiet").out == ""


def test_the_long_table_has_a_line_for_each_group(again, labelled):
    done("audit", again, "--labels", labelled[1], "--quiet", "--min-count", 20)
    long, found = pq.read_table(again / "report" / "audit.parquet").to_pandas(), told(again)
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


def test_a_large_cluster_is_counted_but_not_looked_into(again, labelled, monkeypatch):
    monkeypatch.setattr(causes, "MOST_ROWS", 10)
    done("audit", again, "--labels", labelled[1], "--quiet")
    found = told(again)
    assert any("too large to be looked into" in note for note in found["notes"])
    clusters = group(found, "tone", "dark")["loss"]["clusters_within"]
    assert clusters and all(c["cost"] > 0 for c in clusters)


# Soft memberships


def test_without_labels_memberships_count_and_it_says_so(again, scheduler, prototypes):
    shown = done("audit", again, "--prototypes", prototypes, "--scheduler", scheduler)
    assert "by soft membership, not by labels" in shown.out
    found = told(again)
    assert found["source"] == "soft membership"
    assert [a["attribute"] for a in found["attributes"]] == ["tone", "age", "tone × age"]
    shares = {(line["attribute"], line["group"]): line for line in manifest(again)["shares"]}
    for name, concepts in prototype_vectors().items():
        for g in attribute(found, name)["groups"]:
            assert g["group"] in concepts and g["group"] != "absent"
            known = shares[name, g["group"]]
            assert (g["share_before"], g["share_after"]) == pytest.approx((known["input"], known["kept"]), abs=1e-8)
            assert g["p"] is None and g["p_holm"] is None
            assert g["loss"]["between"] + g["loss"]["within"] == pytest.approx(g["loss"]["whole"], abs=1e-6)
    line = attribute(found, "tone")
    assert "no exact test" in line["test"] and line["unlabelled"] is None
    crossed = attribute(found, "tone × age")["groups"]
    light = sum(g["before"] for g in crossed if g["group"].startswith("light"))
    assert 0 < light < group(found, "tone", "light")["before"]  # who is of no age is in no intersection


@pytest.fixture
def night(finished, tmp_path, scheduler):
    """Return a run of other rows against the finished one."""
    np.save(tmp_path / "new.npy", raw_vectors(600, seed=5))
    done("run", tmp_path / "new.npy", "--against", finished, "--model", "fairdedup-small", "--out", tmp_path / "night",
         "--scheduler", scheduler, "--quiet")  # fmt: skip
    return tmp_path / "night"


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("which", ["again", "night"])
def test_memberships_are_those_of_the_run_s_own_shares(request, which, scheduler, prototypes, named):
    run = request.getfixturevalue(which)
    flags = ("--prototypes", prototypes) if named else ()
    done("audit", run, "--min-count", 1, "--scheduler", scheduler, "--quiet", *flags)
    found = {
        (line["attribute"], g["group"]): (g["share_before"], g["share_after"])
        for line in told(run)["attributes"] if not line["intersection"] for g in line["groups"]
    }  # fmt: skip
    known = {(line["attribute"], line["group"]): (line["input"], line["kept"]) for line in manifest(run)["shares"]}
    assert known and set(found) == set(known)
    for name, shares in known.items():
        assert found[name] == pytest.approx(shares, abs=1e-8), name


def test_other_prototypes_have_the_temperature_of_the_rows_that_are_audited(night, scheduler, tmp_path):
    vectors = prototype_vectors(seed=8)["tone"]
    np.savez(tmp_path / "p.npz", **{f"tone/{c}": v for c, v in vectors.items()})
    done("audit", night, "--prototypes", tmp_path / "p.npz", "--scheduler", scheduler, "--quiet")
    q = oracle_memberships(Decided(night).unit, vectors).sum(axis=0)
    assert [g["before"] for g in attribute(told(night), "tone")["groups"]] == pytest.approx(q, abs=1e-6)


def test_prototypes_of_the_run_are_the_default(again, scheduler):
    done("audit", again, "--scheduler", scheduler, "--quiet")
    assert told(again)["attributes"][0]["attribute"] == "tone"


def test_soft_reports_do_not_depend_on_how_parts_are_cut(again, scheduler, prototypes, monkeypatch):
    from fairdedup.storage import shard_groups as storage
    from fairdedup.storage.contents import load_embedded
    from fairdedup.storage.layout import RunDirectory
    from fairdedup.storage.run_files import seal

    done("audit", again, "--prototypes", prototypes, "--scheduler", scheduler, "--quiet")
    whole = (again / "report" / "audit.json").read_bytes()
    decisions = pq.read_table(again / "decisions" / "part-00000.parquet")
    known = manifest(again)
    monkeypatch.setattr(storage, "GROUP_ROWS", 80)  # three shards, three parts
    for number, group_ in enumerate(load_embedded(RunDirectory(again)).groups):
        rows = decisions.column("row").to_numpy()
        own = (rows >= group_.first) & (rows < group_.first + group_.input)
        path = again / "decisions" / f"part-{number:05d}.parquet"
        pq.write_table(decisions.filter(pa.array(own)), path)
        known["files"][f"decisions/{path.name}"] = seal(path)
    assert number == 2
    (again / "run.json").write_text(json.dumps(known))
    done("audit", again, "--prototypes", prototypes, "--scheduler", scheduler, "--quiet")
    assert (again / "report" / "audit.json").read_bytes() == whole


# Suggestions


def suggested(run: Path) -> list[dict]:
    with open(run / "report" / "suggested-labels.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_least_certain_samples_are_suggested_over_all_clusters(again, scheduler, prototypes):
    shown = done("audit", again, "--prototypes", prototypes, "--scheduler", scheduler, "--suggest-labels", 20)
    lines = suggested(again)
    assert list(lines[0]) == ["id", "cluster", "kept", "score", "perceived tone", "perceived age"]
    assert "20 samples that are worth a label" in shown.out and len({line["id"] for line in lines}) == 20
    scores = [float(line["score"]) for line in lines]
    assert all(a >= b for a, b in pairwise(scores)) and scores[-1] > 0
    assert len({line["cluster"] for line in lines}) == CLUSTERS
    decisions = table(again / "decisions").set_index("id")
    concepts = prototype_vectors()
    for line in lines:
        assert int(line["cluster"]) == decisions.loc[line["id"], "cluster"]
        assert line["kept"] == str(decisions.loc[line["id"], "kept"]).lower()
        assert line["perceived tone"] in concepts["tone"] and line["perceived age"] in concepts["age"]
    again_ = (again / "report" / "suggested-labels.csv").read_bytes()
    done("audit", again, "--prototypes", prototypes, "--scheduler", scheduler, "--suggest-labels", 20, "--quiet")
    assert (again / "report" / "suggested-labels.csv").read_bytes() == again_


def test_who_has_a_label_is_not_suggested(again, scheduler, prototypes, tmp_path):
    ids = table(again / "decisions")["id"].tolist()
    file = write_labels(tmp_path / "l.csv", id=ids[:200], tone=["light"] * 150 + [""] * 50)
    place = tmp_path / "mine.csv"
    done("audit", again, "--labels", file, "--prototypes", prototypes, "--scheduler", scheduler, "--quiet",
         "--suggest-labels", 500, "--out", place)  # fmt: skip
    with open(place, encoding="utf-8", newline="") as lines:
        named = {line["id"] for line in csv.DictReader(lines)}
    assert not (again / "report" / "suggested-labels.csv").exists()
    assert named == set(ids[150:])
    assert told(again)["source"] == "labels"
    assert any("only" in note and "are left" in note for note in told(again)["notes"])


# What a report must not outlive


def test_deciding_again_removes_the_audit_of_the_old_decisions(again, labelled, prune, scheduler, prototypes):
    done("audit", again, "--labels", labelled[1], "--prototypes", prototypes, "--scheduler", scheduler, "--quiet",
         "--suggest-labels", 3)  # fmt: skip
    (again / "report" / "index.html").write_text("other")
    assert all((again / "report" / name).is_file() for name in AUDIT_FILES)
    work = (again / "report" / "suggested-labels.csv").read_bytes()  # somebody may have filled it in
    prune("--keep", 0.3)
    assert not any((again / "report" / name).exists() for name in AUDIT_FILES)
    assert (again / "report" / "index.html").exists()
    assert (again / "report" / "suggested-labels.csv").read_bytes() == work


def test_a_replacement_removes_it_too(again, labelled, scheduler, tmp_path):
    done("audit", again, "--labels", labelled[1], "--quiet")
    before = told(again)
    (tmp_path / "gone.txt").write_text(labelled[0]["id"].iloc[0])
    done("replace", again, "--gone", tmp_path / "gone.txt", "--scheduler", scheduler, "--quiet")
    assert not (again / "report" / "audit.json").exists()
    done("audit", again, "--labels", labelled[1], "--quiet")
    assert attribute(told(again), "tone")["rows"] == attribute(before, "tone")["rows"] - 1


@pytest.mark.parametrize("flags", [(), ("--suggest-labels", 5)])
def test_a_run_of_which_nobody_is_left_is_audited_without_a_warning(again, scheduler, prototypes, tmp_path, flags):
    (tmp_path / "gone.txt").write_text("".join(f"{name}\n" for name in table(again / "decisions")["id"]))
    done("replace", again, "--gone", tmp_path / "gone.txt", "--scheduler", scheduler, "--quiet")
    shown = done("audit", again, "--prototypes", prototypes, *flags, "--scheduler", scheduler, "--quiet")
    assert shown.err == ""
    assert [a["why"] for a in told(again)["attributes"]] == ["nobody has a label of it"] * 3


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
    assert not (again / "report").exists()


def test_a_rule_without_representatives_can_be_audited(again, labelled, prune):
    prune("--keep", 0.4, "--rule", "random")
    done("audit", again, "--labels", labelled[1], "--quiet")
    dark = group(told(again), "tone", "dark")
    lost = [one for c in dark["loss"]["clusters_within"] + dark["loss"]["clusters_between"] for one in c["lost"]]
    assert lost and all(one["representative"] is None and one["similarity"] is None for one in lost)


# The warning of a run


def test_a_run_by_concepts_warns_of_memberships_that_say_nothing(again, scheduler, tmp_path):
    vectors = prototype_vectors()
    same = {f"tone/{c}": vectors["tone"]["light"] for c in ("light", "dark", "medium")}
    np.savez(tmp_path / "p.npz", **same, **{f"age/{c}": v for c, v in vectors["age"].items()})
    flags = ("--keep", 0.5, "--prototypes", tmp_path / "p.npz", "--scheduler", scheduler, "--quiet")
    for rule, number in (("balanced", 1), ("fairdedup", 1), ("semdedup", 0)):
        done("prune", again, *flags, "--rule", rule)
        found = [w for w in manifest(again)["warnings"] if w.startswith("attribute 'tone'")]
        assert len(found) == number, rule
        if found:
            assert "the largest of 3 is 0.33 in the mean, under 0.50" in found[0] and "fairdedup calibrate" in found[0]


def test_the_audit_of_the_planted_pairs_of_attributes_has_every_pair(again, tmp_path):
    decisions = table(again / "decisions")
    columns = {name: [f"{name}{k % 2}" for k in range(len(decisions))] for name in "abc"}
    file = write_labels(tmp_path / "l.csv", id=decisions["id"].tolist(), **columns)
    done("audit", again, "--labels", file, "--quiet")
    crossed = [tuple(a["attributes"]) for a in told(again)["attributes"] if a["intersection"]]
    assert crossed == list(combinations("abc", 2))
    done("audit", again, "--labels", file, "--quiet", "--intersections", "a,b,c")
    assert told(again)["attributes"][-1]["groups"][0]["group"] == "a0 × b0 × c0"
    assert len(told(again)["attributes"][-1]["groups"]) == 2  # groups of nobody are not listed


def test_a_moved_run_can_be_audited(again, labelled, tmp_path):
    shutil.move(again, tmp_path / "elsewhere")
    done("audit", tmp_path / "elsewhere", "--labels", labelled[1], "--quiet")
    assert told(tmp_path / "elsewhere")["counts"] == manifest(tmp_path / "elsewhere")["counts"]


def test_soft_memberships_are_those_of_the_slow_twin(again, scheduler, prototypes):
    done("audit", again, "--prototypes", prototypes, "--scheduler", scheduler, "--quiet")
    decisions, found = Decided(again).decisions, told(again)
    vectors = prototype_vectors()
    for name, concepts in vectors.items():
        q = oracle_memberships(Decided(again).unit, concepts)
        for k, g in enumerate(attribute(found, name)["groups"]):
            assert g["before"] == pytest.approx(q[:, k].sum(), abs=1e-6)
            assert g["kept"] == pytest.approx(q[decisions["kept"].to_numpy(), k].sum(), abs=1e-6)


def oracle_memberships(unit, concepts):
    """Softmax of cosine / temperature, the temperature a third of the median gap, in float64."""
    listed = [v for c, v in concepts.items() if c != "absent"]
    every = np.stack([*listed, *np.atleast_2d(concepts["absent"])]) if "absent" in concepts else np.stack(listed)
    similarity = oracles.cosine_matrix(unit, oracles.unit16(every))
    gap = np.median(similarity.max(axis=1) - similarity.mean(axis=1))
    temperature = max(round(gap / 3, 4), 0.0001)
    weight = np.exp((similarity - similarity.max(axis=1, keepdims=True)) / temperature)
    return (weight / weight.sum(axis=1, keepdims=True))[:, : len(listed)]
