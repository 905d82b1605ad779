"""What a run needs: formulas by hand, and figures that are those of the committed results."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fairdedup.planning.coefficients import COSTS, JOB, ROW_BYTES, WORKER_MIB
from fairdedup.planning.round_bytes import count_rounds_on_disk, count_rounds_read, count_rounds_written
from fairdedup.planning.run_needs import Images, StageNeeds, estimate_run, estimate_stage
from fairdedup.planning.stage_work import (
    ACROSS,
    ASSIGN,
    CONCEPTS,
    DECIDE,
    EMBED,
    LEFTOVER,
    STAGES,
    STATE,
    TRAIN,
    VERIFY,
    Size,
)

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import coefficients  # noqa: E402
from results_file import read_results  # noqa: E402

MILLION = Size(rows=1_000_000, dim=512, clusters=1000, kept=500_000, shards=100, workers=2)
LARGE = Size(rows=10**8, dim=512, clusters=10_000, kept=5 * 10**7, shards=10_000, workers=64)


def named(size: Size, images: Images | None = None) -> dict[str, StageNeeds]:
    return {stage.name: stage for stage in estimate_run(size, images).stages}


def test_the_coefficients_are_those_of_the_committed_results():
    written = coefficients.MODULE.read_text(encoding="utf-8")
    assert written == coefficients.render(), "run python benchmarks/coefficients.py"


def test_the_measured_job_is_predicted_as_it_was():
    largest = coefficients.read_largest(read_results("scale"))
    assert (JOB.rows, JOB.dim, JOB.clusters) == (largest.size.rows, largest.size.dim, largest.size.clusters)
    checked = 0
    for stage in STAGES:
        busy = largest.seconds(stage)
        hours = estimate_stage(stage, largest.size).hours
        assert (busy is None) == (hours is None), stage.name
        tasks = stage.tasks(largest.size)
        if busy is not None and hours is not None and tasks % largest.size.workers == 0:
            assert hours * 3600 == pytest.approx(busy / min(largest.size.workers, tasks), rel=0.02), stage.name
            checked += 1
    assert checked >= 4


def test_a_stage_that_nobody_measured_has_no_hours_and_no_memory(monkeypatch):
    monkeypatch.delitem(COSTS, LEFTOVER.name, raising=False)
    needs = estimate_run(MILLION)
    assert LEFTOVER.name in needs.not_measured
    (leftover,) = [stage for stage in needs.stages if stage.name == LEFTOVER.name]
    assert (leftover.hours, leftover.memory, leftover.source) == (None, None, "not measured")


def test_bytes_of_a_million_rows_by_hand():
    needs = named(MILLION)
    assert needs["embed"].read == 2 * 512 * 10**6
    assert needs["embed"].disk == 2 * 512 * 10**6 + ROW_BYTES["embeddings"] * 10**6
    # Vectors, row numbers and 15 nearby clusters of each row, offsets of 4 groups.
    assert needs["assign"].disk == 10**6 * (1024 + 8 + 120) + 4 * 8 * 1001
    assert needs["state"].written == 512 * 10**6 + ROW_BYTES["state"] * 500_000
    # Seven numbers of 8 bytes and a flag of each row, which are removed once the results are written.
    assert needs["decide in clusters"].written == 57 * 10**6 and needs["decide in clusters"].disk == 0
    # 256,000 rows in 4 pieces: 8 bits and norms once, sums of 8 bytes in each of 20 iterations, and the centroids.
    assert needs["train k-means"].written == 256_000 * 520 + 20 * 8 * 1000 * 512 * 4 + 4 * 1000 * 512


def test_a_training_in_one_piece_leaves_nothing_between_its_steps():
    small = replace(MILLION, rows=10_000, clusters=10, kept=5000)
    assert small.pieces == 1 and small.training_disk == 0
    assert TRAIN.written is not None and TRAIN.written(small) == 4 * 10 * 512


def test_work_is_as_the_docs_have_it():
    assert TRAIN.work(LARGE) == 20 * 2_560_000 * 10_000 * 512
    assert ASSIGN.work(LARGE) == 10**8 * 10_000 * 512
    assert DECIDE.work(LARGE) == ACROSS.work(LARGE) == 10**16 / 10_000 * 512
    assert (TRAIN.tasks(LARGE), ASSIGN.tasks(LARGE), DECIDE.tasks(LARGE)) == (40, 382, 381)


def test_workers_beyond_the_tasks_are_idle():
    few, many, more = (estimate_stage(TRAIN, replace(LARGE, workers=w)) for w in (20, 40, 4000))
    assert few.hours is not None and many.hours is not None and many == more
    assert few.workers == 20 and many.workers == 40 and few.hours > 1.5 * many.hours


def test_a_worker_that_gets_one_task_more_than_the_others_counts():
    hours = [estimate_stage(STATE, replace(LARGE, rows=10 * 2**18, shards=10, workers=w)).hours for w in (5, 6, 9)]
    assert hours[0] == pytest.approx(hours[1], rel=0.05) and hours[1] == pytest.approx(hours[2], rel=0.05)


def test_images_take_the_rate_that_is_given_and_none_is_made_up():
    known = named(LARGE, Images(gpus=8, per_second=500.0, bytes_each=20_000))
    assert known["embed"].hours == 10**8 / 500 / 8 / 3600
    assert known["embed"].workers == 8 and known["embed"].read == known["find copies"].read == 2 * 10**12
    unknown = named(LARGE, Images(gpus=8, per_second=None, bytes_each=None))
    assert unknown["embed"].hours is unknown["embed"].read is unknown["find copies"].hours is None
    assert "--images-per-second" in unknown["embed"].source
    assert {name: stage for name, stage in known.items() if name not in ("embed", "find copies")} == {
        name: stage for name, stage in unknown.items() if name not in ("embed", "find copies")
    }


def test_hours_of_find_copies_follow_from_the_rate_of_reading():
    images = Images(gpus=8, per_second=None, bytes_each=20_000, read_rate=200_000_000)
    found = named(LARGE, images)["find copies"]
    assert found.hours == pytest.approx(2 * 10**12 / 2e8 / 64 / 3600) and found.source == "--read-rate"
    unknown = named(LARGE, replace(images, bytes_each=None))["find copies"]
    assert unknown.hours is None and "--read-rate and --image-bytes" in unknown.source


def test_memory_of_embedding_images_is_that_of_the_model_beside_the_worker():
    found = named(LARGE, Images(8, None, None, memory=2**30))
    assert found["embed"].memory == WORKER_MIB["embed"] * 2**20 + 2**30
    assert named(LARGE, Images(8, None, None))["embed"].memory is None


def test_every_stage_that_a_run_times_belongs_to_one_stage_of_the_plan():
    names = [name for stage in STAGES for name in stage.measured_as]
    assert len(names) == len(set(names))
    assert {"verify", "survey", "shares", "reach", "round", "links", "cards", "list", "search", "decide"} <= set(names)


def test_bytes_across_clusters_are_counted():
    needs = estimate_run(LARGE)
    (across,) = [stage for stage in needs.stages if stage.name == ACROSS.name]
    assert (across.read, across.written) == (count_rounds_read(LARGE), count_rounds_written(LARGE))
    stay = sum(stage.disk or 0 for stage in needs.stages)
    decided = 57 * LARGE.rows
    assert needs.disk - stay == max(LARGE.training_disk, decided + count_rounds_on_disk(LARGE))


def test_only_rules_with_concepts_have_passes_for_them():
    plain, fair = (estimate_run(MILLION, concepts=concepts) for concepts in (False, True))
    assert CONCEPTS.name not in {stage.name for stage in plain.stages}
    (own,) = [stage for stage in fair.stages if stage.name == CONCEPTS.name]
    assert own.read == 4 * 2 * 512 * 10**6 and own.written == 0
    assert [stage for stage in fair.stages if stage.name != CONCEPTS.name] == list(plain.stages)


def test_verify_reads_the_sorted_files_once():
    assert named(MILLION)[VERIFY.name].read == named(MILLION)[ASSIGN.name].disk


def test_without_gpus_the_rate_is_that_of_a_worker():
    assert named(LARGE, Images(None, 10.0, None))["embed"].hours == 10**8 / 10 / 64 / 3600


def test_memory_grows_with_clusters_and_with_the_largest_of_them():
    assert named(MILLION)["assign"].memory == pytest.approx(WORKER_MIB["cluster"] * 2**20, rel=0.01)
    grown = (named(LARGE)["assign"].memory or 0) - (named(replace(LARGE, clusters=1000))["assign"].memory or 0)
    assert grown == pytest.approx(24 * (10_000 - max(1000, JOB.clusters)) * 512)
    deciding = [named(replace(LARGE, clusters=k))["decide in clusters"].memory or 0 for k in (100, 1000, 10_000)]
    assert deciding[0] > deciding[1] > deciding[2] >= WORKER_MIB["prune"] * 2**20


def test_the_total_adds_what_is_known():
    needs = estimate_run(LARGE)
    assert needs.hours == sum(stage.hours for stage in needs.stages if stage.hours is not None)
    assert needs.disk > sum(stage.disk or 0 for stage in needs.stages)
    assert set(needs.not_measured) == {stage.name for stage in STAGES if stage.name not in COSTS} - {CONCEPTS.name}


def test_a_new_results_file_with_several_sizes_is_read_at_its_largest(monkeypatch):
    old = read_results("scale_earlier")
    job = coefficients.read_largest(old).report
    larger = json.loads(json.dumps(job))
    larger["prune"]["counts"] |= {"valid": 4_000_000, "kept": 2_000_000}
    larger["clusters"]["number"] = 2000
    larger["cluster"]["stages"]["assign"] = 112.0
    new = {**old, "dim": 512, "workers": 2, "shards": 100, "tiny_shards": 10_000}
    new["sizes"] = {"1000000": job, "4000000": larger}
    found = coefficients.read_largest(new)
    assert (found.size.rows, found.size.clusters, found.name) == (4_000_000, 2000, "sizes, 4,000,000 rows")
    monkeypatch.setattr(coefficients, "read_results", lambda name: new if name == "scale" else read_results(name))
    assert '"sizes, 4,000,000 rows: cluster; in tiny shards"' in coefficients.render()


def test_coefficients_solve_the_two_measurements():
    pair = coefficients.read_pair(read_results("scale"))
    cost = coefficients.fit_cost(EMBED, pair[0], pair)
    assert cost is not None and cost.shard > 0
    for job in pair:
        seconds = cost.unit * EMBED.work(job.size) + cost.shard * job.size.shards
        assert seconds == pytest.approx(job.seconds(EMBED))
        assert math.isclose(seconds, 2 * job.report["embed"]["stages"]["embed"])
