"""Evaluates a condition on metadata columns, in DuckDB's SQL; it reads no file, sees no other table, decides by row.

The text is not trusted: DuckDB's own parser must find exactly one expression in it before anything is evaluated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.errors import UserError, first_line
from fairdedup.storage.condition_process import LESS, call_bounded, connect, serve_calls

EXAMPLE = "write one as in --where \"width >= 256 AND language = 'en'\""
TABLE = "--where"
"""The name of the table in a query; no column has it, so a name in the condition can only mean a column."""
MOST_LETTERS = 20_000
"""Largest length of a condition."""

ROWS_AT_ONCE, BYTES_AT_ONCE = 100_000, 1 << 27
"""Rows of a shard, and bytes of them, that are evaluated in one call."""

_WORD = re.compile("[a-z_][a-z0-9_]*")
_CHANGING_WORDS = {"select", "current_timestamp", "current_date", "current_time", "localtime", "localtimestamp"}
"""Words in the definition of a macro that read the clock, or tables."""

Node = dict[str, Any]
"""A node of the tree that DuckDB returns as JSON."""


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


def parse_condition(text: str) -> list[Node]:
    """Parse a condition into the tree of one expression.

    Parameters
    ----------
    text : str
        The condition, as the user wrote it.

    Raises
    ------
    UserError
        If it is not exactly one expression, or uses more than the values of its row.
    """
    if len(text) > MOST_LETTERS:
        raise UserError(f"--where has {len(text):,} letters, and at most {MOST_LETTERS:,} are read: {LESS}")
    if not text.strip():
        raise UserError(f"--where is empty: {EXAMPLE}")
    with connect() as connection:
        tree = _statement(connection, text)
        plain = _statement(connection, "true")
    expressions: list[Node] = tree.pop("select_list")
    if tree != {name: part for name, part in plain.items() if name != "select_list"} or len(expressions) != 1:
        raise UserError(f"--where {text!r} is more than one condition: {EXAMPLE}")
    for node in _nodes_of(text, expressions):
        if node["class"] in ("SUBQUERY", "WINDOW", "PARAMETER", "STAR", "POSITIONAL_REFERENCE"):
            raise UserError(f"--where {text!r} uses more than its own row ({node['class'].lower()}): {EXAMPLE}")
        arguments = node.get("arguments") or node.get("children") or []  # DuckDB 2 and 1
        _check_function(text, node.get("function_name"), len(arguments))
    return expressions


def _check_function(text: str, name: str | None, arguments: int) -> None:
    _check_deterministic(text, name)
    if name == "age" and arguments == 1:
        raise UserError(f"--where {text!r} calls age of one time, which depends on the clock: give it two times")


def _check_deterministic(text: str, name: str | None) -> None:
    if name in _list_nondeterministic():
        raise UserError(f"--where {text!r} calls {name}, whose value changes between calls: remove it")


@cache
def _list_nondeterministic() -> frozenset[str]:
    """Return the functions whose value is not always the same for the same row.

    DuckDB lists some that read the clock as constant, so all functions without parameters count as well.
    """
    query = """
        SELECT function_name FROM duckdb_functions() WHERE function_type = 'scalar' AND function_name <> 'pi'
        GROUP BY function_name
        HAVING bool_or(stability <> 'CONSISTENT') OR (max(len(parameters)) = 0 AND bool_and(varargs IS NULL))
    """
    macros = "SELECT function_name, lower(macro_definition) FROM duckdb_functions() WHERE function_type = 'macro'"
    with connect() as connection:
        listed = {name for (name,) in connection.execute(query).fetchall()}
        defined = [(name, set(_WORD.findall(text or ""))) for name, text in connection.execute(macros).fetchall()]
    listed |= {"current_setting"}  # DuckDB before 2.0 lists it as constant
    number = 0
    while len(listed) > number:  # a macro may call another one
        number = len(listed)
        listed |= {name for name, words in defined if words & (listed | _CHANGING_WORDS)}
    return frozenset(listed)


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
    for node in _nodes(plan["plans"], "expression_class"):
        if node["expression_class"] == "BOUND_FUNCTION":
            name = node["name"] if "name" in node else node["qname"]["path"][-1]  # DuckDB 1 and 2
            _check_function(text, name, len(node["children"]))


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
    for name in (node["column_names"][0] for node in _nodes(tree) if node.get("column_names")):
        alike = [own for own in names if own.lower() == name.lower()]
        fit = [name] if name in alike else alike
        if len(fit) > 1:
            raise UserError(
                f"--where {text!r} names {name!r}: write {' or '.join(map(repr, fit))}, in the column's case"
            )
        if not fit:  # or a function that is called without brackets, such as current_date
            _check_deterministic(text, name.lower())
            if name.lower() == TABLE:
                raise _no_column(text, name, names)
        for own in fit:
            other = read.setdefault(own.lower(), own)
            if other != own:
                raise UserError(f"--where {text!r} names {other!r} and {own!r}, one name in SQL: rename a column")
    return tuple(name for name in names if name in read.values())


def check_names(text: str, names: list[str]) -> None:
    """Refuse a condition (text) on a column that is not among these names, while no type of a column is known."""
    known = {name.lower() for name in names}
    tree = [] if "->" in text or "lambda" in text.lower() else parse_condition(text)  # parameters look like columns
    for node in _nodes(tree):
        if node.get("column_names") and node["column_names"][0].lower() not in known:
            raise _no_column(text, node["column_names"][0], names)


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


def _call(known: Condition, table: pa.Table, wanted: Literal["type", "values"], names: list[str]) -> Any:
    """Return what `_evaluate` returns, from a process with limits. What is sent is these rows alone."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    request = {"text": known.text, "columns": known.columns, "wanted": wanted, "names": names}
    answer, values = call_bounded(known.text, table.num_rows, request, sink.getvalue().to_pybytes())
    return answer["type"] if wanted == "type" else np.frombuffer(values, bool)


def serve() -> None:
    """Evaluate conditions for another process; this is the child process of `condition_process`."""
    serve_calls(_answer)


def _answer(request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    with pa.ipc.open_stream(data) as stream:
        table = stream.read_all()
    known = Condition(request["text"], tuple(request["columns"]))
    found = _evaluate(known, table, request["wanted"], request["names"])
    return ({"type": found}, b"") if request["wanted"] == "type" else ({}, found.tobytes())


def _evaluate(known: Condition, table: pa.Table, wanted: Literal["type", "values"], columns: list[str]) -> Any:
    """Return the name of the expression's type, checked in WHERE, which forbids aggregates; or its values."""
    import duckdb

    if not table.column_names:
        table = pa.table({"": pa.nulls(0)})
    expression = f"(\n{known.text}\n)"
    with connect() as connection:
        try:
            connection.register("metadata", table)
            source = f'FROM metadata AS "{TABLE}"'
            if wanted == "type":
                connection.execute(f"SELECT 1 {source} WHERE {expression}")
                kind = str(connection.sql(f"SELECT {expression} {source}").types[0])
                _check_bound(connection, known.text, f"SELECT {expression}")
                return kind
            values = connection.execute(f"SELECT coalesce({expression}, false) AS holds {source}").fetchnumpy()
            return np.asarray(values["holds"]).astype(bool)
        except duckdb.OutOfMemoryException:
            raise MemoryError from None
        except duckdb.Error as error:
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


def _statement(connection: Any, text: str) -> Node:
    query = f"SELECT (\n{text}\n)"
    answer = json.loads(connection.execute("SELECT json_serialize_sql($1::VARCHAR)", [query]).fetchone()[0])
    if answer["error"]:
        message = first_line(answer["error_message"])
        raise UserError(f"--where {text!r} is not a condition ({message}): {EXAMPLE}")
    if len(answer["statements"]) != 1 or answer["statements"][0]["node"]["type"] != "SELECT_NODE":
        raise UserError(f"--where {text!r} is more than one condition: {EXAMPLE}")
    node: Node = answer["statements"][0]["node"]
    return node


def _nodes_of(text: str, expressions: list[Node]) -> list[Node]:
    try:
        return list(_nodes(expressions))
    except RecursionError:
        raise UserError(f"--where has expressions within expressions, too many to read: {LESS}") from None


def _nodes(tree: Any, mark: str = "class") -> Iterator[Node]:
    if isinstance(tree, dict):
        if mark in tree:
            yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for part in tree:
            yield from _nodes(part, mark)
