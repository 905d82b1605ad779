"""Renders a small page of samples for `fairdedup search` and `fairdedup explain`: HTML that loads and runs nothing.

Text of the data is escaped by Jinja. The page's policy forbids scripts and the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fairdedup.errors import visible
from fairdedup.report.html_templates import read_template, render
from fairdedup.report.looked_up import describe_state
from fairdedup.report.pictures import Thumbnails
from fairdedup.report.report_figures import ShownSample


@dataclass(frozen=True)
class Tile:
    """A sample on the page.

    Attributes
    ----------
    id : str
    state : str
        What became of it, such as "kept".
    note : str
        A few words about it, such as its cosine.
    caption : str or None
    url : str or None
        Its picture as a data URI.
    """

    id: str
    state: str
    note: str
    caption: str | None
    url: str | None


@dataclass(frozen=True)
class Shelf:
    """Samples under one heading."""

    heading: str
    tiles: list[Tile]


def build_tile(sample: ShownSample, note: str, thumbnails: Thumbnails) -> Tile:
    """Return a tile of a sample.

    Parameters
    ----------
    sample : ShownSample
    note : str
        A few words about it.
    thumbnails : Thumbnails
        Pictures, which may lack its own.
    """
    caption = None if sample.caption is None else visible(sample.caption)
    return Tile(visible(sample.id), describe_state(sample), note, caption, thumbnails.urls.get(sample.row))


def render_samples(title: str, lines: Sequence[str], shelves: Sequence[Shelf], remark: str | None = None) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    title : str
    lines : sequence of str
        Sentences under the title.
    shelves : sequence of Shelf
    remark : str or None
        Why pictures are missing.
    """
    return render(
        "samples.html",
        title=visible(title),
        lines=[visible(line) for line in lines],
        shelves=shelves,
        remark=remark,
        style=Markup(read_template("report.css")),
    )
