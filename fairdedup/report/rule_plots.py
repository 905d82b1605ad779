"""Draws a comparison of rules as one SVG file: the shift of each group's share by each rule, with its interval.

The file loads nothing. Names from labels are text in it; they cannot become markup.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import escape

from fairdedup.errors import visible
from fairdedup.report.plots import choose_ticks
from fairdedup.report.rule_comparison import ComparedRule, Comparison

WIDTH, LEFT, RIGHT = 760, 190, 24
ROW, GAP, HEAD = 15, 12, 26  # heights: of a rule's line, between groups, of an attribute's name
COLOURS = ("#66625b", "#0d7a6f", "#d0643b", "#2563eb", "#b07aa1", "#a17a1a", "#4e79a7", "#e15759")
STYLE = (
    "text{font:12.5px system-ui,sans-serif;fill:#1d1c1a}.title{font-weight:600;font-size:14px}.muted{fill:#66625b}"
    ".grid{stroke:#e6e2da}.zero{stroke:#66625b}.range{stroke-width:5;stroke-opacity:.3;stroke-linecap:round}"
)
NAME = 26  # characters of a name of a group


def draw_comparison(comparison: Comparison) -> str:
    """Return the drawing of a comparison as the text of an SVG file.

    Parameters
    ----------
    comparison : Comparison
        Its rules share their attributes and groups.
    """
    rules, body, y = comparison.rules, list[str](), 34.0
    low, high = _find_range(rules)

    def place(shift: float) -> float:
        return LEFT + (shift - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    body.append(_text(12, 20, "Share of each group: change in points", "title"))
    y = _draw_legend(rules, body, y)
    attributes = [attribute.attribute for attribute in rules[0].attributes]
    for k, name in enumerate(attributes):
        body.append(_text(12, y + 16, visible(name), "title"))
        top = y = y + HEAD
        names = [group.group for group in rules[0].attributes[k].groups]
        lines = list[str]()
        for g, group in enumerate(names):
            shown = visible(group)
            shown = shown if len(shown) <= NAME else f"{shown[: NAME - 1]}…"
            middle = y + ROW * len(rules) / 2
            lines.append(_text(LEFT - 12, middle + 4, shown, "", "end"))
            for number, rule in enumerate(rules):
                lines += _draw_shift(rule, k, g, y + ROW * (number + 0.5), number, place)
            y += ROW * len(rules) + GAP
        for tick in choose_ticks(low, high, 6):
            x, kind = place(tick), "zero" if tick == 0 else "grid"
            body.append(f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{y - GAP:.1f}"/>')
            body.append(_text(x, y + 4, f"{100 * tick:+g}" if tick else "0", "muted", "middle"))
        body += lines
        y += HEAD
    if not attributes:
        body.append(_text(12, y + 16, "Nothing assigns the samples to groups.", "muted"))
        y += HEAD
    label = f"Change of the share of each group by {', '.join(rule.rule for rule in rules)}."
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:g}" role="img" '
        f'aria-label="{escape(label)}"><style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
        f"{''.join(body)}</svg>\n"
    )


def _find_range(rules: Sequence[ComparedRule]) -> tuple[float, float]:
    """Return the least and the largest shift that are drawn, with some room; 0 is between them."""
    ends = [0.0]
    for rule in rules:
        for _, group in rule.groups():
            if group.shift is not None:
                ends += [group.shift, *(group.shift_interval or ())]
    room = max(max(ends) - min(ends), 0.01) * 0.04
    return min(ends) - room, max(ends) + room


def _draw_legend(rules: Sequence[ComparedRule], body: list[str], y: float) -> float:
    """Draw the names of the rules, each in its colour, and return where the next line begins."""
    x = 12.0
    for number, rule in enumerate(rules):
        width = 26 + 7.5 * len(rule.rule)
        if x + width > WIDTH - RIGHT and x > 12:
            x, y = 12.0, y + 20
        body.append(f'<circle cx="{x + 5:.1f}" cy="{y + 6:.1f}" r="5" fill="{_colour(number)}"/>')
        body.append(_text(x + 15, y + 10, rule.rule))
        x += width
    return y + 24


def _draw_shift(
    rule: ComparedRule, attribute: int, group: int, y: float, number: int, place: Callable[[float], float]
) -> list[str]:
    """Return the dot of one group by one rule, with its interval."""
    found = rule.attributes[attribute].groups[group]
    if found.shift is None:
        return [_text(place(0) + 6, y + 4, "too few samples", "muted")] if number == 0 else []
    out, colour = list[str](), _colour(number)
    tip = f"{rule.rule}: {100 * found.shift:+.2f} points"
    if found.shift_interval is not None:
        low, high = found.shift_interval
        tip += f" ({100 * low:+.2f} to {100 * high:+.2f})"
        out.append(
            f'<line class="range" stroke="{colour}" x1="{place(low):.1f}" x2="{place(high):.1f}" y1="{y:.1f}" '
            f'y2="{y:.1f}"/>'
        )
    out.append(
        f'<circle cx="{place(found.shift):.1f}" cy="{y:.1f}" r="4" fill="{colour}"><title>{escape(tip)}</title>'
        "</circle>"
    )
    return out


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(text)}</text>'
