"""A file of labels: an id a line and a column for each attribute, as CSV or Parquet; all of it is text."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fairdedup.datasets.ids import find_id_column
from fairdedup.datasets.rows import cast_to_text
from fairdedup.errors import UserError

MOST_GROUPS = 50  # more distinct values are hardly an attribute, unless it is named
MOST_NAMED = 1000
_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Labels:
    """The labels of n samples.

    Attributes
    ----------
    places : dict of str to int
        Of each id, its line.
    attributes : tuple of str
    groups : tuple of tuple of str
        Of each attribute, its labels in order.
    codes : ndarray of shape (n, attributes), int32
        Which label; -1 where there is none.
    """

    places: dict[str, int]
    attributes: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    codes: NDArray[np.int32]


def read_labels(path: Path, attributes: Sequence[str] | None) -> Labels:
    """Read a file of labels.

    Parameters
    ----------
    path : Path
        .csv or .parquet, with a column id, uid or key.
    attributes : sequence of str or None
        Which columns are attributes; None: all others.

    Raises
    ------
    UserError
        If it cannot be read, an id stands twice, or a column is not there or has too many different values.
    """
    what = f"--labels {str(path)!r}"
    if not path.is_file():
        raise UserError(f"{what}: no such file; give a .csv or .parquet with a column id and one for each attribute")
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise UserError(f"{what} is of no known kind: give a .csv or .parquet")
    try:
        lines = _of_csv(path, what) if path.suffix.lower() == ".csv" else _of_parquet(path, what, attributes)
        return _collect(lines, attributes, what)
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{what} cannot be read ({str(error).splitlines()[0]}): write it anew") from None


def _collect(lines: Iterator[Sequence[str | None]], wanted: Sequence[str] | None, what: str) -> Labels:
    header = [str(name) for name in next(lines)]
    for name in header:
        if header.count(name) > 1:
            raise UserError(f"{what}: column {name!r} stands twice; name each column differently")
    own = header.index(find_id_column(header, what))
    names = tuple(dict.fromkeys(wanted)) if wanted is not None else tuple(n for k, n in enumerate(header) if k != own)
    for name in names:
        if name not in header or name == header[own]:
            there = ", ".join(n for n in header if n != header[own]) or "none"
            raise UserError(f"{what}: no attribute {name!r}; its columns of labels are {there}")
    if not names:
        raise UserError(f"{what} has no column beside {header[own]!r}: add one for each attribute")
    columns = [header.index(name) for name in names]
    known: list[dict[str, int]] = [{} for _ in names]
    most = MOST_GROUPS if wanted is None else MOST_NAMED
    places: dict[str, int] = {}
    codes: list[list[int]] = []
    for number, line in enumerate(lines, 2):
        name = line[own] or ""
        if not name:
            raise UserError(f"{what}: line {number} has no id; fill it, or take the line out")
        if places.setdefault(name, len(places)) != number - 2:
            raise UserError(f"{what}: id {name!r} stands twice, again in line {number}; give one line for each id")
        codes.append([_code(known[k], line[c]) for k, c in enumerate(columns)])
        for k, groups in enumerate(known):
            if len(groups) > most:
                raise UserError(
                    f"{what}: column {names[k]!r} has more than {most} different values; "
                    + ("group them" if wanted is not None else "name those that are attributes, as --attributes a,b")
                )
    if not places:
        raise UserError(f"{what} has no lines: give one for each id")
    ordered = [sorted(groups) for groups in known]
    found = np.array(codes, np.int32)
    for k, groups in enumerate(known):
        rank = np.array([ordered[k].index(g) for g in groups] + [-1], np.int32)  # -1 takes the last
        found[:, k] = rank[found[:, k]]
    return Labels(places, names, tuple(map(tuple, ordered)), found)


def _code(known: dict[str, int], value: str | None) -> int:
    if value is None or not value.strip():
        return -1
    return known.setdefault(value, len(known))


def _of_csv(path: Path, what: str) -> Iterator[Sequence[str | None]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, strict=True)
        header = next(lines, None)
        if header is None:
            raise UserError(f"{what} is empty: give a column id and one for each attribute")
        yield header
        for line in lines:
            if len(line) > len(header):
                raise UserError(
                    f"{what}: line {lines.line_num} has {len(line)} values for {len(header)} columns; mend it"
                )
            if line:
                yield line + [None] * (len(header) - len(line))


def _of_parquet(path: Path, what: str, wanted: Sequence[str] | None) -> Iterator[Sequence[str | None]]:
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        if wanted is not None:
            names = [n for n in names if n in (find_id_column(names, what), *wanted)]
        yield names
        for batch in file.iter_batches(_AT_ONCE, columns=names):
            yield from zip(*(_texts(batch.column(name), name, what) for name in names), strict=True)


def _texts(column: pa.Array, name: str, what: str) -> list[str | None]:
    if pa.types.is_floating(column.type):
        column = pa.array(column.to_pandas(), from_pandas=True)  # NaN is no label
    try:
        return cast_to_text(pa.chunked_array([column])).to_pylist()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise UserError(
            f"{what}: column {name!r} is {column.type}, no labels; name those that are, as --attributes a,b"
        ) from None
