"""Names the files of an input by their paths in it, in natural order, for the names of shards and for ids."""

from __future__ import annotations

import posixpath

from fairdedup.datasets.filesystem import locate, natural_key
from fairdedup.datasets.input_format import InputSource


def label_files(source: InputSource, paths: list[str]) -> dict[str, str]:
    """Return the label of each file, by path and in natural order of the labels.

    A label is the path relative to the folder that is the input, or to the folder that all files have in common.

    Parameters
    ----------
    source : InputSource
        The input.
    paths : list of str
        Its files, at least one.
    """
    top = source.paths[0] if source.kind == "folder" else posixpath.commonpath([posixpath.dirname(p) for p in paths])
    labels = {path: posixpath.relpath(path, top) if top else path for path in paths}
    return dict(sorted(labels.items(), key=lambda item: natural_key(item[1])))


def is_named_itself(source: InputSource, paths: list[str]) -> bool:
    """Tell whether the input is the path of one file, not a folder or a pattern, which may get more files."""
    return source.kind == "files" and len(paths) == 1 and locate(source.text)[1] == paths[0]
