"""The files of `templates/`, and how pages are rendered from them."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from fairdedup.errors import visible

TEMPLATES = files("fairdedup.report") / "templates"


def read_template(name: str) -> str:
    """Return a file of `templates/`.

    Parameters
    ----------
    name : str
        Name of the file.
    """
    return (TEMPLATES / name).read_text(encoding="utf-8")


def render(name: str, **values: Any) -> str:
    """Return a page as HTML; all text of the values is escaped.

    Parameters
    ----------
    name : str
        Name of its template, which may include others.
    **values
        What the template names. A name without a value is an error.
    """
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(read_template),
    )
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["visible"] = visible
    return environment.get_template(name).render(**values)
