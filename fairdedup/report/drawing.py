"""Makes a plot of the page stand alone: an SVG with the colours of the style sheet in it, for notebooks and files."""

from __future__ import annotations

import re

from fairdedup.report.html_templates import read_template

_MEDIA = re.compile(r"@media[^{]*\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}")
_RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
_COLOUR = re.compile(r"--([\w-]+):([^;]*);")
_USE = re.compile(r"var\(--([\w-]+)\)")
_NAME = "fairdedup-plot"  # class of the picture: its style must not reach other pictures of a notebook
_FONT = "font-family: system-ui, sans-serif; background: var(--card); max-width: 640px"


class Drawing(str):
    """An SVG as text, which a notebook shows as a picture."""

    __slots__ = ()

    def _repr_svg_(self) -> str:
        return str(self)


def make_drawing(plot: str) -> Drawing:
    """Return a plot as an SVG that needs no style sheet.

    Parameters
    ----------
    plot : str
        What a function of `plots` has drawn.
    """
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="{_NAME}"'
    body = str.removeprefix(plot, "<svg").replace(">", f"><style>{read_plot_style()}</style>", 1)
    return Drawing(head + body)


def read_plot_style() -> str:
    """Return the rules of the style sheet for plots, in light colours, for pictures of this module alone.

    Colours are written out, since not every program that shows SVG knows variables.
    """
    sheet = read_template("report.css")
    found = [(selectors.strip(), body.strip()) for selectors, body in _RULE.findall(_MEDIA.sub("", sheet))]
    colours = dict(_COLOUR.findall(next(body for selectors, body in found if selectors == ":root")))
    rules = [f"svg.{_NAME} {{ {_FONT} }}"]
    for selectors, body in found:
        own = [each.strip() for each in selectors.split(",") if each.strip().startswith("svg ")]
        if own:
            rules.append(f"{', '.join(f'svg.{_NAME} {each[4:]}' for each in own)} {{ {body} }}")
    return _USE.sub(lambda use: str(colours[use[1]]).strip(), " ".join(rules))
