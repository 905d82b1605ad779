"""The registry of input formats: they are tried in order, listed in error messages, and documented in one table.

This module imports no format. `fairdedup.datasets.inputs` registers those that ship with fairdedup.
"""

from __future__ import annotations

from fairdedup.datasets.input_format import DocumentedInput, InputFormat, InputSource

_FORMATS: list[InputFormat] = []

_NO_INPUT = DocumentedInput("none", "the built-in sample is drawn into the run directory", "")


def register(input_format: InputFormat) -> None:
    """Register a format. It is tried and documented after those registered earlier; a fallback is tried last.

    Parameters
    ----------
    input_format : InputFormat
        An instance of its class.

    Raises
    ------
    ValueError
        If a format of this name is registered already.
    """
    if input_format.name in {known.name for known in _FORMATS}:
        raise ValueError(f"format {input_format.name!r} is registered already: give it another name")
    _FORMATS.append(input_format)


def unregister(name: str) -> None:
    """Remove the format of this name."""
    _FORMATS[:] = [known for known in _FORMATS if known.name != name]


def formats() -> tuple[InputFormat, ...]:
    """Return the registered formats, in the order of their registration."""
    return tuple(_FORMATS)


def find_format(source: InputSource) -> InputFormat | None:
    """Return the first format that recognises an input; None if none does. Fallbacks are tried last."""
    candidates = sorted(_FORMATS, key=lambda known: known.is_fallback)
    return next((known for known in candidates if known.recognises(source)), None)


def is_file_of_a_format(path: str) -> bool:
    """Tell by a file's name whether it is of a registered format."""
    return any(known.has_extension(path) for known in _FORMATS)


def is_shard(path: str) -> bool:
    """Tell by a file's name whether patterns may name it."""
    return any(known.in_patterns and known.has_extension(path) for known in _FORMATS)


def describe_shards() -> str:
    """Return the extensions of files that patterns may name: ".tar, .tar.gz, .parquet or .pq"."""
    return _join([ending for known in formats() if known.in_patterns for ending in known.extensions])


def describe_files() -> list[str]:
    """Return the kinds of file that can be INPUT: ["a .parquet file", "an .npy file", ...]."""
    return [known.file_title for known in formats() if known.file_title is not None]


def describe_folders() -> str:
    """Return the kinds of content that a folder may have: "images, tar shards, Parquet files or img_emb/"."""
    return _join([known.folder_title for known in formats() if known.folder_title is not None])


def describe_formats_with_columns() -> str:
    """Return the kinds of file with columns to choose from: "tar shards or Parquet files"."""
    return _join([str(known.folder_title or known.name) for known in formats() if known.has_columns])


def render_table() -> str:
    """Return the table of inputs in docs/inputs.md, as Markdown."""
    rows = [row for known in formats() for row in known.documentation]
    lines = ["| INPUT | what is read | id |", "|---|---|---|"]
    return "\n".join(lines + [f"| {row.given} | {row.read} | {row.id} |" for row in (*rows, _NO_INPUT)]) + "\n"


def _join(names: list[str]) -> str:
    """Return names as an enumeration: "a, b or c"."""
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1] if names else "none"]))
