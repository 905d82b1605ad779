"""A condition on metadata columns, in SQL as DuckDB has it; reads no file, sees no other table, and decides by row.

The text comes from outside: DuckDB's own parser says that it is one expression before anything is evaluated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fairdedup.errors import UserError

EXAMPLE = "write one as in --where \"width >= 256 AND language = 'en'\""
LOCKED: dict[str, Any] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "threads": "1",
}
TABLE = "--where"
"""What the metadata are called in a query: no column's name, so that names are of columns only."""
SAME_EVERYWHERE = ("TimeZone = 'UTC'", "Calendar = 'gregorian'")
"""What a session would take from the machine's clock and locale."""


@dataclass(frozen=True)
class Condition:
    """A condition that has been found to be one.

    Attributes
    ----------
    text : str
    columns : tuple of str
        The columns that it reads.
    """

    text: str
    columns: tuple[str, ...]


def parse_condition(text: str) -> Any:
    """Return the tree of one expression.

    Raises
    ------
    UserError
        If it is none, or more than that, or looks elsewhere than into the row.
    """
    if not text.strip():
        raise UserError(f"--where is empty: {EXAMPLE}")
    with _connect() as connection:
        tree = _statement(connection, text)
        plain = _statement(connection, "true")
    expressions = tree.pop("select_list")
    if tree != {name: part for name, part in plain.items() if name != "select_list"} or len(expressions) != 1:
        raise UserError(f"--where {text!r} is more than one condition: {EXAMPLE}")
    for node in _nodes(expressions):
        if node["class"] in ("SUBQUERY", "WINDOW", "PARAMETER", "STAR", "POSITIONAL_REFERENCE"):
            raise UserError(f"--where {text!r} looks beyond its row ({node['class'].lower()}): {EXAMPLE}")
        _check_lasting(text, node.get("function_name"))
    return expressions


def _check_lasting(text: str, name: str | None) -> None:
    if name in _changing():
        raise UserError(f"--where {text!r} calls {name}, which answers differently each time: leave it out")


@cache
def _changing() -> frozenset[str]:
    """Return the functions whose answer is not one and the same for the same row.

    DuckDB lists some that read the clock as constant; one that is never given anything can tell of nothing else.
    """
    query = """
        SELECT function_name FROM duckdb_functions() WHERE function_type = 'scalar' AND function_name <> 'pi'
        GROUP BY function_name
        HAVING bool_or(stability <> 'CONSISTENT') OR (max(len(parameters)) = 0 AND bool_and(varargs IS NULL))
    """
    with _connect() as connection:
        listed = frozenset(name for (name,) in connection.execute(query).fetchall())
    return listed | {"current_setting"}  # before 2.0 called constant


def _check_bound(connection: Any, text: str, query: str) -> None:
    """Refuse what changes under another name: words such as localtime, macros, and age of one time, which is until now.

    Only DuckDB knows what it makes of them, so its plan is asked, of an empty table: it writes none of Arrow tables.
    """
    connection.execute("CREATE TABLE plain AS SELECT * FROM metadata")
    asked = connection.execute("SELECT json_serialize_plan($1::VARCHAR)", [f'{query} FROM plain AS "{TABLE}"'])
    plan = json.loads(asked.fetchone()[0])
    if plan["error"]:
        raise UserError(f"--where {text!r} cannot be checked ({plan['error_message'].splitlines()[0]}): {EXAMPLE}")
    for node in _nodes(plan["plans"], "expression_class"):
        if node["expression_class"] == "BOUND_FUNCTION":
            name = node["name"] if "name" in node else node["qname"]["path"][-1]  # DuckDB 1 and 2
            _check_lasting(text, name)
            if name == "age" and len(node["children"]) == 1:
                raise UserError(f"--where {text!r} calls age of one time, which is until now: give it two")


def check_condition(text: str, schema: pa.Schema) -> Condition:
    """Check a condition against the metadata's columns.

    Raises
    ------
    UserError
        Naming the column that is not there, or what else is wrong, in one line.
    """
    found = Condition(text, _columns(text, parse_condition(text), schema.names))
    empty = pa.schema([schema.field(name) for name in found.columns]).empty_table()
    kind = _evaluate(found, empty, "WHERE", schema.names)
    if kind != "BOOLEAN":
        raise UserError(f"--where {text!r} is {kind}, neither true nor false: {EXAMPLE}")
    return found


def _columns(text: str, tree: Any, names: list[str]) -> tuple[str, ...]:
    """Return which columns an expression reads: of the very name, else the only one that is alike but for case.

    To DuckDB names that differ in case are one, so no two of such are ever given to it.
    """
    read: dict[str, str] = {}
    for name in (node["column_names"][0] for node in _nodes(tree) if node.get("column_names")):
        alike = [own for own in names if own.lower() == name.lower()]
        fit = [name] if name in alike else alike
        if len(fit) > 1:
            raise UserError(f"--where {text!r} names {name!r}: write {' or '.join(map(repr, fit))}, as the column is")
        if not fit:  # current_date is called without brackets
            _check_lasting(text, name.lower())
            if name.lower() == TABLE:
                raise _no_column(text, name, names)
        for own in fit:
            other = read.setdefault(own.lower(), own)
            if other != own:
                raise UserError(f"--where {text!r} names {other!r} and {own!r}, one name in SQL: rename a column")
    return tuple(name for name in names if name in read.values())


def evaluate_condition(known: Condition, table: pa.Table) -> NDArray[np.bool_]:
    """Return for which rows of a table (n rows) the condition is true; null is not.

    Raises
    ------
    UserError
        If a value cannot be read as the condition asks.
    """
    if not known.columns:  # the same for every row
        table = pa.table({"": pa.nulls(table.num_rows)})
    return _evaluate(known, table, "SELECT", table.column_names)


def _evaluate(known: Condition, table: pa.Table, how: str, columns: list[str]) -> Any:
    """Return the type of the expression where it may stand in WHERE (which forbids aggregates), or its values."""
    import duckdb

    if not table.column_names:
        table = pa.table({"": pa.nulls(0)})
    expression = f"(\n{known.text}\n)"
    with _connect() as connection:
        try:
            connection.register("metadata", table)
            source = f'FROM metadata AS "{TABLE}"'
            if how == "WHERE":
                connection.execute(f"SELECT 1 {source} WHERE {expression}")
                kind = str(connection.sql(f"SELECT {expression} {source}").types[0])
                _check_bound(connection, known.text, f"SELECT {expression}")
                return kind
            values = connection.execute(f"SELECT coalesce({expression}, false) AS holds {source}").fetchnumpy()
            return np.asarray(values["holds"]).astype(bool)
        except duckdb.Error as error:
            raise _refused(known.text, error, columns) from None


def _refused(text: str, error: Exception, columns: list[str]) -> UserError:
    message = str(error).strip().splitlines()[0]
    missing = re.search(r'Referenced (?:column|table) "(.+)" not found', message)
    if missing:
        return _no_column(text, missing[1], columns)
    mend = "use TRY_CAST, which gives null" if message.startswith("Conversion") else EXAMPLE
    return UserError(f"--where {text!r} cannot be evaluated ({message}): {mend}")


def _no_column(text: str, name: str, columns: list[str]) -> UserError:
    return UserError(f"--where {text!r} names column {name!r}: the metadata has {', '.join(columns)}")


def _connect() -> Any:
    import duckdb

    connection = duckdb.connect(":memory:", config=LOCKED)
    connection.execute("SET python_enable_replacements = false")  # a name is a column, never a variable of ours
    for setting in SAME_EVERYWHERE:
        connection.execute(f"SET {setting}")
    connection.execute("SET lock_configuration = true")
    return connection


def _statement(connection: Any, text: str) -> dict[str, Any]:
    query = f"SELECT (\n{text}\n)"
    answer = json.loads(connection.execute("SELECT json_serialize_sql($1::VARCHAR)", [query]).fetchone()[0])
    if answer["error"]:
        message = answer["error_message"].splitlines()[0]
        raise UserError(f"--where {text!r} is no condition ({message}): {EXAMPLE}")
    if len(answer["statements"]) != 1 or answer["statements"][0]["node"]["type"] != "SELECT_NODE":
        raise UserError(f"--where {text!r} is more than one condition: {EXAMPLE}")
    node: dict[str, Any] = answer["statements"][0]["node"]
    return node


def _nodes(tree: Any, mark: str = "class") -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        if mark in tree:
            yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for part in tree:
            yield from _nodes(part, mark)
