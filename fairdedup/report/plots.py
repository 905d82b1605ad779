"""Draws the plots of the page as inline SVG, each a function of its values. Colours are those of the style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from fairdedup.errors import format_count, format_seconds
from fairdedup.report.report_figures import AttributeFigure, GroupFigure

WIDTH, HEIGHT = 560, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 22, 34
MOST_BINS = 48
ROW = 26  # height of a line of a chart of bars
NAMES = 188  # right end of the names of stages, which on a phone are written larger


def _svg(height: float, label: str, body: Sequence[str]) -> Markup:
    opening = f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(label)}">'
    return Markup(opening + "".join(body) + "</svg>")


def _text(x: float, y: float, text: object, kind: str = "", anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(text)}</text>'


def choose_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers from `low` to `high`, at most about `most` of them."""
    span = high - low
    if span <= 0:
        return [low]
    step = 10 ** math.floor(math.log10(span / most))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if span / (step * factor) <= most)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def shorten(number: float) -> str:
    """Return a count in few characters: 950, 12k, 3.4M."""
    for unit, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{sign}"
    return f"{number:g}"


class _Frame:
    """Axes of a plot: maps values to places, and draws the grid."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        self._x, self._y = x, y

    def x(self, value: float) -> float:
        low, high = self._x
        return LEFT + (value - low) / ((high - low) or 1) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self._y
        return HEIGHT - BOTTOM - (value - low) / ((high - low) or 1) * (HEIGHT - TOP - BOTTOM)

    def draw(self, x_ticks: Sequence[tuple[float, str]], y_ticks: Sequence[tuple[float, str]], title: str) -> list[str]:
        out = []
        for value, text in y_ticks:
            out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{self.y(value):.1f}" y2="{self.y(value):.1f}"/>')
            out.append(_text(LEFT - 8, self.y(value) + 4, text, anchor="end"))
        out += [_text(self.x(value), HEIGHT - BOTTOM + 17, text) for value, text in x_ticks]
        return [*out, _text(WIDTH - RIGHT, HEIGHT - 3, title, "title", "end")]


def draw_curve(similarities: NDArray[np.int64], valid: int, eps: float) -> Markup:
    """Draw the kept fraction if only samples within a smaller eps of their representative were removed.

    Parameters
    ----------
    similarities : ndarray of shape (20001,), int64
        Number of removed samples by cosine, in ten-thousandths from -1.
    valid : int
    eps : float
        That of the run, where the marker is.
    """
    units = round(eps * 10_000)
    within = np.cumsum(similarities[::-1])[: units + 1]  # at distance 0, 1, ... ten-thousandths
    within[-1] = similarities.sum()  # those that were rounded to the threshold
    places = np.unique(np.linspace(0, units, min(units + 1, 160)).round().astype(np.int64))
    fractions = 1 - within[places] / max(valid, 1)
    low = max(0.0, math.floor(float(fractions[-1]) * 10 - 1) / 10)  # with room for the text under the marker
    frame = _Frame((0, max(eps, 1e-4) * 1.04), (low, 1))
    line = " ".join(
        f"{frame.x(p / 10_000):.1f},{frame.y(f):.1f}" for p, f in zip(places.tolist(), fractions.tolist(), strict=True)
    )
    x, y, bottom = frame.x(eps), frame.y(float(fractions[-1])), frame.y(low)
    ticks = [(t, f"{t:g}") for t in choose_ticks(0, max(eps, 1e-4))]
    body = frame.draw(ticks, [(t, f"{t:.0%}") for t in choose_ticks(low, 1)], "eps = 1 − cosine")
    body.append(f'<polygon class="kept area" points="{frame.x(0):.1f},{bottom:.1f} {line} {x:.1f},{bottom:.1f}"/>')
    body.append(f'<polyline class="kept line" points="{line}"/>')
    body.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom:.1f}"/>')
    body.append(f'<circle class="kept dot" cx="{x:.1f}" cy="{y:.1f}" r="5"/>')
    body.append(_text(x - 9, y + 22, f"eps {eps:.4f}: {float(fractions[-1]):.1%} kept", "strong", "end"))
    return _svg(HEIGHT, f"Kept fraction against eps. At eps {eps:.4f} {float(fractions[-1]):.1%} are kept.", body)


def draw_histogram(similarities: NDArray[np.int64], threshold: float | None) -> Markup:
    """Draw how similar removed samples are to their representatives.

    Parameters
    ----------
    similarities : ndarray of shape (20001,), int64
        Number of removed samples by cosine, in ten-thousandths from -1.
    threshold : float or None
        1 - eps.
    """
    filled = np.flatnonzero(similarities)
    low = int(filled[0]) if threshold is None else min(int(filled[0]), round((threshold + 1) * 10_000))
    step = max(1, math.ceil((20_000 - low) / MOST_BINS))
    edges = np.arange(20_001, low - 1, -step)[::-1]
    edges = np.concatenate(([edges[0] - step], edges)) if edges[0] > low else edges
    cumulative = np.concatenate(([0], np.cumsum(similarities)))
    counts = np.diff(cumulative[edges.clip(0)])
    first, last = edges[0] / 10_000 - 1, 1.0
    most = int(counts.max())
    frame = _Frame((first, last), (0, most * 1.1))  # with room for the text at the threshold
    body = frame.draw(
        [(t, f"{t:g}") for t in choose_ticks(first, last)],
        [(t, shorten(t)) for t in choose_ticks(0, most, 4)],
        "cosine to the representative",
    )
    for k, count in enumerate(counts.tolist()):
        if count:
            a, b = frame.x(edges[k] / 10_000 - 1), frame.x(min(1.0, edges[k + 1] / 10_000 - 1))
            y = frame.y(count)
            tip = f"{edges[k] / 10_000 - 1:.4f} to {min(1.0, (edges[k + 1] - 1) / 10_000 - 1):.4f}: {count:,}"
            body.append(
                f'<rect class="removed" x="{a + 0.5:.1f}" y="{y:.1f}" width="{max(1.0, b - a - 1):.1f}" '
                f'height="{frame.y(0) - y:.1f}"><title>{tip}</title></rect>'
            )
    if threshold is not None:
        x = frame.x(threshold)
        body.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{frame.y(0):.1f}"/>')
        body.append(_text(x + 5, TOP - 1, f"threshold {threshold:.4f}", "strong", "start"))
    total, close = int(similarities.sum()), int(similarities[19_500:].sum())
    return _svg(HEIGHT, f"Cosines of {total:,} removed samples; {close:,} are 0.95 or more.", body)


def draw_cluster_sizes(sizes: NDArray[np.int64]) -> Markup:
    """Draw the sizes of the clusters (k, 2), the largest first: valid samples, and those that are kept.

    Many clusters are averaged over neighbours in this order.
    """
    ordered = sizes[sizes[:, 0] > 0]
    ordered = ordered[np.argsort(-ordered[:, 0], kind="stable")]
    bins = np.array_split(ordered, min(len(ordered), 120))
    means = np.array([part.mean(axis=0) for part in bins])
    most = float(means[:, 0].max())
    frame = _Frame((0, len(means)), (0, most))
    ticks = [(t / len(ordered) * len(means), f"{t:,.0f}") for t in choose_ticks(0, len(ordered)) if t == int(t)]
    if len(ordered) <= 12:
        ticks = [(k + 0.5, str(k + 1)) for k in range(len(ordered))]
    body = frame.draw(ticks, [(t, shorten(t)) for t in choose_ticks(0, most, 4)], "clusters, the largest first")
    gap = 1.0 if len(means) > 24 else 6.0
    for k, (valid, kept) in enumerate(means.tolist()):
        x, width = frame.x(k) + gap / 2, max(0.8, min(frame.x(k + 1) - frame.x(k) - gap, 90))
        x += (frame.x(k + 1) - frame.x(k) - gap - width) / 2 if gap > 1 else 0
        tip = f"<title>{format_count(round(valid), 'sample')}, {kept:,.0f} kept</title>"
        for kind, value in (("removed soft", valid), ("kept", kept)):
            body.append(
                f'<rect class="{kind}" x="{x:.1f}" y="{frame.y(value):.1f}" width="{width:.1f}" '
                f'height="{frame.y(0) - frame.y(value):.1f}">{tip}</rect>'
            )
    label = (
        f"Sizes of {format_count(len(ordered), 'cluster')}, {int(ordered[:, 0].min()):,} to "
        f"{format_count(int(ordered[:, 0].max()), 'sample')}."
    )
    return _svg(HEIGHT, label, body)


def draw_stages(stages: Sequence[tuple[str, float]]) -> Markup:
    """Draw the seconds of each stage as bars, in the order given."""
    longest = max((seconds for _, seconds in stages), default=1.0) or 1.0
    body = []
    for k, (name, seconds) in enumerate(stages):
        y, width = 8 + k * ROW, max(2.0, seconds / longest * (WIDTH - NAMES - 114))
        body.append(_text(NAMES, y + 14, name, "label", "end"))
        body.append(f'<rect class="neutral" x="{NAMES + 10}" y="{y + 3}" width="{width:.1f}" height="14" rx="3"/>')
        body.append(_text(NAMES + 18 + width, y + 14, format_seconds(seconds), anchor="start"))
    total = sum(seconds for _, seconds in stages)
    return _svg(14 + ROW * len(stages), f"Time of each stage, {format_seconds(total)} in all.", body)


def draw_groups(figure: AttributeFigure) -> Markup:
    """Draw the share of each group of an attribute before (ring) and after (dot), with the interval of the change."""
    most = max(_right_end(group) for group in figure.groups) * 1.02 or 1.0
    high = min(1.0, most)
    left, right, top = 178, 126, 8  # room for texts of 16 pixels, as on a phone

    def place(share: float) -> float:
        return left + min(max(share, 0.0), high) / high * (WIDTH - left - right)

    body = []
    bottom = top + ROW * len(figure.groups)
    for tick in choose_ticks(0, high, 4):
        body.append(f'<line x1="{place(tick):.1f}" x2="{place(tick):.1f}" y1="{top}" y2="{bottom}"/>')
        body.append(_text(place(tick), bottom + 16, f"{tick:.0%}"))
    for k, group in enumerate(figure.groups):
        y, before, after = top + ROW * k + ROW / 2, place(group.before), place(group.after)
        kind = "kept" if group.after >= group.before else "removed"
        name = group.group if len(group.group) <= 20 else f"{group.group[:19]}…"
        body.append(_text(left - 12, y + 4, name, "label", "end"))
        if group.interval is not None:
            low, up = place(group.before + group.interval[0]), place(group.before + group.interval[1])
            body.append(f'<rect class="{kind} soft" x="{low:.1f}" y="{y - 6}" width="{max(1.5, up - low):.1f}" '
                        f'height="12" rx="6"/>')  # fmt: skip
        body.append(f'<line class="{kind} stem" x1="{before:.1f}" x2="{after:.1f}" y1="{y}" y2="{y}"/>')
        body.append(f'<circle class="ring" cx="{before:.1f}" cy="{y}" r="5"/>')
        body.append(f'<circle class="{kind} dot" cx="{after:.1f}" cy="{y}" r="5"/>')
        change = 100 * (group.after - group.before)
        body.append(_text(WIDTH - 8, y + 4, f"{change:+.1f} points", f"strong {kind}-ink", "end"))
    said = "; ".join(f"{g.group} {g.before:.1%} before, {g.after:.1%} after" for g in figure.groups)
    return _svg(bottom + 24, f"{figure.attribute}: {said}.", body)


def _right_end(group: GroupFigure) -> float:
    return max(group.before, group.after, group.before + (group.interval[1] if group.interval else 0.0))
