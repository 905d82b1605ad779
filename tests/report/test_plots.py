"""Plots are functions of their values: well-formed SVG that says in words what it shows."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from fairdedup.errors import format_count, format_seconds
from fairdedup.report.plots import (
    choose_ticks,
    draw_cluster_sizes,
    draw_curve,
    draw_groups,
    draw_histogram,
    draw_stages,
    shorten,
)
from fairdedup.report.report_figures import AttributeFigure, GroupFigure
from fairdedup.stage_names import SHOWN


def counted(*cosines: float) -> np.ndarray:
    """Return the number of samples by cosine, in ten-thousandths from -1."""
    units = np.rint((np.array(cosines) + 1) * 10_000).astype(np.int64)
    return np.bincount(units, minlength=20_001)


def label(drawing: str) -> str:
    return ElementTree.fromstring(drawing).attrib["aria-label"]


def test_ticks_are_round_numbers_in_the_range():
    assert choose_ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert choose_ticks(0.93, 1.0) == [0.94, 0.96, 0.98, 1.0]
    assert choose_ticks(0, 0) == [0]
    assert [shorten(n) for n in (7, 950, 12_300, 3_400_000)] == ["7", "950", "12.3k", "3.4M"]
    assert [format_seconds(s) for s in (0.42, 12, 200, 7500)] == ["0.4 s", "12 s", "3 min 20 s", "2 h 5 min"]


def test_the_curve_ends_at_what_the_run_kept():
    drawing = draw_curve(counted(0.9, 0.95, 0.95, 1.0), 10, 0.1)
    assert label(drawing) == "Kept fraction against eps. At eps 0.1000 60.0% are kept."
    points = ElementTree.fromstring(drawing).find("polyline")
    assert points is not None
    heights = [float(point.split(",")[1]) for point in points.attrib["points"].split()]
    assert heights == sorted(heights)  # the fraction falls, and y grows downwards


def test_bars_of_the_histogram_hold_every_removed_sample():
    root = ElementTree.fromstring(draw_histogram(counted(0.8, 0.949, 0.95, 1.0, 1.0), 0.79))
    titles = [title.text or "" for title in root.iter("title")]
    assert sum(int(text.rpartition(" ")[2]) for text in titles) == 5
    assert root.attrib["aria-label"] == "Cosines of 5 removed samples; 3 are 0.95 or more."


@pytest.mark.parametrize("number", [1, 3, 12, 5_000])
def test_sizes_of_any_number_of_clusters_can_be_drawn(number):
    sizes = np.stack((np.arange(1, number + 1), np.arange(number) // 2), axis=1)
    assert label(draw_cluster_sizes(sizes)) == (
        f"Sizes of {format_count(number, 'cluster')}, 1 to {format_count(number, 'sample')}."
    )


def test_groups_are_said_in_words_and_their_names_are_text():
    figure = AttributeFigure("<b>", [GroupFigure("a & b", 0.25, 0.5, (0.1, 0.4)), GroupFigure("c", 0.75, 0.5, None)])
    drawing = draw_groups(figure)
    assert label(drawing) == "<b>: a & b 25.0% before, 50.0% after; c 75.0% before, 50.0% after."
    assert "+25.0 points" in drawing and "-25.0 points" in drawing
    assert "embed" in draw_stages([("embed", 3.0), ("search", 0.0)])


def test_dots_and_names_leave_room_for_texts_of_16_pixels():
    """As the page has them on a phone; a character of such a text is at most 9 pixels wide."""
    figure = AttributeFigure("a", [GroupFigure("b" * 30, 0.2, 0.99, None), GroupFigure("c", 0.8, 0.01, None)])
    root = ElementTree.fromstring(draw_groups(figure))
    dots = [float(circle.attrib["cx"]) + 5 for circle in root.iter("circle")]
    texts = {text.text: float(text.attrib["x"]) for text in root.iter("text")}
    assert max(dots) < texts["-79.0 points"] - 9 * len("-79.0 points")
    assert texts["b" * 19 + "…"] > 8 * 20
    longest = max(map(len, SHOWN.values()))
    root = ElementTree.fromstring(draw_stages([("x" * longest, 60.0), ("b", 1.0)]))
    assert float(next(root.iter("text")).attrib["x"]) > 8 * longest
    assert max(float(text.attrib["x"]) for text in root.iter("text")) + 9 * len("3 min 20 s") < 560
