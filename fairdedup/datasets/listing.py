"""Reads the metadata.csv, .jsonl or .parquet of a folder of images: one line per image, in Hugging Face's layout.

Paths in the column ``file_name`` are relative to the metadata file's folder. A path that leads out of the data set is
never opened.
"""

from __future__ import annotations

import csv
import io
import posixpath
from collections.abc import Iterator
from typing import NamedTuple

from fsspec import AbstractFileSystem

from fairdedup.datasets.columns import find_role
from fairdedup.datasets.dataset import Metadata
from fairdedup.datasets.filesystem import open_file, to_valid_text
from fairdedup.datasets.rows import DAMAGED, open_parquet_file, stream_rows, to_texts
from fairdedup.datasets.sidecars import MAX_TEXT_BYTES, parse_columns
from fairdedup.errors import UserError

METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_NAME = "file_name"
ROWS_AT_ONCE = 1_000


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


def read_lines(fs: AbstractFileSystem, path: str) -> Iterator[Line]:
    """Yield every line of a metadata file.

    Parameters
    ----------
    fs : AbstractFileSystem
        The file system.
    path : str
        The metadata file's path on it; the extension decides how it is read.

    Raises
    ------
    UserError
        If the file is damaged or has no column ``file_name``.
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


def _csv(fs: AbstractFileSystem, path: str) -> Iterator[Line]:
    with open_file(fs, path) as raw:
        text = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="backslashreplace", newline="")
        reader = csv.DictReader(text, restkey="\0more")
        try:
            names = reader.fieldnames or []
            if FILE_NAME not in names:
                raise _no_file_name(path, list(names))
            for line in reader:
                if "\0more" in line:
                    yield Line(line[FILE_NAME], {}, "more fields than the first line has names")
                else:
                    columns = {to_valid_text(name): value for name, value in line.items() if name != FILE_NAME}
                    yield Line(line[FILE_NAME], columns, None)
        except csv.Error as error:
            raise UserError(f"{path!r} is not valid CSV at line {reader.line_num}: {error}; write it again") from None


def _jsonl(fs: AbstractFileSystem, path: str) -> Iterator[Line]:
    with open_file(fs, path) as raw:
        number = 0
        while line := raw.readline(MAX_TEXT_BYTES + 1):
            number += 1
            if len(line) > MAX_TEXT_BYTES:
                raise UserError(f"line {number} of {path!r} is over {MAX_TEXT_BYTES >> 20} MiB: write it again")
            if not line.strip():
                continue
            columns = parse_columns(line)
            name = columns.pop(FILE_NAME, None)
            fault = columns.get("json_error") if set(columns) == {"json_error"} and name is None else None
            if fault is None and not isinstance(name, str):
                fault = f"no {FILE_NAME}"
            yield Line(name if isinstance(name, str) else None, columns, fault)


def _parquet(fs: AbstractFileSystem, path: str) -> Iterator[Line]:
    with open_parquet_file(fs, path) as parquet:
        names, rows = parquet.schema_arrow.names, parquet.metadata.num_rows
        if FILE_NAME not in names or find_role(parquet.schema_arrow.field(FILE_NAME).type) != "paths":
            raise _no_file_name(path, names)
    for count, batch in stream_rows(fs, path, 0, rows, ROWS_AT_ONCE):
        files = to_texts(batch.column(FILE_NAME)) if batch is not None else [None] * count
        for k, name in enumerate(files):
            columns = (
                {to_valid_text(n): batch.column(n)[k] for n in names if n != FILE_NAME} if batch is not None else {}
            )
            fault = None if name else f"no {FILE_NAME}"
            yield Line(name, columns, DAMAGED if batch is None else fault)


def _no_file_name(path: str, names: list[str]) -> UserError:
    found = ", ".join(repr(name[:60]) for name in names[:8]) or "nothing"
    return UserError(
        f"{path!r} has no column {FILE_NAME!r} of text, but {found}: rename a column, or move the "
        "file to another folder"
    )
