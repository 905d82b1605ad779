"""Evaluates a condition on metadata columns, in DuckDB's SQL; it reads no file, sees no other table, decides by row.

The text is not trusted: DuckDB's own parser must find exactly one expression in it before anything is evaluated.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.errors import UserError, first_line
from fairdedup.storage.condition_process import call_bounded, connect, serve_calls
from fairdedup.storage.condition_syntax import (
    EXAMPLE,
    Node,
    check_deterministic,
    check_function,
    names_outside_lambdas,
    parse_condition,
    walk_nodes,
)

TABLE = "--where"
"""The name of the table in a query; no column has it, so a name in the condition can only mean a column."""
ROWS_AT_ONCE, BYTES_AT_ONCE = 100_000, 1 << 27
"""Rows of a shard, and bytes of them, that are evaluated in one call."""

Wanted = Literal["functions", "type", "values"]
"""What the child process answers: nothing unless a function does not exist, the name of a type, or the values."""


@dataclass(frozen=True)
class Condition:
    """A condition that has been checked.

    Attributes
    ----------
    text : str
        The condition, as the user wrote it.
    columns : tuple of str
        The columns that it reads.
    """

    text: str
    columns: tuple[str, ...]


def check_condition(text: str, schema: pa.Schema) -> Condition:
    """Check a condition against the metadata's columns.

    Parameters
    ----------
    text : str
        The condition, as the user wrote it.
    schema : pyarrow.Schema
        The columns that it may read.

    Returns
    -------
    Condition
        The condition, and the columns that it reads.

    Raises
    ------
    UserError
        If it reads a column that does not exist, is not of type BOOLEAN, or cannot be evaluated.
    """
    found = Condition(text, _columns(text, parse_condition(text), schema.names))
    empty = pa.schema([schema.field(name) for name in found.columns]).empty_table()
    kind = _call(found, empty, "type", schema.names)
    if kind != "BOOLEAN":
        raise UserError(f"--where {text!r} must be true or false, and is {kind}: {EXAMPLE}")
    return found


def _columns(text: str, tree: list[Node], names: list[str]) -> tuple[str, ...]:
    """Return which columns an expression reads: with exactly this name, else the only one that differs in case alone.

    DuckDB ignores case in names, so it is never given two columns that differ in case alone.
    """
    read: dict[str, str] = {}
    for name in (node["column_names"][0] for node in walk_nodes(tree) if node.get("column_names")):
        alike = [own for own in names if own.lower() == name.lower()]
        fit = [name] if name in alike else alike
        if len(fit) > 1:
            raise UserError(
                f"--where {text!r} names {name!r}: write {' or '.join(map(repr, fit))}, in the column's case"
            )
        if not fit:  # or a function that is called without brackets, such as current_date
            check_deterministic(text, name.lower())
            if name.lower() == TABLE:
                raise _no_column(text, name, names)
        for own in fit:
            other = read.setdefault(own.lower(), own)
            if other != own:
                raise UserError(f"--where {text!r} names {other!r} and {own!r}, one name in SQL: rename a column")
    return tuple(name for name in names if name in read.values())


def check_functions(text: str) -> None:
    """Refuse a text that is no condition, or that calls a function which does not exist, before any column is known.

    Parameters
    ----------
    text : str
        The condition, as the user wrote it.

    Raises
    ------
    UserError
        Naming the function.
    """
    names = {name.lower(): name for name in names_outside_lambdas(parse_condition(text)) if name.lower() != TABLE}
    known = Condition(text, tuple(names.values()))
    _call(known, pa.schema([(name, pa.null()) for name in known.columns]).empty_table(), "functions", [])


def list_columns_read(text: str, names: list[str]) -> set[str]:
    """Return the columns that a condition reads, while no type of a column is known.

    Parameters
    ----------
    text : str
        The condition, as the user wrote it.
    names : list of str
        The columns that there are going to be.

    Raises
    ------
    UserError
        If it is no condition, or reads a column that does not exist.
    """
    tree = parse_condition(text)
    read = set(_columns(text, tree, names))
    known = {name.lower() for name in names}
    for name in names_outside_lambdas(tree):
        if name.lower() not in known:
            raise _no_column(text, name, names)
    return read


def evaluate_condition(known: Condition, table: pa.Table) -> NDArray[np.bool_]:
    """Tell for which rows of a table the condition is true.

    Parameters
    ----------
    known : Condition
        What `check_condition` returned.
    table : pyarrow.Table
        n rows of the columns that the condition reads.

    Returns
    -------
    ndarray of shape (n,), bool
        False where the condition is false or null.

    Raises
    ------
    UserError
        If a value cannot be converted as the condition requires, or the condition takes too much time or memory.
    """
    if not known.columns:  # the same for every row
        table = pa.table({"": pa.nulls(table.num_rows)})
    rows = min(ROWS_AT_ONCE, max(1, table.num_rows * BYTES_AT_ONCE // max(1, table.nbytes)))
    found = [np.zeros(0, bool)]
    for start in range(0, table.num_rows, rows):
        found.append(_call(known, table.slice(start, rows), "values", table.column_names))
    return np.concatenate(found)


def _call(known: Condition, table: pa.Table, wanted: Wanted, names: list[str]) -> Any:
    """Return what `_evaluate` returns, from a process with limits. What is sent is these rows alone."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    request = {"text": known.text, "columns": known.columns, "wanted": wanted, "names": names}
    answer, values = call_bounded(known.text, table.num_rows, request, sink.getvalue().to_pybytes())
    return answer.get("type") if wanted != "values" else np.frombuffer(values, bool)


def serve() -> None:
    """Evaluate conditions for another process; this is the child process of `condition_process`."""
    serve_calls(_answer)


def _answer(request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    with pa.ipc.open_stream(data) as stream:
        table = stream.read_all()
    known = Condition(request["text"], tuple(request["columns"]))
    found = _evaluate(known, table, request["wanted"], request["names"])
    return ({"type": found}, b"") if request["wanted"] != "values" else ({}, found.tobytes())


def _evaluate(known: Condition, table: pa.Table, wanted: Wanted, columns: list[str]) -> Any:
    """Return the name of the expression's type, checked in WHERE, which forbids aggregates; or its values; or nothing.

    Columns whose type is not known have none, so of the mistakes only a function that does not exist counts there.
    """
    import duckdb

    if not table.column_names:
        table = pa.table({"": pa.nulls(0)})
    expression = f"(\n{known.text}\n)"
    with connect() as connection:
        try:
            connection.register("metadata", table)
            source = f'FROM metadata AS "{TABLE}"'
            if wanted != "values":
                connection.execute(f"SELECT 1 {source} WHERE {expression}")
            if wanted == "functions":
                return None
            if wanted == "type":
                kind = str(connection.sql(f"SELECT {expression} {source}").types[0])
                _check_bound(connection, known.text, f"SELECT {expression}")
                return kind
            values = connection.execute(f"SELECT coalesce({expression}, false) AS holds {source}").fetchnumpy()
            return np.asarray(values["holds"]).astype(bool)
        except duckdb.OutOfMemoryException:
            raise MemoryError from None
        except duckdb.Error as error:
            if wanted == "functions" and not isinstance(error, duckdb.CatalogException):
                return None
            raise _explain(known.text, error, columns) from None


def _explain(text: str, error: Exception, columns: list[str]) -> UserError:
    message = first_line(error)
    missing = re.search(r'Referenced (?:column|table) "(.+)" not found', message)
    if missing:
        return _no_column(text, missing[1], columns)
    remedy = "use TRY_CAST, which gives null" if message.startswith("Conversion") else EXAMPLE
    return UserError(f"--where {text!r} cannot be evaluated ({message}): {remedy}")


def _no_column(text: str, name: str, columns: list[str]) -> UserError:
    return UserError(f"--where {text!r} names column {name!r}: the metadata has {', '.join(columns)}")


def _check_bound(connection: Any, text: str, query: str) -> None:
    """Refuse changing functions under other names: words such as localtime, macros, and age of one time (until now).

    Only DuckDB knows what these mean, so its plan is inspected. It writes no plans over Arrow tables, so the plan is
    over a copy, which is empty.
    """
    connection.execute("CREATE TABLE plain AS SELECT * FROM metadata")
    answer = connection.execute("SELECT json_serialize_plan($1::VARCHAR)", [f'{query} FROM plain AS "{TABLE}"'])
    plan = json.loads(answer.fetchone()[0])
    if plan["error"]:
        raise UserError(f"--where {text!r} cannot be checked ({first_line(plan['error_message'])}): {EXAMPLE}")
    for node in walk_nodes(plan["plans"], "expression_class"):
        if node["expression_class"] == "BOUND_FUNCTION":
            name = node["name"] if "name" in node else node["qname"]["path"][-1]  # DuckDB 1 and 2
            check_function(text, name, len(node["children"]))
