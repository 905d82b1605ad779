"""What the passes over the decisions remember does not depend on how these are cut into parts."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
from report_pages import read_data

from fairdedup.report.decision_scan import DecisionScan, Lowest, band_edges
from fairdedup.report.embedding_points import MOST_POINTS
from fairdedup.report.map_columns import pack_map
from fairdedup.report.page import render_page
from fairdedup.report.pictures import MOST_BYTES, MOST_SMALL, MOST_SMALL_BYTES, Thumbnails, choose_pictured
from fairdedup.report.report_figures import EmbeddingMap, ReportFigures, ShownSample
from fairdedup.storage.config_record import InputRecord, StageTime
from fairdedup.storage.manifest import Counts, Guarantees, RunManifest


def test_the_lowest_rows_are_the_same_however_they_arrive():
    rng = np.random.default_rng(0)
    rows, keys = np.arange(5_000), rng.integers(0, 40, 5_000).astype(float)
    expected = rows[np.lexsort((rows, keys))][:7]
    for parts in (1, 3, 50):
        found = Lowest(7)
        for own in np.array_split(rng.permutation(5_000), parts):
            found.add(rows[own], keys[own], others=rows[own] + 1)
        assert found.rows.tolist() == expected.tolist()
        assert found.others.tolist() == (expected + 1).tolist()


def test_bands_begin_at_the_threshold_and_end_at_one():
    assert band_edges(0.1).tolist() == [9_000, 9_167, 9_334, 9_501, 9_668, 9_835, 10_000]
    assert band_edges(0.0004).tolist() == [9_996, 10_000]
    assert band_edges(0.5)[-1] == 5_000 + 6 * 200  # bands around the threshold only


def decisions(rows: np.ndarray, rng: np.random.Generator) -> pa.Table:
    kept = rows % 3 == 0
    return pa.table(
        {
            "row": rows, "cluster": rows % 5, "kept": kept, "representative": rows - rows % 3,
            "similarity": np.where(kept, 1.0, 0.9 + 0.1 * ((rows * 7919) % 1000) / 1000),
            "centroid_similarity": ((rows * 31) % 997) / 997,
        }
    )  # fmt: skip


def test_the_scan_is_the_same_for_any_parts():
    rng, rows = np.random.default_rng(0), np.arange(3_000)
    found = []
    for parts in (1, 7):
        scan = DecisionScan(5, 0.1)
        for own in np.array_split(rows, parts):
            table = decisions(own, rng)
            kept = own[own % 3 == 0]
            scan.add(table, np.minimum(2, 2_999 - kept))
        found.append(scan)
    one, many = found
    assert one.sizes.sum(axis=0).tolist() == [3_000, 1_000] and one.similarities.sum() == 2_000
    assert np.array_equal(one.sizes, many.sizes) and np.array_equal(one.similarities, many.similarities)
    assert one.chosen().tolist() == many.chosen().tolist()
    assert one.outliers.rows.tolist() == many.outliers.rows.tolist()
    assert [band.rows.tolist() for band in one.bands] == [band.rows.tolist() for band in many.bands]
    assert one.neighbourhoods == many.neighbourhoods == 1_000


def test_the_page_names_stages_as_a_reader_does():
    seconds = {"embed": 5.0, "survey": 1.0, "links": 2.0, "cards": 3.0, "state": 4.0, "other": 0.5, "round": 0.01}
    stages = {name: StageTime(rows=0, seconds=value) for name, value in seconds.items()}
    manifest = build_manifest(3).model_copy(update={"stages": stages})
    figures = ReportFigures(
        name="x", manifest=manifest, groups=None, similarities=np.zeros(20_001, np.int64), sizes=np.ones((1, 2), int),
        gallery=[], neighbourhoods=0, bands=[], outliers=[], rejections=[], map=None,
    )  # fmt: skip
    page = render_page(figures, Thumbnails(), leftover=[], guarantees=[], removed="Near <1>: --eps 0.05 or more.")
    assert "<p>Near &lt;1&gt;: <code>--eps 0.05</code> or more.</p>" in page  # not broken after the dashes
    labels = re.findall(r'<text [^>]*class="label">([^<]*)</text>', page)
    names = ["embed", "compare groups", "find links", "read candidates", "save for later runs", "between stages"]
    assert [label for label in labels if label in names] == names
    assert not {"survey", "links", "cards", "state", "other"} & set(labels)


def build_manifest(rows: int) -> RunManifest:
    """Return the manifest of a run over ready embeddings that has removed nothing."""
    return RunManifest(
        fairdedup="0", config={"prune": {"rule": "random"}}, versions={}, seed=0, encoder=None, clusters=1, stages={},
        eps=None,
        input=InputRecord(source="x", format="npy", kind="embeddings", fingerprint=""), warnings=[], shares=[],
        counts=Counts(input=rows, valid=rows, kept=rows, removed=0, rejected=0),
        guarantees=Guarantees(no_two_kept_are_duplicates=True, every_removed_has_a_kept_representative=True),
    )  # fmt: skip


def build_map(n: int, attributes: int, values: int, pictures: bool = False) -> EmbeddingMap:
    """Return a map of noise, which is the worst case for its compression."""
    rng = np.random.default_rng(0)
    rows = np.arange(n, dtype=np.int64)
    names = [f"label {k}" for k in range(attributes)]
    return EmbeddingMap(
        rows=rows, x=rng.integers(0, 65_535, n).astype(np.uint16), y=rng.integers(0, 65_535, n).astype(np.uint16),
        kept=rng.random(n) < 0.5, cluster=rng.integers(0, 1_000, n), representative=rows - 1, similarity=rng.random(n),
        groups={name: rng.integers(0, values, n).astype(np.uint8) for name in names},
        names={name: list(map(str, range(values))) for name in names},
        ids=list(map(str, rows.tolist())), captions=None, among=n, explained=0.2,
    )  # fmt: skip


def build_figures(points: EmbeddingMap) -> ReportFigures:
    return ReportFigures(
        name="x", manifest=build_manifest(points.among), groups=None, similarities=np.zeros(20_001, np.int64),
        sizes=np.ones((1, 2), np.int64), gallery=[], neighbourhoods=0, bands=[], outliers=[], rejections=[], map=points,
        samples={0: ShownSample(0, "0", True, False, 0, -1, None, 0.5)},
    )  # fmt: skip


def test_a_page_about_a_million_samples_and_12_label_columns_is_under_15_mb(tmp_path):
    """Also with the most of pictures and ids; the attributes that find no room are named."""
    points = build_map(MOST_POINTS, 12, 9)
    small = {row: "A" * (MOST_SMALL_BYTES // MOST_SMALL) for row in range(0, 200 * MOST_SMALL, 200)}
    thumbnails = Thumbnails({0: "A" * MOST_BYTES}, None, small)
    page = tmp_path / "page.html"
    page.write_text(render_page(build_figures(points), thumbnails, leftover=[], guarantees=[]), encoding="utf-8")
    assert 13e6 < page.stat().st_size < 15e6
    found = read_data(page)["map"]
    assert found["n"] == MOST_POINTS
    shown = [group["name"] for group in found["groups"]]
    assert shown == [f"label {k}" for k in range(len(shown))] and 3 <= len(shown) < 12
    omitted = ", ".join(f"label {k}" for k in range(len(shown), 12))
    assert f"Not among the colours, which keeps this page small: {omitted}." in page.read_text(encoding="utf-8")


def test_a_million_numbers_of_rows_can_be_searched():
    packed = pack_map(build_map(MOST_POINTS, 0, 1), {}, 15_000_000)
    assert packed.data is not None and "ids" in packed.data


def test_the_map_gives_way_in_order_and_pictures_lie_at_their_points():
    points = build_map(1_000, 2, 3)
    pictures = {990: "a" * 40, 10: "b" * 40, 500: "c" * 40}
    every = pack_map(points, pictures, 15_000_000)
    assert every.data is not None and every.omitted == [] and every.pictured == 3
    assert every.data["pictures"] == {990: "a" * 40, 10: "b" * 40, 500: "c" * 40} and "ids" in every.data
    whole = len(json.dumps(every.data, separators=(",", ":")))
    some = pack_map(points, pictures, whole - 150)
    assert some.data is not None and "ids" in some.data and some.data["pictures"] == {990: "a" * 40}
    none = pack_map(points, pictures, 0)
    assert none.data is not None and none.omitted == ["label 0", "label 1"] and none.pictured == 0
    assert set(none.data) == {"n", "among", "explained", "reach", "columns", "groups"}


def test_the_points_with_a_picture_are_a_seeded_sample():
    points = build_map(2 * MOST_SMALL, 0, 1)
    chosen = choose_pictured(points)
    assert len(chosen) == MOST_SMALL and all(name == str(row) for row, name in chosen.items())
    assert 0.45 < np.mean(np.fromiter(chosen, int) < MOST_SMALL) < 0.55, "they are spread over all rows"
    assert choose_pictured(replace(points, ids=None)) == {} == choose_pictured(None)
    few = choose_pictured(build_map(10, 0, 1))
    assert sorted(few) == list(range(10))
