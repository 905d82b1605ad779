"""Reads the metadata.csv, .jsonl or .parquet of a folder of images: one line per image, in Hugging Face's layout.

Paths in the column ``file_name`` are relative to the metadata file's folder. A path that leads out of the data set is
never opened.
"""

from __future__ import annotations

import csv
import io
import math
import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from fsspec import AbstractFileSystem

from fairdedup.datasets.columns import CAPTION_COLUMNS, find_role
from fairdedup.datasets.dataset import Metadata
from fairdedup.datasets.filesystem import open_file, to_valid_text
from fairdedup.datasets.rows import DAMAGED, open_parquet_file, stream_rows, to_texts
from fairdedup.datasets.sidecars import MAX_TEXT_BYTES, parse_columns
from fairdedup.errors import UserError

MOST_COLUMNS = 10_000  # of a metadata.csv
METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_NAME = "file_name"
ROWS_AT_ONCE = 1_000

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*|(?=\.[0-9]))(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?")
_MISSING = ("", "nan", "NaN", "NAN")
_EXACT = 2**53  # whole numbers above it are changed by float64


class ForeignMetadata(Exception):
    """A metadata file does not describe images in Hugging Face's layout; the message says why."""


class Line(NamedTuple):
    """A line of a metadata file.

    Attributes
    ----------
    file_name : str or None
        Path of the image that the line describes.
    columns : dict
        The other columns.
    fault : str or None
        Why the line cannot be used.
    """

    file_name: str | None
    columns: Metadata
    fault: str | None


def read_lines(fs: AbstractFileSystem, path: str) -> list[Line]:
    """Return all lines of a metadata file.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The metadata file's path on it; the extension decides how it is read.

    Raises
    ------
    ForeignMetadata
        If it has no column ``file_name`` of text, or cannot be read at all.
    UserError
        If the file has this column and is damaged further down.
    """
    reader = {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet}[posixpath.splitext(path)[1][1:]]
    return reader(fs, path)


def resolve_file_name(folder: str, name: str) -> str | None:
    """Return the relative path of a file that a line names; None if it leads out of the folder.

    Parameters
    ----------
    folder : str
        The folder of the metadata file, relative to the data set.
    name : str
        The line's ``file_name``.
    """
    if not name or "\0" in name or "://" in name or name.startswith(("/", "\\")):
        return None
    if ".." in name.replace("\\", "/").split("/"):
        return None
    return posixpath.normpath(posixpath.join(folder, name))


def to_numbers(texts: list[str | None]) -> list[int | float | None] | None:
    """Return a column of text as numbers: all whole, or all float64; None if they are not all numbers.

    Missing, empty and "nan" are None in the result. Numbers with leading zeros or a plus are codes, and so are whole
    numbers that would not stay exact; a column with one of them stays text.

    Parameters
    ----------
    texts : list of str or None
        The column.
    """
    values = [None if text is None or text.strip() in _MISSING else text.strip() for text in texts]
    given = [value for value in values if value is not None]
    if not given or not all(map(_NUMBER.fullmatch, given)):
        return None
    whole = [int(value) for value in given if len(value) < 20 and _INTEGER.fullmatch(value)]
    if len(whole) == len(given):
        fits = all(-(2**63) <= value < 2**63 for value in whole)
        return [None if value is None else int(value) for value in values] if fits else None
    if sum(_INTEGER.fullmatch(value) is not None for value in given) > len(whole):
        return None
    fits = all(abs(value) <= _EXACT for value in whole) and all(math.isfinite(float(value)) for value in given)
    return [None if value is None else float(value) for value in values] if fits else None


def _unique(names: list[str]) -> list[str]:
    """Return the names of columns; a name that an earlier column has gets underscores after it."""
    found: dict[str, None] = {}
    added: Counter[str] = Counter()  # underscores after each name so far
    for name in names:
        while (new := name + "_" * added[name]) in found:
            added[name] += 1
        found[new] = None
    return list(found)


def _csv(fs: AbstractFileSystem, path: str) -> list[Line]:
    with open_file(fs, path) as raw:
        text = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="backslashreplace", newline="")
        reader = csv.DictReader(text, restkey="\0more")
        try:
            names = list(reader.fieldnames or [])
        except csv.Error as error:
            raise ForeignMetadata(f"not valid CSV: {error}") from None
        if FILE_NAME not in names:
            raise _no_file_name(names)
        if len(names) > MOST_COLUMNS:
            raise UserError(f"{path!r} has {len(names):,} columns: give at most {MOST_COLUMNS:,}")
        reader.fieldnames = names = _unique(names)
        try:
            lines = list(reader)
        except csv.Error as error:
            raise UserError(f"{path!r} is not valid CSV at line {reader.line_num}: {error}; write it again") from None
    good = [line for line in lines if "\0more" not in line]
    columns = {name: [line[name] for line in good] for name in names if name not in (FILE_NAME, *CAPTION_COLUMNS)}
    for name, texts in columns.items():
        numbers = to_numbers(texts)
        for line, number in zip(good, numbers or (), strict=numbers is not None):
            line[name] = number
    found = []
    for line in lines:
        fault = "more fields than the first line has names" if "\0more" in line else None
        others = {to_valid_text(name): value for name, value in line.items() if name != FILE_NAME}
        found.append(Line(line[FILE_NAME], {} if fault else others, fault))
    return found


def _jsonl(fs: AbstractFileSystem, path: str) -> list[Line]:
    found: list[Line] = []
    with open_file(fs, path) as raw:
        number = 0
        while line := raw.readline(MAX_TEXT_BYTES + 1):
            number += 1
            if len(line) > MAX_TEXT_BYTES:
                fault = f"line {number} of {path!r} is over {MAX_TEXT_BYTES >> 20} MiB"
                if not any(line.file_name for line in found):
                    raise ForeignMetadata(fault)
                raise UserError(f"{fault}: write it again")
            if not line.strip():
                continue
            columns = parse_columns(line)
            name = columns.pop(FILE_NAME, None)
            why = columns.get("json_error") if set(columns) == {"json_error"} and name is None else None
            if why is None and not isinstance(name, str):
                why = f"no {FILE_NAME}"
            found.append(Line(name if isinstance(name, str) else None, columns, str(why) if why else None))
    if found and not any(line.file_name is not None for line in found):
        raise _no_file_name([*dict.fromkeys(name for line in found for name in line.columns if name != "json_error")])
    return found


def _parquet(fs: AbstractFileSystem, path: str) -> list[Line]:
    try:
        with open_parquet_file(fs, path) as parquet:
            names, rows = parquet.schema_arrow.names, parquet.metadata.num_rows
            fits = FILE_NAME in names and find_role(parquet.schema_arrow.field(FILE_NAME).type) == "paths"
    except UserError as fault:
        raise ForeignMetadata(str(fault)) from None
    if not fits:
        raise _no_file_name(names)
    return list(_parquet_lines(fs, path, names, rows))


def _parquet_lines(fs: AbstractFileSystem, path: str, names: list[str], rows: int) -> Iterator[Line]:
    for count, batch in stream_rows(fs, path, 0, rows, ROWS_AT_ONCE):
        files = to_texts(batch.column(FILE_NAME)) if batch is not None else [None] * count
        for k, name in enumerate(files):
            columns = (
                {to_valid_text(n): batch.column(n)[k] for n in names if n != FILE_NAME} if batch is not None else {}
            )
            fault = None if name else f"no {FILE_NAME}"
            yield Line(name, columns, DAMAGED if batch is None else fault)


def _no_file_name(names: list[str]) -> ForeignMetadata:
    found = ", ".join(repr(name[:60]) for name in names[:8]) or "nothing"
    return ForeignMetadata(f"no column {FILE_NAME!r} of text, but {found}")
