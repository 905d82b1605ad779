"""The map is placed by PaCMAP or UMAP where one is installed, else by PCA, and the page says by which."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from report_pages import read_data

from fairdedup.report import embedding_points, map_layout
from fairdedup.report.embedding_points import MOST_POINTS, choose_groups, project_points, scale_places
from fairdedup.report.map_layout import FEWEST, MOST, PCA, choose_method, place_points
from fairdedup.storage.contents import load_clustered, load_embedded
from fairdedup.storage.layout import RunDirectory


@pytest.mark.parametrize(
    ("points", "installed", "method"),
    [
        (1_000, {"pacmap", "umap"}, "PaCMAP"),
        (1_000, {"umap"}, "UMAP"),
        (1_000, set(), PCA),
        (MOST, {"pacmap"}, "PaCMAP"),
        (MOST + 1, {"pacmap", "umap"}, PCA),
        (FEWEST - 1, {"pacmap"}, PCA),
    ],
)
def test_the_method_follows_from_what_is_installed_and_the_number_of_points(points, installed, method):
    assert choose_method(points, installed.__contains__) == method


@pytest.mark.parametrize(("package", "method"), [("pacmap", "PaCMAP"), ("umap", "UMAP")])
def test_both_packages_separate_two_far_clusters_the_same_way_each_time(package, method):
    pytest.importorskip(package)
    rng = np.random.default_rng(0)
    centres = np.repeat(np.eye(8, dtype=np.float32)[:2], 100, axis=0)
    vectors = (centres + 0.01 * rng.normal(size=(200, 8))).astype(np.float32)
    places = place_points(method, vectors)
    assert np.array_equal(places, place_points(method, vectors)), "the seed is fixed"
    one, other = places[:100], places[100:]
    apart = np.linalg.norm(one.mean(axis=0) - other.mean(axis=0))
    assert apart > 2 * max(one.std(axis=0).max(), other.std(axis=0).max())


@pytest.mark.parametrize(
    ("sizes", "chosen"), [([200_000] * 5, 5), ([10] * 40, 40), ([1 << 18] * 40, 4), ([0, 5, 0], 1), ([], 0)]
)
def test_as_many_groups_are_read_as_hold_the_most_points(sizes, chosen):
    """All rows of a million are on the map, however they are cut into groups."""
    groups = [SimpleNamespace(number=k, valid=size) for k, size in enumerate(sizes)]
    found = choose_groups(groups)
    assert len(found) == chosen and found == sorted(found, key=lambda group: group.number)
    assert sum(group.valid for group in found) >= min(MOST_POINTS, sum(sizes))


def unpack(plane):
    """Return places as the page shows them: the first view goes from -1 to 1."""
    x, y, reach = scale_places(plane)
    return (np.stack([x, y], axis=1).astype(np.float64) / 32_767 - 1) * reach, reach


def test_places_without_outliers_fill_the_first_view():
    places, reach = unpack(np.random.default_rng(0).uniform(-1, 1, (5_000, 2)).astype(np.float32) * [3, 1] + 7)
    assert reach == 1
    assert places.min(axis=0) == pytest.approx([-1, -1], abs=1e-3)
    assert places.max(axis=0) == pytest.approx([1, 1], abs=1e-3)


def test_outliers_keep_their_true_places_outside_the_first_view():
    plane = np.random.default_rng(0).uniform(-1, 1, (10_000, 2))
    plane[:5] = [[9, 0], [7, 0.5], [-8, 0], [0, 8], [8, 8]]
    places, reach = unpack(plane)
    assert (np.abs(places[:5]).max(axis=1) > 1).all() and reach > 5
    assert 0.6 < np.abs(places[5:]).max() < 1.001
    slope = [np.polyfit(plane[:, k], places[:, k], 1)[0] for k in (0, 1)]
    assert np.abs(places - plane * slope - (places - plane * slope).mean(axis=0)).max() < 1e-3
    assert max(np.unique(axis, return_counts=True)[1].max() for axis in places.T) < 20, "nothing piles up"


@pytest.mark.parametrize("far", [0, 1e6])
def test_the_first_view_is_bounded_where_nearly_all_places_are_one(far):
    plane = np.zeros((10_000, 2))
    plane[0, 0] = far
    places, reach = unpack(plane)
    assert np.isfinite(places).all() and reach <= 17
    assert np.abs(places[1:]).max() < 1e-3


def test_a_direction_that_hardly_differs_stays_narrow():
    plane = np.random.default_rng(0).uniform(-1, 1, (1_000, 2)) * [1, 1e-5]
    places, _ = unpack(plane)
    assert np.abs(places[:, 0]).max() > 0.9 and np.abs(places[:, 1]).max() < 0.01


def load(run):
    clustered = load_clustered(load_embedded(RunDirectory(run)))
    return clustered.directory, choose_groups(clustered.groups)


def install(monkeypatch, package: str, module: ModuleType) -> None:
    monkeypatch.setitem(sys.modules, package, module)
    monkeypatch.setattr(embedding_points, "choose_method", lambda n: choose_method(n, lambda name: name == package))


def test_the_places_of_the_method_are_those_of_the_rows(finished, monkeypatch):
    """The stand-in places each vector at its first two values, so places can be compared with the vectors."""
    module = ModuleType("umap")
    module.UMAP = lambda **options: type("M", (), {"fit_transform": staticmethod(lambda x: x[:, :2] * 3)})()
    install(monkeypatch, "umap", module)
    run, groups = load(finished)
    points = project_points(run, groups)
    assert points is not None and points.method == "UMAP" and points.explained == 0 and points.remark == ""
    vectors = embedding_points.read_vectors_at(run, points, np.arange(len(points.rows))).astype(np.float64)
    inside = (points.x > 0) & (points.x < 65_534)
    assert inside.sum() > 50
    assert np.corrcoef(points.x[inside], vectors[inside, 0])[0, 1] > 0.9999


@pytest.mark.parametrize("places", ["nothing of that name", "nan"])
def test_a_package_that_fails_leaves_pca_and_a_remark(places, finished, monkeypatch):
    module = ModuleType("umap")
    if places == "nan":
        module.UMAP = lambda **options: type("M", (), {"fit_transform": staticmethod(lambda x: x[:, :2] * np.nan)})()
    run, groups = load(finished)
    monkeypatch.setattr(embedding_points, "choose_method", lambda n: PCA)
    expected = project_points(run, groups)
    install(monkeypatch, "umap", module)
    points = project_points(run, groups)
    assert expected is not None and points is not None and points.method == PCA
    assert points.remark.startswith("UMAP is installed but failed (")
    assert np.array_equal(points.x, expected.x) and np.array_equal(points.y, expected.y)
    assert points.explained == expected.explained > 0


def test_a_broken_installation_counts_as_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "pacmap", None)
    monkeypatch.setitem(sys.modules, "umap", None)
    assert choose_method(1_000) == PCA and not map_layout._is_installed("pacmap")


def test_the_page_names_the_method(pictures_run):
    text = (pictures_run / "report" / "index.html").read_text(encoding="utf-8")
    method = choose_method(read_data(pictures_run / "report" / "index.html")["map"]["n"])
    assert f"({method}; " in text if method == PCA else f"as {method} places them" in text
