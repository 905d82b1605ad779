"""Renames columns of an input whose names are those of fairdedup's own columns, so that neither is overwritten."""

from __future__ import annotations

from collections.abc import Collection, Iterable

PICTURE_COLUMNS = ("width", "height", "format", "bytes")
"""Columns that embedding adds for every picture: its size in pixels, its format, and the size of its file."""


def rename_reserved(names: Iterable[str], reserved: Collection[str], prefix: str = "input_") -> dict[str, str]:
    """Return the name that each column gets: its own, or for a reserved name one that no column has.

    Parameters
    ----------
    names : iterable of str
        The names in the input, all different.
    reserved : collection of str
        Names that fairdedup uses itself.
    prefix : str
        Text before a reserved name; underscores follow the name until it is free.
    """
    own = list(names)
    taken = {*own, *reserved}
    renamed = {}
    for name in own:
        new = name
        if name in reserved:
            new = f"{prefix}{name}"
            while new in taken:
                new += "_"
            taken.add(new)
        renamed[name] = new
    return renamed
