"""Reads files of labels, CSV or Parquet: one line per id, one column per attribute. All values become text."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import TextIOWrapper
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fairdedup.datasets.filesystem import natural_key
from fairdedup.datasets.ids import COLUMNS, find_id_column, spell_out
from fairdedup.datasets.rows import cast_to_text
from fairdedup.datasets.spreadsheet_ages import is_age_column, restore_ages
from fairdedup.errors import UserError, first_line, format_count
from fairdedup.storage.plain_files import expect_plain_file, open_plain_file

MOST_GROUPS = 50  # a column with more distinct values is hardly an attribute, unless the user names it
MOST_NAMED = 1000
PATHS = "file"  # a column of ids in FairFace's own files of labels: paths of the images
_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Labels:
    """The labels of n samples.

    Attributes
    ----------
    places : dict of str to int
        The line of each id, from 0.
    attributes : tuple of str
        The columns that are attributes.
    groups : tuple of tuple of str
        The distinct labels of each attribute, in natural order: "3-9" before "10-19".
    codes : ndarray of shape (n, attributes), int32
        The position of each label in its `groups`; -1 where a line has no label.
    remarks : tuple of str
        What was restored in the file.
    """

    places: dict[str, int]
    attributes: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    codes: NDArray[np.int32]
    remarks: tuple[str, ...] = ()


def write_out_ids(labels: Labels, found: NDArray[np.bool_]) -> Labels | None:
    """Return labels whose ids that were not found are written in another way.

    Paths of which none was found lose their folders: a run of ``val/`` has the id ``1.jpg`` for ``val/1.jpg``. Whole
    numbers are written out, as `spell_out` does.

    Parameters
    ----------
    labels : Labels
        The file of labels.
    found : ndarray of shape (n,), bool
        For each line, whether a run has its id.

    Returns
    -------
    Labels or None
        None if there is no such id, or if two lines would have one id.
    """
    if not found.any():
        bare = [name.rpartition("/")[2] for name in labels.places]
        if bare != list(labels.places) and len(set(bare)) == len(bare):
            return replace(labels, places=dict(zip(bare, labels.places.values(), strict=True)))
    names = pa.array(list(labels.places), pa.string())
    spelled = spell_out(names, np.flatnonzero(~found))
    if spelled is None or len(spelled) < len(names):
        return None
    return replace(labels, places=dict(zip(spelled.to_pylist(), labels.places.values(), strict=True)))


def read_labels(path: Path, attributes: Sequence[str] | None) -> Labels:
    """Read a file of labels.

    Parameters
    ----------
    path : Path
        A .csv or .parquet file with a column id, uid or key; or else file, as FairFace has it.
    attributes : sequence of str or None
        The columns that are attributes; None means all but the column of ids.

    Raises
    ------
    UserError
        If the file cannot be read, an id is repeated, or a column is missing or has too many different values.
    """
    what = f"--labels {str(path)!r}"
    expect_plain_file(path, what)
    if not path.is_file():
        raise UserError(f"{what}: no such file; give a .csv or .parquet with a column id and one for each attribute")
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise UserError(f"{what} is of unknown kind: give a .csv or .parquet")
    try:
        lines = _read_csv(path, what) if path.suffix.lower() == ".csv" else _read_parquet(path, what, attributes)
        return _collect(lines, attributes, what)
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{what} cannot be read ({first_line(error)}): write the file again") from None


def _collect(lines: Iterator[Sequence[str | None]], wanted: Sequence[str] | None, what: str) -> Labels:
    header = [str(name) for name in next(lines)]
    own = _check_header(header, what)
    names = _choose_attributes(header, own, wanted, what)
    position = {name: k for k, name in enumerate(header)}
    columns = [position[name] for name in names]
    known: list[dict[str, int]] = [{} for _ in names]
    most = MOST_GROUPS if wanted is None else MOST_NAMED
    places: dict[str, int] = {}
    codes: list[list[int]] = []
    for number, line in enumerate(lines, 2):
        name = line[own] or ""
        if not name:
            raise UserError(f"{what}: line {number} has no id; add it, or remove the line")
        if places.setdefault(name, len(places)) != number - 2:
            raise UserError(f"{what}: duplicate id {name!r} in line {number}; give one line for each id")
        codes.append([_code(known[k], line[c]) for k, c in enumerate(columns)])
        for k, groups in enumerate(known):
            if len(groups) > most:
                remedy = (
                    "group them"
                    if wanted is not None
                    else "name the columns that are attributes, for example --attributes a,b"
                )
                raise UserError(
                    f"{what}: column {names[k]!r} has more than {format_count(most, 'different value')}; {remedy}"
                )
    if not places:
        raise UserError(f"{what} has no lines: give one for each id")
    found, remarks = np.array(codes, np.int32), list[str]()
    ordered: list[tuple[str, ...]] = []
    for k, groups in enumerate(known):
        restored = restore_ages(groups, names[k], what) if is_age_column(names[k]) else {}
        if restored:
            was_date = np.array([group in restored for group in groups] + [False])
            remarks.append(_describe_restored(restored, names[k], int(was_date[found[:, k]].sum()), what))
        whole = [restored.get(group, group) for group in groups]
        ordered.append(tuple(sorted(set(whole), key=natural_key)))
        rank = np.array([ordered[k].index(group) for group in whole] + [-1], np.int32)  # -1 indexes the last entry
        found[:, k] = rank[found[:, k]]
    return Labels(places, names, tuple(ordered), found, tuple(remarks))


def _describe_restored(restored: dict[str, str], column: str, count: int, what: str) -> str:
    shown = ", ".join(f"{value!r} is read as {age}" for value, age in sorted(restored.items()))
    dates = format_count(count, "value is a date", "values are dates")
    return f"{what}, column {column!r}: {dates} that a spreadsheet has made of ages: {shown}"


def _check_header(header: list[str], what: str) -> int:
    """Return the position of the column of ids."""
    repeated = next((name for name, count in Counter(header).items() if count > 1), None)
    if repeated is not None:
        raise UserError(f"{what}: duplicate column {repeated!r}; give each column its own name")
    return header.index(_find_ids(header, what))


def _find_ids(header: Sequence[str], what: str) -> str:
    """Return the column of ids; a column of paths if there is none."""
    if PATHS in header and not set(COLUMNS) & set(header):
        return PATHS
    return find_id_column(header, what)


def _choose_attributes(header: list[str], own: int, wanted: Sequence[str] | None, what: str) -> tuple[str, ...]:
    others = [name for k, name in enumerate(header) if k != own]
    names, known = tuple(others if wanted is None else dict.fromkeys(wanted)), set(others)
    for name in names:
        if name not in known:
            raise UserError(f"{what}: no attribute {name!r}; its columns of labels are {', '.join(others) or 'none'}")
    if not names:
        raise UserError(f"{what} has no column but {header[own]!r}: add one for each attribute")
    return names


def _code(known: dict[str, int], value: str | None) -> int:
    if value is None or not value.strip():
        return -1
    return known.setdefault(value, len(known))


def _read_csv(path: Path, what: str) -> Iterator[Sequence[str | None]]:
    with open_plain_file(path, what) as raw, TextIOWrapper(raw, "utf-8-sig", newline="") as file:
        lines = csv.reader(file, strict=True)
        header = next(lines, None)
        if header is None:
            raise UserError(f"{what} is empty: give a column id and one for each attribute")
        yield header
        for line in lines:
            if len(line) > len(header):
                raise UserError(
                    f"{what}: line {lines.line_num} has {format_count(len(line), 'value')} for "
                    f"{format_count(len(header), 'column')}; correct the line"
                )
            if line:
                yield line + [None] * (len(header) - len(line))


def _read_parquet(path: Path, what: str, wanted: Sequence[str] | None) -> Iterator[Sequence[str | None]]:
    with open_plain_file(path, what) as raw, pq.ParquetFile(raw) as file:
        names = file.schema_arrow.names
        if wanted is not None:
            chosen = {_find_ids(names, what), *wanted}
            names = [name for name in names if name in chosen]
        yield names
        for batch in file.iter_batches(_AT_ONCE, columns=names):
            yield from zip(*(_texts(batch.column(name), name, what) for name in names), strict=True)


def _texts(column: pa.Array, name: str, what: str) -> list[str | None]:
    if pa.types.is_floating(column.type):
        column = pa.array(column.to_pandas(), from_pandas=True)  # NaN means no label
    try:
        return cast_to_text(pa.chunked_array([column])).to_pylist()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise UserError(
            f"{what}: column {name!r} has type {column.type}, which cannot hold labels; name other columns, "
            "for example --attributes a,b"
        ) from None
